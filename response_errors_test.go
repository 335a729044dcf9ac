package session_test

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"mime/multipart"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/seed-4f96e14b/session"
)

var errDown = errors.New("connection refused by 10.1.2.3")

func down() error { return errDown }

// everyOp sets before for all calls.
func (s *spy) everyOp(do func() error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.before = func(string, string) error { return do() }
}

func (s *spy) works() { s.everyOp(func() error { return nil }) }

// An outage is a 503, never "not logged in": the handler's answer is dropped, or the
// handler is not run. The cookie stays, and the session is there when the store is.
func TestStoreDownOnLoad(t *testing.T) {
	var book logBook
	sp := &spy{Store: new(session.MemoryStore)}
	m := newManager(t, session.Options{Store: sp, Logger: book.logger()})
	v := newVisitor(m)
	v.get(setName("x"))
	sp.everyOp(down)

	ran := false
	for _, method := range []string{"POST", "PUT", "PATCH", "DELETE", "CONNECT", "LOCK"} {
		response := v.do(method, func(http.ResponseWriter, *http.Request) { ran = true })
		expectUnavailable(t, method, response)
	}
	if ran {
		t.Error("the handler of an unsafe method ran")
	}
	for _, method := range []string{"GET", "HEAD", "OPTIONS", "TRACE"} {
		response := v.do(method, func(w http.ResponseWriter, r *http.Request) {
			s := session.From(r.Context())
			if nameKey.Has(s) {
				t.Error("a value without a load")
			}
			if !errors.Is(s.Err(), session.ErrUnavailable) || !errors.Is(s.Err(), errDown) {
				t.Errorf("error %v", s.Err())
			}
			nameKey.Set(s, "over it")
			w.Header().Set("Location", "/login")
			w.WriteHeader(http.StatusSeeOther)
			if _, err := io.WriteString(w, "please log in"); err == nil {
				t.Error("a write to a dropped response succeeds")
			}
		})
		expectUnavailable(t, method, response)
	}
	// Who does not look is not disturbed, and the anonymous are served.
	check(t, "untouched", v.get(untouched).StatusCode, http.StatusOK)
	check(t, "anonymous", newVisitor(m).post(use(func(s *session.Session) { nameKey.Get(s) })).StatusCode, http.StatusOK)

	check(t, "log lines", book.lines(), 6+4)
	sp.works()
	check(t, "name afterwards", nameOf(v), "x")
}

func expectUnavailable(t *testing.T, what string, response *http.Response) {
	t.Helper()
	body, _ := io.ReadAll(response.Body)
	check(t, what+": status", response.StatusCode, http.StatusServiceUnavailable)
	check(t, what+": body", string(body), "Service Unavailable\n")
	check(t, what+": Location", response.Header.Get("Location"), "")
	check(t, what+": Cache-Control", response.Header.Get("Cache-Control"), "no-store")
	if len(cookies(response)) > 0 {
		t.Errorf("%s: cookies %q", what, cookies(response))
	}
}

// A failed save leaves nothing of the handler's response, and everything of what
// was there before.
func TestStoreDownOnSave(t *testing.T) {
	sp := &spy{Store: new(session.MemoryStore)}
	m := newManager(t, session.Options{Store: sp})
	outside := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Strict-Transport-Security", "max-age=1")
		w.Header().Set("ETag", `"of the outside"`)
		m.Handler(app).ServeHTTP(w, r)
	})
	for name, op := range map[string]string{"new": "C", "found": "S"} {
		v := newVisitor(m)
		v.server = outside
		if op == "S" {
			v.get(setName("x"))
		}
		before := v.jar["__Host-sid"]
		sp.on(op, down)
		response := v.get(func(w http.ResponseWriter, r *http.Request) {
			nameKey.Set(session.From(r.Context()), "y")
			for _, h := range []string{"Location", "ETag", "Content-Length", "Content-Encoding", "Set-Cookie", "X-Mine", "Trailer"} {
				w.Header().Set(h, "1")
			}
			w.WriteHeader(http.StatusCreated)
			io.WriteString(w, "welcome")
			io.Copy(w, strings.NewReader("welcome"))
			if err := http.NewResponseController(w).Flush(); !errors.Is(err, session.ErrUnavailable) {
				t.Errorf("Flush: error %v", err)
			}
			w.WriteHeader(http.StatusOK)
		})
		expectUnavailable(t, name, response)
		for _, h := range []string{"Content-Length", "Content-Encoding", "X-Mine", "Trailer"} {
			check(t, name+": "+h, response.Header.Get(h), "")
		}
		check(t, name+": header of the outside", response.Header.Get("Strict-Transport-Security"), "max-age=1")
		check(t, name+": header of the outside", response.Header.Get("ETag"), `"of the outside"`)
		check(t, name+": cookie", v.jar["__Host-sid"], before)
		sp.works()
	}
}

// A handler that answers 500 or above has said it itself.
func TestHandlerThatAnswersTheError(t *testing.T) {
	var book logBook
	sp := &spy{Store: new(session.MemoryStore)}
	v := newVisitor(newManager(t, session.Options{Store: sp, Logger: book.logger()}))
	v.get(setName("x"))
	sp.everyOp(down)
	response := v.get(func(w http.ResponseWriter, r *http.Request) {
		if nameKey.Get(session.From(r.Context())); session.From(r.Context()).Err() != nil {
			w.WriteHeader(http.StatusBadGateway)
			io.WriteString(w, "mine")
		}
	})
	body, _ := io.ReadAll(response.Body)
	check(t, "status", response.StatusCode, http.StatusBadGateway)
	check(t, "body", string(body), "mine")
	check(t, "log lines", book.lines(), 1)
	sp.works()

	// Without an error of the session, such an answer saves as any other.
	v.get(func(w http.ResponseWriter, r *http.Request) {
		nameKey.Set(session.From(r.Context()), "y")
		w.WriteHeader(http.StatusInternalServerError)
	})
	check(t, "name", nameOf(v), "y")
}

// A hung store costs StoreTimeout, whatever it does with the context; so does a save
// with everything that it needs.
func TestHungStore(t *testing.T) {
	for op, do := range map[string]handler{
		"L": use(func(s *session.Session) { nameKey.Get(s) }),
		"S": setName("y"),
		"C": use(func(s *session.Session) { s.Regenerate() }),
		"D": use(func(s *session.Session) { s.Destroy() }),
	} {
		inBubble(t, func(t *testing.T) {
			sp := &spy{Store: new(session.MemoryStore)}
			v := newVisitor(newManager(t, session.Options{Store: sp, StoreTimeout: 300 * time.Millisecond}))
			v.get(setName("x"))
			hang := make(chan struct{})
			sp.on(op, func() error { <-hang; return errDown })
			start := time.Now()
			expectUnavailable(t, op, v.get(do))
			check(t, op+": time", time.Since(start), 300*time.Millisecond)
			close(hang)
			sp.works()
			check(t, op+": name afterwards", nameOf(v), "x")
		})
	}
}

// A logout that failed is never answered as if it had worked.
func TestDestroyFails(t *testing.T) {
	sp := &spy{Store: new(session.MemoryStore)}
	v := newVisitor(newManager(t, session.Options{Store: sp}))
	v.get(setName("x"))
	sp.on("D", down)
	response := v.post(func(w http.ResponseWriter, r *http.Request) {
		if err := session.From(r.Context()).Destroy(); !errors.Is(err, session.ErrUnavailable) {
			t.Errorf("error %v", err)
		}
		w.WriteHeader(http.StatusNoContent)
	})
	expectUnavailable(t, "logout", response)
	sp.works()
	check(t, "name", nameOf(v), "x")

	// Called again in the same request, it tries again.
	sp.onceOn("D", down)
	v.post(use(func(s *session.Session) {
		s.Destroy()
		if err := s.Destroy(); err != nil {
			t.Errorf("second Destroy: %v", err)
		}
	}))
	check(t, "name", nameOf(v), "")
}

// Destroy and Regenerate delete under the cookie's id whatever the load said.
func TestEndOfSessionThatCannotBeRead(t *testing.T) {
	for name, end := range map[string]func(*session.Session){
		"destroy":    func(s *session.Session) { s.Destroy() },
		"regenerate": func(s *session.Session) { s.Regenerate() },
	} {
		t.Run(name, func(t *testing.T) {
			sp := &spy{Store: new(session.MemoryStore)}
			v := newVisitor(newManager(t, session.Options{Store: sp}))
			v.get(setName("x"))
			old := v.copy()
			sp.on("L", down)
			response := v.get(use(func(s *session.Session) { nameKey.Get(s); end(s) }))
			check(t, "status", response.StatusCode, http.StatusServiceUnavailable)
			sp.works()
			check(t, "name", nameOf(old), "")
		})
	}
}

// Regenerate creates, then deletes. If it cannot delete, the new session goes again.
func TestRegenerateFails(t *testing.T) {
	for op, calls := range map[string]string{"C": "C L D", "D": "C D D"} {
		t.Run(op, func(t *testing.T) {
			memory := new(session.MemoryStore)
			sp := &spy{Store: memory}
			v := newVisitor(newManager(t, session.Options{Store: sp}))
			v.get(setName("x"))
			sp.took()
			sp.onceOn(op, down)
			expectUnavailable(t, op, v.get(use(func(s *session.Session) { s.Regenerate(); nameKey.Set(s, "y") })))
			check(t, "calls", sp.took(), calls)
			check(t, "name", nameOf(v), "x")
			check(t, "sessions", recordsIn(t, memory), 1)
		})
	}
	t.Run("after Destroy", func(t *testing.T) {
		sp := &spy{Store: new(session.MemoryStore)}
		v := newVisitor(newManager(t, session.Options{Store: sp}))
		v.get(setName("x"))
		sp.onceOn("C", down)
		response := v.get(use(func(s *session.Session) { s.Destroy(); s.Regenerate() }))
		check(t, "status", response.StatusCode, http.StatusServiceUnavailable)
		if set := cookies(response); len(set) != 1 || !strings.Contains(set[0], "Max-Age=0") {
			t.Errorf("cookies %q, want the removal of the one whose session has ended", set)
		}
	})
}

func TestTooLarge(t *testing.T) {
	var book logBook
	store := new(session.MemoryStore)
	small := newManager(t, session.Options{Store: store, MaxBytes: 1000, Logger: book.logger()})
	large := newManager(t, session.Options{Store: store})
	v := newVisitor(small)
	set := func(n int) handler { return setName(strings.Repeat("x", n)) }

	check(t, "new: status", v.get(set(1000)).StatusCode, http.StatusInternalServerError)
	check(t, "new: cookies", len(v.jar), 0)
	check(t, "below: status", v.get(set(800)).StatusCode, http.StatusOK)
	check(t, "found: status", v.get(set(1000)).StatusCode, http.StatusInternalServerError)
	check(t, "found: name", len(nameOf(v)), 800)
	if !strings.Contains(book.String(), "MaxBytes is 1000") {
		t.Errorf("log: %s", book.String())
	}
	check(t, "as ErrTooLarge", v.get(use(func(s *session.Session) {
		nameKey.Set(s, strings.Repeat("x", 1000))
		if err := s.Save(); !errors.Is(err, session.ErrTooLarge) {
			t.Errorf("Save: error %v", err)
		}
	})).StatusCode, http.StatusInternalServerError)

	// One that was larger before may shrink.
	v.server = large.Handler(app)
	v.get(set(5000))
	v.server = small.Handler(app)
	check(t, "shrinks: status", v.get(set(3000)).StatusCode, http.StatusOK)
	check(t, "grows: status", v.get(set(4000)).StatusCode, http.StatusInternalServerError)
	check(t, "name", len(nameOf(v)), 3000)

	// What keeps a session alive, or renews it, is not refused for its size.
	for what, do := range map[string]func(s *session.Session){
		"save":        func(s *session.Session) { s.Save() },
		"renew":       func(s *session.Session) { s.Renew(0) },
		"delete":      func(s *session.Session) { roleKey.Delete(s) },
		"set max age": func(s *session.Session) { s.SetMaxAge(time.Hour) },
	} {
		for range 10 { // another record of the same size, or a little more
			check(t, what+": status", v.get(use(do)).StatusCode, http.StatusOK)
		}
	}

	check(t, "the default: status", newVisitor(large).get(set(session.DefaultMaxBytes)).StatusCode, http.StatusInternalServerError)
	check(t, "the default: status", newVisitor(large).get(set(session.DefaultMaxBytes-200)).StatusCode, http.StatusOK)
}

func TestErrorHandler(t *testing.T) {
	type result struct {
		status int
		body   string
	}
	for name, tt := range map[string]struct {
		handle func(w http.ResponseWriter, r *http.Request, err error)
		fails  handler
		want   result
	}{
		"body only": {func(w http.ResponseWriter, r *http.Request, err error) {
			w.Header().Set("Content-Type", "application/json")
			io.WriteString(w, "{}")
		}, nil, result{503, "{}"}},
		"nothing": {func(http.ResponseWriter, *http.Request, error) {}, nil, result{503, ""}},
		"status":  {func(w http.ResponseWriter, r *http.Request, err error) { w.WriteHeader(418) }, nil, result{418, ""}},
		"flush": {func(w http.ResponseWriter, r *http.Request, err error) { http.NewResponseController(w).Flush() }, nil,
			result{503, ""}},
		"too large": {func(w http.ResponseWriter, r *http.Request, err error) {
			fmt.Fprint(w, errors.Is(err, session.ErrTooLarge))
		},
			setName(strings.Repeat("x", 100_000)), result{500, "true"}},
		"value": {func(w http.ResponseWriter, r *http.Request, err error) {
			fmt.Fprint(w, errors.Is(err, session.ErrEncode))
		},
			use(func(s *session.Session) { session.Key[chan int]("c").Set(s, nil) }), result{500, "true"}},
		"looks at the session": {func(w http.ResponseWriter, r *http.Request, err error) {
			fmt.Fprint(w, nameKey.Get(session.From(r.Context())), session.From(r.Context()).Err() == err)
		}, nil, result{503, "true"}},
	} {
		t.Run(name, func(t *testing.T) {
			sp := &spy{Store: new(session.MemoryStore)}
			v := newVisitor(newManager(t, session.Options{Store: sp, ErrorHandler: tt.handle}))
			v.get(setName("x"))
			if tt.fails == nil {
				tt.fails = use(func(s *session.Session) { nameKey.Get(s) })
				sp.on("L", down)
			}
			response := v.get(tt.fails)
			body, _ := io.ReadAll(response.Body)
			check(t, "response", result{response.StatusCode, string(body)}, tt.want)
			check(t, "Cache-Control", response.Header.Get("Cache-Control"), "no-store")
		})
	}
}

// What a record can hold that no Manager of this version wrote.
func TestRecordsThatDoNotDecode(t *testing.T) {
	for name, spoil := range map[string]func(record []byte) []byte{
		"empty":             func([]byte) []byte { return nil },
		"text":              func([]byte) []byte { return []byte("hello") },
		"JSON":              func([]byte) []byte { return []byte(`{"cookie":{},"name":"x"}`) },
		"truncated":         func(r []byte) []byte { return r[:len(r)-1] },
		"extended":          func(r []byte) []byte { return append(r, 0) },
		"header alone":      func(r []byte) []byte { return r[:2] },
		"version 0":         func(r []byte) []byte { r[1] = 0; return r },
		"huge list":         func(r []byte) []byte { return append(r[:14], 0xff, 0xff, 0xff, 0xff, 0x7f) },
		"bytes that repeat": func(r []byte) []byte { return bytes.Repeat([]byte{1}, 500) },
	} {
		t.Run(name, func(t *testing.T) {
			var book logBook
			sp := &spy{Store: new(session.MemoryStore)}
			v := newVisitor(newManager(t, session.Options{Store: sp, Logger: book.logger()}))
			v.get(setName("x"))
			key := sp.keys[0]
			sp.Store.Delete(t.Context(), key)
			sp.Store.Create(t.Context(), key, spoil(bytes.Clone(sp.data[0])), time.Hour)
			sp.took()

			response := v.post(use(func(s *session.Session) {
				if len(s.Keys()) > 0 || s.Err() != nil {
					t.Errorf("keys %q, error %v", s.Keys(), s.Err())
				}
			}))
			check(t, "status", response.StatusCode, http.StatusOK)
			check(t, "calls: the record is left alone", sp.took(), "L")
			if !strings.Contains(book.String(), "unreadable") {
				t.Errorf("log: %s", book.String())
			}
			v.get(use(func(s *session.Session) { s.Regenerate() }))
			if _, err := sp.Store.Load(t.Context(), key); !errors.Is(err, session.ErrNotFound) {
				t.Errorf("after Regenerate: error %v", err)
			}
		})
	}
	t.Run("newer version", func(t *testing.T) {
		sp := &spy{Store: new(session.MemoryStore)}
		v := newVisitor(newManager(t, session.Options{Store: sp}))
		v.get(setName("x"))
		newer := bytes.Clone(sp.data[0])
		newer[1]++
		sp.Store.CompareAndSwap(t.Context(), sp.keys[0], sp.data[0], newer, time.Hour)
		expectUnavailable(t, "read", v.get(use(func(s *session.Session) { nameKey.Get(s) })))
	})
	t.Run("of another session", func(t *testing.T) {
		memory := new(session.MemoryStore)
		sp := &spy{Store: memory}
		m := newManager(t, session.Options{Store: sp})
		a, b := newVisitor(m), newVisitor(m)
		a.get(setName("a"))
		b.get(setName("b"))
		memory.CompareAndSwap(t.Context(), sp.keys[0], sp.data[0], sp.data[1], time.Hour)
		check(t, "name", nameOf(a), "")
	})
}

// A panic passes through unchanged, and the request's changes are dropped.
func TestPanic(t *testing.T) {
	for name, value := range map[string]any{"error": errDown, "abort": http.ErrAbortHandler, "text": "x"} {
		t.Run(name, func(t *testing.T) {
			v := newVisitor(newManager(t, session.Options{}))
			v.get(setName("before"))
			var s *session.Session
			func() {
				defer func() { check(t, "panic", recover(), value) }()
				v.get(func(w http.ResponseWriter, r *http.Request) {
					s = session.From(r.Context())
					nameKey.Set(s, "after")
					panic(value)
				})
			}()
			nameKey.Set(s, "later")
			if !errors.Is(s.Err(), session.ErrClosed) {
				t.Errorf("error %v, want ErrClosed", s.Err())
			}
			check(t, "name", nameOf(v), "before")
		})
	}
}

// A panic while the session is saved, which a middleware inside recovers: its answer
// goes out if it says that there was an error, and nothing is saved.
func TestPanicWhileSaving(t *testing.T) {
	for name, tt := range map[string]struct {
		answer func(w http.ResponseWriter)
		want   int
	}{
		"answered with an error": {func(w http.ResponseWriter) { w.WriteHeader(http.StatusBadGateway) }, http.StatusBadGateway},
		"answered with success":  {func(w http.ResponseWriter) { io.WriteString(w, "recovered") }, http.StatusInternalServerError},
		"not answered":           {func(w http.ResponseWriter) {}, http.StatusInternalServerError},
	} {
		t.Run(name, func(t *testing.T) {
			sp := &spy{Store: new(session.MemoryStore)}
			v := newVisitor(newManager(t, session.Options{Store: sp}))
			v.get(setName("x"))
			sp.onceOn("S", func() error { panic("of the store") })
			response := v.get(func(w http.ResponseWriter, r *http.Request) {
				defer func() {
					check(t, "panic", recover(), any("of the store"))
					tt.answer(w)
				}()
				session.From(r.Context()).Renew(0)
				nameKey.Set(session.From(r.Context()), "y")
				w.WriteHeader(http.StatusOK)
			})
			check(t, "status", response.StatusCode, tt.want)
			check(t, "name", nameOf(v), "x")
		})
	}
}

// What Save has stored stays the client's when the request fails later.
func TestFailureAfterSave(t *testing.T) {
	for name, do := range map[string]func(s *session.Session){
		"renewed":     func(s *session.Session) { s.Renew(0) },
		"regenerated": func(s *session.Session) { s.Regenerate(); nameKey.Set(s, "x") },
	} {
		v := newVisitor(newManager(t, session.Options{}))
		v.get(setName("x"))
		response := v.get(use(func(s *session.Session) {
			do(s)
			if err := s.Save(); err != nil {
				t.Error(err)
			}
			session.Key[chan int]("bad").Set(s, nil)
		}))
		check(t, name+": status", response.StatusCode, http.StatusInternalServerError)
		check(t, name+": name", nameOf(v), "x")
	}
}

// What goes wrong in another goroutine while the session is saved fails the response.
func TestFailureWhileSaving(t *testing.T) {
	sp := &spy{Store: new(session.MemoryStore)}
	v := newVisitor(newManager(t, session.Options{Store: sp}))
	response := v.get(use(func(s *session.Session) {
		sp.onceOn("C", func() error { session.Key[chan int]("bad").Set(s, nil); return nil })
		nameKey.Set(s, "x")
	}))
	check(t, "status", response.StatusCode, http.StatusInternalServerError)
	check(t, "name", nameOf(v), "x")
}

// What Save has stored stays the client's also if the handler panics, and a middleware
// outside answers.
func TestPanicAfterSave(t *testing.T) {
	m := newManager(t, session.Options{})
	v := newVisitor(m)
	v.get(setName("x"))
	v.server = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		defer func() {
			check(t, "panic", recover(), any("bug"))
			w.WriteHeader(http.StatusInternalServerError)
		}()
		m.Handler(app).ServeHTTP(w, r)
	})
	v.get(use(func(s *session.Session) {
		s.Renew(0)
		s.Save()
		panic("bug")
	}))
	v.server = m.Handler(app)
	check(t, "name", nameOf(v), "x")
}

// A handler that aborts the response that it could not write does not abort the
// answer that took its place.
func TestReverseProxyAsHandler(t *testing.T) {
	backend := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, "hello") }))
	defer backend.Close()
	target, _ := url.Parse(backend.URL)
	sp := &spy{Store: new(session.MemoryStore)}
	sp.on("C", down)
	m := newManager(t, session.Options{Store: sp, SaveUninitialized: true})
	server := httptest.NewServer(m.Handler(httputil.NewSingleHostReverseProxy(target)))
	defer server.Close()
	response, err := http.Get(server.URL)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	expectUnavailable(t, "through the proxy", response)
}

// An ErrorHandler that panics, and a handler that recovers, do not make a success of it.
func TestErrorHandlerPanics(t *testing.T) {
	sp := &spy{Store: new(session.MemoryStore)}
	v := newVisitor(newManager(t, session.Options{Store: sp, ErrorHandler: func(http.ResponseWriter, *http.Request, error) { panic("bug") }}))
	sp.on("C", down)
	response := v.get(func(w http.ResponseWriter, r *http.Request) {
		defer func() { recover() }()
		nameKey.Set(session.From(r.Context()), "x")
		w.WriteHeader(http.StatusOK)
	})
	check(t, "status", response.StatusCode, http.StatusServiceUnavailable)
}

// A deadline that cannot be moved is tried once.
func TestDeadlineMoveThatHangs(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		sp := &spy{Store: new(session.MemoryStore)}
		v := newVisitor(newManager(t, session.Options{Store: sp}))
		v.get(setName("x"))
		time.Sleep(12 * time.Hour)
		sp.took()
		sp.on("S", func() error { time.Sleep(time.Minute); return errDown })
		start := time.Now()
		response := v.get(func(w http.ResponseWriter, r *http.Request) {
			io.WriteString(w, nameKey.Get(session.From(r.Context())))
		})
		check(t, "status", response.StatusCode, http.StatusOK)
		check(t, "time", time.Since(start), session.DefaultStoreTimeout)
		check(t, "calls", sp.took(), "L S")
		time.Sleep(time.Hour) // until the abandoned call ends
	})
}

// The record of a login that failed because the old session could not be deleted in
// time is taken back later.
func TestRegenerateIsTakenBackLater(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		memory := new(session.MemoryStore)
		sp := &spy{Store: memory}
		v := newVisitor(newManager(t, session.Options{Store: sp}))
		v.get(setName("x"))
		sp.onceOn("D", func() error { time.Sleep(10 * time.Second); return errDown })
		start := time.Now()
		expectUnavailable(t, "login", v.get(use(func(s *session.Session) { s.Regenerate(); nameKey.Set(s, "y") })))
		check(t, "time", time.Since(start), session.DefaultStoreTimeout)
		time.Sleep(time.Minute)
		check(t, "sessions", recordsIn(t, memory), 1)
		check(t, "name", nameOf(v), "x")
	})
}

// The server removes an upload's temporary files.
func TestUploadedFilesAreRemoved(t *testing.T) {
	t.Setenv("TMPDIR", t.TempDir())
	m := newManager(t, session.Options{})
	server := httptest.NewServer(m.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if _, _, err := r.FormFile("file"); err != nil {
			t.Error(err)
		}
		files, _ := os.ReadDir(os.TempDir())
		check(t, "files while the handler runs", len(files), 1)
	})))
	var body bytes.Buffer
	form := multipart.NewWriter(&body)
	part, _ := form.CreateFormFile("file", "large")
	part.Write(make([]byte, 40<<20))
	form.Close()
	response, err := http.Post(server.URL, form.FormDataContentType(), &body)
	if err != nil {
		t.Fatal(err)
	}
	response.Body.Close()
	server.Close()
	files, _ := os.ReadDir(os.TempDir())
	check(t, "files afterwards", len(files), 0)
}

// A panic of the store reaches the handler's goroutine, and leaves no lock held.
func TestPanicOfTheStore(t *testing.T) {
	sp := &spy{Store: new(session.MemoryStore)}
	v := newVisitor(newManager(t, session.Options{Store: sp}))
	v.get(setName("x"))
	sp.on("L", func() error { panic("of the store") })
	v.get(use(func(s *session.Session) {
		for range 2 {
			panics(t, "Get", "of the store", func() { nameKey.Get(s) })
		}
		sp.works()
		check(t, "name", nameKey.Get(s), "x")
	}))
}

// The session is saved when the client is gone, and when it was gone before.
func TestClientGone(t *testing.T) {
	forEachStore(t, func(t *testing.T, store session.Store) {
		v := newVisitor(newManager(t, session.Options{Store: store}))
		v.get(setName("x"))
		v.send(http.MethodPost, setName("y"), func(r *http.Request) {
			ctx, cancel := context.WithCancel(r.Context())
			cancel()
			*r = *r.WithContext(ctx)
		})
		check(t, "name", nameOf(v), "y")
	})
}

// Every road on which the first byte may leave.
func TestCommitBeforeTheFirstByte(t *testing.T) {
	for name, write := range map[string]func(w http.ResponseWriter){
		"nothing":     func(w http.ResponseWriter) {},
		"WriteHeader": func(w http.ResponseWriter) { w.WriteHeader(http.StatusAccepted) },
		"Write":       func(w http.ResponseWriter) { w.Write([]byte("x")) },
		"WriteString": func(w http.ResponseWriter) { io.WriteString(w, "x") },
		"Copy":        func(w http.ResponseWriter) { io.Copy(w, strings.NewReader("x")) },
		"ReadFrom":    func(w http.ResponseWriter) { w.(io.ReaderFrom).ReadFrom(strings.NewReader("x")) },
		"Flush":       func(w http.ResponseWriter) { w.(http.Flusher).Flush() },
		"controller":  func(w http.ResponseWriter) { http.NewResponseController(w).Flush() },
		"early hints": func(w http.ResponseWriter) { w.WriteHeader(http.StatusEarlyHints); w.WriteHeader(http.StatusOK) },
		"redirect":    func(w http.ResponseWriter) { w.Header().Set("Location", "/"); w.WriteHeader(http.StatusSeeOther) },
		"204":         func(w http.ResponseWriter) { w.WriteHeader(http.StatusNoContent) },
		"304":         func(w http.ResponseWriter) { w.WriteHeader(http.StatusNotModified) },
		"content": func(w http.ResponseWriter) {
			http.ServeContent(w, httptest.NewRequest("GET", "/", nil), "x.txt", time.Time{}, strings.NewReader("text"))
		},
	} {
		t.Run(name, func(t *testing.T) {
			sp := &spy{Store: new(session.MemoryStore)}
			m := newManager(t, session.Options{Store: sp, Cookie: session.Cookie{Insecure: true}})
			var during string
			server := httptest.NewServer(m.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				nameKey.Set(session.From(r.Context()), "x")
				write(w)
				during = sp.took()
			})))
			client := &http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
			response, err := client.Get(server.URL)
			if err != nil {
				t.Fatal(err)
			}
			response.Body.Close()
			server.Close() // waits for the handler
			check(t, "cookies", len(cookies(response)), 1)
			if name == "nothing" { // saved after the handler
				during += sp.took()
			}
			check(t, "calls by then", during, "C")
		})
	}
}

// 103 is not the response: what is set after it goes with the 200.
func TestEarlyHintsDoNotCommit(t *testing.T) {
	sp := &spy{Store: new(session.MemoryStore)}
	m := newManager(t, session.Options{Store: sp, Cookie: session.Cookie{Insecure: true}})
	server := httptest.NewServer(m.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(http.StatusEarlyHints)
		check(t, "calls", sp.took(), "")
		nameKey.Set(session.From(r.Context()), "x")
	})))
	defer server.Close()
	response, err := http.Get(server.URL)
	if err != nil {
		t.Fatal(err)
	}
	response.Body.Close()
	check(t, "cookies", len(cookies(response)), 1)
}

func TestHijack(t *testing.T) {
	sp := &spy{Store: new(session.MemoryStore)}
	m := newManager(t, session.Options{Store: sp, Cookie: session.Cookie{Insecure: true}})
	handler := m.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s := session.From(r.Context())
		nameKey.Set(s, "x")
		conn, rw, err := w.(http.Hijacker).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		defer conn.Close()
		check(t, "calls before", sp.took(), "C")
		rw.WriteString("HTTP/1.1 101 Switching Protocols\r\n")
		w.Header().Write(rw)
		rw.WriteString("\r\n")
		rw.Flush()
		counterKey.Set(s, 7) // saved when the handler ends
	}))
	done := make(chan struct{})
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		defer close(done) // the server does not wait for a hijacked connection
		handler.ServeHTTP(w, r)
	}))
	defer server.Close()
	conn, err := net.Dial("tcp", server.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	fmt.Fprint(conn, "GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
	response, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		t.Fatal(err)
	}
	io.Copy(io.Discard, conn)
	conn.Close()
	<-done
	v := newVisitor(m)
	v.jar["sid"] = response.Cookies()[0].Value
	check(t, "name", nameOf(v), "x")
	check(t, "counter", counterOf(v), 7)
}

// After the first byte, changes of a session that the client has are saved when the
// handler ends; what would need a cookie is an error, and cuts the response off.
func TestChangesAfterTheFirstByte(t *testing.T) {
	var book logBook
	sp := &spy{Store: new(session.MemoryStore)}
	m := newManager(t, session.Options{Store: sp, Logger: book.logger(), Cookie: session.Cookie{Insecure: true}})
	visit := func(v *visitor, then func(s *session.Session)) (cut bool) {
		server := httptest.NewServer(m.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			w.WriteHeader(http.StatusOK)
			http.NewResponseController(w).Flush()
			then(session.From(r.Context()))
		})))
		defer server.Close() // waits for the handler
		request, _ := http.NewRequest("GET", server.URL, nil)
		if value := v.jar["sid"]; value != "" {
			request.AddCookie(&http.Cookie{Name: "sid", Value: value})
		}
		response, err := http.DefaultClient.Do(request)
		if err != nil {
			t.Fatal(err)
		}
		defer response.Body.Close()
		if len(cookies(response)) > 0 {
			t.Errorf("cookies %q", cookies(response))
		}
		_, err = io.ReadAll(response.Body)
		return err != nil
	}
	v := newVisitor(m)
	v.get(setName("x"))

	if visit(v, func(s *session.Session) { nameKey.Set(s, "y") }) {
		t.Error("cut off although the change was saved")
	}
	check(t, "name", nameOf(v), "y")
	check(t, "log lines", book.lines(), 0)

	refused := map[string]func(s *session.Session){
		"Regenerate": func(s *session.Session) { s.Regenerate(); nameKey.Set(s, "z") },
		"Renew":      func(s *session.Session) { s.Renew(0); nameKey.Set(s, "z") },
		"SetMaxAge":  func(s *session.Session) { s.SetMaxAge(time.Hour); nameKey.Set(s, "z") },
	}
	for name, call := range refused {
		cut := visit(v, func(s *session.Session) {
			nameKey.Get(s)
			call(s)
			if err := s.Err(); !errors.Is(err, session.ErrHeaderSent) || !strings.HasSuffix(err.Error(), ": "+name) {
				t.Errorf("%s: error %v", name, err)
			}
		})
		if !cut {
			t.Errorf("%s: not cut off", name)
		}
		check(t, name+": name", nameOf(v), "y")
	}
	check(t, "log lines", book.lines(), 1)
	for name, call := range map[string]func(s *session.Session){
		`Set of key "name"`: func(s *session.Session) { nameKey.Set(s, "z") },
		"Save": func(s *session.Session) {
			if err := s.Save(); !errors.Is(err, session.ErrHeaderSent) {
				t.Errorf("Save: %v", err)
			}
		},
	} {
		if !visit(newVisitor(m), func(s *session.Session) {
			call(s)
			if err := s.Err(); !errors.Is(err, session.ErrHeaderSent) || !strings.HasSuffix(err.Error(), ": "+name) {
				t.Errorf("%s: error %v", name, err)
			}
		}) {
			t.Errorf("%s: not cut off", name)
		}
	}
	sp.on("S", down)
	if !visit(v, func(s *session.Session) { nameKey.Set(s, "z") }) {
		t.Error("not cut off although the change was not saved")
	}
	sp.works()
	if visit(v, func(s *session.Session) {
		if err := s.Destroy(); err != nil {
			t.Error(err)
		}
	}) {
		t.Error("cut off after Destroy")
	}
	check(t, "name after Destroy", nameOf(v), "")
}

// Two managers work on one request, each with its cookie.
func TestTwoManagers(t *testing.T) {
	store := new(session.MemoryStore)
	user := newManager(t, session.Options{Store: store, Cookie: session.Cookie{Name: "user"}})
	admin := newManager(t, session.Options{Store: store, Cookie: session.Cookie{Name: "admin"}})
	v := newVisitor(user)
	v.server = user.Handler(admin.Handler(app))
	v.get(func(w http.ResponseWriter, r *http.Request) {
		nameKey.Set(user.From(r.Context()), "u")
		nameKey.Set(admin.From(r.Context()), "a")
		if session.From(r.Context()) != admin.From(r.Context()) {
			t.Error("From is not the innermost")
		}
	})
	check(t, "cookies", len(v.jar), 2)
	v.get(func(w http.ResponseWriter, r *http.Request) {
		check(t, "names", nameKey.Get(user.From(r.Context()))+nameKey.Get(admin.From(r.Context())), "ua")
	})
	// The name is part of what is signed: one's cookie is nothing to the other.
	v.jar["user"], v.jar["admin"] = v.jar["admin"], v.jar["user"]
	v.get(func(w http.ResponseWriter, r *http.Request) {
		check(t, "names", nameKey.Get(user.From(r.Context()))+nameKey.Get(admin.From(r.Context())), "")
	})
}

// Wrapping twice with the same manager changes nothing.
func TestWrappingTwice(t *testing.T) {
	sp := &spy{Store: new(session.MemoryStore)}
	m := newManager(t, session.Options{Store: sp})
	other := newManager(t, session.Options{Cookie: session.Cookie{Name: "other"}})
	for name, server := range map[string]http.Handler{
		"twice":   m.Handler(m.Handler(app)),
		"between": m.Handler(other.Handler(m.Handler(app))),
	} {
		v := newVisitor(m)
		v.server = server
		response := v.get(func(w http.ResponseWriter, r *http.Request) { nameKey.Set(m.From(r.Context()), "x") })
		check(t, name, took(sp, response), "C c")
	}
}

// Deadlines and full duplex reach the connection.
func TestResponseController(t *testing.T) {
	m := newManager(t, session.Options{})
	server := httptest.NewServer(m.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c := http.NewResponseController(w)
		if err := errors.Join(c.SetReadDeadline(time.Now().Add(time.Minute)), c.SetWriteDeadline(time.Now().Add(time.Minute)), c.EnableFullDuplex()); err != nil {
			t.Error(err)
		}
	})))
	defer server.Close()
	response, err := http.Get(server.URL)
	if err != nil {
		t.Fatal(err)
	}
	response.Body.Close()
}

// A logger or a store may look at the session of the context that it gets: it is not
// there, so nothing waits for itself.
func TestStoreGetsNoSession(t *testing.T) {
	store := &contextStore{Store: new(session.MemoryStore), t: t}
	v := newVisitor(newManager(t, session.Options{Store: store}))
	v.get(setName("x"))
	check(t, "name", nameOf(v), "x")
}

type contextStore struct {
	session.Store
	t *testing.T
}

func (s *contextStore) Load(ctx context.Context, key string) ([]byte, error) {
	if _, ok := session.FromContext(ctx); ok {
		s.t.Error("the session is in the store's context")
	}
	return s.Store.Load(ctx, key)
}

// A handler's panic that is recovered inside is no panic to the sessions: the response is
// what the recoverer makes of it, and what had changed is saved. A recoverer outside sees the
// panic, and nothing is saved.
func TestPanicRecoveredInside(t *testing.T) {
	recoverer := func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			defer func() {
				if recover() != nil {
					w.WriteHeader(http.StatusInternalServerError)
				}
			}()
			next.ServeHTTP(w, r)
		})
	}
	m := newManager(t, session.Options{})
	for name, tt := range map[string]struct {
		server http.Handler
		want   string
	}{
		"inside":  {m.Handler(recoverer(app)), "changed"},
		"outside": {recoverer(m.Handler(app)), "before"},
	} {
		v := newVisitor(m)
		v.get(setName("before"))
		v.server = tt.server
		response := v.get(func(w http.ResponseWriter, r *http.Request) {
			nameKey.Set(session.From(r.Context()), "changed")
			panic("a bug")
		})
		check(t, name+": status", response.StatusCode, http.StatusInternalServerError)
		check(t, name+": name", nameOf(v), tt.want)
	}
}
