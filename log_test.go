package session_test

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/seed-4f96e14b/session"
)

// counted returns the lines of a log with the text, each with its attribute "more".
func counted(book *logBook, text string) (lines []string) {
	for line := range strings.Lines(book.String()) {
		if strings.Contains(line, text) {
			_, more, _ := strings.Cut(line, " more=")
			more, _, _ = strings.Cut(more, " ")
			lines = append(lines, strings.TrimSpace(more))
		}
	}
	return lines
}

// Of lines that clients can cause there is one of a kind in a minute, and then one with the
// count of the rest.
func TestClientsCannotFloodTheLog(t *testing.T) {
	const requests = 1000
	type client struct {
		visitor *visitor
		request handler
	}
	for name, tt := range map[string]struct {
		text   string
		each   int // lines of that kind that a request would make
		client func(t *testing.T, options session.Options) client
	}{
		"a replaced cookie": {"has just been replaced", 1, func(t *testing.T, options session.Options) client {
			v := newVisitor(newManager(t, options))
			v.get(setName("x"))
			old := v.copy()
			v.get(use(func(s *session.Session) { s.Renew(0) }))
			return client{old, setName("y")}
		}},
		"a change with a replaced cookie": {"request failed", 1, func(t *testing.T, options session.Options) client {
			v := newVisitor(newManager(t, options))
			v.get(setName("x"))
			old := v.copy()
			v.get(use(func(s *session.Session) { s.Renew(0) }))
			return client{old, setName("y")}
		}},
		"a session too large": {"request failed", 1, func(t *testing.T, options session.Options) client {
			options.MaxBytes = 1000
			return client{newVisitor(newManager(t, options)), setName(strings.Repeat("x", 1000))}
		}},
		"a full store": {"request failed", 1, func(t *testing.T, options session.Options) client {
			options.Store = &session.MemoryStore{MaxEntries: 1}
			m := newManager(t, options)
			newVisitor(m).get(setName("x"))
			return client{newVisitor(m), setName("y")}
		}},
		"a record that is none": {"unreadable", 1, func(t *testing.T, options session.Options) client {
			sp := &spy{Store: new(session.MemoryStore)}
			options.Store = sp
			v := newVisitor(newManager(t, options))
			v.get(setName("x"))
			sp.on("L", func() error { return session.ErrUnreadable })
			return client{v, use(func(s *session.Session) { nameKey.Get(s) })}
		}},
		"forged cookies": {"no good signature", 2, func(t *testing.T, options session.Options) client {
			v := newVisitor(newManager(t, options))
			v.jar["__Host-sid"] = "forged; __Host-sid=forged-too"
			return client{v, use(func(s *session.Session) { nameKey.Get(s) })}
		}},
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(t *testing.T) {
				var book logBook
				c := tt.client(t, session.Options{Logger: book.logger()})
				ask := func() {
					r := newRequest("http://localhost/")
					for name, value := range c.visitor.jar {
						r.Header.Add("Cookie", name+"="+value)
					}
					r = r.WithContext(context.WithValue(r.Context(), handlerKey{}, c.request))
					c.visitor.server.ServeHTTP(httptest.NewRecorder(), r)
				}
				for range requests {
					ask()
				}
				check(t, "within a minute", fmt.Sprintf("%q", counted(&book, tt.text)), `[""]`)
				time.Sleep(59 * time.Second)
				ask()
				time.Sleep(time.Second)
				synctest.Wait()
				rest := fmt.Sprint(requests*tt.each + tt.each - 1)
				check(t, "after it", fmt.Sprintf("%q", counted(&book, tt.text)), fmt.Sprintf("%q", []string{"", rest}))
				if strings.Contains(name, "replaced") { // it is forgotten by now
					return
				}
				time.Sleep(59 * time.Second)
				ask()
				check(t, "within the next minute", len(counted(&book, tt.text)), 2)
				time.Sleep(time.Hour)
				check(t, "an hour later", fmt.Sprintf("%q", counted(&book, tt.text)[2:]), fmt.Sprintf("%q", []string{fmt.Sprint(tt.each)}))
				ask()
				check(t, "the next", len(counted(&book, tt.text)), 4)
			})
		})
	}
}

// What fails because the store does is logged for each request: no client can cause it, and
// each may be the one that somebody asks for.
func TestOutagesAreLoggedInFull(t *testing.T) {
	sp := &spy{Store: new(session.MemoryStore)}
	var book logBook
	v := newVisitor(newManager(t, session.Options{Store: sp, Logger: book.logger()}))
	v.get(setName("x"))
	sp.on("L", down)
	for range 10 {
		v.get(setName("y"))
	}
	check(t, "lines", len(counted(&book, "request failed")), 10)
}

// Lines of different handlers are of different kinds. A line says which handler it was by its
// pattern, if there is one: the path may hold secrets.
func TestLinesNameTheHandler(t *testing.T) {
	var book logBook
	m := newManager(t, session.Options{Logger: book.logger(), MaxBytes: 100})
	large := http.HandlerFunc(setName(strings.Repeat("x", 1000)))
	mux := http.NewServeMux()
	mux.Handle("/one/{secret}", large)
	mux.Handle("/two/", large)
	for range 3 {
		for _, path := range []string{"/one/5f3759df", "/one/0xdead", "/two/"} {
			m.Handler(mux).ServeHTTP(httptest.NewRecorder(), newRequest(path))
		}
		m.Handler(large).ServeHTTP(httptest.NewRecorder(), newRequest("/"))
	}
	log := book.String()
	check(t, "lines", book.lines(), 3)
	check(t, "lines of /one/{secret}", strings.Count(log, "pattern=/one/{secret}\n"), 1)
	check(t, "lines of /two/", strings.Count(log, "pattern=/two/\n"), 1)
	check(t, "patterns", strings.Count(log, "pattern="), 2)
}

// A router that makes a pattern of each path does not make the log's memory grow: from a
// thousand on they count as one.
func TestPatternsAreBounded(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		var book logBook
		m := newManager(t, session.Options{Logger: book.logger(), MaxBytes: 100})
		visit := func(i int) {
			r := newRequest("/")
			m.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				r.Pattern = fmt.Sprintf("/%d", i)
				setName(strings.Repeat("x", 1000))(w, r)
			})).ServeHTTP(httptest.NewRecorder(), r)
		}
		for i := range 1500 {
			visit(i)
		}
		check(t, "lines", book.lines(), 1001)
		time.Sleep(time.Minute)
		synctest.Wait()
		check(t, "lines after a minute", fmt.Sprintf("%q", counted(&book, "request failed")[1001:]), `["499"]`)
		time.Sleep(time.Minute)
		visit(2000)
		visit(2001)
		check(t, "lines when all is forgotten", strings.Count(book.String(), "pattern=/200"), 3) // and /200 itself
	})
}

// Two programs that share a cookie's name and no secret take each other for strangers. Both
// logs say so, with the likely causes, and nobody's cookie.
func TestOtherSecretsAreLogged(t *testing.T) {
	for name, options := range map[string][2]session.Options{
		"replicas with different secrets": {{Secrets: []string{secretA}}, {Secrets: []string{secretB}}},
		"two programs on localhost":       {{}, {}},
	} {
		t.Run(name, func(t *testing.T) {
			var book logBook
			options[0].Logger, options[1].Logger = book.logger(), book.logger()
			one, err := session.New(options[0])
			if err != nil {
				t.Fatal(err)
			}
			other, err := session.New(options[1])
			if err != nil {
				t.Fatal(err)
			}
			v := newVisitor(one)
			v.get(setName("ada"))
			before := book.lines()
			check(t, "name at the other", nameOf(v.elsewhere(other)), "")
			check(t, "lines", book.lines()-before, 1)
			log := book.String()
			for _, text := range []string{"level=WARN", "no good signature", "ports share cookies", "other Secrets"} {
				if !strings.Contains(log, text) {
					t.Errorf("the log has no %q: %s", text, log)
				}
			}
			if strings.Contains(log, v.jar["__Host-sid"]) {
				t.Error("the log has the cookie")
			}
		})
	}
}

// A key whose stored value is of another type warns once, and not on each read, with the
// handler's pattern; a type that is an interface has a name.
func TestOneWarningOfAKeysType(t *testing.T) {
	var book logBook
	m := newManager(t, session.Options{Logger: book.logger()})
	v := newVisitor(m)
	v.get(setName("a private text"))
	mux := http.NewServeMux()
	mux.HandleFunc("/old/", func(w http.ResponseWriter, r *http.Request) {
		s := session.From(r.Context())
		for range 3 {
			session.Key[int]("name").Get(s)
			session.Key[fmt.Stringer]("name").Get(s)
		}
	})
	v.server = m.Handler(mux)
	for range 3 {
		r := newRequest("http://localhost/old/")
		r.AddCookie(&http.Cookie{Name: "__Host-sid", Value: v.jar["__Host-sid"]})
		v.server.ServeHTTP(httptest.NewRecorder(), r)
	}
	check(t, "lines", book.lines(), 2)
	log := book.String()
	check(t, "with the pattern", strings.Count(log, "pattern=/old/\n"), 2)
	check(t, "of the int", strings.Count(log, "key=name type=int "), 1)
	check(t, "of the interface", strings.Count(log, "key=name type=fmt.Stringer "), 1)
}

// A key is no longer new after a thousand others: names that come from a client do not make
// the memory grow, nor the log.
func TestWarningsOfKeysAreBounded(t *testing.T) {
	lines := 0
	m := newManager(t, session.Options{Logger: slog.New(handlerFunc(func(slog.Record) { lines++ })), MaxBytes: 1 << 20})
	v := newVisitor(m)
	v.get(use(func(s *session.Session) {
		for i := range 1500 {
			session.Key[string](fmt.Sprint(i)).Set(s, "x")
		}
		for i := range 1500 {
			session.Key[int](fmt.Sprint(i)).Get(s)
		}
	}))
	check(t, "lines", lines, 1000)
}
