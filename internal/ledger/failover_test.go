package ledger

import (
	"database/sql"
	"fmt"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"postern/internal/postgrestest"
	"postern/policy"
)

// TestAServerThatDiesWithoutAWord leaves its connections open, as a machine does that
// loses its power. Another server takes its place.
func TestAServerThatDiesWithoutAWord(t *testing.T) {
	first := postgrestest.New(t)
	u, err := url.Parse(first.NewDatabase(t))
	if err != nil {
		t.Fatal(err)
	}
	standby := first.Standby(t)
	u.Host = first.Addr + "," + standby.Addr
	g := newReplica(t, u.String()+"&connect_timeout=1")
	g.session(hello("192.0.2.7"), "anna", "")
	g.flush()
	var conns []*sql.Conn
	for range idleConnections {
		c, err := g.store.db.Conn(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		conns = append(conns, c)
	}
	for _, c := range conns {
		c.Close()
	}
	if err := first.Pause(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { first.Resume() })
	g.session(hello("192.0.2.7"), "anna", "")
	g.session(hello("192.0.2.8"), "bert", "")
	if g.briefly(300*time.Millisecond) == nil {
		t.Error("it was written to a server that is dead")
	}
	wait(t, "the one that can only be read", func() bool { // which may take longer than connect_timeout
		err := g.briefly(10 * time.Second)
		if err == nil || !away(err) {
			t.Fatalf("at a server that is dead and one that can only be read: %v", err)
		}
		return strings.Contains(err.Error(), "read only connection")
	})
	standby.Promote(t)
	wait(t, "the one that can be written now", func() bool { return g.briefly(10*time.Second) == nil })
	for _, c := range g.clients(Filter{}) {
		if want := map[string]int64{"192.0.2.7": 2, "192.0.2.8": 1}[c.Addr.String()]; c.Counts.Observed != want {
			t.Errorf("%v: %+v, want %d", c.Addr, c.Counts, want)
		}
	}
}

// TestSeveralServersAreThoseOfOneThatCanBeWritten, and none that is dead keeps the next
// one from being asked.
func TestSeveralServersAreThoseOfOneThatCanBeWritten(t *testing.T) {
	for from, want := range map[string]string{
		"postgres://u@a:1,b:2/x":   "connect_timeout=5&default_query_exec_mode=exec&target_session_attrs=read-write",
		"postgres://u@/x?host=a,b": "connect_timeout=5&default_query_exec_mode=exec&host=a%2Cb&target_session_attrs=read-write",
		"postgres://u@a:1,b:2/x?target_session_attrs=any&connect_timeout=2": "connect_timeout=2&default_query_exec_mode=exec&target_session_attrs=any",
		"postgres://u@a/x": "connect_timeout=5&default_query_exec_mode=exec",
	} {
		_, dsn, reason := source(from, false)
		if _, query, _ := strings.Cut(dsn, "?"); query != want || reason != "" {
			t.Errorf("%s: %s %s, want %s", from, query, reason, want)
		}
	}
	if _, dsn, _ := source("postgres://u@a:1,b:2/x", true); strings.Contains(dsn, "target_session_attrs") {
		t.Errorf("a report reads one that can be written alone: %s", dsn)
	}
}

// TestReplicasShareTheWorkOfPruning: the one that has counted looks through all rows.
// Names are read again once, not for each piece.
func TestReplicasShareTheWorkOfPruning(t *testing.T) {
	g := newReplica(t, newURL(t, "postgres"))
	other := g.another()
	other.queue.addHello(policy.JA4{'x'}, &policy.Hello{})
	other.meet(hello("192.0.2.7"))
	other.flush()
	if _, _, err := g.store.Distinct(t.Context(), g.now()); err != nil {
		t.Fatal(err)
	}
	for i, r := range []*replica{other, g} {
		before := r.store.erased.Load()
		if err := r.store.Prune(t.Context(), g.now().AddDate(0, 0, -90)); err != nil {
			t.Fatal(err)
		}
		if n := r.store.erased.Load() - before; n != 1 {
			t.Errorf("replica %d has its names read %d times", i+1, n)
		}
		if hellos, err := g.store.Hellos(t.Context()); err != nil || len(hellos) != 2-i {
			t.Errorf("replica %d leaves %d hellos, %v", i+1, len(hellos), err)
		}
	}
}

// TestReplicasWhoseClocksDiffer count in turn: when a count is due goes by the database's clock.
func TestReplicasWhoseClocksDiffer(t *testing.T) {
	g := newReplica(t, newURL(t, "postgres"))
	fast := g.another()
	fast.clock = new(atomic.Int64)
	fast.at(noon.Add(time.Hour))
	fast.restart(nil)
	g.meet(hello("192.0.2.7"))
	for i, r := range []*replica{fast, g} {
		r.meet(hello("192.0.2.8"))
		r.flush()
		wait(t, fmt.Sprintf("a count of replica %d", i+1), func() bool {
			_, at, err := r.store.Distinct(t.Context(), r.now())
			return err == nil && at.Equal(r.now())
		})
	}
}
