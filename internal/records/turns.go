package records

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/seed-4f96e14b/session/internal/wire"
)

// Turns let a Keeper make one save of a session at a time. A record remembers the last save of
// each Keeper: one that made two at once could not tell what became of the first, if its reply
// was lost. And requests that change one session at once wait for each other, rather than
// refuse each other's saves.
//
// The zero value is ready for use, by many goroutines at once.
type turns struct {
	mu     sync.Mutex
	queues map[string][]chan struct{} // of sessions that somebody saves: who waits, the first first
}

// take waits for the turn to save the session with that name. Turns are given in the order
// of the calls. It reports whether it had to wait: then others have saved the session
// meanwhile. The error is an ErrUnavailable if the wait is longer than most, or than ctx
// lasts. Without an error, the caller has to call give.
func (t *turns) take(ctx context.Context, name string, most time.Duration) (waited bool, err error) {
	t.mu.Lock()
	queue, taken := t.queues[name]
	if !taken {
		if t.queues == nil {
			t.queues = make(map[string][]chan struct{})
		}
		t.queues[name] = nil
		t.mu.Unlock()
		return false, nil
	}
	mine := make(chan struct{})
	t.queues[name] = append(queue, mine)
	t.mu.Unlock()

	timer := time.NewTimer(most) // a store in memory has a context that does not end
	defer timer.Stop()
	select {
	case <-mine:
		return true, nil
	case <-timer.C:
	case <-ctx.Done():
	}
	if !t.leave(name, mine) {
		t.give(name) // the turn came at the same moment
	}
	return true, fmt.Errorf("%w: save: %w: others were still saving it after %v", wire.ErrUnavailable, wire.ErrContended, most)
}

// leave takes one who waits out of the queue, and reports whether it was there.
func (t *turns) leave(name string, mine chan struct{}) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	queue := t.queues[name]
	i := slices.Index(queue, mine)
	if i >= 0 {
		t.queues[name] = slices.Delete(queue, i, i+1)
	}
	return i >= 0
}

// give hands the turn to the next.
func (t *turns) give(name string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	queue := t.queues[name]
	if len(queue) == 0 {
		delete(t.queues, name)
		return
	}
	close(queue[0])
	t.queues[name] = queue[1:]
}
