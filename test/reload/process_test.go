package reload

import (
	"errors"
	"os/exec"
	"syscall"
	"testing"
	"time"

	"postern/internal/posterntest"
)

// process is a proxy that a shell has started.
type process struct {
	cmd    *exec.Cmd
	exited chan error
}

// launch runs a line of shell with the binary as $0.
func launch(t *testing.T, line string, env map[string]string) *process {
	t.Helper()
	p := &process{cmd: exec.Command("sh", "-c", line, posterntest.Binary(t)), exited: make(chan error, 1)}
	for k, v := range env {
		p.cmd.Env = append(p.cmd.Env, "POSTERN_"+k+"="+v)
	}
	must(t, p.cmd.Start())
	go func() { p.exited <- p.cmd.Wait() }()
	t.Cleanup(func() { p.cmd.Process.Kill() })
	return p
}

// healthcheck runs postern healthcheck in the same environment.
func (p *process) healthcheck(t *testing.T) (code int) {
	t.Helper()
	cmd := exec.Command(posterntest.Binary(t), "healthcheck")
	cmd.Env = p.cmd.Env
	err := cmd.Run()
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		return exit.ExitCode()
	}
	must(t, err)
	return 0
}

func (p *process) waitHealthy(t *testing.T) {
	t.Helper()
	for end := time.Now().Add(takenOver); p.healthcheck(t) != 0; time.Sleep(50 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("not ready")
		}
		select {
		case err := <-p.exited:
			t.Fatalf("the proxy is gone: %v", err)
		default:
		}
	}
}

func (p *process) stop(t *testing.T) {
	t.Helper()
	must(t, p.cmd.Process.Signal(syscall.SIGTERM))
	select {
	case err := <-p.exited:
		if err != nil {
			t.Errorf("the proxy ended with %v", err)
		}
	case <-time.After(takenOver):
		t.Error("still there")
	}
}
