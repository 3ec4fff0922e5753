package admin

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
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
	// apiTimeout bounds the wait of a program for the ledger, but for CSV and
	// reports, which take as long as their reader does.
	apiTimeout = 20 * time.Second
)

// clientsQuery is a query for clients.
type clientsQuery struct {
	filter ledger.Filter
	order  ledger.Order
	cursor string
	// limit is 0 only in CSV, for all clients.
	limit int
	csv   bool
	// candidate is whose clients are meant; empty for legacy ones.
	candidate string
}

// noRule is the value of rule for clients that none takes. No rule can have it
// for a name.
const noRule = "(none)"

// outcomes are those that a client in the ledger can have met.
var outcomes = []string{string(proxy.Observed), string(proxy.Explained), string(proxy.Rejected), string(proxy.Failed)}

// clientsKeys are the parameters of a query.
var clientsKeys = strings.Fields("account candidate cursor format limit listener network noise outcome rule since software sort version")

// read reads the value of a parameter.
func (c *Clients) read(q *clientsQuery, key, value string) (err error) {
	f := &q.filter
	switch key {
	case "version":
		f.Version, err = policy.ParseVersion(value)
	case "listener":
		f.Listener = proxy.Listener(value)
		_, err = policy.ParseListener(value)
	case "account":
		if f.Account = value; c.Hash != nil && value != "" && !strings.HasPrefix(value, "h:") {
			f.Account = c.Hash(value)
		}
		err = words(value)
	case "candidate":
		q.candidate = value
		_, err = c.Policy().RememberedFloor(value)
	case "software":
		f.Software, err = value, words(value)
	case "network":
		f.Network, err = network(value)
	case "outcome":
		f.Outcome, err = proxy.Outcome(value), oneOf(value, outcomes...)
	case "rule":
		err = c.parseRule(q, value)
	case "since":
		f.Since, err = text.ParseSince(value, c.Now())
	case "noise":
		f.Noise, err = true, oneOf(value, "include")
	case "sort":
		q.order, err = ledger.ParseOrder(value)
	case "format":
		q.csv, err = value == "csv", oneOf(value, "json", "csv")
	case "limit":
		q.limit, err = strconv.Atoi(value)
		if err != nil || q.limit < 1 || q.limit > maxLimit {
			err = fmt.Errorf("not a number from 1 to %d", maxLimit)
		}
	case "cursor":
		q.cursor = value
	default:
		err = fmt.Errorf("no such parameter; there are %s", strings.Join(clientsKeys, ", "))
	}
	return err
}

// multicast is no client's. The ledger has the numbers of IPv4 there.
var multicast = netip.MustParseAddr("ffff::")

func network(value string) (netip.Prefix, error) {
	p, err := text.ParsePrefix(value)
	if err == nil && p.Addr().Is6() && !p.IsSingleIP() && (p.Bits() > 64 || p.Contains(multicast)) {
		err = errors.New("a network of IPv6 is a /64 or larger, without multicast, or a single address")
	}
	return p, err
}

// narrow has the database find the clients of a rule with one value of a key, where
// the query does not ask for another.
func (q *clientsQuery) narrow(r *policy.Rule) {
	for _, c := range r.Match {
		if len(c.Values) != 1 {
			continue
		}
		switch f := &q.filter; {
		case c.Key.Name == "version" && f.Version == policy.NoVersion:
			f.Version, _ = policy.ParseVersion(c.Values[0])
		case c.Key.Name == "listener" && f.Listener == "":
			f.Listener = proxy.Listener(c.Values[0])
		case c.Key.Name == "client" && !f.Network.IsValid():
			if p, err := network(c.Values[0]); err == nil {
				f.Network = p
			}
		}
	}
}

// ruleNames are the values of rule.
func ruleNames(p *policy.Policy) []string { return append([]string{noRule}, p.RuleNames()...) }

// parseRule has the clients kept that the rule takes now, or some connections of
// theirs.
func (c *Clients) parseRule(q *clientsQuery, value string) error {
	p, now := c.Policy(), c.Now()
	names := ruleNames(p)
	if !slices.Contains(names, value) {
		return fmt.Errorf("no such rule %s: use %s", text.Quote(value, maxShown), strings.Join(names, ", "))
	}
	snapshot := p.At(now)
	ctx, cancel := context.WithTimeout(context.Background(), apiTimeout)
	defer cancel()
	hellos, _ := c.Store.LaterHellos(ctx) // where they cannot be read, clients cannot either
	q.filter.Keep = func(client *ledger.Client) bool {
		view := c.view(client, snapshot.Outcomes(client.ForPolicy(), now), hellos, nil)
		return slices.ContainsFunc(view.Met, func(p partJSON) bool { return cmp.Or(p.Name, noRule) == value })
	}
	return nil
}

// parse reads the values of a query, and returns what is wrong, by parameter. Only
// the cursor may be empty, as next_cursor can be: a script with an unset variable
// would otherwise get all clients.
func (c *Clients) parse(values url.Values) (q clientsQuery, wrong map[string]error) {
	wrong = make(map[string]error)
	for key, v := range values {
		err := errors.New("given more than once")
		if len(v) == 1 || !slices.Contains(clientsKeys, key) {
			err = c.read(&q, key, v[0])
		}
		if err != nil {
			wrong[key] = err
		}
	}
	if r := c.Policy().Rule(values.Get("rule")); r != nil {
		q.narrow(r)
	}
	if q.limit == 0 && !q.csv {
		q.limit = defaultLimit
	}
	return q, wrong
}

// query is parse with the first of the errors.
func (c *Clients) query(raw string) (clientsQuery, error) {
	values, err := url.ParseQuery(raw)
	if err != nil {
		return clientsQuery{}, errors.New("the query is not of the form name=value&name=value, with % as %25 and so on")
	}
	q, wrong := c.parse(values)
	for _, key := range slices.Sorted(maps.Keys(wrong)) {
		return q, fmt.Errorf("%s: %w", text.Clip(key, maxShown, "…"), wrong[key])
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
	last := len(good) - 1
	return fmt.Errorf("use %s", strings.TrimPrefix(strings.Join(good[:last], ", ")+" or "+good[last], " or "))
}

// maxShown bounds each text from a client, in characters.
const maxShown = 60
