package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/netip"
	"strings"
	"sync"
	"time"

	dto "github.com/prometheus/client_model/go"

	"postern/internal/democlient"
	"postern/internal/logging"
	"postern/internal/text"
	"postern/policy"
	"postern/proxy"
)

// demoRow is one client on one listener.
type demoRow struct {
	listener   proxy.Listener
	generation policy.Version
	met        democlient.Met
	err        error
	// want is the outcome that the policy asks for.
	want proxy.Outcome
	// counted is the outcome that moved the counter, by exactly one.
	counted proxy.Outcome
	// logged is the outcome in the log's line, if there was one, and reason.
	logged, reason string
}

// visitAll lets one client of each generation knock at each listener, one
// after another, so that each counter's step is its own.
func (d *demoMail) visitAll() []demoRow {
	var rows []demoRow
	accounts := d.upstream.Accounts()
	for li, l := range proxy.Listeners {
		for i, g := range democlient.Generations {
			person := (li + i + 2) % len(demoPeople)
			a := accounts[person]
			c := democlient.Client{
				Generation: g, Roots: d.cert.roots, Account: a.Name, Password: a.Password,
				From: demoPeople[person].from, Software: demoPeople[person].software,
			}
			row := demoRow{listener: l, generation: g, want: d.expected(l, g)}
			before := d.handshakes(l, g)
			row.met, row.err = c.Visit(d.addrs[string(l)], string(l.Protocol()), !l.ImplicitTLS())
			row.counted = moved(before, func() map[string]float64 { return d.handshakes(l, g) })
			row.logged, row.reason = d.log.about(row.met.LocalPort, row.want != proxy.Accepted)
			rows = append(rows, row)
		}
	}
	return rows
}

// demoPeople own the first accounts of the mail server: each comes from an
// address of its own, with one mail program.
var demoPeople = []struct {
	from     netip.Addr
	software string
}{
	{netip.AddrFrom4([4]byte{127, 0, 0, 11}), "Outlook 14.0"},
	{netip.AddrFrom4([4]byte{127, 0, 0, 12}), "K-9 Mail 4.2"},
	{netip.AddrFrom4([4]byte{127, 0, 0, 13}), "Thunderbird 3.1"},
}

// expected is what the policy says of a generation, worked out from the mode
// and the floor's version alone.
func (d *demoMail) expected(l proxy.Listener, g policy.Version) proxy.Outcome {
	floor, _ := policy.ParseFloor(d.floor)
	mode, _ := policy.ParseMode(d.mode)
	if d.mode == "" && !l.ImplicitTLS() {
		mode = policy.Observe
	}
	switch {
	case g >= floor.MinVersion():
		return proxy.Accepted
	case mode == policy.Enforce || g < policy.TLS10: // Go cannot serve SSL
		return proxy.Rejected
	case mode == policy.Explain:
		return proxy.Explained
	}
	return proxy.Observed
}

// handshakes reads the counters of a listener and version, by outcome.
func (d *demoMail) handshakes(l proxy.Listener, g policy.Version) map[string]float64 {
	families, err := d.gate.Gatherer().Gather()
	if err != nil {
		return nil
	}
	counts := make(map[string]float64)
	for _, f := range families {
		if f.GetName() != "postern_handshakes_total" {
			continue
		}
		for _, m := range f.GetMetric() {
			if label(m, "listener") == string(l) && label(m, "version") == g.String() {
				counts[label(m, "outcome")] = m.GetCounter().GetValue()
			}
		}
	}
	return counts
}

func label(m *dto.Metric, name string) string {
	for _, p := range m.GetLabel() {
		if p.GetName() == name {
			return p.GetValue()
		}
	}
	return ""
}

// patience bounds how long the demo waits for a counter or a log line.
const patience = 5 * time.Second

// moved waits for a counter to move, and returns its outcome if it was the
// only one, and by one.
func moved(before map[string]float64, now func() map[string]float64) proxy.Outcome {
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(2 * time.Millisecond) {
		var which []string
		for outcome, n := range now() {
			for range int(n - before[outcome]) {
				which = append(which, outcome)
			}
		}
		if len(which) > 0 {
			return proxy.Outcome(strings.Join(which, "+"))
		}
	}
	return ""
}

// right reports whether everything about the row is what the policy says.
func (r *demoRow) right() bool {
	legacy := r.want != proxy.Accepted
	return r.err == nil && r.counted == r.want && legacy == (r.logged != "") &&
		(!legacy || r.logged == string(r.want)) && r.met.Is(r.want, r.generation)
}

var demoHeader = []string{"listener", "client", "met", "log", "counter", ""}

func demoCells(rows []demoRow) [][]text.Cell {
	var cells [][]text.Cell
	for _, r := range rows {
		color := map[proxy.Outcome]text.Color{
			proxy.Accepted: text.Green, proxy.Observed: text.Yellow, proxy.Explained: text.Yellow, proxy.Rejected: text.Red,
		}[r.counted]
		verdict := text.Cell{Text: "as the policy says", Color: text.Dim}
		if !r.right() {
			verdict = text.Cell{Text: "NOT as the policy says: " + string(r.want), Color: text.Red}
		}
		log := text.Cell{Text: "-", Color: text.Dim}
		if r.logged != "" {
			log = text.Cell{Text: r.logged + ", reason " + r.reason}
		}
		cells = append(cells, []text.Cell{
			{Text: string(r.listener)}, {Text: generationName(r.generation)}, {Text: r.story(), Color: color},
			log, {Text: string(r.counted) + " +1"}, verdict,
		})
	}
	return cells
}

func generationName(v policy.Version) string {
	if v >= policy.TLS10 {
		return "TLS " + v.Number()
	}
	return v.Number()
}

// maxStory keeps the table on a screen.
const maxStory = 58

// story is what the client met, in words.
func (r *demoRow) story() string {
	s := ""
	switch {
	case r.err != nil:
		s = "broke: " + r.err.Error()
	case r.met.LoggedIn:
		s = fmt.Sprintf("%s, logged in, %s messages", generationName(r.met.Version), r.met.Messages)
	case r.met.Text != "":
		s = r.met.Text
	case r.met.Alert == 70:
		s = "alert 70, protocol_version"
	case r.met.Alert >= 0:
		s = fmt.Sprintf("alert %d", r.met.Alert)
	}
	if len(s) > maxStory {
		s = s[:maxStory-3] + "..."
	}
	return s
}

// demoVerdict sums up, and returns the exit code.
func demoVerdict(w io.Writer, rows []demoRow) int {
	wrong := 0
	for i := range rows {
		if !rows[i].right() {
			wrong++
		}
	}
	if wrong > 0 {
		fmt.Fprintf(w, "\n%d of %d rows are NOT what the policy says.\n", wrong, len(rows))
		return exitNo
	}
	fmt.Fprintf(w, "\nAll %d rows are what the policy says.\n", len(rows))
	return exitOK
}

// demoLog is the gate's stderr: it keeps the lines about legacy handshakes.
type demoLog struct {
	mu    sync.Mutex
	lines []demoLine
}

type demoLine struct {
	Msg        string
	ClientPort uint16 `json:"client_port"`
	Outcome    string
	Reason     string
}

// Write takes one line of JSON.
func (l *demoLog) Write(p []byte) (int, error) {
	var line demoLine
	if err := json.Unmarshal(bytes.TrimSpace(p), &line); err == nil && line.Msg == logging.LegacyHandshake {
		l.mu.Lock()
		l.lines = append(l.lines, line)
		l.mu.Unlock()
	}
	return len(p), nil
}

// about returns what the log says of the client with that port; it waits for a
// line that is due.
func (l *demoLog) about(port uint16, due bool) (outcome, reason string) {
	for end := time.Now().Add(patience); ; time.Sleep(2 * time.Millisecond) {
		l.mu.Lock()
		for _, line := range l.lines {
			if line.ClientPort == port {
				l.mu.Unlock()
				return line.Outcome, line.Reason
			}
		}
		l.mu.Unlock()
		if !due || time.Now().After(end) {
			return "", ""
		}
	}
}
