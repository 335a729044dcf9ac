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

var _ = register(
	Peer{Name: "session/memory", Kind: Memory, Open: func(env Env) App {
		return openSession(env, new(session.MemoryStore), func() {})
	}},
	Peer{Name: "session/redis", Kind: Redis, Open: func(env Env) App {
		client := redis.NewClient(&redis.Options{Addr: env.Redis})
		return openSession(env, &session.RedisStore{Client: client}, func() { client.Close() })
	}},
)

func openSession(env Env, store session.Store, closeStore func()) App {
	options := session.Options{
		Store:   store,
		Secrets: []string{secret},
		Cookie:  session.Cookie{Name: "sid", MaxAge: cookieLife * time.Second, Insecure: true},
	}
	if env.Sliding {
		options.IdleTimeout = idle * time.Second
	}
	sessions, err := session.New(options)
	if err != nil {
		panic(err)
	}
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
