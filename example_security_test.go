package session_test

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/seed-4f96e14b/session"
)

// These programs are the recipes of docs/security.md for what the application does.

// A new password ends all other sessions of the user. Every request compares the version of the
// credential. So a session that a login is just beginning ends too, and one that is in no list.
func Example_endOtherSessions() {
	const (
		userIDKey  session.Key[int64] = "userId"
		versionKey session.Key[int64] = "credentialVersion"
	)
	var version atomic.Int64 // of the one user of this example: a column beside the password

	sessions, _ := session.New(session.Options{Secrets: []string{exampleSecret}})
	mux := http.NewServeMux()
	mux.HandleFunc("/login", func(w http.ResponseWriter, r *http.Request) {
		checked := version.Load() // read together with the password that is then checked
		s := session.From(r.Context())
		s.Regenerate()
		userIDKey.Set(s, 42)
		versionKey.Set(s, checked)
	})
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		s := session.From(r.Context())
		if !userIDKey.Has(s) || versionKey.Get(s) != version.Load() {
			http.Error(w, "not logged in", http.StatusUnauthorized)
			return
		}
		fmt.Fprintf(w, "hello, user %d", userIDKey.Get(s))
	})
	mux.HandleFunc("/password", func(w http.ResponseWriter, r *http.Request) {
		s := session.From(r.Context())
		changed := version.Add(1) // in the transaction that stores the new password
		s.Renew(0)                // another credential, another cookie
		versionKey.Set(s, changed)
		for other, err := range sessions.All(r.Context()) {
			if err == nil && userIDKey.Get(other) == 42 && other.ID() != s.ID() {
				err = sessions.Destroy(r.Context(), other.ID())
			}
			if err != nil {
				log.Print(err) // the version has ended them already
				return
			}
		}
	})

	phone, done := browser(sessions.Handler(mux))
	defer done()
	laptop, done := browser(sessions.Handler(mux))
	defer done()
	phone("/login")
	laptop("/login")
	laptop("/password")
	fmt.Println("phone:", phone("/"))
	fmt.Println("laptop:", laptop("/"))
	// Output:
	// phone: not logged in
	// laptop: hello, user 42
}

// At most two sessions for a user: a third login ends the oldest. The ids are kept with the
// user, in the application's own database, so that nothing has to search the sessions. The
// application can show the user this list, to end one of them: an id is not a secret.
func Example_limitOfSessions() {
	const limit = 2
	const userIDKey session.Key[int64] = "userId"
	var mu sync.Mutex // a transaction, in a database
	sessionsOf := make(map[int64][]string)

	sessions, _ := session.New(session.Options{Secrets: []string{exampleSecret}})
	mux := http.NewServeMux()
	mux.HandleFunc("/login", func(w http.ResponseWriter, r *http.Request) {
		s := session.From(r.Context())
		s.Regenerate()
		userIDKey.Set(s, 42)
		if s.Save() != nil { // before it is counted
			return
		}
		mu.Lock()
		defer mu.Unlock()
		ids := append(sessionsOf[42], s.ID())
		for len(ids) > limit {
			if err := sessions.Destroy(r.Context(), ids[0]); err != nil {
				s.Destroy() // without room for it, there is no login
				http.Error(w, "try again later", http.StatusServiceUnavailable)
				return
			}
			ids = ids[1:]
		}
		sessionsOf[42] = ids
	})
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprint(w, "user ", userIDKey.Get(session.From(r.Context())))
	})

	devices := make([]func(path string) string, 3)
	for i := range devices {
		get, done := browser(sessions.Handler(mux))
		defer done()
		devices[i] = get
		get("/login")
	}
	for _, get := range devices {
		fmt.Println(get("/"))
	}
	// Output:
	// user 0
	// user 42
	// user 42
}

// A user who changes the email address must have entered the password within the last five
// minutes. A value of the session says when that was.
func Example_reauthentication() {
	const authenticatedKey session.Key[time.Time] = "authenticatedAt"
	now := time.Now() // time.Now(), where no example has to pass the time

	sessions, _ := session.New(session.Options{Secrets: []string{exampleSecret}})
	mux := http.NewServeMux()
	mux.HandleFunc("/login", func(w http.ResponseWriter, r *http.Request) {
		s := session.From(r.Context())
		s.Regenerate()
		authenticatedKey.Set(s, now)
	})
	mux.HandleFunc("/confirm", func(w http.ResponseWriter, r *http.Request) { // with the password again
		s := session.From(r.Context())
		s.Renew(0) // ASVS 7.2.4: another cookie also now
		authenticatedKey.Set(s, now)
	})
	mux.HandleFunc("/email", func(w http.ResponseWriter, r *http.Request) {
		if at, ok := authenticatedKey.Lookup(session.From(r.Context())); !ok || now.Sub(at) > 5*time.Minute {
			http.Error(w, "enter your password", http.StatusUnauthorized)
			return
		}
		fmt.Fprint(w, "changed")
	})

	get, done := browser(sessions.Handler(mux))
	defer done()
	get("/login")
	fmt.Println(get("/email"))
	now = now.Add(10 * time.Minute)
	fmt.Println(get("/email"))
	get("/confirm")
	fmt.Println(get("/email"))
	// Output:
	// changed
	// enter your password
	// changed
}

// A logout also tells the browser to forget what it has of the site. If the logout fails,
// the header goes with the rest of the response.
func Example_clearSiteData() {
	sessions, _ := session.New(session.Options{Secrets: []string{exampleSecret}})
	logout := sessions.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		session.From(r.Context()).Destroy()
		w.Header().Set("Clear-Site-Data", `"cache", "cookies", "storage"`)
		w.WriteHeader(http.StatusNoContent)
	}))
	w := httptest.NewRecorder()
	logout.ServeHTTP(w, httptest.NewRequest("POST", "https://example.com/logout", nil))
	fmt.Println(w.Code, w.Header().Get("Clear-Site-Data"))
	// Output:
	// 204 "cache", "cookies", "storage"
}

// Requests that another site makes in the user's name are refused before a session is looked
// at. SameSite is the second line: it does not stop a sibling subdomain.
func Example_crossOriginProtection() {
	const balanceKey session.Key[int] = "balance"
	sessions, _ := session.New(session.Options{Secrets: []string{exampleSecret}})
	transfer := func(w http.ResponseWriter, r *http.Request) {
		balanceKey.Update(session.From(r.Context()), func(n int) int { return n - 1 })
	}
	handler := http.NewCrossOriginProtection().Handler(sessions.Handler(http.HandlerFunc(transfer)))
	for _, from := range []string{"same-origin", "same-site", "cross-site"} {
		w := httptest.NewRecorder()
		r := httptest.NewRequest("POST", "https://example.com/transfer", nil)
		r.Header.Set("Sec-Fetch-Site", from)
		handler.ServeHTTP(w, r)
		fmt.Println(from, w.Code)
	}
	// Output:
	// same-origin 200
	// same-site 403
	// cross-site 403
}

// A session is bound to properties of the client, whose change is a weak sign of theft: a client
// with others is logged out. An update of the browser does that too, so take what seldom changes.
func Example_bindToClient() {
	const clientKey session.Key[[]byte] = "client"
	client := func(r *http.Request) []byte {
		sum := sha256.Sum256([]byte(r.Header.Get("Sec-CH-UA-Platform") + "\n" + r.Header.Get("Accept-Language")))
		return sum[:]
	}
	bound := func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			s := session.From(r.Context())
			if at, ok := clientKey.Lookup(s); ok && !bytes.Equal(at, client(r)) {
				log.Printf("session %s: another client", s.ID())
				s.Destroy()
				http.Error(w, "log in again", http.StatusUnauthorized)
				return
			}
			next.ServeHTTP(w, r)
		})
	}

	log.SetOutput(io.Discard)
	defer log.SetOutput(os.Stderr)
	sessions, _ := session.New(session.Options{Secrets: []string{exampleSecret}})
	mux := http.NewServeMux()
	mux.HandleFunc("/login", func(w http.ResponseWriter, r *http.Request) {
		s := session.From(r.Context())
		s.Regenerate()
		clientKey.Set(s, client(r))
	})
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, "hello") })
	handler := sessions.Handler(bound(mux))

	var cookie string
	request := func(path, language string) {
		w := httptest.NewRecorder()
		r := httptest.NewRequest("GET", "https://example.com"+path, nil)
		r.Header.Set("Accept-Language", language)
		r.Header.Set("Cookie", cookie)
		handler.ServeHTTP(w, r)
		if path == "/login" {
			cookie, _, _ = strings.Cut(w.Header().Get("Set-Cookie"), ";")
		}
		fmt.Println(language, w.Code)
	}
	request("/login", "de")
	request("/", "de")
	request("/", "en")
	// Output:
	// de 200
	// de 200
	// en 401
}
