package gosource

import (
	"errors"
	"fmt"
	"go/ast"
	gobuild "go/build"
	"go/parser"
	"go/scanner"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"ebb.dev/ebb/internal/adapter/build"
)

// source is what a folder turned out to be.
type source struct {
	dir      string
	module   string   // folder of go.mod, "" without one
	files    []string // Go files of the package, without tests
	function *function
}

// function is how a package without main offers its handler.
type function struct {
	instanced bool // New() returns the one with Handle
	context   bool // Handle takes a context first, as Knative's func did once
}

// inspect reads the package in a folder, far enough to know how to build it.
func inspect(dir string) (*source, error) {
	names, err := goFiles(dir)
	if err != nil {
		return nil, err
	}
	if len(names) == 0 {
		return nil, elsewhere(dir)
	}
	src := &source{dir: dir, module: moduleRoot(dir), files: names}
	set := token.NewFileSet()
	files := make([]*ast.File, 0, len(names))
	for _, name := range names {
		content, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			return nil, err
		}
		file, err := parser.ParseFile(set, name, content, parser.SkipObjectResolution)
		if err != nil {
			return nil, syntaxError(err)
		}
		if len(files) > 0 && file.Name.Name != files[0].Name.Name {
			return nil, fmt.Errorf("%w: %s has package %s, %s has package %s", build.ErrSource,
				names[0], files[0].Name.Name, name, file.Name.Name)
		}
		files = append(files, file)
	}
	return src, src.classify(files)
}

// classify tells a program from a function.
func (s *source) classify(files []*ast.File) error {
	funcs := topFuncs(files)
	if files[0].Name.Name == "main" {
		if funcs["main"] == nil {
			return fmt.Errorf("%w: package main has no func main; a function's package has another name, such as \"function\"", build.ErrSource)
		}
		return nil
	}
	handle, create := funcs["Handle"], funcs["New"]
	switch {
	case handle != nil && create != nil:
		return fmt.Errorf("%w: package %s has both Handle and New; keep the one that is the function", build.ErrSource, files[0].Name.Name)
	case handle != nil:
		withContext, err := checkHandle("Handle", handle.Type)
		s.function = &function{context: withContext}
		return err
	case create != nil:
		return s.classifyInstance(files, create)
	}
	return fmt.Errorf("%w: package %s is no program and no function: it needs package main with func main, "+
		"or func Handle(http.ResponseWriter, *http.Request), or func New() that returns a type with this method", build.ErrSource, files[0].Name.Name)
}

func (s *source) classifyInstance(files []*ast.File, create *ast.FuncDecl) error {
	results := create.Type.Results
	if count(create.Type.Params) != 0 || count(results) != 1 {
		return fmt.Errorf("%w: New takes nothing and returns one value", build.ErrSource)
	}
	s.function = &function{instanced: true}
	named := typeName(results.List[0].Type)
	handle := methods(files, named)["Handle"]
	if handle == nil {
		handle = interfaceMethod(files, named, "Handle")
	}
	if handle == nil {
		if isForeign(results.List[0].Type) {
			return nil // the compiler knows the type; this reader does not
		}
		return fmt.Errorf("%w: New returns %s, which has no method Handle(http.ResponseWriter, *http.Request)", build.ErrSource, named)
	}
	var err error
	s.function.context, err = checkHandle(named+".Handle", handle)
	return err
}

// checkHandle accepts (http.ResponseWriter, *http.Request), with a context before them or without.
func checkHandle(name string, t *ast.FuncType) (withContext bool, err error) {
	params := flatten(t.Params)
	if len(params) == 3 && strings.HasSuffix(params[0], "context.Context") {
		params, withContext = params[1:], true
	}
	if count(t.Results) == 0 && len(params) == 2 && strings.HasSuffix(params[0], ".ResponseWriter") &&
		strings.HasPrefix(params[1], "*") && strings.HasSuffix(params[1], ".Request") {
		return withContext, nil
	}
	for _, p := range slices.Concat(params, flatten(t.Results)) {
		if strings.HasSuffix(p, "event.Event") || strings.HasSuffix(p, "cloudevents.Event") {
			return false, fmt.Errorf("%w: %s takes CloudEvents; only func(http.ResponseWriter, *http.Request) can be built so far", build.ErrSource, name)
		}
	}
	return false, fmt.Errorf("%w: %s must be func(http.ResponseWriter, *http.Request)", build.ErrSource, name)
}

// goFiles lists the Go files that a Linux build of the folder has, tests left out.
func goFiles(dir string) ([]string, error) {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%w: there is no folder %s", build.ErrSource, dir)
	}
	if err != nil {
		return nil, err
	}
	target := gobuild.Default
	target.GOOS, target.CgoEnabled = "linux", false
	var names []string
	for _, entry := range entries {
		name := entry.Name()
		if entry.IsDir() || !strings.HasSuffix(name, ".go") || strings.HasSuffix(name, "_test.go") {
			continue
		}
		if ok, err := target.MatchFile(dir, name); err == nil && ok {
			names = append(names, name)
		}
	}
	return names, nil
}

// elsewhere answers for a folder without Go files: perhaps its programs are further down.
func elsewhere(dir string) error {
	if moduleRoot(dir) != dir {
		return fmt.Errorf("%w: no Go files in %s", build.ErrNotMine, dir)
	}
	var found []string
	for _, pattern := range []string{"*", "cmd/*"} {
		folders, _ := filepath.Glob(filepath.Join(dir, pattern)) // the patterns are well formed
		for _, folder := range folders {
			if names, err := goFiles(folder); err == nil && len(names) > 0 {
				if src, err := inspect(folder); err == nil && src != nil {
					relative, _ := filepath.Rel(dir, folder)
					found = append(found, relative)
				}
			}
		}
	}
	if len(found) == 0 {
		return fmt.Errorf("%w: %s has a go.mod and no Go files", build.ErrSource, dir)
	}
	return fmt.Errorf("%w: no Go files in %s itself; choose one of its folders: %s", build.ErrSource, dir, strings.Join(found, ", "))
}

// moduleRoot finds the folder of the go.mod that counts for dir.
func moduleRoot(dir string) string {
	for {
		if info, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil && !info.IsDir() {
			return dir
		}
		up := filepath.Dir(dir)
		if up == dir {
			return ""
		}
		dir = up
	}
}

func syntaxError(err error) error {
	list, ok := errors.AsType[scanner.ErrorList](err)
	if !ok {
		return fmt.Errorf("%w: %w", build.ErrSource, err)
	}
	out := &build.CompileError{Output: err.Error()}
	for _, e := range list {
		out.Problems = append(out.Problems, build.Problem{File: e.Pos.Filename, Line: e.Pos.Line, Column: e.Pos.Column, Message: e.Msg})
	}
	return out
}
