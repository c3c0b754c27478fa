package gosource

import (
	"go/ast"
)

// topFuncs are a package's functions that belong to no type, by name.
func topFuncs(files []*ast.File) map[string]*ast.FuncDecl {
	out := map[string]*ast.FuncDecl{}
	for _, file := range files {
		for _, decl := range file.Decls {
			if f, ok := decl.(*ast.FuncDecl); ok && f.Recv == nil {
				out[f.Name.Name] = f
			}
		}
	}
	return out
}

// methods are those of one type, by name.
func methods(files []*ast.File, named string) map[string]*ast.FuncType {
	out := map[string]*ast.FuncType{}
	for _, file := range files {
		for _, decl := range file.Decls {
			f, ok := decl.(*ast.FuncDecl)
			if ok && f.Recv != nil && len(f.Recv.List) == 1 && typeName(f.Recv.List[0].Type) == named {
				out[f.Name.Name] = f.Type
			}
		}
	}
	return out
}

// interfaceMethod finds a method that an interface of the package lists itself.
func interfaceMethod(files []*ast.File, named, method string) *ast.FuncType {
	for _, file := range files {
		for _, decl := range file.Decls {
			group, ok := decl.(*ast.GenDecl)
			if !ok {
				continue
			}
			for _, spec := range group.Specs {
				t, ok := spec.(*ast.TypeSpec)
				if !ok || t.Name.Name != named {
					continue
				}
				if found := listed(t.Type, method); found != nil {
					return found
				}
			}
		}
	}
	return nil
}

func listed(t ast.Expr, method string) *ast.FuncType {
	face, ok := t.(*ast.InterfaceType)
	if !ok {
		return nil
	}
	for _, field := range face.Methods.List {
		if f, ok := field.Type.(*ast.FuncType); ok && len(field.Names) == 1 && field.Names[0].Name == method {
			return f
		}
	}
	return nil
}

// typeName is a type's own name, without pointer and parameters.
func typeName(t ast.Expr) string {
	switch t := t.(type) {
	case *ast.Ident:
		return t.Name
	case *ast.StarExpr:
		return typeName(t.X)
	case *ast.IndexExpr:
		return typeName(t.X)
	case *ast.IndexListExpr:
		return typeName(t.X)
	case *ast.SelectorExpr:
		return typeName(t.X) + "." + t.Sel.Name
	case *ast.ParenExpr:
		return typeName(t.X)
	}
	return "a type without a name"
}

// isForeign says whether a type comes from another package.
func isForeign(t ast.Expr) bool {
	if star, ok := t.(*ast.StarExpr); ok {
		t = star.X
	}
	_, ok := t.(*ast.SelectorExpr)
	return ok
}

// flatten lists a field list's types, one for each value.
func flatten(fields *ast.FieldList) []string {
	if fields == nil {
		return nil
	}
	var out []string
	for _, field := range fields.List {
		text := typeName(field.Type)
		if _, ok := field.Type.(*ast.StarExpr); ok {
			text = "*" + text
		}
		for range max(len(field.Names), 1) {
			out = append(out, text)
		}
	}
	return out
}

func count(fields *ast.FieldList) int {
	if fields == nil {
		return 0
	}
	return fields.NumFields()
}
