package report

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"postern/internal/ledger"
	"postern/internal/text"
	"postern/policy"
)

// Tripped is a guard that has tripped. Groups are the clients that did it, by network,
// with their accounts.
type Tripped struct {
	policy.GuardState
	Groups []Group `json:"groups"`
}

// hitsShown bounds the clients that a text names.
const hitsShown = 50

// Words says which clients tripped the guard.
func (t *Tripped) Words() string {
	var who []string
	for _, g := range t.Groups[:min(len(t.Groups), hitsShown)] {
		who = append(who, strings.TrimSpace(g.Name+" "+strings.Join(g.Accounts, ", ")))
	}
	if more := len(t.Groups) - len(who); more > 0 {
		who = append(who, fmt.Sprintf("and %d more", more))
	}
	return fmt.Sprintf("The guard of %q tripped on %s, so that it is %s until somebody lets it go (postern guard -release %[1]q). It had met %[4]s: %[5]s.",
		t.Rule, text.Date(t.GuardState.Tripped, nil), t.Then, text.Number(len(t.Groups), "known client"), strings.Join(who, "; "))
}

// guards reads which guards have tripped, and who did it.
func (f *Facts) guards(ctx context.Context, store *ledger.Store) error {
	states, err := store.Guards(ctx, f.Policy, f.Now)
	for _, g := range states {
		if err != nil || g.Tripped.IsZero() {
			continue
		}
		var clients []ledger.Client
		clients, _, err = store.Clients(ctx, ledger.Filter{Tripped: &g, Noise: true}, ledger.Order{By: ledger.ByClient}, "", 0)
		t := &Tripped{GuardState: g, Groups: []Group{}}
		for i := range clients {
			name, last := clients[i].Network(), len(t.Groups)-1
			if last < 0 || t.Groups[last].Name != name {
				t.Groups, last = append(t.Groups, Group{Name: name}), last+1
			}
			accounts := append(t.Groups[last].Accounts, clients[i].Accounts...)
			slices.Sort(accounts)
			t.Groups[last].Accounts = slices.Compact(accounts)
		}
		f.tripped = append(f.tripped, t)
	}
	f.Policy = f.Policy.Guarded(states, nil)
	return err
}
