package main

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"flag"
	"fmt"
	"hash"
	"net/http"
	"regexp"
	"sync"
	"testing"

	"github.com/gorilla/securecookie"
)

var (
	only = flag.String("peers", "", "a regular expression of the peers to measure")
	many = flag.Int("sessions", 100_000, "those that BenchmarkParallel reads")
)

func measured(b *testing.B, peer Peer) bool {
	match, err := regexp.MatchString(*only, peer.Name)
	if err != nil {
		b.Fatal(err)
	}
	return match && peer.Kind != Redis
}

// BenchmarkMicro calls the handlers directly, with 1,024 sessions in rotation.
func BenchmarkMicro(b *testing.B) {
	for _, peer := range peers {
		if !measured(b, peer) {
			continue
		}
		for _, work := range Workloads {
			b.Run(peer.Name+"/"+string(work), func(b *testing.B) {
				app := peer.Open(Env{Sliding: work == Sliding})
				defer app.Close()
				const rotation = 1024 // a power of two
				cookies := make([]string, rotation)
				if work.hasCookie() {
					login(app.caller(Login), cookies)
				}
				c := app.caller(work)
				i := 0
				b.ReportAllocs()
				for b.Loop() {
					c.Call(cookies[i%rotation])
					i++
				}
				expectOK(b, c)
			})
		}
	}
}

// BenchmarkParallel reads sessions on all CPUs.
func BenchmarkParallel(b *testing.B) {
	for _, peer := range peers {
		if !measured(b, peer) || peer.Kind == Cookie {
			continue
		}
		opened := sync.OnceValue(func() App { return peer.Open(Env{}) })
		cookies := make([]string, *many)
		loggedIn := sync.OnceFunc(func() { login(opened().caller(Login), cookies) })
		b.Run(peer.Name, func(b *testing.B) {
			loggedIn()
			var mu sync.Mutex
			start := 0
			b.ResetTimer()
			b.RunParallel(func(pb *testing.PB) {
				mu.Lock()
				i := start
				start += len(cookies) / 7 // each goroutine somewhere else
				mu.Unlock()
				c := opened().caller(Read)
				for ; pb.Next(); i++ {
					c.Call(cookies[i%len(cookies)])
				}
				expectOK(b, c)
			})
		})
		opened().Close()
	}
}

func expectOK(b *testing.B, c Caller) {
	b.Helper()
	if reply := c.Reply(); reply.Status != http.StatusOK {
		b.Fatalf("status %d: %s", reply.Status, reply.Body)
	}
}

// BenchmarkFloor is what every request with a signed cookie has to do in any case, or with
// securecookie, and what goals.go scales the goals by.
func BenchmarkFloor(b *testing.B) {
	key := []byte(secret)[:32]
	id := make([]byte, 32)
	message := make([]byte, 64)

	b.Run("hmac", func(b *testing.B) {
		mac := hmac.New(sha256.New, key)
		benchmarkHash(b, mac, message)
	})
	b.Run("sha256", func(b *testing.B) { benchmarkHash(b, sha256.New(), id) })

	codec := securecookie.New(key, nil).SetSerializer(securecookie.NopEncoder{})
	cookie, err := codec.Encode("sid", id)
	if err != nil {
		b.Fatal(err)
	}
	b.Run("securecookie-encode", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			codec.Encode("sid", id)
		}
	})
	b.Run("securecookie-decode", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			var got []byte
			if err := codec.Decode("sid", cookie, &got); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("context", func(b *testing.B) {
		r, err := http.NewRequest(http.MethodGet, "http://localhost/", nil)
		if err != nil {
			b.Fatal(err)
		}
		type key struct{}
		b.ReportAllocs()
		for b.Loop() {
			escaped = r.WithContext(context.WithValue(r.Context(), key{}, r))
		}
	})
}

var escaped *http.Request // so that it is on the heap, as a handler's is

func benchmarkHash(b *testing.B, h hash.Hash, message []byte) {
	var sum [sha256.Size]byte
	b.ReportAllocs()
	for b.Loop() {
		h.Reset()
		h.Write(message)
		h.Sum(sum[:0])
	}
}

// What the program parses is what the benchmarks print.
func TestParseBenchmarks(t *testing.T) {
	lines, err := parseBenchmarks([]byte("BenchmarkMicro/session/memory/R-2 \t 10\t 12.5 ns/op\t 7 B/op\t 3 allocs/op\nPASS\n"))
	want := "[{session/memory/R 2 12.5 7 3}]"
	if got := fmt.Sprint(lines); got != want || err != nil {
		t.Errorf("%s and error %v, want %s", got, err, want)
	}
}
