package records

import (
	"time"

	"github.com/seed-4f96e14b/session/internal/wire"
)

// Lifetimes are how long sessions live. A record says when its session was used, and not when
// it ends, so that other Lifetimes reach all sessions at once.
type Lifetimes struct {
	Idle        time.Duration // of a session that is not used
	UntilClosed time.Duration // of one that is not used, and whose cookie lives until the browser closes
	Absolute    time.Duration // of every session; [Forever] if that has no end
}

// Forever is the longest time there is.
const Forever = time.Duration(1<<63 - 1)

// lifetime returns how long the session lives unused.
func (k *Keeper) lifetime(r *wire.Record) time.Duration {
	switch own, ok := r.MaxAge.Own(); {
	case !ok:
		return k.Codec.Lifetime(r, k.Lifetimes.Idle)
	case own == 0:
		return k.Codec.Lifetime(r, k.Lifetimes.UntilClosed)
	default:
		return k.Codec.Lifetime(r, own)
	}
}

// deadline returns when the session ends if it is not used after the time used.
func (k *Keeper) deadline(r *wire.Record, used time.Time) int64 {
	return min(used.UnixMilli()+k.lifetime(r).Milliseconds(), k.absoluteEnd(r))
}

// absoluteEnd returns when the session ends however busy it is.
func (k *Keeper) absoluteEnd(r *wire.Record) int64 {
	return r.Created + k.Lifetimes.Absolute.Milliseconds()
}

// Left returns how long the session can live from now on, however busy it is.
func (k *Keeper) Left(r *wire.Record) time.Duration {
	left := k.absoluteEnd(r) - time.Now().UnixMilli()
	return time.Duration(min(left, Forever.Milliseconds())) * time.Millisecond
}

// Expires returns when the session ends if it is not used before.
func (k *Keeper) Expires(r *wire.Record) time.Time {
	now := time.Now()
	expires := k.deadline(r, time.UnixMilli(r.Used))
	if expires <= now.UnixMilli() && !k.Codec.IsOver(expires, now) {
		expires = k.deadline(r, now) // it is alive, and its record does not say for how long
	}
	return time.UnixMilli(expires)
}

// hasEnded reports whether the time of a session is over.
func (k *Keeper) hasEnded(r *wire.Record, now time.Time) bool {
	return k.Codec.IsOver(k.deadline(r, time.UnixMilli(r.Used)), now) || k.absoluteEnd(r) <= now.UnixMilli()
}

// moves is how often a session's deadline moves within a lifetime, at most, if the session is
// only read.
const moves = 20

// IsDue reports whether it is time to write that the session is used now, which moves its
// deadline.
func (k *Keeper) IsDue(r *wire.Record) bool {
	now, lifetime := time.Now().UnixMilli(), k.lifetime(r).Milliseconds()
	part, deadline := lifetime/moves, min(now+lifetime, k.absoluteEnd(r))
	return now-r.Used >= part || deadline-r.Kept >= part
}

// ttl returns for how long the store is to keep a session that is used now.
func (k *Keeper) ttl(r *wire.Record) time.Duration {
	now := time.Now()
	return k.Codec.TTL(time.Duration(k.deadline(r, now)-now.UnixMilli()) * time.Millisecond)
}
