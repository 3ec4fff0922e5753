package plan

import (
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"
	"time"

	"postern/policy"
)

const eventful = `
mode: observe
rules:
  - {name: office, mode: observe, match: {client: [192.0.2.0/28]}, until: 2026-06-20T00:00:00Z, owner: me@example.org}
  - {name: brownouts, mode: enforce, schedule: "0 * * * *", for: 10m, from: 2026-06-08T00:00:00Z, until: 2026-06-12T00:00:00Z}
  - {name: never opens, mode: enforce, schedule: "0 0 25 12 *", for: 10m, until: 2026-07-20T00:00:00Z}
  - {name: back, mode: explain, share: {from: 60%, to: 10%}, from: 2026-06-05T00:00:00Z, until: 2026-06-25T00:00:00Z}
  - {name: ramp, mode: explain, share: {from: 0%, to: 100%}, from: 2026-06-15T00:00:00Z, until: 2026-07-01T00:00:00Z}
  - {name: cutover, mode: enforce, from: 2026-07-01T00:00:00Z}
`

// A course says at every moment what the policy decides then.
func TestACourseAgreesWithThePolicy(t *testing.T) {
	p, err := policy.Parse([]byte(eventful))
	if err != nil {
		t.Fatal(err)
	}
	from, until := time.Date(2026, 6, 1, 0, 0, 0, 0, time.UTC), time.Date(2026, 7, 10, 0, 0, 0, 0, time.UTC)
	random := rand.New(rand.NewPCG(7, 8))
	turns := make(map[string]bool)
	for range 300 {
		c := policy.Client{Version: policy.TLS10, ConnInfo: policy.ConnInfo{
			Listener: "imaps", Port: 993, Client: netip.AddrFrom4([4]byte{192, 0, 2, byte(random.Uint32())})}}
		course := Course(p, c, from, until, noGrace)
		for i, turn := range course[1:] {
			turns[turn.Rule.Name] = true
			if !turn.Time.After(course[i].Time) || turn.like(&course[i]) {
				t.Fatalf("turn %d of %v: %+v", i+1, c.Client, course)
			}
		}
		for range 50 {
			at := from.Add(time.Duration(random.Int64N(int64(until.Sub(from)))))
			snapshot := p.At(at)
			want := snapshot.Outcomes(c, at)[0]
			i := len(course) - 1
			for course[i].Time.After(at) {
				i--
			}
			switch turn := course[i]; {
			case want.Rule != nil && want.Rule.Schedule != nil:
				if !slices.Contains(turn.Windows, want) {
					t.Fatalf("%v at %v: a window of %s is open, and not in %+v", c.Client, at, want.Rule.Name, turn)
				}
			case len(turn.Outcomes) != 1 || turn.Outcomes[0] != want:
				t.Fatalf("%v at %v: %+v, want %+v", c.Client, at, turn, want)
			}
		}
	}
	for _, name := range []string{"office", "brownouts", "back", "ramp"} {
		if !turns[name] {
			t.Errorf("no turn by %s", name)
		}
	}
	if turns["never opens"] {
		t.Error("a rule whose windows do not open makes a turn")
	}
}

// Of connections, a course says what part of them meets what, by quarters.
func TestACourseShowsAShareOfConnections(t *testing.T) {
	p, err := policy.Parse([]byte(`rules: [{name: some, mode: observe, share: {from: 0%, to: 100%, by: connection}, from: 2026-06-01T00:00:00Z, until: 2026-06-05T00:00:00Z}]`))
	if err != nil {
		t.Fatal(err)
	}
	c := policy.Client{Version: policy.TLS10, ConnInfo: policy.ConnInfo{Listener: "imaps", Client: netip.MustParseAddr("192.0.2.7")}}
	var parts []float64
	for _, turn := range Course(p, c, time.Date(2026, 5, 1, 0, 0, 0, 0, time.UTC), time.Date(2026, 7, 1, 0, 0, 0, 0, time.UTC), noGrace) {
		parts = append(parts, turn.Outcomes[0].Part)
	}
	if want := []float64{1, 0.25, 0.5, 0.75, 1}; !slices.Equal(parts, want) {
		t.Errorf("%v, want %v", parts, want)
	}
}

func noGrace(*policy.Rule) (none time.Time) { return none }
