package subject

import (
	"crypto/tls"
	"flag"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"runtime"
	"strings"
)

// Naive is what anyone would write in an afternoon: crypto/tls and two
// io.Copy a connection. It runs as "bench naive", a process of its own.
var Naive = &Subject{
	Name: "naive", Note: "Go, 60 lines: crypto/tls and two io.Copy",
	Plan: func(o Options) (Plan, error) {
		self, err := os.Executable()
		cmd := exec.Command(self, "naive", "-cert", o.Cert.Cert, "-key", o.Cert.Key,
			fmt.Sprintf("-log=%v", o.Log), addr(o.IMAPS), addr(o.Stub.IMAP), addr(o.POP3S), addr(o.Stub.POP3))
		return Plan{Cmds: []*exec.Cmd{cmd}}, err
	},
	Size:    func() string { return "" },
	Version: func() string { return strings.TrimPrefix(runtime.Version(), "go") },
}

// NaiveMain is that process: naive [flags] listen upstream [listen upstream]...
func NaiveMain(args []string) error {
	fs := flag.NewFlagSet("naive", flag.ExitOnError)
	cert, key := fs.String("cert", "", "certificate"), fs.String("key", "", "key")
	log := fs.Bool("log", false, "log failed handshakes")
	fs.Parse(args)
	pair, err := tls.LoadX509KeyPair(*cert, *key)
	if err != nil {
		return err
	}
	cfg := &tls.Config{Certificates: []tls.Certificate{pair}, MinVersion: tls.VersionTLS12}
	errs := make(chan error)
	for i := 0; i+1 < fs.NArg(); i += 2 {
		l, err := net.Listen("tcp", fs.Arg(i))
		if err != nil {
			return err
		}
		go func(upstream string) {
			for {
				c, err := l.Accept()
				if err != nil {
					errs <- err
					return
				}
				go naive(tls.Server(c, cfg), upstream, *log)
			}
		}(fs.Arg(i + 1))
	}
	return <-errs
}

// naive serves one connection.
func naive(c *tls.Conn, upstream string, log bool) {
	defer c.Close()
	if err := c.Handshake(); err != nil {
		if log {
			fmt.Fprintf(os.Stderr, "%v: %v\n", c.RemoteAddr(), err)
		}
		return
	}
	u, err := net.Dial("tcp", upstream)
	if err != nil {
		return
	}
	defer u.Close()
	go func() {
		io.Copy(u, c)
		u.(*net.TCPConn).CloseWrite()
	}()
	io.Copy(c, u)
}
