package session

import (
	"context"
	"sync"
	"time"
)

// Queues are for the saves of this process that another has overtaken: those of one session
// are made one after the other. Without them, of n requests that change one session at the
// same time, each save that goes through would refuse n-1 others, again and again.
//
// They decide nothing. Who has waited for long goes on without, and the
// compare-and-swap sees to it that no change is lost, also between processes.
//
// The zero value is ready for use, by many goroutines at once.
type queues struct {
	mu    sync.Mutex
	byKey map[string]*queue
}

type queue struct {
	taken chan struct{} // holds one element while somebody has the turn
	users int           // who have it or wait for it
}

// isBusy reports whether somebody has the turn for the key, or waits for it.
func (q *queues) isBusy(key string) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.byKey[key] != nil
}

// patience is how long a save waits for its turn, at the most.
const patience = time.Second

// await waits for the turn, but no longer than most, or than ctx lasts. Who has called it
// has to call done.
func (q *queues) await(ctx context.Context, key string, most time.Duration) (done func()) {
	q.mu.Lock()
	if q.byKey == nil {
		q.byKey = make(map[string]*queue)
	}
	its := q.byKey[key]
	if its == nil {
		its = &queue{taken: make(chan struct{}, 1)}
		q.byKey[key] = its
	}
	its.users++
	q.mu.Unlock()

	timer := time.NewTimer(most)
	defer timer.Stop()
	got := false
	select {
	case its.taken <- struct{}{}:
		got = true
	case <-timer.C:
	case <-ctx.Done():
	}
	return func() {
		if got {
			<-its.taken
		}
		q.mu.Lock()
		defer q.mu.Unlock()
		if its.users--; its.users == 0 {
			delete(q.byKey, key)
		}
	}
}
