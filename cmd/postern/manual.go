package main

import (
	"context"
	"errors"
	"flag"
	"io"
	"slices"
	"strings"
	"text/template"
)

// described is a command with what its -h says.
type described struct {
	Name, Summary, Help string
	Flags               []*flag.Flag
}

func describe() (all []described) {
	for _, c := range commands() {
		d := described{Name: c.name, Summary: c.summary}
		c.run(context.Background(), system{describe: func(fs *flag.FlagSet, help string) {
			b := new(strings.Builder)
			fs.SetOutput(b)
			fs.PrintDefaults()
			d.Help = help + b.String()
			fs.VisitAll(func(f *flag.Flag) { d.Flags = append(d.Flags, f) })
		}})
		all = append(all, d)
	}
	return all
}

// writeAbout writes what is made of the commands by a template: the list of them, usage,
// the manual page, man, or a script that completes commands and flags, by shell.
func writeAbout(w io.Writer, name string) {
	t := template.Must(template.New("").Funcs(template.FuncMap{
		"version": func() string { return buildInfo().Version },
		"usage": func() string {
			b := new(strings.Builder)
			writeAbout(b, "usage")
			return b.String()
		},
		"what": func(f *flag.Flag) string { _, what := flag.UnquoteUsage(f); return what },
		"roff": func(s string) string {
			return `\&` + strings.NewReplacer("\n", "\n\\&", `\`, `\e`, "\t", "    ", "-", `\-`).Replace(strings.TrimSpace(s))
		},
		"fish": strings.NewReplacer(`\`, `\\`, `'`, `\'`, "\n", " ").Replace,
	}).ParseFS(helpFiles, "help/*.tmpl"))
	_ = t.ExecuteTemplate(w, name+".tmpl", describe()) // nobody reads any more
}

// completion prints a script for a shell.
func completion(_ context.Context, sys system) error {
	if len(sys.args) == 1 && slices.Contains([]string{"bash", "zsh", "fish"}, sys.args[0]) {
		writeAbout(sys.stdout, sys.args[0])
		return nil
	}
	if err := sys.parse(flag.NewFlagSet("completion", flag.ContinueOnError)); errors.Is(err, flag.ErrHelp) {
		return err
	}
	return flagError{reason: "name a shell: bash, zsh or fish"}
}
