package handover

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"postern/bench/internal/proc"
)

// control runs Postern from a file that is replaced.
type control interface {
	// start starts what is on disk.
	start() error
	// put puts another program in the place of the one on disk.
	put(binary string) error
	// replace asks the newest process to hand over to the program on disk.
	replace() error
	// processes are those that run, of all generations.
	processes() ([]int, error)
	// stop asks all to end.
	stop() error
	// close ends what is left.
	close()
	// ledger is the file of the ledger, once nobody has it open.
	ledger() (string, error)
	// log is what they have said.
	log() string
}

// byHand has Postern's processes be its children, as in a shell.
type byHand struct {
	dir     string
	environ []string
	restart bool // a restart in the place of each handover
}

func newByHand(dir string, environ []string, restart bool) (*byHand, error) {
	// What a process leaves behind becomes a child of this one, not of init.
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		return nil, fmt.Errorf("becoming a subreaper: %w", err)
	}
	return &byHand{dir: dir, environ: environ, restart: restart}, nil
}

func (b *byHand) program() string { return filepath.Join(b.dir, "postern") }

func (b *byHand) ledger() (string, error) { return filepath.Join(b.dir, "ledger.db"), nil }

func (b *byHand) log() string {
	said, _ := os.ReadFile(b.output())
	return string(said)
}

func (b *byHand) output() string { return filepath.Join(b.dir, "postern.log") }

func (b *byHand) put(binary string) error { return replaceFile(binary, b.program()) }

// replaceFile copies a program over another one that may be running.
func replaceFile(from, to string) error {
	content, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	if err := os.WriteFile(to+".new", content, 0o755); err != nil {
		return err
	}
	return os.Rename(to+".new", to)
}

func (b *byHand) start() error {
	out, err := os.OpenFile(b.output(), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	defer out.Close()
	cmd := exec.Command(b.program(), "serve")
	cmd.Env, cmd.Stdout, cmd.Stderr = b.environ, out, out
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	return cmd.Start()
}

func (b *byHand) replace() error {
	if !b.restart {
		return b.signal(syscall.SIGUSR2)
	}
	if err := b.signal(syscall.SIGTERM); err != nil {
		return err
	}
	for {
		running, err := b.processes()
		if err != nil || len(running) == 0 {
			return errors.Join(err, b.start())
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// signal goes to the one process that there is.
func (b *byHand) signal(sig syscall.Signal) error {
	running, err := b.processes()
	if err == nil && len(running) != 1 {
		err = fmt.Errorf("%d processes, none of which is known to be the newest", len(running))
	}
	if err != nil {
		return err
	}
	return syscall.Kill(running[0], sig)
}

func (b *byHand) processes() (running []int, err error) {
	for _, pid := range proc.PIDs([]int{os.Getpid()}) {
		comm, err := os.ReadFile(fmt.Sprintf("/proc/%d/comm", pid))
		if err != nil || strings.TrimSpace(string(comm)) != "postern" {
			continue
		}
		var status syscall.WaitStatus
		if got, _ := syscall.Wait4(pid, &status, syscall.WNOHANG, nil); got == pid {
			if status.ExitStatus() != 0 {
				return nil, fmt.Errorf("process %d: exit status %d, signal %v", pid, status.ExitStatus(), status.Signal())
			}
			continue
		}
		running = append(running, pid)
	}
	return running, nil
}

func (b *byHand) stop() error {
	running, err := b.processes()
	for _, pid := range running {
		err = errors.Join(err, syscall.Kill(pid, syscall.SIGTERM))
	}
	return err
}

func (b *byHand) close() {
	running, _ := b.processes()
	for _, pid := range running {
		syscall.Kill(pid, syscall.SIGKILL)
	}
}
