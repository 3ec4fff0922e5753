package handover

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// systemd is a container whose first process is a real one. Postern is its service, by
// the files in deploy/systemd and the commands that stand in them.
type systemd struct {
	boot    *exec.Cmd
	input   io.Closer // which ends it
	pid     int       // of its first process
	sockets bool      // systemd listens
	repo    string
	dir     string // out here
}

// service is the unit that is started.
const service = "postern.service"

// newSystemd boots one, with the environment of the unit and the files it names.
func newSystemd(repo, dir string, environ []string, cert, key string, sockets bool) (*systemd, error) {
	s := &systemd{sockets: sockets, repo: repo, dir: dir, boot: exec.Command(filepath.Join(repo, "internal/debian13/boot.sh"))}
	s.boot.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	s.boot.Stderr = os.Stderr
	input, err := s.boot.StdinPipe()
	if err != nil {
		return nil, err
	}
	out, err := s.boot.StdoutPipe()
	if err != nil {
		return nil, err
	}
	s.input = input
	if err := s.boot.Start(); err != nil {
		return nil, err
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	if err == nil {
		s.pid, err = strconv.Atoi(strings.TrimSpace(line))
	}
	if err == nil {
		err = s.install(environ, cert, key)
	}
	if err != nil {
		s.close()
		return nil, fmt.Errorf("booting a Debian 13: %w", err)
	}
	return s, nil
}

// path is what a file of the container is called out here.
func (s *systemd) path(inside string) string { return fmt.Sprintf("/proc/%d/root%s", s.pid, inside) }

// in runs a command in the container.
func (s *systemd) in(script string) (string, error) {
	cmd := exec.Command("nsenter", "--target", strconv.Itoa(s.pid), "--mount", "--pid", "--uts", "--ipc", "--cgroup",
		"env", "-i", "PATH=/usr/local/bin:/usr/bin:/usr/sbin", "LC_ALL=C.UTF-8", "sh", "-ec", script)
	out, err := cmd.CombinedOutput()
	if err != nil {
		err = fmt.Errorf("%s: %w: %s", script, err, out)
	}
	return string(out), err
}

// install does what stands at the head of the unit, up to the start.
func (s *systemd) install(environ []string, cert, key string) error {
	if _, err := s.in("useradd --system --user-group --no-create-home --shell /usr/sbin/nologin postern; install -d -m 750 -g postern /etc/postern"); err != nil {
		return err
	}
	units, err := filepath.Glob(filepath.Join(s.repo, "deploy/systemd/postern*"))
	if err != nil {
		return err
	}
	files := map[string]string{cert: "/etc/postern/ecdsa.pem", key: "/etc/postern/ecdsa.key"}
	for _, unit := range units {
		files[unit] = filepath.Join("/etc/systemd/system", filepath.Base(unit))
	}
	for from, to := range files {
		content, err := os.ReadFile(from)
		if err == nil {
			err = os.WriteFile(s.path(to), content, 0o644)
		}
		if err != nil {
			return err
		}
	}
	environ = append(environ, "POSTERN_TLS_CERT_FILE=/etc/postern/ecdsa.pem", "POSTERN_TLS_KEY_FILE=/etc/postern/ecdsa.key",
		"POSTERN_LEDGER_URL=sqlite:"+ledgerInside)
	if err := os.WriteFile(s.path("/etc/postern/postern.env"), []byte(strings.Join(environ, "\n")+"\n"), 0o644); err != nil {
		return err
	}
	_, err = s.in("systemctl daemon-reload")
	return err
}

const (
	programInside = "/usr/local/bin/postern"
	ledgerInside  = "/var/lib/postern/ledger.db"
)

func (s *systemd) put(binary string) error { return replaceFile(binary, s.path(programInside)) }

func (s *systemd) start() error {
	if s.sockets {
		if _, err := s.in("systemctl start postern-imaps.socket postern-pop3s.socket postern-imap.socket postern-pop3.socket postern-admin.socket"); err != nil {
			return err
		}
	}
	_, err := s.in("systemctl start " + service)
	return err
}

func (s *systemd) replace() error {
	_, err := s.in("systemctl kill --kill-whom=main --signal=USR2 " + service)
	return err
}

func (s *systemd) processes() (running []int, err error) {
	list, err := os.ReadFile(s.path("/sys/fs/cgroup/system.slice/" + service + "/cgroup.procs"))
	if errors.Is(err, os.ErrNotExist) || errors.Is(err, syscall.ENODEV) {
		return nil, nil // the control group has gone with the last one
	}
	for field := range strings.FieldsSeq(string(list)) {
		pid, ferr := strconv.Atoi(field)
		running, err = append(running, pid), errors.Join(err, ferr)
	}
	return running, err
}

func (s *systemd) stop() error {
	units := service
	if s.sockets {
		units = "postern-imaps.socket postern-pop3s.socket postern-imap.socket postern-pop3.socket postern-admin.socket " + units
	}
	_, err := s.in("systemctl stop " + units)
	return err
}

// ledger copies it: SQLite follows the link to the container's root, which out here leads
// to this one's.
func (s *systemd) ledger() (string, error) {
	to := filepath.Join(s.dir, "ledger.db")
	for _, suffix := range []string{"", "-wal"} {
		content, err := os.ReadFile(s.path(ledgerInside + suffix))
		if err == nil {
			err = os.WriteFile(to+suffix, content, 0o600)
		}
		if err != nil && !(suffix != "" && errors.Is(err, os.ErrNotExist)) {
			return "", err
		}
	}
	return to, nil
}

func (s *systemd) log() string {
	said, _ := s.in("journalctl --unit=" + service + " --output=short-precise --no-hostname")
	return said
}

func (s *systemd) close() {
	s.input.Close()
	done := make(chan error, 1)
	go func() { done <- s.boot.Wait() }()
	select {
	case <-done:
	case <-time.After(20 * time.Second):
		s.boot.Process.Kill()
	}
}

var errRestarts = errors.New("systemd has restarted the service")

// healthy tells whether systemd still knows one main process, and has restarted nothing.
func (s *systemd) healthy() error {
	restarts, err := s.in("systemctl show --property=NRestarts --value " + service)
	if err == nil && strings.TrimSpace(restarts) != "0" {
		err = errRestarts
	}
	return err
}
