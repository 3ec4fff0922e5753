package config

import (
	"fmt"
	"io"
	"reflect"
	"text/tabwriter"
)

// wideDefault is the length from which a default is part of the description, so
// that a long text does not push the last column off the screen.
const wideDefault = 20

// row is one variable as the tables print it.
type row struct{ name, def, meaning string }

func rows() []row {
	var all []row
	for _, v := range variables(reflect.TypeFor[Config]()) {
		r := row{v.name, v.def, v.desc}
		if len(r.def) > wideDefault {
			r.def, r.meaning = "", r.meaning+"; default: "+v.def
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
