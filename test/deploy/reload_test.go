package deploy

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"postern/internal/posterntest"
)

// A reload reads no variable again. The check before it says which ones have changed
// since the start, and never what may be a secret.
func TestAReloadSaysWhichVariablesTakeARestart(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("the variables of a process are read from /proc")
	}
	t.Parallel()
	up := posterntest.StartUpstream(t, "* OK ready\r\n", func(line string) string {
		tag, command, _ := strings.Cut(line, " ")
		return map[string]string{"CAPABILITY": "* CAPABILITY IMAP4rev1\r\n"}[command] + tag + " OK done\r\n"
	})
	g := posterntest.Start(t, map[string]string{"UPSTREAM_IMAP": up.URL("imap"), "POLICY_MODE": "observe", "LEDGER_IDENTITY": "off"})
	has, err := os.ReadFile(fmt.Sprintf("/proc/%d/environ", g.PID()))
	if err != nil {
		t.Fatal(err)
	}
	var lines []string
	for _, entry := range strings.Split(string(has), "\x00") {
		if strings.HasPrefix(entry, "POSTERN_") && !strings.HasPrefix(entry, "POSTERN_BIN=") && !strings.HasPrefix(entry, "POSTERN_POLICY_MODE=") {
			lines = append(lines, entry)
		}
	}
	file := filepath.Join(t.TempDir(), "postern.env")
	check := func(pid any, extra string, args ...string) string {
		t.Helper()
		text := extra + strings.Join(lines, "\n") + "\n"
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		code, out := run(t, map[string]string{"MAINPID": fmt.Sprint(pid)}, append(args, "-env", file)...)
		if code != 0 {
			t.Errorf("%v exits with %d", args, code)
		}
		return out
	}
	want := func(out string, parts ...string) {
		t.Helper()
		for _, part := range parts {
			if !strings.Contains(out, part) {
				t.Errorf("no %q in:\n%s", part, out)
			}
		}
	}
	running := fmt.Sprintf("(process %d)", g.PID())
	mode := "warning: " + file + ":1: POSTERN_POLICY_MODE: enforce here, but the Postern that runs " + running +
		" has observe since its start: a reload does not change that: restart it (systemctl restart postern)\n"

	want(check(g.PID(), "POSTERN_POLICY_MODE=observe\n", "check", "-reload"), "ok: the variables are those with which the Postern that runs was started "+running+"\n")
	out := check(g.PID(), "POSTERN_POLICY_MODE=enforce\nPOSTERN_LEDGER_URL=postgres://postern:secret@db.example.org/postern\nPOSTERN_TIMEOUT_IDLE=45s\n", "check", "-reload")
	want(out, mode, file+":2: POSTERN_LEDGER_URL: changed here, but the Postern that runs "+running+" has the old one since its start")
	want(out, file+":3: POSTERN_TIMEOUT_IDLE: 45s here, but")
	if strings.Contains(out, "secret") || strings.Contains(out, "ok: the variables") || strings.Count(out, "since its start") != 3 {
		t.Errorf("check says\n%s", out)
	}
	want(check("", "", "check", "-reload"), "POSTERN_POLICY_MODE: the default enforce here, but the Postern that runs "+running+" has observe")
	want(check("none", "", "check", "-reload"), "note: a reload reads no variable again: where you have changed one, restart Postern\n")
	if out := check("", "POSTERN_POLICY_MODE=enforce\nPOSTERN_TIMEOUT_IDLE=45s\n", "check"); !strings.Contains(out, mode) || strings.Contains(out, "45s here") {
		t.Errorf("check of another policy beside the Postern that runs:\n%s", out)
	}
}
