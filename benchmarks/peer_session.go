package main

import (
	"io"
	"net/http"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/seed-4f96e14b/session"
)

const (
	userIDKey session.Key[int64]    = "userId"
	emailKey  session.Key[string]   = "email"
	roleKey   session.Key[string]   = "role"
	cartKey   session.Key[[]string] = "cart"
	countKey  session.Key[int]      = "count"
)

// refused is why the peers whose client pipelines by itself or caches are not run.
const refused = "session.New refuses a client that may cache, because it may not have heard of a logout"

// unheard is for how long a RedisStore whose client may cache did not rely on that for
// what it had written itself.
const unheard = 2500 * time.Millisecond

var _ = register(
	Peer{Name: "session/memory", Kind: Memory, Open: func(env Env) App {
		return openSession(env, new(session.MemoryStore), func() {})
	}},
	Peer{Name: "session/redis", Kind: Redis, Open: func(env Env) App {
		client := redis.NewClient(&redis.Options{Addr: env.Redis})
		return openSession(env, &session.RedisStore{Client: client}, func() { client.Close() })
	}},
	Peer{Name: "session/redis-autopipe", Kind: Redis, Skipped: refused, Settles: unheard, Open: func(env Env) App {
		return openPipelined(env, redis.DefaultBlockingAutoPipelineOptions())
	}},
	Peer{Name: "session/redis-fullduplex", Kind: Redis, Skipped: refused, Settles: unheard, Open: func(env Env) App {
		options := redis.DefaultBlockingAutoPipelineOptions()
		options.FullDuplex = true
		return openPipelined(env, options)
	}},
	Peer{Name: "session/redis-cached", Kind: Redis, Skipped: refused, Settles: unheard, Open: func(env Env) App {
		client := redis.NewClient(&redis.Options{
			Addr: env.Redis, Protocol: 3,
			ClientSideCacheConfig: &redis.ClientSideCacheConfig{MaxEntries: 100_000, MaxStaleness: 10 * time.Second},
		})
		return openSession(env, &session.RedisStore{Client: client}, func() { client.Close() })
	}},
)

// openPipelined sends the commands of many requests in one write.
func openPipelined(env Env, options *redis.AutoPipelineOptions) App {
	client := redis.NewClient(&redis.Options{Addr: env.Redis})
	pipeliner, err := client.AutoPipelineWithOptions(options)
	if err != nil {
		panic(err)
	}
	return openSession(env, &session.RedisStore{Client: pipeliner}, func() {
		pipeliner.Close()
		client.Close()
	})
}

func openSession(env Env, store session.Store, closeStore func()) App {
	options := session.Options{
		Store:   store,
		Secrets: []string{secret},
		Cookie:  session.Cookie{Name: "sid", MaxAge: cookieLife * time.Second, Insecure: true},
	}
	if env.Sliding {
		options.IdleTimeout = idle * time.Second
	}
	return sessionApp(newManager(options), closeStore)
}

func newManager(options session.Options) *session.Manager {
	sessions, err := session.New(options)
	if err != nil {
		panic(err)
	}
	return sessions
}

func sessionApp(sessions *session.Manager, closeStore func()) App {
	read := func(w http.ResponseWriter, r *http.Request) {
		answer(w, userIDKey.Get(session.From(r.Context())) == userID)
	}
	handlers := map[Workload]http.HandlerFunc{
		Untouched: func(w http.ResponseWriter, r *http.Request) { answer(w, true) },
		Anonymous: func(w http.ResponseWriter, r *http.Request) {
			answer(w, !userIDKey.Has(session.From(r.Context())))
		},
		Read:    read,
		Sliding: read,
		Write: func(w http.ResponseWriter, r *http.Request) {
			countKey.Update(session.From(r.Context()), func(n int) int { return n + 1 })
			answer(w, true)
		},
		Equal: func(w http.ResponseWriter, r *http.Request) {
			roleKey.Set(session.From(r.Context()), role)
			answer(w, true)
		},
		Login: func(w http.ResponseWriter, r *http.Request) {
			s := session.From(r.Context())
			s.Regenerate()
			userIDKey.Set(s, userID)
			emailKey.Set(s, email)
			roleKey.Set(s, role)
			cartKey.Set(s, cart)
			answer(w, true)
		},
		Show: func(w http.ResponseWriter, r *http.Request) {
			s := session.From(r.Context())
			show(w, Values{userIDKey.Get(s), emailKey.Get(s), roleKey.Get(s), cartKey.Get(s), countKey.Get(s)})
		},
	}
	app := App{HTTP: make(map[Workload]http.Handler), Close: closeStore}
	for work, handler := range handlers {
		app.HTTP[work] = sessions.Handler(handler)
	}
	return app
}

// answer is what every handler of net/http ends with.
func answer(w http.ResponseWriter, ok bool) {
	if !ok {
		w.WriteHeader(http.StatusInternalServerError)
	}
	io.WriteString(w, "ok\n")
}
