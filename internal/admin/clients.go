package admin

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"net/url"
	"strings"
	"time"

	"postern/internal/ledger"
	"postern/internal/report"
	"postern/policy"
	"postern/proxy"
)

// Clients serves /api/v1/legacy-clients.
type Clients struct {
	Store *ledger.Store
	// Policy returns the running policy.
	Policy func() *policy.Policy
	Now    func() time.Time
	// Hash returns the ledger's form of an account's name; nil if it stores
	// the name itself.
	Hash func(account string) string
	// OldServer reports whether a listener has a server to pass clients through
	// to; nil for none.
	OldServer func(proxy.Listener) bool
	// Backlog returns what is not written yet; nil where all is.
	Backlog func() ledger.Backlog
	// Log gets the errors of the ledger.
	Log *slog.Logger
}

// Handler answers with the selected clients, as JSON or CSV.
func (c *Clients) Handler() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		q, err := parseClientsQuery(r.URL.RawQuery, c.Now())
		if name := q.filter.Account; c.Hash != nil && name != "" && !strings.HasPrefix(name, "h:") {
			q.filter.Account = c.Hash(name)
		}
		switch {
		case err != nil:
			writeError(w, http.StatusBadRequest, err.Error())
		case q.csv:
			c.writeCSV(w, r, q)
		default:
			c.writeJSON(w, r, q)
		}
	})
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
}

func (c *Clients) writeJSON(w http.ResponseWriter, r *http.Request, q clientsQuery) {
	total, err := c.Store.Count(r.Context(), q.filter)
	if err != nil {
		c.failed(w, r, err)
		return
	}
	list, next, err := c.page(r.Context(), q.filter, q.cursor, q.limit)
	if err != nil {
		c.failed(w, r, err)
		return
	}
	answer := clientsJSON{Total: total, NextCursor: next, Clients: list}
	if c.Backlog != nil {
		if b := c.Backlog(); b.Stuck {
			answer.Unwritten = b.Clients
		}
	}
	writeJSON(w, answer)
}

// page reads a page of clients, and finds the rule that takes each of them.
func (c *Clients) page(ctx context.Context, f ledger.Filter, cursor string, limit int) ([]clientJSON, string, error) {
	list, next, err := c.Store.Clients(ctx, f, ledger.Order{}, cursor, limit)
	if err != nil {
		return nil, "", err
	}
	now := c.Now()
	snapshot := c.Policy().At(now)
	hellos, err := c.Store.HellosOf(ctx, list)
	if err != nil {
		return nil, "", err
	}
	views := make([]clientJSON, len(list))
	for i := range list {
		last := taken(&snapshot, &list[i], now)
		views[i] = clientView(&list[i], last.Rule)
		views[i].Meets = report.Meets(&list[i], last, hellos, c.OldServer != nil && c.OldServer(list[i].Listener))
	}
	return views, next, nil
}

// taken returns what a client meets now, with the rule that takes it or nil. It
// skips rules whose share may or may not have the client.
func taken(s *policy.Snapshot, c *ledger.Client, now time.Time) policy.Outcome {
	outcomes := s.Outcomes(c.ForPolicy(), now)
	return outcomes[len(outcomes)-1]
}

func clientView(c *ledger.Client, rule *policy.Rule) clientJSON {
	v := clientJSON{Client: *c}
	if rule != nil {
		v.Rule, v.Owner = rule.Name, rule.Owner
		if !rule.Until.IsZero() {
			v.Until = new(rule.Until.UTC())
		}
	}
	return v
}

// failed answers if the ledger cannot be read. A bad cursor is the client's fault.
func (c *Clients) failed(w http.ResponseWriter, r *http.Request, err error) {
	if errors.Is(err, ledger.ErrCursor) {
		writeError(w, http.StatusBadRequest, "cursor: "+err.Error())
		return
	}
	answerUnread(w, r, c.Log, err)
}

// nextLink returns the link to the next page (RFC 8288).
func nextLink(u *url.URL, cursor string) string {
	q := u.Query()
	q.Set("cursor", cursor)
	return "<" + u.EscapedPath() + "?" + q.Encode() + `>; rel="next"`
}
