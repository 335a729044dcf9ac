package session_test

import (
	"errors"
	"fmt"
	"net/http"
	"sync"
	"testing"
	"time"

	"github.com/seed-4f96e14b/session"
)

const (
	grace       = 30 * time.Second
	secondBelow = grace - time.Second
)

// renewedBy returns a visitor with the new cookie of a session, and a window of the same
// browser that was left with the one before.
func renewedBy(t *testing.T, options session.Options, renewal func(s *session.Session)) (v, old *visitor) {
	t.Helper()
	v = newVisitor(newManager(t, options))
	v.get(use(func(s *session.Session) { nameKey.Set(s, "x"); counterKey.Set(s, 0) }))
	old = v.copy()
	response := v.post(use(renewal))
	if response.StatusCode != http.StatusOK || len(cookies(response)) != 1 || v.jar["__Host-sid"] == old.jar["__Host-sid"] {
		t.Fatalf("the renewal: status %d, cookies %q", response.StatusCode, cookies(response))
	}
	return v, old
}

// A renewal gives another cookie, and keeps all else.
func TestRenew(t *testing.T) {
	for _, grace := range []time.Duration{0, time.Nanosecond, grace, 5 * time.Minute} {
		forEachStore(t, func(t *testing.T, store session.Store) {
			var id, renewedID string
			var created, renewedCreated time.Time
			options := session.Options{Store: store}
			v := newVisitor(newManager(t, options))
			v.get(use(func(s *session.Session) { nameKey.Set(s, "x"); id, created = s.ID(), s.Created() }))
			old := v.jar["__Host-sid"]
			response := v.get(use(func(s *session.Session) { s.Renew(grace) }))
			check(t, "cookies", len(cookies(response)), 1)
			if v.jar["__Host-sid"] == old {
				t.Error("the same cookie")
			}
			v.get(use(func(s *session.Session) {
				check(t, "name", nameKey.Get(s), "x")
				renewedID, renewedCreated = s.ID(), s.Created()
			}))
			check(t, "id", renewedID, id)
			check(t, "created", renewedCreated.UnixMilli(), created.UnixMilli())
		})
	}
}

// A grace is from nothing to five minutes.
func TestRenewRefusesOtherGraces(t *testing.T) {
	for _, grace := range []time.Duration{-1, -time.Hour, 5*time.Minute + 1, time.Hour, 1<<63 - 1} {
		v := newVisitor(newManager(t, session.Options{}))
		v.get(setName("x"))
		var err error
		response := v.get(use(func(s *session.Session) { s.Renew(grace); err = s.Err() }))
		check(t, "status", response.StatusCode, http.StatusInternalServerError)
		check(t, "cookies", len(cookies(response)), 0)
		if want := fmt.Sprintf("session: Renew(%v): the grace is from 0 to 5m0s", grace); err == nil || err.Error() != want {
			t.Errorf("error %v, want %s", err, want)
		}
		check(t, "name", nameOf(v), "x")
	}
}

// Of several calls in one request the strictest counts.
func TestRenewTwiceInARequest(t *testing.T) {
	for name, renewal := range map[string]func(s *session.Session){
		"0, then 30 s": func(s *session.Session) { s.Renew(0); s.Renew(grace) },
		"30 s, then 0": func(s *session.Session) { s.Renew(grace); s.Renew(0) },
	} {
		v, old := renewedBy(t, session.Options{}, renewal)
		check(t, name+": old cookie", nameOf(old), "")
		check(t, name+": new cookie", nameOf(v), "x")
	}
}

// A request with the cookie before, within its grace, has all of the session. Its response
// sends no cookie, and it cannot prolong its own.
func TestWithinTheGrace(t *testing.T) {
	rotation := func(s *session.Session) { s.Renew(grace) }
	for name, options := range map[string]session.Options{
		"":                {},
		"Rolling":         {Rolling: true},
		"Resave":          {Resave: true},
		"Cookie.MaxAge":   {Cookie: session.Cookie{MaxAge: time.Hour}},
		"Rolling, MaxAge": {Rolling: true, Cookie: session.Cookie{MaxAge: time.Hour}},
		"another secret":  {Secrets: []string{secretB, secretA}},
	} {
		inBubble(t, func(t *testing.T) {
			options.Store = new(session.MemoryStore)
			before := options
			before.Secrets = nil
			v, old := renewedBy(t, before, rotation)
			v.server, old.server = newManager(t, options).Handler(app), newManager(t, options).Handler(app)
			time.Sleep(secondBelow)
			requests := 0
			ask := func(do func(s *session.Session)) {
				t.Helper()
				requests++
				response := old.post(use(do))
				if response.StatusCode != http.StatusOK || len(cookies(response)) > 0 {
					t.Errorf("%s: request %d: status %d, cookies %q", name, requests, response.StatusCode, cookies(response))
				}
			}
			ask(func(s *session.Session) { check(t, name+": name", nameKey.Get(s), "x") })
			ask(func(s *session.Session) { counterKey.Update(s, increment) })
			ask(func(s *session.Session) {
				counterKey.Update(s, increment)
				if err := s.Save(); err != nil {
					t.Errorf("Save: %v", err)
				}
				if err := s.Reload(); err != nil {
					t.Errorf("Reload: %v", err)
				}
				check(t, name+": counter", counterKey.Get(s), 2)
			})
			ask(func(s *session.Session) { s.Renew(grace); s.Renew(5 * time.Minute); roleKey.Set(s, "admin") })
			var maxAge, lifetime time.Duration
			ask(func(s *session.Session) {
				lifetime = time.Until(s.Expires())
				s.SetMaxAge(20 * 24 * time.Hour)
				listKey.Set(s, []string{"a"})
				maxAge = time.Until(s.Expires())
			})
			v.get(use(func(s *session.Session) {
				check(t, name+": values", fmt.Sprint(nameKey.Get(s), counterKey.Get(s), roleKey.Get(s), listKey.Get(s)), "x2admin[a]")
				if left := time.Until(s.Expires()); left > 24*time.Hour || maxAge != lifetime {
					t.Errorf("%s: its SetMaxAge counts: %v, %v, %v", name, left, lifetime, maxAge)
				}
			}))
			time.Sleep(time.Second)
			check(t, name+": after the grace", nameOf(old), "")
		})
	}
}

// After its time a replaced cookie is as any unknown one: the request may begin a session.
// Before, a browser that lost the response to a renewal could save nothing any more.
func TestAfterTheGrace(t *testing.T) {
	for name, tt := range map[string]struct {
		renewal func(s *session.Session)
		wait    time.Duration
	}{
		"of 30 s":   {func(s *session.Session) { s.Renew(grace) }, grace},
		"of 5 min":  {func(s *session.Session) { s.Renew(5 * time.Minute) }, 5 * time.Minute},
		"of none":   {func(s *session.Session) { s.Renew(0) }, time.Minute},
		"that went": {func(s *session.Session) { s.Renew(grace); s.Save(); s.Renew(0) }, time.Minute},
	} {
		inBubble(t, func(t *testing.T) {
			v, old := renewedBy(t, session.Options{}, tt.renewal)
			time.Sleep(tt.wait)
			check(t, name+": name", nameOf(old), "")
			response := old.post(setName("a new one"))
			check(t, name+": status", response.StatusCode, http.StatusOK)
			check(t, name+": cookies", len(cookies(response)), 1)
			check(t, name+": the new session", nameOf(old), "a new one")
			check(t, name+": the other", nameOf(v), "x")
		})
	}
}

// Without grace, a request that overlapped the renewal reads as anonymous, gets no cookie,
// and fails if it changes the session: it would save nothing.
func TestCookieThatLostItsWorth(t *testing.T) {
	forEachStore(t, func(t *testing.T, store session.Store) {
		for name, options := range map[string]session.Options{
			"": {}, "Rolling": {Rolling: true}, "Resave": {Resave: true}, "SaveUninitialized": {SaveUninitialized: true},
		} {
			options.Store = store
			v, old := renewedBy(t, options, func(s *session.Session) { s.Renew(0) })
			ask := func(do func(s *session.Session)) *http.Response {
				t.Helper()
				response := old.post(use(do))
				check(t, name+": cookies", len(cookies(response)), 0)
				return response
			}
			var saved, reloaded error
			check(t, "a look", ask(func(s *session.Session) {
				if nameKey.Has(s) || len(s.Keys()) > 0 {
					t.Error("the old cookie opens the session")
				}
				counterKey.Delete(s)
				nameKey.Pop(s)
				s.Renew(grace)
				saved, reloaded = s.Save(), s.Reload()
			}).StatusCode, http.StatusOK)
			if !errors.Is(saved, session.ErrNotFound) || !errors.Is(reloaded, session.ErrNotFound) {
				t.Errorf("Save %v, Reload %v, want ErrNotFound", saved, reloaded)
			}
			for what, do := range map[string]func(s *session.Session){
				"Set":       func(s *session.Session) { nameKey.Set(s, "overwritten") },
				"Update":    func(s *session.Session) { counterKey.Update(s, increment) },
				"Renew(0)":  func(s *session.Session) { s.Renew(0) },
				"SetMaxAge": func(s *session.Session) { s.SetMaxAge(time.Hour) },
				"Save": func(s *session.Session) {
					nameKey.Set(s, "overwritten")
					if err := s.Save(); !errors.Is(err, session.ErrRenewed) {
						t.Errorf("Save: %v, want ErrRenewed", err)
					}
				},
			} {
				var err error
				response := ask(func(s *session.Session) { do(s); err = s.Err() })
				check(t, name+": "+what+": status", response.StatusCode, http.StatusServiceUnavailable)
				if err != nil && !errors.Is(err, session.ErrRenewed) {
					t.Errorf("%s: %v, want ErrRenewed", what, err)
				}
			}
			check(t, "name", nameOf(v), "x")

			// Regenerate, which a login calls, works at once, and Destroy is a logout.
			login := old.copy()
			login.get(use(func(s *session.Session) { s.Regenerate(); nameKey.Set(s, "y") }))
			check(t, "after a login with the old cookie", nameOf(login), "y")
		}
	})
}

// The grace is judged once, at load: who was let in stays in, also if it ends before the
// request does, unless all cookies have lost their worth since.
func TestGraceIsJudgedAtLoad(t *testing.T) {
	for name, tt := range map[string]struct {
		meanwhile func(v *visitor)
		status    int
		counter   int
	}{
		"the grace ends":        {func(*visitor) { time.Sleep(2 * grace) }, http.StatusOK, 11},
		"another rotation":      {func(v *visitor) { v.get(rotate) }, http.StatusOK, 11},
		"and its grace ends":    {func(v *visitor) { v.get(rotate); time.Sleep(2 * grace) }, http.StatusOK, 11},
		"a renewal without one": {func(v *visitor) { v.get(renew) }, http.StatusServiceUnavailable, 10},
		"a logout":              {func(v *visitor) { v.post(destroy) }, http.StatusOK, 0},
	} {
		for _, how := range []string{"save at the end", "Save", "Reload"} {
			inBubble(t, func(t *testing.T) {
				v, old := renewedBy(t, session.Options{}, func(s *session.Session) { s.Renew(grace) })
				status := old.post(use(func(s *session.Session) {
					nameKey.Get(s)
					v.get(use(func(s *session.Session) { counterKey.Set(s, 10) }))
					tt.meanwhile(v)
					switch how {
					case "Reload":
						s.Reload()
					case "Save":
						defer s.Save()
					}
					counterKey.Update(s, increment)
				})).StatusCode
				check(t, name+", "+how+": status", status, tt.status)
				check(t, name+", "+how+": counter", counterOf(v), tt.counter)
			})
		}
	}
}

// A request that changes nothing does not fail because its cookie lost its worth while it ran,
// also where it is saved at the end of every request.
func TestReadBesideARenewal(t *testing.T) {
	for name, options := range map[string]session.Options{"": {}, "Resave": {Resave: true}, "Rolling": {Rolling: true}} {
		for what, do := range map[string]func(s *session.Session){
			"":      func(*session.Session) {},
			"a Set": func(s *session.Session) { nameKey.Set(s, "x") },
			"a Save": func(s *session.Session) {
				if err := s.Save(); !errors.Is(err, session.ErrNotFound) {
					t.Errorf("Save: error %v, want ErrNotFound", err)
				}
			},
		} {
			v := newVisitor(newManager(t, options))
			v.get(setName("x"))
			other := v.copy()
			response := v.get(use(func(s *session.Session) {
				check(t, "name", nameKey.Get(s), "x")
				other.get(renew)
				do(s)
			}))
			check(t, name+", "+what+": status", response.StatusCode, http.StatusOK)
			check(t, name+", "+what+": cookies", len(cookies(response)), 0)
		}
	}
}

// A save was made, its reply was lost, and another process made the cookie worthless before the
// request could look: what was saved is saved, and more is not.
func TestRenewalBetweenASaveAndItsReply(t *testing.T) {
	sp := &spy{Store: new(session.MemoryStore)}
	v := newVisitor(newManager(t, session.Options{Store: sp}))
	v.get(setName("x"))
	for name, tt := range map[string]struct {
		more   func(s *session.Session)
		status int
	}{
		"no more": {func(*session.Session) {}, http.StatusOK},
		"a look":  {func(s *session.Session) { check(t, "name", nameKey.Get(s), "") }, http.StatusOK},
		"a Set":   {func(s *session.Session) { nameKey.Set(s, "late") }, http.StatusServiceUnavailable},
	} {
		other := v.elsewhere(newManager(t, session.Options{Store: sp.Store}))
		before := counterOf(v)
		first := once()
		sp.after = func(op, _ string, err error) error {
			if op == "S" && first() {
				other.get(renew)
				return session.ErrConflict
			}
			return err
		}
		response := v.get(use(func(s *session.Session) {
			counterKey.Update(s, increment)
			if err := s.Save(); err != nil {
				t.Errorf("%s: Save: %v", name, err)
			}
			tt.more(s)
		}))
		check(t, name+": status", response.StatusCode, tt.status)
		check(t, name+": cookies", len(cookies(response)), 0)
		check(t, name+": counter", counterOf(other), before+1)
		check(t, name+": name", nameOf(other), "x")
		v.jar = other.jar
	}
}

// A change that comes while a request which had changed nothing finds out that its cookie lost
// its worth is not dropped in silence.
func TestChangeWhileOvertaken(t *testing.T) {
	sp := &spy{Store: new(session.MemoryStore)}
	options := session.Options{Store: sp, Resave: true}
	v := newVisitor(newManager(t, options))
	v.get(setName("x"))
	other := v.elsewhere(newManager(t, options))
	response := v.get(use(func(s *session.Session) {
		nameKey.Get(s)
		sp.onceOn("S", func() error {
			other.get(renew)
			counterKey.Update(s, increment)
			return nil
		})
	}))
	check(t, "status", response.StatusCode, http.StatusServiceUnavailable)
	check(t, "counter", counterOf(other), 0)
}

// Who comes in a grace can end the session, and begin another one.
func TestEndsWithinTheGrace(t *testing.T) {
	for name, end := range map[string]handler{
		"Destroy": destroy, "Regenerate": use(func(s *session.Session) { s.Regenerate(); roleKey.Set(s, "new") }),
	} {
		for _, wait := range []time.Duration{0, secondBelow, grace, time.Hour} {
			for _, looks := range []bool{true, false} {
				inBubble(t, func(t *testing.T) {
					v, old := renewedBy(t, session.Options{}, func(s *session.Session) { s.Renew(grace) })
					time.Sleep(wait)
					response := old.get(func(w http.ResponseWriter, r *http.Request) {
						if looks {
							look(w, r)
						}
						end(w, r)
					})
					check(t, fmt.Sprint(name, " after ", wait, ": status"), response.StatusCode, http.StatusOK)
					check(t, fmt.Sprint(name, " after ", wait, ": the new cookie"), nameOf(v), "")
					check(t, fmt.Sprint(name, " after ", wait, ": cookies"), len(cookies(response)), 1)
				})
			}
		}
	}
}

// A Renew without grace, in a grace, fails: the old cookie may be anybody's. A Regenerate works.
func TestRenewWithinTheGrace(t *testing.T) {
	v, old := renewedBy(t, session.Options{}, func(s *session.Session) { s.Renew(grace) })
	var err error
	response := old.post(use(func(s *session.Session) { nameKey.Set(s, "y"); s.Renew(0); err = s.Err() }))
	check(t, "status", response.StatusCode, http.StatusServiceUnavailable)
	check(t, "cookies", len(cookies(response)), 0)
	if !errors.Is(err, session.ErrRenewed) {
		t.Errorf("error %v, want ErrRenewed", err)
	}
	check(t, "name", nameOf(v), "x")
	check(t, "name in the grace", nameOf(old), "x")
}

// A Renew without grace ends the graces that run.
func TestRenewEndsEveryGrace(t *testing.T) {
	v, first := renewedBy(t, session.Options{}, func(s *session.Session) { s.Renew(5 * time.Minute) })
	second := v.copy()
	v.get(rotate)
	check(t, "before", nameOf(first)+nameOf(second)+nameOf(v), "xxx")
	third := v.copy()
	v.get(renew)
	check(t, "after", nameOf(first)+nameOf(second)+nameOf(third)+"|"+nameOf(v), "|x")
	check(t, "a change", first.post(count).StatusCode, http.StatusServiceUnavailable)
}

// Cookies arrive in either order: that of the renewal, and that of a request which came with
// the one before. Only Rolling or a MaxAge can put the old one back, for its grace.
func TestCookiesArriveInEitherOrder(t *testing.T) {
	v, old := renewedBy(t, session.Options{Cookie: session.Cookie{MaxAge: time.Hour}}, func(s *session.Session) { s.Renew(grace) })
	renewed := v.jar["__Host-sid"]
	response := old.get(count)
	check(t, "cookies", len(cookies(response)), 0)
	check(t, "the jar", v.jar["__Host-sid"], renewed)
}

// With a grace, the requests that a browser has under way beside a renewal are all logged in
// and all saved. None sends a cookie, or with a MaxAge none but the one that it came with.
func TestRotationBesideManyRequests(t *testing.T) {
	const renewals, requests = 20, 50
	forEachStore(t, func(t *testing.T, store session.Store) {
		for name, options := range map[string]session.Options{
			"": {}, "Rolling, MaxAge": {Rolling: true, Cookie: session.Cookie{MaxAge: time.Hour}},
		} {
			options.Store, options.StoreTimeout = store, time.Minute
			here, there := newManager(t, options), newManager(t, options)
			for where, second := range map[string]*session.Manager{"one process": here, "two processes": there} {
				v := newVisitor(here)
				v.get(use(func(s *session.Session) { nameKey.Set(s, "x"); counterKey.Set(s, 0) }))
				for range renewals {
					var all sync.WaitGroup
					before := v.jar["__Host-sid"]
					for i := range requests {
						tab := v.copy()
						if i%2 == 0 {
							tab = v.elsewhere(second)
						}
						all.Go(func() {
							var seen string
							method, do := http.MethodGet, func(s *session.Session) { seen = nameKey.Get(s) }
							if i%3 == 0 {
								method, do = http.MethodPost, func(s *session.Session) { seen = nameKey.Get(s); counterKey.Update(s, increment) }
							}
							response := tab.do(method, use(do))
							if seen != "x" || response.StatusCode != http.StatusOK {
								t.Errorf("%s, %s: status %d, name %q", name, where, response.StatusCode, seen)
							}
							for _, c := range response.Cookies() {
								if name == "" || c.Value != before {
									t.Errorf("%s, %s: a cookie", name, where)
								}
							}
						})
					}
					all.Go(func() { check(t, "status", v.get(rotate).StatusCode, http.StatusOK) })
					all.Wait()
					if v.jar["__Host-sid"] == before {
						t.Errorf("%s, %s: no new cookie", name, where)
					}
				}
				check(t, name+", "+where+": counter", counterOf(v), renewals*((requests+2)/3))
			}
		}
	})
}

// However often an app rotates, the record stays small, and nobody within a grace is let down.
func TestRotationsAreBounded(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		sp := &spy{Store: new(session.MemoryStore)}
		v := newVisitor(newManager(t, session.Options{Store: sp}))
		v.get(setName("x"))
		first := v.copy()
		for range 1000 {
			check(t, "status", v.get(use(func(s *session.Session) { s.Renew(5 * time.Minute); counterKey.Update(s, increment) })).StatusCode, http.StatusOK)
			time.Sleep(time.Millisecond)
		}
		check(t, "counter", counterOf(v), 1000)
		check(t, "the first cookie", nameOf(first), "x")
		if size := len(sp.data[len(sp.data)-1]); size > 2000 {
			t.Errorf("a record of %d bytes", size)
		}
		v.get(renew)
		check(t, "after a renewal: the first cookie", nameOf(first), "")
		for range 1000 {
			v.get(renew)
		}
		if size := len(sp.data[len(sp.data)-1]); size > 2000 {
			t.Errorf("a record of %d bytes", size)
		}
		check(t, "name", nameOf(v), "x")

		for n := range 200 { // and what is forgotten makes room
			time.Sleep(grace)
			if response := v.get(rotate); len(cookies(response)) != 1 {
				t.Fatalf("rotation %d sent %q", n, cookies(response))
			}
		}
		if size := len(sp.data[len(sp.data)-1]); size > 200 {
			t.Errorf("a record of %d bytes", size)
		}
	})
}
