package main

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"postern/internal/config"
	"postern/internal/report"
	"postern/internal/text"
)

// define adds a flag, which is judged where it is set, and cannot be set to nothing.
func define(fs *flag.FlagSet, name, byDefault, usage string, set func(string) error) {
	fs.Func(name, usage, func(s string) error {
		if s == "" {
			return errors.New(missing(fs, name))
		}
		return set(s)
	})
	if fs.Lookup(name).DefValue = byDefault; byDefault != "" {
		set(byDefault)
	}
}

func missing(fs *flag.FlagSet, name string) string {
	what, _ := flag.UnquoteUsage(fs.Lookup(name))
	return fmt.Sprintf("its value is missing: write -%s %s", name, strings.ToUpper(what))
}

// into stores what a value is read as.
func into[T any](to *T, read func(string) (T, error)) func(string) error {
	return func(s string) (err error) {
		*to, err = read(s)
		return err
	}
}

func readText(s string) (string, error) { return s, nil }

func readCount(s string) (int, error) {
	n, err := strconv.ParseUint(s, 10, 31)
	if err != nil {
		err = fmt.Errorf("%q: write a whole number from 0 on, as in 5", s)
	}
	return int(n), err
}

func readDuration(s string) (time.Duration, error) {
	d, err := text.ParseDuration(s)
	if err != nil {
		err = fmt.Errorf("%q is %w", s, err)
	}
	return d, err
}

// readTime reads a time as people write it; without a zone it is UTC.
func readTime(s string) (time.Time, error) {
	t, _, err := text.ParseTime(s)
	if err == nil && t.Year() < 9000 {
		return t, nil
	}
	return t, fmt.Errorf("%q is not a time: write one such as 2026-07-01, \"2026-07-01 10:30\" (both UTC) or 2026-07-01T10:30:00+02:00", s)
}

// readSince reads how far to look back.
func (sys system) readSince(s string) (time.Duration, error) {
	return report.ParseSince(s, sys.clock())
}

// source is where a command's configuration comes from, in place of the
// process's environment.
type source struct {
	env, policy string
}

func (s *source) flags(fs *flag.FlagSet) {
	s.envFlag(fs)
	define(fs, "policy", "", "the policy in this `file`, in place of the configured one", into(&s.policy, readText))
}

func (s *source) envFlag(fs *flag.FlagSet) {
	define(fs, "env", "", "the variables in this `file`, read as systemd reads an EnvironmentFile, in place\n"+
		"of those of the environment", into(&s.env, readText))
}

// configure reads a command's flags, and makes the source that they name its
// configuration. Of an -env file the POSTERN_ variables count, and no others that
// the process has: it is what a unit of systemd starts with.
func (sys *system) configure(fs *flag.FlagSet, s *source) error {
	if err := sys.parse(fs); err != nil {
		return err
	}
	if s.env != "" {
		file, err := config.ReadEnvFile(s.env)
		if err != nil {
			return flagError{"env", err.Error()}
		}
		*sys.envFile = *file
		sys.environ = file.Entries
		for _, entry := range file.Entries {
			// Such as those of PostgreSQL, or SSL_CERT_FILE.
			if name, value, _ := strings.Cut(entry, "="); !strings.HasPrefix(name, config.Prefix) {
				os.Setenv(name, value)
			}
		}
	}
	if s.policy != "" {
		sys.environ = slices.DeleteFunc(slices.Clone(sys.environ), func(entry string) bool {
			return strings.HasPrefix(entry, config.Prefix+"POLICY_")
		})
		sys.environ = append(sys.environ, config.Prefix+"POLICY_FILE="+s.policy)
		sys.envFile.Entries = sys.environ
	}
	return nil
}

// warnOfEnv writes the warnings of the -env file to stderr.
func (sys *system) warnOfEnv() {
	for _, w := range sys.envFile.Warnings {
		sys.errorf("warning: %s", w)
	}
}

// noVariable says that a command has no configuration.
const noVariable = "no " + config.Prefix + " variable of serve is set here: name the file that a unit of systemd has them from (-env /etc/postern/postern.env), or export them (set -a, before a shell reads that file)"

// getenv returns the value of a variable; "" without.
func (sys *system) getenv(name string) (value string) {
	for _, entry := range sys.environ {
		if v, ok := strings.CutPrefix(entry, name+"="); ok {
			value = v
		}
	}
	return value
}

// has reports whether there is a variable that begins with one of some names.
func (sys *system) has(names ...string) bool {
	return slices.ContainsFunc(sys.environ, func(entry string) bool {
		rest, ours := strings.CutPrefix(entry, config.Prefix)
		return ours && !strings.HasPrefix(entry, config.Binary+"=") &&
			slices.ContainsFunc(names, func(name string) bool { return strings.HasPrefix(rest, name) })
	})
}
