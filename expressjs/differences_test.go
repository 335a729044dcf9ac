package expressjs_test

import (
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/seed-4f96e14b/session"
	"github.com/seed-4f96e14b/session/expressjs"
)

// Express leaves both headers to the app.
func TestHeadersThatGoSets(t *testing.T) {
	m, _ := newShared(t, withRecord(`{"cookie":{},"n":1}`), nil)
	for name, tt := range map[string]struct {
		do                 func(s *session.Session)
		vary, cacheControl string
	}{
		"untouched":     {func(*session.Session) {}, "", "max-age=60"},
		"a look":        {func(s *session.Session) { nKey.Get(s) }, "Cookie", "max-age=60"},
		"a new session": {func(s *session.Session) { s.Regenerate() }, "Cookie", "no-store"},
		"a logout":      {func(s *session.Session) { s.Destroy() }, "Cookie", "no-store"},
	} {
		r := httptest.NewRequest(http.MethodGet, "/", nil)
		r.Header.Set("Cookie", testCookie)
		w := httptest.NewRecorder()
		m.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Cache-Control", "max-age=60")
			tt.do(session.From(r.Context()))
		})).ServeHTTP(w, r)
		expect(t, name+": Vary", w.Header().Get("Vary"), tt.vary)
		expect(t, name+": Cache-Control", w.Header().Get("Cache-Control"), tt.cacheControl)
	}
}

// A session whose id ends as the keys of Go's renewals do, which only a genid of the app makes,
// is served. From outside of a request it is taken for such a key.
func TestIDThatEndsAsPointersDo(t *testing.T) {
	const id = "x:renewed"
	store := newRedisMap()
	store.keys["sess:"+id] = redisValue{`{"cookie":{},"n":7}`, time.Hour}
	m, _ := newShared(t, store, nil)
	got := 0
	ask(m, "connect.sid="+signed(id), func(s *session.Session) { got = nKey.Get(s) })
	expect(t, "n", got, 7)
	if _, err := m.Load(t.Context(), id); !errors.Is(err, session.ErrNotFound) {
		t.Errorf("Load: error %v", err)
	}
	if err := m.Destroy(t.Context(), id); err != nil {
		t.Error(err)
	}
	expect(t, "keys after Manager.Destroy", len(store.keys), 1)
	ask(m, "connect.sid="+signed(id), func(s *session.Session) { s.Destroy() })
	expect(t, "keys after a logout", len(store.keys), 0)
}

// A session that Express has made larger than MaxBytes is read, and changed as long as its
// values do not grow. MaxBytes lets it grow.
func TestMaxBytes(t *testing.T) {
	record := `{"cookie":{},"big":"` + strings.Repeat("x", session.DefaultMaxBytes) + `","n":1,"small":"y"}`
	const big, small session.Key[string] = "big", "small"
	for name, tt := range map[string]struct {
		maxBytes int
		do       func(s *session.Session)
		status   int
	}{
		"a read":                               {0, func(s *session.Session) { small.Get(s) }, http.StatusOK},
		"a change":                             {0, func(s *session.Session) { nKey.Update(s, next) }, http.StatusOK},
		"one that shrinks it":                  {0, func(s *session.Session) { big.Set(s, "x") }, http.StatusOK},
		"one by which it grows":                {0, func(s *session.Session) { small.Set(s, "yy") }, http.StatusInternalServerError},
		"one by which it grows, with MaxBytes": {1 << 20, func(s *session.Session) { small.Set(s, "yy") }, http.StatusOK},
		"one by which it outgrows that":        {1 << 17, func(s *session.Session) { small.Set(s, strings.Repeat("y", 1<<17)) }, http.StatusInternalServerError},
	} {
		m, _ := newShared(t, withRecord(record), func(o *expressjs.Options) { o.MaxBytes = tt.maxBytes })
		expect(t, name, ask(m, testCookie, tt.do).StatusCode, tt.status)
	}
	if _, err := expressjs.New(expressjs.Options{Secrets: []string{testSecret}, MaxBytes: -1, Store: expressjs.RedisStore{Client: newRedisMap()}}); err == nil || !strings.Contains(err.Error(), "MaxBytes") {
		t.Errorf("MaxBytes -1: error %v", err)
	}
}
