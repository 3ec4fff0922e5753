package main

import (
	"context"
	"fmt"
	"os"
	"slices"
	"strconv"
	"time"

	"postern/bench/internal/certs"
	"postern/bench/internal/limits"
	"postern/bench/internal/measure"
	"postern/bench/internal/report"
	"postern/bench/internal/subject"
)

// runner goes through rounds, subjects and measures.
type runner struct {
	o    options
	env  *measure.Env
	out  *report.Run
	left *left
	prof *profiler
	// noted is by subject, measure and note.
	noted map[[3]string]bool
}

// measureAll sets everything up, goes all rounds and takes it down again.
func measureAll(ctx context.Context, o options) (*report.Run, error) {
	env := &measure.Env{Dir: o.scratch, Quick: o.quick, IdleSteps: o.steps, Profile: o.profile != "" || o.old != ""}
	fds, err := raiseFiles(200000)
	if err != nil {
		return nil, err
	}
	env.MaxConn = min(fds/2-100, 20000) // a proxied connection takes two
	if most := slices.Max(o.steps); most > env.MaxConn-100 {
		return nil, fmt.Errorf("%d file descriptors allow %d idle sessions, not %d", fds, env.MaxConn-100, most)
	}
	o.subjects = slices.DeleteFunc(slices.Clone(o.subjects), func(s *subject.Subject) bool {
		why := s.Missing()
		if why != "" {
			fmt.Fprintf(os.Stderr, "%s: %s, left out\n", s.Name, why)
		}
		return why != ""
	})
	if env.EC, env.RSA, err = certs.Make(env.Dir); err != nil {
		return nil, err
	}
	ports, stop, err := startStub()
	if err != nil {
		return nil, err
	}
	defer stop()
	env.Stub = ports

	r := &runner{o: o, env: env, left: newLeft(o), noted: map[[3]string]bool{}, out: &report.Run{
		Started: time.Now().UTC().Format("2006-01-02 15:04 MST"), IdleSteps: o.steps, Rounds: o.repeat, Machine: machine()}}
	if o.profile != "" {
		r.prof = newProfiler(o.profile)
		env.Snapshot = r.prof.snapshot
	}
	for _, s := range o.subjects {
		r.out.Subjects = append(r.out.Subjects, report.Subject{
			Name: s.Name, Version: s.Version(), Note: s.Note, Size: s.Size(), Peer: s.Peer, Direct: s.Direct})
	}
	t0 := time.Now()
	fmt.Fprintln(os.Stderr, r.left)
	if o.whole() {
		fmt.Fprintln(os.Stderr, "what the machine can do: half a minute")
		if r.out.Limits, err = limits.Measure(); err != nil {
			return nil, err
		}
	}
	for round := 1; round <= o.repeat; round++ {
		for _, s := range o.subjects { // A B C, A B C: drift hits all alike
			r.round(ctx, round, s)
		}
	}
	r.out.Took = time.Since(t0).Round(time.Second).String()
	r.out.Machine = append(r.out.Machine, report.Fact{Name: "load after", Value: load()})
	if o.pgo != "" {
		return r.out, r.prof.merge(o.pgo)
	}
	return r.out, nil
}

// applies tells whether a measure is part of a round of a subject.
func (o options) applies(m *measure.Measure, s *subject.Subject, round int) bool {
	return (!s.Direct || m.Direct) && (!m.Slow || round <= o.idleRepeat)
}

// round takes one subject through all the measures, with as many starts as
// their groups need.
func (r *runner) round(ctx context.Context, round int, s *subject.Subject) {
	var in *subject.Instance
	var group measure.Group
	defer func() {
		if in != nil {
			in.Stop()
		}
	}()
	for _, m := range r.o.measures {
		if ctx.Err() != nil {
			return
		}
		if !r.o.applies(m, s, round) {
			continue
		}
		rec := report.Record{Round: round, Subject: s.Name, Measure: m.Name, Values: measure.Values{}, Notes: measure.Notes{}}
		t0 := time.Now()
		var err error
		if in == nil || m.Group != group || m.Group == measure.Fresh {
			if in != nil {
				in.Stop()
			}
			var took time.Duration
			in, took, err = measure.Start(r.env, s, m.Group)
			group = m.Group
			rec.Values["ms"] = took.Seconds() * 1000
		}
		if err == nil {
			err = r.measure(m, in, rec)
		}
		if err == nil && in.Exited() {
			err = fmt.Errorf("%s has ended", s.Name)
		}
		if err != nil {
			rec.Error = err.Error()
		}
		r.out.Records = append(r.out.Records, r.tidy(rec))
		r.left.done(m, time.Since(t0))
		fmt.Fprintf(os.Stderr, "%s round %d %s %s: %s%s\n", r.left, round, s.Name, m.Name, r.brief(m, rec), rec.Error)
	}
}

// tidy leaves out of a record the notes that an earlier round had too, which
// only differ by times and ports, and digits that mean nothing.
func (r *runner) tidy(rec report.Record) report.Record {
	for k := range rec.Notes {
		if k == "error" {
			continue
		}
		name := [3]string{rec.Subject, rec.Measure, k}
		if r.noted[name] {
			delete(rec.Notes, k)
		}
		r.noted[name] = true
	}
	for k, v := range rec.Values {
		if short, err := strconv.ParseFloat(strconv.FormatFloat(v, 'g', 6, 64), 64); err == nil {
			rec.Values[k] = short
		}
	}
	return rec
}

// measure runs one measure, with a profile if one is asked for.
func (r *runner) measure(m *measure.Measure, in *subject.Instance, rec report.Record) error {
	if r.prof == nil || in.Subject != subject.Postern || m.Name == "startup" {
		return m.Run(r.env, in, rec.Values, rec.Notes)
	}
	return r.prof.around(m, in, func() error { return m.Run(r.env, in, rec.Values, rec.Notes) })
}

// brief is the figures of a measure in a line.
func (r *runner) brief(m *measure.Measure, rec report.Record) string {
	out := ""
	for _, c := range m.ColumnsAt(r.env.IdleSteps) {
		if v, ok := rec.Values[c.Key]; ok {
			out += fmt.Sprintf("%s "+c.Format+"; ", c.Title, v)
		}
	}
	return out
}

// left tells how much of a run is left.
type left struct {
	total, finished int
	pending         map[*measure.Measure]int
	spent           map[*measure.Measure]time.Duration
	seen            map[*measure.Measure]int
}

// newLeft counts what is to be done.
func newLeft(o options) *left {
	l := &left{pending: map[*measure.Measure]int{}, spent: map[*measure.Measure]time.Duration{}, seen: map[*measure.Measure]int{}}
	for round := 1; round <= o.repeat; round++ {
		for _, s := range o.subjects {
			for _, m := range o.measures {
				if o.applies(m, s, round) {
					l.total++
					l.pending[m]++
				}
			}
		}
	}
	return l
}

// done counts one measure of one subject.
func (l *left) done(m *measure.Measure, took time.Duration) {
	l.finished++
	l.pending[m]--
	l.seen[m]++
	l.spent[m] += took
}

// String is how far it is, and how long what is left takes if each measure
// takes as long as it did so far.
func (l *left) String() string {
	var rest time.Duration
	for m, n := range l.pending {
		each := time.Duration(m.Seconds * float64(time.Second))
		if l.seen[m] > 0 {
			each = l.spent[m] / time.Duration(l.seen[m])
		}
		rest += time.Duration(n) * each
	}
	return fmt.Sprintf("[%d/%d, %v left]", l.finished, l.total, rest.Round(time.Second))
}
