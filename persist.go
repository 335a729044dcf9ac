package session

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"
)

// The functions in this file talk to the store for a Session. They hold no lock.

// stored is a record as the store has it.
type stored struct {
	raw []byte
	record
}

// bound returns the context for one load or one save. It ends when StoreTimeout
// is over, and not when the client leaves.
func (m *Manager) bound(ctx context.Context) (context.Context, context.CancelFunc) {
	ctx = context.WithoutCancel(ctx)
	if m.inProcess {
		return ctx, func() {}
	}
	return context.WithTimeout(ctx, m.options.StoreTimeout)
}

// ask calls the store, and waits no longer than ctx lasts even if the store
// does. A panic of the store is one of ours.
func ask[T any](ctx context.Context, m *Manager, call func() (T, error)) (T, error) {
	if m.inProcess {
		return call()
	}
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
			a.err = fmt.Errorf("no answer within %v: %w", m.options.StoreTimeout, ctx.Err())
		}
	}
	if a.panicked != nil {
		panic(a.panicked)
	}
	return a.value, a.err
}

// fetch loads a live record. The error is ErrNotFound, ErrUnreadable or ErrUnavailable.
func (m *Manager) fetch(ctx context.Context, handle string) (stored, error) {
	raw, err := ask(ctx, m, func() ([]byte, error) { return m.options.Store.Load(ctx, handle) })
	var r record
	if err == nil {
		r, err = decodeRecord(raw)
	}
	switch {
	case errors.Is(err, ErrNotFound) || errors.Is(err, ErrUnreadable):
		return stored{}, err
	case err != nil:
		return stored{}, unavailable("load", err)
	}
	if m.hasEnded(&r) {
		return stored{}, ErrNotFound
	}
	return stored{raw, r}, nil
}

// create saves next under i, or under another id if i is in use.
func (m *Manager) create(ctx context.Context, i id, next record) (id, stored, error) {
	for attempt := 1; ; attempt++ {
		if now := time.Now().UnixMilli(); m.absoluteEnd(&next) <= now {
			next.created = now // the request outlived the session that it began
		}
		next.secrets = []digest{digestOf(i.secret)}
		next.marks = nil
		marks := []mark{next.stamp()}
		st, err := m.write(ctx, next, nil, func(data []byte, ttl time.Duration) error {
			return m.options.Store.Create(ctx, i.handle, data, ttl)
		})
		switch {
		case err == nil || errors.Is(err, ErrTooLarge):
			return i, st, err
		case errors.Is(err, ErrNotReplicated):
			m.takeBack(ctx, i.handle)
			return i, stored{}, err
		}
		now, lookErr := m.fetch(ctx, i.handle)
		switch {
		case lookErr == nil && now.hasMark(marks): // applied, and the reply was lost
			return i, now, nil
		case !errors.Is(err, ErrConflict):
			m.takeBack(ctx, i.handle)
			return i, stored{}, err
		case errors.Is(lookErr, ErrUnavailable):
			m.takeBack(ctx, i.handle)
			return i, stored{}, lookErr
		}
		i = newID()
		if err := pause(ctx, attempt); err != nil {
			return i, stored{}, unavailable("save", err)
		}
	}
}

// swap replaces old by next. If the store has something else by then, it replays
// the request's changes on that and tries again. The error is ErrNotFound if the
// session has ended.
func (m *Manager) swap(ctx context.Context, handle string, old stored, next record, replay func(*record) error) (stored, error) {
	var marks []mark
	for attempt := 1; ; attempt++ {
		marks = append(marks, next.stamp())
		st, err := m.swapStamped(ctx, handle, old, next)
		switch {
		case err == nil || errors.Is(err, ErrTooLarge) || errors.Is(err, ErrNotFound):
			return st, err
		case errors.Is(err, ErrNotReplicated):
			return stored{}, err
		}
		if errors.Is(err, ErrConflict) {
			if err := pause(ctx, attempt); err != nil {
				return stored{}, unavailable("save", err)
			}
		}
		now, lookErr := m.fetch(ctx, handle)
		switch {
		case lookErr == nil && now.hasMark(marks): // applied, and the reply was lost
			return now, nil
		case !errors.Is(err, ErrConflict):
			return stored{}, err
		case errors.Is(lookErr, ErrUnreadable):
			return stored{}, ErrNotFound // nothing of ours is left to save
		case lookErr != nil:
			return stored{}, lookErr
		}
		old, next = now, now.copy()
		if err := replay(&next); err != nil {
			return stored{}, err
		}
	}
}

// swapOnce replaces old by next with a mark and a deadline of its own.
func (m *Manager) swapOnce(ctx context.Context, handle string, old stored, next record) (stored, error) {
	next.stamp()
	return m.swapStamped(ctx, handle, old, next)
}

func (m *Manager) swapStamped(ctx context.Context, handle string, old stored, next record) (stored, error) {
	if m.hasEnded(&old.record) { // while the request ran, unless another request has moved its deadline
		return stored{}, ErrConflict
	}
	return m.write(ctx, next, &old.record, func(data []byte, ttl time.Duration) error {
		return m.options.Store.CompareAndSwap(ctx, handle, old.raw, data, ttl)
	})
}

// write encodes next with a new deadline and hands it to call. What is too large
// may be written if its values have not grown since old. The error is ErrConflict,
// ErrTooLarge or ErrUnavailable.
func (m *Manager) write(ctx context.Context, next record, old *record, call func(data []byte, ttl time.Duration) error) (stored, error) {
	now := time.Now()
	next.expires = m.deadline(&next, now)
	data := next.encode()
	if len(data) > m.options.MaxBytes && (old == nil || next.size() > old.size()) {
		return stored{}, fmt.Errorf("%w: %d bytes, and MaxBytes is %d", ErrTooLarge, len(data), m.options.MaxBytes)
	}
	ttl := time.Duration(next.expires-now.UnixMilli()) * time.Millisecond
	ttl = min(ttl, never-housekeeping) + housekeeping
	_, err := ask(ctx, m, func() (struct{}, error) { return struct{}{}, call(data, ttl) })
	switch {
	case errors.Is(err, ErrConflict):
		return stored{}, err
	case err != nil:
		return stored{}, unavailable("save", err)
	}
	return stored{data, next}, nil
}

// housekeeping is how long the store keeps a record after its deadline, so that
// the library alone decides when a session ends.
const housekeeping = time.Minute

// remove deletes a record.
func (m *Manager) remove(ctx context.Context, handle string) error {
	_, err := ask(ctx, m, func() (struct{}, error) { return struct{}{}, m.options.Store.Delete(ctx, handle) })
	if err != nil && !errors.Is(err, ErrNotFound) {
		return unavailable("delete", err)
	}
	return nil
}

// takeBack removes a record that nobody got the cookie of. If there is no time left
// for that, the request does not wait for it.
func (m *Manager) takeBack(ctx context.Context, handle string) {
	if m.remove(ctx, handle) == nil {
		return
	}
	go func() {
		ctx, cancel := m.bound(ctx)
		defer cancel()
		_ = m.remove(ctx, handle) // else its time to live does
	}()
}

func unavailable(verb string, err error) error {
	return fmt.Errorf("%w: %s: %w", ErrUnavailable, verb, err)
}

// pause waits a random time, longer with each attempt, so that requests that
// change one session at once come out of each other's step.
func pause(ctx context.Context, attempt int) error {
	if attempt == 1 {
		return ctx.Err()
	}
	timer := time.NewTimer(rand.N(time.Duration(min(attempt, 16)) * time.Millisecond / 2))
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// lifetime returns how long the session lives unused.
func (m *Manager) lifetime(r *record) time.Duration {
	if own, ok := r.maxAge.own(); ok && own > 0 {
		return own
	} else if ok {
		return m.options.idleTimeout(0)
	}
	return m.options.idleTimeout(m.options.Cookie.MaxAge)
}

// cookieMaxAge returns how long the browser is to keep the cookie; 0 until it closes.
func (m *Manager) cookieMaxAge(r *record) time.Duration {
	if own, ok := r.maxAge.own(); ok {
		return own
	}
	return m.options.Cookie.MaxAge
}

// deadline returns when the session ends if it is not used after now.
func (m *Manager) deadline(r *record, now time.Time) int64 {
	return min(now.UnixMilli()+m.lifetime(r).Milliseconds(), m.absoluteEnd(r))
}

// absoluteEnd returns when the session ends however busy it is.
func (m *Manager) absoluteEnd(r *record) int64 {
	return r.created + m.options.absoluteTimeout().Milliseconds()
}

// hasEnded reports whether the time of a session is over.
func (m *Manager) hasEnded(r *record) bool {
	return min(r.expires, m.absoluteEnd(r)) <= time.Now().UnixMilli()
}

// remaining returns the time until the absolute end.
func (m *Manager) remaining(r *record) time.Duration {
	return time.Duration(min(m.absoluteEnd(r)-time.Now().UnixMilli(), never.Milliseconds())) * time.Millisecond
}

// moves is how many times at most the deadline of a session that is only read
// moves within a lifetime.
const moves = 20

// isCapped reports whether the deadline can move no more, because of the absolute end.
func (m *Manager) isCapped(r *record) bool {
	return m.deadline(r, time.Now()) == m.absoluteEnd(r)
}

func (m *Manager) due(r *record) bool {
	return m.deadline(r, time.Now())-r.expires >= m.lifetime(r).Milliseconds()/moves
}
