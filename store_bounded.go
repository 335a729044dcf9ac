package session

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/seed-4f96e14b/session/internal/wire"
)

// A boundedStore gives up a call of its store when the context ends, even if the store does not. It
// gives up earlier if Redis refuses the connection that the call needs. A panic of the store becomes
// a panic of the caller.
type boundedStore struct {
	store   Store
	timeout time.Duration // of the contexts, for the error
	callers callers       // nil: a new one for each call
	redis   *RedisStore   // nil for another store, or one with a client of an unknown type
	dials   *dials        // of its client
}

// bounded returns the store as a Manager calls it: no call outlives its context.
func bounded(store Store, timeout time.Duration) *boundedStore {
	b := &boundedStore{store: store, timeout: timeout}
	// Other stores get a new goroutine for each call. An idle one would outlive a
	// testing/synctest bubble, in which an app may test a store of its own.
	if redis, ok := store.(*RedisStore); ok && isGoRedis(redis.Client) {
		b.callers, b.redis, b.dials = make(callers), redis, dialsOf(redis.Client)
	}
	return b
}

func (b *boundedStore) Load(ctx context.Context, key string) ([]byte, error) {
	return ask(ctx, b, key, func() ([]byte, error) { return b.store.Load(ctx, key) })
}

func (b *boundedStore) Create(ctx context.Context, key string, data []byte, ttl time.Duration) error {
	return tell(ctx, b, key, func() error { return b.store.Create(ctx, key, data, ttl) })
}

func (b *boundedStore) CompareAndSwap(ctx context.Context, key string, old, data []byte, ttl time.Duration) error {
	return tell(ctx, b, key, func() error { return b.store.CompareAndSwap(ctx, key, old, data, ttl) })
}

func (b *boundedStore) Delete(ctx context.Context, key string) error {
	return tell(ctx, b, key, func() error { return b.store.Delete(ctx, key) })
}

// tell is ask for a call that returns an error only.
func tell(ctx context.Context, b *boundedStore, key string, call func() error) error {
	_, err := ask(ctx, b, key, func() (struct{}, error) { return struct{}{}, call() })
	return err
}

// ask makes the call in another goroutine, and returns its answer or, if that does not come in
// time, an error. A call that was given up goes on, and its answer is dropped.
func ask[T any](ctx context.Context, b *boundedStore, key string, call func() (T, error)) (T, error) {
	type answer struct {
		value    T
		err      error
		panicked any
		returned bool
	}
	answers, first := make(chan answer, 1), b.dials.nextFailure()
	b.callers.run(func() {
		var a answer
		defer func() {
			if !a.returned {
				a.panicked = recover()
				a.err = errors.New("the store's goroutine ended")
			}
			answers <- a
			b.hasAnswered(a.err)
		}()
		a.value, a.err = call()
		a.returned = true
	})
	a, err := await(ctx, b, key, answers, first)
	if a.panicked != nil {
		panic(a.panicked)
	}
	if err = cmp.Or(err, a.err); err != nil && ctx.Err() != nil && errors.Is(err, ctx.Err()) {
		err = noAnswer{within: b.timeout, ended: ctx.Err(), cause: b.cause(key)}
	}
	return a.value, err
}

// A refusal counts if it still stands after some looks. Between two of them, a call finds a
// free connection, even on a busy machine.
const (
	looksAtRefusal = 2
	betweenLooks   = 12 * time.Millisecond
)

// await waits for the answer to a call. First is the first dial that could fail after the call
// began. The error is that of the context, or that of a dial if the key's server refuses it and no
// connection is left that could answer.
func await[A any](ctx context.Context, b *boundedStore, key string, answers <-chan A, first *failure) (a A, err error) {
	var begun, last *refusal
	var look <-chan time.Time
	looks := 0
	for next := first; ; {
		select {
		case a = <-answers:
			return a, nil
		case <-next.happens:
			next = b.dials.nextFailure()
			if look != nil {
				continue
			}
			if r := b.refusal(key, first); r.err != nil {
				begun, last, looks = cmp.Or(begun, &r), &r, 0
				look = time.After(betweenLooks)
			}
		case <-look:
			look = nil
			r := b.refusal(key, first)
			if r.err == nil || !r.isTotal(*begun) || r.reused != last.reused {
				continue
			}
			if looks++; looks == looksAtRefusal {
				return a, r.err
			}
			look = time.After(betweenLooks)
		case <-ctx.Done():
			select {
			case a = <-answers:
				return a, nil
			default:
				return a, ctx.Err()
			}
		}
	}
}

// hasAnswered is called when a call has ended.
func (b *boundedStore) hasAnswered(err error) {
	if b.redis != nil {
		b.dials.answer(b.redis.Client, err, b.timeout)
	}
}

// refusal returns why the key's server has refused a dial, and what is left that could answer.
func (b *boundedStore) refusal(key string, first *failure) refusal {
	return b.dials.refusal(b.redis.Client, b.redis.key(key), first)
}

// cause returns why there may be no answer for the key, or nil if that is not known.
func (b *boundedStore) cause(key string) error {
	if b.redis == nil {
		return nil
	}
	return b.dials.cause(b.redis.Client, b.redis.key(key))
}

// A noAnswer is the error of a call that was given up. It has the last known cause.
type noAnswer struct {
	within       time.Duration
	ended, cause error // cause may be nil
}

func (e noAnswer) Error() string {
	return fmt.Sprintf("no answer within %v: %v", e.within, cmp.Or(e.cause, e.ended))
}

func (e noAnswer) Unwrap() []error {
	if e.cause == nil {
		return []error{e.ended}
	}
	return []error{e.ended, e.cause}
}

// Callers are goroutines that make calls, one after the other. One that has nothing to do waits for
// the next call. A new goroutine would have to grow its stack first, which is a good part of what a
// call through a client of Redis costs.
type callers chan func()

// idleCaller is for how long a caller waits for another call, at least.
const idleCaller = time.Second

// run makes the call in another goroutine, in one that is idle if there is one.
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

// serve makes the call, and then others, until none has come for a while.
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

var _ wire.Store = (*boundedStore)(nil)
