// Package text reads and writes text for people: durations and networks, text
// for terminals and spreadsheets, and strangers' text made harmless.
package text

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"strings"
	"sync"
	"text/template"
	"unicode/utf8"

	"github.com/agnivade/levenshtein"
)

// Width is the most columns of a line.
const Width = 100

const glue = "\u00a0"

// Glued keeps words together on one line, as those of a date or of a name.
func Glued(s string) string { return strings.ReplaceAll(s, " ", glue) }

// Unglued undoes Glued.
func Unglued(s string) string { return strings.ReplaceAll(s, glue, " ") }

// Each is what a function makes of each entry of a list. It is never nil, so that an empty
// list is [] in JSON.
func Each[T, U any](list []T, f func(T) U) []U {
	all := make([]U, len(list))
	for i, v := range list {
		all[i] = f(v)
	}
	return all
}

// Either is yes if that is so, else no.
func Either[T any](so bool, yes, no T) T {
	if so {
		return yes
	}
	return no
}

// Number is a number of things.
func Number(n int, thing string) string {
	return fmt.Sprintf("%d %s", n, Either(n == 1, thing, thing+"s"))
}

// Templates returns a function that has the words of a template by its name. They are read
// at the first use.
func Templates(source string, functions map[string]any) func(name string, of any) string {
	parsed := sync.OnceValue(func() *template.Template { return template.Must(template.New("").Funcs(functions).Parse(source)) })
	return func(name string, of any) string {
		var b strings.Builder
		if err := parsed().ExecuteTemplate(&b, name, of); err != nil {
			panic(err) // it is ours
		}
		return b.String()
	}
}

// Wrap breaks text into lines of so many columns, between words that are not
// glued; all but the first are indented. The lines are unglued.
func Wrap(text, indent string, columns int) []string {
	var lines []string
	line := ""
	for word := range strings.SplitSeq(text, " ") {
		switch {
		case word == "":
			continue
		case line == "":
			line = word
		case utf8.RuneCountInString(line)+1+utf8.RuneCountInString(word) > columns:
			lines = append(lines, Unglued(line))
			line = indent + word
		default:
			line += " " + word
		}
	}
	return append(lines, Unglued(line))
}

// WriteJSON writes a value for programs, in a form that people can read too. What
// HTML would take for markup is escaped.
func WriteJSON(w io.Writer, v any) error {
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	return e.Encode(v)
}

// Nearest returns the one of some names that a misspelt one probably means, or "".
// Up to a quarter of it may be wrong, and two characters in any case.
func Nearest(misspelt string, names []string) string {
	best, least := "", min(max(2, len(misspelt)/4)+1, len(misspelt))
	for _, name := range names {
		if d := levenshtein.ComputeDistance(misspelt, name); d < least {
			best, least = name, d
		}
	}
	return best
}

var errPrefix = errors.New("not an address or a CIDR: write one such as 192.0.2.7, 10.0.0.0/8 or 2001:db8::/32")

// ParsePrefix reads a CIDR or a single address. IPv4-mapped ones become IPv4,
// and host bits zero. The error is like that of ParseDuration.
func ParsePrefix(s string) (netip.Prefix, error) {
	if !strings.Contains(s, "/") {
		addr, err := netip.ParseAddr(s)
		if err != nil || addr.Zone() != "" {
			return netip.Prefix{}, errPrefix
		}
		addr = addr.Unmap()
		return netip.PrefixFrom(addr, addr.BitLen()), nil
	}
	p, err := netip.ParsePrefix(s)
	if err != nil {
		return netip.Prefix{}, errPrefix
	}
	const mapped = 96 // bits in front of the IPv4 address
	if p.Addr().Is4In6() && p.Bits() >= mapped {
		p = netip.PrefixFrom(p.Addr().Unmap(), p.Bits()-mapped)
	}
	return p.Masked(), nil
}

// HostBits is a warning of a CIDR that names an address in the network, as
// 10.0.0.1/16 does: it may be the network that was meant, or the address. It is
// empty where there is no doubt.
func HostBits(s string) string {
	p, err := netip.ParsePrefix(s)
	if err != nil || p.Addr() == p.Masked().Addr() {
		return ""
	}
	network, _ := ParsePrefix(s)
	return s + " is taken as the network " + network.String() + "; write it so, or " + p.Addr().Unmap().String() + " if the one address is meant"
}
