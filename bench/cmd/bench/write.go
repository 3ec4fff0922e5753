package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"postern/bench/internal/plots"
	"postern/bench/internal/report"
	"postern/bench/internal/subject"
)

// write puts figures and report where the options say. What was interrupted
// goes nowhere into the documentation.
func write(o options, run *report.Run, complete bool) error {
	var errs []error
	if o.json != "" {
		errs = append(errs, run.WriteFile(o.json))
	}
	if o.whole() && complete {
		errs = append(errs, run.WriteFile(filepath.Join(o.docs, "performance.json")), writeDocs(o, run))
	}
	if o.old != "" {
		fmt.Print(run.Compare(subject.OldPostern(o.old).Name))
		return errors.Join(errs...)
	}
	if o.md != "" || !o.whole() || !complete {
		findings, _ := os.ReadFile(o.findings)
		md, err := run.Markdown(string(findings), nil, nil)
		errs = append(errs, err)
		if o.md != "" {
			errs = append(errs, os.WriteFile(o.md, []byte(md), 0o644))
		} else {
			fmt.Print(md)
		}
	}
	return errors.Join(errs...)
}

// render makes the documentation again from its figures.
func render(o options) error {
	if o.docs == "" {
		return errors.New("-render needs -docs")
	}
	run, err := report.ReadFile(filepath.Join(o.docs, "performance.json"))
	if err != nil {
		return err
	}
	return writeDocs(o, run)
}

// ledgerFile has the figures of the run with large ledgers.
const ledgerFile = "performance-ledger.json"

// writeDocs draws the plots and writes performance.md.
func writeDocs(o options, run *report.Run) error {
	findings, err := os.ReadFile(o.findings)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(o.docs, 0o755); err != nil {
		return err
	}
	pictures, err := plots.Write(run, o.docs)
	if err != nil {
		return err
	}
	large, err := report.ReadFile(filepath.Join(o.docs, ledgerFile))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	md, err := run.Markdown(string(findings), pictures, large)
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(o.docs, "performance.md"), []byte(md), 0o644)
}
