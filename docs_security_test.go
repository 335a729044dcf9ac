package session_test

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/seed-4f96e14b/session"
)

// asvs are the requirements of ASVS 5.0 that touch sessions or cookies.
const asvs = `1.2.1 1.4.2 1.5.2 2.3.3 2.3.4 2.4.1 3.1.1 3.3.1 3.3.2 3.3.3 3.3.4 3.3.5 3.4.1 3.5.1 3.5.2 3.5.3 3.5.4 3.7.5
	4.1.3 4.2.4 4.2.5 4.4.3 4.4.4 7.1.1 7.1.2 7.1.3 7.2.1 7.2.2 7.2.3 7.2.4 7.3.1 7.3.2 7.4.1 7.4.2 7.4.3 7.4.4 7.4.5
	7.5.1 7.5.2 7.5.3 7.6.1 7.6.2 8.2.4 9.1.1 9.1.2 9.1.3 9.2.1 9.2.2 9.2.3 9.2.4 10.1.2 11.1.1 11.1.2
	11.2.1 11.2.2 11.2.3 11.2.4 11.2.5 11.3.1 11.3.2 11.3.3 11.3.4 11.3.5 11.4.1 11.4.3 11.5.1 11.5.2 12.3.1 12.3.2
	13.1.2 13.1.3 13.2.1 13.2.3 13.2.6 13.3.1 13.3.4 14.2.1 14.2.2 14.2.5 14.2.7 14.3.1 14.3.2 14.3.3 15.3.5 15.3.7
	15.4.1 15.4.2 15.4.3 15.4.4 16.2.5 16.3.3 16.3.4 16.4.1 16.5.1 16.5.2 16.5.3 16.5.4`

// securityTables are the tables of docs/security.md by their headings, with what their first
// columns have, in order, and how many columns there are.
func securityTables() map[string]struct {
	ids     []string
	columns int
} {
	numbers := func(n int) (ids []string) {
		for i := range n {
			ids = append(ids, fmt.Sprint(i+1))
		}
		return ids
	}
	return map[string]struct {
		ids     []string
		columns int
	}{
		"ASVS 5.0":                      {strings.Fields(asvs), 5},
		"25 checks":                     {numbers(25), 3},
		"Advisories of other libraries": {numbers(44), 4},
		"Faults":                        {numbers(40), 4},
		"Cookies":                       {numbers(14), 4},
	}
}

// tableRows reads the tables of a text in Markdown, by their headings.
func tableRows(text string) map[string][][]string {
	rows := make(map[string][][]string)
	heading := ""
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		if title, ok := strings.CutPrefix(line, "## "); ok {
			heading = title
		}
		if !strings.HasPrefix(line, "|") {
			continue
		}
		cells := strings.Split(strings.Trim(line, "|"), "|")
		for i := range cells {
			cells[i] = strings.TrimSpace(cells[i])
		}
		if regexp.MustCompile(`^[0-9]`).MatchString(cells[0]) {
			rows[heading] = append(rows[heading], cells)
		}
	}
	return rows
}

// findings returns what is wrong with the text of docs/security.md, where exists says which
// tests there are.
func findings(text string, exists func(name string) bool) (wrong []string) {
	say := func(format string, args ...any) { wrong = append(wrong, fmt.Sprintf(format, args...)) }
	tables := tableRows(text)
	ranked := make(map[string]bool)
	for heading, want := range securityTables() {
		var ids []string
		for _, row := range tables[heading] {
			ids = append(ids, row[0])
			at := heading + " " + row[0]
			if len(row) != want.columns || slices.Contains(row[:len(row)-1], "") {
				say("%s: %d columns, want %d, all but the last with a text", at, len(row), want.columns)
				continue
			}
			var tests []string
			for _, quoted := range regexp.MustCompile("`[^`]+`").FindAllString(row[len(row)-1], -1) {
				tests = append(tests, strings.Trim(quoted, "`"))
			}
			keeper := "default"
			if heading == "ASVS 5.0" {
				keeper = regexp.MustCompile(`^\w*`).FindString(row[3])
			}
			switch {
			case !slices.Contains([]string{"default", "option", "application"}, keeper):
				say("%s: it is kept by %q", at, row[3])
			case keeper != "application" && len(tests) == 0:
				say("%s: no test", at)
			case heading == "25 checks" && (ranked[tests[0]] || !strings.HasPrefix(tests[0], "TestSecurity")):
				say("%s: %s is not the test of this check alone", at, tests[0])
			}
			if heading == "25 checks" && len(tests) > 0 {
				ranked[tests[0]] = true
			}
			for _, name := range tests {
				if !exists(name) {
					say("%s: there is no %s", at, name)
				}
			}
		}
		if !slices.Equal(ids, want.ids) {
			say("%s: the rows are %v, want %v", heading, ids, want.ids)
		}
	}
	return wrong
}

// testNames returns the names of all tests, examples and fuzz targets, those of other
// directories as "examples/auth.TestX".
func testNames(t *testing.T) map[string]bool {
	t.Helper()
	names := make(map[string]bool)
	err := filepath.WalkDir(".", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || !strings.HasSuffix(path, "_test.go") {
			return err
		}
		file, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.SkipObjectResolution)
		if err != nil {
			return err
		}
		prefix := ""
		if dir := filepath.ToSlash(filepath.Dir(path)); dir != "." {
			prefix = dir + "."
		}
		for _, decl := range file.Decls {
			if f, ok := decl.(*ast.FuncDecl); ok && f.Recv == nil && regexp.MustCompile("^(Test|Example|Fuzz)").MatchString(f.Name.Name) {
				names[prefix+f.Name.Name] = true
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return names
}

// docs/security.md has every row, each with a test that is there unless it is the
// application's; every test of a rank has its row; and links and numbers are right.
func TestSecurityDocs(t *testing.T) {
	data, err := os.ReadFile("docs/security.md")
	if err != nil {
		t.Fatal(err)
	}
	text := string(data)
	names := testNames(t)
	exists := func(name string) bool {
		name = regexp.MustCompile(`^([\w/]+\.)?(Test|Example|Fuzz)\w*`).FindString(name) // without the subtest
		return names[name]
	}
	for _, wrong := range findings(text, exists) {
		t.Error(wrong)
	}
	for name := range names {
		if strings.HasPrefix(name, "TestSecurity") && name != "TestSecurityDocs" && name != "TestSecurityDocsFindsWhatIsMissing" && !regexp.MustCompile(`(?m)^\| \d+ \|[^|]*\| `+"`"+name+"`").MatchString(text) {
			t.Errorf("%s has no rank", name)
		}
	}
	for _, link := range regexp.MustCompile(`\]\(([^)]+)\)`).FindAllStringSubmatch(text, -1) {
		if file, anchor, _ := strings.Cut(link[1], "#"); strings.HasPrefix(file, "../") {
			if _, err := os.Stat(filepath.Join("docs", file)); err != nil {
				t.Error(err)
			}
		} else if file == "" && !strings.Contains(slugs(text), "\n"+anchor+"\n") {
			t.Errorf("there is no heading #%s", anchor)
		}
	}
	for name := range strings.SplitSeq(regexp.MustCompile("`(Example\\w+)`").ReplaceAllString(text, "\n$1\n"), "\n") {
		if strings.HasPrefix(name, "Example") && !names[name] {
			t.Errorf("there is no %s", name)
		}
	}
	check(t, "the default without use", session.DefaultIdleTimeout, 24*time.Hour)
	check(t, "the default in any case", session.DefaultAbsoluteTimeout, 30*24*time.Hour)
}

// slugs returns what GitHub makes of the headings, one a line.
func slugs(text string) string {
	all := "\n"
	for _, heading := range regexp.MustCompile(`(?m)^## (.*)$`).FindAllStringSubmatch(text, -1) {
		slug := strings.ReplaceAll(strings.ToLower(heading[1]), " ", "-")
		all += regexp.MustCompile(`[^a-z0-9-]`).ReplaceAllString(slug, "") + "\n"
	}
	return all
}

// A row that is missing, says nothing, or names what is not there is found.
func TestSecurityDocsFindsWhatIsMissing(t *testing.T) {
	data, err := os.ReadFile("docs/security.md")
	if err != nil {
		t.Fatal(err)
	}
	text := string(data)
	all := func(string) bool { return true }
	if wrong := findings(text, all); len(wrong) > 0 {
		t.Fatalf("%q", wrong)
	}
	line := func(begins string) string {
		_, after, _ := strings.Cut(text, "\n"+begins)
		rest, _, _ := strings.Cut(after, "\n")
		return begins + rest + "\n"
	}
	cells := func(begins string) []string { return strings.Split(line(begins), "|") }
	const beside = "| 3 | a logout is final, whatever runs beside it | "
	for name, spoil := range map[string]func() string{
		"a row less":       func() string { return strings.Replace(text, line("| 7.4.1 |"), "", 1) },
		"a check less":     func() string { return strings.Replace(text, line("| 25 | all"), "", 1) },
		"an advisory less": func() string { return strings.Replace(text, line("| 44 |"), "", 1) },
		"a fault less":     func() string { return strings.Replace(text, line("| 40 | HEAD"), "", 1) },
		"a row twice":      func() string { return strings.Replace(text, line("| 7.4.1 |"), line("| 7.4.1 |")+line("| 7.4.1 |"), 1) },
		"no test":          func() string { return strings.Replace(text, cells("| 7.4.1 |")[5], " ", 1) },
		"nobody keeps it": func() string {
			return strings.Replace(text, "| 7.4.1 | 1 | what has ended is of no more use | default", "| 7.4.1 | 1 | what has ended is of no more use | somebody", 1)
		},
		"no requirement": func() string { return strings.Replace(text, "| what has ended is of no more use |", "| |", 1) },
		"a cell less":    func() string { return strings.Replace(text, "| 3 | Redis hangs |", "| 3 |", 1) },
		"a check with a lent test": func() string {
			return strings.Replace(text, beside+"`TestSecurityLogoutIsFinal`, ", beside, 1)
		},
		"one test for two checks": func() string {
			return strings.Replace(text, beside+"`TestSecurityLogoutIsFinal`", beside+"`TestSecurityOutageIsNeverAnonymous`", 1)
		},
	} {
		spoiled := spoil()
		if spoiled == text {
			t.Errorf("%s: the test changes nothing", name)
		}
		if len(findings(spoiled, all)) == 0 {
			t.Errorf("%s: not found", name)
		}
	}
	if len(findings(text, func(name string) bool { return name != "TestHungStore" })) == 0 {
		t.Error("a test that is not there: not found")
	}
}
