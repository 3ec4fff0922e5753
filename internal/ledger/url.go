package ledger

import (
	"cmp"
	"fmt"
	"maps"
	"net/url"
	"os"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5/pgconn"

	"postern/internal/text"
)

// postgresSource returns the data source of a postgres:// URL, or what is wrong
// with it. A reason holds nothing of the URL but the name of a parameter, or of a
// file: any other part may be a password's.
func postgresSource(ledgerURL string, readOnly bool) (dsn, reason string) {
	u, err := url.Parse(ledgerURL)
	_, rest, _ := strings.Cut(ledgerURL, "://")
	rest = strings.TrimLeftFunc(rest, func(r rune) bool { return !strings.ContainsRune("/?#", r) }) // behind the host
	_, query, _ := strings.Cut(rest, "?")
	_, badQuery := url.ParseQuery(query)
	err = cmp.Or(err, badQuery)
	switch {
	case strings.Contains(rest, "#"), strings.Contains(rest, "@"), err != nil && strings.ContainsAny(ledgerURL, "@%"):
		return "", "not a URL: in a user or password write @ as %40, / as %2F, # as %23, ? as %3F and % as %25, " +
			"or put the password into a file (passfile=)"
	case err != nil || u.Host == "" && u.Query().Get("host") == "":
		return "", "not a postgres:// URL with a host: write postgres://user@host/database"
	}
	c, err := pgconn.ParseConfig(ledgerURL)
	if err != nil {
		return "", badParameter(u) // the error may quote a password
	}
	q := u.Query()
	if !q.Has("default_query_exec_mode") {
		q.Set("default_query_exec_mode", "exec") // prepared statements get lost behind PgBouncer
	}
	if c.ConnectTimeout == 0 { // a server that has died says nothing, and the next one has its turn
		q.Set("connect_timeout", "5")
	}
	if several := strings.Contains(u.Host+q.Get("host"), ","); several && !readOnly && c.ValidateConnect == nil && !q.Has("target_session_attrs") {
		q.Set("target_session_attrs", "read-write") // the first that answers may be a standby
	}
	u.RawQuery = q.Encode()
	return u.String(), ""
}

// badParameter finds the parameter without which a URL can be used.
func badParameter(u *url.URL) string {
	for _, name := range slices.Sorted(maps.Keys(u.Query())) {
		q, without := u.Query(), *u
		value := q.Get(name)
		q.Del(name)
		without.RawQuery = q.Encode()
		if _, err := pgconn.ParseConfig(without.String()); err != nil {
			continue
		}
		switch name {
		case "sslmode":
			return "its sslmode is none of disable, allow, prefer, require, verify-ca, verify-full"
		case "sslrootcert", "sslcert", "sslkey":
			if _, err := os.ReadFile(value); err != nil {
				return fmt.Sprintf("its %s: %v", name, text.FileError(value, err))
			}
		}
		return "its parameter " + name + " cannot be used"
	}
	return "its parameters cannot be used: see sslmode, the files that they name, and variables such as PGSSLMODE"
}

// passfileProblem returns why a passfile gives no password: pgx goes on without.
func passfileProblem(dsn string) string {
	u, _ := url.Parse(dsn) // which postgresSource has written
	file := u.Query().Get("passfile")
	if c, err := pgconn.ParseConfig(dsn); file == "" || err != nil || c.Password != "" {
		return ""
	}
	if _, err := os.ReadFile(file); err != nil {
		return "its passfile: " + text.FileError(file, err).Error()
	}
	return fmt.Sprintf("its passfile: %s: no line for this server: one is host:port:database:user:password, where * is any", file)
}
