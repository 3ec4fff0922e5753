package policy

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"go.yaml.in/yaml/v3"

	"postern/internal/text"
)

// The decoder of the yaml package stops at its first error, and locates a value
// only by line. So a file is decoded to nodes, and walking those reports every
// problem with line and column.

// With aliases a short file can expand to very much, with a problem in all of it.
const (
	maxValues   = maxFile / 4
	maxProblems = 1000
)

func (f *file) add(n *yaml.Node, format string, args ...any) {
	if f.full {
		return
	}
	if f.full = len(f.problems) == maxProblems-1; f.full {
		format, args = "more than %d problems; the rest is not listed: mend these first", []any{maxProblems - 1}
	}
	p := f.at
	p.Line, p.Column, p.Text = max(n.Line, 1), max(n.Column, 1), fmt.Sprintf(format, args...)
	f.problems = append(f.problems, p)
}

// doubt notes what is allowed, but may not be meant as it is taken; "" is nothing.
func (f *file) doubt(n *yaml.Node, words string) {
	if words != "" && len(f.policy.doubts) < maxProblems {
		p := f.at
		p.Line, p.Text = n.Line, words
		f.policy.doubts = append(f.policy.doubts, p)
	}
}

// reads reports whether one more node may be read.
func (f *file) reads(n *yaml.Node) bool {
	if f.values++; f.values > maxValues {
		f.add(n, "more than %d values, those that an alias stands for included", maxValues)
		f.full = true
	}
	return !f.full
}

// maxFile bounds a policy file, in bytes: it is read again while clients wait.
const maxFile = 1 << 20

// document decodes the one document of a file; nil with a problem.
func (f *file) document(data []byte) *yaml.Node {
	start := &yaml.Node{Line: 1, Column: 1}
	if len(data) > maxFile {
		f.add(start, "the file is longer than %d bytes, the most", maxFile)
		return nil
	}
	decoder := yaml.NewDecoder(bytes.NewReader(data))
	var document yaml.Node
	err := decode(decoder, &document)
	switch {
	case errors.Is(err, io.EOF) || err == nil && empty(document.Content[0]):
		f.add(start, "the file is empty: write floor: tls1.2 and mode: enforce into it")
		return nil
	case err != nil:
		f.notYAML(err, data)
		return nil
	}
	var second yaml.Node
	if err := decode(decoder, &second); err == nil {
		f.add(&second, "a second document: take the --- away that begins it")
	} else if !errors.Is(err, io.EOF) {
		f.notYAML(err, data)
	}
	return resolve(document.Content[0])
}

// decode turns panics of the yaml package into errors.
func decode(d *yaml.Decoder, n *yaml.Node) (err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("cannot be read: %v", r)
		}
	}()
	if err := d.Decode(n); err != nil {
		return err
	}
	if len(n.Content) == 0 {
		return io.EOF
	}
	return nil
}

var yamlLine = form(`line (\d+): `)

// yamlPlace is where the yaml package found a fault. Often that is where what
// holds it begins; of bytes that are no text it says nothing.
func yamlPlace(err error, data []byte) *yaml.Node {
	if m := yamlLine().FindStringSubmatch(err.Error()); m != nil {
		line, _ := strconv.Atoi(m[1])
		return &yaml.Node{Line: line, Column: 1}
	}
	return placeOf(data, max(0, bytes.IndexFunc(data, func(r rune) bool {
		return r == utf8.RuneError || unicode.IsControl(r) && !strings.ContainsRune("\t\r\n\u0085", r)
	})))
}

// placeOf is the place of a byte.
func placeOf(data []byte, at int) *yaml.Node {
	line := bytes.LastIndexByte(data[:at], '\n') + 1
	return &yaml.Node{Line: 1 + bytes.Count(data[:at], []byte("\n")), Column: 1 + utf8.RuneCount(data[line:at])}
}

// yamlText is the error on one line, without its place.
func yamlText(err error) string {
	text := strings.TrimPrefix(err.Error(), "yaml: ")
	text = yamlLine().ReplaceAllString(text, "")
	return strings.Join(strings.Fields(text), " ")
}

// yamlMends say what mends an error of the yaml package. Where at is found in the
// file, that is the place: the package often names the line before it.
var yamlMends = []struct{ text, at, mend string }{
	{"tab character|cannot start any token", `(?m)^ *\t`, "a tab; indent with blanks alone"},
	{"cannot start any token", "[:[,-] *[@`%]", "put a value that begins with @, % or ` into quotation marks"},
	{"alphabetic or numeric|unknown anchor", `[:[,-] *[*&]`, "put a value that begins with * or & into quotation marks"},
	{"expected node content", `[[,-] *:`, `put a value that begins with a colon, such as "::1", into quotation marks`},
	{"expected node content|end of stream|expected ',' or", "", "a bracket or a quotation mark is not closed, or a comma is missing"},
	{"mapping values", "", "put a value that holds a colon and a blank into quotation marks, or mend the indent"},
	{"expected key|'-' indicator", "", "mend the indent here or below; put a value that begins with a bracket or holds quotation marks into quotation marks"},
	{"document start", "", "take away what stands outside of the brackets, or the brackets"},
	{"UTF-8", "", "save the file as UTF-8"},
}

// notYAML adds what the yaml package says, where, and the mend.
func (f *file) notYAML(err error, data []byte) {
	place, text := yamlPlace(err, data), yamlText(err)
	for _, m := range yamlMends {
		if !regexp.MustCompile(m.text).MatchString(text) {
			continue
		}
		if m.at != "" {
			found := regexp.MustCompile(m.at).FindIndex(data)
			if found == nil {
				continue
			}
			place = placeOf(data, found[1]-1)
		}
		text += ": " + m.mend
		break
	}
	f.add(place, "not YAML: %s", text)
}

func empty(n *yaml.Node) bool { return n.Kind == yaml.ScalarNode && n.Tag == "!!null" }

// resolve follows an alias to what it stands for.
func resolve(n *yaml.Node) *yaml.Node {
	for n.Kind == yaml.AliasNode {
		n = n.Alias
	}
	return n
}

// kindName is what a node is, in words.
func kindName(n *yaml.Node) string {
	switch {
	case n.Kind == yaml.MappingNode:
		return "a mapping"
	case n.Kind == yaml.SequenceNode:
		return "a list"
	case empty(n):
		return "nothing"
	}
	return strconv.QuoteToASCII(clip(n.Value))
}

// field reads the value of one key of a mapping.
type field struct {
	read func(n *yaml.Node)
	// emptyOK: a key without a value is as good as none, as when all that stood
	// below it is commented out.
	emptyOK bool
}

// mapping reads the keys of a mapping, each once, and returns the nodes of the
// keys that were there; unknown keys are problems, and so are needed ones that are missing.
func (f *file) mapping(n *yaml.Node, what string, keys map[string]field, needed ...string) map[string]*yaml.Node {
	seen := make(map[string]*yaml.Node)
	if n.Kind != yaml.MappingNode {
		hint := text.Either(n.Kind == yaml.ScalarNode && strings.Contains(n.Value, "="),
			": a file of variables is for -env; a policy file begins as in floor: tls1.2", ": write key: value, a line each")
		f.add(n, "%s is %s, not a mapping of keys to values%s", what, kindName(n), hint)
		return seen
	}
	for i := 0; i+1 < len(n.Content); i += 2 {
		name, value := n.Content[i], resolve(n.Content[i+1])
		if !f.reads(name) {
			break
		}
		k, known := keys[name.Value]
		switch {
		case name.Kind != yaml.ScalarNode:
			f.add(name, "a key of %s is %s, not a word", what, kindName(name))
		case !known:
			use := "use " + strings.Join(slices.Sorted(maps.Keys(keys)), ", ")
			if keys["match"].read != nil && slices.ContainsFunc(Keys, func(k *Key) bool { return k.Name == name.Value }) {
				use = "it belongs under match, as in match: {" + name.Value + ": [...]}"
			}
			f.add(name, "unknown key %q in %s: %s", clip(name.Value), what, use)
		case seen[name.Value] != nil:
			f.add(name, "%s stands twice in %s: take one of them away", name.Value, what)
		case empty(value) && k.emptyOK:
		case empty(value):
			f.add(name, "%s has no value: write one, or take the key away", name.Value)
			seen[name.Value] = name
		default:
			seen[name.Value] = name
			k.read(value)
		}
	}
	for _, k := range needed {
		if seen[k] == nil {
			f.add(n, "%s has no %s: add %[2]s: and its value", what, k)
		}
	}
	return seen
}

// scalar reads a single value by a function whose error says what is wrong
// with it.
func scalar[T any](f *file, what string, into *T, parse func(string) (T, error)) field {
	return field{read: func(n *yaml.Node) {
		if value, ok := scalarOf(f, n, what, parse); ok {
			*into = value
		}
	}}
}

func scalarOf[T any](f *file, n *yaml.Node, what string, parse func(string) (T, error)) (value T, ok bool) {
	if n.Kind != yaml.ScalarNode || empty(n) {
		f.add(n, "%s is %s, not a single value: write one behind the colon", what, kindName(n))
		return value, false
	}
	value, err := parse(n.Value)
	if err != nil {
		f.add(n, "%s: %v", what, err)
	}
	return value, err == nil
}

// list reads the entries of a list; use says how one is written.
func (f *file) list(n *yaml.Node, what, use string, read func(*yaml.Node)) {
	if n.Kind != yaml.SequenceNode {
		f.add(n, "%s is %s, not a list%s", what, kindName(n), use)
		return
	}
	for _, item := range n.Content {
		if !f.reads(item) {
			break
		}
		read(resolve(item))
	}
}
