package session_test

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/seed-4f96e14b/session"
)

// A response that shared caches may keep is cut off where its handler looks at the session
// only after the first byte, and writes on: it has no Vary: Cookie, and a cache would give
// Ada's page to others. Any other such response is logged.
func TestFirstLookAfterTheFirstByte(t *testing.T) {
	look := func(w io.Writer, r *http.Request) {
		io.WriteString(w, "hello "+nameKey.Get(session.From(r.Context())))
	}
	type outcome struct {
		cut  bool
		body string
		line string
	}
	const (
		cutOff = "request failed after the header was sent"
		warned = "only after the first byte"
	)
	for name, tt := range map[string]struct {
		header  http.Header
		handler func(w http.ResponseWriter, r *http.Request)
		want    outcome
	}{
		"no header":                 {nil, nil, outcome{false, "<p>hello ada", warned}},
		"private":                   {http.Header{"Cache-Control": {"private, max-age=60"}}, nil, outcome{false, "<p>hello ada", warned}},
		"no-store":                  {http.Header{"Cache-Control": {"No-Store"}}, nil, outcome{false, "<p>hello ada", warned}},
		"max-age=0":                 {http.Header{"Cache-Control": {"max-age=0"}}, nil, outcome{false, "<p>hello ada", warned}},
		"public":                    {http.Header{"Cache-Control": {"max-age=60, Public"}}, nil, outcome{true, "<p>", cutOff}},
		"s-maxage":                  {http.Header{"Cache-Control": {"must-revalidate", "s-maxage=60"}}, nil, outcome{true, "<p>", cutOff}},
		"max-age":                   {http.Header{"Cache-Control": {"max-age=60"}}, nil, outcome{true, "<p>", cutOff}},
		"public, with Vary":         {http.Header{"Cache-Control": {"public"}, "Vary": {"Accept, cookie"}}, nil, outcome{false, "<p>hello ada", ""}},
		"public, with Vary *":       {http.Header{"Cache-Control": {"public"}, "Vary": {"*"}}, nil, outcome{false, "<p>hello ada", ""}},
		"public, of a known length": {http.Header{"Cache-Control": {"public"}, "Content-Length": {"12"}}, nil, outcome{true, "<p>", cutOff}},
		"public, and a look before": {http.Header{"Cache-Control": {"public"}}, func(w http.ResponseWriter, r *http.Request) {
			session.From(r.Context()).Touch()
			io.WriteString(w, "<p>")
			look(w, r)
		}, outcome{false, "<p>hello ada", ""}},
		"public, and nothing written after the look": {http.Header{"Cache-Control": {"public"}}, func(w http.ResponseWriter, r *http.Request) {
			io.WriteString(w, "<p>")
			look(io.Discard, r)
		}, outcome{false, "<p>", ""}},
		"public, by io.Copy": {http.Header{"Cache-Control": {"public"}}, func(w http.ResponseWriter, r *http.Request) {
			io.WriteString(w, "<p>")
			http.NewResponseController(w).Flush()
			io.Copy(w, &lazyReader{func() io.Reader {
				return strings.NewReader("hello " + nameKey.Get(session.From(r.Context())))
			}, nil})
		}, outcome{true, "<p>", cutOff}},
		"public, and a change": {http.Header{"Cache-Control": {"public"}}, func(w http.ResponseWriter, r *http.Request) {
			io.WriteString(w, "<p>")
			http.NewResponseController(w).Flush()
			counterKey.Update(session.From(r.Context()), increment)
			look(w, r)
		}, outcome{true, "<p>", cutOff}},
	} {
		t.Run(name, func(t *testing.T) {
			var book logBook
			m := newManager(t, session.Options{Logger: book.logger(), Cookie: session.Cookie{Insecure: true}})
			v := newVisitor(m)
			v.get(setName("ada"))
			server := httptest.NewServer(m.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				for name, lines := range tt.header {
					w.Header()[name] = lines
				}
				if tt.handler != nil {
					tt.handler(w, r)
					return
				}
				io.WriteString(w, "<p>")
				http.NewResponseController(w).Flush()
				look(w, r)
			})))
			defer server.Close()
			request, _ := http.NewRequest("GET", server.URL, nil)
			request.AddCookie(&http.Cookie{Name: "sid", Value: v.jar["sid"]})
			response, err := http.DefaultClient.Do(request)
			if err != nil {
				t.Fatal(err)
			}
			defer response.Body.Close()
			body, err := io.ReadAll(response.Body)
			server.Close() // waits for the handler
			check(t, "cut off", err != nil, tt.want.cut)
			check(t, "body", string(body), tt.want.body)
			if tt.want.line == "" {
				check(t, "log lines", book.String(), "")
			} else if book.lines() != 1 || !strings.Contains(book.String(), tt.want.line) {
				t.Errorf("log: %q, want one line with %q", book.String(), tt.want.line)
			}
		})
	}
}

// A lazyReader asks for its text when it is read.
type lazyReader struct {
	text func() io.Reader
	r    io.Reader
}

func (l *lazyReader) Read(b []byte) (int, error) {
	if l.r == nil {
		l.r = l.text()
	}
	return l.r.Read(b)
}

// What a handler writes into a header map that it kept goes nowhere once the session has
// failed: not through an http.TimeoutHandler outside, not through a buffer, not as trailers.
func TestKeptHeaderMapAfterAFailure(t *testing.T) {
	secretive := func(w http.ResponseWriter, r *http.Request) {
		header := w.Header()
		header.Set("X-Before", "secret")
		counterKey.Update(session.From(r.Context()), increment)
		if _, err := io.WriteString(w, "hello"); err == nil {
			t.Error("written, although the session could not be saved")
		}
		header.Set("X-After", "secret")
		header.Set(http.TrailerPrefix+"X-Trailer", "secret")
		header.Del("Content-Type")
		header.Set("Location", "/secret")
	}
	for name, outside := range map[string]func(http.Handler) http.Handler{
		"nothing outside":     func(h http.Handler) http.Handler { return h },
		"http.TimeoutHandler": func(h http.Handler) http.Handler { return http.TimeoutHandler(h, time.Minute, "") },
		"a buffer": func(h http.Handler) http.Handler {
			return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				b := httptest.NewRecorder()
				h.ServeHTTP(&buffer{header: b.Header(), w: b}, r)
				for name, lines := range b.Header() { // as it is now, not as it was at WriteHeader
					w.Header()[name] = lines
				}
				w.WriteHeader(b.Code)
				w.Write(b.Body.Bytes())
			})
		},
	} {
		for _, http2 := range []bool{false, true} {
			for panics := range 2 {
				t.Run(fmt.Sprintf("%s, HTTP/2 %v, panic %d", name, http2, panics), func(t *testing.T) {
					sp := &spy{Store: new(session.MemoryStore)}
					m := newManager(t, session.Options{Store: sp, ErrorHandler: func(w http.ResponseWriter, r *http.Request, err error) {
						w.Header().Set("Content-Type", "text/x-sorry")
						w.Header().Set("Trailer", "X-Sorry")
						w.WriteHeader(http.StatusServiceUnavailable)
						io.WriteString(w, "sorry")
						w.Header().Set("X-Sorry", "very")
					}})
					sp.on("C", down)
					server := httptest.NewUnstartedServer(outside(m.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
						secretive(w, r)
						if panics > 0 {
							panic(http.ErrAbortHandler)
						}
					}))))
					server.EnableHTTP2 = http2
					server.StartTLS()
					defer server.Close()
					response, err := server.Client().Get(server.URL)
					if err != nil {
						t.Fatal(err)
					}
					defer response.Body.Close()
					body, _ := io.ReadAll(response.Body)
					check(t, "status", response.StatusCode, http.StatusServiceUnavailable)
					check(t, "body", string(body), "sorry")
					check(t, "type", response.Header.Get("Content-Type"), "text/x-sorry")
					if text := fmt.Sprint(response.Header, response.Trailer); strings.Contains(text, "secret") {
						t.Errorf("the client got %s", text)
					}
					if name == "nothing outside" {
						check(t, "the answer's own trailer", response.Trailer.Get("X-Sorry"), "very")
					}
				})
			}
		}
	}
}

// A buffer keeps a response, and its header as it is when the handler has returned.
type buffer struct {
	header http.Header
	w      http.ResponseWriter
}

func (b *buffer) Header() http.Header            { return b.header }
func (b *buffer) WriteHeader(status int)         { b.w.WriteHeader(status) }
func (b *buffer) Write(body []byte) (int, error) { return b.w.Write(body) }

// Two managers with one cookie name would take each other's cookies for forged, and
// overwrite them, on each request. The first request says so.
func TestNestedManagersOfOneName(t *testing.T) {
	one, other := newManager(t, session.Options{}), newManager(t, session.Options{Secrets: []string{secretB}})
	between := newManager(t, session.Options{Cookie: session.Cookie{Name: "between"}})
	for name, server := range map[string]http.Handler{
		"at once":     one.Handler(other.Handler(app)),
		"one between": one.Handler(between.Handler(other.Handler(app))),
	} {
		panics(t, name, `cookie name "__Host-sid"`, func() { server.ServeHTTP(httptest.NewRecorder(), newRequest("/")) })
		panics(t, name, "another Cookie.Name", func() { server.ServeHTTP(httptest.NewRecorder(), newRequest("/")) })
	}
}

// A knowing writer says whether its header has left, as those of gin and negroni do.
type knowing struct {
	http.ResponseWriter
	written bool
}

func (k *knowing) Written() bool { return k.written }
func (k *knowing) WriteHeader(status int) {
	k.written = true
	k.ResponseWriter.WriteHeader(status)
}
func (k *knowing) Write(b []byte) (int, error) {
	k.written = true
	return k.ResponseWriter.Write(b)
}
func (k *knowing) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	return http.NewResponseController(k.ResponseWriter).Hijack()
}

type passing struct{ http.ResponseWriter }

func (p passing) Unwrap() http.ResponseWriter { return p.ResponseWriter }

// An adaptor that passes on the request and not the ResponseWriter, as gin's
// `c.Request = r; c.Next()`, has the handler write around the session's. That is logged with
// the remedy; what the client has a cookie for is saved, and what needs one is cut off.
func TestWrittenAround(t *testing.T) { inBubble(t, testWrittenAround) }

func testWrittenAround(t *testing.T) {
	var book logBook
	m := newManager(t, session.Options{Logger: book.logger()})
	v := newVisitor(m)
	v.get(setName("x"))
	around := func(v *visitor, h handler, outside func(http.ResponseWriter) http.ResponseWriter) (aborted bool) {
		inner := v.copy()
		inner.server = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			defer func() { aborted = recover() == http.ErrAbortHandler }()
			gin := outside(&knowing{ResponseWriter: w})
			m.Handler(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
				h(gin, r)
			})).ServeHTTP(gin, r)
		})
		response := inner.get(h)
		check(t, "cookies", len(cookies(response)), 0)
		return aborted
	}
	direct := func(w http.ResponseWriter) http.ResponseWriter { return w }
	write := func(name string) handler {
		return func(w http.ResponseWriter, r *http.Request) {
			nameKey.Set(session.From(r.Context()), name)
			io.WriteString(w, "done")
		}
	}
	lines := func() (n int) {
		n = strings.Count(book.String(), "around the ResponseWriter of Manager.Handler")
		return n
	}
	check(t, "a change: aborted", around(v, write("y"), direct), false)
	check(t, "a change", nameOf(v), "y")
	check(t, "lines", lines(), 1)
	if log := book.String(); !strings.Contains(log, "level=ERROR") || !strings.Contains(log, "pass that ResponseWriter on") {
		t.Errorf("log: %s", log)
	}
	time.Sleep(time.Minute) // or the next line is left out
	check(t, "a change, behind another writer: aborted", around(v, write("z"), func(w http.ResponseWriter) http.ResponseWriter { return passing{w} }), false)
	check(t, "a change, behind another writer", nameOf(v), "z")
	check(t, "lines, behind another writer", lines(), 2)

	check(t, "a new session: aborted", around(newVisitor(m), write("x"), direct), true)
	if log := book.String(); !strings.Contains(log, `the header is sent`) || !strings.Contains(log, `Set of key \"name\"`) {
		t.Errorf("log: %s", log)
	}
	for name, call := range map[string]func(s *session.Session){
		"Renew":      func(s *session.Session) { s.Renew(0) },
		"Regenerate": func(s *session.Session) { s.Regenerate() },
		"Save":       func(s *session.Session) { s.Renew(0); s.Save() },
	} {
		v := newVisitor(m)
		v.get(setName("x"))
		time.Sleep(time.Minute)
		check(t, name+": aborted", around(v, func(w http.ResponseWriter, r *http.Request) {
			call(session.From(r.Context()))
			io.WriteString(w, "done")
		}, direct), true)
		if log := book.String(); !strings.Contains(log, "Write: "+name) {
			t.Errorf("%s: log: %s", name, log)
		}
		if name != "Save" {
			check(t, name+": the cookie that the client has opens", nameOf(v), "x")
		}
	}

	for range 3 { // a read is use, as ever
		time.Sleep(20 * time.Hour)
		check(t, "a read: aborted", around(v, func(w http.ResponseWriter, r *http.Request) {
			check(t, "a read", nameKey.Get(session.From(r.Context())), "z")
			io.WriteString(w, "done")
		}, direct), false)
	}
	time.Sleep(3 * time.Minute) // the counts of lines that were left out are lines too
	before := lines()
	check(t, "nothing written: aborted", around(v, func(http.ResponseWriter, *http.Request) {}, direct), false)
	check(t, "lines when nothing was written around it", lines()-before, 0)
}

// From with a context that is not the request's says which one it wants.
func TestFromWithAnotherContext(t *testing.T) {
	m := newManager(t, session.Options{})
	for _, text := range []string{"r.Context()", "in gin is c.Request.Context(), not c"} {
		panics(t, "From", text, func() { session.From(t.Context()) })
	}
	panics(t, "Manager.From", "r.Context()", func() { m.From(t.Context()) })
}

type (
	noFields  struct{ a, b int } //lint:ignore U1000 what nobody can read back
	embedding struct{ exported }
	exported  struct{ A int }
	hidden    struct {
		A int `json:"-"`
		b int //lint:ignore U1000 as above
	}
	myError interface{ error }
)

// Values that JSON takes and does not give back as they were are errors that name the key
// and say why.
func TestValuesThatAreNotReadBack(t *testing.T) {
	const bad = "a\xffb"
	for name, tt := range map[string]struct {
		set func(s *session.Session)
		why string
	}{
		"text":                    {func(s *session.Session) { session.Key[string]("k").Set(s, bad) }, "UTF-8"},
		"text, by Update":         {func(s *session.Session) { session.Key[string]("k").Update(s, func(string) string { return bad }) }, "UTF-8"},
		"a surrogate":             {func(s *session.Session) { session.Key[string]("k").Set(s, "\xed\xa0\x80") }, "UTF-8"},
		"text in a slice":         {func(s *session.Session) { session.Key[[]string]("k").Set(s, []string{"a", bad}) }, "UTF-8"},
		"a key of a map":          {func(s *session.Session) { session.Key[map[string]int]("k").Set(s, map[string]int{bad: 1}) }, "UTF-8"},
		"a value of a map":        {func(s *session.Session) { session.Key[map[string]any]("k").Set(s, map[string]any{"a": []any{bad}}) }, "UTF-8"},
		"text in a struct":        {func(s *session.Session) { session.Key[struct{ A *string }]("k").Set(s, struct{ A *string }{new(bad)}) }, "UTF-8"},
		"text of a TextMarshaler": {func(s *session.Session) { session.Key[textual]("k").Set(s, textual{bad}) }, "UTF-8"},
		"raw JSON":                {func(s *session.Session) { session.Key[rawJSON]("k").Set(s, rawJSON(`"`+bad+`"`)) }, "UTF-8"},
		"any":                     {func(s *session.Session) { session.Key[any]("k").Set(s, 1) }, "interface"},
		"an interface":            {func(s *session.Session) { session.Key[myError]("k").Set(s, io.EOF) }, "interface"},
		"a pointer to one":        {func(s *session.Session) { session.Key[*any]("k").Set(s, nil) }, "interface"},
		"no exported field":       {func(s *session.Session) { session.Key[noFields]("k").Set(s, noFields{}) }, "no exported field"},
		"a pointer to such":       {func(s *session.Session) { session.Key[*noFields]("k").Set(s, nil) }, "no exported field"},
		"a slice of such":         {func(s *session.Session) { session.Key[[]noFields]("k").Set(s, nil) }, "no exported field"},
		"fields left out":         {func(s *session.Session) { session.Key[hidden]("k").Set(s, hidden{}) }, "no exported field"},
	} {
		t.Run(name, func(t *testing.T) {
			v := newVisitor(newManager(t, session.Options{}))
			v.get(setName("before"))
			response := v.get(use(func(s *session.Session) {
				tt.set(s)
				if err := s.Err(); !errors.Is(err, session.ErrEncode) || !strings.Contains(err.Error(), `key "k"`) || !strings.Contains(err.Error(), tt.why) {
					t.Errorf("error %v", err)
				}
			}))
			check(t, "status", response.StatusCode, http.StatusInternalServerError)
			check(t, "what is stored", nameOf(v), "before")
		})
	}
}

type textual struct{ text string }

func (x textual) MarshalText() ([]byte, error) { return []byte(x.text), nil }

type rawJSON string

func (r rawJSON) MarshalJSON() ([]byte, error) { return []byte(r), nil }

type nested []nested

// What JSON gives back is taken, also where it looks like what it does not.
func TestValuesThatAreReadBack(t *testing.T) {
	keeps(t, "U+FFFD, which is a character", "a\ufffdb")
	keeps(t, "what an escape of it looks like", `a\ufffdb`)
	keeps(t, "bytes", []byte("a\xffb"))
	keeps(t, "a struct without any field", struct{}{})
	keeps(t, "an embedded struct", embedding{exported{1}})
	keeps(t, "a slice of itself", nested{nil, {}})
	keeps(t, "a time", time.Date(2026, 12, 1, 0, 0, 0, 0, time.UTC))
	keeps(t, "a pointer", new("x"))
	keeps(t, "a list of any values", []any{1.5, nil, "x"})
	keeps(t, "any values under a key", map[string]any{"a": 1.5, "b": []any{"\ufffd", nil}})
	keeps(t, "a type whose methods are those of its pointer", *big.NewInt(1 << 40))
}

func keeps[T any](t *testing.T, name string, value T) {
	t.Helper()
	v := newVisitor(newManager(t, session.Options{}))
	key := session.Key[T]("k")
	check(t, name+": status", v.get(use(func(s *session.Session) { key.Set(s, value) })).StatusCode, http.StatusOK)
	v.get(use(func(s *session.Session) {
		got, ok := key.Lookup(s)
		check(t, name, fmt.Sprintf("%v %#v", ok, deref(got)), fmt.Sprintf("true %#v", deref(value)))
	}))
}

func deref(v any) any {
	if s, ok := v.(*string); ok {
		return *s
	}
	return v
}

// The error of a session that is too large names its size, the limit, and the largest value.
func TestTooLargeNamesTheKey(t *testing.T) {
	var got error
	m := newManager(t, session.Options{MaxBytes: 1000, ErrorHandler: func(_ http.ResponseWriter, _ *http.Request, err error) { got = err }})
	newVisitor(m).get(use(func(s *session.Session) {
		nameKey.Set(s, "small")
		session.Key[string]("cart").Set(s, strings.Repeat("x", 2000))
		counterKey.Set(s, 1)
	}))
	if !errors.Is(got, session.ErrTooLarge) || !strings.HasSuffix(got.Error(), `bytes, and MaxBytes is 1000; the largest value is that of key "cart" with 2002 bytes`) {
		t.Errorf("error %v", got)
	}
}

// The error of a change that a renewal has overtaken names the call.
func TestRenewedNamesTheCall(t *testing.T) {
	for name, call := range map[string]func(s *session.Session){
		`Set of key "name"`:       func(s *session.Session) { nameKey.Set(s, "y") },
		`Update of key "counter"`: func(s *session.Session) { counterKey.Update(s, increment) },
		`Pop of key "name"`:       func(s *session.Session) { nameKey.Pop(s) },
		`Delete of key "name"`:    func(s *session.Session) { nameKey.Delete(s) },
		"SetMaxAge":               func(s *session.Session) { s.SetMaxAge(time.Hour) },
		"Renew":                   func(s *session.Session) { s.Renew(0) },
	} {
		var got error
		m := newManager(t, session.Options{ErrorHandler: func(_ http.ResponseWriter, _ *http.Request, err error) { got = err }})
		v := newVisitor(m)
		v.get(setName("x"))
		other := v.copy()
		v.get(use(func(s *session.Session) {
			nameKey.Get(s)
			other.get(use(func(s *session.Session) { s.Renew(0) }))
			call(s)
		}))
		if !errors.Is(got, session.ErrRenewed) || !strings.HasSuffix(got.Error(), ": "+name) {
			t.Errorf("%s: error %v", name, got)
		}
	}
}

// SetMaxAge over AbsoluteTimeout is the error that it is in New; within it, what is left of it
// counts.
func TestSetMaxAgeAndAbsoluteTimeout(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		m := newManager(t, session.Options{AbsoluteTimeout: 100 * time.Hour})
		v := newVisitor(m)
		response := v.get(use(func(s *session.Session) {
			nameKey.Set(s, "x")
			s.SetMaxAge(100 * time.Hour)
		}))
		check(t, "Max-Age", response.Cookies()[0].MaxAge, 100*60*60)
		response = v.get(use(func(s *session.Session) {
			s.SetMaxAge(100*time.Hour + 1)
			if err := s.Err(); err == nil || !strings.Contains(err.Error(), "longer than the AbsoluteTimeout of 100h") {
				t.Errorf("error %v", err)
			}
		}))
		check(t, "status", response.StatusCode, http.StatusInternalServerError)
		time.Sleep(40 * time.Hour)
		response = v.get(use(func(s *session.Session) { s.SetMaxAge(99 * time.Hour) }))
		check(t, "Max-Age of what is left", response.Cookies()[0].MaxAge, 60*60*60)
	})
}

// A store that does not answer is waited for three times at most, whatever the handler calls:
// once for a load or a save, once to end a session, and once for what an earlier Save has left.
func TestLongestWaitForAStoreThatHangs(t *testing.T) {
	const timeout = time.Second
	all := func(s *session.Session) {
		nameKey.Get(s)
		nameKey.Set(s, "y")
		counterKey.Update(s, increment)
		s.Save()
		s.Reload()
		s.Renew(0)
		for range 3 {
			s.Destroy()
		}
		s.Regenerate()
		s.Save()
		s.Destroy()
		nameKey.Set(s, "z")
	}
	for name, tt := range map[string]struct {
		method string
		do     func(s *session.Session, hang func())
		want   time.Duration
	}{
		"a POST":           {http.MethodPost, func(s *session.Session, _ func()) { all(s) }, 1 * timeout},
		"a read":           {http.MethodGet, func(s *session.Session, _ func()) { nameKey.Get(s) }, 1 * timeout},
		"all in a GET":     {http.MethodGet, func(s *session.Session, _ func()) { all(s) }, 2 * timeout},
		"a save":           {http.MethodGet, func(s *session.Session, hang func()) { nameKey.Set(s, "y"); hang() }, 1 * timeout},
		"a login":          {http.MethodGet, func(s *session.Session, hang func()) { s.Regenerate(); nameKey.Set(s, "y"); hang() }, 1 * timeout},
		"all after a load": {http.MethodGet, func(s *session.Session, hang func()) { nameKey.Get(s); hang(); all(s) }, 2 * timeout},
		"all after a renewal and a Save": {http.MethodGet, func(s *session.Session, hang func()) {
			s.Renew(0)
			s.Save()
			hang()
			nameKey.Set(s, "y")
			s.Save()
			s.Destroy()
		}, 3 * timeout},
		"all after a Regenerate and a Save": {http.MethodGet, func(s *session.Session, hang func()) {
			s.Regenerate()
			s.Save()
			hang()
			all(s)
		}, 2 * timeout},
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(t *testing.T) {
				sp := &spy{Store: new(session.MemoryStore)}
				v := newVisitor(newManager(t, session.Options{Store: sp, StoreTimeout: timeout}))
				v.get(setName("x"))
				answers := make(chan struct{})
				hang := func() {
					sp.mu.Lock()
					defer sp.mu.Unlock()
					sp.before = func(string, string) error { <-answers; return errors.New("too late") }
				}
				if strings.Contains(name, "POST") || name == "a read" || name == "all in a GET" {
					hang()
				}
				began := time.Now()
				response := v.do(tt.method, use(func(s *session.Session) { tt.do(s, hang) }))
				check(t, "waited", time.Since(began), tt.want)
				check(t, "status", response.StatusCode, http.StatusServiceUnavailable)
				close(answers)
			})
		})
	}
}
