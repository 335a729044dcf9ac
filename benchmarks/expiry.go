package main

import (
	"context"
	"fmt"
	"runtime"
	"slices"
	"time"

	"github.com/seed-4f96e14b/session"
)

// measureExpiry lets sessions in a MemoryStore expire while others are read, at a steady rate.
func measureExpiry(r *Results, s Settings) error {
	if s.Quick {
		s.say("expiry: left out, because it takes two minutes in any case")
		return nil
	}
	const sessions, live = 1_000_000, 1024
	store := new(session.MemoryStore)
	open := func(life time.Duration) App {
		return sessionApp(newManager(session.Options{Store: store, Secrets: []string{secret}, IdleTimeout: life}), nil)
	}
	cookies := make([]string, live)
	readers := open(time.Hour)
	login(readers.caller(Login), cookies)

	// A record stays a minute longer than its session, and the store removes it within another.
	s.say("expiry: %d sessions", sessions)
	const life, grace, margin = time.Second, time.Minute, 5 * time.Second
	began := time.Now()
	login(open(life).caller(Login), make([]string, sessions))
	filled := time.Now()
	runtime.GC()

	s.say("expiry: reading, before any expires")
	quiet := readSteadily(readers.caller(Read), cookies, began.Add(grace-margin))
	s.say("expiry: reading, while they expire, until %s", filled.Add(life+2*grace+margin).Format(time.TimeOnly))
	expiring := readSteadily(readers.caller(Read), cookies, filled.Add(life+2*grace+margin))

	left := 0
	for _, err := range store.Keys(context.Background()) {
		if err != nil {
			return err
		}
		left++
	}
	if left != live {
		return fmt.Errorf("%d sessions are left, want %d", left, live)
	}
	r.Expiry = []Expiry{latencies("quiet", quiet), latencies("expiring", expiring)}
	r.Expiry[1].Expired = sessions
	for i := range r.Expiry {
		r.Expiry[i].Sessions = sessions
	}
	return nil
}

// readSteadily reads one session after the other until the time comes, and returns how long
// after it was due each answer came. It waits by spinning, since a sleep ends late.
func readSteadily(c Caller, cookies []string, until time.Time) (late []time.Duration) {
	const interval = time.Second / 2000
	for due := time.Now(); due.Before(until); due = due.Add(interval) {
		for time.Now().Before(due) {
			runtime.Gosched()
		}
		c.Call(cookies[len(late)%len(cookies)])
		late = append(late, time.Since(due))
	}
	return late
}

func latencies(name string, all []time.Duration) Expiry {
	slices.Sort(all)
	at := func(share float64) float64 { return float64(all[int(share*float64(len(all)-1))].Nanoseconds()) / 1e3 }
	return Expiry{Name: name, Requests: len(all), P50: at(0.5), P99: at(0.99), P999: at(0.999), Max: at(1)}
}
