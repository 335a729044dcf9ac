package session_test

import (
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/seed-4f96e14b/session"
)

// The truth tables of express-session, in the calls of our Store: L is Load, C
// Create, S CompareAndSwap and D Delete. "c" stands for a Set-Cookie with the
// session's id, "x" for one that deletes the cookie. The column express has the
// calls of express-session 1.19 under resave:false and saveUninitialized:false:
// G get, S set, T touch, D destroy; where ours differ on purpose, the row says why.
//
// Three differences are general. The session is loaded when it is first touched,
// so an untouched request makes no call. A touch is a write of its own (S), and
// comes only when the deadline has a twentieth of the lifetime to move; with it
// comes the cookie of rolling. And Regenerate deletes the old session after the
// new one is saved, Destroy deletes the browser's cookie.

const (
	shortAge = time.Hour
	longAge  = 2 * time.Hour
)

// TestFoundSession is the table for a cookie whose session is in the store.
func TestFoundSession(t *testing.T) {
	modify := func(s *session.Session) { nameKey.Set(s, "changed") }
	tests := []struct {
		name, express string
		do            func(*session.Session)
		plain         string // resave:0 rolling:0, cookie with Max-Age, deadline not due
		due           string // the same, deadline due
		resave        string // resave:1
		rolling       string // rolling:1
		rollingDue    string // rolling:1, deadline due
		browser       string // resave:0 rolling:0, cookie without Max-Age
		differs       string
	}{
		{"noop", "G T", func(s *session.Session) {},
			"", "", "L S", "L", "L S c", "", ""},
		{"read", "G T", func(s *session.Session) { nameKey.Get(s) },
			"L", "L S", "L S", "L", "L S c", "L", ""},
		{"modify", "G S", modify,
			"L S c", "L S c", "L S c", "L S c", "L S c", "L S", ""},
		{"assign the same", "G T", func(s *session.Session) { nameKey.Set(s, "stored") },
			"L", "L S", "L S", "L", "L S c", "L", ""},
		{"assign and revert", "G T", func(s *session.Session) { modify(s); nameKey.Set(s, "stored") },
			"L", "L S", "L S", "L", "L S c", "L", ""},
		{"mutate nested", "G S", func(s *session.Session) { listKey.Set(s, append(listKey.Get(s), "b")) },
			"L S c", "L S c", "L S c", "L S c", "L S c", "L S", ""},
		{"mutate in place", "G S", func(s *session.Session) { listKey.Get(s)[0] = "b" },
			"L", "L S", "L S", "L", "L S c", "L", "a value handed out is the caller's own until it is Set"},
		{"delete a key", "G S", func(s *session.Session) { nameKey.Delete(s) },
			"L S c", "L S c", "L S c", "L S c", "L S c", "L S", ""},
		{"delete an absent key", "G T", func(s *session.Session) { counterKey.Delete(s) },
			"L", "L S", "L S", "L", "L S c", "L", ""},
		{"save", "G S T", func(s *session.Session) { s.Save() },
			"L S", "L S", "L S", "L S", "L S S c", "L S", "the save moves the deadline, so no touch follows; a cookie that has to live as long goes with a write of its own"},
		{"modify, save", "G S T", func(s *session.Session) { modify(s); s.Save() },
			"L S", "L S S c", "L S", "L S", "L S S c", "L S", "as above"},
		{"save, modify", "G S S", func(s *session.Session) { s.Save(); modify(s) },
			"L S S c", "L S S c", "L S S c", "L S S c", "L S S c", "L S S", ""},
		{"modify, save, modify", "G S S", func(s *session.Session) { modify(s); s.Save(); nameKey.Set(s, "again") },
			"L S S c", "L S S c", "L S S c", "L S S c", "L S S c", "L S S", ""},
		{"destroy", "G D", func(s *session.Session) { s.Destroy() },
			"D x", "D x", "L D x", "L D x", "L D x", "D x", ""},
		{"modify, destroy", "G D", func(s *session.Session) { modify(s); s.Destroy() },
			"L D x", "L D x", "L D x", "L D x", "L D x", "L D x", ""},
		{"regenerate", "G D S", func(s *session.Session) { s.Regenerate() },
			"C D c", "C D c", "L C D c", "L C D c", "L C D c", "C D c", ""},
		{"regenerate, modify", "G D S", func(s *session.Session) { s.Regenerate(); modify(s) },
			"C D c", "C D c", "L C D c", "L C D c", "L C D c", "C D c", ""},
		{"regenerate, modify, save", "G D S S", func(s *session.Session) { s.Regenerate(); modify(s); s.Save() },
			"C D c", "C D c", "L C D c", "L C D c", "L C D c", "C D c", "one save is enough"},
		{"regenerate twice", "G D D S", func(s *session.Session) { s.Regenerate(); s.Regenerate() },
			"C D c", "C D c", "L C D c", "L C D c", "L C D c", "C D c", "what was never stored needs no delete"},
		{"regenerate, destroy", "G D D", func(s *session.Session) { s.Regenerate(); s.Destroy() },
			"D x", "D x", "L D x", "L D x", "L D x", "D x", "as above"},
		{"destroy, regenerate", "G D D S", func(s *session.Session) { s.Destroy(); s.Regenerate() },
			"D C c", "D C c", "L D C c", "L D C c", "L D C c", "D C c", "as above"},
		{"reload", "G G T", func(s *session.Session) { s.Reload() },
			"L", "L S", "L L S", "L L", "L L S c", "L", "the first load is the reload"},
		{"modify, reload", "G G T", func(s *session.Session) { modify(s); s.Reload() },
			"L L", "L L S", "L L S", "L L", "L L S c", "L L", ""},
		{"reload, modify", "G G S", func(s *session.Session) { s.Reload(); modify(s) },
			"L S c", "L S c", "L L S c", "L L S c", "L L S c", "L S", "the first load is the reload"},
		{"reload, save", "G G S T", func(s *session.Session) { s.Reload(); s.Save() },
			"L S", "L S", "L L S", "L L S", "L L S S c", "L S", "as above, and as save"},
		{"touch", "G T", func(s *session.Session) { s.Touch() },
			"L", "L S", "L S", "L", "L S c", "L", ""},
		{"set max age", "G T", func(s *session.Session) { s.SetMaxAge(999 * time.Second) },
			"L S c", "L S c", "L S c", "L S c", "L S c", "L S c", "express loses it, because the data are the same"},
		{"set max age, modify", "G S", func(s *session.Session) { s.SetMaxAge(999 * time.Second); modify(s) },
			"L S c", "L S c", "L S c", "L S c", "L S c", "L S c", ""},
		{"until the browser closes", "G T", func(s *session.Session) { s.SetMaxAge(0) },
			"L S c", "L S c", "L S c", "L S c", "L S c", "L S c", "as set max age"},
		{"until the browser closes, modify", "G S", func(s *session.Session) { s.SetMaxAge(0); modify(s) },
			"L S c", "L S c", "L S c", "L S c", "L S c", "L S c", "as set max age"},
		{"renew", "", func(s *session.Session) { s.Renew(0) },
			"L S c", "L S c", "L S c", "L S c", "L S c", "L S c", "express has none"},
	}
	forEachStore(t, func(t *testing.T, store session.Store) {
		seed := newManager(t, session.Options{Store: store, Cookie: session.Cookie{Name: "sid", MaxAge: shortAge}})
		browserSeed := newManager(t, session.Options{Store: store, Cookie: session.Cookie{Name: "sid"}, IdleTimeout: shortAge})
		for _, tt := range tests {
			settings := []struct {
				name    string
				seed    *session.Manager
				options session.Options
				want    string
			}{
				// A manager with a longer lifetime than the session was saved with finds its
				// deadline due at once.
				{"plain", seed, session.Options{Cookie: session.Cookie{MaxAge: shortAge}}, tt.plain},
				{"due", seed, session.Options{Cookie: session.Cookie{MaxAge: longAge}}, tt.due},
				{"resave", seed, session.Options{Cookie: session.Cookie{MaxAge: shortAge}, Resave: true}, tt.resave},
				{"rolling", seed, session.Options{Cookie: session.Cookie{MaxAge: shortAge}, Rolling: true}, tt.rolling},
				{"rolling, due", seed, session.Options{Cookie: session.Cookie{MaxAge: longAge}, Rolling: true}, tt.rollingDue},
				{"browser", browserSeed, session.Options{IdleTimeout: shortAge}, tt.browser},
			}
			for _, set := range settings {
				t.Run(tt.name+"/"+set.name, func(t *testing.T) {
					v := newVisitor(set.seed)
					v.get(use(func(s *session.Session) { nameKey.Set(s, "stored"); listKey.Set(s, []string{"a"}) }))

					sp := &spy{Store: store}
					set.options.Store, set.options.Cookie.Name = sp, "sid"
					v.server = newManager(t, set.options).Handler(app)
					response := v.get(use(tt.do))
					if got := took(sp, response); got != set.want {
						t.Errorf("got %q, want %q (express: %s)", got, set.want, tt.express)
					}
				})
			}
		}
	})
}

// TestNewSession is the table for requests whose session is in no store.
func TestNewSession(t *testing.T) {
	modify := func(s *session.Session) { nameKey.Set(s, "changed") }
	reload := func(s *session.Session) {
		if err := s.Reload(); !errors.Is(err, session.ErrNotFound) {
			t.Errorf("Reload of a new session: error %v, want ErrNotFound", err)
		}
	}
	tests := []struct {
		name, express string
		do            func(*session.Session)
		none          string // saveUninitialized:0, no cookie
		forged        string // the same, with a cookie that does not verify
		unknown       string // the same, with a signed id that is in no store
		all           string // saveUninitialized:1, no cookie
		differs       string
	}{
		{"noop", "", func(s *session.Session) {}, "", "", "", "C c", ""},
		{"read", "", func(s *session.Session) { nameKey.Get(s) }, "", "", "L", "C c", ""},
		{"modify", "S", modify, "C c", "C c", "L C c", "C c", ""},
		{"assign and delete", "", func(s *session.Session) { modify(s); nameKey.Delete(s) }, "", "", "L", "C c", ""},
		{"delete an absent key", "", func(s *session.Session) { nameKey.Delete(s) }, "", "", "L", "C c", ""},
		{"save", "S", func(s *session.Session) { s.Save() }, "C c", "C c", "L C c", "C c", "express sends no cookie for what it stored"},
		{"modify, save", "S", func(s *session.Session) { modify(s); s.Save() }, "C c", "C c", "L C c", "C c", ""},
		{"save, modify", "S S", func(s *session.Session) { s.Save(); modify(s) }, "C S c", "C S c", "L C S c", "C S c", ""},
		{"destroy", "D", func(s *session.Session) { s.Destroy() }, "", " x", "D x", "", "what was never stored needs no delete"},
		{"modify, destroy", "D", func(s *session.Session) { modify(s); s.Destroy() }, "", " x", "L D x", "", "as above"},
		{"save, destroy", "S D", func(s *session.Session) { s.Save(); s.Destroy() }, "C D", "C D x", "L C D D x", "C D", "the signed id is deleted too"},
		{"regenerate", "D S", func(s *session.Session) { s.Regenerate() }, "C c", "C c", "C D c", "C c", "as above"},
		{"regenerate, modify", "D S", func(s *session.Session) { s.Regenerate(); modify(s) }, "C c", "C c", "C D c", "C c", "as above"},
		{"regenerate, modify, save", "D S S", func(s *session.Session) { s.Regenerate(); modify(s); s.Save() }, "C c", "C c", "C D c", "C c", "one save is enough"},
		{"regenerate twice", "D D S", func(s *session.Session) { s.Regenerate(); s.Regenerate() }, "C c", "C c", "C D c", "C c", "as above"},
		{"regenerate, destroy", "D D", func(s *session.Session) { s.Regenerate(); s.Destroy() }, "", " x", "D x", "", "as above"},
		{"reload", "G", reload, "", "", "L", "C c", "an id that we just made is not asked for"},
		{"modify, reload", "G S", func(s *session.Session) { modify(s); reload(s) }, "", "", "L", "C c", "Reload drops what is not saved, also where nothing is"},
		{"reload, modify", "G S", func(s *session.Session) { reload(s); modify(s) }, "C c", "C c", "L C c", "C c", ""},
		{"touch", "", func(s *session.Session) { s.Touch() }, "", "", "L", "C c", ""},
		{"set max age", "", func(s *session.Session) { s.SetMaxAge(999 * time.Second) }, "", "", "L", "C c", ""},
		{"set max age, modify", "S", func(s *session.Session) { s.SetMaxAge(999 * time.Second); modify(s) }, "C c", "C c", "L C c", "C c", ""},
		{"renew", "", func(s *session.Session) { s.Renew(0) }, "", "", "L", "C c", "express has none"},
	}
	forEachStore(t, func(t *testing.T, store session.Store) {
		sp := &spy{Store: store}
		cookie := session.Cookie{Name: "sid", MaxAge: shortAge}
		m := newManager(t, session.Options{Store: sp, Cookie: cookie})
		all := newManager(t, session.Options{Store: sp, Cookie: cookie, SaveUninitialized: true})

		gone := newVisitor(m) // its cookie verifies, its session has ended
		gone.get(setName("x"))
		unknown := gone.jar["sid"]
		gone.get(use(func(s *session.Session) { s.Destroy() }))
		forged := strings.Repeat("A", len(unknown))

		for _, tt := range tests {
			for _, set := range []struct {
				name, cookie string
				manager      *session.Manager
				want         string
			}{
				{"none", "", m, tt.none},
				{"forged", forged, m, tt.forged},
				{"unknown", unknown, m, tt.unknown},
				{"saveUninitialized", "", all, tt.all},
			} {
				t.Run(tt.name+"/"+set.name, func(t *testing.T) {
					v := newVisitor(set.manager)
					if set.cookie != "" {
						v.jar["sid"] = set.cookie
					}
					sp.took()
					response := v.get(use(tt.do))
					if got := took(sp, response); got != strings.TrimSpace(set.want) {
						t.Errorf("got %q, want %q (express: %s)", got, set.want, tt.express)
					}
					if v.jar["sid"] != "" && v.jar["sid"] == unknown && strings.Contains(set.want, "c") {
						t.Error("the client's id was adopted")
					}
				})
			}
		}
	})
}

// took returns the calls of the store, and what became of the cookie.
func took(sp *spy, response *http.Response) string {
	got := sp.took()
	for _, c := range response.Cookies() {
		if c.MaxAge < 0 {
			got += " x"
		} else {
			got += " c"
		}
	}
	return strings.TrimSpace(got)
}

// RO-02 and the design's twentieth, with time that passes.
func TestRollingMovesDeadlineAndCookieTogether(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		sp := &spy{Store: new(session.MemoryStore)}
		m := newManager(t, session.Options{Store: sp, Rolling: true, Cookie: session.Cookie{MaxAge: 20 * time.Hour}})
		v := newVisitor(m)
		v.get(setName("x"))
		sp.took()
		for hour := 1; hour <= 100; hour++ { // five lifetimes
			time.Sleep(30 * time.Minute)
			if got := took(sp, v.get(untouched)); got != "L" {
				t.Fatalf("half a twentieth after the last move: %q, want no write", got)
			}
			time.Sleep(30 * time.Minute)
			response := v.get(untouched)
			if got := took(sp, response); got != "L S c" {
				t.Fatalf("hour %d: %q, want the deadline and the cookie to move", hour, got)
			}
			if c := response.Cookies()[0]; c.MaxAge != 20*60*60 {
				t.Fatalf("hour %d: Max-Age %d, want all of the lifetime", hour, c.MaxAge)
			}
		}
		if nameOf(v) != "x" {
			t.Error("a session in use has ended")
		}
	})
}

// A response that takes longer than a twentieth of the lifetime must not move the deadline
// when it is too late for the cookie: the next one would find nothing to move, and the
// browser would never get another.
func TestRollingWithSlowResponses(t *testing.T) {
	for name, rotated := range map[string]bool{"rolling": false, "an old signature": true} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(t *testing.T) {
				options := session.Options{Store: new(session.MemoryStore), Rolling: !rotated, Cookie: session.Cookie{MaxAge: 20 * time.Minute}}
				v := newVisitor(newManager(t, options))
				v.get(setName("x"))
				if rotated {
					options.Secrets = []string{secretB, secretA}
					v.server = newManager(t, options).Handler(app)
				}
				sent := time.Now()
				for range 40 { // an hour of long polls
					began := time.Now()
					response := v.get(func(w http.ResponseWriter, r *http.Request) {
						nameKey.Get(session.From(r.Context()))
						io.WriteString(w, "waiting")
						time.Sleep(90 * time.Second)
					})
					if len(response.Cookies()) > 0 {
						sent = began
					}
					if age := time.Since(sent); age > 20*time.Minute && !rotated {
						t.Fatalf("the browser has dropped the cookie, sent %v ago", age)
					}
				}
				if rotated { // the old secret goes
					options.Secrets = []string{secretB}
					v.server = newManager(t, options).Handler(app)
				}
				check(t, "name", nameOf(v), "x")
			})
		})
	}
}

// connect-redis's disableTouch: a session that is only read dies as if nobody did.
func TestDisableTouch(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		sp := &spy{Store: new(session.MemoryStore)}
		v := newVisitor(newManager(t, session.Options{Store: sp, DisableTouch: true, Rolling: true, Cookie: session.Cookie{MaxAge: time.Hour}}))
		v.get(setName("x"))
		sp.took()
		time.Sleep(50 * time.Minute)
		for _, read := range []handler{untouched, use(func(s *session.Session) { nameKey.Get(s) }), use(func(s *session.Session) { s.Touch() })} {
			if got := took(sp, v.get(read)); got != "L" {
				t.Errorf("got %q, want a read alone", got)
			}
		}
		if got := took(sp, v.get(setName("y"))); got != "L S c" {
			t.Errorf("got %q, want the write to move the deadline and the cookie", got)
		}
		time.Sleep(59 * time.Minute)
		check(t, "name", nameOf(v), "y")
		time.Sleep(time.Minute)
		check(t, "name an hour after the last write", nameOf(v), "")
	})
}
