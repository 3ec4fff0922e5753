// Postern stands in front of a mail server on the day that TLS 1.0 and 1.1 end:
// it terminates TLS for IMAP and POP3, rejects what is below TLS 1.2, says
// exactly why, and counts the clients.
//
// Commands:
//
//	postern serve        run the proxy, configured by POSTERN_ variables
//	postern demo         see the whole thing on loopback, nothing to set up
//	postern check        report every problem of the configuration at once
//	postern plan         say what old clients meet, from now on or at a time
//	postern probe        find out what TLS a server takes, this one or any other
//	postern report       say which clients are left, and whether it can be cut
//	postern replay       say which of those another policy rejects
//	postern guard        say what the guards of the policy have seen, or let one go
//	postern healthcheck  ask the running proxy whether it is ready
//	postern completion   a script that completes commands in a shell
//	postern version      version, commit and Go version
//
// A bare postern is postern serve. Every command has -h, and postern help
// COMMAND says the same; postern serve -h lists the variables.
//
// SIGTERM and SIGINT drain a proxy, a second one ends it; SIGHUP has it read its
// files again, which it also does when they change; SIGUSR2 has the program on disk take
// over from it.
//
// Exit codes: 0 fine; 1 the answer is no; 2 usage or configuration; 3 it broke
// while running. Errors go to stderr, one line each: those of the configuration
// begin with the variable or the file, others with "postern COMMAND: ".
package main

import (
	"cmp"
	"context"
	"embed"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"time"
	_ "time/tzdata" // a static image has no time zones of its own

	"postern/internal/config"
	"postern/internal/gate"
	"postern/internal/handover"
	"postern/internal/logging"
	"postern/internal/signals"
	"postern/internal/text"
)

// Exit codes.
const (
	exitOK     = 0
	exitNo     = 1
	exitUsage  = 2
	exitBroken = 3
)

// system is the environment of a command.
type system struct {
	args           []string
	environ        []string
	stdout, stderr io.Writer
	// stop carries signals: the first one asks, the second one insists.
	stop <-chan os.Signal
	// reload carries SIGHUP, and upgrade SIGUSR2.
	reload, upgrade <-chan os.Signal
	// now is the clock; nil is the system's.
	now func() time.Time
	// describe, unless nil, gets a command's flags and help in the place of a run.
	describe func(*flag.FlagSet, string)
	// envFile is the file of -env, once it is read; the environment before.
	envFile *config.EnvFile
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
	run           func(ctx context.Context, sys system) error
}

func commands() []command {
	return []command{
		{"serve", "run the proxy, configured by POSTERN_ variables", serve},
		{"demo", "see the whole thing on loopback, with nothing to set up", runDemo},
		{"check", "report every problem of the configuration at once", checkConfig},
		{"plan", "say what old clients meet, from now on or at a time", planPolicy},
		{"probe", "find out what TLS a server takes, this one or any other", probeServers},
		{"report", "say who is left, and whether it can be cut", reportLedger},
		{"replay", "say whom of those another policy refuses", replayPolicy},
		{"guard", "say what the guards of the policy have seen, or let one go", guard},
		{"healthcheck", "ask the running instance whether it is ready", healthcheck},
		{"completion", "print a script that completes commands in bash, zsh or fish", completion},
		{"version", "print version, commit and Go version", version},
	}
}

func commandNames() []string {
	return text.Each(commands(), func(c command) string { return c.name })
}

func main() {
	if os.Args[0] == handover.Starter {
		handover.Become()
	}
	if os.Getenv(config.Prefix+"ADMIN_PPROF") != "on" {
		// Without pprof no heap profile is needed; the runtime would keep 1.5 MB
		// for it.
		runtime.MemProfileRate = 0
	}
	if slices.Equal(os.Args[1:], []string{gate.ReporterCommand}) {
		signals.Default(syscall.SIGHUP, syscall.SIGTERM, syscall.SIGINT)
		if !gate.RunReporter(context.Background(), os.Stdin, os.Stdout, os.Stderr) {
			os.Exit(exitBroken)
		}
		return
	}
	os.Exit(run(context.Background(), system{
		args: os.Args[1:], environ: os.Environ(), stdout: os.Stdout, stderr: os.Stderr,
		stop: signals.Stop, reload: signals.Reload, upgrade: signals.Upgrade,
	}))
}

// untilClosed is an output whose reader may have seen enough, as head has: that
// is no fault.
type untilClosed struct{ *os.File }

func (w untilClosed) Write(p []byte) (int, error) {
	n, err := w.File.Write(p)
	if errors.Is(err, syscall.EPIPE) {
		return len(p), nil
	}
	return n, err
}

func (w untilClosed) WriteString(s string) (int, error) { return w.Write([]byte(s)) }

// run finds the command and returns its exit code.
func run(ctx context.Context, sys system) int {
	if f, ok := sys.stdout.(*os.File); ok {
		sys.stdout = untilClosed{f}
	}
	name, args := "serve", sys.args
	if len(args) > 0 {
		name, sys.args = args[0], args[1:]
	}
	switch name {
	case "-h", "-help", "--help", "help":
		if len(sys.args) == 0 || sys.args[0] == "-man" {
			writeAbout(sys.stdout, text.Either(len(sys.args) == 0, "usage", "man"))
			return exitOK
		}
		name, sys.args = sys.args[0], []string{"-h"}
	case "-version", "--version":
		name = "version"
	}
	sys.envFile = &config.EnvFile{Entries: sys.environ}
	if variable, command := misplaced(args); variable != "" {
		// Its value may be a secret.
		sys.errorf("postern: %s=...: a variable stands before the program: write %[1]s=... postern %s", text.Clean(variable, 80), command)
		return exitUsage
	}
	for _, c := range commands() {
		if c.name == name {
			switch name {
			case "serve":
			case "demo":
				signals.Default(syscall.SIGHUP, syscall.SIGUSR2)
			default:
				signals.Default(syscall.SIGHUP, syscall.SIGUSR2, syscall.SIGTERM, syscall.SIGINT)
			}
			return sys.exit(name, c.run(ctx, sys))
		}
	}
	mend := "there are " + strings.Join(commandNames(), ", ") + ";"
	if near := text.Nearest(name, commandNames()); near != "" {
		mend = "did you mean postern " + near + "?"
	} else if strings.HasPrefix(name, "-") || kindOf(name) != "" {
		return sys.exit("serve", flagError{reason: forServe(args)})
	}
	sys.errorf("postern: no such command %q: %s postern -h says what they do", name, mend)
	return exitUsage
}

// misplaced finds a variable among the arguments, and the command that it is meant for.
func misplaced(args []string) (variable, command string) {
	for _, arg := range args {
		if slices.Contains(commandNames(), arg) && command == "" {
			command = arg
		}
		if name, _, ok := strings.Cut(arg, "="); ok && strings.HasPrefix(name, config.Prefix) && variable == "" {
			variable = name
		}
	}
	return variable, cmp.Or(command, "serve")
}

// parse reads a command's flags. Its error is for exit: flag.ErrHelp if help
// has been printed.
func (sys system) parse(fs *flag.FlagSet) error {
	help := helpOf(fs.Name())
	if sys.describe != nil {
		sys.describe(fs, help)
		return flag.ErrHelp
	}
	fs.SetOutput(io.Discard)
	err := fs.Parse(sys.args)
	switch {
	case errors.Is(err, flag.ErrHelp):
		fmt.Fprint(sys.stdout, help)
		fs.SetOutput(sys.stdout)
		fs.PrintDefaults()
		return err
	case fs.Name() == "serve" && (err != nil || fs.NArg() > 0):
		return flagError{reason: forServe(sys.args)}
	case err != nil:
		return flagError{reason: words(fs, err)}
	case fs.NArg() > 0 && fs.Name() != "probe": // which has arguments
		before := strings.Join(sys.args[:len(sys.args)-fs.NArg()], "=")
		return flagError{reason: fmt.Sprintf("unexpected argument %q%s", fs.Arg(0), cmp.Or(clockTime(before, fs.Arg(0)), ": "+flagFor(fs, fs.Arg(0))))}
	}
	return nil
}

// kindOf returns the flag that a file of this name is for, policy or env; "" for others.
func kindOf(name string) string {
	switch ext := filepath.Ext(name); {
	case ext == ".yaml" || ext == ".yml":
		return "policy"
	case ext == ".env":
		return "env"
	}
	var data []byte
	if info, err := os.Stat(name); err == nil && info.Mode().IsRegular() {
		data, _ = text.ReadFile(name, 64<<10)
	}
	if regexp.MustCompile(`(?m)^\s*(export )?` + config.Prefix).Match(data) {
		return "env"
	}
	return ""
}

// flagged is a flag's name and value, with = between them.
var flagged = regexp.MustCompile(`-([^-=][^=]*)=([^=]*)$`)

// clockTime says how a time of day is written that stands alone behind a flag's date;
// "" for what is no such thing.
func clockTime(before, arg string) string {
	m := flagged.FindStringSubmatch(before)
	if m == nil {
		return ""
	}
	if _, _, err := text.ParseTime(m[2] + " " + arg); err != nil {
		return ""
	}
	return fmt.Sprintf(" behind -%s %s: write -%[1]s \"%[2]s %[3]s\", or with a T: -%[1]s %[2]sT%[3]s", m[1], m[2], arg)
}

// flagFor says how an argument is written that stands alone.
func flagFor(fs *flag.FlagSet, arg string) string {
	var all, valued []string
	fs.VisitAll(func(f *flag.Flag) {
		all = append(all, f.Name)
		if value, _ := flag.UnquoteUsage(f); value != "" {
			valued = append(valued, "-"+f.Name)
		}
	})
	kind := kindOf(arg)
	if fs.Lookup("from") != nil && strings.Contains(arg, "://") {
		kind = "from"
	}
	switch near := text.Nearest(arg, all); {
	case fs.Lookup(kind) != nil:
		return fmt.Sprintf("write -%s %s", kind, text.Clean(arg, 200))
	case near != "" && len(arg) > len("now"):
		return "did you mean -" + near + "?"
	case fs.Name() == "healthcheck":
		return "it asks " + config.Prefix + "ADMIN_LISTEN: set that, or name the file of variables (-env FILE)"
	case len(valued) == 0:
		return "leave it out"
	}
	return "a value stands behind its flag, one of " + strings.Join(valued, ", ")
}

// forServe says how serve gets what was given as a flag or an argument.
func forServe(args []string) string {
	file := "FILE"
	words := strings.Split(strings.Join(args, "="), "=")
	for i, word := range words {
		before := strings.TrimLeft(words[max(0, i-1)], "-")
		switch kind := cmp.Or(kindOf(word), before); {
		case strings.HasPrefix(word, "-"):
		case kind == "policy":
			return fmt.Sprintf("%q: serve takes variables alone: type %sPOLICY_FILE=%s postern serve", args[0], config.Prefix, text.Clean(word, 200))
		case kind == "env":
			file, _ = filepath.Abs(word)
		}
	}
	return fmt.Sprintf("%q: serve takes variables alone: in a shell type set -a; . %s; set +a; postern serve, in a systemd unit write EnvironmentFile=%[2]s",
		args[0], text.Clean(file, 200))
}

//go:embed help
var helpFiles embed.FS

// helpOf returns what stands above the flags of a command.
func helpOf(command string) string {
	text, err := helpFiles.ReadFile("help/" + command + ".txt")
	if err != nil {
		panic(err) // every command has one
	}
	var variables strings.Builder
	config.Table(&variables)
	return strings.Replace(string(text), "{variables}\n", variables.String(), 1) + "\n"
}

// invalidValue is what the flag package says of a value that was read in vain.
var invalidValue = regexp.MustCompile(`(?s)^invalid value "(?:[^"\\]|\\.)*" for flag -([^:]*): (.*)$`)

// words says what the flag package means.
func words(fs *flag.FlagSet, err error) string {
	said := err.Error()
	if m := invalidValue.FindStringSubmatch(said); m != nil {
		return "-" + m[1] + ": " + m[2]
	}
	if name, alone := strings.CutPrefix(said, "flag needs an argument: -"); alone {
		return "-" + name + ": " + missing(fs, name)
	}
	name, unknown := strings.CutPrefix(said, "flag provided but not defined: -")
	if !unknown {
		return strings.Replace(said, "parse error", "neither true nor false: the flag alone says true", 1)
	}
	names := []string{"h"}
	fs.VisitAll(func(f *flag.Flag) { names = append(names, f.Name) })
	if near := text.Nearest(name, names); near != "" {
		return fmt.Sprintf("no such flag -%s: did you mean -%s?", name, near)
	}
	return fmt.Sprintf("no such flag -%s: there are -%s", name, strings.Join(names, ", -"))
}

// given returns the names of the flags that were set.
func given(fs *flag.FlagSet) (names []string) {
	fs.Visit(func(f *flag.Flag) { names = append(names, f.Name) })
	return names
}

// A flagError is a problem with one flag, or with the command line.
type flagError struct{ flag, reason string }

func (e flagError) Error() string {
	return text.Either(e.flag == "", "", "-"+e.flag+": ") + e.reason
}

// An exitError is an error with an exit code. Its error is nil if everything
// has been printed.
type exitError struct {
	error
	code int
}

func (e exitError) Unwrap() error { return e.error }

func usageErrorf(format string, args ...any) error {
	return exitError{fmt.Errorf(format, args...), exitUsage}
}

// exit prints the error that a command ends with, and returns its exit code.
func (sys system) exit(command string, err error) int {
	code := exitBroken
	if e, ok := errors.AsType[exitError](err); ok {
		code = e.code
		if e.error == nil {
			return code
		}
	}
	switch {
	case err == nil, errors.Is(err, flag.ErrHelp):
		return exitOK
	case errors.As(err, new(flagError)):
		sys.errorf("%s", strings.Replace(fmt.Sprintf("postern %s: %v; postern %[1]s -h says what it takes", command, err), "?; ", "? ", 1))
		return exitUsage
	case errors.As(err, new(config.Problems)): // each line begins with a variable or a file
		sys.errorf("%v", err)
		return exitUsage
	}
	sys.errorf("postern %s: %v", command, sys.envFile.Place(err.Error()))
	return code
}

// errorf prints lines to stderr, those about a file with its variable, and those about
// a variable with its place in the file of -env.
func (sys system) errorf(format string, args ...any) {
	for line := range strings.Lines(strings.TrimRight(fmt.Sprintf(format, args...), "\n")) {
		printLine(sys.stderr, slog.LevelError, sys.envFile.Place(strings.TrimRight(line, "\n")))
	}
}

// printLine prints a line, for the journal with its priority.
func printLine(w io.Writer, level slog.Level, line string) {
	if logging.ToJournal(w) {
		line = logging.Priority(level) + line
	}
	fmt.Fprintln(w, line)
}
