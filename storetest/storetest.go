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
// are checked where the store has them.
package storetest

import (
	"context"
	"testing"
	"testing/synctest"

	"github.com/seed-4f96e14b/session"
)

// Run runs all cases at once, each on a store of its own from newStore: an empty one,
// or one that nobody else writes to. Time is real; what it takes is the few seconds
// that the longest case waits for records to expire.
func Run(t *testing.T, newStore func(t *testing.T) session.Store) {
	cases := cases()
	findings := make([]chan error, len(cases))
	for i, c := range cases {
		findings[i] = make(chan error, 1)
		store := newStore(t)
		go func() { findings[i] <- c.check(t.Context(), store) }()
	}
	for i, c := range cases {
		t.Run(c.name, func(t *testing.T) { c.report(t, <-findings[i]) })
	}
}

// RunInBubble is Run for a store that lives in this process alone, and takes its
// time from package time: each case runs in a bubble of testing/synctest, where
// hours pass at once.
func RunInBubble(t *testing.T, newStore func(t *testing.T) session.Store) {
	for _, c := range cases() {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { c.report(t, c.check(t.Context(), newStore(t))) })
		})
	}
}

// A testCase checks one sentence of the contract. It returns its finding, rather than
// failing a test, so that the suite can be tested: a broken store must be found.
type testCase struct {
	name, rule string
	check      func(ctx context.Context, store session.Store) error
}

func (c *testCase) report(t *testing.T, finding error) {
	t.Helper()
	if finding != nil {
		t.Errorf("%v\nthe contract: %s", finding, c.rule)
	}
}
