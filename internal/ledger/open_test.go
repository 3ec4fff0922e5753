package ledger

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

func TestReplicasThatStartTogetherMakeOneLedger(t *testing.T) {
	for _, kind := range []string{"sqlite", "postgres"} {
		t.Run(kind, func(t *testing.T) {
			url := newURL(t, kind)
			var group sync.WaitGroup
			for range 8 {
				group.Go(func() {
					s, err := Open(t.Context(), url)
					if err != nil {
						t.Error(err)
						return
					}
					s.Close()
				})
			}
			group.Wait()
		})
	}
}

func TestALedgerThatIsReadIsNotWritten(t *testing.T) {
	for _, kind := range []string{"sqlite", "postgres"} {
		t.Run(kind, func(t *testing.T) {
			url := newURL(t, kind)
			if _, err := OpenReadOnly(t.Context(), url); err == nil {
				t.Error("a ledger that is not there was opened")
			}
			g := newReplica(t, url)
			g.meet(hello("192.0.2.7"))
			g.flush()
			s, err := OpenReadOnly(t.Context(), url)
			if err != nil {
				t.Fatal(err)
			}
			defer s.Close()
			if n, err := s.Count(t.Context(), Filter{}); n != 1 || err != nil {
				t.Errorf("%d clients, %v", n, err)
			}
			g.meet(hello("192.0.2.8"))
			g.flush() // the proxy writes on
			if n, err := s.Count(t.Context(), Filter{}); n != 2 || err != nil {
				t.Errorf("%d clients, %v", n, err)
			}
			if err := s.Prune(t.Context(), time.Now()); err == nil {
				t.Error("it was written")
			}
		})
	}
	if _, err := OpenReadOnly(t.Context(), Memory); err == nil {
		t.Error("the memory of another process was opened")
	}
}

func TestTheFileIsForItsOwnerAlone(t *testing.T) {
	g := newReplica(t, newURL(t, "sqlite"))
	g.meet(hello("192.0.2.7"))
	g.flush()
	files, err := filepath.Glob(strings.TrimPrefix(g.url, "sqlite:") + "*")
	if err != nil || len(files) == 0 {
		t.Fatal(files, err)
	}
	for _, f := range files {
		info, err := os.Stat(f)
		if err != nil {
			t.Fatal(err)
		}
		if info.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v", f, info.Mode())
		}
	}
}

func TestAURLThatCannotBeUsed(t *testing.T) {
	for _, url := range []string{"memory:", "sqlite:/var/lib/postern/a b.db", "sqlite:///var/lib/x.db", "postgres://u:p@db/postern", "postgresql:///postern?host=/run/postgresql"} {
		if why := Check(url); why != "" {
			t.Errorf("%s: %s", url, why)
		}
	}
	for _, url := range []string{"", "memory", "memory:x", "sqlite:", "sqlite:relative.db", "sqlite:/dir/", "sqlite:/a?b", "mysql://u:hunter2@db/x",
		"postgres:", "postgres://u:hunter2@/x", "postgres://u:hunter2@db:port/x", "postgres://u:hunter2%@db/x",
		"postgres://u:p@hunter2/w@db/x", "postgres://u:hunter2/p@db/x", "postgres://u:1/hunter2@db/x", "postgres://u:1#hunter2@db/x", "postgres://u:1?hunter2@db/x",
		"postgres://u:1?hunter2=@db/x", "postgres://u@db/x?password=p#hunter2", "postgres://u@db/x?password=hunter2%", "postgres:u:hunter2@db/x", "host=db password=hunter2:x"} {
		why := Check(url)
		_, err := Open(t.Context(), url)
		if why == "" || err == nil {
			t.Errorf("%s: %q, %v", url, why, err)
			continue
		}
		if strings.Contains(why+err.Error()+Redacted(url), "hunter2") {
			t.Errorf("%s: the password is told: %s, %v, %s", url, why, err, Redacted(url))
		}
	}
}

// TestAParameterThatCannotBeUsedIsNamed: one that pgx passes over, too.
func TestAParameterThatCannotBeUsedIsNamed(t *testing.T) {
	passfile := filepath.Join(t.TempDir(), "pgpass")
	if err := os.WriteFile(passfile, []byte("hunter2\nother:*:*:*:hunter2\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for query, want := range map[string]string{
		"sslmode=on":                             "its sslmode is none of disable, allow, prefer, require, verify-ca, verify-full",
		"sslrootcert=/nope&sslmode=require":      "its sslrootcert: /nope: no such file or directory: create it, or mend the name",
		"connect_timeout=soon":                   "its parameter connect_timeout cannot be used",
		"passfile=/nope":                         "its passfile: /nope: no such file or directory: create it, or mend the name",
		"passfile=" + passfile:                   "its passfile: " + passfile + ": no line for this server: one is host:port:database:user:password, where * is any",
		"sslmode=on&sslrootcert=/nope&passfile=": "its parameters cannot be used: see sslmode, the files that they name, and variables such as PGSSLMODE",
	} {
		if _, err := Open(t.Context(), "postgres://u@127.0.0.1:1/x?"+query); err == nil || err.Error() != want {
			t.Errorf("%s: %v", query, err)
		}
	}
}

func TestALedgerThatNobodyHasMade(t *testing.T) {
	empty := filepath.Join(t.TempDir(), "ledger.db")
	if err := os.WriteFile(empty, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, url := range []string{"sqlite:" + empty, "sqlite:" + empty + "2", "sqlite:/nowhere/ledger.db", pg(t).NewDatabase(t)} {
		if _, err := OpenReadOnly(t.Context(), url); !errors.Is(err, errNone) {
			t.Errorf("%s: %v", url, err)
		}
	}
}

func TestAnErrorHoldsNoPassword(t *testing.T) {
	url := strings.Replace(pg(t).URL("nowhere"), "postern@", "postern:hunter2@", 1)
	for _, url := range []string{url, url + "&password=hunter2", strings.Replace(url, "127.0.0.1", "nowhere.invalid", 1), "sqlite:/nowhere/hunter.db"} {
		_, err := Open(t.Context(), url)
		if err == nil || strings.Contains(err.Error(), "hunter2") || !strings.Contains(err.Error(), "nowhere") {
			t.Errorf("%v", err)
		}
		if s := Redacted(url); strings.Contains(s, "hunter2") {
			t.Error(s)
		}
	}
}

// TestAQueryThatIsCutShortLosesNoMemory: the database lives in a connection.
func TestAQueryThatIsCutShortLosesNoMemory(t *testing.T) {
	g := newReplica(t, Memory)
	g.meet(hello("192.0.2.7"))
	g.flush()
	for i := range 200 {
		ctx, cancel := context.WithCancel(t.Context())
		go func() {
			time.Sleep(time.Duration(i) * 5 * time.Microsecond)
			cancel()
		}()
		g.store.Distinct(ctx, g.now())
		g.meet(hello("192.0.2.7"))
		g.Flush(ctx)
		g.store.within(ctx, func(w *writer) { w.err = ctx.Err() })
		cancel()
	}
	if c := g.only(Filter{}); c.Counts.Rejected != 201 {
		t.Errorf("%+v", c)
	}
}
