// Package storetest checks that a session.Store keeps its contract.
//
// The author of a store runs it in a test:
//
//	func TestStore(t *testing.T) {
//		storetest.Run(t, func(t *testing.T) session.Store { return newMyStore(t) })
//	}
//
// There is a case for each sentence of the contract, and a failure quotes the sentence. The cases
// of an optional capability ([session.KeyLister], [session.Clearer], [session.Validator]) are
// skipped if the store does not have it, or answers with [errors.ErrUnsupported].
//
// # Which function
//
//   - [Run] runs all cases at once, which takes a few seconds. Each case needs a store that the
//     others do not share, by a prefix or a table of its own.
//   - [RunSequential] runs one case after the other, which takes half a minute. It is for a store
//     that exists once, such as a file or a shared database; newStore empties it.
//   - [RunInBubble] lets time pass at once, and takes a second. It is for a store in memory.
//
// In each of them, some cases call their store from many goroutines at once. To find a swap
// that is not atomic for a few nanoseconds, they need two processors.
//
// # One case alone
//
// Each case is a subtest that does not depend on the others. A failure begins with its name:
//
//	go test -run '^TestStore$/^swap by the same bytes$'
package storetest

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/seed-4f96e14b/session"
)

// Run runs all cases at once. Each gets a store of its own from newStore: an empty one,
// or one that the other cases do not write to. Run makes one call of newStore at a time. It takes
// a few seconds, because the longest case waits for records to expire.
func Run(t *testing.T, newStore func(t *testing.T) session.Store) {
	var running sync.WaitGroup
	for _, c := range cases() {
		next, ready := context.WithCancel(context.Background())
		running.Go(func() {
			defer ready() // also where -run leaves the case out, or newStore fails
			t.Run(c.name, func(t *testing.T) {
				store := newStore(t)
				ready()
				report(t, &c, c.inRealTime(t, store))
			})
		})
		<-next.Done()
	}
	running.Wait()
}

// RunSequential runs one case after the other. It calls newStore when the case
// before has ended and its [testing.T.Cleanup] functions have run. So newStore may
// return the same store each time, if it empties it.
func RunSequential(t *testing.T, newStore func(t *testing.T) session.Store) {
	for _, c := range cases() {
		t.Run(c.name, func(t *testing.T) { report(t, &c, c.inRealTime(t, newStore(t))) })
	}
}

// RunInBubble is RunSequential for a store that lives in this process alone, and takes
// its time from package time. Each case runs in a bubble of testing/synctest, in which
// hours pass at once.
func RunInBubble(t *testing.T, newStore func(t *testing.T) session.Store) {
	for _, c := range cases() {
		t.Run(c.name, func(t *testing.T) { report(t, &c, c.inBubble(t, raceTime, newStore)) })
	}
}

// A testCase checks one sentence of the contract. It returns its finding instead of
// failing a test, so that the tests of this package can check that it finds a broken store.
type testCase struct {
	name, rule string
	check      func(ctx context.Context, store session.Store) error
}

// raceTime is how long a case goes on with a race in which it finds nothing. That is some
// hundred times as long as it takes, on a busy machine, to find a swap in a store in memory that is
// not atomic for a few nanoseconds.
const raceTime = time.Second

func (c *testCase) inRealTime(t *testing.T, store session.Store) error {
	return c.check(context.WithValue(t.Context(), raceOver{}, after(raceTime)), store)
}

func (c *testCase) inBubble(t *testing.T, races time.Duration, newStore func(t *testing.T) session.Store) (finding error) {
	over := after(races)
	synctest.Test(t, func(t *testing.T) {
		finding = c.check(context.WithValue(t.Context(), raceOver{}, over), newStore(t))
	})
	return finding
}

func after(d time.Duration) *atomic.Bool {
	over := new(atomic.Bool)
	time.AfterFunc(d, func() { over.Store(true) })
	return over
}

// A lack is the finding that the store does not have the capability that the case is about.
type lack string

func (l lack) Error() string { return string(l) }

func report(t *testing.T, c *testCase, finding error) {
	t.Helper()
	if lacking, ok := errors.AsType[lack](finding); ok {
		t.Skip(lacking)
	}
	if finding != nil {
		t.Errorf("%v\nthe contract: %s", finding, c.rule)
	}
}
