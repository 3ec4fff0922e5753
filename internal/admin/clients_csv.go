package admin

import (
	"encoding/csv"
	"net/http"
	"strconv"
	"strings"
	"time"

	"postern/internal/text"
	"postern/policy"
)

var clientsHeader = []string{
	"client", "listener", "endpoint", "version", "reason", "ja4", "first_seen", "last_seen",
	"observed", "explained", "rejected", "failed", "accounts", "software", "login", "noise", "rule", "owner", "until", "meets",
}

// writeCSV answers with a line for each client (RFC 4180), page by page to save
// memory. After an error it aborts the connection, so that the client can see
// that the answer is incomplete.
func (c *Clients) writeCSV(w http.ResponseWriter, r *http.Request, q clientsQuery) {
	all := q.limit == 0
	if all {
		q.limit = maxLimit
	}
	list, next, err := c.page(r.Context(), q)
	if err != nil {
		c.failed(w, r, err)
		return
	}
	w.Header().Set("Content-Type", "text/csv; charset=utf-8; header=present")
	w.Header().Set("Content-Disposition", `attachment; filename="legacy-clients.csv"`)
	if !all && next != "" {
		w.Header().Set("Link", nextLink(r.URL, next))
	}
	if r.Method == http.MethodHead {
		return
	}
	out := csv.NewWriter(w)
	out.UseCRLF = true
	_ = out.Write(clientsHeader) // it is remembered until Error
	for {
		// Each page gets the time limit of a whole answer.
		_ = http.NewResponseController(w).SetWriteDeadline(time.Now().Add(writeTimeout))
		for i := range list {
			_ = out.Write(list[i].cells())
		}
		if out.Flush(); out.Error() != nil || !all || next == "" {
			return
		}
		q.cursor = next
		if list, next, err = c.page(r.Context(), q); err != nil {
			logUnread(r.Context(), c.Log, err)
			panic(http.ErrAbortHandler)
		}
	}
}

// cells are in the order of the header.
func (c *clientJSON) cells() []string {
	number := func(n int64) string { return strconv.FormatInt(n, 10) }
	until := ""
	if c.Until != nil {
		until = c.Until.Format(time.RFC3339)
	}
	meets := []string{string(c.Meets)}
	for i, p := range c.Parts {
		meets = append(meets[:i], string(p.Meets)+" "+policy.Percent(p.Part))
	}
	cells := []string{
		c.Addr.String(), string(c.Listener), c.Endpoint.String(), c.Version.String(), c.Reason.String(), c.JA4,
		c.First.Format(time.RFC3339), c.Last.Format(time.RFC3339),
		number(c.Counts.Observed), number(c.Counts.Explained), number(c.Counts.Rejected), number(c.Counts.Failed),
		strings.Join(c.Accounts, "; "), strings.Join(c.Software, "; "), string(c.Login), strconv.FormatBool(c.Noise),
		c.Rule, c.Owner, until, strings.Join(meets, "; "),
	}
	for i, cell := range cells {
		cells[i] = text.CSV(cell)
	}
	return cells
}
