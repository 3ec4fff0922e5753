package ledger

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/google/pprof/profile"

	"postern/bench/internal/certs"
	"postern/bench/internal/measure"
	"postern/bench/internal/proc"
	"postern/bench/internal/profiles"
	"postern/bench/internal/report"
	"postern/bench/internal/stub"
	"postern/bench/internal/subject"
)

// Options are the same for all ledgers of a run.
type Options struct {
	Dir      string // scratch
	Cert     certs.Pair
	Stub     stub.Ports
	New, Old *subject.Subject
	Rounds   int
	Idle     time.Duration // how long idle instances are watched
	Span     time.Duration // how long logins come without and with reports
	Profile  string        // directory for CPU profiles of New, or empty
	Log      func(format string, args ...any)
}

// Ledger is one to be measured.
type Ledger struct {
	Postgres  bool
	Rows      int
	Instances int
}

// Name is what the records call it.
func (l Ledger) Name() string {
	if l.Postgres {
		return fmt.Sprintf("postgres-%d", l.Rows)
	}
	return fmt.Sprintf("sqlite-%d", l.Rows)
}

// meter measures one ledger.
type meter struct {
	*Options
	Ledger
	old, new *side
	facts    Facts
	records  []report.Record
	profiled map[string][]*profile.Profile
}

// Measure returns the records of one ledger, of both sides by round. Its error is
// of what could not be measured at all, or of numbers that are not the same.
func Measure(ctx context.Context, o *Options, l Ledger) ([]report.Record, error) {
	m := &meter{Options: o, Ledger: l, old: &side{Subject: o.Old}, new: &side{Subject: o.New}, profiled: map[string][]*profile.Profile{}}
	for round := 1; round <= o.Rounds; round++ {
		for _, s := range m.sides() {
			m.records = append(m.records, report.Record{Round: round, Subject: s.Name, Measure: l.Name(), Values: measure.Values{}, Notes: measure.Notes{}})
		}
	}
	defer func() {
		for _, s := range m.sides() {
			s.end()
			os.RemoveAll(s.dir)
		}
	}()
	if err := m.prepare(ctx); err != nil {
		return nil, err
	}
	for _, step := range []func(context.Context) error{m.start, m.idle, m.compare, m.asks, m.logins, m.writeProfiles} {
		if err := step(ctx); err != nil {
			return m.records, err
		}
		if ctx.Err() != nil {
			return m.records, ctx.Err()
		}
	}
	return m.records, nil
}

// sides are in the order in which they are measured.
func (m *meter) sides() []*side { return []*side{m.old, m.new} }

// record is where the figures of a side go.
func (m *meter) record(s *side, round int) *report.Record {
	i := slices.IndexFunc(m.records, func(r report.Record) bool { return r.Round == round && r.Subject == s.Name })
	return &m.records[i]
}

func (m *meter) set(s *side, round int, key string, value float64) {
	m.record(s, round).Values[key] = value
}

// fault notes why a side has no figure, or one that says little.
func (m *meter) fault(s *side, round int, key, problem string) {
	m.Log("%s: %s round %d, %s: %s", m.Name(), s.Name, round, key, problem)
	m.record(s, round).Notes[key] = problem
}

// start starts both sides and waits until they know all clients, while logins
// come.
func (m *meter) start(ctx context.Context) error {
	want := m.facts.clients()
	for _, s := range m.sides() {
		begun := time.Now()
		serves, err := s.begin(m.Options, max(1, m.Instances), m.Profile != "" && s == m.new)
		if err != nil {
			return err
		}
		m.set(s, 1, "serve_ms", millis(serves))
		loading, stop := context.WithCancel(ctx)
		load := make(chan *logins, 1)
		go func() { load <- login(loading, s.mail(), patience) }()
		partial := 0
		for {
			n, err := s.admin.total(ctx, "")
			if err == nil && n == want {
				break
			}
			if err == nil {
				partial++
			}
			if time.Since(begun) > 3*patience || ctx.Err() != nil {
				stop()
				return fmt.Errorf("%s does not know its clients after %v: %d of %d, %w", s.Name, time.Since(begun).Round(time.Second), n, want, err)
			}
			time.Sleep(100 * time.Millisecond)
		}
		took := time.Since(begun)
		time.Sleep(max(0, time.Second-took)) // some logins at least
		stop()
		l := <-load
		m.set(s, 1, "start_s", took.Seconds())
		m.set(s, 1, "start_failed", float64(l.failed))
		m.set(s, 1, "start_p99_ms", l.p99())
		m.set(s, 1, "start_partial", float64(partial))
		if l.err != nil {
			m.fault(s, 1, "start_failed", l.err.Error())
		}
		m.Log("%s: %s serves after %v, and knows all %d clients after %v", m.Name(), s.Name, serves.Round(time.Millisecond), want, took.Round(100*time.Millisecond))
	}
	return nil
}

// idle watches both sides while nobody asks anything.
func (m *meter) idle(ctx context.Context) error {
	for _, s := range m.sides() {
		if err := s.cluster.vacuum(ctx); err != nil {
			return err
		}
	}
	// After its start an instance reads, at the lowest priority, what its page shows.
	if !sleep(ctx, min(4*m.Idle, 4*time.Minute)) {
		return ctx.Err()
	}
	var databases [2]proc.Time
	for i, s := range m.sides() {
		if err := s.resetPeak(); err != nil {
			return err
		}
		s.before, databases[i] = proc.CPU(s.roots()), s.database()
	}
	begun := time.Now()
	if !sleep(ctx, m.Idle) {
		return ctx.Err()
	}
	for i, s := range m.sides() {
		wall := time.Since(begun).Seconds()
		database := s.database().Sub(databases[i]).Total.Seconds()
		m.set(s, 1, "idle_cpu_pct", 100*(proc.CPU(s.roots()).Sub(s.before).Total.Seconds()+database)/wall)
		m.set(s, 1, "idle_db_pct", 100*database/wall)
		now, peak := s.resident()
		s.idleMB = now
		m.set(s, 1, "idle_mb", now)
		m.set(s, 1, "idle_peak_mb", peak)
	}
	m.Log("%s: idle for %v", m.Name(), m.Idle)
	return nil
}

// sleep reports whether it slept to the end.
func sleep(ctx context.Context, d time.Duration) bool {
	select {
	case <-ctx.Done():
		return false
	case <-time.After(d):
		return true
	}
}

// compare fails where the sides have other numbers, or the new side others than
// the facts. An older side that cannot answer is noted.
func (m *meter) compare(ctx context.Context) error {
	mine, err := m.new.admin.figures(ctx, m.facts.Since(), m.facts.Account())
	if err != nil {
		return fmt.Errorf("%s: %w", m.new.Name, err)
	}
	problems := mine.differ(m.facts.expected(), [2]string{m.new.Name, "the facts"})
	theirs, err := m.old.admin.figures(ctx, m.facts.Since(), m.facts.Account())
	if err != nil {
		m.fault(m.old, 1, "figures", err.Error())
	}
	problems = append(problems, mine.differ(theirs, [2]string{m.new.Name, m.old.Name})...)
	if len(problems) > 0 {
		slices.Sort(problems)
		return errors.New("numbers are not the same:\n" + strings.Join(problems, "\n"))
	}
	m.set(m.new, 1, "same", float64(len(mine)))
	m.Log("%s: %d numbers of the two are the same", m.Name(), len(theirs))
	return nil
}

// question is one of those that are asked in each round.
type question struct{ key, path string }

// questions are in the order in which they are asked; the last is the whole
// report.
func (m *meter) questions() []question {
	const clients = "/api/v1/legacy-clients"
	return []question{
		{"page", "/"},
		{"list100", clients + "?limit=100"},
		{"list1000", clients + "?limit=1000"},
		{"account", clients + "?account=" + url.QueryEscape(m.facts.Account())},
		{"software", clients + "?software=outlook"},
		{"domain", "/api/v1/report?format=text&by=domain"},
		{"json", whole},
	}
}

// whole is the whole report.
const whole = "/api/v1/report"

// asks asks both sides by turns.
func (m *meter) asks(ctx context.Context) error {
	for round := 1; round <= m.Rounds; round++ {
		for _, s := range m.sides() {
			if err := s.resetPeak(); err != nil {
				return err
			}
		}
		for _, q := range m.questions() {
			for _, s := range m.turns(round) {
				m.askOne(ctx, s, round, q)
			}
		}
		for _, s := range m.turns(round) {
			m.second(ctx, s, round)
			_, peak := s.resident()
			m.set(s, round, "above_mb", peak-s.idleMB)
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		m.Log("%s: round %d of %d: asked", m.Name(), round, m.Rounds)
	}
	return nil
}

// turns are the sides, another one first in each round.
func (m *meter) turns(round int) []*side {
	list := m.sides()
	if round%2 == 0 {
		slices.Reverse(list)
	}
	return list
}

// askOne asks one question. Where the older side gives up, how long that took is
// what it is compared by.
func (m *meter) askOne(ctx context.Context, s *side, round int, q question) {
	var a answer
	m.profile(s, q.key, func() { a = s.admin.ask(ctx, q.path) })
	if problem := a.problem(); problem != "" {
		m.fault(s, round, q.key, problem)
		if s == m.new || a.took < time.Second {
			return
		}
	}
	m.set(s, round, q.key+"_ms", millis(a.took))
	m.set(s, round, q.key+"_first_ms", millis(a.first))
	m.set(s, round, q.key+"_mb", float64(a.size)/1e6)
}

// second asks for a report beside another one. It is to be answered, or told when
// to come back.
func (m *meter) second(ctx context.Context, s *side, round int) {
	first := make(chan answer, 1)
	go func() { first <- s.admin.ask(ctx, whole) }()
	sleep(ctx, 300*time.Millisecond)
	a := s.admin.ask(ctx, whole)
	b := <-first
	refused := 0.0
	if problem := b.problem(); problem != "" {
		refused = 1
		m.fault(s, round, "second_refused", "the first of two reports: "+problem)
	}
	if problem := a.problem(); problem != "" {
		if a.err != nil || a.retryAfter == "" {
			refused = 1
		}
		m.record(s, round).Notes["second"] = problem
	}
	m.set(s, round, "second_refused", refused)
	m.set(s, round, "second_ms", millis(a.took))
}

// logins has logins come without and with reports.
func (m *meter) logins(ctx context.Context) error {
	for round := 1; round <= m.Rounds; round++ {
		for _, s := range m.turns(round) {
			quiet := login(ctx, s.mail(), m.Span)
			var busy *logins
			reports := 0
			m.profile(s, "logins", func() { busy, reports = m.beside(ctx, s) })
			if ctx.Err() != nil {
				return ctx.Err()
			}
			m.set(s, round, "quiet_p99_ms", quiet.p99())
			m.set(s, round, "busy_p99_ms", busy.p99())
			m.set(s, round, "logins_failed", float64(quiet.failed+busy.failed))
			m.set(s, round, "reports", float64(reports))
			for _, l := range []*logins{quiet, busy} {
				if l.err != nil {
					m.fault(s, round, "logins_failed", l.err.Error())
				}
			}
		}
		m.Log("%s: round %d of %d: logins", m.Name(), round, m.Rounds)
	}
	return nil
}

// beside has logins come while somebody asks for one report after another, and
// counts those that were answered.
func (m *meter) beside(ctx context.Context, s *side) (l *logins, reports int) {
	asking, stop := context.WithCancel(ctx)
	defer stop()
	answered := make(chan int)
	go func() {
		n := 0
		for asking.Err() == nil {
			if a := s.admin.ask(asking, whole); a.problem() == "" {
				n++
			} else {
				sleep(asking, 100*time.Millisecond)
			}
		}
		answered <- n
	}()
	l = login(ctx, s.mail(), m.Span)
	stop()
	return l, <-answered
}

// profile takes a CPU profile of the new side, if there are to be any.
func (m *meter) profile(s *side, key string, f func()) {
	if m.Profile == "" || s != m.new {
		f()
		return
	}
	cpu := profiles.StartCPU(strings.TrimPrefix(s.admin.base, "http://"))
	f()
	taken, err := cpu.Stop()
	if err != nil {
		m.Log("profiling: %v", err)
		return
	}
	m.profiled[key] = append(m.profiled[key], taken)
}

func (m *meter) writeProfiles(context.Context) error {
	var errs []error
	for key, list := range m.profiled {
		all, err := profiles.Merge(list)
		if err == nil {
			err = profiles.Write(all, filepath.Join(m.Profile, m.Name()+"-"+key+".pprof"))
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}
