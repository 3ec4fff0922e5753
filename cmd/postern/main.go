// Postern is the gate in front of a mail server on the day that TLS 1.0 and
// 1.1 end: it terminates TLS for IMAP and POP3, turns away what is below TLS
// 1.2, says exactly why, and counts who it was.
//
// Commands:
//
//	postern serve        run the gate, configured by POSTERN_ variables
//	postern demo         see the whole thing on loopback, nothing to set up
//	postern check        report every problem of the configuration at once
//	postern plan         say what old clients meet, from now on or at a time
//	postern report       say who is left, and whether it can be cut
//	postern replay       say whom of those another policy refuses
//	postern healthcheck  ask the running gate whether it is ready
//	postern version      version, commit and Go version
//
// A bare postern is postern serve. Every command has -h.
//
// Exit codes: 0 fine; 1 the answer is no; 2 usage or configuration; 3 it broke
// while running. Errors go to stderr, one line each.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime"
	"strings"
	"syscall"
	"time"
	_ "time/tzdata" // a static image has no time zones of its own

	"postern/internal/config"
)

// Exit codes.
const (
	exitOK     = 0
	exitNo     = 1
	exitUsage  = 2
	exitBroken = 3
)

// system is what a command has of the world.
type system struct {
	args           []string
	environ        []string
	stdout, stderr io.Writer
	// stop carries signals: the first one asks, the second one insists.
	stop <-chan os.Signal
	// reload carries SIGHUP.
	reload <-chan os.Signal
	// now is the clock; nil is the system's.
	now func() time.Time
}

func (sys system) clock() time.Time {
	if sys.now != nil {
		return sys.now().UTC()
	}
	return time.Now().UTC()
}

// command is one of the program's commands.
type command struct {
	name, summary string
	run           func(ctx context.Context, sys system) int
}

func commands() []command {
	return []command{
		{"serve", "run the gate, configured by POSTERN_ variables", serve},
		{"demo", "see the whole thing on loopback, with nothing to set up", runDemo},
		{"check", "report every problem of the configuration at once", checkConfig},
		{"plan", "say what old clients meet, from now on or at a time", planPolicy},
		{"report", "say who is left, and whether it can be cut", reportLedger},
		{"replay", "say whom of those another policy refuses", replayPolicy},
		{"healthcheck", "ask the running gate whether it is ready", healthcheck},
		{"version", "print version, commit and Go version", version},
	}
}

func main() {
	// First of all: a SIGHUP that comes before this ends the process.
	reload := make(chan os.Signal, 1)
	signal.Notify(reload, syscall.SIGHUP)
	// A closed stderr must not end the gate: without this the runtime dies of
	// SIGPIPE at the first write to it.
	signal.Ignore(syscall.SIGPIPE)
	stop := make(chan os.Signal, 2)
	signal.Notify(stop, syscall.SIGTERM, syscall.SIGINT)
	if os.Getenv(config.Prefix+"ADMIN_PPROF") != "on" {
		// Nobody can ask for a heap profile then, which the runtime would keep
		// a megabyte and a half for.
		runtime.MemProfileRate = 0
	}
	os.Exit(run(context.Background(), system{os.Args[1:], os.Environ(), os.Stdout, os.Stderr, stop, reload, nil}))
}

// run finds the command and returns its exit code.
func run(ctx context.Context, sys system) int {
	name := "serve"
	if len(sys.args) > 0 {
		name, sys.args = sys.args[0], sys.args[1:]
	}
	switch name {
	case "-h", "-help", "--help", "help":
		usage(sys.stdout)
		return exitOK
	}
	for _, c := range commands() {
		if c.name == name {
			if name != "serve" {
				// The others end with their terminal, as anybody would expect.
				signal.Reset(syscall.SIGHUP)
			}
			return c.run(ctx, sys)
		}
	}
	fmt.Fprintf(sys.stderr, "postern: no such command %q; postern -h lists them\n", name)
	return exitUsage
}

func usage(w io.Writer) {
	fmt.Fprint(w, "Postern stands in front of a mail server, turns away old TLS and says who it was.\n\nCommands:\n")
	for _, c := range commands() {
		fmt.Fprintf(w, "  postern %-12s %s\n", c.name, c.summary)
	}
	fmt.Fprint(w, "\nA bare postern is postern serve. postern COMMAND -h says more.\n"+
		"Exit codes: 0 fine, 1 the answer is no, 2 usage or configuration, 3 it broke while running.\n")
}

// parse reads a command's flags; done says that the command is over, with that
// exit code.
func (sys system) parse(fs *flag.FlagSet, help func(io.Writer)) (code int, done bool) {
	fs.SetOutput(io.Discard)
	err := fs.Parse(sys.args)
	switch {
	case errors.Is(err, flag.ErrHelp):
		help(sys.stdout)
		fs.SetOutput(sys.stdout)
		fs.PrintDefaults()
		return exitOK, true
	case err == nil && fs.NArg() > 0:
		err = fmt.Errorf("unexpected argument %q", fs.Arg(0))
	}
	if err != nil {
		sys.errorf("postern %s: %v; postern %s -h says what it takes", fs.Name(), err, fs.Name())
		return exitUsage, true
	}
	return exitOK, false
}

// errorf prints one line to stderr.
func (sys system) errorf(format string, args ...any) {
	fmt.Fprintln(sys.stderr, strings.TrimRight(fmt.Sprintf(format, args...), "\n"))
}
