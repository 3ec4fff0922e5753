package policy

import (
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"postern/internal/posterntest"
)

// example is a policy with a rule of every kind.
func example(t *testing.T) *Policy {
	t.Helper()
	data, err := os.ReadFile("testdata/example.yaml")
	if err != nil {
		t.Fatal(err)
	}
	return parsed(t, string(data))
}

func parsed(t *testing.T, text string) *Policy {
	t.Helper()
	p, err := Parse([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func moment(t *testing.T, s string) time.Time {
	t.Helper()
	at, err := time.Parse("2006-01-02 15:04", s)
	if err != nil {
		t.Fatal(err)
	}
	return at
}

// inShort writes a timeline in short.
func inShort(tl *Timeline) string {
	var b strings.Builder
	meets := func(all []Meeting) {
		for _, m := range all {
			fmt.Fprintf(&b, "  %s:", strings.Join(m.Listeners, "+"))
			for _, l := range m.Layers {
				fmt.Fprintf(&b, " %s %v %.3g,", l.Rule.Name, l.Rule.Mode, l.Part)
			}
			fmt.Fprintf(&b, " %v\n", m.Rest)
		}
	}
	event := func(e Event) {
		fmt.Fprintf(&b, "  %s %v %.3g", e.Rule.Name, e.Kind, e.Share)
		if w := e.Windows; w != nil {
			fmt.Fprintf(&b, ", %d windows", w.Count)
			if w.Count > 0 {
				fmt.Fprintf(&b, " from %s to %s", w.First.UTC().Format("01-02 15:04"), w.Last.UTC().Format("01-02 15:04"))
			}
			if w.Open {
				fmt.Fprintf(&b, ", open to %s", w.Closes.UTC().Format("01-02 15:04"))
			}
		}
		b.WriteByte('\n')
	}
	for _, r := range tl.Over {
		fmt.Fprintf(&b, "  %s over\n", r.Name)
	}
	for _, e := range tl.Running {
		event(e)
	}
	meets(tl.Meets)
	for _, m := range tl.Moments {
		fmt.Fprintf(&b, "%s\n", m.Time.UTC().Format("01-02 15:04"))
		for _, e := range m.Events {
			event(e)
		}
		meets(m.Meets)
	}
	if tl.Next != nil {
		fmt.Fprintf(&b, "next %s\n", tl.Next.Time.UTC().Format("2006-01-02"))
		for _, e := range tl.Next.Events {
			event(e)
		}
	}
	return b.String()
}

func TestATimelineListsEventsAndMeetings(t *testing.T) {
	p := example(t)
	tl := p.Timeline(moment(t, "2026-06-11 00:05"), moment(t, "2026-08-30 00:00"), ListenerNames)
	want := strings.TrimPrefix(`
  warehouse scanners runs 1
  legacy endpoint by name runs 1
  legacy endpoint by port runs 1
  brownouts runs 1, 23 windows from 06-11 01:00 to 06-11 23:00, open to 06-11 00:10
  imaps+pop3s+imap+pop3: brownouts enforce 1, observe
06-12 00:00
  brownouts ends 1
  imaps+pop3s+imap+pop3: observe
06-15 00:00
  ramp begins 0
  imaps+pop3s+imap+pop3: ramp explain 0, observe
06-19 00:00
  ramp reaches 0.25
  imaps+pop3s+imap+pop3: ramp explain 0.25, observe
06-23 00:00
  ramp reaches 0.5
  imaps+pop3s+imap+pop3: ramp explain 0.5, observe
06-27 00:00
  ramp reaches 0.75
  imaps+pop3s+imap+pop3: ramp explain 0.75, observe
07-01 00:00
  ramp ends 1
  cutover begins 1
  imaps+pop3s+imap+pop3: enforce
next 2026-12-31
  warehouse scanners ends 1
  legacy endpoint by name ends 1
  legacy endpoint by port ends 1
`, "\n")
	if got := inShort(tl); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

func TestATimelineSeparatesListenersThatDiffer(t *testing.T) {
	p := parsed(t, `
mode: observe
rules:
  - {name: pop3 first, mode: enforce, match: {listener: [pop3, pop3s]}, from: 2026-06-01T00:00:00Z}
  - {name: few, mode: explain, share: 5%}
  - {name: nobody, mode: explain, match: {listener: []}}
  - {name: special, mode: explain, match: {listener: [imap], version: [tls1.0]}}
  - {name: none, mode: enforce, share: 0%}
  - {name: as before, mode: observe, share: 50%}
`)
	tl := p.Timeline(moment(t, "2026-05-01 00:00"), moment(t, "2026-07-01 00:00"), []string{"imaps", "pop3s", "pop3"})
	want := strings.TrimPrefix(`
  few runs 0.05
  nobody runs 1
  special runs 1
  none runs 0
  as before runs 0.5
  imaps+pop3s+pop3: few explain 0.05, observe
06-01 00:00
  pop3 first begins 1
  imaps: few explain 0.05, observe
  pop3s+pop3: enforce
`, "\n")
	if got := inShort(tl); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

func TestWindowsAreCountedAsTheyOpen(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	zones := []string{"UTC", "Europe/Berlin", "America/Sao_Paulo", "Asia/Beirut", "Australia/Lord_Howe", "Pacific/Apia"}
	crons := []string{"* * * * *", "0 * * * *", "*/7 2-3 * * *", "30 2 * * *", "0 0 * * *", "15 1,13 1,15 * mon", "59 23 29 2 *", "0 0 31 2 *"}
	for range 400 {
		zone, err := time.LoadLocation(zones[random.IntN(len(zones))])
		if err != nil {
			t.Fatal(err)
		}
		s, err := ParseSchedule(crons[random.IntN(len(crons))], zone, time.Minute)
		if err != nil {
			t.Fatal(err)
		}
		from := time.Date(2011+random.IntN(20), time.Month(1+random.IntN(12)), random.IntN(31), random.IntN(24), random.IntN(60), random.IntN(60), 0, time.UTC)
		until := from.Add(time.Duration(random.IntN(60*24*60)) * time.Minute)
		n, last := 0, time.Time{}
		for at := s.next(from, until); at.Before(until); at = s.next(at.Add(time.Minute), until) {
			n, last = n+1, at
		}
		if got, was := s.count(from, until); got != n || !was.Equal(last) {
			t.Errorf("%s in %v, %v to %v: %d, the last at %v, not %d, the last at %v", s.Cron, zone, from, until, got, was, n, last)
		}
	}
}

// The time is the point: each schedule opens 5 million times.
func TestATimelineIsQuickHoweverOftenAScheduleOpens(t *testing.T) {
	var b strings.Builder
	b.WriteString("rules:\n")
	for i := range 20 {
		fmt.Fprintf(&b, "  - {name: r%d, mode: explain, schedule: \"* * * * *\", for: 1m, timezone: Europe/Berlin}\n", i)
	}
	p := parsed(t, b.String())
	from := moment(t, "2026-06-01 00:00")
	began := posterntest.CPUTime()
	tl := p.Timeline(from, from.AddDate(10, 0, 0), ListenerNames)
	if took := posterntest.CPUTime() - began; took > 5*time.Second {
		t.Errorf("took %v", took)
	}
	if w := tl.Running[0].Windows; w.Count != 3653*24*60 || !w.Last.Equal(from.AddDate(10, 0, 0).Add(-time.Minute)) {
		t.Errorf("got %+v", w)
	}
}

func TestAWindowThatIsOpenAtTheBeginning(t *testing.T) {
	p := parsed(t, `
rules:
  - {name: night, mode: explain, schedule: "30 23 * * *", for: 1h, from: 2026-06-02T00:00:00Z, until: 2026-06-02T00:20:00Z}
  - {name: never, mode: explain, schedule: "0 0 31 2 *", for: 1h}
  - {name: always, mode: explain, schedule: "* * * * *", for: 1m}
`)
	at := moment(t, "2026-06-02 00:00")
	tl := p.Timeline(at, at.Add(24*time.Hour), ListenerNames[:1])
	w := tl.Running[0].Windows
	if w.Count != 0 || !w.Open || !w.Closes.Equal(at.Add(20*time.Minute)) {
		t.Errorf("night: %+v", w)
	}
	if w = tl.Running[1].Windows; w.Count != 0 || w.Open {
		t.Errorf("never: %+v", w)
	}
	// It opens at that very minute; that one before has closed makes no difference.
	if w = tl.Running[2].Windows; w.Count != 24*60 || w.Open || !w.First.Equal(at) {
		t.Errorf("always: %+v", w)
	}
	tl = p.Timeline(at.Add(30*time.Second), at.Add(24*time.Hour), ListenerNames[:1])
	if w = tl.Running[2].Windows; !w.Open || !w.Closes.IsZero() {
		t.Errorf("always, half a minute later: %+v", w)
	}
}

// What a timeline says that everybody else meets is what Decide says, at random
// times between its moments.
func TestATimelineAgreesWithDecide(t *testing.T) {
	p := example(t)
	from, until := moment(t, "2026-06-01 00:00"), moment(t, "2027-02-01 00:00")
	tl := p.Timeline(from, until, ListenerNames)
	random := rand.New(rand.NewPCG(3, 4))
	for range 3000 {
		at := from.Add(time.Duration(random.Int64N(int64(until.Sub(from)))))
		meets := tl.Meets
		for _, m := range tl.Moments {
			if !m.Time.After(at) {
				meets = m.Meets
			}
		}
		s := p.At(at)
		v := s.Decide(&old, ConnInfo{Keys: RSA, Listener: "imaps", Client: randomIPv4(random)}, at, 0)
		ok := v.Mode == meets[0].Rest && !slices.ContainsFunc(meets[0].Layers, func(l Layer) bool { return l.Rule.Name == v.Rule })
		for _, l := range meets[0].Layers {
			ok = ok || l.Rule.Name == v.Rule && v.Mode == l.Rule.Mode
		}
		if !ok {
			t.Fatalf("%v: decided %v by %q, timeline %+v", at, v.Mode, v.Rule, meets)
		}
	}
}
