package session_test

import (
	"bytes"
	"cmp"
	"encoding/json"
	"go/ast"
	"go/parser"
	"go/token"
	"go/types"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// A listed package is one of go list's.
type listed struct {
	ImportPath string
	Imports    []string
	Standard   bool
	Module     *struct{ Path string }
}

// A program that uses the library gets nothing of tests, of other modules only go-redis,
// securecookie and what they bring, and each room imports only rooms below it.
func TestLibraryImports(t *testing.T) {
	if _, err := exec.LookPath("go"); err != nil {
		t.Skipf("the go tool is not installed: %v", err)
	}
	const module = "github.com/seed-4f96e14b/session"
	list := exec.Command("go", "list", "-deps", "-json=ImportPath,Imports,Standard,Module", ".", "./expressjs")
	var problems bytes.Buffer
	list.Stderr = &problems
	out, err := list.Output()
	if err != nil {
		t.Fatalf("go list: %v\n%s", err, problems.String())
	}
	packages := make(map[string]listed)
	for d := json.NewDecoder(bytes.NewReader(out)); d.More(); {
		var p listed
		if err := d.Decode(&p); err != nil {
			t.Fatal(err)
		}
		packages[p.ImportPath] = p
	}

	for path, p := range packages {
		if path == "testing" || strings.HasPrefix(path, "testing/") {
			t.Errorf("the library has package %s in it", path)
		}
		if p.Module == nil || p.Module.Path != module {
			continue
		}
		room := strings.TrimPrefix(strings.TrimPrefix(path, module), "/")
		allowed, known := rooms[room]
		if !known {
			t.Errorf("package %q is in the library, and not in the table of this test", room)
		}
		for _, path := range p.Imports {
			ours, isOurs := strings.CutPrefix(path, module)
			name := cmp.Or(strings.TrimPrefix(ours, "/"), "session")
			switch imported := packages[path]; {
			case isOurs && !slices.Contains(allowed, name):
				t.Errorf("package %q imports package %q", room, name)
			case imported.Standard && path == "net/http" && room == "internal/records":
				t.Errorf("package %q knows HTTP", room)
			case !isOurs && !imported.Standard && (imported.Module == nil || !slices.Contains(allowed, imported.Module.Path)):
				t.Errorf("package %q imports %s", room, path)
			}
		}
	}
}

// rooms are the packages of the library, and what each may import beside the standard library.
// An import may only lead down.
var rooms = map[string][]string{
	"expressjs":        {"session", "internal/wire", "internal/retry"},
	"":                 {"internal/records", "internal/native", "internal/wire", "github.com/redis/go-redis/v9"},
	"internal/records": {"internal/wire", "internal/retry"},
	"internal/native":  {"internal/wire", "github.com/gorilla/securecookie"},
	"internal/wire":    {},
	"internal/retry":   {},
}

// sources returns the files of a package of the library, without its tests.
func sources(t *testing.T, room string) map[string]*ast.File {
	t.Helper()
	names, err := filepath.Glob(filepath.Join(filepath.FromSlash(cmp.Or(room, ".")), "*.go"))
	if err != nil || len(names) == 0 {
		t.Fatalf("no files in %q (%v)", room, err)
	}
	files := make(map[string]*ast.File)
	for _, name := range names {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		file, err := parser.ParseFile(fileSet, name, nil, parser.ParseComments)
		if err != nil {
			t.Fatal(err)
		}
		files[filepath.ToSlash(name)] = file
	}
	return files
}

var fileSet = token.NewFileSet()

// A function can be read without scrolling.
func TestFunctionsAreShort(t *testing.T) {
	const longest = 45
	for _, room := range append(slices.Collect(maps.Keys(rooms)), "storetest") {
		for name, file := range sources(t, room) {
			for _, decl := range file.Decls {
				if f, ok := decl.(*ast.FuncDecl); ok && f.Body != nil {
					lines := fileSet.Position(f.End()).Line - fileSet.Position(f.Pos()).Line + 1
					if lines > longest {
						t.Errorf("%s: %s has %d lines, and may have %d", name, f.Name.Name, lines, longest)
					}
				}
			}
		}
	}
}

// A test can be found: no file of tests is longer than this.
func TestTestFilesAreShort(t *testing.T) {
	const longest = 1000
	err := filepath.WalkDir(".", func(name string, entry fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case entry.IsDir() && (entry.Name() == "testdata" || entry.Name() == ".git"):
			return filepath.SkipDir
		case !strings.HasSuffix(name, "_test.go"):
			return nil
		}
		data, err := os.ReadFile(name)
		if lines := bytes.Count(data, []byte("\n")); lines > longest {
			t.Errorf("%s has %d lines, and may have %d", name, lines, longest)
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
}

// The tables in the comments of next and answer say, line by line, what the code does.
func TestTablesAreTheCode(t *testing.T) {
	for _, tt := range []struct {
		file, function string
		results        map[string]string // of the table, as the code has them
	}{
		{"commit.go", "next", nil},
		{"reply.go", "answer", map[string]string{
			"as before":                            "before",
			"kept":                                 "keepCookie",
			"issued":                               "issueCookie",
			"issued, or before the commit owed":    "owed(oweIssue, issueCookie, did.when)",
			"refreshed, or before the commit owed": "owed(oweRefresh, refreshCookie, did.when)",
		}},
	} {
		f := functionNamed(t, sources(t, "")[tt.file], tt.function)
		var table []string
		for line := range strings.Lines(f.Doc.Text()) {
			if row, ok := strings.CutPrefix(line, "\t"); ok {
				cells := regexp.MustCompile(` {2,}`).Split(strings.TrimSpace(row), -1)
				result := cells[len(cells)-1]
				table = append(table, cmp.Or(tt.results[result], result))
			}
		}
		var code []string
		ast.Inspect(f.Body, func(n ast.Node) bool {
			if r, ok := n.(*ast.ReturnStmt); ok {
				code = append(code, types.ExprString(r.Results[0]))
			}
			return true
		})
		check(t, tt.function, strings.Join(table[1:], "\n"), strings.Join(code, "\n"))
	}
}

func functionNamed(t *testing.T, file *ast.File, name string) *ast.FuncDecl {
	t.Helper()
	for _, decl := range file.Decls {
		if f, ok := decl.(*ast.FuncDecl); ok && f.Name.Name == name {
			return f
		}
	}
	t.Fatalf("no function %s", name)
	return nil
}

// Nothing but answer decides about the cookie, but for a session that is gone, and nothing but
// next about what a save does.
func TestDecisionsAreMadeOnce(t *testing.T) {
	cookies, steps := make(map[string]int), 0
	for _, file := range sources(t, "") {
		ast.Inspect(file, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.AssignStmt:
				for i, left := range n.Lhs {
					if types.ExprString(left) == "s.reply.cookie" {
						value, _, _ := strings.Cut(types.ExprString(n.Rhs[i]), "(")
						cookies[value]++
					}
				}
			case *ast.CallExpr:
				if types.ExprString(n.Fun) == "s.do" {
					steps++
					if given := types.ExprString(n.Args[0]); given != "next" && !strings.HasPrefix(given, "s.next(") {
						t.Errorf("do gets %s", given)
					}
				}
			}
			return true
		})
	}
	check(t, "what sets the cookie", cookies, map[string]int{
		"s.answer":     5, // after create, replace, confirm (made, and failed) and touch
		"keepCookie":   2, // where a session begins, and where it has ended
		"removeCookie": 1, // by Destroy
	})
	check(t, "calls of do", steps, 4)
}
