package expressjs_test

import (
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/redis/go-redis/v9"
	"github.com/seed-4f96e14b/session"
	"github.com/seed-4f96e14b/session/expressjs"
)

// An Express app has logged Ada in; a route that has moved to Go knows her, and changes
// what both see.
func Example() {
	server := miniredis.NewMiniRedis()
	if err := server.Start(); err != nil {
		panic(err)
	}
	defer server.Close()
	client := redis.NewClient(&redis.Options{Addr: server.Addr()})
	defer client.Close()

	// What Express has put into Redis, and into the browser.
	server.Set("sess:LXEWQrcmsEQBYnyp-6wy9chTD7GQPMTb",
		`{"cookie":{"originalMaxAge":604800000,"expires":"2026-01-08T00:00:00.000Z","httpOnly":true,"path":"/"},"user":{"id":1,"name":"Ada"}}`)
	cookie := "connect.sid=s%3ALXEWQrcmsEQBYnyp-6wy9chTD7GQPMTb.SkF2GfSH8Cmrn%2BY1iH%2B70dgTbn%2BTlBslZZGfrQg5Bwg"

	type user struct {
		ID   int    `json:"id"`
		Name string `json:"name"`
	}
	const (
		userKey  session.Key[user]   = "user"
		themeKey session.Key[string] = "theme"
	)
	sessions, err := expressjs.New(expressjs.Options{
		Secrets: []string{"the secret of these tests, 32 bytes long"},
		Cookie:  expressjs.Cookie{MaxAge: 7 * 24 * time.Hour},
		Store:   expressjs.RedisStore{Client: client},
	})
	if err != nil {
		panic(err)
	}
	account := sessions.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s := session.From(r.Context())
		themeKey.Set(s, "dark")
		fmt.Fprintf(w, "Hello, %s.", userKey.Get(s).Name)
	}))

	r := httptest.NewRequest(http.MethodPost, "http://localhost/account", nil)
	r.Header.Set("Cookie", cookie)
	w := httptest.NewRecorder()
	account.ServeHTTP(w, r)
	body, _ := io.ReadAll(w.Result().Body)
	record, _ := server.Get("sess:LXEWQrcmsEQBYnyp-6wy9chTD7GQPMTb")
	var seen map[string]any
	if err := json.Unmarshal([]byte(record), &seen); err != nil {
		panic(err)
	}
	fmt.Printf("%s\nExpress sees %v and %v.\n", body, seen["user"], seen["theme"])

	// Output:
	// Hello, Ada.
	// Express sees map[id:1 name:Ada] and dark.
}

// What Express has no option for is set on the options of package session.
func ExampleOptions_Session() {
	options, err := expressjs.Options{
		Secrets: []string{"the secret of these tests, 32 bytes long"},
		Store:   expressjs.RedisStore{Client: redis.NewClient(&redis.Options{})},
	}.Session()
	if err != nil {
		panic(err)
	}
	options.StoreTimeout = 500 * time.Millisecond
	options.Logger = slog.New(slog.DiscardHandler)
	sessions, err := session.New(options)
	fmt.Println(sessions, err)

	// Output: session.Manager("connect.sid") <nil>
}
