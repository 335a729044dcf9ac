package session_test

import (
	"bytes"
	"encoding/json"
	"os/exec"
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

// A program that uses the library gets nothing of tests, and of other modules only
// go-redis, securecookie and what they bring.
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

	var ours []string
	for path, p := range packages {
		if path == "testing" || strings.HasPrefix(path, "testing/") {
			t.Errorf("the library has package %s in it", path)
		}
		if p.Module == nil || p.Module.Path != module {
			continue
		}
		ours = append(ours, strings.TrimPrefix(strings.TrimPrefix(path, module), "/"))
		for _, path := range p.Imports {
			imported := packages[path]
			if imported.Standard {
				continue
			}
			switch from := imported.Module; {
			case from == nil:
				t.Errorf("%s imports %s, which go list does not list", p.ImportPath, path)
			case !slices.Contains([]string{module, "github.com/redis/go-redis/v9", "github.com/gorilla/securecookie"}, from.Path):
				t.Errorf("%s imports %s of module %s", p.ImportPath, path, from.Path)
			}
		}
	}
	slices.Sort(ours)
	check(t, "our packages in it", strings.Join(ours, ", "), ", expressjs, internal/wire")
}
