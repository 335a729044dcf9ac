package records

import (
	"context"
	"errors"
	"time"

	"github.com/seed-4f96e14b/session/internal/wire"
)

// Load returns the session that a cookie opens, and what the cookie's secret is worth:
// [wire.Current] or [wire.InGrace]. The error is ErrNotFound, ErrReplaced, ErrUnreadable or
// ErrUnavailable.
func (k *Keeper) Load(ctx context.Context, id wire.ID) (wire.Stored, wire.Standing, error) {
	st, err := k.accept(k.Codec.Load(ctx, k.Store, id.Handle))
	if err != nil {
		return wire.Stored{}, wire.Unknown, err
	}
	switch standing := st.Standing(wire.DigestOf(id.Secret), time.Now()); standing {
	case wire.Unknown:
		return wire.Stored{}, standing, wire.ErrNotFound
	case wire.Worthless:
		return wire.Stored{}, standing, wire.ErrReplaced
	default:
		return st, standing, nil
	}
}

// Follow returns the session that was under the key at, wherever renewals have moved it since
// that time. The error is ErrNotFound if it has ended, ErrUnreadable or ErrUnavailable.
func (k *Keeper) Follow(ctx context.Context, at string, since time.Time) (wire.Stored, error) {
	return k.accept(k.Codec.Follow(ctx, k.Store, at, since))
}

// accept decides whether what the codec has loaded is a session. Every record that a request
// sees has passed here.
func (k *Keeper) accept(st wire.Stored, err error) (wire.Stored, error) {
	now := time.Now()
	switch {
	case errors.Is(err, wire.ErrNotFound) || errors.Is(err, wire.ErrUnreadable) || errors.Is(err, wire.ErrReplaced):
		return wire.Stored{}, err
	case err != nil:
		return wire.Stored{}, wire.Unavailable("load", err)
	}
	// A time ahead of ours is that of a clock that was wrong. No timeout counts from it.
	st.Created = min(st.Created, now.UnixMilli())
	st.Used = min(st.Used, now.UnixMilli())
	if k.hasEnded(&st.Record, now) {
		return wire.Stored{}, wire.ErrNotFound
	}
	return st, nil
}
