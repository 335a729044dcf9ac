package expressjs_test

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"io"
	"iter"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/seed-4f96e14b/session"
	"github.com/seed-4f96e14b/session/expressjs"
	"github.com/seed-4f96e14b/session/internal/testing/suitetest"
)

const (
	siteSecret = "what the Express app signs with, 01"
	siteOther  = "what it signed with before, 000000"
)

// A site is a Go app on the sessions of an Express app.
type site struct {
	*session.Manager
	store *spyStore
	log   *logPages
}

// TestMain checks the whole run: no secret shows, and no goroutine is left.
func TestMain(m *testing.M) { suitetest.Main(m) }

// An id fails the run that a manager logs, that an error has which a handler sees, or that a
// handler panics with.
func TestIDsThatShowFailTheRun(t *testing.T) {
	found := func(text string) string { return t.Name() + ": an id of Express is in \"" + text }
	if !suitetest.InItsOwnProcess(t, found("level=ERROR msg="), "logged ********",
		found(session.ErrUnavailable.Error()+": load: to the handler ********"),
		found("panic: ********"), found("panic: of ask, ********")) {
		return
	}
	site := newSite(t)
	b := site.visitor()
	b.get(setUser("u1"))
	fails := func(with string) {
		site.store.on("L", func() error { return fmt.Errorf("%s %s", with, b.sid()) })
		b.get(readUser)
	}
	fails("logged")
	fails("to the handler")
	recovered := func(f func()) {
		defer func() { expect(t, "a panic", recover() != nil, true) }()
		f()
	}
	recovered(func() { b.get(func(*session.Session) { panic(b.sid()) }) })
	recovered(func() { ask(site.Manager, "", func(*session.Session) { panic("of ask, " + b.sid()) }) })
}

// newManager returns session.New(options), and has it watched for secrets that show.
func newManager(t testing.TB, options session.Options) (*session.Manager, error) {
	options.Logger = suitetest.Logger(t, options.Logger)
	m, err := session.New(options)
	suitetest.Key(options.Secrets...)
	suitetest.Show(options, err)
	if m != nil {
		suitetest.Show(m)
	}
	return m, err
}

// serve has a handler answer one request, and both watched for secrets that show.
func serve(h http.Handler, w http.ResponseWriter, r *http.Request) {
	defer suitetest.Panics()
	suitetest.Cookies(r.Cookies())
	h.ServeHTTP(w, r)
	suitetest.Cookies((&http.Response{Header: w.Header()}).Cookies())
}

// newSite returns a site with its sessions in memory.
func newSite(t testing.TB, change ...func(o *expressjs.Options)) *site {
	t.Helper()
	return openSite(t, new(session.MemoryStore), change...)
}

func openSite(t testing.TB, store session.Store, change ...func(o *expressjs.Options)) *site {
	t.Helper()
	options := expressjs.Options{Secrets: []string{siteSecret}}
	for _, f := range change {
		f(&options)
	}
	all, err := options.Session()
	if err != nil {
		t.Fatal(err)
	}
	s := &site{store: &spyStore{Store: store}, log: new(logPages)}
	all.Store, all.Logger = s.store, slog.New(slog.NewTextHandler(s.log, nil))
	if s.Manager, err = newManager(t, all); err != nil {
		t.Fatal(err)
	}
	return s
}

// Options of Express, as the tests write them.
func maxAge(d time.Duration) func(*expressjs.Options) {
	return func(o *expressjs.Options) { o.Cookie.MaxAge = d }
}
func secrets(all ...string) func(*expressjs.Options) {
	return func(o *expressjs.Options) { o.Secrets = all }
}
func rolling(o *expressjs.Options)           { o.Rolling = true }
func resave(o *expressjs.Options)            { o.Resave = true }
func saveUninitialized(o *expressjs.Options) { o.SaveUninitialized = true }

// has puts a record into the site's store, as Express would, and returns a browser with
// its cookie.
func (s *site) has(t testing.TB, sid, record string, ttl time.Duration) *browser {
	t.Helper()
	if err := s.store.Store.Create(t.Context(), sid, []byte(record), ttl); err != nil {
		t.Fatal(err)
	}
	b := s.visitor()
	b.jar["connect.sid"] = signature(sid, siteSecret)
	return b
}

// record returns what is stored under an id, or "".
func (s *site) record(t testing.TB, sid string) string {
	t.Helper()
	data, _ := s.store.Store.Load(t.Context(), sid)
	return string(data)
}

func (s *site) visitor() *browser { return &browser{site: s, jar: make(map[string]string)} }

// A browser keeps cookies by name.
type browser struct {
	site *site
	jar  map[string]string
}

func (b *browser) copy() *browser {
	c := b.site.visitor()
	for name, value := range b.jar {
		c.jar[name] = value
	}
	return c
}

// sid returns the id in the browser's cookie.
func (b *browser) sid() string { return sidIn(b.jar["connect.sid"]) }

func sidIn(value string) string {
	text, _ := url.PathUnescape(value)
	text = strings.TrimPrefix(text, "s:")
	return text[:max(strings.LastIndexByte(text, '.'), 0)]
}

// get makes a request that has only to do with the session.
func (b *browser) get(do func(s *session.Session)) *http.Response {
	return b.visit("GET", "http://localhost/", only(do))
}

// only is a handler that has only to do with the session.
func only(do func(s *session.Session)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		s := session.From(r.Context())
		defer func() { suitetest.Show(w, s, s.Err()) }()
		do(s)
	}
}

func (b *browser) visit(method, target string, h http.HandlerFunc) *http.Response {
	return b.through(b.site.Handler(h), httptest.NewRequest(method, target, nil))
}

func (b *browser) through(h http.Handler, r *http.Request) *http.Response {
	for name, value := range b.jar {
		r.Header.Add("Cookie", name+"="+value)
	}
	w := httptest.NewRecorder()
	serve(h, w, r)
	response := w.Result()
	b.keep(response)
	return response
}

func (b *browser) keep(response *http.Response) {
	for _, c := range response.Cookies() {
		if c.MaxAge < 0 {
			delete(b.jar, c.Name)
		} else {
			b.jar[c.Name] = c.Value
		}
	}
}

// user returns the value under userKey that the browser's session has now.
func (b *browser) user() (user string) {
	b.copy().get(func(s *session.Session) { user = userKey.Get(s) })
	return user
}

func setUser(user string) func(*session.Session) {
	return func(s *session.Session) { userKey.Set(s, user) }
}

func readUser(s *session.Session) { userKey.Get(s) }
func doNothing(*session.Session)  {}

// sent returns the session's Set-Cookie, or nil.
func sent(t testing.TB, response *http.Response) *http.Cookie {
	t.Helper()
	var found *http.Cookie
	for _, c := range response.Cookies() {
		if c.Name == "connect.sid" {
			if found != nil {
				t.Errorf("two session cookies: %q", response.Header.Values("Set-Cookie"))
			}
			found = c
		}
	}
	return found
}

// answer returns a response's status and body.
func answer(t testing.TB, response *http.Response) string {
	t.Helper()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		t.Error(err)
	}
	return fmt.Sprint(response.StatusCode, " ", strings.TrimSuffix(string(body), "\n"))
}

// signature is what express-session has as the value of its cookie.
func signature(sid, secret string) string {
	mac := hmac.New(sha256.New, []byte(secret))
	mac.Write([]byte(sid))
	return url.QueryEscape("s:" + sid + "." + base64.RawStdEncoding.EncodeToString(mac.Sum(nil)))
}

// A spyStore writes down what it is asked, and can be made to fail or to be slow.
type spyStore struct {
	session.Store
	mu     sync.Mutex
	calls  []string
	ttl    time.Duration // of the last write
	before map[string]func() error
}

func (s *spyStore) call(op string, ttl time.Duration) error {
	s.mu.Lock()
	s.calls = append(s.calls, op)
	if ttl > 0 {
		s.ttl = ttl
	}
	before := s.before[op]
	s.mu.Unlock()
	if before == nil {
		return nil
	}
	return before()
}

// on runs f before each call of op. It is nil for nothing.
func (s *spyStore) on(op string, f func() error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.before == nil {
		s.before = make(map[string]func() error)
	}
	s.before[op] = f
}

// took returns the calls since it was last asked: L is Load, C Create, S
// CompareAndSwap, D Delete.
func (s *spyStore) took() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	calls := strings.Join(s.calls, " ")
	s.calls = nil
	return calls
}

func (s *spyStore) Load(ctx context.Context, key string) ([]byte, error) {
	if err := s.call("L", 0); err != nil {
		return nil, err
	}
	return s.Store.Load(ctx, key)
}

func (s *spyStore) Create(ctx context.Context, key string, data []byte, ttl time.Duration) error {
	if err := s.call("C", ttl); err != nil {
		return err
	}
	return s.Store.Create(ctx, key, data, ttl)
}

func (s *spyStore) CompareAndSwap(ctx context.Context, key string, old, data []byte, ttl time.Duration) error {
	if err := s.call("S", ttl); err != nil {
		return err
	}
	return s.Store.CompareAndSwap(ctx, key, old, data, ttl)
}

func (s *spyStore) Delete(ctx context.Context, key string) error {
	if err := s.call("D", 0); err != nil {
		return err
	}
	return s.Store.Delete(ctx, key)
}

func (s *spyStore) Keys(ctx context.Context) iter.Seq2[string, error] {
	return s.Store.(session.KeyLister).Keys(ctx)
}

func (s *spyStore) Clear(ctx context.Context) error { return s.Store.(session.Clearer).Clear(ctx) }

func refuse() error { return fmt.Errorf("OOM command not allowed") }

// sessions counts what is in the memory store.
func (s *spyStore) sessions(t testing.TB) (n int) {
	t.Helper()
	for _, err := range s.Keys(t.Context()) {
		if err != nil {
			t.Fatal(err)
		}
		n++
	}
	return n
}

// logPages are what a logger writes.
type logPages struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (l *logPages) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(b)
}

func (l *logPages) count(text string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Count(l.text.String(), text)
}

func expect[T comparable](t testing.TB, what string, got, want T) {
	t.Helper()
	if got != want {
		t.Errorf("%s: got %v, want %v", what, got, want)
	}
}

// timed is a test with the clock of the vectors, in which Sleep passes at once.
func timed(test func(t *testing.T)) func(t *testing.T) {
	return func(t *testing.T) { at(t, frozen, test) }
}

// expressRecord is a record of Express whose cookie ends in left, with some values.
func expressRecord(maxAge, left time.Duration, values string) string {
	cookie := plainCookie
	if maxAge > 0 {
		cookie = fmt.Sprintf(`{"originalMaxAge":%d,"expires":%q,"httpOnly":true,"path":"/"}`,
			maxAge.Milliseconds(), time.Now().Add(left).UTC().Format("2006-01-02T15:04:05.000Z"))
	}
	return `{"cookie":` + cookie + values + `}`
}
