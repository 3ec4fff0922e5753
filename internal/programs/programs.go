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

// Table is what is known of programs and libraries, by pattern and by [Stable] JA4.
type Table struct {
	// Own are the operator's patterns, as they were read.
	Own []byte

	patterns  map[string]string
	libraries map[policy.JA4]string
	advice    [][]string
}

// Builtin is the table without an operator's patterns.
var Builtin = func() *Table {
	t, err := New("", nil)
	if err != nil {
		panic(err) // it is ours
	}
	return t
}()

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
	t := &Table{Own: own, patterns: make(map[string]string), libraries: make(map[policy.JA4]string)}
	add := func(c []string) error {
		if !IsPattern(c[0]) {
			return fmt.Errorf("%.40q is no pattern: write one as postern report -patterns does", c[0])
		}
		join(t.patterns, c[0], c[1])
		if before, _, found := strings.Cut(c[0], " TLS "); found { // all that is known of one that is refused
			join(t.patterns, before, c[1])
		}
		return nil
	}
	return t, errors.Join(
		rows("patterns.txt", patterns, 2, add),
		rows("libraries.txt", libraries, 2, func(c []string) error {
			ja4, err := policy.ParseJA4(c[0])
			if have := t.libraries[Stable(ja4)]; have != "" && have != c[1] {
				c[1] = have + "; " + c[1]
			}
			t.libraries[Stable(ja4)] = c[1]
			return err
		}),
		rows("advice.txt", advice, 5, func(c []string) error { t.advice = append(t.advice, c); return nil }),
		rows(file, own, 2, add))
}

// Unnamed stands in the place of a name that the operator is to write.
const Unnamed = "?"

// rows calls each for the columns of every line.
func rows(file string, lines []byte, least int, each func([]string) error) error {
	var problems []error
	n := 0
	for line := range bytes.Lines(bytes.TrimPrefix(lines, []byte("\ufeff"))) {
		n++
		columns := strings.Split(strings.TrimRight(string(line), "\r\n"), "\t")
		if strings.TrimSpace(columns[0]) == "" && len(columns) == 1 || strings.HasPrefix(columns[0], "#") {
			continue
		}
		for i, c := range columns {
			columns[i] = text.Clean(strings.TrimSpace(c), 1024)
		}
		err := errors.New("the name is missing: write it behind the pattern and a tab")
		if len(columns) >= least && columns[1] != "" && columns[1] != Unnamed {
			err = each(columns)
		}
		if err != nil {
			problems = append(problems, fmt.Errorf("%s:%d: %w", file, n, err))
		}
	}
	return errors.Join(problems...)
}

// join adds names, which commas part, to those that a key has.
func join(m map[string]string, key, names string) {
	list := strings.Split(names, ", ")
	if m[key] != "" {
		list = append(list, strings.Split(m[key], ", ")...)
	}
	slices.Sort(list)
	m[key] = strings.Join(slices.Compact(list), ", ")
}

// IsPattern reports whether a text is a pattern, and no name.
func IsPattern(s string) bool {
	listener, rest, _ := strings.Cut(s, " ")
	return rest != "" && slices.Contains([]string{"imaps", "imap", "pop3s", "pop3"}, listener)
}

// SpeaksLike returns the names of the programs that speak so, or the pattern where there
// are none.
func (t *Table) SpeaksLike(pattern string) string { return cmp.Or(t.patterns[pattern], pattern) }

// Alike reports whether two patterns may be of one program: one goes on where the other
// ends, or a program has both.
func (t *Table) Alike(a, b string) bool {
	if a == "" || b == "" {
		return false
	}
	of := strings.Split(t.patterns[b], ", ")
	return strings.HasPrefix(a+" ", b+" ") || t.patterns[a] != "" && slices.ContainsFunc(strings.Split(t.patterns[a], ", "), func(name string) bool {
		return slices.Contains(of, name)
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

// about finds the advice whose name is the longest beginning of a name.
func (t *Table) about(kind, name string) (found string) {
	longest := 0
	for _, a := range t.advice {
		rest, is := strings.CutPrefix(name, a[1])
		if a[0] == kind && is && len(a[1]) > longest && (rest == "" || rest[0] == ' ' || rest[0] == '.') {
			longest, found = len(a[1]), fmt.Sprintf("%s: %s (%s, %s)", a[1], strings.TrimSuffix(a[2], "."), a[3], a[4])
		}
	}
	return found
}
