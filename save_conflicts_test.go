package session_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/seed-4f96e14b/session"
)

const roleKey session.Key[string] = "role"

// meanwhile runs the first handler, and while it is about to save, whole requests
// of the same browser in another process, as they were sent before it was answered.
func meanwhile(t *testing.T, store session.Store, options session.Options, prepare, first handler, others ...handler) (v *visitor, response *http.Response, windows []*visitor) {
	t.Helper()
	sp := &spy{Store: store}
	options.Store = sp
	v = newVisitor(newManager(t, options))
	v.get(prepare)
	for range others {
		windows = append(windows, v.elsewhere(newManager(t, options)))
	}
	sp.onceOn("S", func() error {
		for i, other := range others {
			windows[i].get(other)
		}
		return nil
	})
	response = v.get(first)
	return v, response, windows
}

func TestChangesOfTwoRequestsAreBothKept(t *testing.T) {
	forEachStore(t, func(t *testing.T, store session.Store) {
		v, response, _ := meanwhile(t, store, session.Options{}, setName("x"),
			use(func(s *session.Session) { nameKey.Set(s, "first") }),
			use(func(s *session.Session) { roleKey.Set(s, "second") }))
		check(t, "status", response.StatusCode, http.StatusOK)
		v.get(use(func(s *session.Session) {
			check(t, "name", nameKey.Get(s), "first")
			check(t, "role", roleKey.Get(s), "second")
		}))
	})
}

func TestUpdateLosesNothing(t *testing.T) {
	count := use(func(s *session.Session) { counterKey.Update(s, increment) })
	forEachStore(t, func(t *testing.T, store session.Store) {
		patient := session.Options{StoreTimeout: time.Minute} // on a busy machine twenty conflicts take more than a second
		v, _, _ := meanwhile(t, store, patient, count, count, count, count)
		check(t, "counter after four requests", counterOf(v), 4)

		var wg sync.WaitGroup
		for range 20 {
			wg.Go(func() {
				if status := v.copy().get(count).StatusCode; status != http.StatusOK {
					t.Errorf("status %d", status)
				}
			})
		}
		wg.Wait()
		check(t, "counter after twenty more at once", counterOf(v), 24)
	})
}

// Many requests that change one session at the same time are made one after the other, and
// not all again whenever one of them goes through.
func TestConflictsAreQueued(t *testing.T) {
	const requests = 256
	count := use(func(s *session.Session) { counterKey.Update(s, increment) })
	inBubble(t, func(t *testing.T) {
		sp := &spy{Store: new(session.MemoryStore), before: func(string, string) error {
			time.Sleep(time.Millisecond) // the way to the store and back
			return nil
		}}
		v := newVisitor(newManager(t, session.Options{Store: sp, StoreTimeout: 10 * time.Second}))
		v.get(count)
		sp.took()
		began := time.Now()
		var all sync.WaitGroup
		for range requests {
			all.Go(func() { check(t, "status", v.copy().post(count).StatusCode, http.StatusOK) })
		}
		all.Wait()
		check(t, "counter", counterOf(v), requests+1)
		if calls := len(strings.Fields(sp.took())); calls > 5*requests {
			t.Errorf("%d calls of the store for %d requests", calls, requests)
		}
		if took := time.Since(began); took > 3*requests*time.Millisecond {
			t.Errorf("it took %v", took)
		}
	})
}

// Pop and Delete are replayed too, also where they found nothing.
func TestDeleteIsReplayed(t *testing.T) {
	v, _, _ := meanwhile(t, new(session.MemoryStore), session.Options{}, use(func(s *session.Session) { listKey.Set(s, nil) }),
		use(func(s *session.Session) { nameKey.Delete(s); listKey.Set(s, []string{"a"}) }),
		use(func(s *session.Session) { nameKey.Set(s, "x") }))
	check(t, "name", nameOf(v), "")
}

// What is replayed is all that the handler called, equal Sets included: merging
// only what differed would give one login the other's role.
func TestTwoLoginsNeverMix(t *testing.T) {
	login := func(name, role string) handler {
		return use(func(s *session.Session) { nameKey.Set(s, name); roleKey.Set(s, role) })
	}
	forEachStore(t, func(t *testing.T, store session.Store) {
		v, _, _ := meanwhile(t, store, session.Options{}, login("ada", "admin"), login("bob", "admin"), login("eve", "user"))
		v.get(use(func(s *session.Session) {
			check(t, "login", nameKey.Get(s)+" "+roleKey.Get(s), "bob admin")
		}))
	})
	t.Run("with new sessions", func(t *testing.T) {
		sp := &spy{Store: new(session.MemoryStore)}
		v := newVisitor(newManager(t, session.Options{Store: sp}))
		v.get(setName("anonymous"))
		other := v.copy()
		fresh := func(name, role string) handler {
			return use(func(s *session.Session) { s.Regenerate(); nameKey.Set(s, name); roleKey.Set(s, role) })
		}
		sp.onceOn("C", func() error { other.get(fresh("eve", "user")); return nil })
		v.get(fresh("bob", "admin"))
		for v, want := range map[*visitor]string{v: "bob admin", other: "eve user"} {
			v.get(use(func(s *session.Session) {
				check(t, "login", nameKey.Get(s)+" "+roleKey.Get(s), want)
			}))
		}
	})
}

// Logout is final: a request that loaded the session before writes nothing
// after, and its response carries no cookie.
func TestLateSaveAfterLogout(t *testing.T) {
	logout := use(func(s *session.Session) { s.Destroy() })
	late := map[string]handler{
		"set":         setName("late"),
		"update":      use(func(s *session.Session) { counterKey.Update(s, increment) }),
		"renew":       use(func(s *session.Session) { s.Renew(0) }),
		"set max age": use(func(s *session.Session) { s.SetMaxAge(time.Hour) }),
		"save": use(func(s *session.Session) {
			if err := s.Save(); !errors.Is(err, session.ErrNotFound) {
				t.Errorf("Save: error %v, want ErrNotFound", err)
			}
			nameKey.Set(s, "later still")
		}),
	}
	forEachStore(t, func(t *testing.T, store session.Store) {
		for name, first := range late {
			for how, ends := range map[string]handler{
				"destroy":    logout,
				"regenerate": use(func(s *session.Session) { s.Regenerate() }),
			} {
				t.Run(name+" after "+how, func(t *testing.T) {
					v, response, windows := meanwhile(t, store, session.Options{Cookie: session.Cookie{MaxAge: time.Hour}}, setName("x"), first, ends)
					if response.StatusCode != http.StatusOK || len(cookies(response)) > 0 {
						t.Errorf("status %d, cookies %q", response.StatusCode, cookies(response))
					}
					check(t, "name under the old cookie", nameOf(v), "")
					check(t, "name under the new cookie", nameOf(windows[0]), "")
				})
			}
		}
	})
	t.Run("deadline", func(t *testing.T) {
		sp := &spy{Store: new(session.MemoryStore)}
		v := newVisitor(newManager(t, session.Options{Store: sp, Cookie: session.Cookie{MaxAge: shortAge}}))
		v.get(setName("x"))
		sp2 := &spy{Store: sp}
		v.server = newManager(t, session.Options{Store: sp2, Rolling: true, Cookie: session.Cookie{MaxAge: longAge}}).Handler(app)
		other := v.copy()
		sp2.onceOn("S", func() error { other.get(logout); return nil })
		response := v.get(untouched)
		if response.StatusCode != http.StatusOK || len(cookies(response)) > 0 {
			t.Errorf("status %d, cookies %q", response.StatusCode, cookies(response))
		}
		check(t, "name", nameOf(v), "")
	})
}

func TestRenewalThenLogout(t *testing.T) {
	v, _, windows := meanwhile(t, new(session.MemoryStore), session.Options{}, setName("x"),
		use(func(s *session.Session) { s.Renew(0) }), use(func(s *session.Session) { s.Destroy() }))
	check(t, "name", nameOf(v), "")
	check(t, "name", nameOf(windows[0]), "")
}

// A logout with a cookie that a parallel request has just replaced is a logout.
func TestLogoutWithReplacedCookie(t *testing.T) {
	v := newVisitor(newManager(t, session.Options{}))
	v.get(setName("x"))
	old := v.copy()
	v.get(use(func(s *session.Session) { s.Renew(0) }))
	response := old.post(use(func(s *session.Session) { s.Destroy() }))
	check(t, "status", response.StatusCode, http.StatusOK)
	check(t, "name", nameOf(v), "")
}

// An id that is in use is not taken over: Create refuses, and another id is made.
func TestCollisionOfIDs(t *testing.T) {
	sp := &spy{Store: new(session.MemoryStore)}
	v := newVisitor(newManager(t, session.Options{Store: sp}))
	owner := newVisitor(newManager(t, session.Options{Store: sp}))
	owner.get(setName("owner"))
	ownerKey, record := sp.keys[0], sp.data[0]
	var taken string
	first := once()
	sp.before = func(op, key string) error {
		if op == "C" && first() {
			taken = key
			return sp.Store.Create(context.Background(), key, record, time.Hour)
		}
		return nil
	}
	v.get(setName("x"))
	check(t, "name", nameOf(v), "x")
	data, err := sp.Store.Load(context.Background(), taken)
	if err != nil || string(data) != string(record) || taken == ownerKey {
		t.Errorf("the record under the first id was changed: %v", err)
	}
}

// The session shows what was saved after a replay.
func TestReplayIsShown(t *testing.T) {
	meanwhile(t, new(session.MemoryStore), session.Options{}, setName("x"),
		use(func(s *session.Session) {
			counterKey.Update(s, increment)
			if err := s.Save(); err != nil {
				t.Error(err)
			}
			check(t, "name", nameKey.Get(s), "other")
			check(t, "counter", counterKey.Get(s), 11)
		}),
		use(func(s *session.Session) { nameKey.Set(s, "other"); counterKey.Set(s, 10) }))
}

// A change that other goroutines of the request make while it is saved is not lost.
func TestChangeWhileSaving(t *testing.T) {
	for _, conflict := range []bool{false, true} {
		sp := &spy{Store: new(session.MemoryStore)}
		v := newVisitor(newManager(t, session.Options{Store: sp}))
		v.get(setName("x"))
		other := v.elsewhere(newManager(t, session.Options{Store: sp}))
		v.get(use(func(s *session.Session) {
			sp.onceOn("S", func() error {
				if conflict {
					other.get(use(func(s *session.Session) { counterKey.Update(s, increment) }))
				}
				counterKey.Update(s, increment)
				roleKey.Set(s, "meanwhile")
				return nil
			})
			nameKey.Set(s, "y")
			if err := s.Save(); err != nil {
				t.Error(err)
			}
		}))
		want := 1
		if conflict {
			want = 2
		}
		v.get(use(func(s *session.Session) {
			check(t, "values", fmt.Sprint(nameKey.Get(s), roleKey.Get(s), counterKey.Get(s)), fmt.Sprint("y", "meanwhile", want))
		}))
	}
}

// A store that never agrees costs StoreTimeout, and a 503.
func TestEndlessConflict(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		sp := &spy{Store: new(session.MemoryStore)}
		v := newVisitor(newManager(t, session.Options{Store: sp}))
		v.get(setName("x"))
		sp.on("S", func() error { return session.ErrConflict })
		start := time.Now()
		check(t, "status", v.get(setName("y")).StatusCode, http.StatusServiceUnavailable)
		if took := time.Since(start); took > time.Second {
			t.Errorf("took %v", took)
		}
	})
}

// When the record is unreadable by the time of the save, there is nothing to save to.
func TestConflictWithUnreadableRecord(t *testing.T) {
	sp := &spy{Store: new(session.MemoryStore)}
	v := newVisitor(newManager(t, session.Options{Store: sp}))
	v.get(setName("x"))
	sp.onceOn("S", func() error {
		ctx := context.Background()
		sp.Store.Delete(ctx, sp.keys[0])
		return sp.Store.Create(ctx, sp.keys[0], []byte("garbage"), time.Hour)
	})
	response := v.get(setName("y"))
	check(t, "status", response.StatusCode, http.StatusOK)
	data, _ := sp.Store.Load(context.Background(), sp.keys[0])
	check(t, "the record, left alone", string(data), "garbage")
}

// An explicit Save refreshes no cookie: another request may renew or end the session after it.
// Nothing fails for that, because all is saved.
func TestOvertakenAfterSave(t *testing.T) {
	for name, other := range map[string]func(s *session.Session){
		"renewed":   func(s *session.Session) { s.Renew(0) },
		"rotated":   func(s *session.Session) { s.Renew(30 * time.Second) },
		"destroyed": func(s *session.Session) { s.Destroy() },
	} {
		for what, change := range map[string]func(s *session.Session){
			"a change":     func(s *session.Session) { counterKey.Set(s, 1) },
			"a lifetime":   func(s *session.Session) { s.SetMaxAge(2 * time.Hour) },
			"of old use":   func(s *session.Session) { time.Sleep(30 * time.Minute); counterKey.Set(s, 1) },
			"of a renewal": func(s *session.Session) { s.Renew(30 * time.Second) },
		} {
			inBubble(t, func(t *testing.T) {
				v := newVisitor(newManager(t, session.Options{Cookie: session.Cookie{MaxAge: time.Hour}}))
				v.get(setName("x"))
				w := v.copy()
				want := 0
				response := v.get(use(func(s *session.Session) {
					nameKey.Get(s)
					change(s)
					if err := s.Save(); err != nil {
						t.Errorf("Save: %v", err)
					}
					if status := w.get(use(other)).StatusCode; status == http.StatusServiceUnavailable || name == "rotated" && what == "of a renewal" {
						want = 1 // the first renewal counts
					}
				}))
				check(t, name+" after "+what+": cookies", len(cookies(response)), want)
				check(t, name+" after "+what+": status", response.StatusCode, http.StatusOK)
			})
		}
	}
}

// If the store does not answer for the write that the cookie would go with, the cookie does not
// go: it may have been replaced by now. Nothing fails for one that the client has; a renewal does.
func TestStoreDownAfterSave(t *testing.T) {
	for name, tt := range map[string]struct {
		change func(s *session.Session)
		status int
	}{
		"a lifetime": {func(s *session.Session) { s.SetMaxAge(2 * time.Hour) }, http.StatusOK},
		"a renewal":  {func(s *session.Session) { s.Renew(30 * time.Second) }, http.StatusServiceUnavailable},
	} {
		sp := &spy{Store: new(session.MemoryStore)}
		v := newVisitor(newManager(t, session.Options{Store: sp}))
		v.get(setName("x"))
		response := v.get(use(func(s *session.Session) {
			tt.change(s)
			if err := s.Save(); err != nil {
				t.Errorf("Save: %v", err)
			}
			sp.on("S", func() error { return errDown })
		}))
		check(t, name+": status", response.StatusCode, tt.status)
		check(t, name+": cookies", len(cookies(response)), 0)
		check(t, name+": name", nameOf(v), "x")
	}
}

// The cookie of a renewal that Save stored is not sent over that of a login since, also with
// an error.
func TestOvertakenAfterRenewAndSave(t *testing.T) {
	for name, after := range map[string]func(s *session.Session){
		"and no more":       func(s *session.Session) {},
		"and then an error": func(s *session.Session) { session.Key[chan int]("bad").Set(s, nil) },
	} {
		v := newVisitor(newManager(t, session.Options{}))
		v.get(setName("x"))
		response := v.get(use(func(s *session.Session) {
			s.Renew(0)
			s.Save()
			v.get(use(func(s *session.Session) { s.Regenerate(); nameKey.Set(s, "again") }))
			after(s)
		}))
		check(t, name+": cookies", len(cookies(response)), 0)
		check(t, name+": name", nameOf(v), "again")
	}
}

// A store that panics after it has applied a write fails the request, also for a handler
// that recovers and goes on: the save is not made again.
func TestPanicAfterTheWrite(t *testing.T) {
	sp := &spy{Store: new(session.MemoryStore)}
	v := newVisitor(newManager(t, session.Options{Store: sp}))
	v.get(use(func(s *session.Session) { counterKey.Set(s, 1) }))
	first := once()
	sp.after = func(op, _ string, err error) error {
		if op == "S" && first() {
			panic("of the store")
		}
		return err
	}
	response := v.get(use(func(s *session.Session) {
		counterKey.Update(s, increment)
		panics(t, "Save", "of the store", func() { s.Save() })
	}))
	check(t, "status", response.StatusCode, http.StatusInternalServerError)
	check(t, "counter", counterOf(v), 2)
}

// Reload drops values; a renewal stays asked for.
func TestRenewThenReload(t *testing.T) {
	v := newVisitor(newManager(t, session.Options{Cookie: session.Cookie{MaxAge: time.Hour}}))
	v.get(setName("x"))
	old := v.copy()
	v.get(use(func(s *session.Session) {
		s.Renew(0)
		nameKey.Set(s, "dropped")
		if err := s.Reload(); err != nil {
			t.Error(err)
		}
		counterKey.Set(s, 1)
	}))
	check(t, "name", nameOf(v), "x")
	check(t, "counter", counterOf(v), 1)
	check(t, "name under the old cookie", nameOf(old), "")
}

// A save that was made although the store reported an error is found by its number.
func TestSaveWithUnknownOutcome(t *testing.T) {
	for name, tt := range map[string]struct {
		op string
		do handler
	}{
		"renew":  {"S", use(func(s *session.Session) { s.Renew(0); counterKey.Update(s, increment) })},
		"change": {"S", use(func(s *session.Session) { counterKey.Update(s, increment) })},
		"login":  {"C", use(func(s *session.Session) { s.Regenerate(); counterKey.Set(s, 2) })},
	} {
		t.Run(name, func(t *testing.T) {
			sp := &spy{Store: new(session.MemoryStore)}
			v := newVisitor(newManager(t, session.Options{Store: sp}))
			v.get(use(func(s *session.Session) { counterKey.Set(s, 1) }))
			sp.after = func(op, _ string, err error) error {
				if op == tt.op {
					return errDown
				}
				return err
			}
			check(t, "status", v.get(tt.do).StatusCode, http.StatusOK)
			check(t, "counter", counterOf(v), 2)
		})
	}
}

// What ended by its deadline while the request ran stays ended, although the store
// has the record for another minute.
func TestDeadlineWhileTheRequestRuns(t *testing.T) {
	for name, options := range map[string]session.Options{
		"idle":     {IdleTimeout: time.Minute},
		"absolute": {AbsoluteTimeout: time.Minute},
	} {
		for _, late := range []time.Duration{30 * time.Second, 2 * time.Minute} {
			t.Run(fmt.Sprint(name, " ", late), func(t *testing.T) {
				inBubble(t, func(t *testing.T) {
					v := newVisitor(newManager(t, options))
					v.get(setName("x"))
					time.Sleep(59 * time.Second)
					response := v.get(use(func(s *session.Session) {
						nameKey.Get(s)
						time.Sleep(late)
						check(t, "name for others", nameOf(v), "")
						counterKey.Set(s, 1)
						if err := s.Save(); !errors.Is(err, session.ErrNotFound) {
							t.Errorf("Save: error %v, want ErrNotFound", err)
						}
					}))
					if response.StatusCode != http.StatusOK || len(cookies(response)) > 0 {
						t.Errorf("status %d, cookies %q", response.StatusCode, cookies(response))
					}
					check(t, "counter", counterOf(v), 0)
				})
			})
		}
	}
	// Unless another request has moved the deadline meanwhile.
	inBubble(t, func(t *testing.T) {
		v := newVisitor(newManager(t, session.Options{IdleTimeout: time.Minute}))
		v.get(setName("x"))
		other := v.copy()
		v.get(use(func(s *session.Session) {
			counterKey.Update(s, increment)
			other.get(use(func(s *session.Session) { s.SetMaxAge(time.Hour) }))
			time.Sleep(2 * time.Minute)
		}))
		check(t, "counter", counterOf(v), 1)
	})
	// A session that begins in such a request begins with its save.
	inBubble(t, func(t *testing.T) {
		v := newVisitor(newManager(t, session.Options{AbsoluteTimeout: time.Minute}))
		v.get(use(func(s *session.Session) { nameKey.Set(s, "x"); time.Sleep(time.Hour) }))
		check(t, "name", nameOf(v), "x")
	})
}

// A save that others always come before is unavailable in the end, and says what it was.
func TestConflictThatNeverEnds(t *testing.T) {
	sp := &spy{Store: new(session.MemoryStore)}
	var failed error
	m := newManager(t, session.Options{Store: sp, StoreTimeout: 50 * time.Millisecond,
		ErrorHandler: func(_ http.ResponseWriter, _ *http.Request, err error) { failed = err }})
	v := newVisitor(m)
	for op, request := range map[string]handler{
		"S": setName("y"),
		"C": use(func(s *session.Session) { s.Regenerate(); nameKey.Set(s, "z") }),
	} {
		sp.on("", nil)
		v.get(setName("x"))
		sp.on(op, func() error { return session.ErrConflict })
		check(t, op+": status", v.post(request).StatusCode, refused)
		if !errors.Is(failed, session.ErrUnavailable) || errors.Is(failed, session.ErrConflict) || !strings.Contains(failed.Error(), "conflicts with what others had saved") {
			t.Errorf("%s: the error %v", op, failed)
		}
	}
}
