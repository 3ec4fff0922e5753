package main

import (
	"bytes"
	"cmp"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// mutant is one breach of a promise.
type mutant struct {
	// breaks says in words what would be wrong.
	breaks string
	// in is the package and the function, method or package variable, as in
	// "policy Snapshot.Decide".
	in string
	at place
	do operation
	// seen is the narrowest test that fails, as in "policy TestX/subtest".
	seen string
}

// place finds a node within a declaration; nil where there is none.
type place func(within ast.Node) ast.Node

// nth is the n-th node, from 1, in the order of the source, for which find
// returns something that mentions the name or literal. An empty name is
// mentioned everywhere.
func nth(n int, name string, find func(ast.Node) []ast.Node) place {
	return func(within ast.Node) (found ast.Node) {
		left, seen := n, make(map[ast.Node]bool)
		ast.Inspect(within, func(node ast.Node) bool {
			for _, candidate := range find(node) {
				if !seen[candidate] && mentions(candidate, name) {
					seen[candidate] = true
					if left--; left == 0 {
						found = candidate
					}
				}
			}
			return found == nil
		})
		return found
	}
}

func mentions(node ast.Node, name string) bool {
	said := name == ""
	ast.Inspect(node, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.Ident:
			said = said || n.Name == name
		case *ast.BasicLit:
			said = said || n.Value == name || n.Value == strconv.Quote(name)
		}
		return !said
	})
	return said
}

// body is the beginning of the function.
func body(within ast.Node) ast.Node {
	if fn, ok := within.(*ast.FuncDecl); ok {
		return fn.Body
	}
	return nil
}

// condition is that of an if, a loop, or a case of a switch without a tag.
func condition(name string, n int) place {
	return nth(n, name, func(node ast.Node) (found []ast.Node) {
		switch node := node.(type) {
		case *ast.IfStmt:
			return []ast.Node{node.Cond}
		case *ast.ForStmt:
			if node.Cond != nil {
				return []ast.Node{node.Cond}
			}
		case *ast.SwitchStmt:
			if node.Tag == nil {
				for _, clause := range node.Body.List {
					for _, e := range clause.(*ast.CaseClause).List {
						found = append(found, e)
					}
				}
			}
		}
		return found
	})
}

// part is an operand of && or || that is neither itself.
func part(name string, n int) place {
	return nth(n, name, func(node ast.Node) []ast.Node {
		if found := operands(node); len(found) > 1 {
			return found
		}
		return nil
	})
}

func operands(node ast.Node) []ast.Node {
	if b, ok := node.(*ast.BinaryExpr); ok && (b.Op == token.LAND || b.Op == token.LOR) {
		return append(operands(b.X), operands(b.Y)...)
	}
	return []ast.Node{node}
}

// comparison is an expression with < <= > or >=.
func comparison(name string, n int) place {
	return nth(n, name, func(node ast.Node) []ast.Node {
		if b, ok := node.(*ast.BinaryExpr); ok && slices.Contains([]token.Token{token.LSS, token.LEQ, token.GTR, token.GEQ}, b.Op) {
			return []ast.Node{b}
		}
		return nil
	})
}

// call is a call of a function or method by its last name.
func call(name string, n int) place {
	return nth(n, "", func(node ast.Node) []ast.Node {
		if c, ok := node.(*ast.CallExpr); ok && lastName(c.Fun) == name {
			return []ast.Node{c}
		}
		return nil
	})
}

// assignment is a statement that assigns to a variable or field, or increments
// it, by its last name.
func assignment(name string, n int) place {
	return nth(n, "", func(node ast.Node) []ast.Node {
		switch s := node.(type) {
		case *ast.AssignStmt:
			if slices.ContainsFunc(s.Lhs, func(e ast.Expr) bool { return lastName(e) == name }) {
				return []ast.Node{s}
			}
		case *ast.IncDecStmt:
			if lastName(s.X) == name {
				return []ast.Node{s}
			}
		}
		return nil
	})
}

// returned is a return statement.
func returned(name string, n int) place {
	return nth(n, name, func(node ast.Node) []ast.Node {
		if r, ok := node.(*ast.ReturnStmt); ok {
			return []ast.Node{r}
		}
		return nil
	})
}

// word is an identifier or a literal.
func word(name string, n int) place {
	return nth(n, name, func(node ast.Node) []ast.Node {
		switch node.(type) {
		case *ast.Ident, *ast.BasicLit:
			return []ast.Node{node}
		}
		return nil
	})
}

// argument is the i-th argument, from 1, of the n-th call.
func argument(i int, name string, n int) place {
	return func(within ast.Node) ast.Node {
		c, ok := call(name, n)(within).(*ast.CallExpr)
		if !ok || len(c.Args) < i {
			return nil
		}
		return c.Args[i-1]
	}
}

// value is what the n-th assignment to the name assigns.
func value(name string, n int) place {
	return func(within ast.Node) ast.Node {
		s, ok := assignment(name, n)(within).(*ast.AssignStmt)
		if !ok || len(s.Rhs) != 1 {
			return nil
		}
		return s.Rhs[0]
	}
}

func lastName(e ast.Expr) string {
	switch e := e.(type) {
	case *ast.Ident:
		return e.Name
	case *ast.SelectorExpr:
		return e.Sel.Name
	case *ast.IndexExpr:
		return lastName(e.X)
	case *ast.StarExpr:
		return lastName(e.X)
	case *ast.ParenExpr:
		return lastName(e.X)
	}
	return ""
}

// operation says what to insert before and behind a node, where alive is a Go
// expression that holds while the mutant lives.
type operation func(w *where, alive string) (edit, error)

type where struct {
	*file
	within, node ast.Node
}

// edit inserts text around a part of a file. Edits only insert, so that one may
// lie within another.
type edit struct {
	from, to      int
	before, after string
}

func (w *where) around(node ast.Node, before, after string) edit {
	return edit{w.offset(node.Pos()), w.offset(node.End()), before, after}
}

func around(format string) operation {
	return func(w *where, alive string) (edit, error) {
		if _, ok := w.node.(ast.Expr); !ok {
			return edit{}, fmt.Errorf("the place is no expression")
		}
		return w.around(w.node, "((", fmt.Sprintf(format, alive)), nil
	}
}

// never makes a condition false, always makes it true, negated turns it around.
func never(w *where, alive string) (edit, error)  { return around(") && !%s)")(w, alive) }
func always(w *where, alive string) (edit, error) { return around(") || %s)")(w, alive) }
func negated(w *where, alive string) (edit, error) {
	return around(") != %s)")(w, alive)
}

// boundary turns < into <=, and the like.
func boundary(w *where, alive string) (edit, error) {
	b, ok := w.node.(*ast.BinaryExpr)
	if !ok {
		return edit{}, fmt.Errorf("the place is no comparison")
	}
	return w.around(b, "((", fmt.Sprintf(") != (%s && (%s) == (%s)))", alive, w.source(b.X), w.source(b.Y))), nil
}

// becomes replaces an expression by another one of its type. Both are
// evaluated.
func becomes(expr string) operation {
	return func(w *where, alive string) (edit, error) {
		return w.around(w.node, fmt.Sprintf("mutantValue(%s, %s, ", alive, expr), ")"), nil
	}
}

// skipped leaves out the statement of the place.
func skipped(w *where, alive string) (edit, error) {
	stmt := w.statement()
	if stmt == nil {
		return edit{}, fmt.Errorf("the place is in no statement")
	}
	if s, ok := stmt.(*ast.AssignStmt); ok && s.Tok == token.DEFINE {
		return edit{}, fmt.Errorf("the statement declares a variable: %s", w.source(s))
	}
	return w.around(stmt, "if !"+alive+" { ", " }"), nil
}

// first does something before the statement of the place, or at the beginning
// of the function.
func first(text string) operation {
	return func(w *where, alive string) (edit, error) {
		text := "if " + alive + " { " + text + " }; "
		if block, ok := w.node.(*ast.BlockStmt); ok {
			at := w.offset(block.Lbrace) + 1
			return edit{at, at, text, ""}, nil
		}
		stmt := w.statement()
		if stmt == nil {
			return edit{}, fmt.Errorf("the place is in no statement")
		}
		return w.around(stmt, text, ""), nil
	}
}

// statement is the innermost one of a block or case that holds the node.
func (w *where) statement() (found ast.Stmt) {
	ast.Inspect(w.within, func(n ast.Node) bool {
		var list []ast.Stmt
		switch n := n.(type) {
		case *ast.BlockStmt:
			list = n.List
		case *ast.CaseClause:
			list = n.Body
		case *ast.CommClause:
			list = n.Body
		}
		for _, stmt := range list {
			if stmt.Pos() <= w.node.Pos() && w.node.End() <= stmt.End() {
				found = stmt
			}
		}
		return true
	})
	return found
}

// file is a source file with its edits.
type file struct {
	path   string
	text   []byte
	fset   *token.FileSet
	syntax *ast.File
	edits  []edit
}

func (f *file) offset(p token.Pos) int { return f.fset.Position(p).Offset }

func (f *file) source(n ast.Node) string { return string(f.text[f.offset(n.Pos()):f.offset(n.End())]) }

// readPackage reads the files of a package that are no tests.
func readPackage(dir string) ([]*file, error) {
	paths, err := filepath.Glob(filepath.Join(dir, "*.go"))
	if err != nil {
		return nil, err
	}
	var files []*file
	for _, path := range paths {
		if strings.HasSuffix(path, "_test.go") {
			continue
		}
		f := &file{path: path, fset: token.NewFileSet()}
		if f.text, err = os.ReadFile(path); err != nil {
			return nil, err
		}
		if f.syntax, err = parser.ParseFile(f.fset, path, f.text, parser.SkipObjectResolution); err != nil {
			return nil, err
		}
		files = append(files, f)
	}
	return files, nil
}

// addTo adds the mutant to the file that it belongs in. It lives where MUTANT
// is id.
func (m mutant) addTo(files []*file, id int) error {
	_, name, _ := strings.Cut(m.in, " ")
	for _, f := range files {
		within := f.declaration(name)
		if within == nil {
			continue
		}
		node := m.at(within)
		if node == nil {
			return fmt.Errorf("%s (%s): the place is not there; name another in test/mutation", m.in, m.breaks)
		}
		e, err := m.do(&where{f, within, node}, fmt.Sprintf("mutantLives(%d)", id))
		if err != nil {
			return fmt.Errorf("%s (%s): %w", m.in, m.breaks, err)
		}
		f.edits = append(f.edits, e)
		return nil
	}
	return fmt.Errorf("%s (%s): it is gone; name in test/mutation what does its work now", m.in, m.breaks)
}

// declaration is the function, method or package variable of that name.
func (f *file) declaration(name string) ast.Node {
	for _, d := range f.syntax.Decls {
		switch d := d.(type) {
		case *ast.FuncDecl:
			if d.Body != nil && funcName(d) == name {
				return d
			}
		case *ast.GenDecl:
			for _, spec := range d.Specs {
				if v, ok := spec.(*ast.ValueSpec); ok && d.Tok == token.VAR && v.Names[0].Name == name {
					return v
				}
			}
		}
	}
	return nil
}

func funcName(fn *ast.FuncDecl) string {
	if fn.Recv == nil {
		return fn.Name.Name
	}
	return lastName(fn.Recv.List[0].Type) + "." + fn.Name.Name
}

// mutated is the text with all edits in it. They add no lines: a compiler that
// complains of one names the line of the file itself.
func (f *file) mutated() []byte {
	type insertion struct {
		at, rank, length, order int
		text                    string
	}
	var all []insertion
	for i, e := range f.edits {
		// At one offset what ends comes before what begins, and the outer edit
		// begins first and ends last.
		length := e.to - e.from
		all = append(all, insertion{e.from, 1, -length, i, e.before}, insertion{e.to, 0, length, -i, e.after})
	}
	slices.SortFunc(all, func(a, b insertion) int {
		return cmp.Or(a.at-b.at, a.rank-b.rank, a.length-b.length, a.order-b.order)
	})
	var out bytes.Buffer
	fmt.Fprintf(&out, "//line %s:1\n", f.path)
	done := 0
	for _, i := range all {
		out.Write(f.text[done:i.at])
		out.WriteString(i.text)
		done = i.at
	}
	out.Write(f.text[done:])
	return out.Bytes()
}

// support is what the mutated code calls.
func support(pkg string) []byte {
	return []byte("package " + pkg + `

import (
	"os"
	"strconv"
)

var mutantAlive, _ = strconv.Atoi(os.Getenv("MUTANT"))

func mutantLives(id int) bool { return id == mutantAlive }

func mutantValue[T any](lives bool, mutated, original T) T {
	if lives {
		return mutated
	}
	return original
}
`)
}
