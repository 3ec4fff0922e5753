package config

import (
	"errors"
	"maps"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/caarlos0/env/v11"

	"postern/internal/text"
)

// Problems are all problems of an environment. Each entry is one line that
// starts with the name of the variable.
type Problems []string

// Error returns the problems, one a line.
func (p Problems) Error() string { return strings.Join(p, "\n") }

// variable is one field of a configuration struct.
type variable struct {
	reflect.StructField
	name string // with Prefix
}

func (v variable) def() string  { return v.Tag.Get("envDefault") }
func (v variable) secret() bool { return v.Tag.Get("secret") == "true" }

// variables lists the fields of the struct type t that have an env tag.
func variables(t reflect.Type) (vars []variable) {
	for f := range t.Fields() {
		if key := f.Tag.Get("env"); key != "" {
			vars = append(vars, variable{f, Prefix + key})
		}
	}
	return vars
}

// loader gathers the problems of one environment.
type loader struct {
	vars     []variable
	given    map[string]string
	bad      map[string]bool // variables with a problem
	problems Problems
}

func (l *loader) add(name, problem string) {
	l.bad[name] = true
	quoted := show(name)
	l.problems = append(l.problems, quoted[1:len(quoted)-1]+": "+problem)
}

// load parses environ into dst, a pointer to a struct. The env package does
// the parsing; it sees only variables that dst has, since it takes an empty
// one for its default and passes over those it does not know.
func load(dst any, environ []string) *loader {
	l := &loader{vars: variables(reflect.TypeOf(dst).Elem()), given: map[string]string{}, bad: map[string]bool{}}
	for _, entry := range environ {
		if name, value, ok := strings.Cut(entry, "="); ok && strings.HasPrefix(name, Prefix) {
			l.given[name] = value
		}
	}
	l.refuseUnknown()
	err := env.ParseWithOptions(dst, env.Options{
		Prefix:      Prefix,
		Environment: l.usable(),
		FuncMap: map[reflect.Type]env.ParserFunc{
			reflect.TypeFor[time.Duration](): func(s string) (any, error) {
				d, err := text.ParseDuration(s)
				if err != nil {
					return d, badValue{s, err.Error()}
				}
				return d, nil
			},
		},
	})
	l.addParseErrors(err)
	return l
}

// usable returns the variables that are worth parsing.
func (l *loader) usable() map[string]string {
	use := map[string]string{}
	for _, v := range l.vars {
		value, ok := l.given[v.name]
		oneOf := strings.Fields(v.Tag.Get("oneof"))
		switch {
		case !ok, value == "" && v.Tag.Get("empty") == "ok":
		case value == "":
			l.add(v.name, "set but empty: give it a value, or take it away")
		case quotedWhole(value):
			l.add(v.name, "the quotes are a part of the value: take them away")
		case strings.TrimSpace(value) != value && strings.TrimSpace(value) != "" && v.Type.Kind() != reflect.Slice:
			l.add(v.name, v.text(badValue{value, around(value)}))
		case len(oneOf) > 0 && !slices.Contains(oneOf, value):
			l.add(v.name, v.text(badValue{value, "not one of " + strings.Join(oneOf, ", ")}))
		default:
			use[v.name] = value
		}
	}
	return use
}

// around says what stands around a value.
func around(value string) string {
	return text.Either(strings.HasSuffix(value, "\r"),
		"take away the carriage return: the file's lines end as Windows ends them (sed -i 's/\\r$//')", "take away the blanks around it")
}

// quotedWhole reports quotes around a value, which a shell and systemd take away
// but a container engine does not.
func quotedWhole(s string) bool {
	s = strings.TrimSpace(s)
	return len(s) > 1 && (s[0] == '"' || s[0] == '\'') && s[len(s)-1] == s[0]
}

func (l *loader) addParseErrors(err error) {
	all, _ := errors.AsType[env.AggregateError](err)
	for _, err := range all.Errors {
		parse, ok := errors.AsType[env.ParseError](err)
		if !ok {
			l.problems = append(l.problems, err.Error())
			continue
		}
		v := l.vars[slices.IndexFunc(l.vars, func(v variable) bool { return v.Name == parse.Name })]
		parts := []error{parse.Err}
		if joined, ok := parse.Err.(interface{ Unwrap() []error }); ok {
			parts = joined.Unwrap()
		}
		for _, err := range parts {
			bad, ok := errors.AsType[badValue](err)
			if !ok {
				// The parsers of the env package put the whole value into their errors.
				bad = badValue{l.given[v.name], "not a valid " + parse.Type.String()}
			}
			l.add(v.name, v.text(bad))
		}
	}
}

// badValue is the error of a value that does not parse. The reason never holds
// any of the value, since it is shown for secrets too.
type badValue struct {
	part   string // what to show, or ""
	reason string
}

func (b badValue) Error() string {
	if b.part == "" {
		return b.reason
	}
	return show(b.part) + ": " + b.reason
}

func (v variable) text(b badValue) string {
	if strings.Contains(b.part, " #") {
		b.reason += "; write a comment on a line of its own"
	}
	if v.Type == reflect.TypeFor[Count]() {
		b.reason += " (" + v.Tag.Get("desc") + ")"
	}
	if v.secret() {
		b.part = ""
	}
	b.reason = strings.ReplaceAll(b.reason, "{protocol}", strings.ToLower(v.name[len(v.name)-len("imap"):]))
	return b.Error()
}

// shown bounds the characters of a value in a message.
const shown = 80 + len("...")

// show quotes a value on one line, harmless on a terminal.
func show(s string) string { return text.Quote(s, shown) }

// kubernetesLink matches variables that the kubelet sets for other Services.
const kubernetesLink = `_SERVICE_HOST$|_SERVICE_PORT(_[A-Z0-9_]+)?$|_PORT_[0-9]+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?$`

// refuseUnknown reports unknown variables with our prefix, without their values:
// one may be a secret under a mistyped name.
func (l *loader) refuseUnknown() {
	for _, name := range slices.Sorted(maps.Keys(l.given)) {
		known := slices.ContainsFunc(l.vars, func(v variable) bool { return v.name == name })
		if known || fromKubernetes.MatchString(name) || name == Binary {
			continue
		}
		problem := "unknown variable"
		if strings.Contains(name, "SMTP") {
			problem += "; take it away: Postern stands before IMAP and POP3 alone"
		} else if near := l.nearest(name); near != "" {
			problem += "; did you mean " + Prefix + near + "?"
		} else if regexp.MustCompile(kubernetesLink).MatchString(name) {
			problem += "; if Kubernetes set it, put enableServiceLinks: false into the pod"
		} else {
			problem += "; postern serve -h lists all"
		}
		l.add(name, problem)
	}
}

// Binary is the variable by which tests and benchmarks choose the binary to run.
// They hand their environment on to it, so it is ignored.
const Binary = Prefix + "BIN"

// fromKubernetes matches variables that the kubelet sets for a Service named postern.
var fromKubernetes = regexp.MustCompile(`^` + Prefix + `(SERVICE_|PORT_|PORT$)`)

// nearest returns the variable that name probably means, without Prefix, or "".
func (l *loader) nearest(name string) string {
	name = strings.TrimPrefix(strings.ToUpper(text.Cut(name, 100)), Prefix) // ours are shorter
	names := text.Each(l.vars, func(v variable) string { return strings.TrimPrefix(v.name, Prefix) })
	near := text.Nearest(name, names)
	if i := slices.IndexFunc(names, func(n string) bool { return len(name) >= 4 && strings.Contains(n, name) }); near == "" && i >= 0 {
		near = names[i] // a part of it
	}
	return near
}
