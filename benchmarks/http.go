package main

import (
	"bytes"
	"context"
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

const httpSessions = 1000

// measureHTTP loads a server of each peer with wrk, one workload after the other, in rounds.
func measureHTTP(r *Results, s Settings) error {
	redis, err := startRedis(loadCPU)
	if err != nil {
		return err
	}
	defer redis.Stop()
	dir, err := os.MkdirTemp("", "benchmarks")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	load := wrk{dir: dir, seconds: s.Seconds}
	r.HTTP = nil
	for round := range s.Rounds {
		for _, work := range Workloads {
			for _, peer := range s.peers(Redis, None) {
				if peer.Kind == None && work != Untouched {
					continue // they are all the same to it
				}
				s.say("http: round %d of %d: %s %s", round+1, s.Rounds, peer.Name, work)
				redis.Client.FlushAll(context.Background())
				one, err := load.server(peer, work, redis.Addr)
				if err != nil {
					return fmt.Errorf("%s %s: %w", peer.Name, work, err)
				}
				r.HTTP = addRound(r.HTTP, one)
			}
		}
	}
	return nil
}

// addRound adds a round of one to what the others were.
func addRound(results []HTTP, one HTTP) []HTTP {
	i := slices.IndexFunc(results, func(r HTTP) bool { return r.Peer == one.Peer && r.Work == one.Work })
	if i < 0 {
		return append(results, one)
	}
	r := &results[i]
	r.PerSec = append(r.PerSec, one.PerSec...)
	r.P50, r.P99 = append(r.P50, one.P50...), append(r.P99, one.P99...)
	r.CPU, r.Bytes, r.GC = append(r.CPU, one.CPU...), append(r.Bytes, one.Bytes...), append(r.GC, one.GC...)
	return results
}

// wrk is the load generator, with the files that it needs in dir.
type wrk struct {
	dir     string
	seconds float64
}

// server measures one round.
func (l wrk) server(peer Peer, work Workload, redis string) (result HTTP, err error) {
	server, err := startServer(serverCPU, peer, Env{Redis: redis, Sliding: work == Sliding})
	if err != nil {
		return result, err
	}
	defer server.Stop()
	cookies := ""
	if work.hasCookie() && peer.Kind != None {
		if cookies, err = l.login(server.Addr); err != nil {
			return result, err
		}
		if l.seconds >= 1 {
			time.Sleep(peer.Settles)
		}
	}
	if _, err := l.run(server.Addr, work, cookies, l.seconds/4); err != nil { // to warm up
		return result, err
	}
	before, err := server.use()
	if err != nil {
		return result, err
	}
	seen, err := l.run(server.Addr, work, cookies, l.seconds)
	if err != nil {
		return result, err
	}
	after, err := server.use()
	if err != nil {
		return result, err
	}
	if seen.Errors > 0 || seen.Requests == 0 {
		return result, fmt.Errorf("%v of %v requests failed", seen.Errors, seen.Requests)
	}
	result = HTTP{
		Peer: peer.Name, Work: work,
		PerSec: []float64{seen.Requests / seen.Seconds},
		P50:    []float64{seen.P50}, P99: []float64{seen.P99},
		CPU: []float64{float64((after.cpu - before.cpu).Microseconds()) / seen.Requests},
	}
	if server.Stats != "" {
		result.Bytes = []float64{float64(after.Allocated-before.Allocated) / seen.Requests}
		result.GC = []float64{(after.GC - before.GC) / (after.Used - before.Used)}
	}
	return result, nil
}

// login makes the sessions, and returns the file with their cookies.
func (l wrk) login(addr string) (string, error) {
	client := newClient(addr)
	defer client.Close()
	cookies, err := client.login(httpSessions)
	if err != nil {
		return "", err
	}
	file := filepath.Join(l.dir, "cookies")
	return file, os.WriteFile(file, []byte(strings.Join(cookies, "\n")+"\n"), 0o600)
}

// A load is what wrk.lua prints; times in µs.
type load struct{ Requests, Seconds, P50, P99, Errors float64 }

//go:embed wrk.lua
var script []byte

func (l wrk) run(addr string, work Workload, cookies string, seconds float64) (seen load, err error) {
	file := filepath.Join(l.dir, "wrk.lua")
	if err := os.WriteFile(file, script, 0o600); err != nil {
		return seen, err
	}
	// wrk knows whole seconds only, and ends early and in good order when it is interrupted.
	args := []string{"-t1", "-c" + strconv.Itoa(connections), "-d1h", "-s", file, "http://" + addr + "/" + string(work), "--"}
	if cookies != "" {
		args = append(args, cookies)
	}
	cmd := command(loadCPU, "wrk", args...)
	var output bytes.Buffer
	cmd.Stdout = &output
	if err := cmd.Start(); err != nil {
		return seen, err
	}
	ended := make(chan struct{})
	go interruptAfter(time.Duration(seconds*float64(time.Second)), cmd.Process, ended)
	err = cmd.Wait()
	close(ended)
	if exit, ok := errors.AsType[*exec.ExitError](err); ok && exit.Sys().(syscall.WaitStatus).Signal() == syscall.SIGINT && seconds < 10 {
		return l.run(addr, work, cookies, 2*seconds) // a busy machine had not started it yet
	}
	if err != nil {
		return seen, fmt.Errorf("wrk: %w\n%s", err, output.Bytes())
	}
	return seen, json.Unmarshal(output.Bytes()[bytes.LastIndexByte(bytes.TrimSpace(output.Bytes()), '\n')+1:], &seen)
}

// interruptAfter interrupts the process when that time is over, and again until it has ended. wrk
// misses an interrupt that comes before it waits for one, if its parent ignores them.
func interruptAfter(d time.Duration, process *os.Process, ended <-chan struct{}) {
	const again = 500 * time.Millisecond
	for {
		select {
		case <-time.After(d):
			process.Signal(os.Interrupt)
			d = again
		case <-ended:
			return
		}
	}
}

// A use is what a server's process has used since it began.
type use struct {
	Stats
	cpu time.Duration
}

func (s *Server) use() (u use, err error) {
	if s.Stats != "" {
		if u.Stats, err = getStats(s.Stats); err != nil {
			return u, err
		}
	}
	u.cpu, err = s.CPU()
	return u, err
}
