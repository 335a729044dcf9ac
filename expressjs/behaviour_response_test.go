package expressjs_test

import (
	"context"
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
)

// responseBehaviours are those of the response: what leaves when, and what becomes of
// changes that come late.
func responseBehaviours() []behaviour {
	write := func(body string) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) { w.Write([]byte(body)) }
	}
	withLength := func(n int, parts ...string) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Length", fmt.Sprint(n))
			for _, part := range parts {
				io.WriteString(w, part)
			}
		}
	}
	redirect := func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/", http.StatusFound) }
	noContent := func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(http.StatusNoContent) }

	return []behaviour{
		{"END-01", timed(afterSave(write("hello")))},
		{"END-02", timed(afterSave(withLength(0)))},
		{"END-03", timed(afterSave(withLength(12, "hello, ", "world")))},
		{"END-04", timed(afterSave(withLength(12, "hello, world")))},
		{"WT-3", timed(afterSave(withLength(1, "x")))},
		{"WT-4", func(t *testing.T) {
			for name, h := range map[string]http.HandlerFunc{"204": noContent, "302": redirect, "nothing": func(http.ResponseWriter, *http.Request) {}} {
				t.Run(name, timed(afterSave(h)))
			}
			server := httptest.NewServer(newSite(t, saveUninitialized).Handler(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {})))
			defer server.Close()
			response, err := http.Get(server.URL)
			if err != nil {
				t.Fatal(err)
			}
			response.Body.Close()
			expect(t, "chunked", len(response.TransferEncoding) > 0, false)
			expect(t, "Content-Length", response.Header.Get("Content-Length"), "0")
		}},
		{"WT-6", timed(func(t *testing.T) {
			site := newSite(t)
			site.store.on("C", func() error { time.Sleep(200 * time.Millisecond); return nil })
			w := &stampedWriter{ResponseRecorder: httptest.NewRecorder(), start: time.Now()}
			site.Handler(write("hello")).ServeHTTP(w, httptest.NewRequest("GET", "/", nil))
			expect(t, "first byte after", w.first, 0)
		})},
		{"W-2", func(t *testing.T) {
			for _, late := range []struct {
				name  string
				found bool
				do    func(*session.Session)
				err   error
				cut   bool
				user  string
			}{
				{"new", false, setUser("late"), session.ErrHeaderSent, true, ""},
				{"found", true, setUser("late"), nil, false, "late"},
				{"regenerate", true, regenerate, session.ErrHeaderSent, true, "u1"},
			} {
				t.Run(late.name, func(t *testing.T) {
					site := newSite(t)
					b := site.visitor()
					if late.found {
						b.get(setUser("u1"))
					}
					server := httptest.NewUnstartedServer(site.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
						io.WriteString(w, "part")
						http.NewResponseController(w).Flush()
						s := session.From(r.Context())
						late.do(s)
						if !errors.Is(s.Err(), late.err) {
							t.Errorf("error %v, want %v", s.Err(), late.err)
						}
					})))
					server.Config.ErrorLog = log.New(io.Discard, "", 0)
					server.Start()
					r, _ := http.NewRequest("GET", server.URL, nil)
					r.Header.Set("Cookie", "connect.sid="+b.jar["connect.sid"])
					response, err := http.DefaultClient.Do(r)
					if err != nil {
						t.Fatal(err)
					}
					_, err = io.ReadAll(response.Body)
					response.Body.Close()
					server.Close()
					expect(t, "cookies", len(response.Cookies()), 0)
					expect(t, "the response is cut off", err != nil, late.cut)
					expect(t, "user", b.user(), late.user)
				})
			}
		}},
		{"W-3", func(t *testing.T) {
			site := newSite(t)
			b := site.visitor()
			var kept *session.Session
			b.get(func(s *session.Session) { kept = s; setUser("u1")(s) })
			setUser("late")(kept)
			expect(t, "user", b.user(), "u1")
			expect(t, "lines in the log", site.log.count("has no effect"), 1)
		}},
		{"W-4", func(t *testing.T) {
			b := newSite(t).visitor()
			b.get(setUser("u1"))
			response := b.visit("GET", "/", func(w http.ResponseWriter, r *http.Request) {
				s := session.From(r.Context())
				setUser("u2")(s)
				session.Key[func()]("callback").Set(s, func() {})
				io.WriteString(w, "done")
			})
			expect(t, "answer", answer(t, response), "500 Internal Server Error")
			expect(t, "user", b.user(), "u1")
		}},
		{"W-5", func(t *testing.T) {
			site := newSite(t)
			b := site.visitor()
			b.get(setUser("u1"))
			ctx, gone := context.WithCancel(t.Context())
			r := httptest.NewRequest("GET", "/", nil).WithContext(ctx)
			b.through(site.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				setUser("u2")(session.From(r.Context()))
				gone()
			})), r)
			expect(t, "user", b.user(), "u2")
		}},
		{"W-6", func(t *testing.T) {
			for name, tt := range map[string]struct {
				method string
				status int
			}{"HEAD": {"HEAD", 200}, "OPTIONS": {"OPTIONS", 200}, "304": {"GET", 304}, "not answered": {"GET", 0}} {
				b := newSite(t).visitor()
				response := b.visit(tt.method, "/", func(w http.ResponseWriter, r *http.Request) {
					setUser("u1")(session.From(r.Context()))
					if tt.status > 0 {
						w.WriteHeader(tt.status)
					}
				})
				expect(t, name+": a cookie", sent(t, response) != nil, true)
				expect(t, name+": user", b.user(), "u1")
			}
		}},

		{"RE-01", func(t *testing.T) {
			site := newSite(t)
			app := site.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				setUser("u1")(session.From(r.Context()))
				io.WriteString(w, "hello, ")
				io.WriteString(w, "world")
			}))
			expectHello(t, site, upper(app), "HELLO, WORLD")
		}},
		{"RE-02", func(t *testing.T) {
			site := newSite(t)
			app := upper(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				setUser("u1")(session.From(r.Context()))
				w.WriteHeader(http.StatusOK)
				w.Write([]byte("hello, "))
				w.Write([]byte("world"))
			}))
			expectHello(t, site, site.Handler(app), "HELLO, WORLD")
		}},
	}
}

// afterSave: no byte leaves before the session is in the store, and all of the response
// does then.
func afterSave(h http.HandlerFunc) func(t *testing.T) {
	return func(t *testing.T) {
		site := newSite(t)
		site.store.on("C", func() error { time.Sleep(200 * time.Millisecond); return nil })
		w := &stampedWriter{ResponseRecorder: httptest.NewRecorder(), start: time.Now()}
		w.atFirst = func() { w.stored = site.store.sessions(t) }
		r := httptest.NewRequest("GET", "/", nil)
		site.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			setUser("u1")(session.From(r.Context()))
			h(w, r)
		})).ServeHTTP(w, r)
		if !w.sent { // by the server then
			w.WriteHeader(http.StatusOK)
		}
		expect(t, "first byte after", w.first, 200*time.Millisecond)
		expect(t, "sessions in the store by then", w.stored, 1)
		expect(t, "cookies", len(w.Result().Cookies()), 1)

		bare := httptest.NewRecorder()
		h(bare, r)
		expect(t, "body", w.Body.String(), bare.Body.String())
		expect(t, "status", w.Code, bare.Code)
		expect(t, "length", w.Header().Get("Content-Length"), bare.Header().Get("Content-Length"))
	}
}

// A stampedWriter notes when the first byte comes.
type stampedWriter struct {
	*httptest.ResponseRecorder
	start   time.Time
	atFirst func()
	sent    bool
	first   time.Duration
	stored  int
}

func (w *stampedWriter) stamp() {
	if !w.sent {
		w.sent, w.first = true, time.Since(w.start)
		if w.atFirst != nil {
			w.atFirst()
		}
	}
}

func (w *stampedWriter) WriteHeader(status int) { w.stamp(); w.ResponseRecorder.WriteHeader(status) }
func (w *stampedWriter) Write(b []byte) (int, error) {
	w.stamp()
	return w.ResponseRecorder.Write(b)
}
func (w *stampedWriter) WriteString(s string) (int, error) { return w.Write([]byte(s)) }

// upper is a middleware that changes the body.
func upper(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { next.ServeHTTP(upperWriter{w}, r) })
}

type upperWriter struct{ http.ResponseWriter }

func (w upperWriter) Write(b []byte) (int, error) {
	return w.ResponseWriter.Write([]byte(strings.ToUpper(string(b))))
}
func (w upperWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }

func expectHello(t *testing.T, s *site, app http.Handler, want string) {
	t.Helper()
	server := httptest.NewServer(app)
	defer server.Close()
	response, err := http.Get(server.URL)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	expect(t, "answer", answer(t, response), "200 "+want)
	expect(t, "a cookie", sent(t, response) != nil, true)
	expect(t, "sessions", s.store.sessions(t), 1)
}
