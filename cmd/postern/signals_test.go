package main

import (
	"bufio"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"postern/internal/posterntest"
)

func TestMain(m *testing.M) { posterntest.Main(m) }

// The Go runtime says when it initializes a package. The signals come there,
// milliseconds before main.
func TestASignalInTheFirstMillisecondsIsTaken(t *testing.T) {
	binary := posterntest.Binary(t)
	pair := posterntest.NewCA(t).Issue(t, posterntest.DefaultNames, posterntest.ECDSA)
	cmd := exec.Command(binary, "serve")
	cmd.Env = []string{
		"GODEBUG=inittrace=1", "POSTERN_UPSTREAM_IMAP=imap://127.0.0.1:1", "POSTERN_TLS_CERT_FILE=" + pair.CertFile, "POSTERN_TLS_KEY_FILE=" + pair.KeyFile,
		"POSTERN_LISTEN_IMAPS=127.0.0.1:0", "POSTERN_LISTEN_IMAP=127.0.0.1:0", "POSTERN_ADMIN_LISTEN=127.0.0.1:0",
	}
	stderr, err := cmd.StderrPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	defer time.AfterFunc(time.Minute, func() { cmd.Process.Kill() }).Stop()
	var before []string // what Go initializes between os/signal and our package
	var log strings.Builder
	sent := false
	for lines := bufio.NewScanner(stderr); lines.Scan(); {
		name := strings.Fields(lines.Text() + " - -")[1]
		switch {
		case !sent && name == "postern/internal/signals":
			sent = true
			cmd.Process.Signal(syscall.SIGUSR2)
			cmd.Process.Signal(syscall.SIGHUP)
			cmd.Process.Signal(syscall.SIGTERM)
		case !sent && (before != nil || name == "os/signal"):
			before = append(before, name)
		case sent && strings.HasPrefix(lines.Text(), "{"):
			log.WriteString(lines.Text() + "\n")
		}
	}
	if err := cmd.Wait(); err != nil || !sent || len(before) != 1 || !strings.Contains(log.String(), `"msg":"stopped"`) {
		t.Errorf("it ended with %v, signals sent: %v, initialized before: %q, log:\n%s", err, sent, before, log.String())
	}
}

// Ctrl-C ends a command that waits for a server.
func TestOtherCommandsEndWithTheirTerminal(t *testing.T) {
	silent := posterntest.FreeAddr(t)
	l := listenSilently(t, silent)
	cmd := exec.Command(posterntest.Binary(t), "check")
	cmd.Env = []string{"POSTERN_UPSTREAM_IMAP=imap://" + silent, "POSTERN_UPSTREAM_TIMEOUT=1m"}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer time.AfterFunc(time.Minute, func() { cmd.Process.Kill() }).Stop()
	if _, err := l.Accept(); err != nil { // it asks now
		t.Fatal(err)
	}
	cmd.Process.Signal(os.Interrupt)
	cmd.Wait()
	if status := cmd.ProcessState.Sys().(syscall.WaitStatus); !status.Signaled() || status.Signal() != syscall.SIGINT {
		t.Errorf("Ctrl-C: %v", cmd.ProcessState)
	}
}

// listenSilently listens and says nothing.
func listenSilently(t *testing.T, addr string) net.Listener {
	t.Helper()
	l, err := net.Listen("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l
}

// As the unit of systemd starts them: both streams are the journal's.
func TestProblemsAndWarningsHaveTheirPriorityInTheJournal(t *testing.T) {
	journal, err := os.Create(filepath.Join(t.TempDir(), "journal"))
	if err != nil {
		t.Fatal(err)
	}
	defer journal.Close()
	info, err := journal.Stat()
	if err != nil {
		t.Fatal(err)
	}
	stat := info.Sys().(*syscall.Stat_t)
	cmd := exec.Command(posterntest.Binary(t), "check", "-offline")
	cmd.Env = []string{fmt.Sprintf("JOURNAL_STREAM=%d:%d", stat.Dev, stat.Ino), "POSTERN_LOG_LEVEL=loud", "POSTERN_ADMIN_LISTEN=0.0.0.0:0", "POSTERN_PROXY_PROTOCOL_FROM=::/0"}
	cmd.Stdout, cmd.Stderr = journal, journal
	cmd.Run()
	text, err := os.ReadFile(journal.Name())
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"<3>error: POSTERN_LOG_LEVEL: ", "<4>warning: POSTERN_PROXY_PROTOCOL_FROM: ", "<6>ok: POSTERN_ADMIN_LISTEN: "} {
		if !strings.Contains("\n"+string(text), "\n"+want) {
			t.Errorf("no %q in\n%s", want, text)
		}
	}
}
