package expressjs_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/redis/go-redis/v9"
	"github.com/seed-4f96e14b/session"
	"github.com/seed-4f96e14b/session/expressjs"
)

// redisBehaviours are those of connect-redis.
func redisBehaviours() []behaviour {
	return []behaviour{
		{"CR-2", func(t *testing.T) {
			r := newRedis(t)
			for prefix, o := range map[string]expressjs.RedisStore{"sess:": {}, "app[1]:": {Prefix: "app[1]:"}, "": {NoPrefix: true}} {
				t.Run(prefix, func(t *testing.T) {
					r.server.FlushAll()
					site := r.site(t, func(options *expressjs.Options) { options.Store = o })
					b := site.visitor()
					b.get(setUser("u1"))
					expect(t, "keys", fmt.Sprint(r.server.Keys()), "["+prefix+b.sid()+"]")
					n, err := site.Len(t.Context())
					expect(t, "length", fmt.Sprint(n, err), "1 <nil>")
				})
			}
		}},
		{"CR-3", timed(func(t *testing.T) {
			refused("must be whole seconds", func(o *expressjs.Options) { o.Store.TTL = 1500 * time.Millisecond })(t)
			refused("must be positive", func(o *expressjs.Options) { o.Store.TTL = -time.Second })(t)
			for _, tt := range []struct{ ttl, maxAge, want time.Duration }{
				{0, 0, 24 * time.Hour}, {100 * time.Second, 0, 100 * time.Second},
				{100 * time.Second, time.Minute, time.Minute}, {100 * time.Second, time.Hour, time.Hour},
			} {
				site := newSite(t, maxAge(tt.maxAge), func(o *expressjs.Options) { o.Store.TTL = tt.ttl })
				site.visitor().get(setUser("u1"))
				expect(t, fmt.Sprintf("ttl %v, maxAge %v", tt.ttl, tt.maxAge), site.store.ttl, tt.want)
			}
		})},
		{"CR-4", timed(func(t *testing.T) {
			for role, want := range map[string]time.Duration{"admin": time.Minute, "none": time.Second, "odd": 3 * time.Second} {
				site := newSite(t, maxAge(time.Hour), func(o *expressjs.Options) {
					o.Store.TTLFunc = func(values map[string]json.RawMessage) time.Duration {
						return map[string]time.Duration{`"admin"`: time.Minute, `"odd"`: 2500 * time.Millisecond}[string(values["userId"])]
					}
				})
				b := site.visitor()
				expect(t, role+": cookie", attributesOf(sent(t, b.get(setUser(role)))), "; Path=/; Expires=+3600; HttpOnly")
				expect(t, role+": ttl", site.store.ttl, want)
			}
		})},
		{"CR-5", timed(func(t *testing.T) {
			site := newSite(t, rolling, maxAge(time.Minute), func(o *expressjs.Options) { o.Store.DisableTouch = true })
			b := site.visitor()
			b.get(setUser("u1"))
			time.Sleep(50 * time.Second)
			site.store.took()
			response := b.get(func(s *session.Session) { s.Touch(); expect(t, "user", userKey.Get(s), "u1") })
			expect(t, "a read", traced(t, site, response, b.sid()), "L")
			response = b.get(setUser("u2"))
			expect(t, "a write", traced(t, site, response, b.sid()), "L S old+60")
			time.Sleep(time.Minute)
			expect(t, "user a minute after the last write", b.user(), "")
		})},
		{"CR-6", func(t *testing.T) {
			r := newRedis(t)
			site := r.site(t)
			b := site.visitor()
			b.jar["connect.sid"] = signature("forever", siteSecret)
			r.server.Set("sess:forever", expressRecord(0, 0, `,"userId":"u1"`))
			expect(t, "user of a key without a time to live", b.user(), "u1")
			b.get(setUser("u2"))
			expect(t, "time to live after a write", r.server.TTL("sess:forever") > 0, true)
		}},

		{"CC-1", func(t *testing.T) {
			r := newRedis(t)
			site := r.site(t)
			b := site.visitor()
			b.jar["connect.sid"] = signature("some-id", siteSecret)
			for _, nothing := range []string{"", "null", `{"cookie`} {
				r.server.Set("sess:some-id", nothing)
				response := b.get(func(s *session.Session) { expect(t, "keys", len(s.Keys()), 0) })
				expect(t, "status", response.StatusCode, http.StatusOK)
				expect(t, "first command", strings.Fields(r.took())[0], "GET")
			}
			r.server.Del("sess:some-id")
			r.server.Lpush("sess:some-id", "a list")
			expect(t, "status", b.get(readUser).StatusCode, http.StatusOK)
		}},
		{"CC-2", func(t *testing.T) {
			r := newRedis(t)
			site := r.site(t, maxAge(time.Minute))
			b := site.visitor()
			b.get(setUser("u1"))
			key := "sess:" + b.sid()
			expect(t, "commands of a new session", r.took(), "SET NX")
			expect(t, "time to live", r.server.TTL(key), time.Minute)

			r.server.FastForward(30 * time.Second)
			b.get(setUser("u2"))
			expect(t, "commands of a change", r.took(), "GET EVALSHA")
			expect(t, "time to live", r.server.TTL(key), time.Minute)

			b.get(func(s *session.Session) { setUser("u3")(s); r.server.Del(key) })
			expect(t, "a session that ended meanwhile is there again", r.server.Exists(key), false)
		}},
		{"CC-3", timed(func(t *testing.T) {
			store := newRedisMap()
			store.keys["sess:x"] = redisValue{expressRecord(time.Minute, time.Minute, ``), time.Minute}
			site := openSite(t, &session.RedisStore{Client: store}, maxAge(time.Minute))
			b := site.visitor()
			b.jar["connect.sid"] = signature("x", siteSecret)
			time.Sleep(30 * time.Second)
			b.get(readUser)
			expect(t, "end in the record", time.Until(expiresOf(t, site, "x")), time.Minute)
			expect(t, "time to live", store.keys["sess:x"].ttl, time.Minute)
		})},
		{"CC-4", func(t *testing.T) {
			r := newRedis(t)
			b := r.site(t).visitor()
			b.get(setUser("u1"))
			r.took()
			b.get(destroy)
			expect(t, "commands", r.took(), "DEL GET")
			expect(t, "keys", len(r.server.Keys()), 0)
		}},
		{"CC-5", func(t *testing.T) {
			r := newRedis(t)
			site := r.site(t)
			for range 3 {
				site.visitor().get(setUser("u1"))
			}
			r.took()
			n, err := site.Len(t.Context())
			expect(t, "length", fmt.Sprint(n, err), "3 <nil>")
			expect(t, "commands", r.took(), "SCAN")

			b := site.visitor()
			b.get(setUser("u1"))
			b.get(func(s *session.Session) { s.Renew(0) })
			n, err = site.Len(t.Context())
			expect(t, "length with a fourth that was renewed", fmt.Sprint(n, err), "5 <nil>")
			expect(t, "keys", len(r.server.Keys()), 6)
		}},
		{"CC-6", func(t *testing.T) {
			r := newRedis(t)
			site := r.site(t)
			b := site.visitor()
			b.get(setUser("u1"))
			r.server.Set("sess:broken", "no JSON")
			r.took()
			for s, err := range site.All(t.Context()) {
				if err != nil {
					t.Fatal(err)
				}
				expect(t, "a session", s.ID()+userKey.Get(s), b.sid()+"u1")
			}
			expect(t, "commands", r.took(), "SCAN GET GET")
		}},
		{"CC-7", func(t *testing.T) {
			r := newRedis(t)
			site := r.site(t)
			for range 2 {
				site.visitor().get(setUser("u1"))
			}
			r.server.Set("other", "stays")
			r.took()
			if err := site.Clear(t.Context()); err != nil {
				t.Fatal(err)
			}
			expect(t, "commands", r.took(), "SCAN DEL DEL")
			expect(t, "keys", fmt.Sprint(r.server.Keys()), "[other]")
		}},

		{"CQ-1", commands("", false, doNothing)},
		{"CQ-2", commands("SET NX", false, inOrder(regenerate, setUser("u2")))},
		{"CQ-3", func(t *testing.T) {
			t.Run("untouched", commands("", true, doNothing))
			t.Run("read", commands("GET", true, readUser))
			t.Run("read, resave", commands("GET EVALSHA", true, readUser, resave))
		}},
		{"CQ-4", commands("GET EVALSHA", true, setUser("u2"))},
		{"CQ-5", commands("GET EVALSHA", true, save)},
		{"CQ-6", commands("SET NX DEL GET", true, inOrder(regenerate, setUser("u2"), save))},
		{"CQ-7", commands("DEL GET", true, destroy)},
		{"CQ-8", func(t *testing.T) {
			r := newRedis(t)
			b := r.site(t).visitor()
			b.jar["connect.sid"] = signature("nobody", siteSecret)
			b.get(readUser)
			expect(t, "commands", r.took(), "GET")
		}},
		{"CQ-9", func(t *testing.T) {
			r := newRedis(t)
			b := r.site(t).visitor()
			for _, value := range []string{"nobody", "s%3Anobody.x", ""} {
				b.jar["connect.sid"] = value
				b.get(readUser)
			}
			expect(t, "commands", r.took(), "")
		}},

		{"CF-1", func(t *testing.T) {
			r := newRedis(t)
			b := r.site(t).visitor()
			b.get(func(s *session.Session) { nKey.Update(s, next) })
			r.server.SetError("READONLY You can't write against a read only replica.")
			response := b.visit("GET", "/", func(w http.ResponseWriter, r *http.Request) {
				nKey.Update(session.From(r.Context()), next)
				io.WriteString(w, "counted")
			})
			expect(t, "answer", answer(t, response), "503 Service Unavailable")
			r.server.SetError("")
			b.get(func(s *session.Session) { expect(t, "n", nKey.Get(s), 1) })
		}},
		{"CF-2", timed(func(t *testing.T) {
			site := newSite(t)
			b := site.has(t, "found", expressRecord(0, 0, ``), time.Hour)
			hole := make(chan struct{})
			site.store.on("L", func() error { <-hole; return nil })
			start := time.Now()
			expect(t, "status", b.get(readUser).StatusCode, http.StatusServiceUnavailable)
			expect(t, "after", time.Since(start), session.DefaultStoreTimeout)
			close(hole)
		})},
		{"CF-3", func(t *testing.T) {
			r := newRedis(t)
			b := r.site(t).visitor()
			b.get(setUser("u1"))
			r.server.Close()
			start := time.Now()
			expect(t, "status", b.get(readUser).StatusCode, http.StatusServiceUnavailable)
			if waited := time.Since(start); waited > 2*session.DefaultStoreTimeout {
				t.Errorf("waited %v", waited)
			}
		}},
		{"CF-4", func(t *testing.T) {
			r := newRedis(t)
			site := r.site(t)
			r.server.Close()
			expect(t, "untouched", site.visitor().get(doNothing).StatusCode, http.StatusOK)
			expect(t, "read", site.visitor().get(readUser).StatusCode, http.StatusOK)
			response := site.visitor().get(setUser("u1"))
			expect(t, "written", response.StatusCode, http.StatusServiceUnavailable)
			expect(t, "a cookie of nothing", sent(t, response) == nil, true)
		}},
	}
}

// commands makes a request, with a session that was just saved or without, and looks at
// what goes to Redis.
func commands(want string, found bool, do func(*session.Session), change ...func(*expressjs.Options)) func(t *testing.T) {
	return func(t *testing.T) {
		r := newRedis(t)
		b := r.site(t, change...).visitor()
		if found {
			b.get(setUser("u1"))
			r.took()
		}
		b.get(do)
		expect(t, "commands", r.took(), want)
	}
}

// A countedRedis writes down the commands that it gets.
type countedRedis struct {
	server *miniredis.Miniredis
	client *redis.Client
	mu     sync.Mutex
	names  []string
}

func newRedis(t *testing.T) *countedRedis {
	r := &countedRedis{server: miniredis.RunT(t)}
	r.client = redis.NewClient(&redis.Options{Addr: r.server.Addr(), MaxRetries: -1, DialerRetries: 1, DisableIdentity: true})
	t.Cleanup(func() { r.client.Close() })
	if err := r.client.Ping(t.Context()).Err(); err != nil {
		t.Fatal(err)
	}
	r.client.AddHook(r)
	return r
}

// site returns a site with its sessions in this Redis, its script loaded.
func (r *countedRedis) site(t *testing.T, change ...func(*expressjs.Options)) *site {
	t.Helper()
	options := expressjs.Options{Secrets: []string{siteSecret}}
	for _, f := range change {
		f(&options)
	}
	options.Store.Client = r.client
	all, err := options.Session()
	if err != nil {
		t.Fatal(err)
	}
	s := &site{store: &spyStore{Store: all.Store}, log: new(logPages)}
	all.Logger = slog.New(slog.NewTextHandler(s.log, nil))
	if s.Manager, err = newManager(t, all); err != nil {
		t.Fatal(err)
	}
	b := s.visitor()
	b.get(setUser("first"))
	b.get(setUser("second"))
	b.get(destroy)
	r.took()
	return s
}

func (r *countedRedis) took() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	names := slices.Clone(r.names)
	r.names = nil
	return strings.Join(names, " ")
}

func (r *countedRedis) DialHook(next redis.DialHook) redis.DialHook { return next }
func (r *countedRedis) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return next
}
func (r *countedRedis) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error {
		name := strings.ToUpper(cmd.Name())
		if args := fmt.Sprint(cmd.Args()...); name == "SET" && strings.HasSuffix(strings.ToUpper(args), "NX") {
			name = "SET NX"
		}
		r.mu.Lock()
		r.names = append(r.names, name)
		r.mu.Unlock()
		return next(ctx, cmd)
	}
}
