package main

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"fmt"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"

	"github.com/gorilla/securecookie"
	"github.com/valyala/fasthttp"
)

const (
	microSessions    = 1024
	parallelSessions = 100_000
)

// The handler called directly, with a request and a ResponseWriter that are used again, so
// that what is left is the library. Sessions take turns.
func BenchmarkMicro(b *testing.B) {
	for _, p := range peers {
		if p.Open == nil || p.Kind == Redis {
			continue
		}
		for _, work := range Workloads {
			b.Run(p.Name+"/"+string(work), func(b *testing.B) {
				app := p.Open(Env{Sliding: work == Sliding})
				defer app.Close()
				call := app.caller(work, app.cookies(b, work, microSessions))
				b.ReportAllocs()
				for b.Loop() {
					call()
				}
			})
		}
	}
}

// R on many sessions by all CPUs: run it with -cpu 1,2.
func BenchmarkParallel(b *testing.B) {
	for _, p := range peers {
		if p.Open == nil || p.Kind != Memory {
			continue
		}
		b.Run(p.Name, func(b *testing.B) {
			app := p.Open(Env{})
			defer app.Close()
			cookies := app.cookies(b, Read, parallelSessions)
			b.ResetTimer()
			b.RunParallel(func(pb *testing.PB) {
				call := app.caller(Read, cookies)
				for pb.Next() {
					call()
				}
			})
		})
	}
}

// cookies logs in as often as there are to be sessions.
func (a App) cookies(b *testing.B, work Workload, n int) []string {
	b.Helper()
	if !work.hasCookie() || a.HTTP[Login] == nil && a.Fast[Login] == nil {
		return []string{""}
	}
	cookies := make([]string, n)
	for i := range cookies {
		status, cookie, _ := a.do(Login, "")
		if status != http.StatusOK {
			b.Fatalf("login: status %d", status)
		}
		cookies[i] = cookie
	}
	if status, _, body := a.do(work, cookies[0]); status != http.StatusOK {
		b.Fatalf("%s: status %d, %q", work, status, body)
	}
	return cookies
}

// caller returns a function that makes one request of the workload, with the next cookie.
func (a App) caller(work Workload, cookies []string) func() {
	next := 0
	turn := func() int { next++; return next % len(cookies) }
	if handler := a.Fast[work]; handler != nil {
		var ctx fasthttp.RequestCtx
		ctx.Init(new(fasthttp.Request), nil, nil)
		return func() {
			ctx.Request.Header.Set("Cookie", cookies[turn()])
			ctx.Response.Reset()
			ctx.ResetUserValues()
			handler(&ctx)
		}
	}
	handler, w := a.HTTP[work], &writer{header: make(http.Header)}
	r := httptest.NewRequest(http.MethodGet, "/", nil)
	headers := make([]http.Header, len(cookies))
	for i, cookie := range cookies {
		headers[i] = make(http.Header)
		if cookie != "" {
			headers[i].Set("Cookie", cookie)
		}
	}
	return func() {
		r.Header = headers[turn()]
		clear(w.header)
		handler.ServeHTTP(w, r)
	}
}

// A writer is a ResponseWriter that keeps nothing.
type writer struct{ header http.Header }

func (w *writer) Header() http.Header               { return w.header }
func (w *writer) WriteHeader(int)                   {}
func (w *writer) Write(b []byte) (int, error)       { return len(b), nil }
func (w *writer) WriteString(s string) (int, error) { return len(s), nil }

// What every session with a signed cookie has to do, whoever wrote the library.
func BenchmarkFloor(b *testing.B) {
	key, id := make([]byte, 32), make([]byte, 32)
	signer := securecookie.New(key, nil).SetSerializer(securecookie.NopEncoder{}).MaxAge(0)
	value, err := signer.Encode("sid", id)
	if err != nil {
		b.Fatal(err)
	}
	r := httptest.NewRequest(http.MethodGet, "/", nil)
	type contextKey struct{}
	mac, text := hmac.New(sha256.New, key), make([]byte, 64)
	var sum [sha256.Size]byte
	for _, part := range []struct {
		name string
		do   func()
	}{
		{"hmac", func() { mac.Reset(); mac.Write(text); mac.Sum(sum[:0]) }},
		{"decode", func() { var b []byte; signer.Decode("sid", value, &b) }},
		{"encode", func() { signer.Encode("sid", id) }},
		{"context", func() { request = r.WithContext(context.WithValue(r.Context(), contextKey{}, &sum)) }},
		{"sha256", func() { sum = sha256.Sum256(id) }},
	} {
		b.Run(part.name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				part.do()
			}
		})
	}
}

var request *http.Request // so that the compiler does not leave it out

// How the cost of reading grows with what is in the session.
func BenchmarkKeys(b *testing.B) {
	for _, keys := range []int{1, 10, 100, 1000} {
		b.Run(fmt.Sprint(keys), func(b *testing.B) {
			h, cookie := sessionWith(b, keys, 8)
			measure(b, h, []string{cookie})
		})
	}
}

// How the cost of reading grows with the size of the value.
func BenchmarkValue(b *testing.B) {
	for size := 1; size <= 64<<10; size *= 4 {
		b.Run(fmt.Sprint(size), func(b *testing.B) {
			h, cookie := sessionWith(b, 1, size)
			measure(b, h, []string{cookie})
		})
	}
}

// How the cost of reading grows with the sessions in the store.
func BenchmarkSessions(b *testing.B) {
	for _, n := range []int{1_000, 10_000, 100_000, 1_000_000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			app, cookies := storeWith(b, n)
			measure(b, app.HTTP[Read], cookies)
		})
	}
}

var stores sync.Map // of what storeWith has made, by number

func storeWith(b *testing.B, n int) (App, []string) {
	type store struct {
		app     App
		cookies []string
	}
	if s, ok := stores.Load(n); ok {
		return s.(store).app, s.(store).cookies
	}
	app := peerNamed("session/memory").Open(Env{})
	s := store{app, app.cookies(b, Read, n)}
	stores.Store(n, s)
	return s.app, s.cookies
}

func measure(b *testing.B, h http.Handler, cookies []string) {
	call := App{HTTP: map[Workload]http.Handler{Read: h}}.caller(Read, cookies)
	b.ReportAllocs()
	for b.Loop() {
		call()
	}
}
