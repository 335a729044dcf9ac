package expressjs_test

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/redis/go-redis/v9"
	"github.com/seed-4f96e14b/session"
	"github.com/seed-4f96e14b/session/expressjs"
)

// A slow Redis takes its time for every command.
type slowRedis struct{ *redisMap }

func (s *slowRedis) Get(ctx context.Context, key string) *redis.StringCmd {
	time.Sleep(time.Millisecond)
	return s.redisMap.Get(ctx, key)
}

func (s *slowRedis) SetNX(ctx context.Context, key string, value any, ttl time.Duration) *redis.BoolCmd {
	time.Sleep(time.Millisecond)
	return s.redisMap.SetNX(ctx, key, value, ttl)
}

func (s *slowRedis) EvalSha(ctx context.Context, sha string, keys []string, args ...any) *redis.Cmd {
	time.Sleep(time.Millisecond)
	return s.redisMap.EvalSha(ctx, sha, keys, args...)
}

// A page that makes many requests, each of which renews: they give way to each other.
func TestManyRenewalsAtOnce(t *testing.T) {
	for _, n := range []int{2, 4, 8, 32} {
		at(t, frozen, func(t *testing.T) {
			store := &slowRedis{withRecord(`{"cookie":{},"userId":"u1"}`)}
			m, _ := newShared(t, store, nil)
			var loaded, done sync.WaitGroup
			var mu sync.Mutex
			cookies := make(map[string]int)
			loaded.Add(n)
			for range n {
				done.Go(func() {
					response := ask(m, testCookie, func(s *session.Session) {
						s.Keys()
						loaded.Done()
						loaded.Wait()
						s.Renew()
					})
					mu.Lock()
					defer mu.Unlock()
					if response.StatusCode != http.StatusOK {
						t.Errorf("%d at once: status %d", n, response.StatusCode)
						return
					}
					cookies[newCookie(t, response)]++
				})
			}
			done.Wait()
			if len(cookies) != 1 {
				t.Errorf("%d at once ended with %d cookies", n, len(cookies))
			}
			for cookie := range cookies {
				if user := userOf(m, cookie); user != "u1" {
					t.Errorf("%d at once: the user is %q", n, user)
				}
			}
		})
	}
}

// What another request gives the session while it moves, it has after that too.
func TestLifetimeChangedDuringARenewal(t *testing.T) {
	for before, after := range map[string]time.Duration{"60000": 30 * 24 * time.Hour, "2592000000": time.Minute} {
		store := &meddled{redisMap: withRecord(`{"cookie":{"originalMaxAge":` + before + `},"userId":"u1"}`)}
		m, _ := newShared(t, store, nil)
		store.before = func() { ask(m, testCookie, func(s *session.Session) { s.SetMaxAge(after) }) }
		ask(m, testCookie, func(s *session.Session) { s.Renew() })
		for _, v := range store.keys {
			if strings.Contains(v.text, "u1") && v.ttl != after {
				t.Errorf("time to live %v, want %v", v.ttl, after)
			}
		}
	}
}

// A session that is renewed while all are listed is listed, and once.
func TestAllWhileASessionIsRenewed(t *testing.T) {
	server := miniredis.RunT(t)
	client := redis.NewClient(&redis.Options{Addr: server.Addr()})
	t.Cleanup(func() { client.Close() })
	m, _ := newShared(t, client, nil)
	cookies := make(map[string]string)
	for _, user := range []string{"ada", "bob"} {
		cookies[user] = newCookie(t, ask(m, "", func(s *session.Session) { userKey.Set(s, user) }))
	}
	seen := make(map[string]int)
	for s, err := range m.All(t.Context()) {
		if err != nil {
			t.Fatal(err)
		}
		if len(seen) == 0 {
			for user, cookie := range cookies {
				if user != userKey.Get(s) {
					ask(m, cookie, func(s *session.Session) { s.Renew() })
				}
			}
		}
		seen[userKey.Get(s)]++
	}
	if seen["ada"] != 1 || seen["bob"] != 1 {
		t.Errorf("listed %v", seen)
	}
}

// A move that too few replicas have is refused, as any other write.
func TestRenewalThatIsNotReplicated(t *testing.T) {
	client := withRecord(`{"cookie":{},"userId":"u1"}`)
	options, err := expressjs.Options{Secrets: []string{testSecret}, Store: expressjs.RedisStore{Client: client}}.Session()
	if err != nil {
		t.Fatal(err)
	}
	options.Store = &unreplicated{options.Store}
	m, err := newManager(t, options)
	if err != nil {
		t.Fatal(err)
	}
	response := ask(m, testCookie, func(s *session.Session) { s.Renew() })
	if response.StatusCode != http.StatusServiceUnavailable || len(response.Cookies()) > 0 {
		t.Errorf("status %d, cookies %q", response.StatusCode, response.Cookies())
	}
}

type unreplicated struct{ session.Store }

func (u *unreplicated) CompareAndSwap(ctx context.Context, key string, old, data []byte, ttl time.Duration) error {
	err := u.Store.CompareAndSwap(ctx, key, old, data, ttl)
	if err == nil && len(data) == 0 {
		return session.ErrNotReplicated
	}
	return err
}

// A logout that cannot find the session is no logout.
func TestLogoutAfterTooManyRenewals(t *testing.T) {
	store := withRecord(`{"cookie":{},"userId":"u1"}`)
	m, _ := newShared(t, store, nil)
	cookie := testCookie
	for range 1001 {
		cookie = newCookie(t, ask(m, cookie, func(s *session.Session) { s.Renew() }))
	}
	for range 2 { // also when it is tried again
		response := ask(m, testCookie, func(s *session.Session) {
			if err := s.Destroy(); !errors.Is(err, session.ErrUnavailable) {
				t.Errorf("error %v", err)
			}
		})
		if response.StatusCode != http.StatusServiceUnavailable {
			t.Errorf("status %d", response.StatusCode)
		}
	}
	ask(m, cookie, func(s *session.Session) { s.Destroy() })
	if user := userOf(m, cookie); user != "" {
		t.Errorf("after a logout with the last cookie the user is %q", user)
	}
}

// A renewal that another has overtaken, and a logout after that, leave no copy.
func TestOvertakenRenewalOfAnEndedSession(t *testing.T) {
	store := &meddled{redisMap: withRecord(`{"cookie":{},"userId":"u1"}`)}
	m, _ := newShared(t, store, nil)
	store.before = func() {
		ask(m, testCookie, func(s *session.Session) { s.Renew() })
		store.after = func() { ask(m, testCookie, func(s *session.Session) { s.Destroy() }) }
	}
	ask(m, testCookie, func(s *session.Session) { s.Renew() })
	for key, v := range store.keys {
		if strings.Contains(v.text, "u1") {
			t.Errorf("a copy is left under %s", strings.Replace(key, testSid, "ID", 1))
		}
	}
}
