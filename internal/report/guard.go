package report

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	"postern/internal/ledger"
	"postern/internal/text"
	"postern/policy"
)

// Tripped is a guard that has tripped, and the clients that did it: networks, with their
// accounts.
type Tripped struct {
	policy.GuardState
	By map[string][]string `json:"by"`
}

// mostWho bounds what a text says of the clients, in characters.
const mostWho = 2000

// Words says which clients tripped the guard.
func (t *Tripped) Words() string {
	who := text.Each(slices.Sorted(maps.Keys(t.By)), func(client string) string {
		return strings.Join(append([]string{client}, t.By[client]...), " ")
	})
	return fmt.Sprintf("%v It had met %s: %s.", &t.GuardState, text.Number(len(who), "known client"), some(who, len(who), mostWho))
}

// guards reads which guards have tripped, and who did it.
func (f *Facts) guards(ctx context.Context, store *ledger.Store) error {
	states, err := store.Guards(ctx, f.Policy, f.Now)
	f.Policy = f.Policy.Guarded(states, nil)
	for _, g := range states {
		if err != nil || g.Tripped.IsZero() {
			continue
		}
		t := &Tripped{GuardState: g}
		t.By, err = store.TrippedBy(ctx, &g)
		f.tripped = append(f.tripped, t)
	}
	return err
}
