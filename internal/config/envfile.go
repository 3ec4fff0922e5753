package config

import (
	"bytes"
	"fmt"
	"os"
	"reflect"
	"regexp"
	"strings"
	"unicode"
	"unicode/utf8"

	"postern/internal/text"
)

// EnvFile is a file of variables, read as systemd reads an EnvironmentFile
// (systemd.exec(5), as of version 254), or an environment without one.
type EnvFile struct {
	// Entries have the form KEY=VALUE, like those of os.Environ.
	Entries []string
	// Warnings are about lines that systemd passes over, as the file's reader
	// does. Each begins with the file and the line.
	Warnings []string

	path  string
	lines map[string]int // by variable

	rest string // of the file while it is read, from a line on
	line int
}

const mostEnvFile = 1 << 20

// ReadEnvFile reads a file. The error is one line that begins with the file.
func ReadEnvFile(path string) (*EnvFile, error) {
	data, err := os.ReadFile(path)
	switch {
	case err != nil:
		return nil, text.FileError(path, err)
	case len(data) > mostEnvFile || bytes.IndexByte(data, 0) >= 0:
		return nil, fmt.Errorf("%s: not a file of NAME=VALUE lines: name the one that a unit's EnvironmentFile= does", path)
	case unitSection.Match(data):
		return nil, fmt.Errorf("%s: a unit of systemd: name the file of its EnvironmentFile= line", path)
	case !utf8.Valid(data):
		n := bytes.IndexFunc(data, func(r rune) bool { return r == utf8.RuneError })
		return nil, fmt.Errorf("%s:%d: not UTF-8, so that systemd does not read the file: save it as UTF-8", path, 1+bytes.Count(data[:n], []byte("\n")))
	}
	f := &EnvFile{path: path, lines: make(map[string]int), rest: string(data), line: 1}
	for f.rest != "" {
		f.entry()
	}
	for _, entry := range f.Entries {
		if name, value, _ := strings.Cut(entry, "="); strings.HasPrefix(name, Prefix) && strings.Contains(value, "\n") {
			return nil, fmt.Errorf("%s:%d: %s: its quotation mark is not closed on this line, so that it takes the next ones too: close it", path, f.lines[name], name)
		}
	}
	return f, nil
}

var unitSection = regexp.MustCompile(`(?m)^\[(Unit|Service|Install)\]`)

var envName = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*$`)

// add takes an entry that begins at a line.
func (f *EnvFile) add(line int, key, value string) {
	_, exported := strings.CutPrefix(key, "export ")
	switch {
	case exported:
		f.odd(line, `passed over, as systemd does: take the word export away, it is for shells`)
	case !envName.MatchString(key):
		f.odd(line, fmt.Sprintf("passed over, as systemd does: %s is not the name of a variable: write NAME=value", show(key)))
	case strings.ContainsFunc(value, func(r rune) bool { return r != '\t' && r != '\n' && unicode.IsControl(r) && r < 0x80 }):
		f.odd(line, key+": passed over, as systemd does: a control character is in the value: take it away")
	default:
		if upper := strings.ToUpper(key); key != upper && strings.HasPrefix(upper, Prefix) {
			f.odd(line, key+": not read: write it in capitals")
		} else if key != upper && strings.HasPrefix(value, Prefix) {
			f.odd(line, key+": not read: the line begins with "+Prefix+"...=, without a word of a unit or a shell before it")
		}
		if f.lines[key] != 0 {
			f.odd(line, fmt.Sprintf("%s: set again, so that line %d does not count: take one of them away", key, f.lines[key]))
		}
		f.Entries = append(f.Entries, key+"="+value)
		f.lines[key] = line
	}
}

func (f *EnvFile) odd(line int, problem string) {
	f.Warnings = append(f.Warnings, fmt.Sprintf("%s:%d: %s", f.path, line, problem))
}

// besides finds a variable that another one contradicts.
var besides = regexp.MustCompile(`(beside|taken by) ` + Prefix + `[A-Z0-9_]+`)

var messageName = regexp.MustCompile(`^(` + Prefix + `[A-Za-z0-9_]+|` + goMemoryLimit + `): `)

// Place puts the variable that names a file before a message that begins with that file,
// and the -env file, with the line where there is one, before one about a variable.
func (f *EnvFile) Place(message string) string {
	if v := f.naming(message); v != "" {
		message = v + ": " + message
	}
	m := messageName.FindStringSubmatch(message)
	if m == nil || f.path == "" {
		return message
	}
	message = besides.ReplaceAllStringFunc(message, func(s string) string {
		if line := f.lines[s[strings.Index(s, Prefix):]]; line > 0 {
			s += fmt.Sprintf(" in line %d", line)
		}
		return s
	})
	if f.lines[m[1]] == 0 {
		return f.path + ": " + message
	}
	return fmt.Sprintf("%s:%d: %s", f.path, f.lines[m[1]], message)
}

// behindFile is what follows the file in a message about it, or its directory.
var behindFile = regexp.MustCompile(`^(/[^:]*)?: `)

// naming returns the variable that names the file, or its directory, with which a
// message begins; "" for a policy, of which file and line say enough.
func (f *EnvFile) naming(message string) (variable string) {
	longest := 0
	for _, v := range variables(reflect.TypeFor[Config]()) {
		for _, entry := range f.Entries {
			files, ok := strings.CutPrefix(entry, v.name+"=")
			if !ok || !strings.HasSuffix(v.name, "_FILE") {
				continue
			}
			name := strings.TrimSuffix(v.name, Prefix+"POLICY_FILE")
			for file := range strings.SplitSeq(files, ",") {
				file = strings.TrimSuffix(strings.TrimSpace(file), "/")
				if rest, ok := strings.CutPrefix(message, file); ok && len(file) > longest && behindFile.MatchString(rest) {
					variable, longest = name, len(file)
				}
			}
		}
	}
	return variable
}

// The parts of a file, as systemd's parser takes them: quotes only at the start of a
// value or after another quoted part, a backslash before a line end joins lines,
// before anything else it is taken away (but see inQuotes). Nothing is expanded. Of a value
// without quotes blanks at the end are no part.
var (
	envBlanks  = regexp.MustCompile(`^[ \t\n\r]+`)
	envComment = regexp.MustCompile(`^[#;][^\n\r]*`)
	envKey     = regexp.MustCompile(`^([^=\n\r]*)([=\n\r]?)`)
	envSingle  = regexp.MustCompile(`^[ \t]*'([^']*)'?`)
	envDouble  = regexp.MustCompile(`(?s)^[ \t]*"((?:[^"\\]|\\.)*)(?:"|\\?$)`)
	envPlain   = regexp.MustCompile(`(?s)^[ \t]*((?:[ \t]*(?:[^ \t\n\r\\]|\\.|\\$))*)[ \t]*(?:[\n\r]|$)`)
	envEscape  = regexp.MustCompile(`(?s)\\(.?)`)
)

// take takes what an expression finds at the beginning, if anything.
func (f *EnvFile) take(expr *regexp.Regexp) (found []string) {
	if found = expr.FindStringSubmatch(f.rest); found != nil {
		f.rest = f.rest[len(found[0]):]
		f.line += strings.Count(found[0], "\n")
	}
	return found
}

// entry reads one entry, a comment, or a blank.
func (f *EnvFile) entry() {
	line := f.line
	if f.take(envBlanks) != nil {
		return
	}
	if comment := f.take(envComment); comment != nil {
		if strings.HasSuffix(comment[0], `\`) {
			f.odd(line, "the comment ends in a backslash: take it away, as systemd before version 254 takes the next line for a part of it")
		}
		return
	}
	key := f.take(envKey)
	if key[2] != "=" {
		f.odd(line, "passed over, as systemd does: there is no = in this line: write NAME=value")
		return
	}
	f.add(line, strings.TrimRight(key[1], " \t"), f.value())
}

// value reads what stands behind the "=": parts in quotes, and a plain one to the end of
// the line, in which quotes mean themselves.
func (f *EnvFile) value() (value string) {
	for {
		if single := f.take(envSingle); single != nil {
			value += single[1]
		} else if double := f.take(envDouble); double != nil {
			value += envEscape.ReplaceAllStringFunc(double[1], inQuotes)
		} else {
			return value + envEscape.ReplaceAllStringFunc(f.take(envPlain)[1], func(s string) string { return strings.Trim(s[1:], "\n\r") })
		}
	}
}

// inQuotes is what a backslash and a character mean in double quotes. The backslash stays
// where there is nothing to escape.
func inQuotes(s string) string {
	if strings.Trim(s[1:], "\"\\`$\n") == "" {
		return strings.Trim(s[1:], "\n")
	}
	return s
}
