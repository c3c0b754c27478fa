package main

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"path/filepath"
	"reflect"
	"strings"
)

// read is how a parameter is read.
type read struct {
	kind  string   // "int", "float", "bool" or "duration"; "" is text, or anything that cannot be told
	names []string // by any of which it may be given
}

// kinds holds by file how its parameters are read.
type kinds map[string]map[string]read

// of returns the kinds in the file that reads most of the parameters.
func (k kinds) of(parameters []parameter) map[string]read {
	var best map[string]read
	most := 0.0
	for _, have := range k {
		hits := 0
		for _, p := range parameters {
			if _, ok := have[p.Name]; ok {
				hits++
			}
		}
		if fit := float64(hits) / float64(len(have)+len(parameters)-hits); fit > most {
			best, most = have, fit
		}
	}
	return best
}

// readKinds reads the tags beside the fields that upstream's sources fill from parameters.
func readKinds(folder string) (kinds, error) {
	files, err := filepath.Glob(filepath.Join(folder, "*.go"))
	if err != nil {
		return nil, err
	}
	out := kinds{}
	for _, name := range files {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		file, err := parser.ParseFile(token.NewFileSet(), name, nil, parser.SkipObjectResolution)
		if err != nil {
			return nil, fmt.Errorf("reading upstream's sources: %w", err)
		}
		have := map[string]read{}
		ast.Inspect(file, func(n ast.Node) bool {
			if field, ok := n.(*ast.Field); ok && field.Tag != nil {
				add(have, field)
			}
			return true
		})
		if len(have) > 0 {
			out[name] = have
		}
	}
	return out, nil
}

// add notes a field's parameters; a name that stands for different kinds is taken as text.
func add(have map[string]read, field *ast.Field) {
	tag := reflect.StructTag(strings.Trim(field.Tag.Value, "`")).Get("keda")
	for _, part := range strings.Split(tag, ",") {
		names, ok := strings.CutPrefix(strings.TrimSpace(part), "name=")
		if !ok {
			continue
		}
		all := strings.Split(names, ";")
		for _, name := range all {
			kind := kindOf(field.Type)
			if before, seen := have[name]; seen && before.kind != kind {
				kind = ""
			}
			have[name] = read{kind, all}
		}
	}
}

func kindOf(t ast.Expr) string {
	switch t := t.(type) {
	case *ast.StarExpr:
		return kindOf(t.X)
	case *ast.SelectorExpr:
		if x, ok := t.X.(*ast.Ident); ok && x.Name == "time" && t.Sel.Name == "Duration" {
			return "duration"
		}
	case *ast.Ident:
		switch {
		case t.Name == "bool":
			return "bool"
		case strings.HasPrefix(t.Name, "int"), strings.HasPrefix(t.Name, "uint"):
			return "int"
		case strings.HasPrefix(t.Name, "float"):
			return "float"
		}
	}
	return ""
}
