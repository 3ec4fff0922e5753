package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"syscall"

	"postern/bench/internal/proc"
	"postern/bench/internal/report"
	"postern/bench/internal/stub"
)

// machine says what the run took place on.
func machine() []report.Fact {
	facts := []report.Fact{
		{Name: "cores", Value: strconv.Itoa(runtime.NumCPU())},
		{Name: "Go", Value: strings.TrimPrefix(runtime.Version(), "go")},
		{Name: "CPU time read from", Value: proc.Resolution()},
	}
	if v := valueOf("/proc/cpuinfo", "model name"); v != "" {
		facts = append(facts, report.Fact{Name: "CPU", Value: v})
	}
	if b, err := os.ReadFile("/proc/sys/kernel/osrelease"); err == nil {
		release, _, _ := strings.Cut(strings.TrimSpace(string(b)), "-")
		facts = append(facts, report.Fact{Name: "Linux", Value: release})
	}
	if b, err := os.ReadFile("/etc/debian_version"); err == nil {
		facts = append(facts, report.Fact{Name: "Debian", Value: strings.TrimSpace(string(b))})
	}
	if out, err := exec.Command("openssl", "version").Output(); err == nil {
		if f := strings.Fields(string(out)); len(f) > 1 {
			facts = append(facts, report.Fact{Name: "OpenSSL", Value: f[1]})
		}
	}
	return append(facts, report.Fact{Name: "load before", Value: load()})
}

// valueOf is what stands behind the first "name :" in a file.
func valueOf(path, name string) string {
	b, err := os.ReadFile(path)
	if err != nil {
		return ""
	}
	for line := range strings.Lines(string(b)) {
		if k, v, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(k) == name {
			return strings.TrimSpace(v)
		}
	}
	return ""
}

// load is the load average over 1, 5 and 15 minutes.
func load() string {
	b, _ := os.ReadFile("/proc/loadavg")
	f := strings.Fields(string(b))
	return strings.Join(f[:min(3, len(f))], " ")
}

// raiseFiles asks for n descriptors and says how many there are.
func raiseFiles(n uint64) (int, error) {
	var l syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &l); err != nil {
		return 0, err
	}
	if l.Max < n {
		up := syscall.Rlimit{Cur: n, Max: n}
		if syscall.Setrlimit(syscall.RLIMIT_NOFILE, &up) == nil {
			return int(n), nil
		}
	}
	l.Cur = l.Max
	return int(l.Cur), syscall.Setrlimit(syscall.RLIMIT_NOFILE, &l)
}

// startStub runs the stub in a process of its own, so that its descriptors and
// its garbage are not the clients'.
func startStub() (ports stub.Ports, stop func(), err error) {
	self, err := os.Executable()
	if err != nil {
		return ports, nil, err
	}
	cmd := exec.Command(self, "stub")
	// Ctrl-C is for the harness, which stops the stub last.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	in, errIn := cmd.StdinPipe()
	out, errOut := cmd.StdoutPipe()
	if err := errors.Join(errIn, errOut); err != nil {
		return ports, nil, err
	}
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		return ports, nil, err
	}
	stop = func() {
		in.Close()
		cmd.Wait()
	}
	if err := json.NewDecoder(bufio.NewReader(out)).Decode(&ports); err != nil {
		stop()
		return ports, nil, err
	}
	return ports, stop, nil
}
