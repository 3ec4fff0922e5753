// Package programs names mail programs by how they speak before their login
// ([mailproto.Speech]), and TLS libraries by their fingerprints. What it knows was
// recorded from real programs, and stands in text files: a line each, with tabs between
// the columns, and # before a comment. An operator may have a file of patterns too.
package programs

import (
	"bytes"
	"cmp"
	_ "embed"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"

	"postern/internal/text"
	"postern/policy"
)

// The columns of a pattern and of a library are the pattern or the JA4, the names, and
// what is for people: versions (of patterns alone), the date, and how it was recorded.
// Those of advice are program or library, its name, the advice, its source and the date.
var (
	//go:embed patterns.txt
	patterns []byte
	//go:embed libraries.txt
	libraries []byte
	//go:embed advice.txt
	advice []byte
)

// Table is what is known of programs by pattern, each sorted, and of libraries by
// [Stable] JA4.
type Table struct {
	// Own are the operator's patterns, as they were read, and Named is how many have names.
	Own   []byte
	Named int

	patterns  map[string][]string
	libraries map[policy.JA4]string
	advice    map[[2]string]string // by kind and name
}

// Builtin is the table without an operator's patterns. Its lines are ours, without errors.
var Builtin, _ = New("", nil)

// Load reads an operator's file of patterns, to stand beside the built-in ones. No name
// is no file.
func Load(file string) (*Table, error) {
	if file == "" {
		return Builtin, nil
	}
	b, err := os.ReadFile(file)
	if err != nil {
		return nil, text.FileError(file, err)
	}
	return New(file, b)
}

// New returns a table with the patterns of an operator. Its error has a line for each
// problem, which begins with the file and the number of the line.
func New(file string, own []byte) (*Table, error) {
	t := &Table{Own: own, patterns: make(map[string][]string), libraries: make(map[policy.JA4]string), advice: make(map[[2]string]string)}
	return t, errors.Join(
		rows("patterns.txt", patterns, 2, t.addPattern),
		rows("libraries.txt", libraries, 2, func(_ int, c []string) error {
			ja4, err := policy.ParseJA4(c[0])
			t.libraries[Stable(ja4)] = c[1]
			return err
		}),
		rows("advice.txt", advice, 5, func(_ int, c []string) error {
			t.advice[[2]string{c[0], c[1]}] = fmt.Sprintf("%s: %s (%s, %s)", c[1], strings.TrimSuffix(c[2], "."), c[3], c[4])
			return nil
		}),
		rows(file, own, 2, t.addOwn()))
}

// addOwn returns what adds an operator's patterns. The names of each stand in one line.
func (t *Table) addOwn() func(int, []string) error {
	names, lines := make(map[string]string), make(map[string]int)
	return func(n int, c []string) error {
		if first := lines[c[0]]; first > 0 {
			if names[c[0]] == c[1] {
				return nil
			}
			return fmt.Errorf("line %d has other names for this pattern: write all of them in one line, with a comma between two", first)
		}
		names[c[0]], lines[c[0]] = c[1], n
		t.Named++
		return t.addPattern(n, c)
	}
}

// addPattern adds the names in a line to those that its pattern has. What precedes TLS is
// all that is known of one that is refused; in POP3, any probe says the same there.
func (t *Table) addPattern(_ int, c []string) error {
	if !IsPattern(c[0]) {
		return fmt.Errorf("%.40q is no pattern: write one as postern report -patterns does", c[0])
	}
	before := text.Either(strings.HasPrefix(c[0], "imap "), strings.Split(c[0], " TLS ")[0], c[0])
	for _, p := range []string{before, c[0]} {
		t.patterns[p] = slices.Compact(slices.Sorted(slices.Values(append(t.patterns[p], strings.Split(c[1], ", ")...))))
	}
	return nil
}

// Unnamed stands in the place of a name that the operator may write. A line with it is
// passed over.
const Unnamed = "?"

// noPatterns is said once of a file whose lines are something else, as in a file that was
// not meant. None of it is told: it may be secret.
const noPatterns = "POSTERN_PROGRAMS_FILE: it is not a file of patterns: each line is a pattern, a tab and names, as postern report -patterns prints them"

// rows calls each for the number and the columns of every line.
func rows(file string, lines []byte, least int, each func(int, []string) error) error {
	var problems []error
	n, first, patterns, filled := 0, 0, 0, 0
	for line := range bytes.Lines(bytes.TrimPrefix(lines, []byte("\ufeff"))) {
		n++
		columns := strings.Split(strings.TrimRight(string(line), "\r\n"), "\t")
		if strings.TrimSpace(columns[0]) == "" && len(columns) == 1 || strings.HasPrefix(columns[0], "#") {
			continue
		}
		filled++
		if IsPattern(columns[0]) {
			patterns++
		}
		if len(columns) > 1 && columns[1] == Unnamed {
			continue
		}
		for i, c := range columns {
			columns[i] = text.Clean(strings.TrimSpace(c), 1024)
		}
		var err error
		switch {
		case len(columns) >= least && columns[1] != "":
			err = each(n, columns)
		case len(columns) == 1 && strings.Contains(strings.TrimSpace(string(line)), "  "):
			err = errors.New("there are blanks in the place of the tab between the pattern and its names: write a tab")
		default:
			err = errors.New("the name is missing: write it behind the pattern and a tab")
		}
		if err != nil {
			first = cmp.Or(first, n)
			problems = append(problems, fmt.Errorf("%s:%d: %w", file, n, err))
		}
	}
	if len(problems) > 0 && 2*patterns < filled {
		return fmt.Errorf("%s:%d: %s", file, first, noPatterns)
	}
	return errors.Join(problems...)
}

// IsPattern reports whether a text is a pattern, and no name.
func IsPattern(s string) bool {
	listener, rest, _ := strings.Cut(s, " ")
	return rest != "" && slices.Contains(policy.ListenerNames, listener)
}

// SpeaksLike returns the names of the programs that speak so, or the pattern where there
// are none.
func (t *Table) SpeaksLike(pattern string) string {
	return cmp.Or(strings.Join(t.patterns[pattern], ", "), pattern)
}

// maxNamed bounds the patterns of a name, which an operator may give to any number.
const maxNamed = 1000

// PatternsOf returns the patterns whose names contain a text, in any case.
func (t *Table) PatternsOf(part string) (list []string) {
	for _, p := range slices.Sorted(maps.Keys(t.patterns)) {
		if len(list) < maxNamed && strings.Contains(strings.ToLower(t.SpeaksLike(p)), strings.ToLower(part)) {
			list = append(list, p)
		}
	}
	return list
}

// Alike reports whether two patterns may be of one program: one goes on where the other
// ends, or a program has both.
func (t *Table) Alike(a, b string) bool {
	return b != "" && strings.HasPrefix(a+" ", b+" ") || slices.ContainsFunc(t.patterns[a], func(name string) bool {
		return slices.Contains(t.patterns[b], name)
	})
}

// Library returns the names of the TLS libraries with a fingerprint, or nothing.
func (t *Table) Library(ja4 policy.JA4) string { return t.libraries[Stable(ja4)] }

// Stable returns a fingerprint as if neither a server name nor ALPN had been sent: a
// program may send them to one port and not to another.
func Stable(ja4 policy.JA4) policy.JA4 {
	const name, extensions, alpn = 3, 6, 8 // where they stand
	n := 10*int(ja4[extensions]-'0') + int(ja4[extensions+1]-'0')
	if ja4[name] == 'd' {
		n--
	}
	if ja4[alpn] != '0' || ja4[alpn+1] != '0' {
		n--
	}
	if n >= 0 && n < 99 && ja4 != (policy.JA4{}) {
		ja4[name], ja4[extensions], ja4[extensions+1], ja4[alpn], ja4[alpn+1] = 'i', '0'+byte(n/10), '0'+byte(n%10), '0', '0'
	}
	return ja4
}

// Advise returns what to do about a client, with the source and its date: about a program
// by what it says of itself or, where it is a single one, by how it speaks; else about
// its library. It is empty where nobody has said so.
func (t *Table) Advise(software, speaksLike, library string) string {
	return cmp.Or(t.about("program", cmp.Or(software, speaksLike)), t.about("library", library))
}

// about finds the advice whose name is the longest beginning of a name, in whole words.
func (t *Table) about(kind, name string) string {
	for ; name != ""; name = name[:max(0, strings.LastIndexAny(name, " ."))] {
		if a := t.advice[[2]string{kind, name}]; a != "" {
			return a
		}
	}
	return ""
}
