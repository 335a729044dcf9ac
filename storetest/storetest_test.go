package storetest

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"maps"
	"os"
	"os/exec"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
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
		if bug.caughtBy == tornSwap {
			continue // takes its time: see TestTornSwapIsFound
		}
		t.Run(bug.name, func(t *testing.T) {
			t.Parallel()
			found := findings(t, time.Millisecond, func() session.Store { return newBroken(bug.seed) })
			if found[bug.caughtBy] == nil || lacks(found[bug.caughtBy]) {
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
		"memory":    func() session.Store { return new(session.MemoryStore) },
		"reference": func() session.Store { return newStore() },
	} {
		for c, finding := range findings(t, raceTime, newStore) {
			if !lacks(finding) || c != "validate" || name != "memory" { // which has nothing to validate
				t.Errorf("%s: %s: %v", name, c, finding)
			}
		}
	}
}

// A store need not take longer keys than the contract says.
func TestLongestKey(t *testing.T) {
	t.Parallel()
	longest := 0
	findings(t, time.Millisecond, func() session.Store {
		return newBroken(changesKeys(func(key string) string {
			longest = max(longest, len(key))
			return key
		}))
	})
	if longest != 255 {
		t.Errorf("the longest key of all cases has %d bytes, want 255", longest)
	}
}

// What a store lacks is said of each case that is about it, and of no other.
func TestLackingCapabilities(t *testing.T) {
	t.Parallel()
	const (
		list     = "keys of all records; keys of deleted and expired records; many keys, each once; keys, and away; keys with a cancelled context"
		validate = "validate"
		clear    = "clear"
	)
	for _, tt := range []struct {
		name     string
		newStore func() session.Store
		want     []string
	}{
		{"all", func() session.Store { return newStore() }, nil},
		{"none", func() session.Store { return struct{ session.Store }{newStore()} }, []string{list, validate, clear}},
		{"lists only", func() session.Store { return struct{ session.KeyLister }{newStore()} }, []string{validate, clear}},
		{"clears only", func() session.Store { return struct{ session.Clearer }{newStore()} }, []string{list, validate}},
		{"validates only", func() session.Store { return struct{ session.Validator }{newStore()} }, []string{list, clear}},
		{"a decorator that cannot", func() session.Store { return newBroken(lacksAtRunTime) }, []string{list, clear}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			var want []string
			for _, names := range tt.want {
				want = append(want, strings.Split(names, "; ")...)
			}
			slices.Sort(want)
			found := findings(t, time.Millisecond, tt.newStore)
			for name, finding := range found {
				if !lacks(finding) {
					t.Errorf("%s: %v", name, finding)
				}
			}
			if got := slices.Sorted(maps.Keys(found)); !slices.Equal(got, want) {
				t.Errorf("lacking for the cases %q, want %q", got, want)
			}
		})
	}
}

func lacksAtRunTime(s *store) {
	s.keys = func(context.Context) iter.Seq2[string, error] {
		return func(yield func(string, error) bool) { yield("", fmt.Errorf("list: %w", errors.ErrUnsupported)) }
	}
	s.clearAll = func(context.Context) error { return fmt.Errorf("clear: %w", errors.ErrUnsupported) }
}

// A store that does nothing, and says so to nobody, is found out and makes no case panic.
func TestSilentStore(t *testing.T) {
	t.Parallel()
	found := findings(t, time.Millisecond, func() session.Store { return silentStore{} })
	for _, c := range cases() {
		if found[c.name] == nil {
			t.Logf("no finding of %s", c.name)
		}
	}
	if all := len(cases()); len(found) < all*3/4 {
		t.Errorf("%d of %d cases find something", len(found), all)
	}
}

// A swap that is torn for a few nanoseconds only is found as good as always, in real
// time and in a bubble, within the time that the race has.
func TestTornSwapIsFound(t *testing.T) {
	if runtime.GOMAXPROCS(0) < 2 {
		t.Skip("on one processor hardly a goroutine comes between the two steps of another")
	}
	c := caseOf(t, tornSwap)
	torn := func(*testing.T) session.Store { return newBroken(tearSwap) }
	for _, mode := range []struct {
		name string
		find func() error
	}{
		{"in real time", func() error { return c.inRealTime(t, torn(t)) }},
		{"in a bubble", func() error { return c.inBubble(t, raceTime, torn) }},
	} {
		const runs = 100
		found, longest := 0, time.Duration(0)
		for range runs {
			start := time.Now()
			if mode.find() != nil {
				found++
			}
			longest = max(longest, time.Since(start))
		}
		t.Logf("%s: found in %d of %d runs, each within %v", mode.name, found, runs, longest)
		if found < runs*99/100 {
			t.Errorf("%s: found in %d of %d runs", mode.name, found, runs)
		}
	}
}

// The races of a store end in time, if it is slow.
func TestRacesEnd(t *testing.T) {
	t.Parallel()
	c := caseOf(t, tornSwap)
	start := time.Now()
	slow := newBroken(func(s *store) { // one call after the other
		load, swap := s.load, s.swap
		s.load = func(c call) ([]byte, error) {
			time.Sleep(time.Millisecond)
			return load(c)
		}
		s.swap = func(c call) error {
			time.Sleep(time.Millisecond)
			return swap(c)
		}
	})
	if err := c.inRealTime(t, slow); err != nil {
		t.Error(err)
	}
	if took := time.Since(start); took < raceTime || took > 5*time.Second {
		t.Errorf("with a millisecond for each call the races take %v, want about %v", took, raceTime)
	}
}

// Run asks for one store at a time, so that newStore may count them.
func TestRun(t *testing.T) {
	t.Parallel()
	var asking atomic.Int32
	Run(t, func(*testing.T) session.Store {
		if n := asking.Add(1); n != 1 {
			t.Errorf("asked for %d stores at once", n)
		}
		time.Sleep(time.Millisecond)
		asking.Add(-1)
		return new(session.MemoryStore)
	})
}

func TestRunInBubble(t *testing.T) {
	RunInBubble(t, func(*testing.T) session.Store { return new(session.MemoryStore) })
}

// Each way to run fails on a broken store: with its finding, and the sentence of the
// contract.
func TestFailuresAreReported(t *testing.T) {
	t.Parallel()
	out, err := runAll(t, "broken", "^delete_of_an_unknown_key$")
	if exit := new(exec.ExitError); !errors.As(err, &exit) {
		t.Fatalf("tests of a broken store: error %v, want a failure\n%s", err, out)
	}
	for _, want := range []string{
		"--- FAIL: TestInItsOwnProcess/Run/delete_of_an_unknown_key",
		"--- FAIL: TestInItsOwnProcess/RunSequential/delete_of_an_unknown_key",
		"--- FAIL: TestInItsOwnProcess/RunInBubble/delete_of_an_unknown_key",
		`Delete of "k": error session: not found`,
		"the contract: Delete removes the record under key. It is no error if there is none.",
	} {
		if !strings.Contains(out, want) {
			t.Errorf("a failure does not say %q:\n%s", want, out)
		}
	}
}

// What a store lacks is skipped, with the reason, and has not passed.
func TestLacksAreSkipped(t *testing.T) {
	t.Parallel()
	out, err := runAll(t, "plain", "^(load after create|keys of all records|clear|validate)$")
	if err != nil {
		t.Fatalf("error %v\n%s", err, out)
	}
	for _, mode := range []string{"Run", "RunSequential", "RunInBubble"} {
		for _, want := range []string{"PASS: %s/load_after_create ", "SKIP: %s/keys_of_all_records ", "SKIP: %s/clear ", "SKIP: %s/validate "} {
			if want = fmt.Sprintf("--- "+want, "TestInItsOwnProcess/"+mode); !strings.Contains(out, want) {
				t.Errorf("no line %q:\n%s", want, out)
			}
		}
	}
	if want := "the store is no session.KeyLister"; strings.Count(out, want) != 3 {
		t.Errorf("a skipped case does not say %q:\n%s", want, out)
	}
}

// With -run, one case runs alone, written as in the list of cases. Nothing is asked of a
// store for the others.
func TestOneCaseAlone(t *testing.T) {
	t.Parallel()
	out, err := runAll(t, "right", "^swap by the same bytes$")
	if err != nil {
		t.Fatalf("error %v\n%s", err, out)
	}
	var want []string
	for _, mode := range []string{"Run", "RunSequential", "RunInBubble"} {
		name := "TestInItsOwnProcess/" + mode + "/swap_by_the_same_bytes"
		want = append(want, "begin "+name, "end "+name)
	}
	if got := storesOf(out); !slices.Equal(got, want) {
		t.Errorf("stores %q, want %q\n%s", got, want, out)
	}
}

// No name has what -run, a shell or a regular expression takes for something else.
func TestNamesOfCases(t *testing.T) {
	t.Parallel()
	plain := regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9, ]*$`)
	for _, c := range cases() {
		if !plain.MatchString(c.name) {
			t.Errorf("the name %q", c.name)
		}
	}
}

// Run has all stores at once, and asks for one after the other. RunSequential asks for
// the next one when the one before has been cleaned up.
func TestStoresAtOnceAndInSequence(t *testing.T) {
	t.Parallel()
	out, err := runAll(t, "right", "^(and no longer|create after expiry)$")
	if err != nil {
		t.Fatalf("error %v\n%s", err, out)
	}
	got := storesOf(out)
	for mode, want := range map[string][]string{
		"Run":           {"begin", "begin", "end", "end"},
		"RunSequential": {"begin", "end", "begin", "end"},
		"RunInBubble":   {"begin", "end", "begin", "end"},
	} {
		var steps []string
		for _, line := range got {
			if step, name, _ := strings.Cut(line, " "); strings.HasPrefix(name, "TestInItsOwnProcess/"+mode+"/") {
				steps = append(steps, step)
			}
		}
		if !slices.Equal(steps, want) {
			t.Errorf("%s: %q, want %q\n%s", mode, steps, want, out)
		}
	}
}

// TestInItsOwnProcess is what runAll runs, in a process with flags of its own.
func TestInItsOwnProcess(t *testing.T) {
	kind := os.Getenv("STORETEST_STORE")
	if kind == "" {
		return
	}
	newStoreOfKind := func(t *testing.T) session.Store {
		fmt.Println("\nbegin", t.Name())
		t.Cleanup(func() { fmt.Println("\nend", t.Name()) })
		switch kind {
		case "broken":
			return newBroken(func(s *store) { s.delete = func(call) error { return session.ErrNotFound } })
		case "plain":
			return struct{ session.Store }{newStore()}
		}
		return newStore()
	}
	t.Run("Run", func(t *testing.T) { Run(t, newStoreOfKind) })
	t.Run("RunSequential", func(t *testing.T) { RunSequential(t, newStoreOfKind) })
	t.Run("RunInBubble", func(t *testing.T) { RunInBubble(t, newStoreOfKind) })
}

// runAll runs cases by -run in each way that there is, in another process, on stores of
// a kind.
func runAll(t *testing.T, kind, run string) (out string, err error) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.v", "-test.run=^TestInItsOwnProcess$/^Run/"+run)
	cmd.Env = append(os.Environ(), "STORETEST_STORE="+kind)
	output, err := cmd.CombinedOutput()
	return string(output), err
}

// storesOf returns the lines that tell when a store was asked for, and when cleaned up.
func storesOf(out string) []string {
	return regexp.MustCompile(`(?m)^(begin|end) .*$`).FindAllString(out, -1)
}

// unchecked are the sentences of the contract that no case can show.
var unchecked = []string{
	"Where something is there that no Store wrote, it returns an error that is ErrUnreadable.", // a Store is all that a case has
	"It does not ask a server.", // nor does a case see what is asked
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
func findings(t *testing.T, races time.Duration, newStore func() session.Store) map[string]error {
	found := make(map[string]error)
	for _, c := range cases() {
		if err := c.inBubble(t, races, func(*testing.T) session.Store { return newStore() }); err != nil {
			found[c.name] = err
		}
	}
	return found
}

func lacks(finding error) bool {
	_, ok := errors.AsType[lack](finding)
	return ok
}

func newBroken(seed func(*store)) *store {
	s := newStore()
	seed(s)
	return s
}

func caseOf(t *testing.T, name string) *testCase {
	t.Helper()
	all := cases()
	i := slices.IndexFunc(all, func(c testCase) bool { return c.name == name })
	if i < 0 {
		t.Fatalf("there is no case %q", name)
	}
	return &all[i]
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
