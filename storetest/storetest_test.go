package storetest

import (
	"context"
	"errors"
	"iter"
	"maps"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/seed-4f96e14b/session"
)

// Each case has a bug that it is there to catch.
func TestEachCaseCatchesABugOfItsOwn(t *testing.T) {
	t.Parallel()
	caught := make(map[string]string)
	for _, bug := range bugs {
		if other, taken := caught[bug.caughtBy]; taken {
			t.Errorf("%q and %q name the same case %q", other, bug.name, bug.caughtBy)
		}
		caught[bug.caughtBy] = bug.name
	}
	seen := make(map[string]bool)
	for _, c := range cases() {
		if seen[c.name] {
			t.Errorf("two cases have the name %q", c.name)
		}
		seen[c.name] = true
		if caught[c.name] == "" {
			t.Errorf("no seeded bug for the case %q", c.name)
		}
	}
	names := make(map[string]bool)
	for _, bug := range slices.Concat(bugs, moreBugs) {
		if names[bug.name] {
			t.Errorf("two bugs have the name %q", bug.name)
		}
		names[bug.name] = true
		if !seen[bug.caughtBy] {
			t.Errorf("%s: there is no case %q", bug.name, bug.caughtBy)
		}
	}
}

// The suite runs to its end on every broken store, and the case that is there for the
// bug finds it.
func TestSeededBugsAreCaught(t *testing.T) {
	t.Parallel()
	for _, bug := range slices.Concat(bugs, moreBugs) {
		t.Run(bug.name, func(t *testing.T) {
			t.Parallel()
			found := findings(t, func() session.Store {
				s := newStore()
				bug.seed(s)
				return s
			})
			if found[bug.caughtBy] == nil {
				t.Errorf("the case %q finds nothing", bug.caughtBy)
			}
			for _, name := range slices.Sorted(maps.Keys(found)) {
				t.Logf("%s: %.300v", name, found[name])
			}
		})
	}
}

func TestCorrectStoresPass(t *testing.T) {
	t.Parallel()
	for name, newStore := range map[string]func() session.Store{
		"memory":               func() session.Store { return new(session.MemoryStore) },
		"reference":            func() session.Store { return newStore() },
		"without capabilities": func() session.Store { return struct{ session.Store }{newStore()} },
	} {
		for c, finding := range findings(t, newStore) {
			t.Errorf("%s: %s: %v", name, c, finding)
		}
	}
}

// A store that does nothing, and says so to nobody, is found out and makes no case panic.
func TestSilentStore(t *testing.T) {
	t.Parallel()
	found := findings(t, func() session.Store { return silentStore{} })
	for _, c := range cases() {
		if found[c.name] == nil {
			t.Logf("no finding of %s", c.name)
		}
	}
	if all := len(cases()); len(found) < all*3/4 {
		t.Errorf("%d of %d cases find something", len(found), all)
	}
}

func TestRun(t *testing.T) {
	t.Parallel()
	Run(t, func(*testing.T) session.Store { return new(session.MemoryStore) })
}

func TestRunInBubble(t *testing.T) {
	RunInBubble(t, func(*testing.T) session.Store { return new(session.MemoryStore) })
}

// Both Run and RunInBubble fail on a broken store: with its finding, and the sentence
// of the contract.
func TestRunReportsFindings(t *testing.T) {
	if os.Getenv("STORETEST_BROKEN") != "" {
		broken := func(*testing.T) session.Store {
			s := newStore()
			s.delete = func(call) error { return session.ErrNotFound }
			return s
		}
		t.Run("real", func(t *testing.T) { Run(t, broken) })
		t.Run("bubble", func(t *testing.T) { RunInBubble(t, broken) })
		return
	}
	t.Parallel()
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestRunReportsFindings$/^(real|bubble)$/^delete_of_an_unknown_key$")
	cmd.Env = append(os.Environ(), "STORETEST_BROKEN=1")
	out, err := cmd.CombinedOutput()
	if exit := new(exec.ExitError); !errors.As(err, &exit) {
		t.Fatalf("tests of a broken store: error %v, want a failure\n%s", err, out)
	}
	for _, want := range []string{
		"--- FAIL: TestRunReportsFindings/real/delete_of_an_unknown_key",
		"--- FAIL: TestRunReportsFindings/bubble/delete_of_an_unknown_key",
		`Delete of "k": error session: not found`,
		"the contract: Delete removes the record under key. It is no error if there is none.",
	} {
		if !strings.Contains(string(out), want) {
			t.Errorf("a failure does not say %q:\n%s", want, out)
		}
	}
}

// unchecked are the sentences of the contract that no case can show.
var unchecked = []string{
	"Where something is there that no Store wrote, it returns an error that is ErrUnreadable.", // a Store is all that a case has
	"It asks no server.", // nor does a case see what is asked
}

// The cases quote the contract word for word, and leave out no sentence of it.
func TestCasesQuoteTheContract(t *testing.T) {
	t.Parallel()
	contract := contractSentences(t)
	quoted := slices.Clone(unchecked)
	for _, c := range cases() {
		for _, sentence := range sentences(c.rule) {
			quoted = append(quoted, sentence)
			if !slices.Contains(contract, sentence) {
				t.Errorf("%s: the contract does not say %q", c.name, sentence)
			}
		}
	}
	for _, sentence := range contract {
		if !slices.Contains(quoted, sentence) {
			t.Errorf("no case for %q", sentence)
		}
	}
	for _, sentence := range unchecked {
		if !slices.Contains(contract, sentence) {
			t.Errorf("the contract no longer says %q", sentence)
		}
	}
}

// contractSentences returns what store.go says about what a store has to do: the list
// in the comment on Store with the line below it, and the comments on the methods.
func contractSentences(t *testing.T) []string {
	source, err := os.ReadFile("../store.go")
	if err != nil {
		t.Fatal(err)
	}
	var all []string
	block := ""
	for line := range strings.Lines(string(source)) {
		text, comment := strings.CutPrefix(strings.TrimSpace(line), "//")
		item := strings.HasPrefix(text, "   - ") || strings.HasPrefix(text, "  - ")
		inInterface := strings.HasPrefix(line, "\t//")
		if !comment || item || strings.TrimSpace(text) == "" {
			all = append(all, sentences(block)...)
			block = ""
		}
		if strings.HasPrefix(line, "var (") {
			return all // the errors follow
		}
		if comment && (block != "" || item || inInterface || strings.HasPrefix(text, " All methods")) {
			block += " " + strings.TrimPrefix(strings.TrimSpace(text), "- ")
		}
	}
	t.Fatal("store.go does not look as it did")
	return nil
}

var sentenceEnd = regexp.MustCompile(`\. ([A-Z])`)

func sentences(text string) []string {
	text = strings.Join(strings.Fields(text), " ")
	if text == "" {
		return nil
	}
	return strings.Split(sentenceEnd.ReplaceAllString(text, ".\n$1"), "\n")
}

// findings runs all cases, each in a bubble and on a store of its own, and returns what
// they find by their names.
func findings(t *testing.T, newStore func() session.Store) map[string]error {
	found := make(map[string]error)
	for _, c := range cases() {
		synctest.Test(t, func(t *testing.T) {
			if err := c.check(t.Context(), newStore()); err != nil {
				found[c.name] = err
			}
		})
	}
	return found
}

type silentStore struct{}

func (silentStore) Load(context.Context, string) ([]byte, error)                { return nil, nil }
func (silentStore) Create(context.Context, string, []byte, time.Duration) error { return nil }
func (silentStore) CompareAndSwap(context.Context, string, []byte, []byte, time.Duration) error {
	return nil
}
func (silentStore) Delete(context.Context, string) error { return nil }
func (silentStore) Keys(context.Context) iter.Seq2[string, error] {
	return func(func(string, error) bool) {}
}
func (silentStore) Clear(context.Context) error { return nil }
