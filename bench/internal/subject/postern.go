package subject

import (
	"fmt"
	"os"
	"os/exec"
	"strings"
)

// posternBin is built by bench/run, or comes from outside.
func posternBin() string { return os.Getenv("POSTERN_BIN") }

// Postern is the product. It runs in every measure with all that "serve" has
// on by default: metrics, ledger, log, limits and timers.
var Postern = postern("postern", posternBin)

// OldPostern is another binary of it, to be compared with.
func OldPostern(path string) *Subject { return postern("postern-old", at(path)) }

func postern(name string, bin func() string) *Subject {
	return &Subject{
		Name: name, Ours: true, Note: "as `serve` comes: metrics, log, ledger in memory, mode enforce",
		Size: func() string { return fileSize(bin()) },
		Bin:  bin,
		Version: func() string {
			out, _ := exec.Command(bin(), "version").Output()
			if f := strings.Fields(string(out)); len(f) > 1 { // postern v1.2.3 (commit ...)
				return f[1]
			}
			return ""
		},
		Plan: func(o Options) (Plan, error) {
			cmd := exec.Command(bin(), "serve")
			cmd.Env = append(ownEnviron(),
				"POSTERN_LISTEN_IMAPS="+addr(o.IMAPS),
				"POSTERN_LISTEN_POP3S="+addr(o.POP3S),
				"POSTERN_LISTEN_IMAP="+addr(o.IMAP),
				"POSTERN_LISTEN_POP3="+addr(o.POP3),
				fmt.Sprintf("POSTERN_UPSTREAM_IMAP=imap://127.0.0.1:%d", o.Stub.IMAP),
				fmt.Sprintf("POSTERN_UPSTREAM_POP3=pop3://127.0.0.1:%d", o.Stub.POP3),
				"POSTERN_TLS_CERT_FILE="+o.Cert.Cert,
				"POSTERN_TLS_KEY_FILE="+o.Cert.Key,
				"POSTERN_ADMIN_LISTEN="+addr(o.Admin),
				"POSTERN_ADMIN_PPROF="+iff(o.Profile, "on", "off"),
			)
			cmd.Env = append(cmd.Env, o.Env...)
			return Plan{Cmds: []*exec.Cmd{cmd}}, nil
		},
	}
}

// ownEnviron is the environment without variables of Postern's, which would
// change what is measured.
func ownEnviron() []string {
	var out []string
	for _, e := range os.Environ() {
		if !strings.HasPrefix(e, "POSTERN_") {
			out = append(out, e)
		}
	}
	return out
}
