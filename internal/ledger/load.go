package ledger

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"postern/internal/text"
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
	all := make(map[string]policy.Hello)
	return all, read(ctx, s.db, "reading hellos", `SELECT ja4, hello FROM hellos `+where, args, func(r row) error {
		var h policy.Hello
		err := json.Unmarshal(r.text(1), &h)
		if all[string(r.text(0))] = h; err != nil {
			return fmt.Errorf("of %s: %w", r.text(0), err)
		}
		return nil
	})
}

// fingerprints lists those whose hellos are kept.
func (s *Store) fingerprints(ctx context.Context) ([]policy.JA4, error) {
	return query(ctx, s.db, "reading hellos", `SELECT ja4 FROM hellos`, nil, func(r row) (ja4 policy.JA4) {
		copy(ja4[:], r.text(0))
		return ja4
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
		WHERE last_seen >= $1 ORDER BY last_seen DESC LIMIT $2`, []any{since, maxKnown}, func(r row) (a account) {
		a.client, _ = netip.ParseAddr(string(r.text(0)))
		copy(a.ja4[:], r.text(1))
		a.account, a.software, a.first, a.last = string(r.text(2)), string(r.text(3)), r.int(4), r.int(5)
		return a
	})
}

// stamp changes whenever a table does.
type stamp struct{ n, sum int64 }

func (s *Store) stamp(ctx context.Context, table, sum string) (t stamp, err error) {
	statement := fmt.Sprintf(`SELECT count(*), CAST(COALESCE(sum(%s), 0) AS BIGINT) FROM %s`, sum, table)
	err = read(ctx, s.db, "reading "+table, statement, nil, func(r row) error {
		t = stamp{r.int(0), r.int(1)}
		return nil
	})
	return t, err
}

// State is a text that changes with every batch of a recorder, here or elsewhere,
// and whenever something is erased.
func (s *Store) State(ctx context.Context) (string, error) {
	t, err := s.stamp(ctx, "batches", "number")
	return fmt.Sprint(t.n, ".", t.sum), err
}

// Programs returns the programs of accounts, at whatever address and with whatever
// fingerprint they logged in, in order.
func (s *Store) Programs(ctx context.Context, accounts []string) (map[string][]string, error) {
	programs := make(map[string][]string)
	if len(accounts) == 0 {
		return programs, nil
	}
	args := []any{noID}
	for _, a := range accounts {
		args = append(args, storable(a))
	}
	return programs, read(ctx, s.db, "reading programs", `SELECT DISTINCT account, software FROM accounts
		WHERE software <> '' AND software <> $1 AND account IN (`+marks(2, len(accounts))+`) ORDER BY account, software`, args,
		func(r row) error {
			account := string(r.text(0))
			programs[account] = append(programs[account], string(r.text(1)))
			return nil
		})
}

// AddDays fills in the days of a few clients, from a day in UTC on.
func (s *Store) AddDays(ctx context.Context, list []Client, first time.Time) error {
	if len(list) == 0 {
		return nil
	}
	places, last := make(map[int64]*Client), first
	for i := range list {
		list[i].Days = nil
		places[list[i].id] = &list[i]
		last = text.Later(last, list[i].Last)
	}
	ids := numbers(list, func(c *Client) int64 { return c.id })
	return read(ctx, s.db, "reading days", `SELECT sighting, day, observed, explained, rejected, failed FROM days
		WHERE sighting IN (`+ids+`) AND day IN (`+dayList(first, last.Unix()/secondsADay)+`) ORDER BY day`, nil,
		func(r row) error {
			c := places[r.int(0)]
			c.Days = append(c.Days, Day{r.int(1), countsOf(r, 2)})
			return nil
		})
}

// marks are those of n parameters from a number on.
func marks(first, n int) string {
	all := make([]string, n)
	for i := range all {
		all[i] = fmt.Sprintf("$%d", first+i)
	}
	return strings.Join(all, ", ")
}
