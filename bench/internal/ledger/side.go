package ledger

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"postern/bench/internal/measure"
	"postern/bench/internal/proc"
	"postern/bench/internal/subject"
)

// side is one of the two binaries with a ledger of its own.
type side struct {
	*subject.Subject
	dir       string
	url       string
	cluster   *cluster // nil: SQLite
	instances []*subject.Instance
	admin     *asker  // of the first instance
	idleMB    float64 // its memory when idle
	before    proc.Time
}

// begin starts instances of a binary on the ledger, and returns when the first
// has served.
func (s *side) begin(o *Options, instances int, profile bool) (time.Duration, error) {
	var serves time.Duration
	for n := range instances {
		in, took, err := measure.Launch(s.Subject, s.dir, subject.Options{Cert: o.Cert, Stub: o.Stub, Profile: profile, Patience: patience,
			Env: []string{"POSTERN_LEDGER_URL=" + s.url, "POSTERN_LEDGER_IDENTITY=plain", "POSTERN_POLICY_MODE=observe"}})
		if err != nil {
			return 0, err
		}
		s.instances = append(s.instances, in)
		if n == 0 {
			serves = took
			s.admin = newAsker(fmt.Sprintf("127.0.0.1:%d", in.Admin))
		}
	}
	return serves, nil
}

func (s *side) end() {
	for _, in := range s.instances {
		in.Stop()
	}
	s.instances = nil
	if s.cluster != nil {
		s.cluster.stop()
	}
}

// roots are the instances' processes.
func (s *side) roots() (pids []int) {
	for _, in := range s.instances {
		pids = append(pids, in.Roots...)
	}
	return pids
}

// database is the CPU time of the database server, if there is one.
func (s *side) database() proc.Time {
	if s.cluster == nil {
		return proc.Time{}
	}
	return proc.CPU([]int{s.cluster.cmd.Process.Pid})
}

// mail is where the first instance takes logins.
func (s *side) mail() string { return fmt.Sprintf("127.0.0.1:%d", s.instances[0].IMAPS) }

// resetPeak begins new peaks of memory.
func (s *side) resetPeak() error {
	for _, pid := range s.roots() {
		if err := proc.ResetPeak(pid); err != nil {
			return fmt.Errorf("resetting the peak of memory: %w", err)
		}
	}
	return nil
}

// resident is the memory of the instance that takes most, now and at its peak, in
// MB.
func (s *side) resident() (now, peak float64) {
	for _, pid := range s.roots() {
		n, p := proc.Resident(pid)
		now, peak = max(now, megabytes(n)), max(peak, megabytes(p))
	}
	return now, peak
}

func megabytes(kb int64) float64 { return float64(kb) * 1024 / 1e6 }

// prepare fills a ledger and has each side have a copy.
func (m *meter) prepare(ctx context.Context) error {
	origin := &side{}
	if err := m.makeDir(origin, "origin"); err != nil {
		return err
	}
	defer os.RemoveAll(origin.dir)
	begun := time.Now()
	m.facts = Facts{Rows: m.Rows, Now: begun.Unix()}
	file := filepath.Join(origin.dir, "ledger.db")
	if err := m.fill(ctx, origin, file); err != nil {
		return fmt.Errorf("filling a ledger: %w", err)
	}
	m.Log("%s: filled in %v", m.Name(), time.Since(begun).Round(time.Second))
	for _, s := range m.sides() {
		if err := m.copyTo(ctx, s, origin, file); err != nil {
			return err
		}
	}
	return nil
}

func (m *meter) fill(ctx context.Context, origin *side, file string) (err error) {
	if !m.Postgres {
		return m.facts.FillSQLite(ctx, file)
	}
	if origin.cluster, err = newCluster(origin.dir); err != nil {
		return err
	}
	defer origin.end() // the cluster is copied
	if err := origin.cluster.start(ctx); err != nil {
		return err
	}
	return m.facts.FillPostgres(ctx, origin.cluster.url())
}

// makeDir makes a side's directory, which an unprivileged server may enter.
func (m *meter) makeDir(s *side, name string) (err error) {
	if s.dir, err = os.MkdirTemp(m.Dir, name+"-"); err != nil {
		return err
	}
	return os.Chmod(s.dir, 0o755)
}

func (m *meter) copyTo(ctx context.Context, s, origin *side, file string) (err error) {
	if err := m.makeDir(s, s.Name); err != nil {
		return err
	}
	if m.Postgres {
		if s.cluster, err = origin.cluster.copyTo(s.dir); err != nil {
			return err
		}
		if err := s.cluster.start(ctx); err != nil {
			return err
		}
		s.url = s.cluster.url()
		return nil
	}
	s.url = "sqlite:" + filepath.Join(s.dir, "ledger.db")
	from, err := os.Open(file)
	if err != nil {
		return err
	}
	defer from.Close()
	to, err := os.Create(filepath.Join(s.dir, "ledger.db"))
	if err != nil {
		return err
	}
	defer to.Close()
	_, err = to.ReadFrom(from)
	return err
}
