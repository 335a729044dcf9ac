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
type stored = wire.Stored

// bound returns the context for one load or one save. It ends when StoreTimeout
// is over, and not when the client leaves.
func (m *Manager) bound(ctx context.Context) (context.Context, context.CancelFunc) {
	if m.inProcess {
		return context.Background(), func() {}
	}
	return context.WithTimeout(context.WithoutCancel(ctx), m.options.StoreTimeout)
}

// load returns the live session that a cookie opens, and what the cookie is worth. The error
// is ErrNotFound, wire.ErrReplaced, ErrUnreadable or ErrUnavailable.
func (m *Manager) load(ctx context.Context, id wire.ID) (stored, wire.Standing, error) {
	st, err := m.alive(m.codec.Load(ctx, m.store, id.Handle))
	if err != nil {
		return stored{}, wire.Unknown, err
	}
	switch standing := st.Standing(wire.DigestOf(id.Secret), time.Now()); standing {
	case wire.Unknown:
		return stored{}, standing, ErrNotFound
	case wire.Worthless:
		return stored{}, standing, wire.ErrReplaced
	default:
		return st, standing, nil
	}
}

// follow returns what has become of a session that was loaded. The error is ErrNotFound if
// it has ended, ErrUnreadable or ErrUnavailable.
func (m *Manager) follow(ctx context.Context, at string) (stored, error) {
	return m.alive(m.codec.Follow(ctx, m.store, at, time.Time{}))
}

// await returns st, or what has become of it where somebody is moving it.
func (m *Manager) await(ctx context.Context, st stored, err error) (stored, error) {
	for attempt := 2; err == nil && st.Moving; attempt++ {
		if err := wire.Pause(ctx, attempt); err != nil {
			return stored{}, unavailable("save", fmt.Errorf("another request has not finished its renewal: %w", err))
		}
		st, err = m.follow(ctx, st.At)
	}
	return st, err
}

// alive checks what the codec has read.
func (m *Manager) alive(st stored, err error) (stored, error) {
	now := time.Now()
	switch {
	case errors.Is(err, ErrNotFound) || errors.Is(err, ErrUnreadable) || errors.Is(err, wire.ErrReplaced):
		return stored{}, err
	case err != nil:
		return stored{}, unavailable("load", err)
	}
	// A clock was ahead, and no timeout must count from its time.
	st.Created = min(st.Created, now.UnixMilli())
	st.Used = min(st.Used, now.UnixMilli())
	if m.hasEnded(&st.Record, now) {
		return stored{}, ErrNotFound
	}
	return st, nil
}

// create saves next under i, or under another id if i is in use.
func (m *Manager) create(ctx context.Context, i wire.ID, next wire.Record) (id wire.ID, st stored, err error) {
	save, conflicts := m.nextSave(), 0
	defer func() { err = afterConflicts(ctx, conflicts, err) }()
	for attempt := 1; ; attempt++ {
		now := time.Now()
		if m.absoluteEnd(&next) <= now.UnixMilli() {
			next.Created = now.UnixMilli() // the request outlived the session that it began
		}
		next.Secret, next.Saves, next.Used = wire.DigestOf(i.Secret), nil, now.UnixMilli()
		next.Stamp(save)
		st, err := m.write(now, i.Handle, next, nil, func(data []byte, ttl time.Duration) error {
			return m.store.Create(ctx, i.Handle, data, ttl)
		})
		switch {
		case err == nil || errors.Is(err, ErrTooLarge):
			return i, st, err
		case errors.Is(err, ErrNotReplicated):
			m.takeBack(ctx, i.Handle)
			return i, stored{}, err
		}
		found, lookErr := m.follow(ctx, i.Handle)
		switch {
		case lookErr == nil && found.Outcome(save, 0) == wire.Made: // and the reply was lost
			return i, found, nil
		case !errors.Is(err, ErrConflict):
			m.takeBack(ctx, i.Handle)
			return i, stored{}, err
		case errors.Is(lookErr, ErrUnavailable):
			m.takeBack(ctx, i.Handle)
			return i, stored{}, lookErr
		}
		conflicts++
		i = m.codec.NewID()
		if err := wire.Pause(ctx, attempt); err != nil {
			return i, stored{}, unavailable("save", err)
		}
	}
}

// nextSave returns the next save of this Manager. Who saves a session that is in the
// store has its turn.
func (m *Manager) nextSave() wire.Save {
	return wire.Save{Writer: m.writer, Number: m.saves.Add(1)}
}

// A swap is a save of a session that the store has.
type swap struct {
	old     stored      // what it is based on
	next    wire.Record // what is to replace it
	changes []change    // those that made next out of old
	secret  wire.Digest // of the request's cookie
	renewal *renewal    // nil if the request wants none
	renewed bool        // next has the new secret
	isNoUse bool        // the last use that was written stays so
}

// A renewal is to give a session a new secret, and let the one before open the session for
// the time grace more.
type renewal struct {
	next  wire.ID
	grace time.Duration
}

// swap replaces the old record by the next. If the store has something else by then, it
// makes the request's changes on that and tries again. The error is ErrNotFound if the
// session has ended, and ErrRenewed if another request has made all cookies worthless but
// its own since the old record was loaded.
func (m *Manager) swap(ctx context.Context, s swap) (st stored, err error) {
	name := s.old.Name()
	waited, err := m.turns.take(ctx, name, m.options.StoreTimeout)
	if err != nil {
		return stored{}, err
	}
	defer m.turns.give(name)
	save, conflicts := m.nextSave(), 0
	defer func() { err = afterConflicts(ctx, conflicts, err) }()
	if waited || s.old.Moving { // the old record is not the last any more, or will soon not be
		now, err := m.follow(ctx, s.old.At)
		if now, err = m.await(ctx, now, err); err == nil {
			err = m.rebase(&s, now)
		}
		if err != nil {
			return stored{}, gone(err)
		}
	} else if err := m.renew(&s); err != nil {
		return stored{}, err
	}
	for attempt := 1; ; attempt++ {
		st, err := m.try(ctx, &s, save)
		switch {
		case err == nil:
			return m.settle(ctx, &s, st, save)
		case errors.Is(err, ErrTooLarge) || errors.Is(err, ErrNotReplicated):
			return stored{}, err
		}
		if errors.Is(err, ErrConflict) {
			conflicts++
			if err := wire.Pause(ctx, attempt); err != nil {
				return stored{}, unavailable("save", err)
			}
		}
		now, lookErr := m.follow(ctx, s.old.At)
		outcome := wire.NotMade
		if lookErr == nil && !errors.Is(err, errOver) {
			outcome = now.Outcome(save, s.old.Saves.Count())
		}
		switch {
		case outcome == wire.Made: // and the reply was lost
			return m.settle(ctx, &s, now, save)
		case !errors.Is(err, ErrConflict):
			return stored{}, err // it may yet be made
		case lookErr != nil:
			return stored{}, gone(lookErr)
		case outcome == wire.Untellable:
			return stored{}, fmt.Errorf("%w: save: so many others have saved the session meanwhile that nobody can tell whether this save was made", ErrUnavailable)
		}
		if now, err = m.await(ctx, now, nil); err != nil {
			return stored{}, gone(err)
		}
		if err := m.rebase(&s, now); err != nil {
			return stored{}, err
		}
	}
}

// afterConflicts returns the error of a save, which also says how many conflicts it had
// before if its time is over. It is no ErrConflict.
func afterConflicts(ctx context.Context, conflicts int, err error) error {
	if conflicts == 0 || ctx.Err() == nil || !errors.Is(err, ErrUnavailable) {
		return err
	}
	return fmt.Errorf("%w: %w: %d conflicts with what others had saved", err, errContended, conflicts)
}

// rebase makes the save one of what others have made of the old record.
func (m *Manager) rebase(s *swap, now stored) error {
	if now.Resets != s.old.Resets {
		return ErrRenewed
	}
	s.old, s.next = now, now.Copy()
	for _, c := range s.changes {
		if err := c.make(&s.next); err != nil {
			return err
		}
	}
	if now.Secret != s.secret {
		s.next.MaxAge = now.MaxAge // the response sends no cookie that could have it
	}
	return m.renew(s)
}

// renew gives the next record the new secret, if the request wants one. Of two renewals at
// once the first counts: the second is skipped, or fails if it was to leave no other cookie.
func (m *Manager) renew(s *swap) error {
	s.renewed = false
	switch {
	case s.renewal == nil:
	case s.old.Secret == s.secret:
		s.renewed = m.codec.Renew(&s.next, s.old.At, s.renewal.next, time.Now(), s.renewal.grace)
	case s.renewal.grace == 0:
		return ErrRenewed
	}
	return nil
}

// settle ends a renewal whose record is stored.
func (m *Manager) settle(ctx context.Context, s *swap, st stored, save wire.Save) (stored, error) {
	if !s.renewed {
		return st, nil
	}
	ttl := func(r *wire.Record) time.Duration { return m.ttl(r, time.Now()) }
	st, err := m.codec.Settle(ctx, m.store, s.renewal.next, st, save, ttl)
	switch {
	case errors.Is(err, ErrNotFound):
		return stored{}, err
	case err != nil:
		return stored{}, unavailable("renew", err)
	case s.renewal.grace == 0 && !s.renewal.isMade(&st.Record):
		return stored{}, ErrRenewed
	}
	return st, nil
}

// isMade reports whether the record has the secret of the renewal.
func (r *renewal) isMade(record *wire.Record) bool {
	return r != nil && record.Secret == wire.DigestOf(r.next.Secret)
}

// gone returns ErrNotFound also for what is no session any more.
func gone(err error) error {
	if errors.Is(err, ErrUnreadable) {
		return ErrNotFound
	}
	return err
}

// try makes the save once.
func (m *Manager) try(ctx context.Context, s *swap, save wire.Save) (stored, error) {
	s.next.Stamp(save)
	if !s.isNoUse {
		s.next.Used = time.Now().UnixMilli()
	}
	return m.replace(ctx, s.old, s.next)
}

// errOver is the ErrConflict of a session whose time was over, as far as this request knew:
// another may have used it. Nothing was asked of the store.
var errOver = fmt.Errorf("%w: its time is over", ErrConflict)

// replace replaces old by next, with a deadline of its own. The error is ErrConflict,
// ErrTooLarge or ErrUnavailable.
func (m *Manager) replace(ctx context.Context, old stored, next wire.Record) (stored, error) {
	now := time.Now()
	if m.hasEnded(&old.Record, now) {
		return stored{}, errOver
	}
	return m.write(now, old.At, next, &old.Record, func(data []byte, ttl time.Duration) error {
		return m.store.CompareAndSwap(ctx, old.At, old.Data, data, ttl)
	})
}

// write encodes next with a deadline that counts from now and hands it to call, which
// writes it to the key at. What is too large may be written if its values have not grown
// since old. The error is ErrConflict, ErrTooLarge or ErrUnavailable.
func (m *Manager) write(now time.Time, at string, next wire.Record, old *wire.Record, call func(data []byte, ttl time.Duration) error) (stored, error) {
	next.Kept = m.deadline(&next, now)
	data := m.codec.Encode(&next)
	if len(data) > m.options.MaxBytes && (old == nil || next.Size() > old.Size()) {
		key, size := next.Largest()
		return stored{}, fmt.Errorf("%w: %d bytes, and MaxBytes is %d; the largest value is that of key %q with %d bytes", ErrTooLarge, len(data), m.options.MaxBytes, key, size)
	}
	switch err := call(data, m.ttl(&next, now)); {
	case errors.Is(err, ErrConflict):
		return stored{}, err
	case err != nil:
		return stored{}, unavailable("save", err)
	}
	return stored{At: at, Data: data, Record: next}, nil
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
