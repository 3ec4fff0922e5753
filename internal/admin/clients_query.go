package admin

import (
	"errors"
	"fmt"
	"maps"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"postern/internal/ledger"
	"postern/internal/text"
	"postern/policy"
	"postern/proxy"
)

const (
	// defaultLimit is the number of clients in a JSON answer without a limit
	// parameter, and maxLimit its bound.
	defaultLimit = 100
	maxLimit     = 1000
)

// clientsQuery is a query for clients.
type clientsQuery struct {
	filter ledger.Filter
	cursor string
	// limit is 0 only in CSV, for all clients.
	limit int
	csv   bool
}

// clientsKeys read a value each.
var clientsKeys = map[string]func(q *clientsQuery, value string, now time.Time) error{
	"version": func(q *clientsQuery, value string, _ time.Time) (err error) {
		q.filter.Version, err = policy.ParseVersion(value)
		return err
	},
	"listener": func(q *clientsQuery, value string, _ time.Time) (err error) {
		q.filter.Listener = proxy.Listener(value)
		_, err = policy.ParseListener(value)
		return err
	},
	"account": func(q *clientsQuery, value string, _ time.Time) error {
		q.filter.Account = value
		return words(value)
	},
	"software": func(q *clientsQuery, value string, _ time.Time) error {
		q.filter.Software = value
		return words(value)
	},
	"since": func(q *clientsQuery, value string, now time.Time) (err error) {
		q.filter.Since, err = text.ParseSince(value, now)
		return err
	},
	"noise": func(q *clientsQuery, value string, _ time.Time) error {
		q.filter.Noise = true
		return oneOf(value, "include")
	},
	"format": func(q *clientsQuery, value string, _ time.Time) error {
		q.csv = value == "csv"
		return oneOf(value, "json", "csv")
	},
	"limit": func(q *clientsQuery, value string, _ time.Time) (err error) {
		q.limit, err = strconv.Atoi(value)
		if err != nil || q.limit < 1 || q.limit > maxLimit {
			return fmt.Errorf("not a number from 1 to %d", maxLimit)
		}
		return nil
	},
	"cursor": func(q *clientsQuery, value string, _ time.Time) error {
		q.cursor = value
		return nil
	},
}

// parseClientsQuery reads a query; the error names the parameter. Only the
// cursor may be empty, as next_cursor can be: a script with an unset variable
// would otherwise get all clients.
func parseClientsQuery(raw string, now time.Time) (clientsQuery, error) {
	var q clientsQuery
	values, err := url.ParseQuery(raw)
	if err != nil {
		return q, errors.New("the query is not of the form name=value&name=value, with % as %25 and so on")
	}
	for _, key := range slices.Sorted(maps.Keys(values)) {
		read, known := clientsKeys[key]
		switch v := values[key]; {
		case !known:
			err = fmt.Errorf("no such parameter; there are %s", strings.Join(slices.Sorted(maps.Keys(clientsKeys)), ", "))
		case len(v) > 1:
			err = errors.New("given more than once")
		default:
			err = read(&q, v[0], now)
		}
		if err != nil {
			return q, fmt.Errorf("%s: %w", text.Clip(key, maxShown, "…"), err)
		}
	}
	if q.limit == 0 && !q.csv {
		q.limit = defaultLimit
	}
	return q, nil
}

// words rejects text that is no name, or that some databases cannot look up.
func words(s string) error {
	if s == "" || !utf8.ValidString(s) || strings.ContainsFunc(s, unicode.IsControl) {
		return errors.New("not a text on one line")
	}
	return nil
}

func oneOf(value string, good ...string) error {
	if slices.Contains(good, value) {
		return nil
	}
	return fmt.Errorf("use %s", strings.Join(good, " or "))
}

// maxShown bounds each text from a client, in characters.
const maxShown = 60
