package main

import (
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"
	"text/template"

	"postern/internal/gate"
	"postern/internal/text"
)

// release is the version; a build may set it with
// -ldflags "-X main.release=v1.2.3".
var release = ""

// buildInfo returns the version and the commit, as far as the build knows them.
func buildInfo() gate.Build {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		info = new(debug.BuildInfo)
	}
	settings := make(map[string]string)
	for _, s := range info.Settings {
		settings[s.Key] = s.Value
	}
	return gate.Build{
		Version:  cmp.Or(release, strings.Trim(info.Main.Version, "()"), "devel"),
		Revision: cmp.Or(settings["vcs.revision"], "unknown") + text.Either(settings["vcs.modified"] == "true", "+dirty", ""),
	}
}

func version(_ context.Context, sys system) error {
	fs := flag.NewFlagSet("version", flag.ContinueOnError)
	asJSON := fs.Bool("json", false, "write JSON")
	if err := sys.parse(fs); err != nil {
		return err
	}
	b := buildInfo()
	if *asJSON {
		return text.WriteJSON(sys.stdout, map[string]string{"version": b.Version, "revision": b.Revision, "goversion": runtime.Version(), "platform": runtime.GOOS + "/" + runtime.GOARCH})
	}
	fmt.Fprintf(sys.stdout, "postern %s (commit %s, %s %s/%s)\n", b.Version, b.Revision, runtime.Version(), runtime.GOOS, runtime.GOARCH)
	return nil
}

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
