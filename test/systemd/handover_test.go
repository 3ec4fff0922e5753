package systemd

import (
	"fmt"
	"os"
	"testing"
	"time"

	"postern/internal/posterntest"
)

// handOver replaces the program on disk and asks the service to hand over to it. It
// returns the old and the new main process.
func (h *host) handOver(t *testing.T) (before, after int) {
	t.Helper()
	binary, err := os.ReadFile(posterntest.Shipped(t))
	if err != nil {
		t.Fatal(err)
	}
	h.Write(t, program, 0o755, binary)
	before = h.mainPID(t)
	h.Run(t, "systemctl kill --kill-whom=main --signal=USR2 postern.service")
	becomes(t, "there is another main process", func() bool {
		after = h.mainPID(t)
		return after != before
	})
	return before, after
}

// runs tells whether a process of the container is there.
func (h *host) runs(pid int) bool {
	_, err := h.Try(fmt.Sprint("test -e /proc/", pid))
	return err == nil
}

// answer has each session do something.
func answer(t *testing.T, clients map[string]*posterntest.Client) {
	t.Helper()
	for listener, c := range clients {
		if err := c.Do("NOOP"); err != nil {
			t.Errorf("%s: %v", listener, err)
		}
	}
}

func upgradesKeepSessions(t *testing.T, h *host) {
	for range 3 {
		sessions := h.everywhere(t)
		before, after := h.handOver(t)
		newer := h.everywhere(t)
		answer(t, newer)
		answer(t, sessions)
		if !h.runs(before) || !h.runs(after) {
			t.Fatalf("with sessions of both, the old process runs: %t, the new one: %t", h.runs(before), h.runs(after))
		}
		for listener := range sessions {
			sessions[listener].Close()
			newer[listener].Close()
		}
		becomes(t, "the old process has ended without sessions", func() bool { return !h.runs(before) })
	}
	h.Run(t, "systemctl reload postern.service")
	if n := h.show(t, "NRestarts"); n != "0" {
		t.Errorf("systemd has started it again %s times", n)
	}
}

// A stop waits for both processes, which drain.
func stopsBothGenerations(t *testing.T, h *host) {
	sessions := h.everywhere(t)
	before, after := h.handOver(t)
	begun := time.Now()
	h.Run(t, "systemctl stop postern.service")
	if took := time.Since(begun); took < time.Second {
		t.Errorf("it was stopped within %v, with sessions of which the drain is 2 s", took)
	}
	if h.runs(before) || h.runs(after) || h.show(t, "Result") != "success" {
		t.Errorf("the old process runs: %t, the new one: %t, the result is %s", h.runs(before), h.runs(after), h.show(t, "Result"))
	}
	for listener, c := range sessions {
		if _, err := c.Line(); err == nil {
			t.Errorf("%s: the session goes on", listener)
		}
	}
}

// Systemd notices the end of a process that the first one has started.
func successorDies(t *testing.T, h *host) {
	before, after := h.handOver(t)
	becomes(t, "the old process has ended without sessions", func() bool { return !h.runs(before) })
	h.Run(t, fmt.Sprint("kill -KILL ", after))
	becomes(t, "it was started again", func() bool { return h.show(t, "NRestarts") == "1" && h.show(t, "ActiveState") == "active" })
	h.everywhere(t)
}
