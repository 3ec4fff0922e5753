package subject

import (
	"os"
	"os/exec"
)

// ghostunnelBin comes from outside; see the README.
func ghostunnelBin() string { return os.Getenv("GHOSTUNNEL_BIN") }

// Ghostunnel is the established TLS proxy in Go. It has one listener a process,
// so POP3S is a second process.
var Ghostunnel = &Subject{
	Name: "ghostunnel", Peer: true, Note: "Go; two processes (IMAPS, POP3S)",
	Size: func() string { return fileSize(ghostunnelBin()) },
	Bin:  ghostunnelBin, Version: versionOf(ghostunnelBin, "--version"),
	Plan: func(o Options) (Plan, error) {
		run := func(listen, target int) *exec.Cmd {
			args := []string{"server", "--listen", addr(listen), "--target", addr(target),
				"--cert", o.Cert.Cert, "--key", o.Cert.Key, "--disable-authentication"}
			if !o.Log {
				args = append(args, "--quiet", "all")
			}
			return exec.Command(ghostunnelBin(), args...)
		}
		return Plan{Cmds: []*exec.Cmd{run(o.IMAPS, o.Stub.IMAP), run(o.POP3S, o.Stub.POP3)}}, nil
	},
}
