package session_test

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/seed-4f96e14b/session"
	"github.com/seed-4f96e14b/session/internal/faultproxy"
	"github.com/seed-4f96e14b/session/internal/redistest"
	"github.com/seed-4f96e14b/session/storetest"
)

// The clients of go-redis that do more than send one command at a time: they put commands of
// many requests into one pipeline, or keep in their own memory what they have read.
var clientKinds = map[string]func(t testing.TB, addr string) session.RedisClient{
	"pipelining": func(t testing.TB, addr string) session.RedisClient {
		return pipelining(t, newClient(t, addr), redis.DefaultBlockingAutoPipelineOptions())
	},
	"pipelining, full duplex": func(t testing.TB, addr string) session.RedisClient {
		return pipelining(t, newClient(t, addr), &redis.AutoPipelineOptions{FullDuplex: true})
	},
	"caching": func(t testing.TB, addr string) session.RedisClient { return newClient(t, addr, caching) },
	"caching, all options": func(t testing.TB, addr string) session.RedisClient {
		return newClient(t, addr, caching, func(o *redis.Options) {
			o.ClientSideCacheRefreshOnInvalidate = true
			o.ClientSideCacheCoalesceMisses = true
			o.ClientSideCacheInvalidationBatchWindow = time.Millisecond
		})
	},
	"caching and pipelining": func(t testing.TB, addr string) session.RedisClient {
		return pipelining(t, newClient(t, addr, caching), redis.DefaultBlockingAutoPipelineOptions())
	},
}

func newClient(t testing.TB, addr string, change ...func(o *redis.Options)) *redis.Client {
	t.Helper()
	options := redistest.Options(addr)
	for _, f := range change {
		f(options)
	}
	client := redis.NewClient(options)
	t.Cleanup(func() { client.Close() })
	return client
}

func caching(o *redis.Options) { o.ClientSideCacheConfig = new(redis.ClientSideCacheConfig) }

func pipelining(t testing.TB, client *redis.Client, options *redis.AutoPipelineOptions) *redis.AutoPipeliner {
	t.Helper()
	pipeline, err := client.AutoPipelineWithOptions(options)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { pipeline.Close() })
	return pipeline
}

// startCaching runs a server that tells clients when a key changes.
func startCaching(t testing.TB) (addr string) {
	t.Helper()
	addr = redistest.Start(t)
	redistest.Allow(t, addr, redistest.CacheRights)
	return addr
}

// forEachClient runs a test with each kind, on a server of its own.
func forEachClient(t *testing.T, test func(t *testing.T, addr string, open func() session.RedisClient)) {
	for name, open := range clientKinds {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			addr := startCaching(t)
			test(t, addr, func() session.RedisClient { return open(t, addr) })
		})
	}
}

func TestClientsKeepTheContract(t *testing.T) {
	forEachClient(t, func(t *testing.T, addr string, open func() session.RedisClient) {
		redistest.Allow(t, addr, redistest.ListRights)
		client, n := open(), 0
		storetest.Run(t, func(t *testing.T) session.Store {
			n++
			store := &session.RedisStore{Client: client, Prefix: fmt.Sprint("sess:", n, ":")}
			if _, ok := client.(*redis.AutoPipeliner); ok {
				return struct{ session.Store }{store} // its keys cannot be listed, so it passes as a plain store
			}
			return store
		})
	})
}

// With every client a browser that does one thing after the other sees what it has done,
// also where the server forgets the script meanwhile.
func TestClientsServe(t *testing.T) {
	forEachClient(t, func(t *testing.T, addr string, open func() session.RedisClient) {
		m := newManager(t, session.Options{Store: &session.RedisStore{Client: open()}})
		for i := range 30 {
			if i%10 == 0 {
				redistest.Admin(t, addr).ScriptFlush(t.Context())
			}
			lifeOfASession(t, m)
			v := newVisitor(m)
			v.get(setName("x"))
			for n := range 3 {
				v.post(count)
				check(t, "counter after a POST", counterOf(v), 2*n+1)
				v.get(count)
				check(t, "counter after a GET", counterOf(v), 2*n+2)
			}
			old := v.copy()
			v.post(renew)
			check(t, "name after a renewal", nameOf(v), "x")
			check(t, "name under the cookie of before", nameOf(old), "")
			old = v.copy()
			v.post(logout)
			check(t, "name after a logout", nameOf(old), "")
		}
		check(t, "sessions left", redistest.Admin(t, addr).DBSize(t.Context()).Val(), 0)
	})
}

// Two processes with such a client each lose no update of each other, and bring back no
// session that the other has ended.
func TestClientsLoseNothing(t *testing.T) {
	forEachClient(t, func(t *testing.T, addr string, open func() session.RedisClient) {
		patient := session.Options{StoreTimeout: time.Minute} // on a busy machine some conflicts take more than a second
		var managers []*session.Manager
		for range 2 {
			options := patient
			options.Store = &session.RedisStore{Client: open()}
			managers = append(managers, newManager(t, options))
		}
		v := newVisitor(managers[0])
		v.get(setName("x"))
		const tabs, requests = 6, 20
		var wg sync.WaitGroup
		for i := range tabs {
			tab := v.copy()
			tab.server = managers[i%2].Handler(app)
			wg.Go(func() {
				for n := range requests {
					tab.do([]string{http.MethodGet, http.MethodPost}[n%2], count)
					tab.get(look)
				}
			})
		}
		wg.Wait()
		check(t, "counter", counterOf(v), tabs*requests)

		// What is set after the logout would be a session of its own.
		change := use(func(s *session.Session) {
			if nameKey.Has(s) {
				counterKey.Update(s, increment)
			}
		})
		for range 20 {
			v := newVisitor(managers[0])
			v.get(setName("x"))
			for i := range tabs {
				tab := v.copy()
				tab.server = managers[i%2].Handler(app)
				nameOf(tab)
				wg.Go(func() {
					for range 3 {
						tab.get(change)
					}
				})
			}
			v.copy().post(logout)
			wg.Wait()
		}
		check(t, "sessions left", redistest.Admin(t, addr).DBSize(t.Context()).Val(), 1)
	})
}

// When the server dies, what was read before is soon not taken for an answer any more.
func TestClientsOutage(t *testing.T) {
	for name, open := range clientKinds {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			server := redistest.NewProcess(t)
			server.Start(redistest.CacheRights)
			server.AwaitReady()
			m := newManager(t, session.Options{Store: &session.RedisStore{Client: open(t, server.Addr)}, StoreTimeout: faultTimeout})
			v := newVisitor(m)
			v.get(setName("x"))
			nameOf(v)
			server.Kill()
			expectUnavailable(t, "a POST", v.post(look))
			eventually(t, "a GET is refused", func() bool { return v.get(look).StatusCode == refused })
			server.Start(redistest.CacheRights)
			server.AwaitReady()
			eventually(t, "a GET is served", func() bool { return v.get(look).StatusCode == served })
			check(t, "name", nameOf(v), "x")
			check(t, "a write", v.post(setName("y")).StatusCode, served)
			check(t, "name", nameOf(v), "y")
		})
	}
}

// A pair is two processes with the same sessions. The one there keeps what it has read, and
// its gate can hold back what it is told of the other's changes.
type pair struct {
	here, there *session.Manager
	gate        *faultproxy.Gate
	admin       *redis.Client
}

func newPair(t *testing.T, change ...func(o *redis.Options)) *pair {
	t.Helper()
	addr := startCaching(t)
	p := &pair{gate: faultproxy.NewGate(t, addr), admin: redistest.Admin(t, addr)}
	here := &session.RedisStore{Client: newClient(t, addr)}
	here.CompareAndSwap(t.Context(), "a", nil, nil, time.Hour) // so that Redis has the script
	p.here = newManager(t, session.Options{Store: here})
	p.there = newManager(t, session.Options{Store: &session.RedisStore{
		Client: newClient(t, p.gate.Addr, append([]func(*redis.Options){caching}, change...)...),
	}})
	return p
}

// begin returns two tabs of one browser, one at each process, of which the one there has
// the session in its memory.
func (p *pair) begin(t *testing.T) (here, there *visitor) {
	t.Helper()
	here = newVisitor(p.here)
	here.get(use(func(s *session.Session) { nameKey.Set(s, "x"); counterKey.Set(s, 0) }))
	there = here.copy()
	there.server = p.there.Handler(app)
	check(t, "name there", nameOf(there), "x")
	p.gate.Took()
	check(t, "name there", nameOf(there), "x")
	check(t, "what it was asked of Redis", p.gate.Took(), "0")
	return here, there
}

// changed returns when the process there would have been told.
func (p *pair) changed(t *testing.T) {
	t.Helper()
	eventually(t, "Redis tells of a change", func() bool { return p.gate.Held() > 0 })
	p.gate.Took()
}

// As long as a process is not told of a change, what it reads may be old, but what it writes
// is right at once: it conflicts, and then looks at what is really there. A request that is
// not safe reads no old record either.
func TestStaleReads(t *testing.T) {
	for name, tt := range map[string]struct {
		do      handler
		write   string // the commands of a GET that changes the session
		name    string // there, after that
		counter int
		left    int64
	}{
		"a change":   {setName("y"), "evalsha eval evalsha", "y", 1, 1},
		"a deletion": {use(func(s *session.Session) { nameKey.Delete(s) }), "evalsha eval evalsha", "", 1, 1},
		"a renewal":  {renew, "evalsha eval evalsha", "", 0, 1},
		"a logout":   {logout, "evalsha eval", "", 0, 0},
	} {
		t.Run(name, func(t *testing.T) {
			p := newPair(t)
			here, there := p.begin(t)
			p.gate.HoldPushes()
			check(t, "status", here.post(tt.do).StatusCode, http.StatusOK)
			p.changed(t)
			check(t, "name there, which is old", nameOf(there), "x")
			check(t, "what that took", p.gate.Took(), "0")

			response := there.copy().get(count)
			check(t, "status of a change", response.StatusCode, http.StatusOK)
			check(t, "cookies of a change", len(cookies(response)), 0)
			check(t, "what that took", p.gate.Took(), tt.write)
			there.copy().post(use(func(s *session.Session) {
				check(t, "name that a POST reads", nameKey.Get(s), tt.name)
				check(t, "counter that a POST reads", counterKey.Get(s), tt.counter)
			}))
			check(t, "what that took", p.gate.Took(), "eval")
			check(t, "sessions", p.admin.DBSize(t.Context()).Val(), tt.left)
			p.gate.Open()
			eventually(t, "the change is seen there", func() bool { return nameOf(there) == tt.name })
			check(t, "counter there", counterOf(there), tt.counter)
			if tt.left > 0 {
				check(t, "counter here", counterOf(here), 1)
			}
		})
	}
}

// A renewed cookie that comes before the news of its renewal opens the session: what is
// remembered and does not fit the cookie is looked at again.
func TestStaleReadOfARenewedSession(t *testing.T) {
	p := newPair(t)
	here, there := p.begin(t)
	p.gate.HoldPushes()
	here.post(renew)
	p.changed(t)
	there.jar = here.copy().jar
	check(t, "name there", nameOf(there), "x")
	check(t, "what that took", p.gate.Took(), "eval")
	there.get(count)
	there.post(count)
	check(t, "counter here", counterOf(here), 2)
}

// What a process has written itself it sees at once, told of it or not.
func TestStaleReadsOfOwnWrites(t *testing.T) {
	p := newPair(t)
	_, there := p.begin(t)
	p.gate.HoldPushes()
	there.post(setName("y"))
	check(t, "name after a change", nameOf(there), "y")
	there.get(setName("z"))
	check(t, "name after another", nameOf(there), "z")
	old := there.copy()
	there.post(renew)
	check(t, "name after a renewal", nameOf(there), "z")
	check(t, "name under the cookie of before", nameOf(old), "")
	old = there.copy()
	there.post(logout)
	p.changed(t)
	check(t, "name after a logout", nameOf(old), "")
	there.get(setName("a"))
	check(t, "name in a new session", nameOf(there), "a")
}

// The news of a logout do not only come with what Redis pushes.
func TestLogoutIsSeenElsewhere(t *testing.T) {
	for name, happens := range map[string]func(p *pair, here *visitor){
		"by what Redis pushes": func(p *pair, here *visitor) { here.post(logout) },
		"although the connection broke before": func(p *pair, here *visitor) {
			p.gate.Break()
			here.post(logout)
		},
		"although the connection broke after": func(p *pair, here *visitor) {
			p.gate.HoldPushes()
			here.post(logout)
			p.gate.Break()
		},
		"although Redis closed the connection": func(p *pair, here *visitor) {
			p.gate.HoldPushes()
			here.post(logout)
			p.admin.ClientKillByFilter(t.Context(), "USER", redistest.User)
		},
		"as everything is deleted": func(p *pair, here *visitor) { p.admin.FlushAll(t.Context()) },
	} {
		t.Run(name, func(t *testing.T) {
			p := newPair(t)
			here, there := p.begin(t)
			happens(p, here)
			start := time.Now()
			eventually(t, "the logout is seen", func() bool { return nameOf(there) == "" })
			t.Logf("seen after %v", time.Since(start))
		})
	}
}

// Where the network drops everything, nothing but MaxStaleness ends what is remembered.
func TestMaxStalenessBoundsWhatNobodyHears(t *testing.T) {
	const staleness = time.Second
	for name, change := range map[string]func(o *redis.Options){
		"without": func(*redis.Options) {},
		"with":    func(o *redis.Options) { o.ClientSideCacheConfig.MaxStaleness = staleness },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := newPair(t, change)
			here, there := p.begin(t)
			p.gate.HoldAll()
			defer p.gate.Open()
			here.post(logout)
			ends := time.Now().Add(2 * staleness)
			if name == "without" {
				for time.Now().Before(ends) {
					check(t, "name", nameOf(there), "x")
					time.Sleep(10 * time.Millisecond)
				}
				return
			}
			time.Sleep(time.Until(ends))
			expectUnavailable(t, "a read", there.get(look))
		})
	}
}

// A cache takes no more memory than it is given.
func TestCacheIsBounded(t *testing.T) {
	addr := startCaching(t)
	client := newClient(t, addr, caching, func(o *redis.Options) { o.ClientSideCacheConfig.MaxEntries = 100 })
	m := newManager(t, session.Options{Store: &session.RedisStore{Client: newClient(t, addr)}})
	cached := newManager(t, session.Options{Store: &session.RedisStore{Client: client}}).Handler(app)
	for range 300 {
		v := newVisitor(m)
		v.get(setName("x"))
		v.server = cached
		check(t, "name", nameOf(v), "x")
	}
	if n := client.CSCStats().Entries; n == 0 || n > 100 {
		t.Errorf("%d entries, want 100 at most", n)
	}
}

// Where go-redis cannot cache, and under load together with pipelining, reads go to Redis.
func TestCacheIsNotUsed(t *testing.T) {
	for name, open := range map[string]func(addr string) session.RedisClient{
		"in another database": func(addr string) session.RedisClient {
			return newClient(t, addr, caching, func(o *redis.Options) { o.DB = 1 })
		},
		"with pipelining": func(addr string) session.RedisClient { return clientKinds["caching and pipelining"](t, addr) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			addr := startCaching(t)
			redistest.Allow(t, addr, redistest.SelectRights)
			gate := faultproxy.NewGate(t, addr)
			v := newVisitor(newManager(t, session.Options{Store: &session.RedisStore{Client: open(gate.Addr)}}))
			v.get(setName("x"))
			time.Sleep(2 * time.Second) // so that it is not read from Redis because it has just been written
			v.get(look)
			gate.Took()
			const tabs, requests = 16, 100
			var wg sync.WaitGroup
			for range tabs {
				tab := v.copy()
				wg.Go(func() {
					for range requests {
						tab.get(look)
					}
				})
			}
			wg.Wait()
			reads := strings.Count(gate.Took(), "get")
			t.Logf("%d of %d reads were asked of Redis", reads, tabs*requests)
			if reads <= tabs { // how many go into one pipeline is a matter of how busy the machine is
				t.Error("and docs/redis.md says that they are")
			}
		})
	}
}

// WaitReplicas holds with a client that caches.
func TestCachingWaitsForReplicas(t *testing.T) {
	primary, _, replica := slowReplica(t, 0)
	redistest.Allow(t, primary.Options().Addr, redistest.CacheRights)
	store := &session.RedisStore{Client: newClient(t, primary.Options().Addr, caching), WaitReplicas: 1}
	m := newManager(t, session.Options{Store: store})
	for range 20 {
		lifeOfASession(t, m)
		v := newVisitor(m)
		v.get(setName("x"))
		check(t, "sessions that the replica has", replica.DBSize(t.Context()).Val(), 1)
		v.get(logout)
		check(t, "sessions that the replica has", replica.DBSize(t.Context()).Val(), 0)
	}
}

// What requests cost with a client that has the session in its memory, and with one that
// pipelines. It is as in the table above, but for what is read: from memory, or, where that
// may not be trusted, with a script, which no client answers itself.
const budgetOfClients = `
request                    | caching             | pipelining
no cookie: read            | 0                   |
no cookie: login           | set                 |
session: untouched         | 0                   |
session: untouched, POST   | eval                |
session: read              | 0                   | get
session: read, POST        | eval                |
session: write             | evalsha             | get evalsha
session: write, POST       | eval evalsha        |
session: equal write       | 0                   | get
session: login             | set del             |
session: login, POST       | eval set del        |
session: renew             | evalsha             | get evalsha
session: read, then logout | del                 | get del
session: logout, POST      | eval del            |
due: read                  | evalsha             | get evalsha
forged: read               | 0                   |
ended: read                | eval                | get eval
ended: read, POST          | eval                |
ended: write               | eval set            | get eval set
ended+session: read        | eval                | get eval get
renewed: read              | eval                | get eval
`

func TestBudgetOfClients(t *testing.T) {
	addr := startCaching(t)
	plain := &session.RedisStore{Client: newClient(t, addr)}
	plain.CompareAndSwap(t.Context(), "a", nil, nil, time.Hour) // so that Redis has the script
	gate := faultproxy.NewGate(t, addr)
	clients := map[string]session.RedisClient{
		"caching":    newClient(t, gate.Addr, caching),
		"pipelining": pipelining(t, newClient(t, gate.Addr), redis.DefaultBlockingAutoPipelineOptions()),
	}
	for _, finding := range redistest.OffBudget(budgetOfClients, func(request, client string) string {
		return budgetCost(t, gate.Took, plain, &session.RedisStore{Client: clients[client]}, request, "none")
	}) {
		t.Error(finding)
	}
}

// The time from the answer to a logout to the first request of another process that does
// not see the session any more, if that asks all the time.
func BenchmarkLogoutSeenElsewhere(b *testing.B) {
	addr := startCaching(b)
	secureAddr, file := redistest.StartTLS(b)
	certificate, err := os.ReadFile(file)
	if err != nil {
		b.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(certificate)
	secure := func(o *redis.Options) { o.TLSConfig = &tls.Config{RootCAs: roots} }
	admin := newClient(b, secureAddr, secure, func(o *redis.Options) { o.Username, o.Password = "", "" })
	admin.Do(b.Context(), "ACL", "SETUSER", redistest.User, redistest.CacheRights)
	everyMillisecond := func(o *redis.Options) { o.ClientSideCacheConfig.DrainInterval = time.Millisecond }
	for _, tt := range []struct {
		name        string
		here, there *redis.Client
		busy        bool
	}{
		{"not caching", newClient(b, addr), newClient(b, addr), false},
		{"caching", newClient(b, addr), newClient(b, addr, caching), false},
		{"caching, DrainInterval 1ms", newClient(b, addr), newClient(b, addr, caching, everyMillisecond), false},
		{"caching, over TLS", newClient(b, secureAddr, secure), newClient(b, secureAddr, secure, caching), false},
		{"caching, 16 clients at work", newClient(b, addr), newClient(b, addr, caching), true},
	} {
		b.Run(tt.name, func(b *testing.B) {
			here := newManager(b, session.Options{Store: &session.RedisStore{Client: tt.here}})
			there := newManager(b, session.Options{Store: &session.RedisStore{Client: tt.there}})
			if tt.busy {
				var others sync.WaitGroup
				done := make(chan struct{})
				defer others.Wait()
				defer close(done)
				for range 16 {
					v := newVisitor(there)
					v.get(setName("x"))
					others.Go(func() {
						for {
							select {
							case <-done:
								return
							default:
								v.get(count)
								v.get(look)
							}
						}
					})
				}
			}
			var took []time.Duration
			for b.Loop() {
				v := newVisitor(here)
				v.get(setName("x"))
				tab := v.copy()
				tab.server = there.Handler(app)
				nameOf(tab)
				v.post(logout)
				start := time.Now()
				for nameOf(tab) != "" {
					time.Sleep(20 * time.Microsecond)
				}
				took = append(took, time.Since(start))
			}
			slices.Sort(took)
			for name, i := range map[string]int{"p50-ms": len(took) / 2, "p99-ms": len(took) * 99 / 100, "max-ms": len(took) - 1} {
				b.ReportMetric(float64(took[i].Microseconds())/1000, name)
			}
			b.ReportMetric(0, "ns/op")
		})
	}
}

// The programs in docs/redis.md are those of the examples.
func TestRedisDocsPrograms(t *testing.T) {
	page, err := os.ReadFile("docs/redis.md")
	if err != nil {
		t.Fatal(err)
	}
	source, err := os.ReadFile("example_test.go")
	if err != nil {
		t.Fatal(err)
	}
	_, section, found := strings.Cut(string(page), "\n## Faster")
	if !found {
		t.Fatal("docs/redis.md has no section Faster")
	}
	programs := strings.Split(section, "```go\n")[1:]
	check(t, "programs", len(programs), 2)
	for _, program := range programs {
		program, _, _ = strings.Cut(program, "```")
		for line := range strings.Lines(program) {
			if !strings.Contains(string(source), "\t"+line) {
				t.Errorf("no example has the line %q", line)
			}
		}
	}
}
