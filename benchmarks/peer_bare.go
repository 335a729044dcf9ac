package main

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"
)

// The floors: no session at all, and the fewest commands of go-redis that a workload can do
// with, without a library, a signature or a value decoded.
var _ = register(
	Peer{Name: "bare", Kind: None, Open: func(Env) App {
		app := App{HTTP: make(map[Workload]http.Handler), Close: func() {}}
		for _, work := range Workloads {
			app.HTTP[work] = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { answer(w, true) })
		}
		return app
	}},
	Peer{Name: "limit/redis", Kind: Redis, Open: openLimit},
)

func openLimit(env Env) App {
	client := redis.NewClient(&redis.Options{Addr: env.Redis})
	record := fmt.Sprintf(`{"userId":%d,"email":%q,"role":%q,"cart":["%s"]}`, userID, email, role, strings.Join(cart, `","`))
	var last atomic.Int64
	key := func(r *http.Request) string { // as cheap as it gets
		_, id, _ := strings.Cut(r.Header.Get("Cookie"), "sid=")
		return "limit:" + id
	}
	get := func(w http.ResponseWriter, r *http.Request) {
		data, err := client.Get(r.Context(), key(r)).Result()
		answer(w, err == nil && data != "")
	}
	set := func(ctx context.Context, key string) error {
		return client.Set(ctx, key, record, cookieLife*time.Second).Err()
	}
	handlers := map[Workload]http.HandlerFunc{
		Untouched: func(w http.ResponseWriter, r *http.Request) { answer(w, true) },
		Anonymous: func(w http.ResponseWriter, r *http.Request) { answer(w, r.Header.Get("Cookie") == "") },
		Read:      get,
		Sliding: func(w http.ResponseWriter, r *http.Request) {
			data, err := client.GetEx(r.Context(), key(r), idle*time.Second).Result()
			answer(w, err == nil && data != "")
		},
		Write: func(w http.ResponseWriter, r *http.Request) {
			_, err := client.Get(r.Context(), key(r)).Result()
			answer(w, err == nil && set(r.Context(), key(r)) == nil)
		},
		Equal: get,
		Login: func(w http.ResponseWriter, r *http.Request) {
			id := fmt.Sprintf("%043d", last.Add(1))
			w.Header().Set("Set-Cookie", "sid="+id+"; Path=/; HttpOnly; SameSite=Lax")
			answer(w, set(r.Context(), "limit:"+id) == nil)
		},
	}
	app := App{HTTP: make(map[Workload]http.Handler), Close: func() { client.Close() }}
	for work, handler := range handlers {
		app.HTTP[work] = handler
	}
	return app
}
