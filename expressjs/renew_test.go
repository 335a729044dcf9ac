package expressjs_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
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

// A page that makes many requests, each of which renews: one is the first, whichever process
// answers it. The others go on without a cookie, or fail if the renewal was to leave no other.
func TestManyRenewalsAtOnce(t *testing.T) {
	for _, n := range []int{2, 4, 8, 32} {
		for name, renew := range renewals {
			timedRun(t, fmt.Sprint(n, name), func(t *testing.T) {
				store := &slowRedis{withRecord(`{"cookie":{},"userId":"u1","n":0}`)}
				var processes [2]*session.Manager
				for i := range processes {
					processes[i], _ = newShared(t, store, nil)
				}
				var loaded, done sync.WaitGroup
				var mu sync.Mutex
				var cookies []string
				statuses := make(map[int]int)
				loaded.Add(n)
				for i := range n {
					done.Go(func() {
						response := ask(processes[i%2], testCookie, func(s *session.Session) {
							s.Keys()
							loaded.Done()
							loaded.Wait()
							inOrder(count, renew)(s)
						})
						mu.Lock()
						defer mu.Unlock()
						statuses[response.StatusCode]++
						for _, c := range response.Cookies() {
							cookies = append(cookies, c.Name+"="+c.Value)
						}
					})
				}
				done.Wait()
				if len(cookies) != 1 {
					t.Fatalf("%d cookies, statuses %v", len(cookies), statuses)
				}
				want := map[int]int{http.StatusOK: n}
				if name == "no grace" {
					want = map[int]int{http.StatusOK: 1, http.StatusServiceUnavailable: n - 1}
				}
				if !maps.Equal(statuses, want) {
					t.Errorf("statuses %v, want %v", statuses, want)
				}
				expect(t, "user", userOf(processes[0], cookies[0]), "u1")
				expect(t, "n", countOf(processes[1], cookies[0]), want[http.StatusOK])
			})
		}
	}
}

// What another request gives the session while it moves, it has after that too.
func TestLifetimeChangedDuringARenewal(t *testing.T) {
	for before, after := range map[string]time.Duration{"60000": 30 * 24 * time.Hour, "2592000000": time.Minute} {
		timedRun(t, before, func(t *testing.T) {
			store := &meddled{redisMap: withRecord(`{"cookie":{"originalMaxAge":` + before + `},"userId":"u1"}`)}
			m, _ := newShared(t, store, nil)
			other, _ := newShared(t, store, nil)
			store.before = func() { ask(other, testCookie, func(s *session.Session) { s.SetMaxAge(after) }) }
			newCookie(t, ask(m, testCookie, renewNow))
			for _, v := range store.keys {
				if strings.Contains(v.text, `"userId":"u1"`) && v.ttl != after {
					t.Errorf("time to live %v, want %v", v.ttl, after)
				}
			}
		})
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
					ask(m, cookie, renewNow)
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
	response := ask(m, testCookie, renewNow)
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
		cookie = newCookie(t, ask(m, cookie, renewNow))
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
	for name, renew := range renewals {
		timedRun(t, name, func(t *testing.T) {
			store := &meddled{redisMap: withRecord(`{"cookie":{},"userId":"u1"}`)}
			m, _ := newShared(t, store, nil)
			other, _ := newShared(t, store, nil)
			store.before = func() {
				newCookie(t, ask(other, testCookie, renew))
				store.after = func() { ask(other, testCookie, destroy) }
			}
			ask(m, testCookie, renew)
			expectNoCopy(t, store.redisMap)
		})
	}
}

// expectNoCopy fails the test if something of the user u1 is left.
func expectNoCopy(t *testing.T, store *redisMap) {
	t.Helper()
	for key, v := range store.keys {
		if strings.Contains(v.text, `"userId":"u1"`) {
			t.Errorf("a copy is left under %s", strings.Replace(key, testSid, "ID", 1))
		}
	}
}

// The two ways to renew.
func renewNow(s *session.Session)   { s.Renew(0) }
func renewGrace(s *session.Session) { s.Renew(grace) }

const grace = 30 * time.Second

var renewals = map[string]func(*session.Session){"no grace": renewNow, "grace": renewGrace}

func count(s *session.Session) { nKey.Update(s, next) }

// countOf returns the count of the session that a cookie opens.
func countOf(m *session.Manager, cookie string) int {
	n, _ := nOf(m, cookie)
	return n
}

// timedRun is a subtest with the clock of the vectors.
func timedRun(t *testing.T, name string, test func(t *testing.T)) {
	t.Helper()
	t.Run(name, timed(test))
}

// The browser's cookie lives as long as a session that each request saves by itself: once per
// twentieth of the lifetime it goes with a write of its own.
func TestSaveAndTheCookie(t *testing.T) {
	at(t, frozen, func(t *testing.T) {
		r := newRig(t, expressRecords[0])
		sent := 0
		for range 120 {
			time.Sleep(time.Minute)
			response := r.get(func(s *session.Session) { nKey.Update(s, next); s.SetMaxAge(time.Hour); s.Save() })
			sent += len(response.Cookies())
		}
		if sent < 30 || sent > 60 {
			t.Errorf("%d cookies in two hours", sent)
		}
	})
}
