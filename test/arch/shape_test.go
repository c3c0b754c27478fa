package arch

import (
	"bytes"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path"
	"slices"
	"strings"
	"testing"
)

// The limits of size. A file that nears its limit is asked which second idea moved in.
const (
	maxFileLines     = 500
	maxFunctionLines = 80
	maxTestLines     = 150
	maxParameters    = 5
	maxPackageFiles  = 15
)

// vague are names that say nothing about a package.
var vague = []string{"util", "utils", "common", "helper", "helpers", "misc", "manager", "core", "base", "shared", "lib", "types", "models"}

func TestPackages(t *testing.T) {
	for _, p := range ours(t) {
		name := path.Base(p.path())
		if floor(p.path()) >= 0 && slices.Contains(vague, name) {
			t.Errorf("%s: the name says nothing", p.path())
		}
		if n := len(p.GoFiles); n > maxPackageFiles {
			t.Errorf("%s has %d files, allowed are %d: part of it is a package of its own", p.path(), n, maxPackageFiles)
		}
		if len(p.GoFiles) > 0 {
			checkComments(t, &p)
		}
	}
}

// checkComments requires one package comment, in one file, that begins as the language asks for.
func checkComments(t *testing.T, p *pkg) {
	t.Helper()
	var with []string
	for _, file := range p.files(false) {
		f, err := parser.ParseFile(token.NewFileSet(), file, nil, parser.PackageClauseOnly|parser.ParseComments)
		if err != nil {
			t.Fatal(err)
		}
		if f.Doc == nil || strings.TrimSpace(f.Doc.Text()) == "" {
			continue
		}
		with = append(with, path.Base(file))
		begin := "Package " + f.Name.Name + " "
		if f.Name.Name == "main" {
			begin = "Command "
		}
		if !strings.HasPrefix(f.Doc.Text(), begin) {
			t.Errorf("%s/%s: the package comment does not begin with %q", p.path(), path.Base(file), begin)
		}
	}
	if len(with) != 1 {
		t.Errorf("%s has %d package comments %v, want one", p.path(), len(with), with)
	}
}

func TestSizes(t *testing.T) {
	for _, p := range ours(t) {
		for _, file := range p.files(true) {
			source, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			set := token.NewFileSet()
			f, err := parser.ParseFile(set, file, source, parser.ParseComments)
			if err != nil {
				t.Fatal(err)
			}
			if ast.IsGenerated(f) {
				continue
			}
			if n := bytes.Count(source, []byte("\n")); n > maxFileLines {
				t.Errorf("%s/%s has %d lines, allowed are %d", p.path(), path.Base(file), n, maxFileLines)
			}
			for _, d := range f.Decls {
				if fn, ok := d.(*ast.FuncDecl); ok {
					checkFunction(t, set, fn)
				}
			}
		}
	}
}

func checkFunction(t *testing.T, set *token.FileSet, fn *ast.FuncDecl) {
	t.Helper()
	begin, end := set.Position(fn.Pos()), set.Position(fn.End())
	limit := maxFunctionLines
	suite := strings.HasSuffix(path.Base(path.Dir(begin.Filename)), "test") // httptest, runtimetest
	if suite || strings.HasSuffix(begin.Filename, "_test.go") {
		limit = maxTestLines
	}
	if n := end.Line - begin.Line + 1; n > limit {
		t.Errorf("%s: %s has %d lines, allowed are %d", begin, fn.Name.Name, n, limit)
	}
	if n := fn.Type.Params.NumFields(); n > maxParameters {
		t.Errorf("%s: %s has %d parameters, allowed are %d: make a struct of them", begin, fn.Name.Name, n, maxParameters)
	}
}
