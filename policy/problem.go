package policy

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// Problem is one thing that is wrong with a policy file, or that is allowed but
// probably not meant: a warning, which may depend on the clock.
type Problem struct {
	// Line and Column are where, from 1 on; 0 where there is no such place. A
	// warning has no column.
	Line   int `json:"line,omitempty"`
	Column int `json:"-"`
	// Rule or Candidate is the name of the one that it is about; both are empty
	// where it is about none, or one without a name.
	Rule      string `json:"rule,omitempty"`
	Candidate string `json:"-"`
	Text      string `json:"warning"`
}

// String returns line:column: rule: text.
func (p Problem) String() string {
	s := ""
	if p.Line > 0 {
		s = strconv.Itoa(p.Line) + ":"
	}
	if p.Column > 0 {
		s += strconv.Itoa(p.Column) + ":"
	}
	if s != "" {
		s += " "
	}
	switch {
	case p.Rule != "":
		s += fmt.Sprintf("rule %q: ", p.Rule)
	case p.Candidate != "":
		s += fmt.Sprintf("candidate %q: ", p.Candidate)
	}
	return s + p.Text
}

// Problems is all that is wrong with a policy file, by line.
type Problems []Problem

// Error returns the problems, one a line.
func (p Problems) Error() string {
	lines := make([]string, len(p))
	for i := range p {
		lines[i] = p[i].String()
	}
	return strings.Join(lines, "\n")
}

func (p Problems) sorted() Problems {
	slices.SortStableFunc(p, func(a, b Problem) int {
		return cmp.Or(cmp.Compare(a.Line, b.Line), cmp.Compare(a.Column, b.Column))
	})
	return p
}
