// Command house prints how large the product is, and exits 1 where a bound is
// exceeded. Bounds keep the code within what one reader can follow.
//
// Code lines are those that hold a token, as cloc counts them: without comments and
// blank lines. What wc counts stands beside them. Tests and what only tests use do not
// count.
package main

import (
	"bytes"
	"flag"
	"fmt"
	"go/ast"
	"go/parser"
	"go/scanner"
	"go/token"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

const (
	maxFileLines     = 500
	maxFunctionLines = 60
)

// testSupport is under internal, but only tests import it.
var testSupport = []string{"internal/posterntest/", "internal/postgrestest/", "internal/dovecot/", "internal/debian13/"}

func main() {
	flag.Usage = func() {
		fmt.Fprintln(flag.CommandLine.Output(), "usage: go run ./test/house, from the root of the repository")
	}
	flag.Parse()
	product, err := load(os.DirFS("."), "cmd", "proxy", "policy", "metrics", "internal")
	if err != nil {
		fmt.Fprintln(os.Stderr, "house:", err)
		os.Exit(2)
	}
	if !report(os.Stdout, product.figures()) {
		os.Exit(1)
	}
}

// source is one file of the product.
type source struct {
	path        string
	lines, code int
	syntax      *ast.File
}

type house struct {
	fset  *token.FileSet
	files []source
}

func load(root fs.FS, dirs ...string) (*house, error) {
	h := &house{fset: token.NewFileSet()}
	for _, dir := range dirs {
		err := fs.WalkDir(root, dir, func(path string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() || !isProduct(path) {
				return err
			}
			text, err := fs.ReadFile(root, path)
			if err != nil {
				return err
			}
			return h.add(path, text)
		})
		if err != nil {
			return nil, err
		}
	}
	return h, nil
}

func isProduct(path string) bool {
	return strings.HasSuffix(path, ".go") && !strings.HasSuffix(path, "_test.go") &&
		!slices.ContainsFunc(testSupport, func(dir string) bool { return strings.HasPrefix(path, dir) })
}

func (h *house) add(path string, text []byte) error {
	syntax, err := parser.ParseFile(h.fset, path, text, parser.SkipObjectResolution)
	if err != nil {
		return err
	}
	h.files = append(h.files, source{path, bytes.Count(text, []byte("\n")), codeLines(text), syntax})
	return nil
}

// codeLines counts the lines that hold a token, or a part of one.
func codeLines(text []byte) int {
	fset := token.NewFileSet()
	file := fset.AddFile("", -1, len(text))
	var s scanner.Scanner
	s.Init(file, text, nil, 0)
	lines := make(map[int]bool)
	for {
		pos, tok, lit := s.Scan()
		if tok == token.EOF {
			return len(lines)
		}
		if tok == token.SEMICOLON && lit == "\n" {
			continue
		}
		first := file.Line(pos)
		for n := range strings.Count(lit, "\n") + 1 {
			lines[first+n] = true
		}
	}
}

// figure is one number with its bound, and what to look at where it is over.
type figure struct {
	name     string
	got, max int
	remark   string
	over     []string
}

func (h *house) figures() []figure {
	lines, code := h.count(func(string) bool { return true })
	proxyLines, proxyCode := h.count(inProxy)
	demoLines, demoCode := h.count(inDemo)
	proxyFiles := 0
	for _, f := range h.files {
		if inProxy(f.path) {
			proxyFiles++
		}
	}
	name, fields := h.connectionStruct()
	return []figure{
		// 22,000 held 0.1.0 with its functions. The page that finds clients, streamed
		// reports, upgrades of the ledger, and messages that say the mend may add 4,000.
		{name: "product code lines", got: code, max: 26000, remark: fmt.Sprintf("%d lines in all", lines)},
		{name: "proxy code lines", got: proxyCode, max: 4700, remark: fmt.Sprintf("%d lines in all", proxyLines)},
		{name: "proxy files", got: proxyFiles, max: 22},
		{name: "fields of the connection", got: fields, max: 18, remark: name},
		h.longest("longest file", maxFileLines, h.fileLengths()),
		h.longest("longest function", maxFunctionLines, h.functionLengths()),
		h.evaluators(),
		{name: "demo code lines", got: demoCode, max: 1200, remark: fmt.Sprintf("%d lines in all", demoLines)},
	}
}

func (h *house) count(in func(path string) bool) (lines, code int) {
	for _, f := range h.files {
		if in(f.path) {
			lines += f.lines
			code += f.code
		}
	}
	return lines, code
}

func inProxy(path string) bool { return filepath.Dir(path) == "proxy" }

func inDemo(path string) bool {
	command, _ := filepath.Match("cmd/postern/demo*.go", path)
	return command || filepath.Dir(path) == "internal/demo"
}

// connectionStruct is the largest struct of proxy that is named for a session
// or connection and knows its server. An embedded field counts as one.
func (h *house) connectionStruct() (name string, fields int) {
	for _, f := range h.files {
		if !inProxy(f.path) {
			continue
		}
		ast.Inspect(f.syntax, func(n ast.Node) bool {
			spec, ok := n.(*ast.TypeSpec)
			if !ok {
				return true
			}
			body, ok := spec.Type.(*ast.StructType)
			if ok && body.Fields.NumFields() > fields && isConnection(spec.Name.Name, body) {
				name, fields = f.path+" "+spec.Name.Name, body.Fields.NumFields()
			}
			return true
		})
	}
	return name, fields
}

func isConnection(name string, body *ast.StructType) bool {
	if lower := strings.ToLower(name); !strings.HasSuffix(lower, "session") && !strings.HasSuffix(lower, "conn") {
		return false
	}
	for _, field := range body.Fields.List {
		for _, n := range field.Names {
			if n.Name == "srv" || n.Name == "server" {
				return true
			}
		}
	}
	return false
}

// evaluators are the functions of policy that make an Outcome, which is what a
// client meets: that the first match wins, with shares, is said in one of them.
func (h *house) evaluators() figure {
	f := figure{name: "evaluators of policy", max: 1}
	for _, file := range h.files {
		if filepath.Dir(file.path) != "policy" {
			continue
		}
		for _, d := range file.syntax.Decls {
			if fn, ok := d.(*ast.FuncDecl); ok && makes(fn, "Outcome") {
				f.over = append(f.over, file.path+" "+fn.Name.Name)
			}
		}
	}
	if f.got = len(f.over); f.got <= f.max {
		f.remark, f.over = strings.Join(f.over, ""), nil
	}
	return f
}

func makes(fn *ast.FuncDecl, structName string) (found bool) {
	ast.Inspect(fn, func(n ast.Node) bool {
		if c, ok := n.(*ast.CompositeLit); ok {
			name, isName := c.Type.(*ast.Ident)
			found = found || isName && name.Name == structName
		}
		return !found
	})
	return found
}

// extent is a file or function and its lines.
type extent struct {
	name  string
	lines int
}

func (h *house) longest(name string, max int, all []extent) figure {
	slices.SortFunc(all, func(a, b extent) int { return b.lines - a.lines })
	f := figure{name: name, max: max}
	if len(all) > 0 {
		f.got, f.remark = all[0].lines, all[0].name
	}
	for _, e := range all {
		if e.lines > max {
			f.over = append(f.over, fmt.Sprintf("%d %s", e.lines, e.name))
		}
	}
	return f
}

func (h *house) fileLengths() []extent {
	var all []extent
	for _, f := range h.files {
		all = append(all, extent{f.path, f.lines})
	}
	return all
}

func (h *house) functionLengths() []extent {
	var all []extent
	for _, f := range h.files {
		ast.Inspect(f.syntax, func(n ast.Node) bool {
			name := "a function literal"
			switch n := n.(type) {
			case *ast.FuncDecl:
				name = n.Name.Name
			case *ast.FuncLit:
			default:
				return true
			}
			first, last := h.fset.Position(n.Pos()), h.fset.Position(n.End())
			all = append(all, extent{fmt.Sprintf("%s:%d %s", f.path, first.Line, name), last.Line - first.Line + 1})
			return true
		})
	}
	return all
}

// report prints the figures and tells whether all keep their bounds.
func report(w io.Writer, figures []figure) bool {
	good := true
	for _, f := range figures {
		verdict := "ok"
		if f.got > f.max {
			verdict, good = "OVER", false
		}
		fmt.Fprintf(w, "%-25s %6d of %6d  %-4s  %s\n", f.name, f.got, f.max, verdict, f.remark)
		for _, line := range f.over {
			fmt.Fprintf(w, "\t%s\n", line)
		}
	}
	return good
}
