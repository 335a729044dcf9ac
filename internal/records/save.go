package records

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/seed-4f96e14b/session/internal/retry"
	"github.com/seed-4f96e14b/session/internal/wire"
)

// Create saves next as a new session under the id, or under another if that is in use. It
// returns the id. The error is ErrTooLarge or ErrUnavailable; then nothing of it stays in the
// store.
func (k *Keeper) Create(ctx context.Context, id wire.ID, next wire.Record) (wire.ID, wire.Stored, error) {
	save := k.nextSave()
	st, err := k.insist(ctx, save,
		func() (string, uint64) { return id.Handle, 0 },
		func() (wire.Stored, error) { return k.create(ctx, id, next, save) },
		func(_ wire.Stored, err error) error {
			if errors.Is(err, wire.ErrUnavailable) {
				return err
			}
			id = k.Codec.NewID()
			return nil
		})
	if err != nil && !errors.Is(err, wire.ErrTooLarge) {
		k.TakeBack(ctx, id.Handle)
	}
	return id, st, err
}

// create asks the store once.
func (k *Keeper) create(ctx context.Context, id wire.ID, next wire.Record, save wire.Save) (wire.Stored, error) {
	now := time.Now()
	if k.absoluteEnd(&next) <= now.UnixMilli() { // the request has outlived the session that it began
		next.Created = now.UnixMilli()
	}
	next.Secret, next.Saves, next.Used = wire.DigestOf(id.Secret), nil, now.UnixMilli()
	next.Stamp(save)
	return k.put(now, id.Handle, &next, nil, func(data []byte, ttl time.Duration) error {
		return k.Store.Create(ctx, id.Handle, data, ttl)
	})
}

// A Replacement is a save of a session that the store has.
type Replacement struct {
	Old      wire.Stored // the session as the request knows it
	Next     wire.Record // what is to replace it
	Changes  []Change    // those that make Next out of Old
	Secret   wire.Digest // of the request's cookie
	Renewal  *Renewal    // nil if the request wants none
	KeepUsed bool        // the save does not count as use
}

// A Change is a call of the handler. It can be made again on another record.
type Change struct {
	Call string // the method
	Key  string // of the value, or "" for a call that is about none
	Make func(*wire.Record) error
}

// String returns the change as an error names it.
func (c Change) String() string {
	if c.Key == "" {
		return c.Call
	}
	return fmt.Sprintf("%s of key %q", c.Call, c.Key)
}

// A Renewal gives a session a new secret, and lets the one before open the session for the
// time Grace more.
type Renewal struct {
	Next  wire.ID
	Grace time.Duration
}

// IsMade reports whether the record has the secret of the renewal, which may be nil.
func (r *Renewal) IsMade(record *wire.Record) bool {
	return r != nil && record.Secret == wire.DigestOf(r.Next.Secret)
}

// Replace saves a session that the store has. If others have saved it since, it makes the
// changes again on what is there now. The error is ErrNotFound if the session has ended,
// ErrRenewed if a renewal without grace has made the request's cookie worthless, ErrTooLarge,
// ErrUnavailable, or that of a change.
func (k *Keeper) Replace(ctx context.Context, r Replacement) (wire.Stored, error) {
	name := r.Old.Name()
	waited, err := k.turns.take(ctx, name, k.Timeout)
	if err != nil {
		return wire.Stored{}, err
	}
	defer k.turns.give(name)
	save, renews := k.nextSave(), false // the number stays the same in all attempts
	rebase := func(now wire.Stored, err error) error {
		if err == nil {
			renews, err = k.rebase(&r, now)
		}
		if errors.Is(err, wire.ErrUnreadable) { // what was a session is none now
			return wire.ErrNotFound
		}
		return err
	}
	switch {
	case waited: // others have saved it meanwhile
		err = rebase(k.Follow(ctx, r.Old.At, time.Time{}))
	case !r.Old.Moving:
		renews, err = k.renew(&r)
	}
	if err != nil {
		return wire.Stored{}, err
	}
	st, err := k.insist(ctx, save,
		func() (string, uint64) { return r.Old.At, r.Old.Saves.Count() },
		func() (wire.Stored, error) { return k.replace(ctx, &r, save) },
		rebase)
	if err != nil || !renews {
		return st, err
	}
	return k.settle(ctx, &r, st, save)
}

// insist makes a save, and makes it again for as long as others come before it, until ctx
// ends. Target is where the save goes and how many saves it is based on. Try asks the store
// once. After a conflict, again gets what the store has now, and prepares the next attempt.
//
// The store may make a save and not say so. The save is then found by its number in the
// record.
func (k *Keeper) insist(ctx context.Context, save wire.Save, target func() (at string, based uint64), try func() (wire.Stored, error), again func(wire.Stored, error) error) (st wire.Stored, err error) {
	conflicts := 0
	defer func() {
		if conflicts > 0 && ctx.Err() != nil && errors.Is(err, wire.ErrUnavailable) {
			err = fmt.Errorf("%w: %w: %d conflicts with what others had saved", err, wire.ErrContended, conflicts)
		}
	}()
	for attempt := 1; ; attempt++ {
		st, err := try()
		isConflict := errors.Is(err, wire.ErrConflict)
		// A record that is too large was not sent. One that too few replicas have is in the store,
		// where a look would find it, but may not stay there.
		if err == nil || errors.Is(err, wire.ErrTooLarge) || errors.Is(err, wire.ErrNotReplicated) {
			return st, err
		}
		if isConflict {
			if !errors.Is(err, errMoving) {
				conflicts++
			}
			if ended := retry.Pause(ctx, attempt); ended != nil {
				return wire.Stored{}, wire.Unavailable("save", fmt.Errorf("%v: %w", err, ended))
			}
		}
		// A conflict may be with our own save: the client of the store has sent it twice because the
		// first reply was lost. And an error may mean that only the reply was lost.
		at, based := target()
		now, lookErr := k.Follow(ctx, at, time.Time{})
		outcome := wire.NotMade
		if lookErr == nil && !errors.Is(err, errNotAsked) {
			outcome = now.Outcome(save, based)
		}
		switch {
		case outcome == wire.Made: // and the reply was lost
			return now, nil
		case !isConflict:
			return wire.Stored{}, err // the store may yet make this save, so it is not made again
		case outcome == wire.Untellable:
			return wire.Stored{}, fmt.Errorf("%w: save: so many others have saved the session meanwhile that nobody can tell whether this save was made", wire.ErrUnavailable)
		}
		if err := again(now, lookErr); err != nil {
			return wire.Stored{}, err
		}
	}
}

var (
	// errNotAsked is the ErrConflict of an attempt that asked nothing of the store.
	errNotAsked = fmt.Errorf("%w: not asked", wire.ErrConflict)

	// errOver: as far as this request knows, the session's time is over. Another may have used
	// it since.
	errOver = fmt.Errorf("%w: the session's time is over", errNotAsked)

	// errMoving: a save now would make the renewal begin again.
	errMoving = fmt.Errorf("%w: another request has not finished its renewal", errNotAsked)
)

// replace asks the store once.
func (k *Keeper) replace(ctx context.Context, r *Replacement, save wire.Save) (wire.Stored, error) {
	if r.Old.Moving {
		return wire.Stored{}, errMoving
	}
	r.Next.Stamp(save)
	if !r.KeepUsed {
		r.Next.Used = time.Now().UnixMilli()
	}
	return k.swap(ctx, &r.Old, &r.Next)
}

// Touch writes that the session is used now, if nobody has saved it since. The error is
// ErrConflict, ErrTooLarge or ErrUnavailable.
func (k *Keeper) Touch(ctx context.Context, old wire.Stored) (wire.Stored, error) {
	next := old.Copy()
	next.Used = time.Now().UnixMilli()
	return k.swap(ctx, &old, &next)
}

// swap replaces old by next, with a deadline of its own. The error is ErrConflict,
// ErrTooLarge or ErrUnavailable.
func (k *Keeper) swap(ctx context.Context, old *wire.Stored, next *wire.Record) (wire.Stored, error) {
	now := time.Now()
	if k.hasEnded(&old.Record, now) { // a save would bring back what has ended
		return wire.Stored{}, errOver
	}
	return k.put(now, old.At, next, &old.Record, func(data []byte, ttl time.Duration) error {
		return k.Store.CompareAndSwap(ctx, old.At, old.Data, data, ttl)
	})
}

// rebase makes the replacement one of what others have made of the session. It reports
// whether the replacement renews the session.
func (k *Keeper) rebase(r *Replacement, now wire.Stored) (renews bool, err error) {
	if now.Resets != r.Old.Resets {
		return false, wire.ErrRenewed
	}
	r.Old = now
	if now.Moving { // nothing can be saved on this
		return false, nil
	}
	r.Next = now.Copy()
	for _, c := range r.Changes {
		if err := c.Make(&r.Next); err != nil {
			return false, err
		}
	}
	if now.Secret != r.Secret {
		r.Next.MaxAge = now.MaxAge // the response sends no cookie that could have it
	}
	return k.renew(r)
}

// renew gives the next record the new secret, if the request wants one, and reports whether
// it did. Of two renewals at once the first counts. The second is skipped, or fails if it was
// to leave no other cookie.
func (k *Keeper) renew(r *Replacement) (renews bool, err error) {
	switch {
	case r.Renewal == nil:
		return false, nil
	case r.Old.Secret == r.Secret:
		return k.Codec.Renew(&r.Next, r.Old.At, r.Renewal.Next, time.Now(), r.Renewal.Grace), nil
	case r.Renewal.Grace == 0:
		return false, wire.ErrRenewed
	}
	return false, nil
}

// settle ends a renewal whose record is stored as st.
func (k *Keeper) settle(ctx context.Context, r *Replacement, st wire.Stored, save wire.Save) (wire.Stored, error) {
	st, err := k.Codec.Settle(ctx, k.Store, r.Renewal.Next, st, save, k.ttl)
	switch {
	case errors.Is(err, wire.ErrNotFound):
		return wire.Stored{}, err
	case err != nil:
		return wire.Stored{}, wire.Unavailable("renew", err)
	case r.Renewal.Grace == 0 && !r.Renewal.IsMade(&st.Record):
		return wire.Stored{}, wire.ErrRenewed
	}
	return st, nil
}
