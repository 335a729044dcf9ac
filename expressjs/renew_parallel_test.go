package expressjs_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/seed-4f96e14b/session"
	"github.com/seed-4f96e14b/session/expressjs"
	"github.com/seed-4f96e14b/session/internal/testing/redistest"
)

// A page whose session is renewed with a grace while it makes many requests, which have the
// cookie of before the renewal, and which one or two processes answer: none is anonymous,
// none is refused, no change is lost, and none sends a cookie that could overwrite the new one.
func TestManyRequestsBesideARenewal(t *testing.T) {
	const renewals, requests = 20, 50
	for _, processes := range []int{1, 2} {
		t.Run(fmt.Sprint(processes, " processes"), func(t *testing.T) {
			addr := redistest.Start(t)
			var handlers []http.Handler
			for range processes {
				handlers = append(handlers, countsIn(t, addr))
			}
			send := func(i int, method, cookie string) *http.Response {
				r := httptest.NewRequest(method, "http://localhost/", nil)
				r.Header.Set("Cookie", cookie)
				w := httptest.NewRecorder()
				serve(handlers[i%processes], w, r)
				return w.Result()
			}
			var posts atomic.Int64
			cookie := newCookie(t, send(0, "LOGIN", ""))
			for round := range renewals {
				var pending sync.WaitGroup
				beside := func(old, what string) {
					for i := range requests / 2 {
						pending.Go(func() {
							method := http.MethodGet
							if i%4 < 2 { // of both processes
								method = http.MethodPost
								posts.Add(1)
							}
							response := send(i, method, old)
							if got := answer(t, response); got != "200 u1" {
								t.Errorf("a %s %s renewal %d: %s", method, what, round, got)
							}
							if c := response.Cookies(); len(c) > 0 {
								t.Errorf("a %s %s renewal %d sends a cookie", method, what, round)
							}
						})
					}
				}
				beside(cookie, "beside")
				response := send(round, "RENEW", cookie)
				old := cookie
				expect(t, "status of a renewal", response.StatusCode, http.StatusOK)
				cookie = newCookie(t, response)
				beside(old, "after")
				pending.Wait()
			}
			expect(t, "the count", answer(t, send(0, "COUNT", cookie)), fmt.Sprint("200 ", posts.Load()))
		})
	}
}

// countsIn is an app in a process of its own.
func countsIn(t *testing.T, addr string) http.Handler {
	t.Helper()
	client := redis.NewClient(redistest.Options(addr))
	t.Cleanup(func() { client.Close() })
	options, err := (expressjs.Options{Secrets: []string{siteSecret}, Store: expressjs.RedisStore{Client: client}}).Session()
	if err != nil {
		t.Fatal(err)
	}
	options.StoreTimeout = time.Minute // the machine may be busy
	m, err := newManager(t, options)
	if err != nil {
		t.Fatal(err)
	}
	return m.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s := session.From(r.Context())
		switch r.Method {
		case "LOGIN":
			userKey.Set(s, "u1")
		case "RENEW":
			renewGrace(s)
		case "COUNT":
			fmt.Fprint(w, nKey.Get(s))
			return
		case http.MethodPost:
			count(s)
		}
		fmt.Fprint(w, userKey.Get(s))
	}))
}
