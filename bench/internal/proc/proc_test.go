package proc

import (
	"os"
	"runtime/debug"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func TestSmapsRollup(t *testing.T) {
	b := []byte("55d0c0a00000-7ffd3a1f2000 ---p 00000000 00:00 0    [rollup]\n" +
		"Rss:               14104 kB\n" +
		"Pss:               13010 kB\n" +
		"Pss_Dirty:          5120 kB\n")
	if got := field(b, "Rss:"); got != 14104 {
		t.Errorf("RSS %d", got)
	}
	if got := field(b, "Pss:"); got != 13010 {
		t.Errorf("PSS %d", got)
	}
	if got := field(b, "Swap:"); got != 0 {
		t.Errorf("a field that is not there: %d", got)
	}
}

func TestStatOfAProcessWithSpacesInItsName(t *testing.T) {
	line := []byte("42 (a ) b) S 7 42 42 0 -1 4194304 100 0 0 0 12 34 5 6 20 0 1 0 99 1 1\n")
	got, ok := parseStat(42, line)
	want := stat{pid: 42, ppid: 7, user: 120 * time.Millisecond, sys: 340 * time.Millisecond, reaped: 110 * time.Millisecond}
	if !ok || got != want {
		t.Errorf("%+v, %v", got, ok)
	}
	if _, ok := parseStat(42, []byte("42 (x) S 7 1")); ok {
		t.Error("half a line was taken")
	}
}

// ownTime is the CPU time of this process as the kernel tells it the process itself.
func ownTime(t *testing.T) time.Duration {
	var r unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &r); err != nil {
		t.Fatal(err)
	}
	return time.Duration(r.Utime.Nano() + r.Stime.Nano())
}

func TestOwnCostIsSeen(t *testing.T) {
	roots := []int{os.Getpid()}
	before := CPU(roots)
	for spent := ownTime(t); ownTime(t) < spent+50*time.Millisecond; {
	}
	if used := CPU(roots).Sub(before); used.Total < 40*time.Millisecond || used.Total > 5*time.Second {
		t.Errorf("50 ms of work cost %v", used.Total)
	}
	if m := Memory(roots); m.PSS < 1000 || m.RSS < m.PSS {
		t.Errorf("memory %+v", m)
	}
	if Threads(roots) < 1 {
		t.Error("no threads")
	}
}

func TestAPeakIsOfTheTimeSinceItWasReset(t *testing.T) {
	pid := os.Getpid()
	take := func() {
		big := make([]byte, 64<<20)
		for i := 0; i < len(big); i += 4096 {
			big[i] = 1
		}
	}
	take()
	debug.FreeOSMemory()
	if err := ResetPeak(pid); err != nil {
		t.Fatal(err)
	}
	before, peak := Resident(pid)
	if peak-before > 8<<10 {
		t.Errorf("a peak of %d KB at %d KB, just reset", peak, before)
	}
	take()
	debug.FreeOSMemory()
	if now, peak := Resident(pid); peak-before < 60<<10 || peak-now < 50<<10 {
		t.Errorf("%d KB, peak %d KB, %d KB before", now, peak, before)
	}
}
