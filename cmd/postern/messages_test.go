package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"postern/internal/posterntest"
)

// The files in testdata/messages hold cases and, below each command, everything
// that it says: "! " is before a line of stderr, "  " before one of stdout. To add
// a case, write all but that and run the test with -update; then read what is new:
// each message names the variable or the file and line, what is wrong, and the mend.
//
//	=== a name
//	LISTEN_IMAPS=:993        sets a variable, without POSTERN_
//	TLS_KEY_FILE             takes one of the usual ones away; "nothing" all of them
//	--- policy.yaml          the lines of a file in /etc/postern
//	+++ policy.yaml          the same, but written once serve runs, before a reload
//	$ check -offline         a command
//
// /etc/postern is a folder of the test's. It has ca.pem, and ecdsa.pem, rsa.pem and
// expired.pem with their .key. {taken} is a port of 127.0.0.1 that the test holds.
func TestEveryMessageNamesTheMend(t *testing.T) {
	files, err := filepath.Glob("testdata/messages/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatalf("no cases: %v", err)
	}
	stage := newMessageStage(t)
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txt"), func(t *testing.T) {
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			cases := strings.Split("\n"+string(text), "\n=== ")
			var fresh strings.Builder
			fresh.WriteString(strings.TrimPrefix(cases[0], "\n"))
			for _, c := range cases[1:] {
				again := stage.play(t, c)
				fresh.WriteString("\n=== " + again)
				if !*update && strings.TrimRight(again, "\n") != strings.TrimRight(c, "\n") {
					t.Errorf("run the test with -update, and read what is new:\n=== %s\nit was\n=== %s", again, c)
				}
			}
			if *update {
				if err := os.WriteFile(file, []byte(strings.TrimSpace(fresh.String())+"\n"), 0o644); err != nil {
					t.Fatal(err)
				}
			}
		})
	}
}

// messageStage is what all cases have in common.
type messageStage struct {
	certs string // a folder to copy from
	taken string // a port
}

func newMessageStage(t *testing.T) *messageStage {
	t.Helper()
	s := &messageStage{certs: t.TempDir()}
	ca := posterntest.NewCA(t)
	names := posterntest.DefaultNames
	for name, pair := range map[string]posterntest.Pair{
		"ecdsa": ca.Issue(t, names, posterntest.ECDSA), "rsa": ca.Issue(t, names, posterntest.RSA), "expired": ca.IssueExpired(t, names, posterntest.ECDSA),
	} {
		copyFile(t, pair.CertFile, filepath.Join(s.certs, name+".pem"))
		copyFile(t, pair.KeyFile, filepath.Join(s.certs, name+".key"))
	}
	copyFile(t, ca.File, filepath.Join(s.certs, "ca.pem"))
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	_, s.taken, _ = net.SplitHostPort(l.Addr().String())
	return s
}

func copyFile(t *testing.T, from, to string) {
	t.Helper()
	data, err := os.ReadFile(from)
	if err == nil {
		err = os.WriteFile(to, data, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// messageCase is one case while it is played.
type messageCase struct {
	*messageStage
	dir    string
	env    map[string]string
	reload map[string]string // files to write before a reload
	said   strings.Builder
}

const messageDir = "/etc/postern"

// play returns the case with what its commands say now.
func (s *messageStage) play(t *testing.T, text string) string {
	t.Helper()
	c := &messageCase{messageStage: s, dir: t.TempDir(), reload: make(map[string]string), env: map[string]string{
		"UPSTREAM_IMAP": "imap://127.0.0.1:1", "LISTEN_IMAPS": "127.0.0.1:0", "LISTEN_IMAP": "127.0.0.1:0", "ADMIN_LISTEN": "127.0.0.1:0",
		"TLS_CERT_FILE": messageDir + "/ecdsa.pem," + messageDir + "/rsa.pem", "TLS_KEY_FILE": messageDir + "/ecdsa.key," + messageDir + "/rsa.key",
	}}
	entries, err := os.ReadDir(s.certs)
	if err != nil {
		t.Fatal(err)
	}
	for _, entry := range entries {
		copyFile(t, filepath.Join(s.certs, entry.Name()), filepath.Join(c.dir, entry.Name()))
	}
	lines := strings.Split(strings.TrimRight(text, "\n"), "\n")
	fmt.Fprintln(&c.said, lines[0])
	files, file := c.reload, "" // of the lines that follow
	written := make(map[string]string)
	for _, line := range lines[1:] {
		mark, rest, _ := strings.Cut(line, " ")
		switch {
		case mark == "$":
			c.write(t, written)
			fmt.Fprintln(&c.said, line)
			c.run(t, strings.Fields(c.real(rest)))
			file = ""
			continue
		case strings.HasPrefix(line, "! "), strings.HasPrefix(line, "  ") && file == "", strings.HasPrefix(line, "exit "), line == "" && file == "":
			continue // what was said before
		case mark == "---":
			files, file = written, rest
		case mark == "+++":
			files, file = c.reload, rest
		case file != "":
			files[file] += line + "\n"
		default:
			name, value, set := strings.Cut(line, "=")
			switch {
			case set:
				c.env[name] = c.real(value)
			case name == "nothing":
				clear(c.env)
			default:
				delete(c.env, name)
			}
		}
		fmt.Fprintln(&c.said, line)
	}
	return c.said.String()
}

func (c *messageCase) write(t *testing.T, files map[string]string) {
	t.Helper()
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(c.dir, name), []byte(c.real(text)), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// real and shown translate what differs from run to run.
func (c *messageCase) real(s string) string {
	return strings.NewReplacer(messageDir, c.dir, "{taken}", c.taken).Replace(s)
}

var (
	messageDate = regexp.MustCompile(`\d{4}-\d\d-\d\d(T[0-9:.]+Z)?`)
	messagePID  = regexp.MustCompile(`process \d+ \([^)]*\)`)
)

func (c *messageCase) shown(s string) string {
	s = strings.NewReplacer(c.dir, messageDir, ":"+c.taken, ":{taken}", runtime.Version(), "{go}", runtime.GOOS+"/"+runtime.GOARCH, "{platform}").Replace(s)
	today := time.Now().UTC().Format(time.DateOnly)
	s = messageDate.ReplaceAllStringFunc(s, func(date string) string {
		if tomorrow := time.Now().Add(2 * time.Hour).UTC().Format(time.DateOnly); date[:10] == today || date[:10] == tomorrow {
			return "{date}"
		}
		return date
	})
	return messagePID.ReplaceAllString(s, "process {pid} ({name})")
}

// run runs a command and writes down what it says.
func (c *messageCase) run(t *testing.T, args []string) {
	t.Helper()
	var environ []string
	for name, value := range c.env {
		environ = append(environ, "POSTERN_"+name+"="+c.real(value))
	}
	var stdout, stderr buffer
	stop, reload := make(chan os.Signal, 2), make(chan os.Signal, 1)
	done := make(chan int, 1)
	go func() {
		done <- run(context.Background(), system{args: args, environ: environ, stdout: &stdout, stderr: &stderr, stop: stop, reload: reload})
	}()
	code := c.await(t, &stderr, stop, reload, done)
	for line := range strings.Lines(stdout.String()) {
		if !usualPortTaken(line) {
			fmt.Fprint(&c.said, "  "+c.shown(line))
		}
	}
	lines := strings.SplitAfter(stderr.String(), "\n")
	if len(c.reload) > 0 {
		slices.SortFunc(lines, func(a, b string) int { return strings.Compare(logged(a), logged(b)) }) // two watchers write
	}
	for _, line := range lines {
		if line = logged(line); line != "" && !usualPortTaken(line) {
			fmt.Fprintln(&c.said, "! "+c.shown(line))
		}
	}
	fmt.Fprintf(&c.said, "exit %d\n", code)
}

// usualPortTaken reports a line that is there only if another Postern runs here.
func usualPortTaken(line string) bool {
	return strings.Contains(line, "127.0.0.1:9993") && strings.Contains(line, "in use")
}

// await returns the exit code. If the command serves, it reloads, and stops it.
func (c *messageCase) await(t *testing.T, stderr *buffer, stop, reload chan os.Signal, done chan int) int {
	t.Helper()
	limit, stopping := time.After(time.Minute), false
	for ; ; time.Sleep(5 * time.Millisecond) {
		select {
		case code := <-done:
			return code
		case <-limit:
			t.Fatalf("it did not end:\n%s", stderr.String())
		default:
		}
		if stopping || !strings.Contains(stderr.String(), `"msg":"serving"`) {
			continue
		}
		if len(c.reload) > 0 {
			c.write(t, c.reload)
			hangUp(t, reload)
		}
		stop <- syscall.SIGTERM
		stopping = true
	}
}

// hangUp has a proxy read its files again, and waits until it tells systemd that it has.
func hangUp(t *testing.T, reload chan<- os.Signal) {
	t.Helper()
	l, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: filepath.Join(t.TempDir(), "notify"), Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	os.Setenv("NOTIFY_SOCKET", l.LocalAddr().String())
	defer os.Unsetenv("NOTIFY_SOCKET")
	reload <- syscall.SIGHUP
	l.SetReadDeadline(time.Now().Add(time.Minute))
	for b := make([]byte, 1<<10); !bytes.HasPrefix(b, []byte("READY=1")); {
		if _, err := l.Read(b); err != nil {
			t.Fatalf("waiting for the end of the reload: %v", err)
		}
	}
}

// logged leaves a line of the log's level, message and the rest; "" for what says
// nothing about the configuration.
func logged(line string) string {
	line = strings.TrimRight(line, "\n")
	var record map[string]any
	if json.Unmarshal([]byte(line), &record) != nil {
		return line
	}
	message := record["msg"].(string)
	if message == "upstream failed" { // at some time
		return ""
	}
	if record["level"] == "INFO" && !strings.Contains(message, "reload") && !strings.Contains(message, "off") {
		return ""
	}
	_, rest, _ := strings.Cut(line, `"level":`)
	return rest[:len(rest)-1]
}
