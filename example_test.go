package session_test

import (
	"context"
	"fmt"
	"io"
	"log"
	"log/slog"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/seed-4f96e14b/session"
)

// The secret of a real program comes from its environment, and from
// openssl rand -base64 32.
const exampleSecret = "32 bytes or more, only for this example"

// browser returns a client that keeps cookies, and a server that runs the handler.
func browser(handler http.Handler) (get func(path string) string, done func()) {
	server := httptest.NewUnstartedServer(handler)
	server.Config.ErrorLog = log.New(io.Discard, "", 0)
	server.StartTLS()
	client := server.Client()
	client.Jar, _ = cookiejar.New(nil)
	get = func(path string) string {
		response, err := client.Get(server.URL + path)
		if err != nil {
			return err.Error()
		}
		defer response.Body.Close()
		body, _ := io.ReadAll(response.Body)
		return strings.TrimSpace(string(body))
	}
	return get, server.Close
}

// The smallest program: a counter for each visitor.
func Example() {
	const viewsKey session.Key[int] = "views"

	sessions, err := session.New(session.Options{Secrets: []string{exampleSecret}})
	if err != nil {
		fmt.Println(err)
		return
	}
	home := func(w http.ResponseWriter, r *http.Request) {
		s := session.From(r.Context())
		viewsKey.Update(s, func(n int) int { return n + 1 })
		fmt.Fprintf(w, "views: %d\n", viewsKey.Get(s))
	}

	get, done := browser(sessions.Handler(http.HandlerFunc(home)))
	defer done()
	fmt.Println(get("/"))
	fmt.Println(get("/"))
	// Output:
	// views: 1
	// views: 2
}

// A login begins a new session, so that a cookie which an attacker has planted in the browser
// is worthless.
func ExampleSession_Regenerate() {
	const userIDKey session.Key[int64] = "userId"

	sessions, _ := session.New(session.Options{Secrets: []string{exampleSecret}})
	mux := http.NewServeMux()
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		s := session.From(r.Context())
		fmt.Fprintf(w, "user %d, cart %q", userIDKey.Get(s), listKey.Get(s))
	})
	mux.HandleFunc("/cart", func(w http.ResponseWriter, r *http.Request) {
		listKey.Set(session.From(r.Context()), []string{"tea"})
	})
	mux.HandleFunc("/login", func(w http.ResponseWriter, r *http.Request) {
		s := session.From(r.Context())
		cart := listKey.Get(s) // what is to be kept has to be carried over
		s.Regenerate()
		listKey.Set(s, cart)
		userIDKey.Set(s, 42)
	})

	get, done := browser(sessions.Handler(mux))
	defer done()
	get("/cart")
	fmt.Println(get("/"))
	get("/login")
	fmt.Println(get("/"))
	// Output:
	// user 0, cart ["tea"]
	// user 42, cart ["tea"]
}

// A logout deletes the record and the cookie. If it fails, the response is an error, whatever
// the handler does.
func ExampleSession_Destroy() {
	sessions, _ := session.New(session.Options{Secrets: []string{exampleSecret}})
	mux := http.NewServeMux()
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, "hello %q", nameKey.Get(session.From(r.Context())))
	})
	mux.HandleFunc("/login", func(w http.ResponseWriter, r *http.Request) {
		s := session.From(r.Context())
		s.Regenerate()
		nameKey.Set(s, "Ada")
	})
	mux.HandleFunc("/logout", func(w http.ResponseWriter, r *http.Request) {
		session.From(r.Context()).Destroy()
	})

	get, done := browser(sessions.Handler(mux))
	defer done()
	get("/login")
	fmt.Println(get("/"))
	get("/logout")
	fmt.Println(get("/"))
	// Output:
	// hello "Ada"
	// hello ""
}

// A flash message is shown once.
func ExampleKey_Pop() {
	const flashKey session.Key[string] = "flash"

	sessions, _ := session.New(session.Options{Secrets: []string{exampleSecret}})
	mux := http.NewServeMux()
	mux.HandleFunc("/save", func(w http.ResponseWriter, r *http.Request) {
		flashKey.Set(session.From(r.Context()), "Saved.")
		http.Redirect(w, r, "/", http.StatusSeeOther)
	})
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		if message, ok := flashKey.Pop(session.From(r.Context())); ok {
			fmt.Fprint(w, message, " ")
		}
		fmt.Fprint(w, "Welcome.")
	})

	get, done := browser(sessions.Handler(mux))
	defer done()
	fmt.Println(get("/save"))
	fmt.Println(get("/"))
	// Output:
	// Saved. Welcome.
	// Welcome.
}

// Update counts every request, even if many change one session at once.
func ExampleKey_Update() {
	const viewsKey session.Key[int] = "views"

	sessions, _ := session.New(session.Options{Secrets: []string{exampleSecret}})
	get, done := browser(sessions.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s := session.From(r.Context())
		viewsKey.Update(s, func(n int) int { return n + 1 })
		fmt.Fprint(w, viewsKey.Get(s))
	})))
	defer done()
	get("/") // the first request gets the cookie
	var wg sync.WaitGroup
	for range 50 {
		wg.Go(func() { get("/") })
	}
	wg.Wait()
	fmt.Println(get("/"))
	// Output:
	// 52
}

// To test a handler that needs a login, put one before it.
func ExampleManager_Handler() {
	profile := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, "hello %s", nameKey.Get(session.From(r.Context())))
	})

	sessions, _ := session.New(session.Options{Secrets: []string{exampleSecret}})
	loggedIn := sessions.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		nameKey.Set(session.From(r.Context()), "Ada")
		profile.ServeHTTP(w, r)
	}))
	w := httptest.NewRecorder()
	loggedIn.ServeHTTP(w, httptest.NewRequest("GET", "https://example.com/profile", nil))
	fmt.Println(w.Body)
	// Output:
	// hello Ada
}

// An administrator lists the sessions, and ends one.
func ExampleManager_Destroy() {
	sessions, _ := session.New(session.Options{Secrets: []string{exampleSecret}})
	get, done := browser(sessions.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s := session.From(r.Context())
		if r.URL.Path == "/login" {
			nameKey.Set(s, "Ada")
		}
		fmt.Fprintf(w, "hello %q", nameKey.Get(s))
	})))
	defer done()
	get("/login")
	ctx := context.Background()
	for s, err := range sessions.All(ctx) {
		if err == nil && nameKey.Get(s) == "Ada" {
			err = sessions.Destroy(ctx, s.ID())
		}
		if err != nil {
			fmt.Println(err)
		}
	}
	fmt.Println(get("/"))
	// Output:
	// hello ""
}

// "Remember me" keeps the session for 30 days, where others end when the browser
// closes, or after an hour without use.
func ExampleSession_SetMaxAge() {
	sessions, _ := session.New(session.Options{
		Secrets:     []string{exampleSecret},
		IdleTimeout: time.Hour,
	})
	login := func(w http.ResponseWriter, r *http.Request) {
		s := session.From(r.Context())
		s.Regenerate()
		nameKey.Set(s, "Ada")
		if r.FormValue("remember") != "" {
			s.SetMaxAge(30 * 24 * time.Hour)
		}
	}
	for _, path := range []string{"/login", "/login?remember=1"} {
		w := httptest.NewRecorder()
		sessions.Handler(http.HandlerFunc(login)).ServeHTTP(w, httptest.NewRequest("GET", "https://example.com"+path, nil))
		_, attributes, _ := strings.Cut(w.Header().Get("Set-Cookie"), ";")
		fmt.Println(attributes)
	}
	// Output:
	// Path=/; HttpOnly; Secure; SameSite=Lax
	//  Path=/; Max-Age=2592000; HttpOnly; Secure; SameSite=Lax
}

// An auditStore records the calls that it gets, and passes them on to another store. Package
// storetest tests it.
type auditStore struct {
	session.Store
	log *slog.Logger
}

func (s *auditStore) Create(ctx context.Context, key string, data []byte, ttl time.Duration) error {
	err := s.Store.Create(ctx, key, data, ttl)
	s.log.InfoContext(ctx, "session created", "ok", err == nil)
	return err
}

func (s *auditStore) Delete(ctx context.Context, key string) error {
	err := s.Store.Delete(ctx, key)
	s.log.InfoContext(ctx, "session ended", "ok", err == nil)
	return err
}

// To write a store, implement four methods, or embed a store and change some.
func ExampleStore() {
	withoutTime := &slog.HandlerOptions{ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
		if a.Key == slog.TimeKey {
			return slog.Attr{}
		}
		return a
	}}
	sessions, _ := session.New(session.Options{
		Secrets: []string{exampleSecret},
		Store:   &auditStore{new(session.MemoryStore), slog.New(slog.NewTextHandler(os.Stdout, withoutTime))},
	})
	mux := http.NewServeMux()
	mux.HandleFunc("/login", func(w http.ResponseWriter, r *http.Request) {
		nameKey.Set(session.From(r.Context()), "Ada")
	})
	mux.HandleFunc("/logout", func(w http.ResponseWriter, r *http.Request) {
		session.From(r.Context()).Destroy()
	})

	get, done := browser(sessions.Handler(mux))
	defer done()
	get("/login")
	get("/logout")
	// Output:
	// level=INFO msg="session created" ok=true
	// level=INFO msg="session ended" ok=true
}

// In Express, a change to an object in req.session is saved. Here Get returns a copy, and a
// change to it is lost unless the handler calls Set or Update.
func ExampleKey_incorrect() {
	const cartKey session.Key[map[string]int] = "cart"

	sessions, _ := session.New(session.Options{Secrets: []string{exampleSecret}})
	mux := http.NewServeMux()
	mux.HandleFunc("/start", func(w http.ResponseWriter, r *http.Request) {
		cartKey.Set(session.From(r.Context()), map[string]int{"tea": 1})
	})
	mux.HandleFunc("/wrong", func(w http.ResponseWriter, r *http.Request) {
		s := session.From(r.Context())
		cart := cartKey.Get(s)
		cart["tea"]++ // changes the copy alone
	})
	mux.HandleFunc("/right", func(w http.ResponseWriter, r *http.Request) {
		s := session.From(r.Context())
		cartKey.Update(s, func(cart map[string]int) map[string]int {
			if cart == nil {
				cart = make(map[string]int) // the first thing in it
			}
			cart["tea"]++
			return cart
		})
	})
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprint(w, cartKey.Get(session.From(r.Context())))
	})

	get, done := browser(sessions.Handler(mux))
	defer done()
	get("/start")
	get("/wrong")
	fmt.Println("wrong:", get("/"))
	get("/right")
	fmt.Println("right:", get("/"))
	// Output:
	// wrong: map[tea:1]
	// right: map[tea:2]
}

// Sessions in Redis: in production the client comes from the application's own
// configuration.
func ExampleRedisStore() {
	rdb := redis.NewClient(&redis.Options{Addr: "localhost:6379"})
	defer rdb.Close()
	_, err := session.New(session.Options{
		Store:   &session.RedisStore{Client: rdb},
		Secrets: []string{exampleSecret},
		Cookie:  session.Cookie{MaxAge: 24 * time.Hour},
	})
	fmt.Println(err)
	// Output:
	// <nil>
}

// A handler that streams saves first: after the first byte, the client could not learn that a
// save has failed.
func ExampleSession_Save() {
	sessions, _ := session.New(session.Options{Secrets: []string{exampleSecret}})
	stream := func(w http.ResponseWriter, r *http.Request) {
		s := session.From(r.Context())
		counterKey.Update(s, func(n int) int { return n + 1 })
		if s.Save() != nil {
			return // the response is an error already
		}
		for i := range 3 {
			fmt.Fprintf(w, "event %d\n", i)
			http.NewResponseController(w).Flush()
		}
	}
	get, done := browser(sessions.Handler(http.HandlerFunc(stream)))
	defer done()
	fmt.Println(get("/"))
	// Output:
	// event 0
	// event 1
	// event 2
}

// An ErrorHandler answers in the application's own format if the session could not be loaded or
// saved.
func ExampleOptions_errorHandler() {
	sessions, _ := session.New(session.Options{
		Secrets: []string{exampleSecret},
		Store:   &session.MemoryStore{MaxEntries: 1},
		Logger:  slog.New(slog.DiscardHandler),
		ErrorHandler: func(w http.ResponseWriter, r *http.Request, err error) {
			w.Header().Set("Content-Type", "application/json")
			fmt.Fprint(w, `{"error":"try again later"}`) // with the status 503
		},
	})
	handler := sessions.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		nameKey.Set(session.From(r.Context()), "x")
		fmt.Fprint(w, "hello")
	}))
	for range 2 { // two visitors, and room for one
		w := httptest.NewRecorder()
		handler.ServeHTTP(w, httptest.NewRequest("GET", "https://example.com/", nil))
		fmt.Println(w.Code, w.Body)
	}
	// Output:
	// 200 hello
	// 503 {"error":"try again later"}
}

// Once an hour the session gets another cookie. The old one is good for 30 seconds more, so the
// requests that the browser has under way with it stay logged in.
func ExampleSession_Renew() {
	const (
		userIDKey  session.Key[int64]     = "userId"
		renewedKey session.Key[time.Time] = "renewedAt"
	)
	now := time.Now() // time.Now(), where no example has to pass the time

	sessions, _ := session.New(session.Options{Secrets: []string{exampleSecret}})
	mux := http.NewServeMux()
	mux.HandleFunc("/login", func(w http.ResponseWriter, r *http.Request) {
		s := session.From(r.Context())
		s.Regenerate()
		userIDKey.Set(s, 42)
		renewedKey.Set(s, now)
	})
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		s := session.From(r.Context())
		if userIDKey.Has(s) && now.Sub(renewedKey.Get(s)) > time.Hour {
			s.Renew(30 * time.Second)
			renewedKey.Set(s, now)
		}
		fmt.Fprintf(w, "user %d, another cookie: %t", userIDKey.Get(s), renewedKey.Get(s).Equal(now))
	})

	get, done := browser(sessions.Handler(mux))
	defer done()
	get("/login")
	now = now.Add(30 * time.Minute)
	fmt.Println(get("/"))
	now = now.Add(45 * time.Minute)
	fmt.Println(get("/"))
	// Output:
	// user 42, another cookie: false
	// user 42, another cookie: true
}
