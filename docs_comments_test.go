package session_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"path/filepath"
	"strings"
	"testing"
)

// Every exported identifier has a doc comment, fields and methods too.
func TestEverythingIsDocumented(t *testing.T) {
	for _, dir := range []string{".", "storetest", "expressjs"} {
		files, err := filepath.Glob(filepath.Join(dir, "*.go"))
		if err != nil {
			t.Fatal(err)
		}
		checked := 0
		for _, name := range files {
			if strings.HasSuffix(name, "_test.go") {
				continue
			}
			fset := token.NewFileSet()
			file, err := parser.ParseFile(fset, name, nil, parser.ParseComments)
			if err != nil {
				t.Fatal(err)
			}
			undocumented := func(id *ast.Ident) { t.Errorf("%v: %s has no doc comment", fset.Position(id.Pos()), id.Name) }
			for _, decl := range file.Decls {
				checked += documented(decl, undocumented)
			}
		}
		if checked == 0 {
			t.Errorf("%s: nothing to check: %v", dir, fs.ErrNotExist)
		}
	}
}

func documented(decl ast.Decl, undocumented func(*ast.Ident)) (checked int) {
	check := func(id *ast.Ident, docs ...*ast.CommentGroup) {
		if !id.IsExported() {
			return
		}
		checked++
		for _, doc := range docs {
			if doc.Text() != "" {
				return
			}
		}
		undocumented(id)
	}
	switch decl := decl.(type) {
	case *ast.FuncDecl:
		if decl.Recv == nil || exportedReceiver(decl.Recv.List[0].Type) {
			check(decl.Name, decl.Doc)
		}
	case *ast.GenDecl:
		for _, spec := range decl.Specs {
			switch spec := spec.(type) {
			case *ast.ValueSpec:
				for _, id := range spec.Names {
					check(id, decl.Doc, spec.Doc, spec.Comment)
				}
			case *ast.TypeSpec:
				check(spec.Name, decl.Doc, spec.Doc)
				if s, ok := spec.Type.(*ast.StructType); ok && spec.Name.IsExported() {
					for _, field := range s.Fields.List {
						for _, id := range field.Names {
							check(id, field.Doc, field.Comment)
						}
					}
				}
			}
		}
	}
	return checked
}

func exportedReceiver(t ast.Expr) bool {
	switch t := t.(type) {
	case *ast.StarExpr:
		return exportedReceiver(t.X)
	case *ast.IndexExpr:
		return exportedReceiver(t.X)
	case *ast.Ident:
		return t.IsExported()
	}
	return false
}
