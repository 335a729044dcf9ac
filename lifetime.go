package session

import (
	"cmp"
	"time"

	"github.com/seed-4f96e14b/session/internal/wire"
)

// Lifetimes are how long sessions live, by the options of the one who asks. What a record
// says of its session is when it was used, and not when it ends: so a change of the options
// reaches all sessions at once.
type lifetimes struct {
	codec       wire.Codec
	cookie      time.Duration // of the browser's cookie; 0 until it closes
	idle        time.Duration // of a session that is not used
	untilClosed time.Duration // of one that is not used, and whose cookie lives until the browser closes
	absolute    time.Duration
}

// lifetimes compiles the options, which are valid.
func (o *Options) lifetimes(codec wire.Codec) lifetimes {
	l := lifetimes{codec: codec, cookie: o.Cookie.MaxAge, absolute: o.absoluteTimeout()}
	l.untilClosed = cmp.Or(o.IdleTimeout, min(DefaultIdleTimeout, l.absolute))
	switch {
	case l.cookie == 0:
		l.idle = l.untilClosed
	case o.IdleTimeout == 0:
		l.idle = l.cookie
	default:
		l.idle = min(o.IdleTimeout, l.cookie)
	}
	return l
}

// lifetime returns how long the session lives unused.
func (l *lifetimes) lifetime(r *wire.Record) time.Duration {
	switch own, ok := r.MaxAge.Own(); {
	case !ok:
		return l.codec.Lifetime(r, l.idle)
	case own == 0:
		return l.codec.Lifetime(r, l.untilClosed)
	default:
		return l.codec.Lifetime(r, own)
	}
}

// cookieMaxAge returns how long the browser is to keep the cookie; 0 until it closes.
func (l *lifetimes) cookieMaxAge(r *wire.Record) time.Duration {
	if own, ok := r.MaxAge.Own(); ok {
		return own
	}
	return l.cookie
}

// cookieLife is cookieMaxAge for a cookie that is sent now: it ends with the session at
// the latest, and when browsers end it in any case.
func (l *lifetimes) cookieLife(r *wire.Record) time.Duration {
	life := min(l.cookieMaxAge(r), maxCookieAge)
	if life > 0 {
		remaining := min(l.absoluteEnd(r)-time.Now().UnixMilli(), never.Milliseconds())
		life = max(min(life, time.Duration(remaining)*time.Millisecond), time.Millisecond)
	}
	return life
}

// deadline returns when the session ends if it is not used after the time used.
func (l *lifetimes) deadline(r *wire.Record, used time.Time) int64 {
	return min(used.UnixMilli()+l.lifetime(r).Milliseconds(), l.absoluteEnd(r))
}

// absoluteEnd returns when the session ends however busy it is.
func (l *lifetimes) absoluteEnd(r *wire.Record) int64 {
	return r.Created + l.absolute.Milliseconds()
}

// hasEnded reports whether the time of a session is over.
func (l *lifetimes) hasEnded(r *wire.Record, now time.Time) bool {
	return l.codec.IsOver(l.deadline(r, time.UnixMilli(r.Used)), now) || l.absoluteEnd(r) <= now.UnixMilli()
}

// moves is how many times at most the deadline of a session that is only read
// moves within a lifetime.
const moves = 20

// isDue reports whether a use now is to be written, so that the deadline moves.
func (l *lifetimes) isDue(r *wire.Record) bool {
	now := time.Now()
	part := l.lifetime(r).Milliseconds() / moves
	return now.UnixMilli()-r.Used >= part || l.deadline(r, now)-r.Kept >= part
}

// ttl returns for how long the store is to keep a session that is used now.
func (l *lifetimes) ttl(r *wire.Record, now time.Time) time.Duration {
	return l.codec.TTL(time.Duration(l.deadline(r, now)-now.UnixMilli()) * time.Millisecond)
}
