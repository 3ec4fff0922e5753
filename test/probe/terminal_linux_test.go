package probe

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"postern/internal/posterntest"
)

// terminal returns a terminal to write to, and what was written to it.
func terminal(t *testing.T) (*os.File, func() string) {
	t.Helper()
	screen, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { screen.Close() })
	if err := unix.IoctlSetPointerInt(int(screen.Fd()), unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	n, err := unix.IoctlGetInt(int(screen.Fd()), unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	tty, err := os.OpenFile(fmt.Sprint("/dev/pts/", n), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	shown := make(chan string)
	go func() {
		b, _ := io.ReadAll(screen) // until nobody has the terminal open
		shown <- string(b)
	}()
	return tty, func() string {
		tty.Close()
		return <-shown
	}
}

// takesSSL2 takes SSL 2.0, and nothing else.
func takesSSL2(c net.Conn) {
	b := make([]byte, 4096)
	if c.Read(b); b[0]&0x80 == 0 {
		io.WriteString(c, alert)
		return
	}
	io.WriteString(c, "\x80\x0b\x04\x00\x01\x00\x02\x00\x00\x00\x03\x00\x00")
}

func TestColourIsForTerminalsThatWantIt(t *testing.T) {
	bin, addr := posterntest.Shipped(t), listen(t, takesSSL2)
	const red = "\x1b[31mtaken: SSL 2.0\x1b[0m"
	for _, c := range []struct {
		name, env  string
		onTerminal bool
		want       bool
	}{
		{"a terminal", "TERM=xterm", true, true}, {"NO_COLOR", "NO_COLOR=1", true, false}, {"a dumb terminal", "TERM=dumb", true, false},
		{"a pipe", "TERM=xterm", false, false},
	} {
		cmd := exec.Command(bin, "probe", addr)
		cmd.Env = append(os.Environ(), "NO_COLOR=", "TERM=xterm", c.env)
		var out string
		if c.onTerminal {
			tty, shown := terminal(t)
			cmd.Stdout = tty
			cmd.Run()
			out = shown()
		} else {
			b, _ := cmd.Output()
			out = string(b)
		}
		if strings.Contains(out, red) != c.want || !strings.Contains(out, "taken: SSL 2.0") || strings.Contains(out, "\x1b") != c.want {
			t.Errorf("%s:\n%q", c.name, out)
		}
	}
}

func TestProgressIsForMoreThanOneTargetOnATerminal(t *testing.T) {
	bin := posterntest.Shipped(t)
	one, two := listen(t, refuses), listen(t, refuses)
	for args, want := range map[string][]string{
		one:             nil,
		one + " " + two: {"\r0 of 2 listeners\x1b[K", "\r1 of 2 listeners\x1b[K", "\r2 of 2 listeners\x1b[K", "\r\x1b[K"},
	} {
		cmd := exec.Command(bin, strings.Fields("probe "+args)...)
		tty, shown := terminal(t)
		var out bytes.Buffer
		cmd.Stdout, cmd.Stderr = &out, tty
		cmd.Run()
		said := shown()
		if strings.Contains(out.String(), "listeners") {
			t.Errorf("%s: progress on stdout:\n%s", args, &out)
		}
		if len(want) == 0 && said != "" || len(want) > 0 && !strings.HasSuffix(said, want[len(want)-1]) {
			t.Errorf("%s: stderr has %q, want %q", args, said, want)
		}
		for _, part := range want {
			before, behind, found := strings.Cut(said, part)
			if !found {
				t.Errorf("%s: no %q in order in %q", args, part, before)
			}
			said = behind
		}
	}
	cmd := exec.Command(bin, "probe", one, two)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	if cmd.Run(); stderr.Len() > 0 {
		t.Errorf("stderr that is no terminal has %q", &stderr)
	}
}
