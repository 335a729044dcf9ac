package main

import (
	"net/http"
	"time"

	"github.com/alexedwards/scs/goredisstore"
	"github.com/alexedwards/scs/v2"
	"github.com/alexedwards/scs/v2/memstore"
	"github.com/redis/go-redis/v9"
)

var _ = register(
	Peer{Name: "scs/memory", Kind: Memory, Open: func(env Env) App {
		// Without the goroutine that removes what has expired: to stop it is a data race.
		return openSCS(env, memstore.NewWithCleanupInterval(0), func() {})
	}},
	Peer{Name: "scs/redis", Kind: Redis, Open: func(env Env) App {
		client := redis.NewClient(&redis.Options{Addr: env.Redis})
		return openSCS(env, goredisstore.New(client), func() { client.Close() })
	}},
)

func openSCS(env Env, store scs.Store, closeStore func()) App {
	manager := scs.New()
	manager.Store = store
	manager.Lifetime = cookieLife * time.Second
	manager.Cookie.Name = "sid"
	if env.Sliding {
		manager.IdleTimeout = idle * time.Second
	}
	read := func(w http.ResponseWriter, r *http.Request) {
		answer(w, manager.GetInt64(r.Context(), "userId") == userID)
	}
	handlers := map[Workload]http.HandlerFunc{
		Untouched: func(w http.ResponseWriter, r *http.Request) { answer(w, true) },
		Anonymous: func(w http.ResponseWriter, r *http.Request) {
			answer(w, manager.GetInt64(r.Context(), "userId") == 0)
		},
		Read:    read,
		Sliding: read,
		Write: func(w http.ResponseWriter, r *http.Request) {
			manager.Put(r.Context(), "count", manager.GetInt(r.Context(), "count")+1)
			answer(w, true)
		},
		Equal: func(w http.ResponseWriter, r *http.Request) {
			manager.Put(r.Context(), "role", role)
			answer(w, true)
		},
		Login: func(w http.ResponseWriter, r *http.Request) {
			err := manager.RenewToken(r.Context())
			manager.Put(r.Context(), "userId", userID)
			manager.Put(r.Context(), "email", email)
			manager.Put(r.Context(), "role", role)
			manager.Put(r.Context(), "cart", cart)
			answer(w, err == nil)
		},
		Show: func(w http.ResponseWriter, r *http.Request) {
			ctx := r.Context()
			cart, _ := manager.Get(ctx, "cart").([]string)
			show(w, Values{manager.GetInt64(ctx, "userId"), manager.GetString(ctx, "email"),
				manager.GetString(ctx, "role"), cart, manager.GetInt(ctx, "count")})
		},
	}
	app := App{HTTP: make(map[Workload]http.Handler), Close: closeStore}
	for work, handler := range handlers {
		app.HTTP[work] = manager.LoadAndSave(handler)
	}
	return app
}
