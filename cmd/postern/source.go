package main

import (
	"flag"
	"os"
	"slices"
	"strings"

	"postern/internal/config"
)

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
