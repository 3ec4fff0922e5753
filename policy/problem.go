package policy

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// Problem is one thing that is wrong with a policy file.
type Problem struct {
	// Line and Column are where, from 1 on.
	Line, Column int
	// Rule or Candidate is the name of the one that it is about; both are empty
	// where it is about none, or one without a name.
	Rule, Candidate string
	Text            string
}

// String returns line:column: rule: text.
func (p Problem) String() string {
	about := ""
	switch {
	case p.Rule != "":
		about = fmt.Sprintf("rule %q: ", p.Rule)
	case p.Candidate != "":
		about = fmt.Sprintf("candidate %q: ", p.Candidate)
	}
	return fmt.Sprintf("%d:%d: %s%s", p.Line, p.Column, about, p.Text)
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
