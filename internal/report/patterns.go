package report

import (
	"bufio"
	"cmp"
	"context"
	"fmt"
	"io"
	"maps"
	"slices"
	"time"

	"postern/internal/ledger"
	"postern/internal/programs"
	"postern/internal/text"
)

// Patterns writes the patterns of the clients of a trial whose programs are not known, as
// an operator's file has them, those of most clients first.
func Patterns(ctx context.Context, w io.Writer, t *Trial) error {
	type seen struct {
		clients, last int // last is the number of the network that was counted last
		at            time.Time
	}
	all := make(map[string]seen)
	network := 0
	if err := t.Source(ctx, ledger.Scope{Since: t.Since, Logins: true, Progress: t.Progress}, func(clients []ledger.Client) error {
		network++
		for _, c := range clients {
			for _, pattern := range c.SpeaksLike {
				if s := all[pattern]; programs.IsPattern(pattern) {
					if s.last != network {
						s.clients, s.last = s.clients+1, network
					}
					s.at = text.Later(s.at, c.Last)
					all[pattern] = s
				}
			}
		}
		return nil
	}); err != nil {
		return err
	}
	out := bufio.NewWriter(w)
	fmt.Fprintf(out, "# Write the names in the place of %s: pattern, names, versions, last seen, clients.\n", programs.Unnamed)
	for _, pattern := range slices.SortedFunc(maps.Keys(all), func(a, b string) int {
		return cmp.Or(all[b].clients-all[a].clients, cmp.Compare(a, b))
	}) {
		s := all[pattern]
		fmt.Fprintf(out, "%s\t%s\t\t%s\t%s\n", pattern, programs.Unnamed, s.at.Format(time.DateOnly), text.Number(s.clients, "client"))
	}
	return out.Flush()
}
