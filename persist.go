package session

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/seed-4f96e14b/session/internal/wire"
)

// The functions in this file talk to the store for a Session. They hold no lock.

// stored is a record as the store has it.
type stored struct {
	at  string // the store's key
	raw []byte
	wire.Record
}

// bound returns the context for one load or one save. It ends when StoreTimeout
// is over, and not when the client leaves.
func (m *Manager) bound(ctx context.Context) (context.Context, context.CancelFunc) {
	if m.inProcess {
		return context.Background(), func() {}
	}
	return context.WithTimeout(context.WithoutCancel(ctx), m.options.StoreTimeout)
}

// fetch loads a live record. The error is ErrNotFound, ErrUnreadable or ErrUnavailable.
func (m *Manager) fetch(ctx context.Context, handle string) (stored, error) {
	var st stored
	var err error
	if st.at, st.raw, err = m.codec.Load(ctx, m.store, handle); err == nil {
		st.Record, err = m.codec.Decode(st.at, st.raw)
	}
	switch {
	case errors.Is(err, ErrNotFound) || errors.Is(err, ErrUnreadable):
		return stored{}, err
	case err != nil:
		return stored{}, unavailable("load", err)
	}
	if m.hasEnded(&st.Record, time.Now()) {
		return stored{}, ErrNotFound
	}
	return st, nil
}

// create saves next under i, or under another id if i is in use.
func (m *Manager) create(ctx context.Context, i wire.ID, next wire.Record) (wire.ID, stored, error) {
	for attempt := 1; ; attempt++ {
		now := time.Now()
		if m.absoluteEnd(&next) <= now.UnixMilli() {
			next.Created = now.UnixMilli() // the request outlived the session that it began
		}
		digest := wire.DigestOf(i.Secret)
		next.Secrets = digest[:]
		next.Marks = nil
		marks := []wire.Mark{next.Stamp()}
		st, err := m.write(ctx, now, i.Handle, next, nil, func(data []byte, ttl time.Duration) error {
			return m.store.Create(ctx, i.Handle, data, ttl)
		})
		switch {
		case err == nil || errors.Is(err, ErrTooLarge):
			return i, st, err
		case errors.Is(err, ErrNotReplicated):
			m.takeBack(ctx, i.Handle)
			return i, stored{}, err
		}
		found, lookErr := m.fetch(ctx, i.Handle)
		switch {
		case lookErr == nil && found.HasMark(marks): // applied, and the reply was lost
			return i, found, nil
		case !errors.Is(err, ErrConflict):
			m.takeBack(ctx, i.Handle)
			return i, stored{}, err
		case errors.Is(lookErr, ErrUnavailable):
			m.takeBack(ctx, i.Handle)
			return i, stored{}, lookErr
		}
		i = m.codec.NewID()
		if err := wire.Pause(ctx, attempt); err != nil {
			return i, stored{}, unavailable("save", err)
		}
	}
}

// swap replaces old by next. If the store has something else by then, it replays
// the request's changes on that and tries again. The error is ErrNotFound if the
// session has ended.
func (m *Manager) swap(ctx context.Context, old stored, next wire.Record, replay func(*wire.Record) error) (stored, error) {
	var marks []wire.Mark
	var done func()
	defer func() {
		if done != nil {
			done()
		}
	}()
	for attempt := 1; ; attempt++ {
		var st stored
		var err error
		if done == nil && m.conflicts.isBusy(old.at) {
			err = ErrConflict // when our turn comes, old will not be what is there
		} else {
			marks = append(marks, next.Stamp())
			st, err = m.swapStamped(ctx, old, next)
		}
		switch {
		case err == nil || errors.Is(err, ErrTooLarge) || errors.Is(err, ErrNotFound):
			return st, err
		case errors.Is(err, ErrNotReplicated):
			return stored{}, err
		}
		if errors.Is(err, ErrConflict) {
			if done == nil {
				done = m.conflicts.await(ctx, old.at, min(m.options.StoreTimeout/2, patience))
			}
			if err := wire.Pause(ctx, attempt); err != nil {
				return stored{}, unavailable("save", err)
			}
		}
		now, lookErr := m.fetch(ctx, old.at)
		switch {
		case lookErr == nil && now.HasMark(marks): // applied, and the reply was lost
			return now, nil
		case !errors.Is(err, ErrConflict):
			return stored{}, err
		case errors.Is(lookErr, ErrUnreadable):
			return stored{}, ErrNotFound // nothing of ours is left to save
		case lookErr != nil:
			return stored{}, lookErr
		}
		old, next = now, now.Copy()
		if err := replay(&next); err != nil {
			return stored{}, err
		}
	}
}

// settle ends a renewal whose record is stored, and returns the session's new id.
func (m *Manager) settle(ctx context.Context, next wire.ID, st stored) (wire.ID, stored, error) {
	ttl := func(r *wire.Record) time.Duration {
		now := time.Now()
		return m.codec.TTL(time.Duration(m.deadline(r, now)-now.UnixMilli()) * time.Millisecond)
	}
	settled, err := m.codec.Settle(ctx, m.store, wire.Settled{ID: next, At: st.at, Data: st.raw}, ttl)
	switch {
	case errors.Is(err, ErrNotFound):
		return next, stored{}, err
	case err != nil:
		return next, stored{}, unavailable("renew", err)
	case settled.At == st.at:
		return settled.ID, st, nil
	}
	st = stored{at: settled.At, raw: settled.Data}
	if st.Record, err = m.codec.Decode(st.at, st.raw); err != nil {
		return next, stored{}, unavailable("renew", err)
	}
	return settled.ID, st, nil
}

// swapOnce replaces old by next with a mark and a deadline of its own.
func (m *Manager) swapOnce(ctx context.Context, old stored, next wire.Record) (stored, error) {
	next.Stamp()
	return m.swapStamped(ctx, old, next)
}

func (m *Manager) swapStamped(ctx context.Context, old stored, next wire.Record) (stored, error) {
	now := time.Now()
	if m.hasEnded(&old.Record, now) { // while the request ran, unless another request has moved its deadline
		return stored{}, ErrConflict
	}
	return m.write(ctx, now, old.at, next, &old.Record, func(data []byte, ttl time.Duration) error {
		return m.store.CompareAndSwap(ctx, old.at, old.raw, data, ttl)
	})
}

// write encodes next with a deadline that counts from now and hands it to call, which
// writes it to the key at. What is too large
// may be written if its values have not grown since old. The error is ErrConflict,
// ErrTooLarge or ErrUnavailable.
func (m *Manager) write(ctx context.Context, now time.Time, at string, next wire.Record, old *wire.Record, call func(data []byte, ttl time.Duration) error) (stored, error) {
	next.Created = min(next.Created, now.UnixMilli()) // a clock was wrong, and the absolute timeout must not count from its time
	next.Expires = m.deadline(&next, now)
	data := m.codec.Encode(&next)
	if len(data) > m.options.MaxBytes && (old == nil || next.Size() > old.Size()) {
		return stored{}, fmt.Errorf("%w: %d bytes, and MaxBytes is %d", ErrTooLarge, len(data), m.options.MaxBytes)
	}
	ttl := m.ttl(&next, now)
	switch err := call(data, ttl); {
	case errors.Is(err, ErrConflict):
		return stored{}, err
	case err != nil:
		return stored{}, unavailable("save", err)
	}
	return stored{at, data, next}, nil
}

// ttl returns for how long the store is to keep a record.
func (m *Manager) ttl(r *wire.Record, now time.Time) time.Duration {
	return m.codec.TTL(time.Duration(r.Expires-now.UnixMilli()) * time.Millisecond)
}

// remove deletes a record.
func (m *Manager) remove(ctx context.Context, handle string) error {
	err := m.codec.Delete(ctx, m.store, handle)
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

// lifetime returns how long the session lives unused.
func (m *Manager) lifetime(r *wire.Record) time.Duration {
	lifetime := m.options.idleTimeout(m.options.Cookie.MaxAge)
	if own, ok := r.MaxAge.Own(); ok && own > 0 {
		lifetime = own
	} else if ok {
		lifetime = m.options.idleTimeout(0)
	}
	return m.codec.Lifetime(r, lifetime)
}

// cookieMaxAge returns how long the browser is to keep the cookie; 0 until it closes.
func (m *Manager) cookieMaxAge(r *wire.Record) time.Duration {
	if own, ok := r.MaxAge.Own(); ok {
		return own
	}
	return m.options.Cookie.MaxAge
}

// cookieLife is cookieMaxAge for a cookie that is sent now: it ends with the session at
// the latest, and when browsers end it in any case.
func (m *Manager) cookieLife(r *wire.Record) time.Duration {
	life := min(m.cookieMaxAge(r), maxCookieAge)
	if life > 0 {
		remaining := min(m.absoluteEnd(r)-time.Now().UnixMilli(), never.Milliseconds())
		life = max(min(life, time.Duration(remaining)*time.Millisecond), time.Millisecond)
	}
	return life
}

// deadline returns when the session ends if it is not used after now.
func (m *Manager) deadline(r *wire.Record, now time.Time) int64 {
	return min(now.UnixMilli()+m.lifetime(r).Milliseconds(), m.absoluteEnd(r))
}

// absoluteEnd returns when the session ends however busy it is.
func (m *Manager) absoluteEnd(r *wire.Record) int64 {
	return r.Created + m.options.absoluteTimeout().Milliseconds()
}

// hasEnded reports whether the time of a session is over.
func (m *Manager) hasEnded(r *wire.Record, now time.Time) bool {
	return m.codec.IsOver(r.Expires, now) || m.absoluteEnd(r) <= now.UnixMilli()
}

// moves is how many times at most the deadline of a session that is only read
// moves within a lifetime.
const moves = 20

// isCapped reports whether the deadline can move no more, because of the absolute end.
func (m *Manager) isCapped(r *wire.Record) bool {
	return m.deadline(r, time.Now()) == m.absoluteEnd(r)
}

func (m *Manager) due(r *wire.Record) bool {
	return m.deadline(r, time.Now())-r.Expires >= m.lifetime(r).Milliseconds()/moves
}
