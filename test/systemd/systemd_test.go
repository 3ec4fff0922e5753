package systemd

import (
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"postern/internal/posterntest"
)

// TestTheService goes through a service's life on one machine.
func TestTheService(t *testing.T) {
	h := install(t)
	for _, part := range []struct {
		name string
		test func(*testing.T, *host)
	}{
		{"systemd finds nothing wrong with the units", unitsAreInOrder},
		{"levels are the journal's priorities", levelsAreThePriorities},
		{"what comes right after a start is done after it", rightAfterAStart},
		{"a reload that fails is seen", reloadFails},
		{"a process that hangs is started again", hangs},
		{"a process that dies before it serves is started again", diesEarly},
		{"connections wait in systemd's sockets", connectionsWait},
		{"sessions outlive upgrades", upgradesKeepSessions},
		{"a stop waits for both processes", stopsBothGenerations},
		{"a successor that dies is noticed", successorDies},
	} {
		t.Run(part.name, func(t *testing.T) {
			h.fresh(t)
			part.test(t, h)
		})
	}
}

func unitsAreInOrder(t *testing.T, h *host) {
	if kind := h.show(t, "Type"); kind != "notify-reload" {
		t.Errorf("systemd takes the unit for one of type %s", kind)
	}
	if out, err := h.Try("systemd-analyze verify " + units + "postern*.service " + units + "postern*.socket"); err != nil || out != "" {
		t.Errorf("%v\n%s", err, out)
	}
	out := h.Run(t, "systemd-analyze security --no-pager postern.service")
	level := regexp.MustCompile(`exposure level for postern.service: ([0-9.]+)`).FindStringSubmatch(out)
	if level == nil {
		t.Fatalf("no level in\n%s", out)
	}
	if exposed, err := strconv.ParseFloat(level[1], 64); err != nil || exposed > 1.6 {
		t.Errorf("its exposure to the system is %s of 10", level[1])
	}
}

func rightAfterAStart(t *testing.T, h *host) {
	for range 2 {
		h.Run(t, "systemctl restart --no-block postern.service; systemctl reload postern.service")
		if state := h.show(t, "ActiveState"); state != "active" {
			t.Errorf("after a reload it is %s", state)
		}
		h.Run(t, "systemctl restart --no-block postern.service; systemctl stop postern.service")
		if state, result := h.show(t, "ActiveState"), h.show(t, "Result"); state != "inactive" || result != "success" {
			t.Errorf("after a stop it is %s, with %s", state, result)
		}
		h.Run(t, "systemctl start postern.service")
	}
	if n := h.show(t, "NRestarts"); n != "0" {
		t.Errorf("it was started again %s times", n)
	}
}

func reloadFails(t *testing.T, h *host) {
	h.Write(t, policy, 0o644, []byte("mode: lenient\n"))
	if out, err := h.Try("systemctl reload postern.service"); err == nil {
		t.Errorf("a reload of a broken policy is said to have succeeded: %s", out)
	}
	if state := h.show(t, "ActiveState"); state != "active" {
		t.Errorf("after that it is %s", state)
	}
	h.everywhere(t)
	h.Write(t, policy, 0o644, []byte("mode: observe\n"))
	h.Run(t, "systemctl reload postern.service")
}

func hangs(t *testing.T, h *host) {
	before := h.mainPID(t)
	h.Run(t, fmt.Sprint("kill -STOP ", before))
	becomes(t, "another process serves", func() bool {
		return h.show(t, "NRestarts") == "1" && h.show(t, "ActiveState") == "active" && h.mainPID(t) != before
	})
	h.everywhere(t)
}

func diesEarly(t *testing.T, h *host) {
	// From the moment on in which systemd knows the process.
	h.Run(t, `systemctl restart --no-block postern.service
		before=$(systemctl show --value --property MainPID postern.service)
		while now=$(systemctl show --value --property MainPID postern.service); [ "$now" = 0 ] || [ "$now" = "$before" ]; do :; done
		kill -HUP "$now"`)
	becomes(t, "it serves", func() bool { return h.show(t, "ActiveState") == "active" })
	h.everywhere(t)
}

func connectionsWait(t *testing.T, h *host) {
	h.Run(t, "systemctl stop postern.service; systemctl start "+sockets)
	if state := h.show(t, "ActiveState"); state != "inactive" {
		t.Fatalf("before the first connection it is %s", state)
	}
	for _, c := range h.everywhere(t) {
		c.Close()
	}
	// A restart breaks off handshakes and tells clients to come back, but it refuses nobody.
	var all sync.WaitGroup
	over := make(chan struct{})
	for _, listener := range posterntest.Listeners {
		all.Go(func() {
			for n := 0; ; n++ {
				if c, err := h.login(listener); err == nil {
					c.Close()
				} else if errors.Is(err, syscall.ECONNREFUSED) {
					t.Errorf("%s, login %d: %v", listener, n, err)
					return
				}
				select {
				case <-over:
					return
				case <-time.After(20 * time.Millisecond):
				}
			}
		})
	}
	h.Run(t, "systemctl restart postern.service")
	close(over)
	all.Wait()
	h.everywhere(t)
}

func levelsAreThePriorities(t *testing.T, h *host) {
	for _, tt := range []struct{ priority, finds, leaves string }{
		{"info", `"msg":"serving"`, `"level":"DEBUG"`},
		{"warning", `"level":"WARN"`, `"level":"INFO"`},
		{"warning", "warning: POSTERN_TLS_CERT_FILE", "ok: POSTERN_TLS_CERT_FILE"}, // of check
		{"err", "", `"level":"WARN"`},
	} {
		out := h.Run(t, "journalctl --sync; journalctl --unit postern.service --priority "+tt.priority+" --output cat")
		if !strings.Contains(out, tt.finds) || strings.Contains(out, tt.leaves) {
			t.Errorf("--priority %s finds no %s, or %s:\n%s", tt.priority, tt.finds, tt.leaves, out)
		}
	}
}
