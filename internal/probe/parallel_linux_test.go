package probe

import (
	"fmt"
	"io"
	"net"
	"sync"
	"testing"
	"time"
)

// TestNoMoreThan64ListenersAtOnce has a server at more addresses than that, all of which
// Linux has on loopback.
func TestNoMoreThan64ListenersAtOnce(t *testing.T) {
	l, err := net.Listen("tcp4", "0.0.0.0:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	var mu sync.Mutex
	var open, most int
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				mu.Lock()
				open++
				most = max(most, open)
				mu.Unlock()
				time.Sleep(50 * time.Millisecond)
				mu.Lock()
				open-- // before the client can see the end
				mu.Unlock()
				io.WriteString(c, "* BYE\r\n")
			}()
		}
	}()
	var targets []string
	for i := range 100 {
		targets = append(targets, fmt.Sprintf("127.0.9.%d:%d", i+1, l.Addr().(*net.TCPAddr).Port))
	}
	o := Options{StartTLS: "imap", Timeout: 20 * time.Second}
	all, err := Listeners(t.Context(), targets, o)
	if err != nil {
		t.Fatal(err)
	}
	Run(t.Context(), all, o, func(int) {})
	mu.Lock()
	defer mu.Unlock()
	if most > 64 || most < 8 {
		t.Errorf("%d connections at once", most)
	}
	for _, l := range all {
		if l.Summary != `greets with "* BYE"` {
			t.Errorf("%s: %s", l.Address, l.Summary)
		}
	}
}
