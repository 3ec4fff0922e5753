package main

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"strings"
)

// described is a command with what its -h says. The manual page and the completions
// are made of it.
type described struct {
	command
	help  string
	flags *flag.FlagSet
}

func describe() (all []described) {
	for _, c := range commands() {
		d := described{command: c}
		c.run(context.Background(), system{describe: func(fs *flag.FlagSet, help string) { d.flags, d.help = fs, help }})
		all = append(all, d)
	}
	return all
}

// writeManual writes postern.1.
func writeManual(w io.Writer) {
	fmt.Fprintf(w, ".TH POSTERN 1 \"\" \"postern %s\"\n.SH NAME\npostern \\- TLS policy proxy for IMAP and POP3\n.SH SYNOPSIS\n.B postern\n.I COMMAND\n[flags]\n", buildInfo().Version)
	section := func(title string, text []byte) {
		fmt.Fprintf(w, ".SH %s\n.nf\n", title)
		for line := range strings.Lines(strings.ReplaceAll(string(bytes.TrimSpace(text)), `\`, `\e`)) {
			fmt.Fprint(w, `\&`, strings.ReplaceAll(strings.ReplaceAll(line, "\t", "    "), "-", `\-`))
		}
		fmt.Fprint(w, "\n.fi\n")
	}
	var b bytes.Buffer
	usage(&b)
	section("DESCRIPTION", b.Bytes())
	for _, d := range describe() {
		b.Reset()
		b.WriteString(d.help)
		d.flags.SetOutput(&b)
		d.flags.PrintDefaults()
		section("\"postern "+d.name+"\"", b.Bytes())
	}
}

// completion prints a script that completes commands and flags.
func completion(_ context.Context, sys system) error {
	write := map[string]func(io.Writer){"bash": completeBash, "zsh": completeBash, "fish": completeFish}
	if len(sys.args) == 1 && write[sys.args[0]] != nil {
		if sys.args[0] == "zsh" {
			fmt.Fprintln(sys.stdout, "autoload -U +X bashcompinit && bashcompinit")
		}
		write[sys.args[0]](sys.stdout)
		return nil
	}
	if err := sys.parse(flag.NewFlagSet("completion", flag.ContinueOnError)); errors.Is(err, flag.ErrHelp) {
		return err
	}
	return flagError{reason: "name a shell: bash, zsh or fish"}
}

func completeBash(w io.Writer) {
	fmt.Fprint(w, "_postern() {\n  local words\n  case $COMP_CWORD:${COMP_WORDS[1]} in\n")
	fmt.Fprintf(w, "  1:*|2:help) words='%s help' ;;\n  2:completion) words='bash zsh fish' ;;\n", strings.Join(commandNames(), " "))
	for _, d := range describe() {
		fmt.Fprintf(w, "  *:%s) words='", d.name)
		d.flags.VisitAll(func(f *flag.Flag) { fmt.Fprintf(w, "-%s ", f.Name) })
		fmt.Fprint(w, "-h' ;;\n")
	}
	fmt.Fprint(w, "  esac\n  COMPREPLY=($(compgen -W \"$words\" -- \"${COMP_WORDS[COMP_CWORD]}\"))\n}\ncomplete -o default -F _postern postern\n")
}

func completeFish(w io.Writer) {
	quote := strings.NewReplacer(`\`, `\\`, `'`, `\'`, "\n", " ")
	for _, d := range describe() {
		fmt.Fprintf(w, "complete -c postern -n __fish_use_subcommand -a %s -d '%s'\n", d.name, quote.Replace(d.summary))
		d.flags.VisitAll(func(f *flag.Flag) {
			_, what := flag.UnquoteUsage(f)
			fmt.Fprintf(w, "complete -c postern -n '__fish_seen_subcommand_from %s' -o %s -d '%s'\n", d.name, f.Name, quote.Replace(what))
		})
	}
	fmt.Fprintln(w, "complete -c postern -n '__fish_seen_subcommand_from completion' -a 'bash zsh fish'")
}
