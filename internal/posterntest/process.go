package posterntest

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"
)

// RSS is the memory that the process holds now, in bytes.
func (g *Proxy) RSS(t testing.TB) int { return g.status(t, "VmRSS:") }

func (g *Proxy) status(t testing.TB, field string) int {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", g.PID()))
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(text), field)
	words := strings.Fields(rest)
	if len(words) == 0 {
		t.Fatalf("no %s for process %d", field, g.PID())
	}
	kilobytes, err := strconv.Atoi(words[0])
	if err != nil {
		t.Fatal(err)
	}
	return kilobytes << 10
}

// CPUTime is what the process has used so far, in user and system mode.
func (g *Proxy) CPUTime(t testing.TB) time.Duration {
	t.Helper()
	const utime, stime, hertz = 11, 12, 100
	return time.Duration(g.stat(t, utime)+g.stat(t, stime)) * time.Second / hertz
}

// ChildFaults counts the page faults of those of its children that have ended.
func (g *Proxy) ChildFaults(t testing.TB) int {
	t.Helper()
	const cminflt = 8
	return g.stat(t, cminflt)
}

// stat is a field of proc(5), counted from the third one.
func (g *Proxy) stat(t testing.TB, field int) int {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", g.PID()))
	if err != nil {
		t.Fatal(err)
	}
	// The second field, a name in parentheses, may hold anything.
	n, err := strconv.Atoi(strings.Fields(string(text[strings.LastIndexByte(string(text), ')')+1:]))[field])
	if err != nil {
		t.Fatal(err)
	}
	return n
}
