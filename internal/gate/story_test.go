package gate_test

import (
	"fmt"
	"maps"
	"math"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"postern/internal/demo"
	"postern/internal/posterntest"
	"postern/policy"
	"postern/proxy"
)

// scene is a moment of a story, and what clients below the floor meet then: a
// mode, "by" the rule that says so, if one does. It is written down by hand from
// what the comments in the file promise, so that a fault which Postern shares
// with the policy's own forecast is seen too.
type scene struct {
	at                string
	everybody, exempt string
	byName, byPort    string
	mode              string  // postern_policy_mode
	share             float64 // of everybody, under the rule "growing share"
}

const (
	exempt = "observe by warehouse scanners"
	named  = "observe by legacy endpoint by name"
	ported = "observe by legacy endpoint by port"
	told   = "explain by all are told"
	off    = "enforce by cut-over"
	// growing: it depends on the address whether a client is told or let in.
	growing = "explain by growing share, or observe"
	short   = "explain by short brownouts"
	long    = "enforce by long brownouts"
)

var growingShare = []scene{
	{at: "2026-11-25T12:00:00Z", everybody: "observe", exempt: exempt, byName: named, byPort: ported, mode: "observe"},
	{at: "2027-03-02T07:59:59.999Z", everybody: "observe", exempt: exempt, byName: named, byPort: ported, mode: "observe"},
	{at: "2027-03-02T08:00:00Z", everybody: growing, exempt: exempt, byName: named, byPort: ported, mode: "observe", share: 0},
	{at: "2027-03-11T10:18:00Z", everybody: growing, exempt: exempt, byName: named, byPort: ported, mode: "observe", share: 0.1},
	{at: "2027-03-25T01:45:00Z", everybody: growing, exempt: exempt, byName: named, byPort: ported, mode: "observe", share: 0.25},
	{at: "2027-04-16T19:30:00Z", everybody: growing, exempt: exempt, byName: named, byPort: ported, mode: "observe", share: 0.5},
	{at: "2027-05-23T04:42:00Z", everybody: growing, exempt: exempt, byName: named, byPort: ported, mode: "observe", share: 0.9},
	{at: "2027-06-01T06:59:59.999Z", everybody: growing, exempt: exempt, byName: named, byPort: ported, mode: "observe", share: 1},
	{at: "2027-06-01T07:00:00Z", everybody: told, exempt: exempt, byName: named, byPort: ported, mode: "explain"},
	{at: "2027-07-06T06:59:59.999Z", everybody: told, exempt: exempt, byName: named, byPort: ported, mode: "explain"},
	{at: "2027-07-06T07:00:00Z", everybody: off, exempt: exempt, byName: named, byPort: ported, mode: "enforce"},
	{at: "2027-10-05T06:59:59.999Z", everybody: off, exempt: exempt, byName: named, byPort: ported, mode: "enforce"},
	{at: "2027-10-05T07:00:00Z", everybody: off, exempt: exempt, byName: off, byPort: off, mode: "enforce"},
	{at: "2027-12-14T07:59:59.999Z", everybody: off, exempt: exempt, byName: off, byPort: off, mode: "enforce"},
	{at: "2027-12-14T08:00:00Z", everybody: off, exempt: off, byName: off, byPort: off, mode: "enforce"},
	{at: "2030-01-01T00:00:00Z", everybody: off, exempt: off, byName: off, byPort: off, mode: "enforce"},
}

var brownouts = []scene{
	{at: "2026-11-25T12:00:00Z", everybody: "observe", exempt: exempt, mode: "observe"},
	{at: "2027-03-15T22:59:59.999Z", everybody: "observe", exempt: exempt, mode: "observe"},
	{at: "2027-03-15T23:00:00Z", everybody: "observe", exempt: exempt, mode: "observe"},
	// A Tuesday in winter: nine o'clock is 08:00 UTC.
	{at: "2027-03-16T07:59:59.999Z", everybody: "observe", exempt: exempt, mode: "observe"},
	{at: "2027-03-16T08:00:00Z", everybody: short, exempt: exempt, mode: "explain"},
	{at: "2027-03-16T08:09:59.999Z", everybody: short, exempt: exempt, mode: "explain"},
	{at: "2027-03-16T08:10:00Z", everybody: "observe", exempt: exempt, mode: "observe"},
	{at: "2027-03-16T15:05:00Z", everybody: short, exempt: exempt, mode: "explain"},
	{at: "2027-03-16T16:05:00Z", everybody: "observe", exempt: exempt, mode: "observe"},
	{at: "2027-03-17T08:05:00Z", everybody: "observe", exempt: exempt, mode: "observe"},
	// In summer it is 07:00 UTC.
	{at: "2027-03-30T06:59:59.999Z", everybody: "observe", exempt: exempt, mode: "observe"},
	{at: "2027-03-30T07:00:00Z", everybody: short, exempt: exempt, mode: "explain"},
	{at: "2027-03-30T15:05:00Z", everybody: "observe", exempt: exempt, mode: "observe"},
	{at: "2027-04-06T14:09:59Z", everybody: short, exempt: exempt, mode: "explain"},
	{at: "2027-04-06T21:59:59.999Z", everybody: "observe", exempt: exempt, mode: "observe"},
	{at: "2027-04-06T22:00:00Z", everybody: "observe", exempt: exempt, mode: "observe"},
	{at: "2027-04-13T07:05:00Z", everybody: "observe", exempt: exempt, mode: "observe"},
	{at: "2027-04-18T21:59:59.999Z", everybody: "observe", exempt: exempt, mode: "observe"},
	{at: "2027-04-18T22:00:00Z", everybody: "observe", exempt: exempt, mode: "observe"},
	{at: "2027-04-19T07:59:59.999Z", everybody: "observe", exempt: exempt, mode: "observe"},
	{at: "2027-04-19T08:00:00Z", everybody: long, exempt: exempt, mode: "enforce"},
	{at: "2027-04-19T08:59:59.999Z", everybody: long, exempt: exempt, mode: "enforce"},
	{at: "2027-04-19T09:00:00Z", everybody: "observe", exempt: exempt, mode: "observe"},
	{at: "2027-04-23T12:30:00Z", everybody: long, exempt: exempt, mode: "enforce"},
	{at: "2027-04-23T21:59:59.999Z", everybody: "observe", exempt: exempt, mode: "observe"},
	{at: "2027-04-23T22:00:00Z", everybody: "observe", exempt: exempt, mode: "observe"},
	{at: "2027-04-24T08:30:00Z", everybody: "observe", exempt: exempt, mode: "observe"},
	{at: "2027-05-04T06:59:59.999Z", everybody: "observe", exempt: exempt, mode: "observe"},
	{at: "2027-05-04T07:00:00Z", everybody: told, exempt: exempt, mode: "explain"},
	{at: "2027-06-01T06:59:59.999Z", everybody: told, exempt: exempt, mode: "explain"},
	{at: "2027-06-01T07:00:00Z", everybody: off, exempt: exempt, mode: "enforce"},
	{at: "2027-09-07T06:59:59.999Z", everybody: off, exempt: exempt, mode: "enforce"},
	{at: "2027-09-07T07:00:00Z", everybody: off, exempt: off, mode: "enforce"},
	{at: "2030-01-01T00:00:00Z", everybody: off, exempt: off, mode: "enforce"},
}

func TestStoryOfAGrowingShare(t *testing.T) {
	st := open(t, "growing-share.yaml", moment(t, growingShare[0]))
	regulars := newRegulars(64)
	st.play(growingShare, func(s *scene) {
		if s.everybody == growing {
			regulars.come(st, s.share)
		}
	})
	st.changesAreLogged("cut-over")
	st.goBack()
}

func TestStoryOfBrownouts(t *testing.T) {
	st := open(t, "brownouts.yaml", moment(t, brownouts[0]))
	st.play(brownouts, func(*scene) {})
	st.changesAreLogged("cut-over")
	st.goBack()
}

func moment(t *testing.T, s scene) time.Time {
	t.Helper()
	at, err := time.Parse(time.RFC3339, s.at)
	if err != nil {
		t.Fatal(err)
	}
	return at
}

// play has clients of every generation meet each scene. More is called in each.
func (st *stage) play(scenes []scene, more func(*scene)) {
	st.Helper()
	if w := st.log.find(0, func(l *storyLine) bool { return l.Msg == "policy warning" }); w != nil {
		st.Errorf("a warning before it begins: %+v", w)
	}
	st.leavesNothingOut(scenes)
	for i := range scenes {
		s := &scenes[i]
		st.set(moment(st.T, *s))
		before := st.series("postern_policy_rule_matches_total")
		decided := st.visitAll(st.visitors(s))
		st.matched(s, before, decided)
		st.metricsSay(s)
		st.planSays(s)
		more(s)
		if st.Failed() {
			st.Fatalf("at %s", s.at)
		}
	}
}

// leavesNothingOut fails where the plan knows a turn that no scene shows, at it
// and just before.
func (st *stage) leavesNothingOut(scenes []scene) {
	st.Helper()
	first, last := moment(st.T, scenes[0]), moment(st.T, scenes[len(scenes)-1])
	for _, m := range st.policy.Timeline(first, last, policy.ListenerNames).Moments {
		if slices.ContainsFunc(m.Events, func(e policy.Event) bool { return e.Kind == policy.Reaches }) {
			continue
		}
		for _, at := range []time.Time{m.Time.Add(-time.Millisecond), m.Time} {
			if !slices.ContainsFunc(scenes, func(s scene) bool { return moment(st.T, s).Equal(at) }) {
				st.Errorf("no scene at %v", at)
			}
		}
	}
}

// visitor is a client, and what it is to meet if it is below the floor; empty
// where that is for the policy to say.
type visitor struct {
	demo.Client
	entry entry
	want  string
}

// below reports whether the client is below the floor.
func (v *visitor) below() bool { return v.Generation < policy.TLS12 }

var generations = []policy.Version{policy.SSL3, policy.TLS10, policy.TLS11, policy.TLS12, policy.TLS13}

// visitors are those of a scene: everybody on every listener, and the ones with
// a rule of their own.
func (st *stage) visitors(s *scene) []visitor {
	var all []visitor
	add := func(entry, network, name, want string, generations ...policy.Version) {
		for _, g := range generations {
			d := st.entries[entry]
			v := visitor{entry: d, want: want}
			if v.want == growing {
				v.want = ""
			}
			a := st.mail.Accounts()[len(all)%len(st.mail.Accounts())]
			v.Client = demo.Client{
				Generation: g, Roots: st.ca.Pool, Account: a, Password: demo.Password,
				From: st.address(network), ServerName: name, NoServerName: name == "",
			}
			all = append(all, v)
		}
	}
	for _, l := range policy.ListenerNames {
		protocol := st.entries[l].protocol
		add(l, "127.10", "", s.everybody, policy.SSL3, policy.TLS10)
		add(l, "127.10", "mail.example.org", s.everybody, policy.TLS11, policy.TLS12, policy.TLS13)
		add(l, "127.20", "mail.example.org", s.exempt, policy.TLS10)
		if s.byName != "" {
			// Names know no case (RFC 6066, Section 3).
			add(l, "127.30", strings.ToUpper(legacyNames[protocol]), s.byName, policy.TLS11)
			add(l, "127.20", legacyNames[protocol], firstOf(s.exempt, s.byName), policy.TLS10)
		}
	}
	add("imaps", "127.20", "mail.example.org", s.exempt, policy.SSL3, policy.TLS13)
	if s.byPort != "" {
		add("imaps 2", "127.40", "", s.byPort, generations...)
		add("pop3s 2", "127.40", "", s.byPort, generations...)
		add("imaps", "127.30", legacyNames["imap"], s.byName, policy.TLS13)
	}
	return all
}

// firstOf is what a client meets that two rules are for: the first one, and
// when that has ended the second.
func firstOf(first, second string) string {
	if first != off {
		return first
	}
	return second
}

// visitAll lets the clients come, a few at once, and counts which rules are to
// have decided.
func (st *stage) visitAll(all []visitor) map[string]float64 {
	st.Helper()
	decided := make(map[string]float64)
	come := make(chan *visitor)
	var guests sync.WaitGroup
	for range 4 {
		guests.Go(func() {
			for v := range come {
				st.visit(v)
			}
		})
	}
	for i := range all {
		v := &all[i]
		said := st.forecast(v)
		if v.want == "" {
			v.want = said
		}
		if v.want != said {
			st.Errorf("%s: the policy says %q, the story %q", v, said, v.want)
		}
		if _, rule, _ := strings.Cut(v.want, " by "); v.below() {
			decided[rule]++
		}
		come <- v
	}
	close(come)
	guests.Wait()
	return decided
}

func (v *visitor) String() string {
	return fmt.Sprintf("%s from %v on %s %s (%q)", v.Generation, v.From, v.entry.listener, v.entry.addr, v.ServerName)
}

// forecast is what the policy says that the client will meet, in the words of a
// scene.
func (st *stage) forecast(v *visitor) string {
	name := v.ServerName
	if v.Generation < policy.TLS10 {
		name = "" // SSL has no extensions
	}
	for _, s := range st.policy.Explain(policy.Client{
		ConnInfo: policy.ConnInfo{Listener: v.entry.listener, Port: v.entry.port(), Client: v.From},
		Version:  v.Generation, ServerName: name,
	}, st.now()) {
		if s.Answer == policy.Takes {
			return s.Rule.Mode.String() + " by " + s.Rule.Name
		}
	}
	return st.policy.Mode().String()
}

// visit compares what a client meets, and what the log says of it, with what
// it is to meet.
func (st *stage) visit(v *visitor) {
	st.Helper()
	met, err := v.Visit(v.entry.addr, v.entry.protocol, len(v.entry.listener) == 4)
	if err != nil {
		st.Errorf("%s: %v", v, err)
		return
	}
	from := netip.AddrPortFrom(v.From, met.LocalPort)
	mode, rule, _ := strings.Cut(v.want, " by ")
	want := proxy.Accepted
	if v.below() {
		want = map[string]proxy.Outcome{"enforce": proxy.Rejected, "explain": proxy.Explained, "observe": proxy.Observed}[mode]
		if v.Generation < policy.TLS10 {
			want = proxy.Rejected // Go cannot serve it
		}
	}
	logged := ""
	if v.below() {
		line := st.log.about(from, logTimeout)
		if line == nil {
			st.Errorf("%s: not in the log", v)
			return
		}
		logged = line.Outcome
		if line.Mode != mode || line.Rule != rule || line.Reason != "version" || logged != string(want) {
			st.Errorf("%s: the log says %+v, want %s", v, *line, v.want)
		}
	} else if st.log.about(from, 0) != nil {
		st.Errorf("%s: it reaches the floor and is in the log", v)
	}
	if !met.Is(want, v.Generation) {
		st.Errorf("%s: met %+v, logged %q, want %q", v, met, logged, want)
	}
	if said := "TLS " + v.Generation.Number() + " is no longer accepted here; update your mail program"; want == proxy.Explained && !strings.Contains(met.Text, said) {
		st.Errorf("%s: was told %q", v, met.Text)
	}
}

// matched waits for the counters of the rules to have moved by what was decided.
func (st *stage) matched(s *scene, before, decided map[string]float64) {
	st.Helper()
	var moved map[string]float64
	for end := time.Now().Add(logTimeout); time.Now().Before(end); time.Sleep(2 * time.Millisecond) {
		moved = st.series("postern_policy_rule_matches_total")
		for rule := range moved {
			moved[rule] -= before[rule]
		}
		delete(decided, "")
		maps.DeleteFunc(moved, func(_ string, n float64) bool { return n == 0 })
		if maps.Equal(moved, decided) {
			return
		}
	}
	st.Errorf("at %s: postern_policy_rule_matches_total moved by %v, want %v", s.at, moved, decided)
}

// metricsSay compares mode and share.
func (st *stage) metricsSay(s *scene) {
	st.Helper()
	modes := st.series("postern_policy_mode")
	for _, l := range policy.ListenerNames {
		for _, m := range policy.Modes {
			if got := modes[l+" "+m.String()]; got != oneOrNone(m.String() == s.mode) {
				st.Errorf("at %s: postern_policy_mode of %s is %v for %v, want %s", s.at, l, got, m, s.mode)
			}
		}
	}
	for rule, got := range st.series("postern_policy_share_ratio") {
		want := s.share
		if rule != "growing share" {
			inUse := []string{s.everybody, s.exempt, s.byName, s.byPort}
			want = oneOrNone(slices.ContainsFunc(inUse, func(w string) bool { return strings.HasSuffix(w, " by "+rule) }))
		}
		if math.Abs(got-want) > 1e-6 {
			st.Errorf("at %s: postern_policy_share_ratio of %q is %v, want %v", s.at, rule, got, want)
		}
	}
}

func oneOrNone(one bool) float64 {
	if one {
		return 1
	}
	return 0
}

// planSays compares what "postern plan" would print of everybody from now on.
func (st *stage) planSays(s *scene) {
	st.Helper()
	meets := st.policy.Timeline(st.now(), st.now().Add(time.Hour), policy.ListenerNames).Meets
	if len(meets) != 1 {
		st.Fatalf("at %s: the plan tells listeners apart: %+v", s.at, meets)
	}
	said, share := meets[0].Rest.String(), 0.0
	for _, l := range slices.Backward(meets[0].Layers) {
		switch {
		case l.Rule.Share != nil:
			share = l.Part
		case l.Rule.InForce(st.now()):
			said = l.Rule.Mode.String()
		}
	}
	if said != s.mode || math.Abs(share-s.share) > 1e-6 {
		st.Errorf("at %s: the plan says %s and a share of %v, the story %s and %v", s.at, said, share, s.mode, s.share)
	}
}

// regulars are old clients of one network that come again and again.
type regulars struct {
	size int
	told map[netip.Addr]bool
	came int
}

func newRegulars(size int) *regulars { return &regulars{size: size, told: make(map[netip.Addr]bool)} }

// come lets all of them come, each time to another listener, and counts those
// that are told: about as many as the share says, and all who were before.
func (c *regulars) come(st *stage, share float64) {
	st.Helper()
	all := make([]visitor, c.size)
	l := policy.ListenerNames[c.came%len(policy.ListenerNames)]
	c.came++
	for i := range all {
		a := st.mail.Accounts()[0]
		all[i] = visitor{entry: st.entries[l], Client: demo.Client{
			Generation: policy.TLS10, Roots: st.ca.Pool, Account: a, Password: demo.Password,
			From: netip.AddrFrom4([4]byte{127, 50, byte(i), 1}), NoServerName: true,
		}}
	}
	st.visitAll(all)
	n := 0
	for _, v := range all {
		now := strings.HasPrefix(v.want, "explain")
		if c.told[v.From] && !now {
			st.Errorf("%v was told, and is let in again at a share of %v", v.From, share)
		}
		c.told[v.From] = now
		if now {
			n++
		}
	}
	// Four standard deviations.
	mean := share * float64(c.size)
	if math.Abs(float64(n)-mean) > 4*math.Sqrt(mean*(1-share))+0.01 {
		st.Errorf("at a share of %v %d of %d are told", share, n, c.size)
	}
}

// changesAreLogged waits for the line that tells of a rule's beginning.
func (st *stage) changesAreLogged(rule string) {
	st.Helper()
	if st.log.find(logTimeout, func(l *storyLine) bool {
		return l.Msg == "rules change by their dates" && slices.Contains(l.Begun, rule)
	}) == nil {
		st.Errorf("no line tells that %q has begun", rule)
	}
}

// goBack puts back.yaml in the place of the story's file: within two seconds old
// clients are let in again.
func (st *stage) goBack() {
	st.Helper()
	knock := func() string {
		v := visitor{entry: st.entries["imaps"], Client: demo.Client{
			Generation: policy.TLS10, Roots: st.ca.Pool, From: st.address("127.60"),
			Account: st.mail.Accounts()[0], Password: demo.Password,
		}}
		met, err := v.Visit(v.entry.addr, v.entry.protocol, false)
		if err != nil {
			st.Fatal(err)
		}
		line := st.log.about(netip.AddrPortFrom(v.From, met.LocalPort), logTimeout)
		if line == nil || met.LoggedIn != (line.Outcome == string(proxy.Observed)) {
			st.Fatalf("met %+v, logged %+v", met, line)
		}
		return line.Mode + " by " + line.Rule
	}
	until := func(text []byte, want string) time.Duration {
		st.put(text)
		begun := time.Now()
		for met := knock(); met != want; met = knock() {
			if time.Since(begun) > time.Minute {
				st.Fatalf("clients still meet %s, want %s", met, want)
			}
			time.Sleep(20 * time.Millisecond)
		}
		return time.Since(begun)
	}
	text := st.entries.on(st.T, "back.yaml")
	posterntest.Within(st, "to let old clients in again", 2*time.Second, func() time.Duration {
		until(st.text, off)
		return until(text, "observe by way back")
	})
	if modes := st.series("postern_policy_mode"); modes["imaps observe"] != 1 || modes["imaps enforce"] != 0 {
		st.Errorf("postern_policy_mode: %v", modes)
	}
	if n := st.series("postern_policy_rule_matches_total"); len(n) != 1 || n["way back"] < 1 {
		st.Errorf("postern_policy_rule_matches_total: %v", n)
	}
	if st.log.find(logTimeout, func(l *storyLine) bool { return l.Msg == "policy reloaded" }) == nil {
		st.Error("no line tells that the file was read again")
	}
}
