// Command table makes internal/programs/patterns.txt from the transcripts of real
// programs:
//
//	go run ./test/programs/table > internal/programs/patterns.txt
package main

import (
	"fmt"
	"io"
	"log"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"postern/internal/mailproto"
)

func main() {
	if err := write(os.Stdout, "test/programs/transcripts"); err != nil {
		log.Fatal(err)
	}
}

// seen is what a pattern was seen of.
type seen struct{ versions, servers, dates map[string]bool }

// write writes the table of the transcripts in a directory.
func write(w io.Writer, dir string) error {
	files, err := filepath.Glob(filepath.Join(dir, "*.txt"))
	if err != nil {
		return err
	}
	table := make(map[string]map[string]*seen) // by pattern and program
	for _, name := range files {
		b, err := os.ReadFile(name)
		if err != nil {
			return err
		}
		header, sessions, err := read(string(b))
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		for _, s := range everyTag(everyQuoting(sessions)) {
			if table[s.pattern] == nil {
				table[s.pattern] = make(map[string]*seen)
			}
			of := table[s.pattern][header["program"]]
			if of == nil {
				of = &seen{make(map[string]bool), make(map[string]bool), make(map[string]bool)}
				table[s.pattern][header["program"]] = of
			}
			of.versions[header["version"]], of.servers[s.server], of.dates[header["date"]] = true, true, true
		}
	}
	fmt.Fprint(w, "# How mail programs speak before their login: pattern, names, versions, date, the kinds of servers.\n",
		"# Made of test/programs/transcripts by go run ./test/programs/table; not to be edited.\n")
	for _, pattern := range slices.Sorted(maps.Keys(table)) {
		var names, versions []string
		dates, servers := make(map[string]bool), make(map[string]bool)
		for _, name := range slices.Sorted(maps.Keys(table[pattern])) {
			of := table[pattern][name]
			names = append(names, name)
			versions = append(versions, name+" "+strings.Join(slices.Sorted(maps.Keys(of.versions)), " "))
			maps.Copy(dates, of.dates)
			maps.Copy(servers, of.servers)
		}
		last := slices.Max(slices.Collect(maps.Keys(dates)))
		fmt.Fprintln(w, strings.Join([]string{pattern, strings.Join(names, ", "), strings.Join(versions, ", "), last, strings.Join(slices.Sorted(maps.Keys(servers)), " ")}, "\t"))
	}
	return nil
}

// session is a recorded one.
type session struct{ pattern, server string }

// read reads a transcript.
func read(text string) (header map[string]string, sessions []session, err error) {
	parts := strings.Split(strings.TrimSpace(text), "\n\n")
	header = fields(parts[0])
	for _, key := range []string{"program", "version", "date"} {
		if header[key] == "" {
			return nil, nil, fmt.Errorf("%s is missing", key)
		}
	}
	for _, part := range parts[1:] {
		words := strings.Fields(fields(part)["session"])
		if len(words) != 3 {
			return nil, nil, fmt.Errorf("a session without listener, server and run: %.60q", part)
		}
		if p := pattern(words[0], strings.Split(part, "\n")); logsIn(p) {
			sessions = append(sessions, session{p, words[1]})
		}
	}
	return header, sessions, nil
}

func fields(part string) map[string]string {
	m := make(map[string]string)
	for line := range strings.Lines(part) {
		if key, value, found := strings.Cut(strings.TrimSpace(line), ": "); found && m[key] == "" {
			m[key] = value
		}
	}
	return m
}

// pattern is that of what a client has said.
func pattern(listener string, lines []string) string {
	tls := slices.Index(lines, "TLS")
	if tls < 0 {
		tls = len(lines)
	}
	said := func(lines []string) (all []string) {
		for _, line := range lines {
			if said, is := strings.CutPrefix(line, "C: "); is {
				all = append(all, octets(said))
			}
		}
		return all
	}
	s := mailproto.NewSpeech(listener, []byte(strings.Join(said(lines[:tls]), "")))
	if tls < len(lines) && !strings.HasSuffix(listener, "s") {
		s.StartTLS()
	}
	literal := false
	for _, line := range said(lines[tls:]) {
		if !literal {
			s.Line([]byte(line))
		}
		_, literal = mailproto.LiteralAtEnd([]byte(line))
	}
	return s.Pattern()
}

// logsIn reports whether a pattern ends with a login. What has none names nobody: any
// probe, health check or scanner may speak so.
func logsIn(pattern string) bool {
	last := strings.TrimLeft(pattern[strings.LastIndexByte(pattern, ' ')+1:], "^?")
	name, how, _ := strings.Cut(strings.ToUpper(last), ":")
	return slices.Contains([]string{"LOGIN", "AUTHENTICATE", "USER", "PASS", "APOP"}, name) || name == "AUTH" && how != ""
}

// octets are what a line of a transcript stands for.
func octets(line string) string {
	end := "\r\n"
	if bare, is := strings.CutSuffix(line, `\n`); is {
		line, end = bare, "\n"
	}
	if s, err := strconv.Unquote(`"` + strings.ReplaceAll(line, `"`, `\"`) + `"`); err == nil {
		line = s
	}
	return line + end
}

// everyQuoting adds the forms of LOGIN that follow from those seen: where an argument was
// an atom once and quoted once, it is quoted where that is needed.
func everyQuoting(sessions []session) []session {
	forms := make(map[string][2]map[string]bool)
	for _, s := range sessions {
		if begin, form, is := strings.Cut(s.pattern, "LOGIN:"); is {
			if forms[begin][0] == nil {
				forms[begin] = [2]map[string]bool{make(map[string]bool), make(map[string]bool)}
			}
			for i, f := range strings.Split(form, ":") {
				forms[begin][i][f] = true
			}
		}
	}
	all := slices.Clone(sessions)
	for _, s := range sessions {
		if begin, form, is := strings.Cut(s.pattern, "LOGIN:"); is && strings.Contains(form, ":") {
			for first := range forms[begin][0] {
				for second := range forms[begin][1] {
					if !strings.HasPrefix(first, "literal") {
						all = append(all, session{begin + "LOGIN:" + first + ":" + second, s.server})
					}
				}
			}
		}
	}
	return all
}

// everyTag adds the shapes of a first tag that is drawn at random from the numbers up to
// a hundred: who has sent one of two digits may as well send one of one digit, or 10. (1 is
// too rare among them to be worth that all who begin there speak like it.)
func everyTag(sessions []session) []session {
	shapes := []string{"9", "10", "99"}
	split := func(s session) (listener, shape, rest string) {
		listener, rest, _ = strings.Cut(s.pattern, " ")
		shape, rest, _ = strings.Cut(rest, " ")
		return listener, shape, rest
	}
	random := slices.ContainsFunc(sessions, func(s session) bool {
		_, shape, _ := split(s)
		return shape == "99"
	})
	if !random {
		return sessions
	}
	all := slices.Clone(sessions)
	for _, s := range sessions {
		if listener, shape, rest := split(s); slices.Contains(shapes, shape) {
			for _, other := range shapes {
				all = append(all, session{listener + " " + other + " " + rest, s.server})
			}
		}
	}
	return all
}
