// Package proc reads what a process tree has cost: CPU time and memory.
package proc

import (
	"bytes"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// tick is the unit of the times in /proc/<pid>/stat (USER_HZ is 100 on Linux).
const tick = 10 * time.Millisecond

// stat is what /proc/<pid>/stat says of a process.
type stat struct {
	pid, ppid int
	user, sys time.Duration // its own
	reaped    time.Duration // of children that it has waited for
}

// parseStat reads the line of /proc/<pid>/stat.
func parseStat(pid int, line []byte) (stat, bool) {
	i := bytes.LastIndexByte(line, ')') // the command's name may hold spaces
	if i < 0 {
		return stat{}, false
	}
	f := strings.Fields(string(line[i+1:]))
	if len(f) < 15 {
		return stat{}, false
	}
	ppid, err := strconv.Atoi(f[1])
	if err != nil {
		return stat{}, false
	}
	var ticks [4]time.Duration // utime, stime, cutime, cstime
	for i := range ticks {
		n, err := strconv.ParseInt(f[11+i], 10, 64)
		if err != nil {
			return stat{}, false
		}
		ticks[i] = time.Duration(n) * tick
	}
	return stat{pid: pid, ppid: ppid, user: ticks[0], sys: ticks[1], reaped: ticks[2] + ticks[3]}, true
}

// tree returns the roots and all their descendants.
func tree(roots []int) []stat {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil
	}
	children := map[int][]stat{}
	byPID := map[int]stat{}
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		line, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		if err != nil {
			continue
		}
		if s, ok := parseStat(pid, line); ok {
			byPID[pid] = s
			children[s.ppid] = append(children[s.ppid], s)
		}
	}
	var out []stat
	var walk func(s stat)
	walk = func(s stat) {
		out = append(out, s)
		for _, c := range children[s.pid] {
			walk(c)
		}
	}
	for _, r := range roots {
		if s, ok := byPID[r]; ok {
			walk(s)
		}
	}
	return out
}

// PIDs lists the roots and their descendants.
func PIDs(roots []int) []int {
	var out []int
	for _, s := range tree(roots) {
		out = append(out, s.pid)
	}
	return out
}

// Time is CPU time that a process tree has used.
type Time struct {
	// Total is exact to the nanosecond where the kernel offers the CPU clock
	// of another process, and otherwise a multiple of 10 ms.
	Total time.Duration
	// User and Sys are multiples of 10 ms.
	User, Sys time.Duration
}

// Sub returns what was used since t0.
func (t Time) Sub(t0 Time) Time {
	return Time{Total: t.Total - t0.Total, User: t.User - t0.User, Sys: t.Sys - t0.Sys}
}

// CPU is what the tree has used so far, ended threads included.
func CPU(roots []int) Time {
	var t Time
	for _, s := range tree(roots) {
		own, ok := clock(s.pid)
		if !ok {
			own = s.user + s.sys
		}
		t.Total += own + s.reaped
		t.User += s.user
		t.Sys += s.sys
	}
	return t
}

// clock reads the CPU clock of a process, as clock_getcpuclockid(3) makes it.
func clock(pid int) (time.Duration, bool) {
	const sched = 2 // CPUCLOCK_SCHED, of the whole process
	var ts unix.Timespec
	if unix.ClockGettime(int32(^pid<<3|sched), &ts) != nil {
		return 0, false
	}
	return time.Duration(ts.Nano()), true
}

// Resolution says how finely CPU time is read on this machine.
func Resolution() string {
	if _, ok := clock(os.Getpid()); ok {
		return "CPU clocks of the processes, in nanoseconds"
	}
	return "ticks of 10 ms"
}

// Mem is the tree's memory, in KB of 1024 bytes. Anon is the part of PSS that is
// not the pages of files, which the system can take back at any time.
type Mem struct{ PSS, RSS, Anon int64 }

// Memory sums smaps_rollup over the tree.
func Memory(roots []int) Mem {
	var m Mem
	for _, pid := range PIDs(roots) {
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", pid))
		if err != nil {
			continue
		}
		m.PSS += field(b, "Pss:")
		m.Anon += field(b, "Pss_Anon:")
		m.RSS += field(b, "Rss:")
	}
	return m
}

// ResetPeak begins a new peak of a process, which the kernel allows its owner.
func ResetPeak(pid int) error {
	const peak = "5" // see proc(5), clear_refs
	return os.WriteFile(fmt.Sprintf("/proc/%d/clear_refs", pid), []byte(peak), 0)
}

// Resident is what a process takes of memory, now and at its peak, in KB of 1024
// bytes.
func Resident(pid int) (now, peak int64) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0, 0
	}
	return field(b, "VmRSS:"), field(b, "VmHWM:")
}

// Kernel is machine-wide kernel memory that grows with connections and
// threads, in KB: slabs, kernel stacks and page tables. It counts the sockets
// of clients and stub too: compare subjects, not absolutes.
func Kernel() int64 {
	b, err := os.ReadFile("/proc/meminfo")
	if err != nil {
		return 0
	}
	return field(b, "Slab:") + field(b, "KernelStack:") + field(b, "PageTables:")
}

// Threads counts the tree's threads.
func Threads(roots []int) int {
	n := 0
	for _, pid := range PIDs(roots) {
		if entries, err := os.ReadDir(fmt.Sprintf("/proc/%d/task", pid)); err == nil {
			n += len(entries)
		}
	}
	return n
}

// field is the number after a name at the beginning of a line.
func field(b []byte, name string) int64 {
	for line := range strings.Lines(string(b)) {
		rest, ok := strings.CutPrefix(line, name)
		if !ok {
			continue
		}
		if f := strings.Fields(rest); len(f) > 0 {
			n, _ := strconv.ParseInt(f[0], 10, 64)
			return n
		}
	}
	return 0
}
