package main

import (
	"net/http"

	"github.com/boj/redistore"
	"github.com/gorilla/sessions"
	"github.com/quasoft/memstore"
)

var _ = register(
	Peer{Name: "gorilla/memory", Kind: Memory, Open: func(Env) App {
		store := memstore.NewMemStore([]byte(secret))
		store.MaxAge(cookieLife)
		return openGorilla(store, func() {})
	}},
	Peer{Name: "gorilla/redis", Kind: Redis, Open: func(env Env) App {
		store, err := redistore.NewRediStore(connections, "tcp", env.Redis, "", "", []byte(secret))
		if err != nil {
			panic(err)
		}
		store.SetMaxAge(cookieLife)
		return openGorilla(store, func() { store.Close() })
	}},
	Peer{Name: "gorilla/cookie", Kind: Cookie, Open: func(Env) App {
		store := sessions.NewCookieStore([]byte(secret))
		store.MaxAge(cookieLife)
		return openGorilla(store, func() {})
	}},
)

// openGorilla has no use for Env.Sliding: gorilla prolongs a session by saving it.
func openGorilla(store sessions.Store, closeStore func()) App {
	load := func(r *http.Request) *sessions.Session {
		s, _ := store.Get(r, "sid") // on an error it is a new one
		return s
	}
	handlers := map[Workload]http.HandlerFunc{
		Untouched: func(w http.ResponseWriter, r *http.Request) { answer(w, true) },
		Anonymous: func(w http.ResponseWriter, r *http.Request) {
			answer(w, load(r).Values["userId"] == nil)
		},
		Read: func(w http.ResponseWriter, r *http.Request) {
			answer(w, load(r).Values["userId"] == userID)
		},
		Sliding: func(w http.ResponseWriter, r *http.Request) {
			s := load(r)
			answer(w, s.Save(r, w) == nil && s.Values["userId"] == userID)
		},
		Write: func(w http.ResponseWriter, r *http.Request) {
			s := load(r)
			count, _ := s.Values["count"].(int)
			s.Values["count"] = count + 1
			answer(w, s.Save(r, w) == nil)
		},
		Equal: func(w http.ResponseWriter, r *http.Request) {
			s := load(r)
			s.Values["role"] = role
			answer(w, s.Save(r, w) == nil)
		},
		Login: func(w http.ResponseWriter, r *http.Request) {
			s := load(r)
			s.ID = "" // Save makes a new one
			s.Values["userId"] = userID
			s.Values["email"] = email
			s.Values["role"] = role
			s.Values["cart"] = cart
			answer(w, s.Save(r, w) == nil)
		},
		Show: func(w http.ResponseWriter, r *http.Request) {
			values := load(r).Values
			show(w, untyped(func(key string) any { return values[key] }))
		},
	}
	app := App{HTTP: make(map[Workload]http.Handler), Close: closeStore}
	for work, handler := range handlers {
		app.HTTP[work] = handler
	}
	return app
}
