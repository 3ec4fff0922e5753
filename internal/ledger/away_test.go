package ledger

import (
	"bufio"
	"bytes"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"postern/internal/posterntest"
)

// briefly tries to write, for a test's time.
func (g *replica) briefly(d time.Duration) error {
	ctx, cancel := context.WithTimeout(context.Background(), d)
	defer cancel()
	return g.Flush(ctx)
}

// The proxy starts beside a database that does not answer, and fills it when it
// comes; one that says no is another matter.
func TestADatabaseMayComeLaterThanTheProxy(t *testing.T) {
	url := newURL(t, "postgres")
	if err := pg(t).Stop(); err != nil {
		t.Fatal(err)
	}
	s, err := Open(t.Context(), url)
	if !errors.Is(err, ErrAway) || s == nil {
		t.Fatalf("a store %v, error %v", s, err)
	}
	t.Cleanup(func() { s.Close() })
	g := &replica{t: t, url: url, clock: new(atomic.Int64), store: s}
	g.clock.Store(noon.Unix())
	g.restart(plainIdentity)
	g.session(hello("192.0.2.7"), "anna", "")
	if g.briefly(time.Second) == nil {
		t.Error("it was written to a database that is away")
	}
	if err := pg(t).Start(); err != nil {
		t.Fatal(err)
	}
	wait(t, "the database", func() bool { return g.briefly(10*time.Second) == nil })
	if c := g.only(Filter{}); c.Accounts[0] != "anna" {
		t.Errorf("%+v", c)
	}
	if s, err := Open(t.Context(), pg(t).URL("nowhere")); err == nil || errors.Is(err, ErrAway) || s != nil {
		t.Errorf("a database that does not exist: %v, %v", s, err)
	}
}

func TestADatabaseThatIsAwayCostsNoSighting(t *testing.T) {
	for name, away := range map[string]struct{ begin, end func() error }{
		"stopped": {pg(t).Stop, pg(t).Start},
		"frozen":  {pg(t).Pause, pg(t).Resume},
	} {
		t.Run(name, func(t *testing.T) {
			g := newReplica(t, newURL(t, "postgres"))
			g.session(hello("192.0.2.7"), "anna", "")
			g.flush()
			if err := away.begin(); err != nil {
				t.Fatal(err)
			}
			const rounds, clients = 3, 100
			for range rounds {
				for i := range clients {
					g.session(hello(fmt.Sprintf("10.0.0.%d", i)), "bert", "")
				}
				g.session(hello("192.0.2.7"), "anna", "")
				g.later(time.Minute)
				if g.briefly(300*time.Millisecond) == nil {
					t.Error("it was written to a database that is away")
				}
			}
			g.wantNamed(hello("192.0.2.7"), "1 anna/")
			if err := away.end(); err != nil {
				t.Fatal(err)
			}
			wait(t, "the database", func() bool { return g.briefly(10*time.Second) == nil })
			list := g.clients(Filter{})
			if len(list) != clients+1 || g.Dropped() != 0 {
				t.Errorf("%d clients, %d dropped", len(list), g.Dropped())
			}
			for _, c := range list {
				want := Counts{Observed: rounds}
				if c.Addr.String() == "192.0.2.7" {
					want = Counts{Observed: rounds + 1, Rejected: 1}
				} else if !c.First.Equal(noon) || !c.Last.Equal(noon.Add((rounds-1)*time.Minute)) {
					t.Errorf("%v: %v to %v", c.Addr, c.First, c.Last)
				}
				if c.Counts != want || c.Login != LoginOK || len(c.Accounts) != 1 {
					t.Errorf("%+v, want %+v", c, want)
				}
			}
		})
	}
}

// TestADatabaseThatCannotBeWrittenNow takes reads alone, as a server does that
// another one is about to replace: its connections stay so as long as they live.
func TestADatabaseThatCannotBeWrittenNow(t *testing.T) {
	url := newURL(t, "postgres")
	db, err := sql.Open("pgx", url)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	name := url[strings.LastIndexByte(url, '/')+1:]
	name, _, _ = strings.Cut(name, "?")
	do := func(statement string) {
		t.Helper()
		if _, err := db.ExecContext(t.Context(), statement); err != nil {
			t.Fatal(err)
		}
	}
	readOnly := func() {
		do("ALTER DATABASE " + name + " SET default_transaction_read_only = on")
		do("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '" + name + "' AND pid <> pg_backend_pid()")
	}
	writable := func() { do("ALTER DATABASE " + name + " RESET default_transaction_read_only") }
	db.SetMaxOpenConns(1) // which was made before

	g := newReplica(t, url)
	g.meet(hello("192.0.2.7"))
	g.flush()
	if b := g.Backlog(); b.Clients != 0 || b.Stuck || b.Written != noon.Unix() || b.Ledger != Redacted(url) {
		t.Errorf("after a write: %+v", b)
	}
	readOnly()
	g.meet(hello("192.0.2.8"))
	g.later(time.Minute)
	if err := g.Flush(t.Context()); err == nil {
		t.Error("it was written")
	}
	if err := g.Flush(t.Context()); !away(err) || !errors.As(err, new(*pgconn.PgError)) {
		t.Errorf("it was not written since %v", err)
	}
	if b := g.Backlog(); b.Clients != 1 || !b.Stuck || !b.Since.Equal(noon) {
		t.Errorf("while it cannot be written: %+v", b)
	}
	if s, err := Open(t.Context(), url); !errors.Is(err, ErrAway) || s == nil {
		t.Errorf("at a start: %v, %v", s, err)
	} else {
		s.Close()
	}
	writable()
	wait(t, "the database", func() bool { return g.briefly(10*time.Second) == nil })
	if b := g.Backlog(); b.Clients != 0 || b.Stuck || b.Written != noon.Add(time.Minute).Unix() {
		t.Errorf("when it can be written again: %+v", b)
	}
	g.wantLeft("[192.0.2.7 192.0.2.8]")
}

func TestALedgerKnowsItsAge(t *testing.T) {
	each(t, func(t *testing.T, g *replica) {
		began := func() time.Time {
			t.Helper()
			b, err := g.store.Began(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			return b
		}
		made := began()
		if time.Since(made) > time.Minute || time.Until(made) > 0 {
			t.Errorf("made %v", made)
		}
		g.meet(hello("192.0.2.7")) // at a time that has passed
		g.restart(nil)
		if b := began(); !b.Equal(noon) {
			t.Errorf("a client was seen at %v, and it began %v", noon, b)
		}
		if err := g.store.Prune(t.Context(), made.Add(-time.Hour)); err != nil {
			t.Fatal(err)
		}
		if b := began(); !b.Equal(made) {
			t.Errorf("without a client it began %v, not %v", b, made)
		}
	})
}

// TestACommitWhoseAnswerIsLost goes through a line that breaks just then: what
// was committed is not added once more, and what was not is.
func TestACommitWhoseAnswerIsLost(t *testing.T) {
	for _, arrives := range []bool{true, false} {
		t.Run(fmt.Sprintf("arrives %v", arrives), func(t *testing.T) {
			u, err := url.Parse(newURL(t, "postgres"))
			if err != nil {
				t.Fatal(err)
			}
			line := breakingLine(t, u.Host, arrives)
			u.Host = line.addr
			g := newReplica(t, u.String())
			g.meet(hello("192.0.2.7"))
			g.flush()
			line.armed.Store(true)
			g.session(hello("192.0.2.7"), "anna", "")
			g.meet(hello("192.0.2.8"))
			if err := g.Flush(t.Context()); err == nil {
				t.Fatal("the line did not break")
			}
			g.meet(hello("192.0.2.7"))
			g.flush()
			g.flush()
			for _, c := range g.clients(Filter{}) {
				want := Counts{Rejected: 1}
				if c.Addr.String() == "192.0.2.7" {
					want = Counts{Rejected: 2, Observed: 1}
				}
				if c.Counts != want {
					t.Errorf("%v: %+v, want %+v", c.Addr, c.Counts, want)
				}
			}
		})
	}
}

type line struct {
	addr  string
	armed atomic.Bool
}

// breakingLine forwards to an address. Once it is armed, it breaks the next
// connection that commits: behind the commit, or before it.
func breakingLine(t *testing.T, to string, arrives bool) *line {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	b := &line{addr: l.Addr().String()}
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			s, err := net.Dial("tcp", to)
			if err != nil {
				c.Close()
				continue
			}
			var broken atomic.Bool
			go func() {
				defer s.Close()
				buf := make([]byte, 64<<10)
				for {
					n, err := c.Read(buf)
					if err != nil {
						return
					}
					if bytes.Contains(bytes.ToLower(buf[:n]), []byte("commit")) && b.armed.CompareAndSwap(true, false) {
						broken.Store(true)
						if arrives {
							s.Write(buf[:n])
							time.Sleep(300 * time.Millisecond) // what is answered is thrown away
						}
						c.Close()
						return
					}
					s.Write(buf[:n])
				}
			}()
			go func() {
				defer c.Close()
				buf := make([]byte, 64<<10)
				for {
					n, err := s.Read(buf)
					if err != nil {
						return
					}
					if !broken.Load() {
						c.Write(buf[:n])
					}
				}
			}()
		}
	}()
	return b
}

func TestTheQueueIsBounded(t *testing.T) {
	if raced && !alone(t) {
		return
	}
	const bound = 100_000
	g := newReplica(t, Memory)
	var log strings.Builder
	g.log = slog.New(slog.NewTextHandler(&log, nil))
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	h := hello("10.0.0.0")
	meet := func(i int) {
		h.Client = netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)}), 4000)
		g.meet(h)
	}
	for i := range bound {
		meet(i)
	}
	if g.Flush(ctx) == nil {
		t.Fatal("it was written")
	}
	if n := g.Dropped(); n != 0 {
		t.Errorf("%d were dropped within the bound", n)
	}
	for i := range bound + 50 {
		meet(i)
	}
	if n := g.Dropped(); n != 50 {
		t.Errorf("%d were dropped beyond the bound, not 50", n)
	}
	for range 2 {
		if g.Flush(ctx) == nil {
			t.Fatal("it was written")
		}
	}
	g.flush()
	if strings.Count(log.String(), "too many clients wait for the ledger") != 1 || !strings.Contains(log.String(), "written again\" ledger=memory: dropped=50\n") {
		t.Errorf("the log says\n%s", log.String())
	}
	meet(bound) // there is room again
	g.flush()
	if n, err := g.store.Count(t.Context(), Filter{}); n != bound+1 || err != nil {
		t.Errorf("%d clients, %v", n, err)
	}
	days := g.days(noon)
	if len(days) != 1 || days[0].Counts.Rejected != 2*bound+1 {
		t.Errorf("%+v", days)
	}
	if n := g.Dropped(); n != 50 {
		t.Errorf("%d were dropped in the end", n)
	}
}

func TestNothingNewIsNoQuery(t *testing.T) {
	g := newReplica(t, newURL(t, "sqlite"))
	g.session(hello("192.0.2.7"), "anna", "")
	g.flush()
	g.store.Close() // whoever asks now gets an error
	for range 3 {
		g.flush()
		g.later(FlushEvery)
	}
	g.meet(hello("192.0.2.7"))
	if g.Flush(t.Context()) == nil {
		t.Error("a closed store was written")
	}
}

func TestTheEndWritesTheRest(t *testing.T) {
	each(t, func(t *testing.T, g *replica) {
		ctx, stop := context.WithCancel(t.Context())
		var group sync.WaitGroup
		group.Go(func() { g.Run(ctx) })
		g.meet(hello("192.0.2.7"))
		stop()
		group.Wait()
		if err := g.Recorder.Close(t.Context()); err != nil {
			t.Fatal(err)
		}
		if n, err := g.store.Count(t.Context(), Filter{}); n != 1 || err != nil {
			t.Errorf("%d, %v", n, err)
		}
	})
}

func TestTheEndWaitsForADatabaseOnlySoLong(t *testing.T) {
	g := newReplica(t, newURL(t, "sqlite"))
	g.meet(hello("192.0.2.7"))
	g.store.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
	defer cancel()
	if err := g.Recorder.Close(ctx); err == nil {
		t.Error("no error")
	}
	if ctx.Err() == nil {
		t.Error("it did not try again")
	}
}

// child records one client after the other, and says when it has, until it is
// killed.
func child(path string) {
	s, err := Open(context.Background(), "sqlite:"+path)
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	r := NewRecorder(Options{Store: s, Log: silent, Now: time.Now})
	go r.Run(context.Background())
	for i := 0; ; i++ {
		r.Handshake(hello(fmt.Sprintf("10.0.%d.%d", i>>8, i&0xff)))
		fmt.Println(i, time.Now().UnixMilli())
		time.Sleep(20 * time.Millisecond)
	}
}

func TestAKilledProcessLosesFiveSecondsAtMost(t *testing.T) {
	posterntest.Within(t, "what is lost", 5*time.Second, func() time.Duration { return lostByKilling(t) })
}

// lostByKilling is the time up to the end of which nothing was written.
func lostByKilling(t *testing.T) time.Duration {
	t.Helper()
	path := filepath.Join(t.TempDir(), "ledger.db")
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), "POSTERN_TEST_LEDGER_CHILD="+path)
	posterntest.EndWithTest(cmd, syscall.SIGKILL)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var said []time.Time
	for lines := bufio.NewScanner(out); lines.Scan(); {
		i, at, _ := strings.Cut(lines.Text(), " ")
		ms, err := strconv.ParseInt(at, 10, 64)
		if err != nil || i != strconv.Itoa(len(said)) {
			t.Fatalf("the child says %q", lines.Text())
		}
		if said = append(said, time.UnixMilli(ms)); len(said) == 1 {
			time.AfterFunc(2*FlushEvery+time.Second, func() { cmd.Process.Kill() })
		}
	}
	killed := said[len(said)-1]
	_ = cmd.Wait()
	n, err := openStore(t, "sqlite:"+path).Count(t.Context(), Filter{})
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%d of %d", n, len(said))
	if n > len(said)+1 {
		t.Fatalf("%d clients are there of %d", n, len(said))
	}
	if n >= len(said) {
		return 0
	}
	return killed.Sub(said[n])
}
