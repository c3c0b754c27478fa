package suite

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strings"
)

// A Built is a suite and its program, or why there is none.
type Built struct {
	Suite

	Program string
	Dir     string // of the source, where tests expect to run
	Err     error
}

// Build compiles suites into a folder. One that cannot be built says so in its place.
func Build(ctx context.Context, folder string, suites ...Suite) ([]Built, error) {
	sources, err := list(ctx, suites...)
	if err != nil {
		return nil, err
	}
	all := make([]Built, 0, len(suites))
	packages := make([]string, 0, len(suites))
	for _, s := range suites {
		packages = append(packages, s.Package())
		i := slices.IndexFunc(sources, func(p source) bool { return p.ImportPath == s.Package() })
		if i < 0 {
			return nil, fmt.Errorf("listing suites: %s is missing", s.Package())
		}
		all = append(all, Built{Suite: s, Program: filepath.Join(folder, path.Base(s.Path)+".test"), Dir: sources[i].Dir})
	}
	if compile(ctx, folder, packages...) == nil { // all at once is quicker
		return all, nil
	}
	for i := range all {
		if err := compile(ctx, folder, all[i].Package()); err != nil {
			all[i].Err = fmt.Errorf("building suite %s: %w", all[i].Name, err)
		}
	}
	return all, nil
}

func compile(ctx context.Context, folder string, packages ...string) error {
	args := append([]string{"test", "-c", "-vet=off", "-ldflags=-s -w", tags, "-o", folder + "/"}, packages...)
	if out, err := goCommand(ctx, args...).CombinedOutput(); err != nil {
		return fmt.Errorf("%w\n%s", err, out)
	}
	return nil
}

// Tests lists the suites' test functions as their source has them, whether it can be built or not, by
// the name of their suite.
func Tests(ctx context.Context, suites ...Suite) (map[string][]string, error) {
	sources, err := list(ctx, suites...)
	if err != nil {
		return nil, err
	}
	tests := map[string][]string{}
	for _, p := range sources {
		i := slices.IndexFunc(suites, func(s Suite) bool { return s.Package() == p.ImportPath })
		if i < 0 {
			return nil, fmt.Errorf("listing suites: nobody asked for %s", p.ImportPath)
		}
		if tests[suites[i].Name], err = p.tests(); err != nil {
			return nil, fmt.Errorf("reading suite %s: %w", suites[i].Name, err)
		}
	}
	return tests, nil
}

// isTest knows func TestX(t *testing.T); TestMain takes another type.
func isTest(f *ast.FuncDecl) bool {
	if f.Recv != nil || !strings.HasPrefix(f.Name.Name, "Test") || f.Type.Params.NumFields() != 1 {
		return false
	}
	star, ok := f.Type.Params.List[0].Type.(*ast.StarExpr)
	if !ok {
		return false
	}
	kind, ok := star.X.(*ast.SelectorExpr)
	return ok && kind.Sel.Name == "T"
}

// A source is what the go command tells about a suite's package.
type source struct {
	ImportPath, Dir           string
	TestGoFiles, XTestGoFiles []string
}

func (p *source) tests() ([]string, error) {
	var names []string
	for _, file := range append(p.TestGoFiles, p.XTestGoFiles...) {
		tree, err := parser.ParseFile(token.NewFileSet(), filepath.Join(p.Dir, file), nil, parser.SkipObjectResolution)
		if err != nil {
			return nil, err
		}
		for _, d := range tree.Decls {
			if f, ok := d.(*ast.FuncDecl); ok && isTest(f) {
				names = append(names, f.Name.Name)
			}
		}
	}
	return names, nil
}

// list asks for the packages of suites, which come in the order of their paths.
func list(ctx context.Context, suites ...Suite) ([]source, error) {
	args := []string{"list", tags, "-json=ImportPath,Dir,TestGoFiles,XTestGoFiles"}
	for i := range suites {
		args = append(args, suites[i].Package())
	}
	out, err := goCommand(ctx, args...).Output()
	if err != nil {
		return nil, fmt.Errorf("listing suites: %w", err)
	}
	var sources []source
	for decoder := json.NewDecoder(bytes.NewReader(out)); decoder.More(); {
		var p source
		if err := decoder.Decode(&p); err != nil {
			return nil, fmt.Errorf("listing suites: %w", err)
		}
		sources = append(sources, p)
	}
	return sources, nil
}

// goCommand runs in this module, whose go.mod says which Knative it is.
func goCommand(ctx context.Context, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, "go", args...)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	return cmd
}
