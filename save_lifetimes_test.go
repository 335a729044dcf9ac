package session_test

import (
	"strings"
	"testing"
	"time"

	"github.com/seed-4f96e14b/session"
)

// A session's deadline follows from the options of whoever reads it, and not of who wrote it:
// a shorter IdleTimeout, deployed for its own reason, reaches all sessions at once.
func TestShorterIdleTimeoutReachesAll(t *testing.T) {
	const day = 24 * time.Hour
	for name, tt := range map[string]struct {
		before, after session.Options
		unused        time.Duration
		lives         bool
	}{
		"15 minutes, unused for 20 days":            {session.Options{IdleTimeout: 30 * day}, session.Options{IdleTimeout: 15 * time.Minute}, 20 * day, false},
		"15 minutes, unused for 15":                 {session.Options{IdleTimeout: 30 * day}, session.Options{IdleTimeout: 15 * time.Minute}, 15 * time.Minute, false},
		"15 minutes, unused for 14":                 {session.Options{IdleTimeout: 30 * day}, session.Options{IdleTimeout: 15 * time.Minute}, 14 * time.Minute, true},
		"a shorter MaxAge":                          {session.Options{Cookie: session.Cookie{MaxAge: 30 * day}}, session.Options{Cookie: session.Cookie{MaxAge: time.Hour}}, 2 * time.Hour, false},
		"a shorter AbsoluteTimeout":                 {session.Options{IdleTimeout: 30 * day}, session.Options{AbsoluteTimeout: day, IdleTimeout: day}, day, false},
		"a longer one, within the old one":          {session.Options{IdleTimeout: time.Hour}, session.Options{IdleTimeout: day}, 59 * time.Minute, true},
		"a longer one, after the old one has ended": {session.Options{IdleTimeout: time.Hour}, session.Options{IdleTimeout: day}, 2 * time.Hour, false},
	} {
		forEachStoreInBubble(t, name, func(t *testing.T, store session.Store) {
			tt.before.Store, tt.after.Store = store, store
			v := newVisitor(newManager(t, tt.before))
			v.get(setName("x"))
			time.Sleep(tt.unused)
			v.server = newManager(t, tt.after).Handler(app)
			check(t, name, nameOf(v) == "x", tt.lives)
		})
	}
}

func forEachStoreInBubble(t *testing.T, name string, test func(t *testing.T, store session.Store)) {
	t.Helper()
	t.Run(name, func(t *testing.T) {
		inBubble(t, func(t *testing.T) { test(t, new(session.MemoryStore)) })
		inBubble(t, func(t *testing.T) { test(t, &spy{Store: new(session.MemoryStore)}) })
	})
}

// A lifetime of the session's own goes on counting, whatever the options are by now.
func TestOwnLifetimeOutlivesOptions(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		store := new(session.MemoryStore)
		v := newVisitor(newManager(t, session.Options{Store: store}))
		v.get(use(func(s *session.Session) { nameKey.Set(s, "x"); s.SetMaxAge(20 * 24 * time.Hour) }))
		v.server = newManager(t, session.Options{Store: store, IdleTimeout: time.Minute}).Handler(app)
		time.Sleep(20*24*time.Hour - time.Second)
		check(t, "before its end", nameOf(v), "x")
		time.Sleep(20 * 24 * time.Hour)
		check(t, "after it", nameOf(v), "")
	})
}

// A read is use. It is written when a twentieth of the reader's lifetime has passed since the
// last use that was written, or when the store would forget the session that much too early.
func TestUseIsWritten(t *testing.T) {
	for name, tt := range map[string]struct {
		before, after session.Options
		wait          time.Duration
		want          string
	}{
		"too early":                         {session.Options{}, session.Options{}, 72*time.Minute - time.Second, "L"},
		"after a twentieth":                 {session.Options{}, session.Options{}, 72 * time.Minute, "L S"},
		"after a twentieth of a shorter":    {session.Options{}, session.Options{IdleTimeout: time.Hour}, 3 * time.Minute, "L S"},
		"before a twentieth of a shorter":   {session.Options{}, session.Options{IdleTimeout: time.Hour}, 3*time.Minute - time.Second, "L"},
		"the store would forget too early":  {session.Options{IdleTimeout: time.Hour}, session.Options{}, 0, "L S"},
		"the store would, by a little":      {session.Options{IdleTimeout: 1370 * time.Minute}, session.Options{}, 0, "L"},
		"where nothing can move any more":   {session.Options{IdleTimeout: 24 * time.Hour, AbsoluteTimeout: 25 * time.Hour}, session.Options{IdleTimeout: 24 * time.Hour, AbsoluteTimeout: 25 * time.Hour}, 23 * time.Hour, "L S"},
		"with DisableTouch":                 {session.Options{}, session.Options{DisableTouch: true}, 20 * time.Hour, "L"},
		"right after a save":                {session.Options{}, session.Options{}, 0, "L"},
		"by a reader whose clock is behind": {session.Options{}, session.Options{}, -time.Hour, "L"},
	} {
		inBubble(t, func(t *testing.T) {
			sp := &spy{Store: new(session.MemoryStore)}
			tt.before.Store, tt.after.Store = sp, sp
			if tt.wait < 0 { // the writer's clock is ahead
				r := newRig(t, encoded(0, -tt.wait, []string{fuzzSecret}, "name", `"x"`))
				r.visitor.get(look)
				check(t, name, r.took(), tt.want)
				return
			}
			v := newVisitor(newManager(t, tt.before))
			v.get(setName("x"))
			time.Sleep(tt.wait)
			v.server = newManager(t, tt.after).Handler(app)
			sp.took()
			v.get(look)
			check(t, name, sp.took(), tt.want)
			v.get(look)
			check(t, name+", the next", strings.TrimPrefix(sp.took(), tt.want), strings.TrimPrefix("L", tt.want))
		})
	}
}

// A time of use that lies ahead of the reader's clock counts as now: it keeps no session alive
// for longer than its lifetime from there.
func TestUseInTheFuture(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		r := newRig(t, encoded(0, 10*24*time.Hour, []string{fuzzSecret}, "name", `"x"`))
		check(t, "now", nameOf(r.visitor), "x")
		r.visitor.get(use(func(s *session.Session) {
			if left := time.Until(s.Expires()); left > session.DefaultIdleTimeout {
				t.Errorf("it ends after %v", left)
			}
			counterKey.Set(s, 1)
		}))
		p, _ := parse(r.record(t))
		if p.used > uint64(time.Now().UnixMilli()) {
			t.Errorf("saved as used in %v", time.Duration(int64(p.used)-time.Now().UnixMilli())*time.Millisecond)
		}
		time.Sleep(session.DefaultIdleTimeout)
		check(t, "after its lifetime", nameOf(r.visitor), "")
	})
}

// Save moves the deadline, also where its cookie waits for the next write.
func TestSaveMovesTheDeadline(t *testing.T) {
	for name, options := range map[string]session.Options{
		"": {}, "Rolling": {Rolling: true}, "MaxAge": {Cookie: session.Cookie{MaxAge: time.Hour}}, "DisableTouch": {DisableTouch: true},
		"Rolling, DisableTouch": {Rolling: true, DisableTouch: true},
	} {
		inBubble(t, func(t *testing.T) {
			options.IdleTimeout = time.Hour
			v := newVisitor(newManager(t, options))
			v.get(setName("x"))
			for n := range 40 { // each less than a twentieth of the lifetime after the one before
				time.Sleep(2 * time.Minute)
				v.get(use(func(s *session.Session) {
					if s.Save(); nameKey.Get(s) != "x" {
						t.Fatalf("%s: it has ended after %d saves", name, n)
					}
				}))
			}
		})
	}
}

// With Rolling the cookie lives as long as the session, also where each request calls Save.
func TestSaveAndRolling(t *testing.T) {
	for name, also := range map[string]func(s *session.Session){
		"": func(*session.Session) {}, "SetMaxAge": func(s *session.Session) { s.SetMaxAge(time.Hour) },
	} {
		inBubble(t, func(t *testing.T) {
			sp := &spy{Store: new(session.MemoryStore)}
			v := newVisitor(newManager(t, session.Options{Store: sp, Rolling: true, Cookie: session.Cookie{MaxAge: time.Hour}}))
			v.get(use(func(s *session.Session) { nameKey.Set(s, "x"); also(s) }))
			sp.took()
			sent, last := 0, time.Now()
			for n := range 100 {
				time.Sleep(time.Minute)
				response := v.get(use(func(s *session.Session) { counterKey.Set(s, n); also(s); s.Save() }))
				if len(cookies(response)) > 0 {
					sent++
					if age := time.Since(last); age > 4*time.Minute {
						t.Errorf("%s: no cookie for %v", name, age)
					}
					last = time.Now()
				}
			}
			check(t, name+": calls", strings.Count(sp.took(), "S"), 100+sent)
			if sent < 25 || sent > 40 {
				t.Errorf("%s: %d cookies", name, sent)
			}
		})
	}
}
