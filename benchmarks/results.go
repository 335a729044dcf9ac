package main

import (
	"encoding/json"
	"os"
	"slices"
)

// Results are what one run has measured. A part that did not run is left as it was before.
type Results struct {
	Machine  Machine
	Floor    []Sample   // the parts that every request with a session has, in ns
	Micro    []Micro    // the handler called directly, store in memory or in the cookie
	Commands []Commands // what goes to Redis for one request
	HTTP     []HTTP     // wrk, all on Redis but for the floors
	Memory   []Footprint
	Expiry   []Expiry
	Parallel []Parallel
	Growth   []Curve
}

// A Machine is where, when and with what it was measured.
type Machine struct {
	Date, Command               string
	CPU                         string
	Cores                       int
	Go, Node, Redis, Wrk, Linux string
	Modules                     []string // "module version", of the peers
}

// A Sample is what a number of rounds gave for one thing.
type Sample struct {
	Name   string
	Rounds []float64
}

// Micro is a workload of a peer, per request.
type Micro struct {
	Peer          string
	Work          Workload
	NS            []float64 // by round
	Bytes, Allocs float64
}

// Commands are those of one request, the same for all of them.
type Commands struct {
	Peer     string
	Work     Workload
	Turns    float64 // round trips
	Commands string  // "GET+EVALSHA", sorted
	Out, In  float64 // bytes
}

// HTTP is a workload of a peer behind a server that one CPU has to itself. All by round.
type HTTP struct {
	Peer     string
	Work     Workload
	PerSec   []float64 // requests
	P50, P99 []float64 // µs
	CPU      []float64 // µs of the server's process for each request
	Bytes    []float64 // allocated for each request; 0 where the server is not Go
	GC       []float64 // share of the server's CPU time
}

// A Footprint is what one session takes.
type Footprint struct {
	Peer     string
	Sessions int
	Bytes    float64 // of the heap, or of Redis's used_memory
}

// Expiry is the latency of reads, in µs, while sessions expire, and while none does.
type Expiry struct {
	Name                string // "expiring" or "quiet"
	Sessions, Requests  int
	P50, P99, P999, Max float64
	Expired             int
}

// Parallel is R on many sessions, in ns per request.
type Parallel struct {
	Peer     string
	One, Two []float64 // by round, with one CPU and with two
}

// A Curve says how a cost grows.
type Curve struct {
	Title, X, Y string // what is measured, and the names of the axes with their units
	Name        string // of the line, where a title has several: "memory"
	Points      []Point
}

// A Point of a curve. Note says what is to be said of it, as "3 answered 503".
type Point struct {
	X, Y float64
	Note string
}

// median returns that of the rounds, or 0 where there are none.
func median(rounds []float64) float64 {
	if len(rounds) == 0 {
		return 0
	}
	sorted := slices.Sorted(slices.Values(rounds))
	n := len(sorted)
	return (sorted[(n-1)/2] + sorted[n/2]) / 2
}

// spread returns how far the rounds are from the median, at the most, as a share of it.
func spread(rounds []float64) float64 {
	if len(rounds) == 0 {
		return 0
	}
	m := median(rounds)
	return max(slices.Max(rounds)-m, m-slices.Min(rounds)) / m
}

func readResults(path string) (r Results, err error) {
	data, err := os.ReadFile(path)
	if os.IsNotExist(err) {
		return r, nil
	}
	if err == nil {
		err = json.Unmarshal(data, &r)
	}
	return r, err
}

func (r Results) write(path string) error {
	data, err := json.MarshalIndent(r, "", "\t")
	if err != nil {
		return err
	}
	return os.WriteFile(path, append(data, '\n'), 0o644)
}
