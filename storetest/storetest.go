// Package storetest checks that a session.Store keeps its contract.
//
// A store's author runs it in a test:
//
//	func TestStore(t *testing.T) {
//		storetest.Run(t, func(t *testing.T) session.Store { return newMyStore(t) })
//	}
//
// There is a case for each sentence of the contract, which a failure quotes. The
// optional capabilities ([session.KeyLister], [session.Clearer], [session.Validator])
// are checked where the store has them. Where it has not, or answers with
// [errors.ErrUnsupported], their cases are skipped.
//
// # Which function
//
//   - [Run] runs all cases at once: a few seconds. The store of each case must be out of
//     the way of the others', by a prefix or a table of its own.
//   - [RunSequential] runs one case after the other: half a minute. It is for a store
//     that there is only once, as a file or a shared database; newStore empties it.
//   - [RunInBubble] passes the time by itself: a second. It is for a store in memory.
//
// With each of them, some cases call their store from many goroutines at once. A swap
// that is not atomic by a few nanoseconds only is found where there are two processors.
//
// # One case alone
//
// Each case is a subtest, which needs no other. Its name is what a failure begins with:
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

// Run runs all cases at once, each on a store of its own from newStore: an empty one,
// or one that nobody else writes to. It calls newStore for one case at a time. Time is
// real; what it takes is the few seconds that the longest case waits for records to
// expire.
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

// RunSequential is Run with one case after the other. It calls newStore when the case
// before has ended, and what that left to [testing.T.Cleanup] is done. So newStore may
// return the same store each time, if it empties it.
func RunSequential(t *testing.T, newStore func(t *testing.T) session.Store) {
	for _, c := range cases() {
		t.Run(c.name, func(t *testing.T) { report(t, &c, c.inRealTime(t, newStore(t))) })
	}
}

// RunInBubble is RunSequential for a store that lives in this process alone, and takes
// its time from package time: each case runs in a bubble of testing/synctest, where
// hours pass at once.
func RunInBubble(t *testing.T, newStore func(t *testing.T) session.Store) {
	for _, c := range cases() {
		t.Run(c.name, func(t *testing.T) { report(t, &c, c.inBubble(t, raceTime, newStore)) })
	}
}

// A testCase checks one sentence of the contract. It returns its finding, rather than
// failing a test, so that the suite can be tested: a broken store must be found.
type testCase struct {
	name, rule string
	check      func(ctx context.Context, store session.Store) error
}

// raceTime is how long a case goes on with a race in which it finds nothing. It is some
// hundred times what it takes to find a torn swap of nanoseconds in a store in memory, on
// a machine that is busy with other things.
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

// A lack is the finding that the store has not what the case is about.
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
