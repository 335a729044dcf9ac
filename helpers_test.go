package session_test

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/redis/go-redis/v9"
	"github.com/seed-4f96e14b/session"
	"github.com/seed-4f96e14b/session/internal/testing/redistest"
	"github.com/seed-4f96e14b/session/internal/testing/suitetest"
)

const (
	secretA = "the first secret of these tests, 01"
	secretB = "the second secret of these tests, 2"
)

// forEachStore runs a test on the memory store, on miniredis and on a real Redis.
func forEachStore(t *testing.T, test func(t *testing.T, store session.Store)) {
	t.Run("memory", func(t *testing.T) {
		test(t, new(session.MemoryStore))
	})
	t.Run("miniredis", func(t *testing.T) {
		server := newMiniredis(t)
		client := redis.NewClient(&redis.Options{Addr: server.Addr()})
		t.Cleanup(func() { client.Close() })
		test(t, &session.RedisStore{Client: client})
	})
	t.Run("redis", func(t *testing.T) {
		test(t, &session.RedisStore{Client: redistest.Client(t, redistest.ListRights)})
	})
}

// recordsIn counts the records of a store.
func recordsIn(t testing.TB, store session.KeyLister) (n int) {
	t.Helper()
	for _, err := range store.Keys(t.Context()) {
		if err != nil {
			t.Fatal(err)
		}
		n++
	}
	return n
}

// TestMain checks the whole run: no secret shows, and no goroutine is left.
func TestMain(m *testing.M) { suitetest.Main(m) }

// A secret fails the run that a manager logs, that an error has which a handler or an
// ErrorHandler sees, or that a handler panics with.
func TestSecretsThatShowFailTheRun(t *testing.T) {
	found := func(text string) string { return t.Name() + ": a cookie is in \"" + text }
	if !suitetest.InItsOwnProcess(t, found("level=ERROR msg="), "logged ********",
		found(session.ErrUnavailable.Error()+": load: to the handler ********"),
		found(session.ErrUnavailable.Error()+": load: to the ErrorHandler ********"),
		found("panic: ********")) {
		return
	}
	sp := &spy{Store: new(session.MemoryStore)}
	v := newVisitor(newManager(t, session.Options{Store: sp, ErrorHandler: func(http.ResponseWriter, *http.Request, error) {}}))
	v.get(setName("x"))
	cookie := v.jar["__Host-sid"]
	fails := func(method, with string) {
		sp.on("L", func() error { return errors.New(with + " " + cookie) })
		v.do(method, use(func(s *session.Session) { nameKey.Get(s) }))
	}
	fails(http.MethodGet, "logged")
	fails(http.MethodGet, "to the handler")
	fails(http.MethodPost, "to the ErrorHandler") // loaded before the handler runs
	panics(t, "the handler", cookie, func() { v.get(func(http.ResponseWriter, *http.Request) { panic(cookie) }) })
}

// newMiniredis runs a miniredis for the test. When the test ends, each key that is left
// has to have a time to live, as in the servers of redistest.
func newMiniredis(t *testing.T) *miniredis.Miniredis {
	t.Helper()
	server := miniredis.RunT(t)
	t.Cleanup(func() {
		for _, key := range server.Keys() {
			if server.TTL(key) == 0 {
				t.Errorf("the key %q in miniredis has no time to live", key)
			}
		}
	})
	return server
}

// newManager returns a manager with secretA, quiet unless a Logger is set.
func newManager(t testing.TB, options session.Options) *session.Manager {
	t.Helper()
	if options.Secrets == nil {
		options.Secrets = []string{secretA}
	}
	options.Logger = suitetest.Logger(t, options.Logger)
	if answer := options.ErrorHandler; answer != nil {
		options.ErrorHandler = func(w http.ResponseWriter, r *http.Request, err error) {
			suitetest.Show(w, err)
			answer(w, r, err)
		}
	}
	m, err := session.New(options)
	if err != nil {
		t.Fatal(err)
	}
	suitetest.Key(options.Secrets...)
	suitetest.Show(m, options)
	return m
}

// A handler is what one request of a test does.
type handler func(w http.ResponseWriter, r *http.Request)

type handlerKey struct{}

// app runs the handler that the visitor put on the request.
var app = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
	defer func() {
		if s, ok := session.FromContext(r.Context()); ok {
			suitetest.Show(s, s.Err(), w)
		}
	}()
	r.Context().Value(handlerKey{}).(handler)(w, r)
})

// use is a handler that only has to do with the session.
func use(f func(s *session.Session)) handler {
	return func(w http.ResponseWriter, r *http.Request) { f(session.From(r.Context())) }
}

func untouched(http.ResponseWriter, *http.Request) {}

// A visitor is a browser: it keeps cookies.
type visitor struct {
	server http.Handler
	jar    map[string]string
}

func newVisitor(m *session.Manager) *visitor {
	return &visitor{server: m.Handler(app), jar: make(map[string]string)}
}

// copy returns a second browser window: the same cookies as of now.
func (v *visitor) copy() *visitor {
	c := &visitor{server: v.server, jar: make(map[string]string)}
	for name, value := range v.jar {
		c.jar[name] = value
	}
	return c
}

// elsewhere returns such a window whose requests go to another process.
func (v *visitor) elsewhere(m *session.Manager) *visitor {
	c := v.copy()
	c.server = m.Handler(app)
	return c
}

func (v *visitor) get(h handler) *http.Response  { return v.do(http.MethodGet, h) }
func (v *visitor) post(h handler) *http.Response { return v.do(http.MethodPost, h) }

func (v *visitor) do(method string, h handler) *http.Response {
	return v.send(method, h, func(*http.Request) {})
}

func (v *visitor) send(method string, h handler, prepare func(*http.Request)) *http.Response {
	r := httptest.NewRequest(method, "http://localhost/", nil)
	r = r.WithContext(context.WithValue(r.Context(), handlerKey{}, h))
	for name, value := range v.jar {
		r.AddCookie(&http.Cookie{Name: name, Value: value})
	}
	prepare(r)
	defer suitetest.Panics()
	w := httptest.NewRecorder()
	v.server.ServeHTTP(w, r)
	response := w.Result()
	suitetest.Cookies(response.Cookies())
	for _, c := range response.Cookies() {
		if c.MaxAge < 0 {
			delete(v.jar, c.Name)
		} else {
			v.jar[c.Name] = c.Value
		}
	}
	return response
}

// cookies returns the Set-Cookie lines of a response.
func cookies(r *http.Response) []string { return r.Header.Values("Set-Cookie") }

// A spy is a store that writes down what it is asked: L for Load, C for Create, S
// for CompareAndSwap, D for Delete. Before each call it runs before, which may
// wait, look at the store, or return an error instead of the call's; after it after.
type spy struct {
	session.Store
	before func(op, key string) error
	after  func(op, key string, err error) error

	mu   sync.Mutex
	ops  []string
	keys []string
	data [][]byte
}

func (s *spy) call(op, key string, do func() error) error {
	s.mu.Lock()
	s.ops = append(s.ops, op)
	s.keys = append(s.keys, key)
	before, after := s.before, s.after
	s.mu.Unlock()
	if before != nil {
		if err := before(op, key); err != nil {
			return err
		}
	}
	err := do()
	if after != nil {
		err = after(op, key, err)
	}
	return err
}

func (s *spy) Load(ctx context.Context, key string) (data []byte, err error) {
	err = s.call("L", key, func() error {
		data, err = s.Store.Load(ctx, key)
		return err
	})
	if err != nil {
		return nil, err
	}
	return data, nil
}

func (s *spy) Create(ctx context.Context, key string, data []byte, ttl time.Duration) error {
	s.remember(data)
	return s.call("C", key, func() error { return s.Store.Create(ctx, key, data, ttl) })
}

func (s *spy) CompareAndSwap(ctx context.Context, key string, old, data []byte, ttl time.Duration) error {
	s.remember(data)
	return s.call("S", key, func() error { return s.Store.CompareAndSwap(ctx, key, old, data, ttl) })
}

func (s *spy) Delete(ctx context.Context, key string) error {
	return s.call("D", key, func() error { return s.Store.Delete(ctx, key) })
}

func (s *spy) remember(data []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.data = append(s.data, bytes.Clone(data))
}

// on sets before for one op.
func (s *spy) on(op string, do func() error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.before = func(o, _ string) error {
		if o != op {
			return nil
		}
		return do()
	}
}

// onceOn sets before for the next call of op alone.
func (s *spy) onceOn(op string, do func() error) {
	first := once()
	s.on(op, func() error {
		if first() {
			return do()
		}
		return nil
	})
}

// took returns the calls since it was last asked, as "L S".
func (s *spy) took() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	ops := strings.Join(s.ops, " ")
	s.ops = nil
	return ops
}

// A logBook is a logger that a test can read.
type logBook struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (b *logBook) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.Write(p)
}

func (b *logBook) logger() *slog.Logger {
	return slog.New(slog.NewTextHandler(b, &slog.HandlerOptions{Level: slog.LevelDebug}))
}

func (b *logBook) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.String()
}

func (b *logBook) lines() int { return strings.Count(b.String(), "\n") }

// The keys of these tests.
const (
	nameKey    session.Key[string]   = "name"
	counterKey session.Key[int]      = "counter"
	listKey    session.Key[[]string] = "list"
)

func setName(name string) handler {
	return use(func(s *session.Session) { nameKey.Set(s, name) })
}

func increment(n int) int { return n + 1 }

// nameOf returns what the visitor's session has under nameKey now.
func nameOf(v *visitor) (name string) {
	v.copy().get(use(func(s *session.Session) { name = nameKey.Get(s) }))
	return name
}

func counterOf(v *visitor) (n int) {
	v.copy().get(use(func(s *session.Session) { n = counterKey.Get(s) }))
	return n
}

// inBubble runs a test in virtual time: Sleep passes at once.
func inBubble(t *testing.T, test func(t *testing.T)) {
	t.Helper()
	synctest.Test(t, test)
}

func newRequest(target string) *http.Request { return httptest.NewRequest(http.MethodGet, target, nil) }

// once returns a function that is true the first time, also while what follows that
// calls it again.
func once() func() bool {
	var called atomic.Bool
	return func() bool { return called.CompareAndSwap(false, true) }
}
