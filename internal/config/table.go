package config

import (
	"cmp"
	"fmt"
	"io"
	"reflect"
	"strings"
	"text/tabwriter"

	"postern/internal/text"
)

// wideDefault is the length from which a default is part of the description, so
// that a long text does not push the last column off the screen.
const wideDefault = 20

// row is one variable as the tables print it.
type row struct{ name, def, meaning string }

func rows() []row {
	var all []row
	for _, v := range variables(reflect.TypeFor[Config]()) {
		r := row{v.name, v.def(), v.Tag.Get("desc")}
		if len(r.def) > wideDefault {
			r.def, r.meaning = "", r.meaning+"; default: "+r.def
		}
		all = append(all, r)
	}
	return all
}

// Table prints the variables for `postern serve -h`. It ignores errors of w.
func Table(w io.Writer) {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	for _, r := range rows() {
		fmt.Fprintf(t, "  %s\t%s\t%s\n", r.name, r.def, r.meaning)
	}
	t.Flush()
}

// Difference is a variable that two environments set differently, with words for each.
type Difference struct{ Variable, Here, There string }

// Differences compares two environments, as of os.Environ. What may hold a secret is not
// shown.
func Differences(here, there []string) (list []Difference) {
	a, b := load(new(Config), here), load(new(Config), there)
	for _, v := range a.vars {
		x, y := a.given[v.name], b.given[v.name]
		if cmp.Or(x, v.def()) == cmp.Or(y, v.def()) {
			continue
		}
		words := func(value, secret string) string {
			switch {
			case v.secret(), strings.HasSuffix(v.name, "TOKEN_FILE"), strings.HasSuffix(v.name, "KEY_FILE"):
				return secret // the latter two may be the secret itself, by mistake
			case value == "" && v.def() == "":
				return "not set"
			case value == "":
				return "the default " + v.def()
			}
			return text.Clean(value, shown)
		}
		list = append(list, Difference{v.name, words(x, "changed"), words(y, "the old one")})
	}
	return list
}
