package demo

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"testing"

	"postern/internal/logging"
	"postern/policy"
	"postern/proxy"
)

// rightRow is a row that is what the policy says.
func rightRow(want proxy.Outcome) row {
	r := row{listener: proxy.IMAPS, generation: policy.TLS10, want: want, counted: want, met: Result{Alert: -1}}
	switch want {
	case proxy.Accepted:
		r.generation = policy.TLS12
		r.met.LoggedIn, r.met.Version = true, policy.TLS12
	case proxy.Observed:
		r.met.LoggedIn, r.met.Version = true, policy.TLS10
	case proxy.Explained:
		r.met.Text, r.met.Version = "* BYE [ALERT] no", policy.TLS10
	case proxy.Rejected:
		r.met.Alert = 70
	}
	if want != proxy.Accepted {
		r.logged = legacyLine{Outcome: string(want), Reason: "version"}
	}
	return r
}

func TestOneWrongRowIsCounted(t *testing.T) {
	wrongs := map[string]struct {
		want  proxy.Outcome
		spoil func(*row)
	}{
		"the client broke":          {proxy.Rejected, func(r *row) { r.err = errors.New("broke") }},
		"not counted":               {proxy.Rejected, func(r *row) { r.counted = "" }},
		"counted twice":             {proxy.Rejected, func(r *row) { r.counted = "rejected+rejected" }},
		"counted as another":        {proxy.Rejected, func(r *row) { r.counted = proxy.Failed }},
		"not logged":                {proxy.Rejected, func(r *row) { r.logged.Outcome = "" }},
		"logged as another":         {proxy.Explained, func(r *row) { r.logged.Outcome = "rejected" }},
		"another alert":             {proxy.Rejected, func(r *row) { r.met.Alert = 40 }},
		"no alert":                  {proxy.Rejected, func(r *row) { r.met.Alert = -1 }},
		"let in":                    {proxy.Rejected, func(r *row) { r.met = Result{Alert: -1, LoggedIn: true, Version: policy.TLS10} }},
		"explained without a word":  {proxy.Explained, func(r *row) { r.met.Text = "" }},
		"explained by another TLS":  {proxy.Explained, func(r *row) { r.met.Version = policy.TLS11 }},
		"observed and kept out":     {proxy.Observed, func(r *row) { r.met.LoggedIn = false }},
		"accepted and kept out":     {proxy.Accepted, func(r *row) { r.met.LoggedIn = false }},
		"accepted with another TLS": {proxy.Accepted, func(r *row) { r.met.Version = policy.TLS13 }},
		"accepted and logged":       {proxy.Accepted, func(r *row) { r.logged.Outcome = "accepted" }},
	}
	for name, tt := range wrongs {
		rows := []row{rightRow(proxy.Accepted), rightRow(proxy.Rejected), rightRow(proxy.Explained), rightRow(proxy.Observed)}
		var out bytes.Buffer
		if right := sumUp(&out, rows); !right || !strings.Contains(out.String(), "All 4 rows") {
			t.Fatalf("right rows: %q", out.String())
		}
		wrong := rightRow(tt.want)
		tt.spoil(&wrong)
		rows = append(rows, wrong)
		out.Reset()
		if right := sumUp(&out, rows); right || !strings.Contains(out.String(), "1 of 5 rows are NOT what the policy says.") {
			t.Errorf("%s: %q", name, out.String())
		}
		table := cells(rows)
		if last := table[4][len(table[4])-1].Text; !strings.HasPrefix(last, "NOT as the policy says: "+string(tt.want)) {
			t.Errorf("%s: the table says %q", name, last)
		}
	}
}

func TestLongStoriesAreCut(t *testing.T) {
	r := rightRow(proxy.Explained)
	r.met.Text = strings.Repeat("x", 200)
	if s := r.story(); len(s) != maxStory || !strings.HasSuffix(s, "...") {
		t.Errorf("%d bytes: %q", len(s), s)
	}
}

// TestAPortThatIsUsedAgain: the system gives a client the port that another one with
// another address had before.
func TestAPortThatIsUsedAgain(t *testing.T) {
	var l legacyLog
	fmt.Fprintf(&l, `{"msg":%q,"client":"127.0.0.11","client_port":40001,"outcome":"observed"}`, logging.LegacyHandshake)
	if got := l.about(40001).Outcome; got != "observed" {
		t.Errorf("%q", got)
	}
	l.lines.Clear()
	if got := l.about(40001).Outcome; got != "" {
		t.Errorf("%q is of the client before", got)
	}
}
