package demo

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"

	"postern/internal/logging"
	"postern/internal/text"
	"postern/policy"
	"postern/proxy"
)

// row is one client on one listener.
type row struct {
	listener   proxy.Listener
	generation policy.Version
	met        Result
	err        error
	// want is the outcome that the policy asks for.
	want proxy.Outcome
	// counted is the outcome that moved the counter, by exactly one.
	counted proxy.Outcome
	logged  legacyLine // zero where there was none
}

// programs are those of the mail server's first accounts, each of which uses an
// address of its own.
var programs = []string{"Outlook 14.0", "K-9 Mail 4.2", "Thunderbird 3.1"}

// visitAll has one client of each generation visit each listener, one at a time,
// so that each step of a counter has one cause.
func (s *stage) visitAll() []row {
	var rows []row
	for li, l := range proxy.Listeners {
		for i, g := range Generations {
			n := (li + i + 2) % len(programs)
			c := Client{
				Generation: g, Roots: s.roots, Account: s.mail.Accounts()[n], Password: Password,
				From: netip.AddrFrom4([4]byte{127, 0, 0, byte(11 + n)}), Software: programs[n],
			}
			r := row{listener: l, generation: g, want: s.expected(l, g)}
			before := s.handshakes(l, g)
			s.log.lines.Clear() // another client may have the port that one had before
			r.met, r.err = c.Visit(s.addrs[string(l)], string(l.Protocol()), !l.ImplicitTLS())
			r.counted = await(func() proxy.Outcome { return moved(before, s.handshakes(l, g)) })
			r.logged = s.log.about(r.met.LocalPort)
			if r.want != proxy.Accepted {
				r.logged = await(func() legacyLine { return s.log.about(r.met.LocalPort) })
			}
			rows = append(rows, r)
		}
	}
	return rows
}

// await polls until there is an answer, for a few seconds at most.
func await[T comparable](ask func() T) (none T) {
	for end := time.Now().Add(5 * time.Second); time.Now().Before(end); time.Sleep(2 * time.Millisecond) {
		if answer := ask(); answer != none {
			return answer
		}
	}
	return none
}

// expected returns the outcome for a generation, derived from the mode and the
// floor's version alone.
func (s *stage) expected(l proxy.Listener, g policy.Version) proxy.Outcome {
	mode, _ := policy.ParseMode(s.Mode)
	if s.Mode == "" && !l.ImplicitTLS() {
		mode = policy.Observe
	}
	switch {
	case g >= s.Floor.MinVersion():
		return proxy.Accepted
	case mode == policy.Enforce || g < policy.TLS10: // Go cannot serve SSL
		return proxy.Rejected
	case mode == policy.Explain:
		return proxy.Explained
	}
	return proxy.Observed
}

// handshakes reads the counters of a listener and version, by outcome.
func (s *stage) handshakes(l proxy.Listener, g policy.Version) map[string]int {
	families, _ := s.postern.Gatherer().Gather() // without them, nothing moves
	samples, _ := expfmt.ExtractSamples(&expfmt.DecodeOptions{}, families...)
	counts := make(map[string]int)
	for _, s := range samples {
		m := s.Metric
		if m[model.MetricNameLabel] == "postern_handshakes_total" && string(m["listener"]) == string(l) && string(m["version"]) == g.String() {
			counts[string(m["outcome"])] = int(s.Value)
		}
	}
	return counts
}

// moved returns the outcomes whose counters have moved, empty if none has.
func moved(before, now map[string]int) proxy.Outcome {
	var which []string
	for outcome, n := range now {
		which = append(which, slices.Repeat([]string{outcome}, n-before[outcome])...)
	}
	return proxy.Outcome(strings.Join(which, "+"))
}

// right reports whether everything about the row is what the policy says.
func (r row) right() bool {
	logged := text.Either(r.want != proxy.Accepted, string(r.want), "")
	return r.err == nil && r.counted == r.want && r.logged.Outcome == logged && r.met.Is(r.want, r.generation)
}

var header = []string{"listener", "client", "met", "log", "counter", ""}

var colors = map[proxy.Outcome]text.Color{
	proxy.Accepted: text.Green, proxy.Observed: text.Yellow, proxy.Explained: text.Yellow, proxy.Rejected: text.Red,
}

func cells(rows []row) [][]text.Cell {
	var all [][]text.Cell
	for _, r := range rows {
		verdict := text.Cell{Text: "as the policy says", Color: text.Dim}
		if !r.right() {
			verdict = text.Cell{Text: "NOT as the policy says: " + string(r.want), Color: text.Red}
		}
		log := text.Cell{Text: "-", Color: text.Dim}
		if r.logged.Outcome != "" {
			log = text.Cell{Text: r.logged.Outcome + ", reason " + r.logged.Reason}
		}
		all = append(all, []text.Cell{
			{Text: string(r.listener)}, {Text: r.generation.Name()}, {Text: r.story(), Color: colors[r.counted]},
			log, {Text: string(r.counted) + " +1"}, verdict,
		})
	}
	return all
}

// maxStory keeps the table on a screen.
const maxStory = 58

// story describes what the client met.
func (r row) story() string {
	s := ""
	switch {
	case r.err != nil:
		s = "broke: " + r.err.Error()
	case r.met.LoggedIn:
		s = fmt.Sprintf("%s, logged in, %s messages", r.met.Version.Name(), r.met.Messages)
	case r.met.Text != "":
		s = r.met.Text
	case r.met.Alert == 70:
		s = "alert 70, protocol_version"
	case r.met.Alert >= 0:
		s = fmt.Sprintf("alert %d", r.met.Alert)
	}
	return text.Clip(s, maxStory, "...")
}

// sumUp writes the number of right rows, and reports whether all are.
func sumUp(w io.Writer, rows []row) bool {
	if wrong := len(slices.DeleteFunc(slices.Clone(rows), row.right)); wrong > 0 {
		fmt.Fprintf(w, "\n%d of %d rows are NOT what the policy says.\n", wrong, len(rows))
		return false
	}
	fmt.Fprintf(w, "\nAll %d rows are what the policy says.\n", len(rows))
	return true
}

// legacyLog is Postern's stderr: it keeps the lines about legacy handshakes.
type legacyLog struct {
	lines sync.Map // legacyLine by the client's port
}

type legacyLine struct {
	Msg        string
	ClientPort uint16 `json:"client_port"`
	Outcome    string
	Reason     string
}

// Write takes one line of JSON.
func (l *legacyLog) Write(p []byte) (int, error) {
	var line legacyLine
	if err := json.Unmarshal(bytes.TrimSpace(p), &line); err == nil && line.Msg == logging.LegacyHandshake {
		l.lines.Store(line.ClientPort, line)
	}
	return len(p), nil
}

// about returns the log line about the client with that port.
func (l *legacyLog) about(port uint16) legacyLine {
	line, _ := l.lines.Load(port)
	found, _ := line.(legacyLine)
	return found
}
