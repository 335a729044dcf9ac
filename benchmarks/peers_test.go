package main

import (
	"encoding/json"
	"fmt"
	"net/http"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/seed-4f96e14b/session/internal/testing/nodetest"
	"github.com/seed-4f96e14b/session/internal/testing/redistest"
)

// Every peer really does what is measured.
func TestPeers(t *testing.T) {
	for _, peer := range peers {
		t.Run(peer.Name, func(t *testing.T) {
			if peer.Skipped != "" {
				t.Skip(peer.Skipped)
			}
			var env Env
			if peer.Kind == Redis {
				env.Redis = redistest.Start(t)
			}
			b := &browser{t: t, send: open(t, peer, env)}
			b.testWorkloads(peer)

			env.Sliding = true
			b = &browser{t: t, send: open(t, peer, env)}
			b.do(Login, http.StatusOK)
			if peer.Kind == Redis && !strings.HasPrefix(peer.Name, "session/") { // whose deadline is in the record, and has just been set
				expectLonger(t, redistest.Admin(t, env.Redis), func() { b.do(Sliding, http.StatusOK) })
			}
			b.do(Sliding, http.StatusOK)
		})
	}
}

// open returns a function that sends a request to the peer.
func open(t *testing.T, peer Peer, env Env) func(work Workload, cookie string) Reply {
	if peer.Node == "" {
		app := peer.Open(env)
		t.Cleanup(app.Close)
		callers := make(map[Workload]Caller)
		for _, work := range append([]Workload{Show}, Workloads...) {
			callers[work] = app.caller(work)
		}
		return func(work Workload, cookie string) Reply {
			callers[work].Call(cookie)
			return callers[work].Reply()
		}
	}
	nodetest.Install(t, peer.Node)
	server, err := startServer("", peer, env)
	if err != nil {
		t.Fatal(err)
	}
	client := newClient(server.Addr)
	t.Cleanup(func() {
		client.Close()
		server.Stop()
	})
	return func(work Workload, cookie string) Reply {
		reply, err := client.Do(work, cookie)
		if err != nil {
			t.Error(err)
		}
		return reply
	}
}

// A browser keeps the last cookie that it got.
type browser struct {
	t      *testing.T
	send   func(work Workload, cookie string) Reply
	cookie string
}

func (b *browser) do(work Workload, want int) Reply {
	b.t.Helper()
	cookie := b.cookie
	if work == Login {
		cookie = ""
	}
	reply := b.send(work, cookie)
	if reply.Status != want {
		b.t.Errorf("%s with cookie %.10q: status %d, want %d", work, cookie, reply.Status, want)
	}
	if reply.Cookie != "" {
		b.cookie = reply.Cookie
	}
	return reply
}

func (b *browser) testWorkloads(peer Peer) {
	t := b.t
	b.do(Anonymous, http.StatusOK)
	if peer.Kind == None {
		return
	}
	b.do(Login, http.StatusOK)
	first := b.cookie
	b.do(Login, http.StatusOK)
	if first == "" || b.cookie == first && peer.Kind != Cookie { // which has no id
		t.Errorf("a second login: cookie %.10q, and the first was %.10q", b.cookie, first)
	}
	b.do(Untouched, http.StatusOK)
	b.do(Read, http.StatusOK)
	if reply := b.send(Read, ""); reply.Status == http.StatusOK && !strings.HasPrefix(peer.Name, "limit/") {
		t.Error("R without a cookie found the user")
	}
	if reply := b.send(Anonymous, b.cookie); reply.Status == http.StatusOK {
		t.Error("A with a cookie found no user")
	}
	for range 3 {
		b.do(Write, http.StatusOK)
	}
	b.do(Equal, http.StatusOK)
	if strings.HasPrefix(peer.Name, "limit/") {
		return // has no values
	}
	b.expect(Values{userID, email, role, cart, 3})
	b.cookie = ""
	b.expect(Values{})
}

func (b *browser) expect(want Values) {
	b.t.Helper()
	var got Values
	var err error
	for deadline := time.Now().Add(time.Second); time.Now().Before(deadline); { // a cache may be late
		got = Values{}
		err = json.Unmarshal([]byte(b.do(Show, http.StatusOK).Body), &got)
		if err == nil && reflect.DeepEqual(got, want) {
			return
		}
	}
	b.t.Errorf("the session holds %+v and error %v, want %+v", got, err, want)
}

// expectLonger fails the test if the call prolongs no key.
func expectLonger(t *testing.T, client *redis.Client, call func()) {
	t.Helper()
	const soon = time.Minute
	keys := client.Keys(t.Context(), "*").Val()
	for _, key := range keys {
		client.Expire(t.Context(), key, soon)
	}
	call()
	for _, key := range keys {
		if client.TTL(t.Context(), key).Val() > soon {
			return
		}
	}
	t.Errorf("no key of %d lives longer", len(keys))
}

// The sizes are those that the report names.
func TestPayload(t *testing.T) {
	data, err := json.Marshal(Values{userID, email, role, cart, 0})
	if len(data) != 213 || err != nil {
		t.Errorf("%d bytes and error %v, want 213", len(data), err)
	}
	if got := fmt.Sprint(Workloads); got != "[U A R S W E N]" {
		t.Error(got)
	}
}
