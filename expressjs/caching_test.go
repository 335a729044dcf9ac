package expressjs_test

import (
	"net/http"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/seed-4f96e14b/session"
	"github.com/seed-4f96e14b/session/expressjs"
	"github.com/seed-4f96e14b/session/internal/faultproxy"
	"github.com/seed-4f96e14b/session/internal/redistest"
)

// A process whose client caches, and is not told of a renewal in another: a GET with the cookie
// of before may still see the session, what it changes is kept where the session is now, and
// a logout with it ends the session there.
func TestCachingClientIsNotToldOfARenewal(t *testing.T) {
	for name, tt := range map[string]struct {
		method, user string // of the request there, and here after it
		do           func(s *session.Session)
	}{
		"read":          {http.MethodGet, "u1", func(s *session.Session) { expect(t, "user of a GET", userKey.Get(s), "u1") }},
		"POST":          {http.MethodPost, "u1", func(s *session.Session) { expect(t, "user of a POST", userKey.Get(s), "") }},
		"change":        {http.MethodGet, "u2", setUser("u2")},
		"logout":        {http.MethodPost, "", destroy},
		"logout by GET": {http.MethodGet, "", destroy},
	} {
		t.Run(name, func(t *testing.T) {
			addr := redistest.Start(t)
			redistest.Allow(t, addr, redistest.CacheRights)
			gate := faultproxy.NewGate(t, addr)
			plain := redis.NewClient(redistest.Options(addr))
			defer plain.Close()
			options := redistest.Options(gate.Addr)
			options.ClientSideCacheConfig = new(redis.ClientSideCacheConfig)
			caching := redis.NewClient(options)
			defer caching.Close()
			// The sites' own stores, without a spy before them: a manager looks at what its store is.
			here, there := openPlain(t, plain), openPlain(t, caching)

			b := here.visitor()
			b.get(setUser("u1"))
			tab := b.copy()
			tab.site = there
			expect(t, "user there", tab.user(), "u1")
			gate.HoldPushes()
			b.get(func(s *session.Session) { s.Renew() })
			for gate.Held() == 0 {
				time.Sleep(time.Millisecond)
			}
			expect(t, "status", tab.visit(tt.method, "http://localhost/", only(tt.do)).StatusCode, http.StatusOK)
			expect(t, "user here", b.user(), tt.user)
			tab.jar = b.copy().jar
			expect(t, "user there, with the cookie of now", tab.user(), tt.user)
		})
	}
}

func openPlain(t testing.TB, client session.RedisClient) *site {
	t.Helper()
	options, err := (expressjs.Options{Secrets: []string{siteSecret}, Store: expressjs.RedisStore{Client: client}}).Session()
	if err != nil {
		t.Fatal(err)
	}
	m, err := newManager(t, options)
	if err != nil {
		t.Fatal(err)
	}
	return &site{Manager: m}
}
