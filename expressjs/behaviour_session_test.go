package expressjs_test

import (
	"errors"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/seed-4f96e14b/session"
	"github.com/seed-4f96e14b/session/expressjs"
)

// sessionBehaviours are those of finding, changing and ending a session.
func sessionBehaviours() []behaviour {
	return []behaviour{
		{"P-5", func(t *testing.T) {
			site := newSite(t)
			ran := false
			site.visitor().get(func(s *session.Session) { readUser(s); ran = true })
			expect(t, "the handler ran", ran, true)
			expect(t, "calls for a request without a cookie", site.store.took(), "")
		}},
		{"P-6", func(t *testing.T) {
			site := newSite(t)
			b := site.has(t, "found", expressRecord(0, 0, `,"userId":"u1"`), time.Hour)
			site.store.on("L", refuse)
			ran := map[string]bool{}
			for _, method := range []string{"GET", "POST"} {
				response := b.visit(method, "/", func(w http.ResponseWriter, r *http.Request) {
					ran[method] = true
					readUser(session.From(r.Context()))
					io.WriteString(w, "not logged in")
				})
				expect(t, method, answer(t, response), "503 Service Unavailable")
			}
			expect(t, "the handler of a POST ran", ran["POST"], false)
			expect(t, "the handler of a GET ran, and was not heard", ran["GET"], true)
			site.store.on("L", nil)
			expect(t, "user afterwards", b.user(), "u1")
		}},
		{"P-7", func(t *testing.T) {
			response := newSite(t).visitor().visit("GET", "/", func(w http.ResponseWriter, r *http.Request) {
				setUser("u1")(session.From(r.Context()))
				w.Header().Set("X-Mine", "1")
				w.WriteHeader(http.StatusTeapot)
				io.WriteString(w, "short and stout")
			})
			expect(t, "the handler's answer", answer(t, response), "418 short and stout")
			expect(t, "the handler's header", response.Header.Get("X-Mine"), "1")
		}},
		{"D-3", timed(func(t *testing.T) {
			site := newSite(t)
			b := site.has(t, "found", expressRecord(time.Minute, time.Minute, `,"list":["a"],"n":1`), time.Hour)
			b.get(handlerActions["reorderKeys"])
			expect(t, "another order of keys", site.store.took(), "L")
			b.get(func(s *session.Session) { listKey.Get(s)[0] = "b" })
			expect(t, "a value changed in place, and not Set", site.store.took(), "L")
			b.get(func(s *session.Session) { listKey.Set(s, []string{"b"}) })
			expect(t, "a nested value Set", site.store.took(), "L S")
			b.get(func(s *session.Session) { s.SetMaxAge(time.Hour) })
			expect(t, "a lifetime", site.store.took(), "L S")
		})},
		{"SAVE-12", timed(func(t *testing.T) {
			site := newSite(t)
			b := site.has(t, "found", expressRecord(time.Minute, time.Minute, `,"userId":"u1"`), time.Hour)
			other := b.copy()
			b.get(func(s *session.Session) {
				readUser(s)
				other.get(setUser("u2"))
				site.store.took()
				s.Reload()
				expect(t, "reloaded", userKey.Get(s), "u2")
			})
			expect(t, "calls from the reload on", site.store.took(), "L")
		})},
		{"SAVE-13", timed(func(t *testing.T) {
			site := newSite(t)
			record := expressRecord(time.Minute, time.Minute, `,"save":"mine","userId":"u1"`)
			b := site.has(t, "found", record, time.Hour)
			b.get(readUser)
			expect(t, "calls", site.store.took(), "L")
			expect(t, "the record", site.record(t, "found"), record)
		})},
		{"MX-2", timed(func(t *testing.T) {
			site := newSite(t, saveUninitialized, maxAge(time.Minute))
			b := site.has(t, "found", expressRecord(time.Minute, time.Minute, ``), time.Hour)
			expect(t, "untouched", traced(t, site, b.get(doNothing), "found"), "L")
			expect(t, "changed", traced(t, site, b.get(modify), "found"), "L S old+60")
		})},

		{"SS-01", func(t *testing.T) {
			var store session.Store = new(session.MemoryStore)
			var s *session.Session
			if fmt.Sprintf("%T %T", store, s) != "*session.MemoryStore *session.Session" {
				t.Error("they have other names")
			}
		}},
		{"SS-02", func(t *testing.T) {
			site := newSite(t, saveUninitialized)
			b := site.visitor()
			inner := site.Handler(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { setUser("u1")(session.From(r.Context())) }))
			response := b.through(site.Handler(inner), httptest.NewRequest("GET", "/", nil))
			expect(t, "calls", site.store.took(), "C")
			expect(t, "cookies", len(response.Cookies()), 1)
		}},
		{"SS-03", refused("Secrets is empty", func(o *expressjs.Options) { o.Secrets = nil })},
		{"SS-05", func(t *testing.T) {
			site := newSite(t)
			c := sent(t, site.visitor().get(setUser("u1")))
			if c == nil {
				t.Fatal("no cookie connect.sid")
			}
			expect(t, "calls", site.store.took(), "C")
			expect(t, "sessions", site.store.sessions(t), 1)
		}},
		{"SS-06", func(t *testing.T) {
			b := newSite(t).visitor()
			b.get(setUser("u1"))
			expect(t, "user", b.user(), "u1")
		}},
		{"SS-07", func(t *testing.T) {
			site := newSite(t)
			b := site.visitor()
			b.get(setUser("u1"))
			site.store.on("L", refuse)
			expect(t, "status", b.get(readUser).StatusCode, http.StatusServiceUnavailable)
			site.store.took()
			expect(t, "status without a cookie", site.visitor().get(readUser).StatusCode, http.StatusOK)
			expect(t, "calls without a cookie", site.store.took(), "")
		}},
		{"SS-08", func(t *testing.T) {
			site := newSite(t)
			b := site.visitor()
			b.get(setUser("u1"))
			old := b.sid()
			site.store.on("L", func() error { return fmt.Errorf("ENOENT: %w", session.ErrNotFound) })
			expect(t, "status", b.get(setUser("u2")).StatusCode, http.StatusOK)
			expect(t, "a new id", b.sid() != old, true)
		}},
		{"SS-09", func(t *testing.T) {
			site := newSite(t)
			a, b := site.visitor(), site.visitor()
			a.get(setUser("u1"))
			b.get(setUser("u2"))
			expect(t, "one id for two", a.sid() == b.sid(), false)
			expect(t, "users", a.user()+b.user(), "u1u2")
		}},
		{"SS-11", func(t *testing.T) {
			site := newSite(t)
			server := httptest.NewUnstartedServer(site.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				setUser("u1")(session.From(r.Context()))
				w.WriteHeader(http.StatusCreated)
				io.WriteString(w, "whole")
				w.WriteHeader(http.StatusGone)
			})))
			server.Config.ErrorLog = log.New(io.Discard, "", 0)
			server.Start()
			defer server.Close()
			response, err := http.Get(server.URL)
			if err != nil {
				t.Fatal(err)
			}
			defer response.Body.Close()
			expect(t, "answer", answer(t, response), "201 whole")
			expect(t, "calls", site.store.took(), "C")
		}},
		{"SS-12", func(t *testing.T) {
			response := newSite(t).visitor().get(setUser("u1"))
			expect(t, "answer", answer(t, response), "200 ")
			expect(t, "a cookie", sent(t, response) != nil, true)
		}},
		{"SS-13", timed(func(t *testing.T) {
			site := newSite(t)
			b := site.has(t, "found", expressRecord(0, 0, `,"save":"mine","userId":"u1"`), time.Hour)
			expect(t, "user", b.user(), "u1")
			response := b.get(func(s *session.Session) {
				if err := s.Save(); err != nil {
					t.Error(err)
				}
			})
			expect(t, "status", response.StatusCode, http.StatusOK)
			expect(t, "it is kept", strings.Contains(site.record(t, "found"), `"save":"mine"`), true)
		})},
		{"SS-14", func(t *testing.T) {
			site := newSite(t)
			b := site.has(t, "found", expressRecord(0, 0, `,"userId":"u1","n":1,"_goSession":{}`), time.Hour)
			b.get(func(s *session.Session) { expect(t, "keys", fmt.Sprint(s.Keys()), "[n userId]") })
		}},
		{"SS-16", timed(func(t *testing.T) {
			b := newSite(t, rolling, maxAge(time.Minute)).visitor()
			stream := func(w http.ResponseWriter, r *http.Request) {
				setUser("u1")(session.From(r.Context()))
				io.WriteString(w, "part")
				time.Sleep(5 * time.Second)
				io.WriteString(w, "rest")
			}
			first := sent(t, b.visit("GET", "/", stream))
			time.Sleep(5 * time.Second)
			second := sent(t, b.visit("GET", "/", stream))
			if first == nil || second == nil || !second.Expires.After(first.Expires) {
				t.Errorf("cookies %v and %v", first, second)
			}
		})},

		{"NF-01", func(t *testing.T) {
			site := newSite(t)
			b := site.visitor()
			b.jar["connect.sid"] = signature("nobody", siteSecret)
			expect(t, "user", b.user(), "")
			expect(t, "calls", site.store.took(), "L")
		}},
		{"NF-02", func(t *testing.T) {
			site := newSite(t)
			b := site.visitor()
			b.jar["connect.sid"] = signature("planted", siteSecret)
			b.get(setUser("u1"))
			expect(t, "the planted id was adopted", b.sid() == "planted" || site.record(t, "planted") != "", false)
			expect(t, "user", b.user(), "u1")
		}},
		{"SIG-01", func(t *testing.T) {
			site := newSite(t)
			b := site.has(t, "found", expressRecord(0, 0, `,"userId":"u1"`), time.Hour)
			b.jar["connect.sid"] = "found"
			expect(t, "user", b.user(), "")
			b.get(setUser("u2"))
			expect(t, "the id was adopted", b.sid() == "found", false)
		}},
		{"SIG-02", func(t *testing.T) {
			site := newSite(t)
			b := site.has(t, "found", expressRecord(0, 0, `,"userId":"u1"`), time.Hour)
			good := b.jar["connect.sid"]
			for _, bad := range []string{good[:len(good)-1], strings.Replace(good, "found", "fount", 1), good + "A", strings.Replace(good, ".", "", 1)} {
				b.jar["connect.sid"] = bad
				expect(t, "user", b.user(), "")
			}
			expect(t, "calls", site.store.took(), "")
		}},
		{"EXP-01", timed(func(t *testing.T) {
			b := newSite(t, maxAge(time.Minute)).visitor()
			b.get(setUser("u1"))
			time.Sleep(time.Minute + time.Second)
			expect(t, "user", b.user(), "")
			expect(t, "a cookie for what begins", sent(t, b.get(setUser("u2"))) != nil, true)
		})},
		{"EXP-02", timed(func(t *testing.T) {
			b := newSite(t, maxAge(time.Minute)).visitor()
			b.get(setUser("u1"))
			old := b.sid()
			time.Sleep(time.Minute + time.Second)
			b.get(setUser("u2"))
			expect(t, "the old id", b.sid() == old, false)
		})},
		{"EXP-03", timed(func(t *testing.T) {
			site := newSite(t, maxAge(time.Minute))
			site.visitor().get(setUser("old"))
			time.Sleep(time.Minute + time.Second)
			site.visitor().get(setUser("new"))
			var users []string
			for s, err := range site.All(t.Context()) {
				if err != nil {
					t.Fatal(err)
				}
				users = append(users, userKey.Get(s))
			}
			expect(t, "all", fmt.Sprint(users), "[new]")
		})},
		{"BAD-01", func(t *testing.T) {
			site := newSite(t)
			b := site.has(t, "found", `{"userId":"u1"}`, time.Hour)
			response := b.get(func(s *session.Session) { expect(t, "user", userKey.Get(s), "") })
			expect(t, "status", response.StatusCode, http.StatusOK)
			expect(t, "warnings", site.log.count("left as it is"), 1)
			expect(t, "the record is left alone", site.record(t, "found"), `{"userId":"u1"}`)
			b.get(setUser("u2"))
			expect(t, "a session can begin", b.user(), "u2")
		}},

		{"RS-04", timed(func(t *testing.T) {
			site := newSite(t)
			b := site.visitor()
			b.get(setUser("u1"))
			expect(t, "first PUT", site.store.took(), "C")
			b.get(readUser)
			expect(t, "GET", site.store.took(), "L")
			b.get(setUser("u2"))
			expect(t, "second PUT", site.store.took(), "L S")
		})},
		{"RS-05", timed(func(t *testing.T) {
			const nested session.Key[map[string]any] = "user"
			site := newSite(t)
			b := site.visitor()
			b.get(func(s *session.Session) { nested.Set(s, map[string]any{"cookie": "oatmeal"}) })
			site.store.took()
			b.get(func(s *session.Session) { nested.Set(s, map[string]any{"cookie": "raisin"}) })
			expect(t, "calls", site.store.took(), "L S")
			b.get(func(s *session.Session) { expect(t, "cookie", nested.Get(s)["cookie"], "raisin") })
		})},
		{"RS-06", timed(func(t *testing.T) {
			site := newSite(t, maxAge(time.Minute))
			b := site.has(t, "found", expressRecord(time.Minute, time.Second, `,"userId":"u1"`), time.Hour)
			site.store.on("S", refuse)
			response := b.visit("GET", "/", func(w http.ResponseWriter, r *http.Request) {
				io.WriteString(w, userKey.Get(session.From(r.Context())))
			})
			expect(t, "answer", answer(t, response), "200 u1")
			expect(t, "calls", site.store.took(), "L S")
			expect(t, "warnings", site.log.count("the deadline could not be moved"), 1)
		})},
		{"SU-05", func(t *testing.T) {
			site := newSite(t)
			site.store.on("C", refuse)
			response := site.visitor().visit("GET", "/", func(w http.ResponseWriter, r *http.Request) {
				setUser("u1")(session.From(r.Context()))
				io.WriteString(w, "welcome")
			})
			expect(t, "answer", answer(t, response), "503 Service Unavailable")
			expect(t, "a cookie of nothing", sent(t, response) == nil, true)
		}},

		{"RQ-01", func(t *testing.T) {
			site := newSite(t)
			b := site.visitor()
			for want := 1; want <= 2; want++ {
				b.get(func(s *session.Session) { nKey.Update(s, next); expect(t, "counter", nKey.Get(s), want) })
			}
			expect(t, "in the store under the id", strings.Contains(site.record(t, b.sid()), `"n":2`), true)
		}},
		{"RQ-02", timed(func(t *testing.T) {
			b := newSite(t, maxAge(time.Minute)).visitor()
			for i, step := range []struct {
				do   func(*session.Session)
				sent bool
			}{{setUser("u1"), true}, {readUser, false}, {setUser("u2"), true}} {
				expect(t, fmt.Sprint("cookie with request ", i), sent(t, b.get(step.do)) != nil, step.sent)
			}
		})},
		{"RQ-04", func(t *testing.T) {
			site := newSite(t)
			b := site.has(t, "found", expressRecord(0, 0, `,"userId":"u1"`), time.Hour)
			site.store.on("L", refuse)
			response := b.visit("POST", "/", func(http.ResponseWriter, *http.Request) { t.Error("the handler ran without a session") })
			expect(t, "status", response.StatusCode, http.StatusServiceUnavailable)
		}},
		{"RQ-05", func(t *testing.T) {
			site := newSite(t)
			b := site.has(t, "found", expressRecord(0, 0, `,"userId":"u1"`), time.Hour)
			site.store.on("L", refuse)
			b.get(readUser)
			site.store.on("L", nil)
			expect(t, "user", b.user(), "u1")
		}},
		{"DE-01", func(t *testing.T) {
			b := newSite(t).visitor()
			response := b.get(func(s *session.Session) {
				setUser("u1")(s)
				if err := s.Destroy(); err != nil {
					t.Error(err)
				}
				expect(t, "user of a destroyed session", userKey.Get(s), "")
			})
			expect(t, "cookies", len(response.Cookies()), 0)
		}},
		{"RG-01", func(t *testing.T) {
			site := newSite(t)
			b := site.visitor()
			b.get(regenerate)
			for range 2 {
				old := b.sid()
				expect(t, "a cookie", sent(t, b.get(regenerate)) != nil, true)
				expect(t, "the old id", b.sid() == old, false)
				expect(t, "the old session", site.record(t, old), "")
			}
		}},
		{"RL-01", func(t *testing.T) {
			b := newSite(t).visitor()
			b.get(setUser("u1"))
			other := b.copy()
			b.get(func(s *session.Session) {
				setUser("mine")(s)
				other.get(setUser("theirs"))
				if err := s.Reload(); err != nil {
					t.Error(err)
				}
				expect(t, "user", userKey.Get(s), "theirs")
			})
			expect(t, "user afterwards", b.user(), "theirs")
		}},
		{"RL-02", func(t *testing.T) {
			b := newSite(t).visitor()
			b.get(setUser("u1"))
			other := b.copy()
			response := b.get(func(s *session.Session) {
				readUser(s)
				other.get(destroy)
				if err := s.Reload(); !errors.Is(err, session.ErrNotFound) {
					t.Errorf("error %v", err)
				}
				expect(t, "user of a session that has ended", userKey.Get(s), "")
			})
			expect(t, "status", response.StatusCode, http.StatusOK)
		}},
		{"RL-03", func(t *testing.T) {
			newSite(t).visitor().get(func(s *session.Session) {
				for range 1000 {
					if err := s.Reload(); !errors.Is(err, session.ErrNotFound) {
						t.Fatalf("error %v", err)
					}
				}
			})
		}},
		{"SV-01", func(t *testing.T) {
			site := newSite(t)
			site.visitor().get(func(s *session.Session) {
				setUser("u1")(s)
				if err := s.Save(); err != nil {
					t.Error(err)
				}
				expect(t, "stored by then", strings.Contains(site.record(t, s.ID()), `"userId":"u1"`), true)
			})
		}},

		{"SM-A", func(t *testing.T) {
			site := newSite(t)
			b := site.visitor()
			b.get(setUser("u1"))
			site.store.on("S", refuse)
			response := b.get(func(s *session.Session) { setUser("u2")(s); s.Save() })
			expect(t, "status although the handler ignored the error", response.StatusCode, http.StatusServiceUnavailable)
			expect(t, "user", b.user(), "u1")
		}},
		{"SM-B", func(t *testing.T) {
			site := newSite(t)
			b := site.visitor()
			b.get(setUser("u1"))
			site.store.on("D", refuse)
			response := b.get(func(s *session.Session) {
				if err := s.Destroy(); !errors.Is(err, session.ErrUnavailable) {
					t.Errorf("error %v", err)
				}
			})
			expect(t, "status of a logout that failed", response.StatusCode, http.StatusServiceUnavailable)
			expect(t, "user", b.user(), "u1")
			site.store.on("D", nil)
			b.get(destroy)
			expect(t, "cookies in the browser", len(b.jar), 0)
		}},
		{"SM-C", func(t *testing.T) {
			site := newSite(t)
			b := site.visitor()
			b.get(setUser("u1"))
			first := true
			site.store.on("D", func() error {
				if first {
					first = false
					return refuse()
				}
				return nil
			})
			response := b.get(func(s *session.Session) { s.Regenerate(); setUser("u2")(s) })
			expect(t, "status", response.StatusCode, http.StatusServiceUnavailable)
			expect(t, "sessions", site.store.sessions(t), 1)
			expect(t, "user", b.user(), "u1")
			b.get(func(s *session.Session) { s.Regenerate(); expect(t, "user of the new session", userKey.Get(s), "") })
		}},
		{"SM-F", func(t *testing.T) {
			site := newSite(t)
			b := site.visitor()
			b.get(setUser("u1"))
			var kept *session.Session
			b.get(func(s *session.Session) { kept = s; readUser(s) })
			b.get(regenerate)
			if err := kept.Save(); !errors.Is(err, session.ErrClosed) {
				t.Errorf("error %v", err)
			}
			expect(t, "sessions", site.store.sessions(t), 1)
		}},
		{"SM-G", timed(func(t *testing.T) {
			first := newSite(t, maxAge(time.Minute))
			second := openSite(t, first.store.Store, maxAge(time.Hour), func(o *expressjs.Options) { o.Name, o.Cookie.Path = "other", "/other" })
			c := first.visitor().get(setUser("u1")).Cookies()[0]
			expect(t, "the first manager's cookie", c.Name+attributesOf(c), "connect.sid; Path=/; Expires=+60; HttpOnly")
			c = second.visitor().get(setUser("u1")).Cookies()[0]
			expect(t, "the second one's", c.Name+attributesOf(c), "other; Path=/other; Expires=+3600; HttpOnly")
		})},
	}
}

// refused are options that New returns an error for.
func refused(want string, change func(o *expressjs.Options)) func(t *testing.T) {
	return func(t *testing.T) {
		o := expressjs.Options{Secrets: []string{siteSecret}, Store: expressjs.RedisStore{Client: newRedisMap()}}
		change(&o)
		if _, err := expressjs.New(o); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v, want one with %q", err, want)
		}
	}
}
