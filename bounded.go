package session

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/seed-4f96e14b/session/internal/wire"
)

// A boundedStore gives up a call of its store when the context ends, even if the store
// does not. A panic of the store is one of ours.
type boundedStore struct {
	store   Store
	timeout time.Duration // of the contexts, for the error
	callers callers       // nil: a new one for each call
}

func bounded(store Store, timeout time.Duration) boundedStore {
	b := boundedStore{store: store, timeout: timeout}
	// Not for other stores: an idle caller would outlive a testing/synctest bubble, in which
	// an app may test what it does with a store of its own.
	if redis, ok := store.(*RedisStore); ok && isGoRedis(redis.Client) {
		b.callers = make(callers)
	}
	return b
}

func (b boundedStore) Load(ctx context.Context, key string) ([]byte, error) {
	return ask(ctx, b, func() ([]byte, error) { return b.store.Load(ctx, key) })
}

func (b boundedStore) Create(ctx context.Context, key string, data []byte, ttl time.Duration) error {
	return tell(ctx, b, func() error { return b.store.Create(ctx, key, data, ttl) })
}

func (b boundedStore) CompareAndSwap(ctx context.Context, key string, old, data []byte, ttl time.Duration) error {
	return tell(ctx, b, func() error { return b.store.CompareAndSwap(ctx, key, old, data, ttl) })
}

func (b boundedStore) Delete(ctx context.Context, key string) error {
	return tell(ctx, b, func() error { return b.store.Delete(ctx, key) })
}

func tell(ctx context.Context, b boundedStore, call func() error) error {
	_, err := ask(ctx, b, func() (struct{}, error) { return struct{}{}, call() })
	return err
}

func ask[T any](ctx context.Context, b boundedStore, call func() (T, error)) (T, error) {
	type answer struct {
		value    T
		err      error
		panicked any
		returned bool
	}
	answers := make(chan answer, 1)
	b.callers.run(func() {
		var a answer
		defer func() {
			if !a.returned {
				a.panicked = recover()
				a.err = errors.New("the store's goroutine ended")
			}
			answers <- a
		}()
		a.value, a.err = call()
		a.returned = true
	})
	var a answer
	select {
	case a = <-answers:
	case <-ctx.Done():
		select {
		case a = <-answers:
		default:
			a.err = fmt.Errorf("no answer within %v: %w", b.timeout, ctx.Err())
		}
	}
	if a.panicked != nil {
		panic(a.panicked)
	}
	return a.value, a.err
}

// Callers are goroutines that make calls, one after the other. One that has nothing to do
// waits for the next call: a new one would have to grow its stack first, which is a good
// part of what a call through a client of Redis takes.
type callers chan func()

// idleCaller is how long a caller waits for another call, at the least.
const idleCaller = time.Second

func (c callers) run(call func()) {
	if c == nil {
		go call()
		return
	}
	select {
	case c <- call:
	default:
		go c.serve(call)
	}
}

func (c callers) serve(call func()) {
	over := time.NewTicker(idleCaller)
	defer over.Stop()
	for busy := true; ; {
		if call != nil {
			call()
			call, busy = nil, true
		}
		select {
		case call = <-c:
		case <-over.C:
			if !busy {
				return
			}
			busy = false
		}
	}
}

var _ wire.Store = boundedStore{}
