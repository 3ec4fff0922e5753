package probe

import (
	"bytes"
	"errors"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"postern/internal/posterntest"
)

// refuses answers every hello with an alert.
func refuses(c net.Conn) {
	c.Read(make([]byte, 4096))
	io.WriteString(c, alert)
}

// TestTargetsMayStandInAFile also says what is wrong usage.
func TestTargetsMayStandInAFile(t *testing.T) {
	bin, addr := posterntest.Shipped(t), listen(t, refuses)
	file := filepath.Join(t.TempDir(), "servers.txt")
	if err := os.WriteFile(file, []byte(addr+" # ours\r\n\n# 127.0.0.1:2\n127.0.0.1:1\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	slip, long := file+".slip", file+".long"
	if err := errors.Join(os.WriteFile(slip, []byte(addr+"\nimaps://mail.example.org\n"), 0o600),
		os.WriteFile(long, bytes.Repeat([]byte("127.0.0.1:1\n"), 1<<17), 0o600)); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		args string
		code int
		says []string
	}{
		{"-targets " + file, 0, []string{addr + " tls: refuses ", "127.0.0.1:1 tls: nothing listens there"}},
		{"-targets " + file + ".gone", 2, []string{"-targets", "servers.txt.gone"}},
		{"-targets " + filepath.Dir(file), 2, []string{"-targets"}},
		{"-targets " + slip, 2, []string{"-targets: " + slip + `:2: "imaps://mail.example.org": `}},
		{"-targets " + long, 2, []string{"-targets: " + long + ": longer than 1 MB"}},
		{"-timeout 5 " + addr, 2, []string{`"5"`, "-timeout", "write one such as 10s"}},
		{"", 2, []string{"HOST:PORT"}},
		{"-starttls smtp " + addr, 2, []string{"-starttls", "imap or pop3"}},
		{"-floor tls1.1 " + addr, 2, []string{"-floor", "tls1.2"}},
		{"-timeout 1ms " + addr, 2, []string{"-timeout", "second"}},
		{"imaps://mail.example.org", 2, []string{`"imaps://mail.example.org"`}},
		{"name.invalid", 3, []string{"name.invalid: "}},
	} {
		cmd := exec.Command(bin, strings.Fields("probe "+c.args)...)
		out, _ := cmd.CombinedOutput()
		if code := cmd.ProcessState.ExitCode(); code != c.code || c.code == 2 && strings.Count(string(out), "\n") != 1 {
			t.Errorf("%q: exit code %d, want %d:\n%s", c.args, code, c.code, out)
		}
		for _, want := range c.says {
			if !strings.Contains(string(out), want) {
				t.Errorf("%q: no %q in\n%s", c.args, want, out)
			}
		}
	}
}
