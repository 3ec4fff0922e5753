// Package handover has Postern replaced while clients stay and come: it counts what they
// meet, and compares that with what Postern has remembered.
package handover

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"time"

	_ "modernc.org/sqlite"

	"postern/bench/internal/certs"
	"postern/bench/internal/proc"
	"postern/bench/internal/stub"
	"postern/bench/internal/subject"
)

// The ways to run Postern.
const (
	Hand    = "hand"    // SIGUSR2 to a process as a shell starts it
	Systemd = "systemd" // the service of a real systemd
	Sockets = "sockets" // with the socket units, too
	Restart = "restart" // as Hand, but SIGTERM and a start, for comparison
)

// Ways are all of them.
var Ways = []string{Hand, Systemd, Sockets, Restart}

// Options is what is done.
type Options struct {
	Way          string
	Binaries     [2]string // put in place by turns; their versions differ
	Repo         string    // for a way with systemd
	Sessions     int       // that stay
	PerSecond    int       // logins
	Replacements int
	Rest         time.Duration // the old process keeps the sessions for so long
	Dir          string
	Stub         stub.Ports
	Log          func(format string, args ...any)
}

// Result is what came out.
type Result struct {
	Way                                string
	Sessions, Logins, PerSecond        int
	Replacements                       int
	Handshakes, Legacy                 int // that the clients have counted
	LedgerLegacy                       int // the sum in the ledger
	Refused, Reset, Cut, OtherFailed   int
	Problems                           []string // all that went wrong, in words
	HandoverMS, HandoverWorstMS        float64  // from the signal to the new process's word
	LoginP50MS, LoginP99MS, LoginMaxMS float64
	MostProcesses                      int
	BothMB                             float64 // PSS of both generations, at its most
	Took                               string
}

type run struct {
	Options
	load
	control
	versions [2]string
	admin    string
	result   Result
	handover []time.Duration
	// What clients had counted before the last replacement, and when no handshake with
	// the old process was left.
	before, after map[kind]int
}

// Run does it. The error is for what kept it from being done; what clients met is in
// the result.
func Run(ctx context.Context, o Options) (*Result, error) {
	r := &run{Options: o, load: load{counts: make(map[kind]int)}}
	r.result = Result{Way: o.Way, Sessions: o.Sessions, PerSecond: o.PerSecond}
	begun := time.Now()
	if err := r.prepare(); err != nil {
		return nil, err
	}
	defer r.control.close()
	err := r.all(ctx)
	r.result.Took = time.Since(begun).Round(time.Second).String()
	if err != nil {
		said := r.control.log()
		return nil, fmt.Errorf("%w; Postern says: %s", err, said[max(0, len(said)-3000):])
	}
	return &r.result, nil
}

// prepare has everything there but the first process.
func (r *run) prepare() error {
	for i, binary := range r.Binaries {
		r.versions[i] = subject.OldPostern(binary).Version()
	}
	if r.versions[0] == r.versions[1] {
		return fmt.Errorf("both binaries are of version %s", r.versions[0])
	}
	pair, _, err := certs.Make(r.Dir)
	if err != nil {
		return err
	}
	environ := []string{
		fmt.Sprintf("POSTERN_UPSTREAM_IMAP=imap://127.0.0.1:%d", r.Stub.IMAP),
		fmt.Sprintf("POSTERN_UPSTREAM_POP3=pop3://127.0.0.1:%d", r.Stub.POP3),
		"POSTERN_POLICY_MODE=observe", "POSTERN_LEDGER_IDENTITY=plain",
	}
	if r.Way == Systemd || r.Way == Sockets {
		r.ports, r.admin = map[string]int{"imaps": 993, "pop3s": 995, "imap": 143, "pop3": 110}, "127.0.0.1:9993"
		r.control, err = newSystemd(r.Repo, r.Dir, environ, pair.Cert, pair.Key, r.Way == Sockets)
		return err
	}
	ports, err := subject.FreePorts(len(listeners) + 1)
	if err != nil {
		return err
	}
	r.ports = make(map[string]int)
	for i, l := range listeners {
		r.ports[l] = ports[i]
		environ = append(environ, fmt.Sprintf("POSTERN_LISTEN_%s=127.0.0.1:%d", strings.ToUpper(l), ports[i]))
	}
	r.admin = fmt.Sprintf("127.0.0.1:%d", ports[len(listeners)])
	environ = append(environ, "POSTERN_ADMIN_LISTEN="+r.admin, "POSTERN_TLS_CERT_FILE="+pair.Cert, "POSTERN_TLS_KEY_FILE="+pair.Key,
		"POSTERN_LEDGER_URL=sqlite:"+filepath.Join(r.Dir, "ledger.db"))
	if r.Way == Restart {
		environ = append(environ, "POSTERN_TIMEOUT_DRAIN=2s")
	}
	r.control, err = newByHand(r.Dir, environ, r.Way == Restart)
	return err
}

// all is the whole of it.
func (r *run) all(ctx context.Context) error {
	if err := errors.Join(r.control.put(r.Binaries[0]), r.control.start()); err != nil {
		return err
	}
	if err := r.serves(ctx, r.versions[0]); err != nil {
		return err
	}
	r.come(r.Sessions)
	visiting, stop := context.WithCancel(ctx)
	defer stop()
	visited := make(chan struct{})
	go func() {
		r.visit(visiting, r.PerSecond)
		close(visited)
	}()
	err := r.replacements(ctx)
	stop()
	<-visited
	if err != nil {
		return err
	}
	r.goAll()
	if err := r.last(); err != nil {
		return err
	}
	r.sum()
	return nil
}

// replacements replaces Postern again and again. The sessions of a process that has
// handed over stay where they are for a while. Then their clients leave, as clients do,
// and come back to the new process; the old one is gone.
func (r *run) replacements(ctx context.Context) error {
	for n := 1; n <= r.Replacements; n++ {
		sleep(ctx, time.Second)
		before, _ := r.tally()
		begun := time.Now()
		version := r.versions[n%2]
		if err := errors.Join(r.control.put(r.Binaries[n%2]), r.control.replace(), r.serves(ctx, version)); err != nil {
			return fmt.Errorf("replacement %d: %w", n, err)
		}
		r.handover = append(r.handover, time.Since(begun))
		sleep(ctx, r.Rest)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		running, err := r.control.processes()
		if err != nil {
			return err
		}
		r.result.MostProcesses = max(r.result.MostProcesses, len(running))
		r.result.BothMB = max(r.result.BothMB, float64(proc.Memory(running).PSS)*1024/1e6)
		if want := 2; r.Way != Restart && len(running) != want {
			r.problem("replacement %d: %d processes with sessions of two generations", n, len(running))
		}
		r.goAll()
		r.come(r.Sessions)
		if err := r.oneLeft(ctx); err != nil {
			return fmt.Errorf("replacement %d: %w", n, err)
		}
		r.result.Replacements = n
		after, failed := r.tally()
		r.Log("%s: replacement %d of %d in %v; %d handshakes, %d failures so far", r.Way, n, r.Replacements,
			r.handover[n-1].Round(time.Millisecond), sum(after), failed)
		r.before, r.after = before, after
	}
	return nil
}

func sleep(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}

func (r *run) problem(format string, args ...any) {
	r.result.Problems = append(r.result.Problems, fmt.Sprintf(format, args...))
}

// patience is how long Postern may take for anything.
const patience = 40 * time.Second

// serves waits until a version answers on the admin port and is ready.
func (r *run) serves(ctx context.Context, version string) error {
	var last error
	for end := time.Now().Add(patience); time.Now().Before(end) && ctx.Err() == nil; time.Sleep(5 * time.Millisecond) {
		samples, err := r.metrics()
		if err != nil {
			last = err
			continue
		}
		last = fmt.Errorf("it is not version %s that serves", version)
		if samples.has("postern_build_info", `version="`+version+`"`) {
			if last = r.ready(); last == nil {
				return nil
			}
		}
	}
	return errors.Join(last, ctx.Err())
}

// oneLeft waits until only the newest process is there.
func (r *run) oneLeft(ctx context.Context) error {
	for end := time.Now().Add(patience); ; time.Sleep(50 * time.Millisecond) {
		running, err := r.control.processes()
		switch {
		case err != nil:
			return err
		case len(running) == 1:
			return nil
		case time.Now().After(end), ctx.Err() != nil:
			return fmt.Errorf("%d processes, though all sessions have left the old one", len(running))
		}
	}
}

// last compares what the clients have counted with what Postern has.
func (r *run) last() error {
	samples, err := r.metrics()
	if err != nil {
		return err
	}
	counts, _ := r.tally()
	last := samples.handshakes()
	all := maps.Clone(counts)
	maps.Copy(all, last)
	for _, k := range slices.SortedFunc(maps.Keys(all), kind.compare) {
		if least, most := counts[k]-r.after[k], counts[k]-r.before[k]; last[k] < least || last[k] > most {
			r.problem("%s: the last process has counted %d handshakes, not %d to %d", k, last[k], least, most)
		}
	}
	if s, is := r.control.(*systemd); is {
		if err := s.healthy(); err != nil {
			r.problem("%v", err)
		}
	}
	if err := r.control.stop(); err != nil {
		return err
	}
	for end := time.Now().Add(patience); ; time.Sleep(50 * time.Millisecond) {
		running, err := r.control.processes()
		if err != nil {
			return err
		}
		if len(running) == 0 {
			break
		}
		if time.Now().After(end) {
			return errors.New("it does not stop")
		}
	}
	var ledger map[kind]int
	file, err := r.control.ledger()
	if err == nil {
		ledger, err = readLedger(file)
	}
	if err != nil {
		return fmt.Errorf("reading the ledger: %w", err)
	}
	// A handshake that a restart has cut is one that failed there, and a reset or an end here.
	cut := 0
	maps.DeleteFunc(ledger, func(k kind, n int) bool {
		if k.outcome == "failed" {
			cut += n
		}
		return k.outcome == "failed"
	})
	r.result.LedgerLegacy = sum(ledger)
	if noticed := len(r.failures); cut > noticed { // then they count, and the sums differ
		r.problem("the ledger has %d handshakes that failed, the clients noticed %d", cut, noticed)
		r.result.LedgerLegacy += cut
	}
	r.result.Problems = append(r.result.Problems, differ(legacy(counts), ledger, "the ledger")...)
	return nil
}

// readLedger sums up what the ledger holds.
func readLedger(file string) (map[kind]int, error) {
	db, err := sql.Open("sqlite", "file:"+file+"?mode=ro")
	if err != nil {
		return nil, err
	}
	defer db.Close()
	rows, err := db.Query("SELECT listener, version, sum(observed), sum(explained), sum(rejected), sum(failed) FROM sightings GROUP BY listener, version")
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	counts := make(map[kind]int)
	for rows.Next() {
		var k kind
		var n [4]int
		if err := rows.Scan(&k.listener, &k.version, &n[0], &n[1], &n[2], &n[3]); err != nil {
			return nil, err
		}
		for i, outcome := range []string{"observed", "explained", "rejected", "failed"} {
			if k.outcome = outcome; n[i] > 0 {
				counts[k] = n[i]
			}
		}
	}
	return counts, rows.Err()
}

// sum fills in the rest of the result.
func (r *run) sum() {
	counts, _ := r.tally()
	res := &r.result
	res.Handshakes, res.Legacy, res.Logins = sum(counts), sum(legacy(counts)), r.visits
	for _, f := range r.failures {
		switch f.class() {
		case "refused":
			res.Refused++
		case "reset":
			res.Reset++
		case "cut":
			res.Cut++
		default:
			res.OtherFailed++
		}
	}
	for _, f := range r.failures[:min(len(r.failures), 20)] {
		r.problem("%s", f)
	}
	slices.Sort(r.handover)
	slices.Sort(r.took)
	res.HandoverMS, res.HandoverWorstMS = quantile(r.handover, .5), quantile(r.handover, 1)
	res.LoginP50MS, res.LoginP99MS, res.LoginMaxMS = quantile(r.took, .5), quantile(r.took, .99), quantile(r.took, 1)
}

// quantile is one of ascending times, in milliseconds.
func quantile(all []time.Duration, q float64) float64 {
	if len(all) == 0 {
		return 0
	}
	return all[min(int(q*float64(len(all))), len(all)-1)].Seconds() * 1000
}
