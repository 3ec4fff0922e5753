package ledger

import (
	"context"
	"crypto/tls"
	"database/sql"
	"encoding/json"
	"fmt"
	"net/netip"
	"slices"

	"postern/policy"
)

// Hello is the part of a hello that a policy judges, as IANA numbers, in the
// JSON of the API.
type Hello struct {
	SSL2Format       bool                  `json:"ssl2_format,omitempty"`
	Versions         []uint16              `json:"versions"`
	CipherSuites     []uint16              `json:"cipher_suites"`
	SSL2Ciphers      []uint32              `json:"ssl2_ciphers,omitempty"`
	Groups           []tls.CurveID         `json:"groups"`
	Points           []uint16              `json:"point_formats,omitempty"` // bytes would become base64
	SignatureSchemes []tls.SignatureScheme `json:"signature_schemes"`
}

// HelloOf returns the JSON of a hello.
func HelloOf(h *policy.Hello) Hello {
	v := Hello{
		SSL2Format: h.SSL2Format, Versions: h.Versions, CipherSuites: h.CipherSuites, SSL2Ciphers: h.SSL2Ciphers,
		Groups: h.Groups, SignatureSchemes: h.SignatureSchemes,
	}
	for _, p := range h.Points {
		v.Points = append(v.Points, uint16(p))
	}
	return v
}

// ForPolicy returns the hello as a policy judges it.
func (v *Hello) ForPolicy() policy.Hello {
	h := policy.Hello{
		SSL2Format: v.SSL2Format, Versions: v.Versions, CipherSuites: v.CipherSuites, SSL2Ciphers: v.SSL2Ciphers,
		Groups: v.Groups, SignatureSchemes: v.SignatureSchemes,
	}
	for _, p := range v.Points {
		h.Points = append(h.Points, uint8(p))
	}
	return h
}

// Hellos returns the hello behind each fingerprint.
func (s *Store) Hellos(ctx context.Context) (map[string]policy.Hello, error) {
	return s.hellos(ctx, "")
}

// HellosOf returns the hellos of clients, as far as they are kept.
func (s *Store) HellosOf(ctx context.Context, list []Client) (map[string]policy.Hello, error) {
	var args []any
	for i := range list {
		if j := any(list[i].JA4); !slices.Contains(args, j) {
			args = append(args, j)
		}
	}
	if args == nil {
		return nil, nil
	}
	return s.hellos(ctx, "WHERE ja4 IN ("+marks(1, len(args))+")", args...)
}

func (s *Store) hellos(ctx context.Context, where string, args ...any) (map[string]policy.Hello, error) {
	type row struct {
		ja4, hello string
	}
	rows, err := query(ctx, s.db, "reading hellos", `SELECT ja4, hello FROM hellos `+where, args, func(rows *sql.Rows, r *row) error {
		return rows.Scan(&r.ja4, &r.hello)
	})
	all := make(map[string]policy.Hello, len(rows))
	for _, r := range rows {
		var h policy.Hello
		if err := json.Unmarshal([]byte(r.hello), &h); err != nil {
			return nil, fmt.Errorf("reading the hello of %s: %w", r.ja4, err)
		}
		all[r.ja4] = h
	}
	return all, err
}

// fingerprints lists those whose hellos are kept.
func (s *Store) fingerprints(ctx context.Context) ([]policy.JA4, error) {
	return query(ctx, s.db, "reading hellos", `SELECT ja4 FROM hellos`, nil, func(rows *sql.Rows, ja4 *policy.JA4) error {
		var ja4Text sql.RawBytes
		err := rows.Scan(&ja4Text)
		copy(ja4[:], ja4Text)
		return err
	})
}

// account is a row of accounts.
type account struct {
	accountKey
	span
}

// accountsSince lists the accounts that have logged in since a time, latest
// first.
func (s *Store) accountsSince(ctx context.Context, since int64) ([]account, error) {
	return query(ctx, s.db, "reading accounts", `SELECT client, ja4, account, software, first_seen, last_seen FROM accounts
		WHERE last_seen >= $1 ORDER BY last_seen DESC LIMIT $2`, []any{since, maxKnown}, func(rows *sql.Rows, a *account) error {
		var client, ja4 string
		err := rows.Scan(&client, &ja4, &a.account, &a.software, &a.first, &a.last)
		a.client, _ = netip.ParseAddr(client)
		copy(a.ja4[:], ja4)
		return err
	})
}

// stamp changes whenever a table does.
type stamp struct{ n, sum int64 }

func (s *Store) stamp(ctx context.Context, table, sum string) (t stamp, err error) {
	err = s.db.QueryRowContext(ctx, fmt.Sprintf(`SELECT count(*), CAST(COALESCE(sum(%s), 0) AS BIGINT) FROM %s`, sum, table)).Scan(&t.n, &t.sum)
	if err != nil {
		return stamp{}, fmt.Errorf("reading %s: %w", table, err)
	}
	return t, nil
}
