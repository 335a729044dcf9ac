package expressjs_test

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// A semanticsRow is a row of SEMANTICS.md.
type semanticsRow struct {
	id, behaviour, verdict, reason string
	tests                          []string
}

// semantics reads the tables of SEMANTICS.md whose first column is id.
func semantics(t *testing.T) (rows []semanticsRow) {
	t.Helper()
	text, err := os.ReadFile("SEMANTICS.md")
	if err != nil {
		t.Fatal(err)
	}
	inTable := false
	for line := range strings.Lines(string(text)) {
		if !strings.HasPrefix(line, "|") {
			inTable = false
			continue
		}
		cells := strings.Split(strings.Trim(strings.TrimSpace(line), "|"), "|")
		for i := range cells {
			cells[i] = strings.TrimSpace(cells[i])
		}
		switch {
		case cells[0] == "id":
			inTable = true
		case !inTable || strings.HasPrefix(cells[0], "-"):
		case len(cells) != 4:
			t.Errorf("a row with %d cells: %s", len(cells), line)
		default:
			row := semanticsRow{id: cells[0], behaviour: cells[1]}
			row.verdict, row.reason, _ = strings.Cut(cells[2], ": ")
			for _, quoted := range regexp.MustCompile("`[^`]+`").FindAllString(cells[3], -1) {
				row.tests = append(row.tests, strings.Trim(quoted, "`"))
			}
			rows = append(rows, row)
		}
	}
	return rows
}

// testsOfExpress are the groups of express-session's own tests.
const testsOfExpress = `SS 16, END 5, NF 2, SIG 2, EXP 3, BAD 1, PX 7, PA 6, SA 4, FN 2, SM 11, GI 5, KY 2, NM 2, RO 5, RS 6, SU 6, SE 6,
	UN 5, RE 3, RQ 5, DE 1, RG 1, RL 3, SV 4, TO 1, CA 7, OM 3, CS 2, MA 3, EX 4, PT 3, SY 2, CP 4, CK 18`

// wantedIDs are all rows that there have to be.
func wantedIDs(t *testing.T) (ids []string) {
	t.Helper()
	numbered := func(format, prefix string, n int) {
		for i := range n {
			ids = append(ids, fmt.Sprintf(format, prefix, i+1))
		}
	}
	for _, group := range []struct {
		prefix string
		n      int
	}{
		{"P", 10}, {"D", 3}, {"MX", 8}, {"CI", 8}, {"CO", 11}, {"EXPI", 9}, {"W", 6}, {"WT", 6}, {"SEC", 4}, {"V", 4},
		{"CR", 8}, {"CC", 7}, {"CQ", 9}, {"CE", 4}, {"CF", 4}, {"GO", 9},
	} {
		numbered("%s-%d", group.prefix, group.n)
	}
	for _, table := range []struct {
		prefix string
		n      int
	}{{"SAVE", 14}, {"TOUCH", 4}, {"COOKIE", 12}, {"DEST", 1}, {"INT", 14}} {
		numbered("%s-%02d", table.prefix, table.n)
	}
	for letter := 'A'; letter <= 'I'; letter++ {
		ids = append(ids, "SM-"+string(letter))
	}
	for action := range handlerActions {
		ids = append(ids, "F-"+action, "N-"+action)
	}
	for _, action := range unsetActions {
		ids = append(ids, "F-"+action, "N-"+action)
	}
	before := len(ids)
	for group := range strings.SplitSeq(testsOfExpress, ",") {
		prefix, n, _ := strings.Cut(strings.TrimSpace(group), " ")
		count, err := strconv.Atoi(n)
		if err != nil {
			t.Fatal(err)
		}
		numbered("%s-%02d", prefix, count)
	}
	if n := len(ids) - before; n != 160 {
		t.Fatalf("%d tests of express-session, want 160", n)
	}
	return ids
}

// SEMANTICS.md has every behaviour once, with a verdict, the reason for what is not the
// same, and a test that is there.
func TestSemantics(t *testing.T) {
	rows := semantics(t)
	seen := make(map[string]int)
	for _, row := range rows {
		seen[row.id]++
	}
	wanted := wantedIDs(t)
	for _, id := range wanted {
		if seen[id] != 1 {
			t.Errorf("%s is there %d times", id, seen[id])
		}
		delete(seen, id)
	}
	for id := range seen {
		t.Errorf("%s is no behaviour that we know of", id)
	}

	tests := testFunctions(t)
	named := make(map[string]bool)
	for _, row := range rows {
		if !slices.Contains([]string{"same", "different", "n/a"}, row.verdict) {
			t.Errorf("%s: verdict %q", row.id, row.verdict)
		}
		if row.behaviour == "" || row.verdict != "same" && row.reason == "" {
			t.Errorf("%s: no behaviour, or no reason", row.id)
		}
		if row.verdict != "n/a" && len(row.tests) == 0 {
			t.Errorf("%s: no test", row.id)
		}
		for _, name := range row.tests {
			named[name] = true
			if err := tests.find(name); err != nil {
				t.Errorf("%s: %v", row.id, err)
			}
		}
		if own := "TestBehaviour/" + row.id; tests.find(own) == nil && !slices.Contains(row.tests, own) {
			t.Errorf("%s does not name its own test", row.id)
		}
	}
	ids := make(map[string]bool)
	for _, b := range behaviours() {
		if ids[b.id] {
			t.Errorf("TestBehaviour/%s is there twice", b.id)
		}
		ids[b.id] = true
		if !named["TestBehaviour/"+b.id] {
			t.Errorf("no row names TestBehaviour/%s", b.id)
		}
	}
}

// functions are the test functions of this package, and those of the root package as
// "session.TestX". Each has the texts that it is written with.
type functions map[string][]string

func testFunctions(t *testing.T) functions {
	t.Helper()
	all := make(functions)
	for prefix, pattern := range map[string]string{"": "*_test.go", "session.": "../*_test.go"} {
		files, err := filepath.Glob(pattern)
		if err != nil || len(files) == 0 {
			t.Fatalf("%s: %v", pattern, err)
		}
		for _, name := range files {
			file, err := parser.ParseFile(token.NewFileSet(), name, nil, parser.SkipObjectResolution)
			if err != nil {
				t.Fatal(err)
			}
			for _, decl := range file.Decls {
				if f, ok := decl.(*ast.FuncDecl); ok && f.Recv == nil && strings.HasPrefix(f.Name.Name, "Test") {
					all[prefix+f.Name.Name] = textsIn(f)
				}
			}
		}
	}
	return all
}

func textsIn(f *ast.FuncDecl) (texts []string) {
	ast.Inspect(f, func(n ast.Node) bool {
		if lit, ok := n.(*ast.BasicLit); ok && lit.Kind == token.STRING {
			if text, err := strconv.Unquote(lit.Value); err == nil {
				texts = append(texts, text)
			}
		}
		return true
	})
	return texts
}

// find returns an error if there is no such test. A subtest is written as -run has it; one of
// the vectors is in their file.
func (all functions) find(name string) error {
	function, subtest, _ := strings.Cut(name, "/")
	texts, ok := all[function]
	if !ok {
		return fmt.Errorf("there is no %s", function)
	}
	if subtest == "" {
		return nil
	}
	first, _, _ := strings.Cut(subtest, "/")
	switch {
	case function == "TestBehaviour":
		ok = slices.ContainsFunc(behaviours(), func(b behaviour) bool { return b.id == first })
	case strings.HasPrefix(function, "TestVectors"):
		data, err := os.ReadFile("testdata/express.json")
		if err != nil {
			return err
		}
		pattern := `"name": ?"` + strings.ReplaceAll(regexp.QuoteMeta(subtest), "_", "[ _]") + `"`
		ok = regexp.MustCompile(pattern).Match(data)
	default:
		ok = slices.ContainsFunc(texts, func(text string) bool { return strings.ReplaceAll(text, " ", "_") == first })
	}
	if !ok {
		return fmt.Errorf("%s has no subtest %q", function, first)
	}
	return nil
}

// A row that names what is not there is found.
func TestSemanticsFindsWhatIsMissing(t *testing.T) {
	tests := testFunctions(t)
	for _, name := range []string{"TestBehaviour", "TestBehaviour/SS-05", "TestBehaviour/F-noop/due", "session.TestFoundSession/modify,_save", "TestVectorsFlows/disableTouch"} {
		if err := tests.find(name); err != nil {
			t.Error(err)
		}
	}
	for _, name := range []string{"TestNothing", "TestFoundSession", "session.TestBehaviour", "TestBehaviour/SS-99", "session.TestFoundSession/fly", "TestVectorsFlows/none"} {
		if tests.find(name) == nil {
			t.Errorf("found %s", name)
		}
	}
}
