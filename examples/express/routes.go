package main

import (
	"encoding/json"
	"log"
	"net/http"
	"net/http/httputil"
	"net/url"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/seed-4f96e14b/session"
	"github.com/seed-4f96e14b/session/expressjs"
)

// newHandler returns the whole service: some routes have moved, and the rest has not.
func newHandler(sessions *session.Manager, express *url.URL, production bool) http.Handler {
	mux := http.NewServeMux()

	// First everything goes to Express, which sees to the sessions of its own routes.
	mux.Handle("/", proxyTo(express, production))

	// Then one route after the other moves. Without its line, a route is back in Express.
	crossOrigin := http.NewCrossOriginProtection()
	moved := func(pattern string, handler http.HandlerFunc) {
		mux.Handle(pattern, crossOrigin.Handler(sessions.Handler(handler)))
	}
	moved("GET /account", showAccount)
	moved("POST /account", changeAccount)
	return mux
}

func proxyTo(express *url.URL, production bool) http.Handler {
	return &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) {
			r.SetURL(express)
			r.Out.Host = r.In.Host // Express is to see what it saw before
			r.Out.Header["X-Forwarded-For"] = r.In.Header["X-Forwarded-For"]
			r.SetXForwarded()
			if production {
				r.Out.Header.Set("X-Forwarded-Proto", "https")
			}
		},
		ErrorHandler: func(w http.ResponseWriter, r *http.Request, err error) {
			log.Print("express: ", err)
			reply(w, http.StatusBadGateway, failure{"the Express app does not answer"})
		},
	}
}

// sessionOptions are those of session({...}) in node/app.js, in the same order.
func sessionOptions(secrets []string, client *redis.Client, production bool) expressjs.Options {
	return expressjs.Options{
		Secrets: secrets,
		Name:    "shop.sid",
		Cookie:  expressjs.Cookie{MaxAge: 7 * 24 * time.Hour, SameSite: "lax", Secure: production},
		Rolling: true,
		Store:   expressjs.RedisStore{Client: client, Prefix: "shop:"},
	}
}

// What a session holds, under the names that Express gives it.
const (
	userKey  session.Key[user]   = "user"
	themeKey session.Key[string] = "theme"
)

type user struct {
	ID   int64  `json:"id"`
	Name string `json:"name"`
}

type account struct {
	Name  string `json:"name"`
	Theme string `json:"theme"`
	From  string `json:"from"`
}

func showAccount(w http.ResponseWriter, r *http.Request) {
	s := session.From(r.Context())
	user, ok := userKey.Lookup(s)
	if !ok {
		reply(w, http.StatusUnauthorized, failure{"not logged in"})
		return
	}
	theme, ok := themeKey.Lookup(s)
	if !ok {
		theme = "light"
	}
	reply(w, http.StatusOK, account{user.Name, theme, "Go"})
}

func changeAccount(w http.ResponseWriter, r *http.Request) {
	s := session.From(r.Context())
	if !userKey.Has(s) {
		reply(w, http.StatusUnauthorized, failure{"not logged in"})
		return
	}
	var change struct{ Theme string }
	err := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxBody)).Decode(&change)
	if err != nil || change.Theme != "light" && change.Theme != "dark" {
		reply(w, http.StatusBadRequest, failure{"the theme is light or dark"})
		return
	}
	themeKey.Set(s, change.Theme)
	showAccount(w, r)
}

const maxBody = 64 << 10

type failure struct {
	Error string `json:"error"`
}

func reply(w http.ResponseWriter, status int, body any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(body) // the client may have left
}
