package admin

import (
	"context"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"postern/internal/ledger"
	"postern/internal/report"
	"postern/internal/text"
	"postern/policy"
	"postern/proxy"
)

// Clients serves /api/v1/legacy-clients.
type Clients struct {
	Store *ledger.Store
	// Policy returns the running policy.
	Policy func() *policy.Policy
	Now    func() time.Time
	// Hash returns the ledger's form of an account's name; nil if it stores none.
	Hash func(account string) string
	// OldServer reports whether a listener has a server to pass clients through
	// to.
	OldServer func(proxy.Listener) bool
	// Backlog returns what is not written yet.
	Backlog func() ledger.Backlog
	// Log gets the errors of the ledger.
	Log *slog.Logger
}

// ServeHTTP answers with the selected clients, as JSON or CSV.
func (c *Clients) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	q, err := c.query(r.URL.RawQuery)
	c, _ = c.of(q.candidate)
	switch {
	case err != nil:
		writeError(w, http.StatusBadRequest, err.Error())
	case q.csv:
		c.writeCSV(w, r, q)
	default:
		c.writeJSON(w, r, q)
	}
}

// of returns the clients whom a remembered candidate refuses; those that are legacy for
// an empty name.
func (c *Clients) of(candidate string) (*Clients, error) {
	if candidate == "" {
		return c, nil
	}
	floor, err := c.Policy().RememberedFloor(candidate)
	if err != nil {
		return c, err
	}
	other := *c
	other.Store = c.Store.Candidate(floor)
	return &other, nil
}

type clientsJSON struct {
	Total int `json:"total"`
	// Unwritten are clients that the ledger cannot be told of, so that total and
	// clients may lack them.
	Unwritten  int          `json:"unwritten,omitempty"`
	NextCursor string       `json:"next_cursor"`
	Clients    []clientJSON `json:"clients"`
}

// clientJSON is a client with the rule that takes it now.
type clientJSON struct {
	ledger.Client
	Rule  string     `json:"rule"`
	Owner string     `json:"owner"`
	Until *time.Time `json:"until"` // null: none
	// Meets is the mode that it meets now, or that it cannot be served.
	Meets report.Meeting `json:"meets"`
	// Parts are what its connections meet, where they do not all meet the same;
	// Met is that also where they do.
	Parts []partJSON `json:"parts,omitempty"`
	Met   []partJSON `json:"-"`
	grace
	// NoHybrid: a post-quantum group is all that it lacks.
	NoHybrid bool `json:"-"`
}

// partJSON is what a part of a client's connections meets, from 0 to 1.
type partJSON struct {
	Meets report.Meeting `json:"meets"`
	Name  string         `json:"rule"`
	Part  float64        `json:"part"`
	Rule  *policy.Rule   `json:"-"` // nil where none decides
	grace
}

// grace is that for which a client is told why: since it was refused first, or from then on.
type grace struct {
	Grace string    `json:"grace,omitempty"`
	Ends  time.Time `json:"grace_until,omitzero"`
}

func (c *Clients) writeJSON(w http.ResponseWriter, r *http.Request, q clientsQuery) {
	ctx, cancel := context.WithTimeout(r.Context(), apiTimeout)
	defer cancel()
	found, err := c.Store.Find(ctx, q.filter, q.order, q.cursor, q.limit)
	answer := clientsJSON{Total: found.Total, NextCursor: found.Next}
	if err == nil {
		answer.Clients, err = c.views(ctx, found.Clients)
	}
	if err != nil {
		answerUnread(w, r, c.Log, err)
		return
	}
	if b := c.Backlog(); b.Stuck {
		answer.Unwritten = b.Clients
	}
	writeJSON(w, http.StatusOK, answer)
}

// views finds what clients meet.
func (c *Clients) views(ctx context.Context, list []ledger.Client) ([]clientJSON, error) {
	hellos, err := c.Store.HellosOf(ctx, list)
	if err != nil {
		return nil, err
	}
	now, p := c.Now(), c.Policy()
	refusals, err := c.Store.Refusals(ctx, p, list)
	snapshot := p.At(now)
	views := make([]clientJSON, len(list))
	for i := range list {
		views[i] = c.view(&list[i], snapshot.Outcomes(list[i].ForPolicy(), now), hellos, refusals)
	}
	return views, err
}

// view is a client with the outcomes of the policy. The rule is the one that takes
// what those for a share of its connections leave.
func (c *Clients) view(client *ledger.Client, outcomes []policy.Outcome, hellos map[string]policy.Hello, refusals ledger.Refusals) clientJSON {
	v := clientJSON{Client: *client, NoHybrid: client.Reason == policy.ReasonCipher &&
		report.Meets(client, policy.Outcome{Floor: policy.FloorTLS13}, hellos, false) == report.Accepted}
	for _, o := range outcomes {
		v.Meets = report.Meets(client, o, hellos, c.OldServer(client.Listener))
		part := partJSON{Meets: v.Meets, Part: o.Part}
		if o.Rule != nil && v.Meets != report.Accepted { // which no rule decides
			part.Name, part.Rule = o.Rule.Name, o.Rule
		}
		if o.Graced && string(v.Meets) == o.Mode.String() {
			part.grace = grace{text.Duration(o.Rule.Grace), refusals.GraceEnds(o.Rule, client.Addr)}
		}
		v.Met = append(v.Met, part)
	}
	if slices.ContainsFunc(v.Met, func(p partJSON) bool { return p.Meets != v.Meets }) {
		v.Parts = v.Met
	}
	v.grace = v.Met[len(v.Met)-1].grace
	if rule := v.Met[len(v.Met)-1].Rule; rule != nil {
		v.Rule, v.Owner = rule.Name, rule.Owner
		if !rule.Until.IsZero() {
			v.Until = new(rule.Until.UTC())
		}
	}
	return v
}

// nextLink returns the link to the next page (RFC 8288).
func nextLink(u *url.URL, cursor string) string {
	q := u.Query()
	q.Set("cursor", cursor)
	return "<" + u.EscapedPath() + "?" + q.Encode() + `>; rel="next"`
}

var clientsHeader = []string{
	"client", "listener", "endpoint", "version", "reason", "ja4", "first_seen", "last_seen",
	"observed", "explained", "rejected", "failed", "accounts", "software", "login", "noise", "rule", "owner", "until", "meets",
	"speaks_like", "library", "advice", "grace_until",
}

// writeCSV answers with a line for each client (RFC 4180), page by page to save
// memory.
func (c *Clients) writeCSV(w http.ResponseWriter, r *http.Request, q clientsQuery) {
	all := q.limit == 0
	if all {
		q.limit = maxLimit
	}
	header := map[string]string{"Content-Type": "text/csv; charset=utf-8; header=present", "Content-Disposition": `attachment; filename="legacy-clients.csv"`}
	stream(w, r, c.Log, header, 0, func(out io.Writer) error {
		lines := text.AppendRecord(nil, clientsHeader)
		for {
			found, next, err := c.Store.Clients(r.Context(), q.filter, q.order, q.cursor, q.limit)
			if err != nil {
				return err
			}
			list, err := c.views(r.Context(), found)
			if err != nil {
				return err
			}
			if !all && next != "" {
				header["Link"] = nextLink(r.URL, next)
			}
			for i := range list {
				lines = text.AppendRecord(lines, list[i].cells())
			}
			if r.Method == http.MethodHead {
				lines, all = nil, false
			}
			if _, err := out.Write(lines); err != nil || !all || next == "" {
				return err
			}
			q.cursor, lines = next, lines[:0]
		}
	})
}

// cells are in the order of the header.
func (c *clientJSON) cells() []string {
	number := func(n int64) string { return strconv.FormatInt(n, 10) }
	until, graceEnds := "", text.Either(c.Ends.IsZero(), "", c.Ends.Format(time.RFC3339))
	if c.Until != nil {
		until = c.Until.Format(time.RFC3339)
	}
	meets := []string{string(c.Meets)}
	for i, p := range c.Parts {
		meets = append(meets[:i], string(p.Meets)+" "+policy.Percent(p.Part))
	}
	return []string{
		c.Addr.String(), string(c.Listener), c.Endpoint.String(), c.Version.String(), c.Reason.String(), c.JA4,
		c.First.Format(time.RFC3339), c.Last.Format(time.RFC3339),
		number(c.Counts.Observed), number(c.Counts.Explained), number(c.Counts.Rejected), number(c.Counts.Failed),
		strings.Join(c.Accounts, "; "), strings.Join(c.Software, "; "), string(c.Login), strconv.FormatBool(c.Noise),
		c.Rule, c.Owner, until, strings.Join(meets, "; "),
		strings.Join(c.SpeaksLike, "; "), c.Library, strings.Join(c.Advice, "; "), graceEnds,
	}
}
