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
}

func (b boundedStore) Load(ctx context.Context, key string) ([]byte, error) {
	return ask(ctx, b.timeout, func() ([]byte, error) { return b.store.Load(ctx, key) })
}

func (b boundedStore) Create(ctx context.Context, key string, data []byte, ttl time.Duration) error {
	return tell(ctx, b.timeout, func() error { return b.store.Create(ctx, key, data, ttl) })
}

func (b boundedStore) CompareAndSwap(ctx context.Context, key string, old, data []byte, ttl time.Duration) error {
	return tell(ctx, b.timeout, func() error { return b.store.CompareAndSwap(ctx, key, old, data, ttl) })
}

func (b boundedStore) Delete(ctx context.Context, key string) error {
	return tell(ctx, b.timeout, func() error { return b.store.Delete(ctx, key) })
}

func tell(ctx context.Context, timeout time.Duration, call func() error) error {
	_, err := ask(ctx, timeout, func() (struct{}, error) { return struct{}{}, call() })
	return err
}

func ask[T any](ctx context.Context, timeout time.Duration, call func() (T, error)) (T, error) {
	type answer struct {
		value    T
		err      error
		panicked any
		returned bool
	}
	answers := make(chan answer, 1)
	go func() {
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
	}()
	var a answer
	select {
	case a = <-answers:
	case <-ctx.Done():
		select {
		case a = <-answers:
		default:
			a.err = fmt.Errorf("no answer within %v: %w", timeout, ctx.Err())
		}
	}
	if a.panicked != nil {
		panic(a.panicked)
	}
	return a.value, a.err
}

var _ wire.Store = boundedStore{}
