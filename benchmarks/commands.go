package main

import (
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"time"
)

const (
	countedSessions = 20 // in rotation; once for each is the warm-up
	countedRequests = 200
)

// measureCommands counts what goes to Redis for the requests of each workload.
func measureCommands(r *Results, s Settings) error {
	redis, err := startRedis("")
	if err != nil {
		return err
	}
	defer redis.Stop()
	proxy, err := startProxy(redis.Addr)
	if err != nil {
		return err
	}
	defer proxy.Stop()
	r.Commands = nil
	for _, peer := range s.peers(Redis) {
		for _, work := range Workloads {
			s.say("commands: %s %s", peer.Name, work)
			result, err := countCommands(peer, work, proxy, s.Quick)
			if err != nil {
				return err
			}
			r.Commands = append(r.Commands, result)
		}
	}
	return nil
}

func countCommands(peer Peer, work Workload, proxy *Proxy, quick bool) (result Commands, err error) {
	server, err := startServer("", peer, Env{Redis: proxy.Addr, Sliding: work == Sliding})
	if err != nil {
		return result, err
	}
	defer server.Stop()
	client := newClient(server.Addr)
	defer client.Close()
	cookies, err := client.login(countedSessions)
	if err != nil {
		return result, err
	}
	if work.hasCookie() && !quick {
		time.Sleep(peer.Settles)
	}
	for i := range countedSessions + countedRequests {
		if i == countedSessions {
			proxy.Take()
		}
		cookie := cookies[i%countedSessions]
		if !work.hasCookie() {
			cookie = ""
		}
		reply, err := client.Do(work, cookie)
		if err == nil && reply.Status != http.StatusOK {
			err = fmt.Errorf("status %d: %s", reply.Status, reply.Body)
		}
		if err != nil {
			return result, fmt.Errorf("%s %s: %w", peer.Name, work, err)
		}
	}
	seen := proxy.Take()
	each := func(n int) float64 { return float64(n) / countedRequests }
	var names []string
	for _, name := range slices.Sorted(maps.Keys(seen.Commands)) {
		if n := each(seen.Commands[name]); n != 1 {
			name = fmt.Sprintf("%.3g %s", n, name)
		}
		names = append(names, name)
	}
	return Commands{peer.Name, work, each(seen.Turns), strings.Join(names, "+"), each(seen.Out), each(seen.In)}, nil
}
