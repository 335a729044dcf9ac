package main

import (
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"runtime"
	"runtime/metrics"

	"github.com/valyala/fasthttp"
)

// Listening is what a server prints, as one line of JSON, when it is ready.
type Listening struct {
	Addr  string
	Stats string // the address that answers with Stats; empty where the server is not Go
}

// Stats are of a whole process, since it began.
type Stats struct {
	Allocated uint64  // bytes of the heap
	GC, Used  float64 // seconds of CPU time: of the garbage collector, and all
}

// serve is the program's other face: it serves one peer until its standard input ends.
func serve(args []string) error {
	var env Env
	flags := flag.NewFlagSet("serve", flag.ExitOnError)
	name := flags.String("peer", "", "the peer")
	flags.StringVar(&env.Redis, "redis", "", "the address of Redis")
	flags.BoolVar(&env.Sliding, "sliding", false, "reading prolongs")
	flags.Parse(args)

	app := peerNamed(*name).Open(env)
	main, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	stats, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	failed := make(chan error)
	go func() { failed <- app.serve(main) }()
	go func() { failed <- http.Serve(stats, http.HandlerFunc(serveStats)) }()
	go func() {
		_, err := io.Copy(io.Discard, os.Stdin)
		failed <- err
	}()
	if err := json.NewEncoder(os.Stdout).Encode(Listening{main.Addr().String(), stats.Addr().String()}); err != nil {
		return err
	}
	return <-failed
}

// serve answers at every path that is a workload.
func (a App) serve(l net.Listener) error {
	if a.Fast != nil {
		return fasthttp.Serve(l, func(ctx *fasthttp.RequestCtx) {
			handler, ok := a.Fast[Workload(ctx.Path()[1:])]
			if !ok {
				ctx.NotFound()
				return
			}
			handler(ctx)
		})
	}
	return http.Serve(l, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		handler, ok := a.HTTP[Workload(r.URL.Path[1:])]
		if !ok {
			http.NotFound(w, r)
			return
		}
		handler.ServeHTTP(w, r)
	}))
}

func serveStats(w http.ResponseWriter, _ *http.Request) {
	runtime.GC() // else the times are those of the last one
	json.NewEncoder(w).Encode(readStats())
}

func readStats() Stats {
	samples := []metrics.Sample{
		{Name: "/gc/heap/allocs:bytes"},
		{Name: "/cpu/classes/gc/total:cpu-seconds"},
		{Name: "/cpu/classes/total:cpu-seconds"},
		{Name: "/cpu/classes/idle:cpu-seconds"},
	}
	metrics.Read(samples)
	return Stats{
		Allocated: samples[0].Value.Uint64(),
		GC:        samples[1].Value.Float64(),
		Used:      samples[2].Value.Float64() - samples[3].Value.Float64(),
	}
}

// getStats asks a server of serve.
func getStats(addr string) (stats Stats, err error) {
	resp, err := http.Get("http://" + addr)
	if err != nil {
		return stats, err
	}
	defer resp.Body.Close()
	if err := json.NewDecoder(resp.Body).Decode(&stats); err != nil {
		return stats, fmt.Errorf("stats of a server: %w", err)
	}
	return stats, nil
}
