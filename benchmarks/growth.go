package main

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/seed-4f96e14b/session"
)

// measureGrowth measures how the cost of a request grows.
func measureGrowth(r *Results, s Settings) error {
	redisServer, err := startRedis("")
	if err != nil {
		return err
	}
	defer redisServer.Stop()
	r.Growth = []Curve{
		growWith("Values in the session", "values", []int{1, 10, 100, 1000}, s, readOneOf),
		growWith("Size of the value read", "bytes", []int{1, 64, 1 << 10, 4 << 10, 16 << 10, 64 << 10}, s, readSized),
		growWith("Sessions in the store", "sessions", []int{1_000, 10_000, 100_000, 1_000_000}, s, readAmong),
	}
	for _, store := range []struct {
		name string
		session.Store
	}{
		{"memory", new(session.MemoryStore)},
		{"Redis", &session.RedisStore{Client: redisServer.Client}},
	} {
		curve, err := growConcurrent(s, store.name, store.Store)
		if err != nil {
			return err
		}
		r.Growth = append(r.Growth, curve)
	}
	return nil
}

// growWith measures what open opens for each of the sizes: a function that reads once.
func growWith(title, x string, sizes []int, s Settings, open func(size int) func()) Curve {
	curve := Curve{Title: title, X: x, Y: "ns per read", Name: "memory"}
	for _, size := range sizes {
		if s.Quick && size > 100_000 {
			continue
		}
		s.say("growth: %s: %d", strings.ToLower(title), size)
		read := open(size)
		var rounds []float64
		for range s.Rounds {
			rounds = append(rounds, timed(s.Micro, read))
		}
		curve.Points = append(curve.Points, Point{X: float64(size), Y: median(rounds)})
	}
	return curve
}

// timed calls f for that long, and returns the ns of each call.
func timed(d time.Duration, f func()) float64 {
	began, calls := time.Now(), 0
	for ; time.Since(began) < d; calls += 100 {
		for range 100 {
			f()
		}
	}
	return float64(time.Since(began).Nanoseconds()) / float64(calls)
}

const largest = 1 << 20 // bytes of a session

func readOneOf(values int) func() {
	key := func(i int) session.Key[string] { return session.Key[string](fmt.Sprintf("key%04d", i)) }
	return reader(func(s *session.Session) {
		for i := range values {
			key(i).Set(s, "a value of some length")
		}
	}, func(s *session.Session) bool { return key(values/2).Get(s) != "" })
}

func readSized(size int) func() {
	const key session.Key[string] = "value"
	return reader(func(s *session.Session) { key.Set(s, strings.Repeat("x", size)) },
		func(s *session.Session) bool { return len(key.Get(s)) == size })
}

// reader returns a function that reads a session that has been filled.
func reader(fill func(*session.Session), read func(*session.Session) bool) func() {
	m := newManager(session.Options{Secrets: []string{secret}, MaxBytes: largest})
	filler := newHTTPCaller(Login, m.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fill(session.From(r.Context()))
	})))
	filler.Call("")
	cookie := filler.Reply().Cookie
	c := newHTTPCaller(Read, m.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !read(session.From(r.Context())) {
			panic("the session is not what was saved")
		}
	})))
	return func() { c.Call(cookie) }
}

func readAmong(sessions int) func() {
	app := peerNamed("session/memory").Open(Env{})
	cookies := make([]string, sessions)
	login(app.caller(Login), cookies)
	c := app.caller(Read)
	return func() { c.Call(cookies[rand.IntN(sessions)]) }
}

// growConcurrent measures requests that all increment the counter of one session at once,
// and counts what comes of it.
func growConcurrent(s Settings, name string, store session.Store) (Curve, error) {
	curve := Curve{Title: "Requests at once that update one session", X: "requests at once", Y: "µs per update", Name: name}
	for n := 1; n <= 256; n *= 2 {
		s.say("growth: %d at once, %s", n, name)
		point, err := updateAtOnce(store, n, 4*s.Micro)
		if err != nil {
			return curve, err
		}
		curve.Points = append(curve.Points, point)
	}
	return curve, nil
}

func updateAtOnce(store session.Store, n int, d time.Duration) (Point, error) {
	app := sessionApp(newManager(session.Options{Store: store, Secrets: []string{secret}}), nil)
	cookies := make([]string, 1)
	login(app.caller(Login), cookies)
	var ok, unavailable, other atomic.Int64
	began := time.Now()
	var wg sync.WaitGroup
	for range n {
		wg.Go(func() {
			for c := app.caller(Write); time.Since(began) < d; {
				c.Call(cookies[0])
				switch c.Reply().Status {
				case http.StatusOK:
					ok.Add(1)
				case http.StatusServiceUnavailable:
					unavailable.Add(1)
				default:
					other.Add(1)
				}
			}
		})
	}
	wg.Wait()
	took := time.Since(began)
	c := app.caller(Show)
	c.Call(cookies[0])
	var v Values
	if err := json.Unmarshal([]byte(c.Reply().Body), &v); err != nil {
		return Point{}, err
	}
	if other.Load() > 0 {
		return Point{}, fmt.Errorf("%d of %d at once were answered neither 200 nor 503", other.Load(), n)
	}
	lost := max(ok.Load()-int64(v.Count), 0) // more are counted where a 503 was saved after all
	return Point{
		X: float64(n), Y: float64(took.Microseconds()) / float64(ok.Load()),
		Note: fmt.Sprintf("%d answered, %d 503, %d lost", ok.Load(), unavailable.Load(), lost),
	}, nil
}
