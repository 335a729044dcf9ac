package main

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/redis/go-redis/v9"
	"github.com/seed-4f96e14b/session"
	"github.com/seed-4f96e14b/session/internal/redistest"
)

// sessionWith returns a handler that reads one value, and the cookie of a session that has
// so many keys with values of the size.
func sessionWith(b *testing.B, keys, size int) (http.Handler, string) {
	sessions := newSessions(b, new(session.MemoryStore))
	key := func(i int) session.Key[string] { return session.Key[string](fmt.Sprintf("key-%04d", i)) }
	value := strings.Repeat("x", size)
	cookie := login(b, sessions, func(s *session.Session) {
		for i := range keys {
			key(i).Set(s, value)
		}
	})
	one := key(keys / 2)
	return sessions.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if len(one.Get(session.From(r.Context()))) != size {
			b.Error("not the value")
		}
	})), cookie
}

func newSessions(b *testing.B, store session.Store) *session.Manager {
	b.Helper()
	sessions, err := session.New(session.Options{
		Store: store, Secrets: []string{secret}, MaxBytes: 1 << 20, Cookie: session.Cookie{Name: "sid", Insecure: true},
	})
	if err != nil {
		b.Fatal(err)
	}
	return sessions
}

func login(b *testing.B, sessions *session.Manager, do func(*session.Session)) (cookie string) {
	b.Helper()
	w := httptest.NewRecorder()
	sessions.Handler(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { do(session.From(r.Context())) })).
		ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/", nil))
	if w.Code != http.StatusOK {
		b.Fatalf("login: status %d", w.Code)
	}
	cookie, _, _ = strings.Cut(w.Header().Get("Set-Cookie"), ";")
	return cookie
}

// What an update costs where many requests update one session at the same time, and each has
// to be counted: a save that another has overtaken is made again. "503/op" are those
// that found no turn within the StoreTimeout.
func BenchmarkConflict(b *testing.B) {
	for _, name := range []string{"memory", "redis"} {
		for n := 1; n <= 256; n *= 2 {
			b.Run(fmt.Sprintf("%s/%d", name, n), func(b *testing.B) {
				var store session.Store = new(session.MemoryStore)
				if name == "redis" {
					client := redis.NewClient(redistest.Options(redistest.Start(b)))
					defer client.Close()
					store = &session.RedisStore{Client: client}
				}
				conflict(b, newSessions(b, store), n)
			})
		}
	}
}

func conflict(b *testing.B, sessions *session.Manager, n int) {
	cookie := login(b, sessions, func(s *session.Session) { countKey.Set(s, 0) })
	handler := sessions.Handler(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		countKey.Update(session.From(r.Context()), func(n int) int { return n + 1 })
	}))
	var started, counted, refused atomic.Int64
	b.ResetTimer()
	var all sync.WaitGroup
	for range n {
		all.Go(func() {
			for started.Add(1) <= int64(b.N) {
				r := httptest.NewRequest(http.MethodPost, "/", nil)
				r.Header.Set("Cookie", cookie)
				w := httptest.NewRecorder()
				handler.ServeHTTP(w, r)
				switch w.Code {
				case http.StatusOK:
					counted.Add(1)
				case http.StatusServiceUnavailable:
					refused.Add(1)
				default:
					b.Errorf("status %d", w.Code)
				}
			}
		})
	}
	all.Wait()
	b.StopTimer()
	b.ReportMetric(float64(refused.Load())/float64(b.N), "503/op")

	r := httptest.NewRequest(http.MethodGet, "/", nil)
	r.Header.Set("Cookie", cookie)
	sessions.Handler(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		if got := int64(countKey.Get(session.From(r.Context()))); got < counted.Load() || got > counted.Load()+refused.Load() {
			b.Errorf("%d were answered 200, %d 503, and the session has counted %d", counted.Load(), refused.Load(), got)
		}
	})).ServeHTTP(httptest.NewRecorder(), r)
}
