package session_test

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/seed-4f96e14b/session"
	"github.com/seed-4f96e14b/session/internal/testing/faultproxy"
	"github.com/seed-4f96e14b/session/internal/testing/redistest"
)

// A fault is what happens to a real redis-server, or on the way there, and what the
// client of an app gets meanwhile.
type fault struct {
	begin       func(t *testing.T, s *faulty)
	end         func(t *testing.T, s *faulty)
	read, write int  // the status of a GET that reads and of a POST that writes, or logs in
	logout      int  // of a POST that destroys
	unknown     bool // what was refused may be done, whole, or be done later
	nobody      bool // the app logs in as nobody, as in a Redis without users
	patient     bool // it is the client that gives up first, after as many attempts as it makes
}

const (
	served  = http.StatusOK
	refused = http.StatusServiceUnavailable
)

// What the server, or the operator, does.
var faultsOfTheServer = map[string]fault{
	"down": {
		begin: func(t *testing.T, s *faulty) { s.server.Kill() },
		end:   func(t *testing.T, s *faulty) { s.server.Start() },
		read:  refused, write: refused, logout: refused,
	},
	"hung": {
		begin: func(t *testing.T, s *faulty) { s.server.Signal(syscall.SIGSTOP) },
		end:   func(t *testing.T, s *faulty) { s.server.Signal(syscall.SIGCONT) },
		read:  refused, write: refused, logout: refused, unknown: true,
	},
	"slow": {
		begin: func(t *testing.T, s *faulty) { s.do(t, "CLIENT", "PAUSE", 50, "ALL") },
		end:   func(t *testing.T, s *faulty) {},
		read:  served, write: served, logout: served,
	},
	"connections closed": {
		begin: func(t *testing.T, s *faulty) { s.dropClients(t) },
		end:   func(t *testing.T, s *faulty) {},
		read:  served, write: served, logout: served,
	},
	"LOADING": {
		begin: func(t *testing.T, s *faulty) {
			s.do(t, "EVAL", "for i = 1, 1000 do redis.call('SET', 'other:'..i, string.rep('x', 1000), 'EX', 1000) end return 0", 0)
			s.do(t, "SAVE")
			s.server.Kill()
			s.server.Start("--appendonly", "no", "--rdbcompression", "no",
				"--key-load-delay", "10000", "--loading-process-events-interval-bytes", "1024")
			eventually(t, "it is loading", func() bool { return redis.HasErrorPrefix(s.admin.Ping(t.Context()).Err(), "LOADING") })
		},
		end: func(t *testing.T, s *faulty) { // sooner than by waiting
			s.server.Kill()
			s.server.Start("--appendonly", "no")
		},
		read: refused, write: refused, logout: refused,
	},
	"BUSY with a script": {
		begin: func(t *testing.T, s *faulty) {
			s.do(t, "CONFIG", "SET", "busy-reply-threshold", 1)
			go s.scripts.Eval(context.Background(), "while true do end", nil)
			eventually(t, "it is busy", func() bool { return s.admin.Ping(t.Context()).Err() != nil })
		},
		end:  func(t *testing.T, s *faulty) { s.do(t, "SCRIPT", "KILL") },
		read: refused, write: refused, logout: refused,
	},
	"a read-only replica": {
		begin: func(t *testing.T, s *faulty) { s.do(t, "REPLICAOF", "127.0.0.1", 1) },
		end:   func(t *testing.T, s *faulty) { s.do(t, "REPLICAOF", "NO", "ONE") },
		read:  served, write: refused, logout: refused,
	},
	"MASTERDOWN": {
		begin: func(t *testing.T, s *faulty) {
			s.do(t, "CONFIG", "SET", "replica-serve-stale-data", "no")
			s.do(t, "REPLICAOF", "127.0.0.1", 1)
		},
		end:  func(t *testing.T, s *faulty) { s.do(t, "REPLICAOF", "NO", "ONE") },
		read: refused, write: refused, logout: refused,
	},
	"NOREPLICAS": {
		begin: func(t *testing.T, s *faulty) { s.do(t, "CONFIG", "SET", "min-replicas-to-write", 1) },
		end:   func(t *testing.T, s *faulty) { s.do(t, "CONFIG", "SET", "min-replicas-to-write", 0) },
		read:  served, write: refused, logout: refused,
	},
	"out of memory": {
		begin: func(t *testing.T, s *faulty) { s.do(t, "CONFIG", "SET", "maxmemory", 1) },
		end:   func(t *testing.T, s *faulty) { s.do(t, "CONFIG", "SET", "maxmemory", 0) },
		read:  served, write: refused, logout: served,
	},
	"NOAUTH": {
		begin: func(t *testing.T, s *faulty) {
			s.do(t, "CONFIG", "SET", "requirepass", "a password that the app has not")
			s.dropClients(t)
		},
		end:    func(t *testing.T, s *faulty) { s.do(t, "CONFIG", "SET", "requirepass", "") },
		nobody: true,
		read:   refused, write: refused, logout: refused,
	},
	"WRONGPASS": {
		begin: func(t *testing.T, s *faulty) {
			s.do(t, "ACL", "SETUSER", redistest.User, "resetpass", ">a password that the app has not")
			s.dropClients(t)
		},
		end:  func(t *testing.T, s *faulty) { s.do(t, "ACL", "SETUSER", redistest.User, ">"+redistest.Password) },
		read: refused, write: refused, logout: refused,
	},
	"NOPERM": {
		begin: func(t *testing.T, s *faulty) { s.do(t, "ACL", "SETUSER", redistest.User, "nocommands") },
		end:   func(t *testing.T, s *faulty) { redistest.Allow(t, s.server.Addr, redistest.Rights) },
		read:  refused, write: refused, logout: refused,
	},
	"NOPERM for keys": {
		begin: func(t *testing.T, s *faulty) { s.do(t, "ACL", "SETUSER", redistest.User, "resetkeys", "~other:*") },
		end:   func(t *testing.T, s *faulty) { redistest.Allow(t, s.server.Addr, redistest.Rights) },
		read:  refused, write: refused, logout: refused,
	},
	"too many clients": {
		begin: func(t *testing.T, s *faulty) {
			s.dropClients(t)
			s.do(t, "CONFIG", "SET", "maxclients", 1)
		},
		end:  func(t *testing.T, s *faulty) { s.do(t, "CONFIG", "SET", "maxclients", 1000) },
		read: refused, write: refused, logout: refused,
	},
}

// What the network does. A write that the server has done is recognised although its
// reply was lost; that a key is gone says nothing of who deleted it.
var faultsOnTheWire = map[string]fault{
	"every command reset before it is done": wire(everything(faultproxy.ResetBefore), fault{read: refused, write: refused, logout: refused}),
	"every command reset after it is done":  wire(everything(faultproxy.ResetAfter), fault{read: refused, write: refused, logout: refused}),
	"every write reset before it is done":   wire(writes(faultproxy.ResetBefore), fault{read: served, write: refused, logout: refused}),
	"every write reset after it is done":    wire(writes(faultproxy.ResetAfter), fault{read: served, write: served, logout: refused, unknown: true, patient: true}),
	"every command late":                    wire(everything(faultproxy.Delay(20*time.Millisecond)), fault{read: served, write: served, logout: served}),
	"every reply lost": {
		begin: func(t *testing.T, s *faulty) { s.proxy.Break(everything(s.proxy.Swallow)) },
		end:   func(t *testing.T, s *faulty) { s.proxy.Break(nil) },
		read:  refused, write: refused, logout: refused,
	},
	"every reply to a write lost": {
		begin: func(t *testing.T, s *faulty) { s.proxy.Break(writes(s.proxy.Swallow)) },
		end:   func(t *testing.T, s *faulty) { s.proxy.Break(nil) },
		read:  served, write: refused, logout: refused, unknown: true,
	},
	"each command reset once before it is done": wire(everySecond(faultproxy.ResetBefore), fault{read: served, write: served, logout: served}),
	"each command reset once after it is done":  wire(everySecond(faultproxy.ResetAfter), fault{read: served, write: served, logout: served}),
}

func wire(decide func(string) faultproxy.Fault, f fault) fault {
	f.begin = func(t *testing.T, s *faulty) { s.proxy.Break(decide) }
	f.end = func(t *testing.T, s *faulty) { s.proxy.Break(nil) }
	return f
}

func everything(f faultproxy.Fault) func(string) faultproxy.Fault {
	return func(string) faultproxy.Fault { return f }
}

func writes(f faultproxy.Fault) func(string) faultproxy.Fault {
	return func(command string) faultproxy.Fault {
		if command == "get" {
			return nil
		}
		return f
	}
}

func everySecond(f faultproxy.Fault) func(string) faultproxy.Fault {
	n := 0
	return func(string) faultproxy.Fault {
		if n++; n%2 == 0 {
			return nil
		}
		return f
	}
}

// A faulty server has connections for the test's own, which the faults leave alone.
type faulty struct {
	server         *redistest.Process
	proxy          *faultproxy.Proxy
	admin, scripts *redis.Client
}

func newFaulty(t *testing.T) *faulty {
	t.Helper()
	s := &faulty{server: redistest.NewProcess(t)}
	s.server.Start()
	s.server.AwaitReady()
	s.proxy = faultproxy.New(t, s.server.Addr)
	s.admin, s.scripts = s.patient(t), s.patient(t)
	return s
}

func (s *faulty) patient(t *testing.T) *redis.Client {
	c := redis.NewClient(&redis.Options{Addr: s.server.Addr, PoolSize: 1, MaxRetries: -1, ReadTimeout: time.Minute})
	t.Cleanup(func() { c.Close() })
	c.Ping(t.Context())
	return c
}

// client returns a client as users make it.
func client(t *testing.T, addr string) *redis.Client {
	c := redis.NewClient(redistest.Options(addr))
	t.Cleanup(func() { c.Close() })
	return c
}

func (s *faulty) do(t *testing.T, args ...any) {
	t.Helper()
	if err := s.admin.Do(t.Context(), args...).Err(); err != nil {
		t.Fatalf("%v: %v", args, err)
	}
}

func (s *faulty) dropClients(t *testing.T) {
	t.Helper()
	s.do(t, "CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
}

// keys returns the keys of sessions, and fails for one without a time to live.
func (s *faulty) keys(t *testing.T) []string {
	t.Helper()
	keys, err := s.admin.Keys(t.Context(), "sess:*").Result()
	if err != nil {
		t.Fatal(err)
	}
	for _, key := range keys {
		if ttl := s.admin.PTTL(t.Context(), key).Val(); ttl == -1 {
			t.Errorf("a key without a time to live")
		}
	}
	return keys
}

func TestFaults(t *testing.T) {
	for name, f := range faultsOfTheServer {
		t.Run(name, func(t *testing.T) {
			s := newFaulty(t)
			app := client(t, s.server.Addr)
			if f.nobody {
				app = redistest.Admin(t, s.server.Addr)
			}
			expectFault(t, s, f, app)
		})
	}
}

func TestFaultsOnTheWire(t *testing.T) {
	for name, f := range faultsOnTheWire {
		t.Run(name, func(t *testing.T) {
			s := newFaulty(t)
			expectFault(t, s, f, client(t, s.proxy.Addr))
			if s.proxy.Broken() == 0 {
				t.Error("the proxy broke nothing")
			}
		})
	}
}

// faultTimeout is the StoreTimeout of these tests. go-redis by itself would take five
// seconds and more.
const faultTimeout = 300 * time.Millisecond

// soon makes a request that may be refused. A refusal sends no cookie, logs one line, and
// comes within StoreTimeout and 50 ms. A busy machine may be late with one, but not again
// and again.
func soon(t *testing.T, what string, book *logBook, want int, timeout time.Duration, request func() *http.Response, again ...func()) {
	t.Helper()
	var took time.Duration
	for attempt := range 10 {
		if attempt > 0 {
			for _, prepare := range again {
				prepare()
			}
		}
		lines, began := book.lines(), time.Now()
		response := request()
		took = time.Since(began)
		if response.StatusCode != want {
			t.Errorf("%s: status %d, want %d; the log: %s", what, response.StatusCode, want, book.String())
		}
		if want != refused {
			return
		}
		if len(cookies(response)) > 0 || book.lines() != lines+1 {
			t.Errorf("%s: cookies %q, %d log lines", what, cookies(response), book.lines()-lines)
		}
		if took <= timeout+50*time.Millisecond || t.Failed() {
			return
		}
	}
	t.Errorf("%s took %v, and StoreTimeout is %v", what, took, timeout)
}

// Whatever happens to Redis, the client gets the session or a 503, soon, and never a
// login page; a refused change has changed nothing; and the app goes on by itself.
func expectFault(t *testing.T, s *faulty, f fault, app *redis.Client) {
	var book logBook
	timeout := faultTimeout
	if f.patient || f.read == served && f.write == served && f.logout == served {
		timeout = time.Minute // nothing is to be given up, however busy the machine
	}
	m := newManager(t, session.Options{Store: &session.RedisStore{Client: app}, StoreTimeout: timeout, Logger: book.logger()})
	v := newVisitor(m)
	v.get(setName("w"))
	v.get(setName("x")) // so the server has the script
	cookie := v.jar["__Host-sid"]
	var seen string
	read := func() *http.Response { return v.get(use(func(s *session.Session) { seen = nameKey.Get(s) })) }

	f.begin(t, s)
	soon(t, "a read", &book, f.read, timeout, read)
	if f.read == served {
		check(t, "name", seen, "x")
	}
	soon(t, "a write", &book, f.write, timeout, func() *http.Response { return v.post(setName("y")) })
	stranger := newVisitor(m)
	soon(t, "a login", &book, f.write, timeout, func() *http.Response { return stranger.post(setName("stranger")) })
	other := v.copy()
	soon(t, "a logout", &book, f.logout, timeout, func() *http.Response { return other.post(destroy) })
	check(t, "cookie", v.jar["__Host-sid"], cookie)
	f.end(t, s)

	eventually(t, "the app goes on", func() bool { return read().StatusCode == served })
	want := []string{"x"}
	switch {
	case f.unknown:
		want = []string{"x", "y", ""}
	case f.logout == served:
		want = []string{""}
	case f.write == served:
		want = []string{"y"}
	}
	if !slices.Contains(want, seen) {
		t.Errorf("afterwards the name is %q, want one of %q", seen, want)
	}
	login := use(func(s *session.Session) { s.Regenerate(); nameKey.Set(s, "z") })
	eventually(t, "a login", func() bool { return v.post(login).StatusCode == served })
	check(t, "name after the login", nameOf(v), "z")
	if keys := len(s.keys(t)); !f.unknown && keys != 1+len(stranger.jar) {
		t.Errorf("Redis has %d sessions, and the clients %d", keys, 1+len(stranger.jar))
	}
	for _, secret := range []string{cookie, v.jar["__Host-sid"], secretA, "a password", redistest.Password} {
		if strings.Contains(book.String(), secret) {
			t.Error("the log has a secret")
		}
	}
}

// An app may start before its Redis: who needs no session is served, and the others when
// Redis is there.
func TestRedisDownAtStart(t *testing.T) {
	earlier := newVisitor(newManager(t, session.Options{}))
	earlier.get(setName("x"))

	server := redistest.NewProcess(t)
	var book logBook
	m := newManager(t, session.Options{Store: &session.RedisStore{Client: client(t, server.Addr)}, StoreTimeout: faultTimeout, Logger: book.logger()})
	v := newVisitor(m)
	v.jar = earlier.jar
	check(t, "untouched", v.get(untouched).StatusCode, served)
	check(t, "without a cookie", newVisitor(m).post(look).StatusCode, served)
	check(t, "log lines", book.lines(), 0)
	soon(t, "a read", &book, refused, faultTimeout, func() *http.Response { return v.get(look) })
	soon(t, "a POST", &book, refused, faultTimeout, func() *http.Response { return v.post(untouched) })
	soon(t, "a login", &book, refused, faultTimeout, func() *http.Response { return newVisitor(m).post(setName("y")) })

	server.Start()
	server.AwaitReady()
	eventually(t, "a login", func() bool { return v.post(setName("y")).StatusCode == served })
	check(t, "name", nameOf(v), "y")
}

// A server that dies between load and save: what the handler answered does not go out, and
// what was there before is there after.
func TestRedisKilledMidRequest(t *testing.T) {
	for name, do := range map[string]func(s *session.Session){
		"change":     func(s *session.Session) { nameKey.Set(s, "y") },
		"renew":      func(s *session.Session) { s.Renew(0) },
		"regenerate": func(s *session.Session) { s.Regenerate(); nameKey.Set(s, "y") },
		"destroy":    func(s *session.Session) { s.Destroy() },
	} {
		t.Run(name, func(t *testing.T) {
			server := redistest.NewProcess(t)
			server.Start()
			server.AwaitReady()
			var book logBook
			m := newManager(t, session.Options{Store: &session.RedisStore{Client: client(t, server.Addr)}, StoreTimeout: faultTimeout, Logger: book.logger()})
			v := newVisitor(m)
			check(t, "login", v.get(setName("x")).StatusCode, served)
			soon(t, "the request", &book, refused, faultTimeout, func() *http.Response {
				return v.get(func(w http.ResponseWriter, r *http.Request) {
					s := session.From(r.Context())
					check(t, "name", nameKey.Get(s), "x")
					server.Kill()
					do(s)
					w.Header().Set("Location", "/welcome")
					w.WriteHeader(http.StatusSeeOther)
				})
			}, func() { // and again
				server.Start()
				server.AwaitReady()
				eventually(t, "the session is there", func() bool { return nameOf(v) == "x" })
			})
			server.Start()
			server.AwaitReady()
			eventually(t, "the session is there", func() bool { return nameOf(v) == "x" })
			check(t, "write", v.post(setName("z")).StatusCode, served)
			check(t, "name", nameOf(v), "z")
		})
	}
}

// A server that is killed while many write, again and again: what a client was told is
// kept, and no record is half there.
func TestRedisKilledAgainAndAgain(t *testing.T) {
	server := redistest.NewProcess(t)
	server.Start()
	server.AwaitReady()
	var book logBook
	m := newManager(t, session.Options{Store: &session.RedisStore{Client: client(t, server.Addr)}, StoreTimeout: faultTimeout, Logger: book.logger()})
	v := newVisitor(m)
	v.get(use(func(s *session.Session) { counterKey.Set(s, 0) }))
	var told, tried atomic.Int64
	for range 15 {
		eventually(t, "the app goes on", func() bool { return v.get(look).StatusCode == served })
		var writers sync.WaitGroup
		for range 4 {
			tab := v.copy()
			writers.Go(func() {
				for {
					tried.Add(1)
					if tab.post(count).StatusCode != served {
						return
					}
					told.Add(1)
				}
			})
		}
		login := newVisitor(m)
		writers.Go(func() {
			for login.post(use(func(s *session.Session) { s.Regenerate(); nameKey.Set(s, "another") })).StatusCode == served {
				login.jar = make(map[string]string)
			}
		})
		time.Sleep(20 * time.Millisecond)
		server.Kill()
		writers.Wait()
		server.Start()
		server.AwaitReady()
	}
	eventually(t, "the app goes on", func() bool { return v.get(look).StatusCode == served })
	if n := int64(counterOf(v)); n < told.Load() || n > tried.Load() {
		t.Errorf("the counter is %d after %d increments that were answered with success, of %d", n, told.Load(), tried.Load())
	}
	redistest.Allow(t, server.Addr, redistest.ListRights)
	for s, err := range m.All(t.Context()) {
		if err != nil || len(s.Keys()) == 0 {
			t.Errorf("a session with the keys %q, error %v", s.Keys(), err)
		}
	}
	if strings.Contains(book.String(), "unreadable") {
		t.Errorf("the log: %s", book.String())
	}
}

// A session that is gone when it is to be saved has ended: the response goes out without a
// cookie, and nothing is made anew.
func TestKeyGoneBetweenLoadAndSave(t *testing.T) {
	for name, lose := range map[string]func(t *testing.T, s *faulty, key string){
		"deleted": func(t *testing.T, s *faulty, key string) { s.do(t, "DEL", key) },
		"expired": func(t *testing.T, s *faulty, key string) {
			s.do(t, "PEXPIRE", key, 1)
			eventually(t, "it has expired", func() bool { return s.admin.Exists(t.Context(), key).Val() == 0 })
		},
		"evicted": func(t *testing.T, s *faulty, key string) {
			s.do(t, "CONFIG", "SET", "maxmemory-policy", "allkeys-random")
			s.do(t, "CONFIG", "SET", "maxmemory", 1)
			s.admin.Set(t.Context(), "makes", "room", time.Minute)
			s.do(t, "CONFIG", "SET", "maxmemory", 0)
		},
		"of another type": func(t *testing.T, s *faulty, key string) {
			s.do(t, "DEL", key)
			s.do(t, "HSET", key, "field", "value")
			s.do(t, "EXPIRE", key, 1000)
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := newFaulty(t)
			for what, do := range map[string]func(s *session.Session){
				"change": func(s *session.Session) { nameKey.Set(s, "y") },
				"renew":  func(s *session.Session) { s.Renew(0); nameKey.Set(s, "y") },
				"save":   func(s *session.Session) { nameKey.Set(s, "y"); s.Save() },
			} {
				s.do(t, "FLUSHALL")
				var book logBook
				v := newVisitor(newManager(t, session.Options{Store: &session.RedisStore{Client: client(t, s.server.Addr)}, Logger: book.logger()}))
				v.get(setName("x"))
				key := s.keys(t)[0]
				response := v.post(use(func(ss *session.Session) {
					check(t, what+": name before", nameKey.Get(ss), "x")
					lose(t, s, key)
					do(ss)
				}))
				check(t, what+": status", response.StatusCode, served)
				check(t, what+": cookies", len(cookies(response)), 0)
				check(t, what+": log lines", book.lines(), 1)
				check(t, what+": name", nameOf(v), "")
				if name == "of another type" {
					check(t, what+": type", s.admin.Type(t.Context(), key).Val(), "hash")
				} else {
					check(t, what+": keys", len(s.keys(t)), 0)
				}
				check(t, what+": login", v.post(setName("z")).StatusCode, served)
				check(t, what+": name after the login", nameOf(v), "z")
			}
		})
	}
}

// Replies that come to the wrong request show nobody what another has: who gets one is
// anonymous, and may begin a session, as with any cookie that opens nothing.
func TestSwappedRepliesShowNoForeignSession(t *testing.T) {
	s := newFaulty(t)
	m := newManager(t, session.Options{Store: &session.RedisStore{Client: client(t, s.proxy.Addr)}})
	visitors := make([]*visitor, 8)
	for i := range visitors {
		visitors[i] = newVisitor(m)
		visitors[i].get(setName(fmt.Sprint(i)))
	}
	swap := faultproxy.Swap(time.Millisecond)
	s.proxy.Break(func(command string) faultproxy.Fault {
		if command == "get" {
			return swap
		}
		return nil
	})
	var anonymous atomic.Int64
	var reading sync.WaitGroup
	for i, v := range visitors {
		reading.Go(func() {
			for n := range 10_000 / len(visitors) {
				do := look
				if n%10 == 0 {
					do = use(func(s *session.Session) { nameKey.Set(s, fmt.Sprint(i)) })
				}
				var seen string
				response := v.get(func(w http.ResponseWriter, r *http.Request) {
					seen = nameKey.Get(session.From(r.Context()))
					do(w, r)
				})
				if response.StatusCode != served || seen != "" && seen != fmt.Sprint(i) {
					t.Errorf("status %d, cookies %q, name %q of %d", response.StatusCode, cookies(response), seen, i)
				}
				if seen == "" {
					anonymous.Add(1)
				}
			}
		})
	}
	reading.Wait()
	if anonymous.Load() == 0 {
		t.Error("no reply was swapped")
	}
	s.proxy.Break(nil)
	for i, v := range visitors {
		check(t, "name", nameOf(v), fmt.Sprint(i))
	}
}
