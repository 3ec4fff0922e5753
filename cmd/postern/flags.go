package main

import (
	"errors"
	"flag"
	"fmt"
	"strconv"
	"strings"
	"time"

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
