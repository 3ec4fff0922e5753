// Package handover takes listening sockets from systemd, or from another process that
// speaks its protocol (sd_listen_fds(3)).
package handover

import (
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"

	"github.com/coreos/go-systemd/v22/activation"

	"postern/internal/config"
	"postern/internal/netpoll"
	"postern/internal/text"
	"postern/proxy"
)

// Sockets are listening sockets by name: imaps, pop3s, imap, pop3, admin.
type Sockets map[string][]net.Listener

// variables name the addresses of sockets.
var variables = map[string]string{"imaps": "LISTEN_IMAPS", "pop3s": "LISTEN_POP3S", "imap": "LISTEN_IMAP", "pop3": "LISTEN_POP3", "admin": "ADMIN_LISTEN"}

// Take takes the sockets that this process was given, and their variables out of the
// environment. The error has a line for each that is of no use.
func Take() (Sockets, error) {
	given := make(Sockets)
	var problems []error
	for _, f := range activation.Files(true) {
		name := f.Name()
		l, err := netpoll.FileListener(f, proxy.Listener(name).ImplicitTLS())
		switch {
		case variables[name] == "":
			err = errors.New("not one of imaps, pop3s, imap, pop3, admin: FileDescriptorName= of a socket unit says for which listener it is")
		case name == "admin" && len(given[name]) > 0:
			err = errors.New("given twice: there is one admin port, so that its socket unit has one ListenStream=")
		}
		if err != nil {
			problems = append(problems, fmt.Errorf("LISTEN_FDNAMES: %s: %w", text.Clean(name, 80), err))
		}
		given[name] = append(given[name], l)
	}
	return given, errors.Join(problems...)
}

// Environ returns an environment in which the addresses of the sockets have taken the
// place of those in the variables.
func (given Sockets) Environ(environ []string) []string {
	environ = slices.Clone(environ)
	for name, list := range given {
		var addrs []string
		for _, l := range list {
			if addr := netpoll.ListenAddr(l); !slices.Contains(addrs, addr) {
				addrs = append(addrs, addr)
			}
		}
		environ = append(environ, config.Prefix+variables[name]+"="+strings.Join(addrs, ","))
	}
	return environ
}
