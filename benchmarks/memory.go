package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"sync"
)

// measureMemory fills each store with sessions.
func measureMemory(r *Results, s Settings) error {
	r.Memory = nil
	for _, peer := range s.peers(Memory) {
		n := s.size(1_000_000)
		s.say("memory: %s: %d sessions", peer.Name, n)
		each, err := heapPerSession(peer, n)
		if err != nil {
			return fmt.Errorf("%s: %w", peer.Name, err)
		}
		r.Memory = append(r.Memory, Footprint{peer.Name, n, each})
	}
	redis, err := startRedis("")
	if err != nil {
		return err
	}
	defer redis.Stop()
	for _, peer := range s.peers(Redis) {
		if strings.HasPrefix(peer.Name, "session/redis-") {
			continue // the same records
		}
		n := s.size(100_000)
		s.say("memory: %s: %d sessions", peer.Name, n)
		each, err := redis.memoryPerSession(peer, n)
		if err != nil {
			return fmt.Errorf("%s: %w", peer.Name, err)
		}
		r.Memory = append(r.Memory, Footprint{peer.Name, n, each})
	}
	return nil
}

// heapPerSession fills the store in a process of its own.
func heapPerSession(peer Peer, n int) (each float64, err error) {
	self, err := os.Executable()
	if err != nil {
		return 0, err
	}
	cmd := exec.Command(self, "fill", "-peer", peer.Name, "-sessions", strconv.Itoa(n))
	cmd.Stderr = os.Stderr
	output, err := cmd.Output()
	if err != nil {
		return 0, err
	}
	return each, json.Unmarshal(output, &each)
}

// fill is that process. It prints the bytes of the heap for each session.
func fill(args []string) error {
	flags := flag.NewFlagSet("fill", flag.ExitOnError)
	name := flags.String("peer", "", "the peer")
	n := flags.Int("sessions", 0, "how many")
	flags.Parse(args)

	app := peerNamed(*name).Open(Env{})
	c := app.caller(Login)
	c.Call("")
	before := heap()
	for range *n {
		c.Call("")
	}
	each := (heap() - before) / float64(*n)
	runtime.KeepAlive(c) // and with it the store
	return json.NewEncoder(os.Stdout).Encode(each)
}

// heap returns the bytes that are live.
func heap() float64 {
	runtime.GC()
	runtime.GC() // what the first has found to finalize, and what pools have kept
	var stats runtime.MemStats
	runtime.ReadMemStats(&stats)
	return float64(stats.HeapAlloc)
}

// memoryPerSession fills the server, by several clients at once.
func (r *RedisServer) memoryPerSession(peer Peer, n int) (each float64, err error) {
	ctx := context.Background()
	if err := r.Client.FlushAll(ctx).Err(); err != nil {
		return 0, err
	}
	server, err := startServer("", peer, Env{Redis: r.Addr})
	if err != nil {
		return 0, err
	}
	defer server.Stop()
	if err := fillServer(server.Addr, 1); err != nil {
		return 0, err
	}
	before, err := r.used()
	if err != nil {
		return 0, err
	}
	if err := fillServer(server.Addr, n); err != nil {
		return 0, err
	}
	after, err := r.used()
	if err != nil {
		return 0, err
	}
	if keys := r.Client.DBSize(ctx).Val(); int(keys) < n {
		return 0, fmt.Errorf("%d keys of %d sessions", keys, n)
	}
	return float64(after-before) / float64(n), nil
}

// fillServer logs in at least n times.
func fillServer(addr string, n int) error {
	const clients = 16
	errs := make(chan error, clients)
	var wg sync.WaitGroup
	for range clients {
		wg.Go(func() {
			c := newClient(addr)
			defer c.Close()
			_, err := c.login((n + clients - 1) / clients)
			errs <- err
		})
	}
	wg.Wait()
	close(errs)
	for err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

// used returns the server's used_memory.
func (r *RedisServer) used() (bytes int, err error) {
	info, err := r.Client.Info(context.Background(), "memory").Result()
	if err != nil {
		return 0, err
	}
	_, after, _ := strings.Cut(info, "used_memory:")
	line, _, _ := strings.Cut(after, "\r\n")
	return strconv.Atoi(line)
}
