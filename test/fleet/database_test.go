package fleet

import (
	"database/sql"
	"net/url"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"postern/internal/posterntest"
	"postern/internal/postgrestest"
)

// ledgerOf reads what the ledger has counted, by address: sightings, which have to be
// those of the days, and logins.
func ledgerOf(t *testing.T, database string) (observed, logins map[string]int) {
	t.Helper()
	db, err := sql.Open("pgx", database)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	rows, err := db.QueryContext(t.Context(), `SELECT client, observed, login_ok, (SELECT sum(d.observed) FROM days d WHERE d.sighting = s.id),
		explained + rejected + failed + login_failed FROM sightings s`)
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close()
	// A login counts at each sighting of its client: those of several replicas differ by port.
	observed, logins = make(map[string]int), make(map[string]int)
	for rows.Next() {
		var client string
		var seen, ok, days, other int
		if err := rows.Scan(&client, &seen, &ok, &days, &other); err != nil {
			t.Fatal(err)
		}
		if days != seen || other != 0 {
			t.Errorf("%s: %d handshakes, %d by day, and %d others", client, seen, days, other)
		}
		observed[client] += seen
		logins[client] = max(logins[client], ok)
	}
	return observed, logins
}

// TestReplicasOutliveTheirDatabase: it restarts, it is away, and another takes its
// place that cannot be written for a while. One replica names both servers, one an
// address that changes hands, and one goes through PgBouncer.
func TestReplicasOutliveTheirDatabase(t *testing.T) {
	t.Parallel()
	first := postgrestest.New(t)
	database := first.NewDatabase(t)
	standby := first.Standby(t)
	moving := forward(t, first.Addr)
	urls := []string{
		through(t, database, first.Addr+","+standby.Addr) + "&target_session_attrs=read-write",
		through(t, database, moving.at),
		postgrestest.Pooled(t, through(t, database, moving.at)),
	}
	f := start(t, func(i int) map[string]string {
		return map[string]string{"POLICY_MODE": "observe", "LEDGER_URL": urls[i], "LEDGER_IDENTITY": "plain"}
	})
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	stop := f.load(t, 0)
	must(first.Stop())
	must(first.Start())
	f.written(t)

	must(first.Stop())
	f.stuck(t)
	late := f.add(t, map[string]string{"POLICY_MODE": "observe", "LEDGER_URL": urls[0], "LEDGER_IDENTITY": "plain"})
	said := late.WaitLog(t, "the ledger cannot be written yet, trying again", 1)[0]["error"].(string)
	if code, out := late.Command("check"); code != 0 || !strings.Contains(out, "warning: POSTERN_LEDGER_URL: "+said) {
		t.Errorf("serve says %q, check (exit code %d)\n%s", said, code, out)
	}
	must(first.Start())
	stopLate := (&fleet{gates: f.gates[replicas:]}).load(t, replicas)
	f.written(t)

	must(first.Crash())
	moving.to.Store(&standby.Addr)
	f.stuck(t)
	if code, out := late.Command("check"); code != 0 || !strings.Contains(out, "cannot be written now") || !strings.Contains(out, "read only connection") {
		t.Errorf("of a standby check says (exit code %d)\n%s", code, out)
	}
	promoted := time.Now()
	standby.Promote(t)
	f.written(t)
	t.Logf("all replicas have written %v after the promotion", time.Since(promoted))
	want := stop()
	for who, n := range stopLate() {
		want[who] += n
	}
	for _, g := range f.gates {
		g.WaitWritten(t)
	}
	observed, logins := ledgerOf(t, through(t, database, standby.Addr))
	for who, n := range want {
		if observed[who] != n || logins[who] != n {
			t.Errorf("%s: the client counted %d, the ledger %d handshakes and %d logins", who, n, observed[who], logins[who])
		}
	}
	if len(observed) != len(want) || len(want) < 50 {
		t.Errorf("the ledger has %d clients, want %d", len(observed), len(want))
	}
}

// stuck waits until no replica can write, which all of them say and none is
// unready for. Mail waits for no database.
func (f *fleet) stuck(t *testing.T) {
	t.Helper()
	f.each(t, "says that its ledger cannot be written", func(g *posterntest.Proxy) bool {
		status, body, err := g.Get("/readyz")
		return err == nil && status == 200 && strings.Contains(body, "not written since")
	})
	before := f.logins.Load()
	f.each(t, "lets clients log in without a database", func(*posterntest.Proxy) bool { return f.logins.Load() >= before+5*replicas })
}

// written waits until the replicas write again what they see from now on.
func (f *fleet) written(t *testing.T) {
	t.Helper()
	now := float64(time.Now().Unix() + 1)
	f.each(t, "writes its ledger again", func(g *posterntest.Proxy) bool {
		return g.Metrics(t).Value("postern_ledger_last_write_timestamp_seconds") >= now
	})
}

func (f *fleet) each(t *testing.T, what string, is func(*posterntest.Proxy) bool) {
	t.Helper()
	for i, g := range f.gates {
		for end := time.Now().Add(90 * time.Second); !is(g); time.Sleep(50 * time.Millisecond) {
			if time.Now().After(end) {
				t.Fatalf("replica %d never %s", i+1, what)
			}
		}
	}
}

// TestARoleWithoutRights: check says beforehand what serve will say, with its code.
func TestARoleWithoutRights(t *testing.T) {
	t.Parallel()
	server := postgrestest.New(t)
	database := server.NewDatabase(t)
	server.Exec(t, "postgres", "CREATE ROLE weak LOGIN")
	u, err := url.Parse(database)
	if err != nil {
		t.Fatal(err)
	}
	u.User = url.User("weak")
	pair := posterntest.NewCA(t).Issue(t, posterntest.DefaultNames, posterntest.RSA)
	up := posterntest.StartUpstream(t, posterntest.IMAPGreeting, posterntest.IMAPReply)
	run := func(command string) (code int, line string) {
		cmd := exec.CommandContext(t.Context(), posterntest.Binary(t), command)
		cmd.Env = append(os.Environ(), "POSTERN_UPSTREAM_IMAP="+up.URL("imap"), "POSTERN_LISTEN_IMAP=off", "POSTERN_LISTEN_IMAPS="+posterntest.FreeAddr(t),
			"POSTERN_ADMIN_LISTEN="+posterntest.FreeAddr(t), "POSTERN_TLS_CERT_FILE="+pair.CertFile, "POSTERN_TLS_KEY_FILE="+pair.KeyFile, "POSTERN_LEDGER_URL="+u.String())
		out, _ := cmd.CombinedOutput()
		for line = range strings.Lines(string(out)) {
			if strings.Contains(line, "POSTERN_LEDGER_URL") {
				break
			}
		}
		return cmd.ProcessState.ExitCode(), strings.TrimPrefix(line, "error: ")
	}
	checked, said := run("check")
	served, line := run("serve")
	if checked != 2 || served != 2 || said != line || !strings.Contains(line, "GRANT USAGE, CREATE ON SCHEMA public") {
		t.Errorf("check ends with %d, serve with %d:\n%s%s", checked, served, said, line)
	}
}
