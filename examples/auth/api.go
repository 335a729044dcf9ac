package main

import (
	"context"
	"encoding/json"
	"net/http"
	"slices"

	"github.com/seed-4f96e14b/session"
)

// What a session holds.
const (
	userIDKey session.Key[int64]  = "userId"
	emailKey  session.Key[string] = "email"
	roleKey   session.Key[string] = "role"
)

// newHandler returns the whole service. The cross-origin protection is outermost, so that a
// forged request is refused before a session is loaded.
func newHandler(sessions *session.Manager, users *users) http.Handler {
	api := &api{users}
	mux := http.NewServeMux()
	mux.HandleFunc("POST /login", api.login)
	mux.HandleFunc("POST /logout", api.logout)
	mux.Handle("GET /me", requireSession(api.me))
	mux.Handle("PATCH /session", requireSession(api.changeRole))
	return http.NewCrossOriginProtection().Handler(sessions.Handler(mux))
}

type api struct {
	users *users
}

func (a *api) login(w http.ResponseWriter, r *http.Request) {
	var credentials struct{ Email, Password string }
	if !readJSON(w, r, &credentials) {
		return
	}
	user, ok := a.users.check(credentials.Email, credentials.Password)
	if !ok {
		reply(w, http.StatusUnauthorized, failure{"wrong email or password"})
		return
	}
	s := session.From(r.Context())
	s.Regenerate() // a new session: whatever cookie came with the request is worth nothing now
	userIDKey.Set(s, user.ID)
	emailKey.Set(s, user.Email)
	roleKey.Set(s, user.Roles[0])
	reply(w, http.StatusOK, current(s))
}

func (a *api) logout(w http.ResponseWriter, r *http.Request) {
	// If this fails, the session package answers with an error, whatever we write.
	_ = session.From(r.Context()).Destroy()
	w.WriteHeader(http.StatusNoContent)
}

func (a *api) me(w http.ResponseWriter, r *http.Request) {
	reply(w, http.StatusOK, userFrom(r.Context()))
}

// changeRole lets users take another of their roles.
func (a *api) changeRole(w http.ResponseWriter, r *http.Request) {
	var change struct{ Role string }
	if !readJSON(w, r, &change) {
		return
	}
	if !slices.Contains(a.users.roles(userFrom(r.Context()).ID), change.Role) {
		reply(w, http.StatusForbidden, failure{"you do not have that role"})
		return
	}
	s := session.From(r.Context())
	s.Renew(0) // other rights, another cookie
	roleKey.Set(s, change.Role)
	reply(w, http.StatusOK, current(s))
}

// A currentUser is who is logged in, as the session says.
type currentUser struct {
	ID    int64  `json:"userId"`
	Email string `json:"email"`
	Role  string `json:"role"`
}

func current(s *session.Session) currentUser {
	return currentUser{userIDKey.Get(s), emailKey.Get(s), roleKey.Get(s)}
}

type userContextKey struct{}

func userFrom(ctx context.Context) currentUser {
	user, _ := ctx.Value(userContextKey{}).(currentUser)
	return user
}

// requireSession puts the user of the session on the request, and answers 401 if
// nobody is logged in.
func requireSession(next http.HandlerFunc) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s := session.From(r.Context())
		if !userIDKey.Has(s) {
			reply(w, http.StatusUnauthorized, failure{"not logged in"})
			return
		}
		next(w, r.WithContext(context.WithValue(r.Context(), userContextKey{}, current(s))))
	})
}

type failure struct {
	Error string `json:"error"`
}

func reply(w http.ResponseWriter, status int, body any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(body) // the client may have left
}

const maxBody = 64 << 10

func readJSON(w http.ResponseWriter, r *http.Request, v any) bool {
	if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxBody)).Decode(v); err != nil {
		reply(w, http.StatusBadRequest, failure{"the body is not the JSON that this path takes"})
		return false
	}
	return true
}
