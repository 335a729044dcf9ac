package session_test

import (
	"context"
	"net/http"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/seed-4f96e14b/session"
	"github.com/seed-4f96e14b/session/internal/redistest"
)

// A fault is what happens to a real redis-server, or to the way there, and what the
// client of an app gets meanwhile.
type fault struct {
	begin       func(t *testing.T, s *faulty)
	end         func(t *testing.T, s *faulty)
	read, write int  // the status of a GET that reads and of a POST that writes
	logout      int  // of a POST that destroys
	unknown     bool // what was refused may be done later, whole
	nobody      bool // the app logs in as nobody, as in a Redis without users
}

const (
	served  = http.StatusOK
	refused = http.StatusServiceUnavailable
)

var faults = map[string]fault{
	"hung": {
		begin: func(t *testing.T, s *faulty) { s.signal(t, syscall.SIGSTOP) },
		end:   func(t *testing.T, s *faulty) { s.signal(t, syscall.SIGCONT) },
		read:  refused, write: refused, logout: refused, unknown: true,
	},
	"slow": {
		begin: func(t *testing.T, s *faulty) { s.do(t, "CLIENT", "PAUSE", 50, "ALL") },
		end:   func(t *testing.T, s *faulty) {},
		read:  served, write: served, logout: served,
	},
	"connections reset": {
		begin: func(t *testing.T, s *faulty) { s.dropClients(t) },
		end:   func(t *testing.T, s *faulty) {},
		read:  served, write: served, logout: served,
	},
	"BUSY with a script": {
		begin: func(t *testing.T, s *faulty) {
			s.do(t, "CONFIG", "SET", "busy-reply-threshold", 1)
			go s.scripts.Eval(context.Background(), "while true do end", nil)
			for s.admin.Ping(t.Context()).Err() == nil {
			}
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
		end:   func(t *testing.T, s *faulty) { redistest.Allow(t, s.admin.Options().Addr, redistest.Rights) },
		read:  refused, write: refused, logout: refused,
	},
	"NOPERM for keys": {
		begin: func(t *testing.T, s *faulty) { s.do(t, "ACL", "SETUSER", redistest.User, "resetkeys", "~other:*") },
		end:   func(t *testing.T, s *faulty) { redistest.Allow(t, s.admin.Options().Addr, redistest.Rights) },
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

// A faulty server has a connection for the test's own, which the faults leave alone.
type faulty struct {
	app, admin, scripts *redis.Client
	pid                 int
}

func newFaulty(t *testing.T, f fault) *faulty {
	t.Helper()
	addr := redistest.Start(t)
	one := func() *redis.Client {
		c := redis.NewClient(&redis.Options{Addr: addr, PoolSize: 1, MaxRetries: -1, ReadTimeout: time.Minute})
		t.Cleanup(func() { c.Close() })
		return c
	}
	options := redistest.Options(addr) // the rest as users leave it
	if f.nobody {
		options.Username, options.Password = "", ""
	}
	s := &faulty{admin: one(), scripts: one(), app: redis.NewClient(options)}
	t.Cleanup(func() { s.app.Close() })
	info, err := s.admin.InfoMap(t.Context(), "server").Result()
	if err != nil {
		t.Fatal(err)
	}
	if s.pid, err = strconv.Atoi(info["Server"]["process_id"]); err != nil {
		t.Fatal(err)
	}
	return s
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

func (s *faulty) signal(t *testing.T, sig syscall.Signal) {
	t.Helper()
	if err := syscall.Kill(s.pid, sig); err != nil {
		t.Fatal(err)
	}
}

// Whatever happens to Redis, the client gets the session or a 503, soon, and never a
// login page; a refused change has changed nothing; and the app goes on by itself.
func TestFaults(t *testing.T) {
	for name, f := range faults {
		t.Run(name, func(t *testing.T) {
			s := newFaulty(t, f)
			var book logBook
			const timeout = 300 * time.Millisecond
			m := newManager(t, session.Options{Store: &session.RedisStore{Client: s.app}, StoreTimeout: timeout, Logger: book.logger()})
			v := newVisitor(m)
			v.get(setName("x"))
			cookie := v.jar["__Host-sid"]

			request := func(what string, want int, request func() *http.Response) {
				t.Helper()
				lines, began := book.lines(), time.Now()
				response := request()
				took := time.Since(began)
				if response.StatusCode != want {
					t.Errorf("%s: status %d, want %d; the log: %s", what, response.StatusCode, want, book.String())
				}
				if want != refused {
					return
				}
				if len(cookies(response)) > 0 || book.lines() != lines+1 {
					t.Errorf("%s: cookies %q, %d log lines", what, cookies(response), book.lines()-lines)
				}
				if took > 10*timeout { // a bound that no busy machine breaks; go-redis alone takes 5 s and more
					t.Errorf("%s took %v, and StoreTimeout is %v", what, took, timeout)
				}
			}
			var seen string
			read := func() *http.Response { return v.get(use(func(s *session.Session) { seen = nameKey.Get(s) })) }

			f.begin(t, s)
			request("a read", f.read, read)
			if f.read == served {
				check(t, "name", seen, "x")
			}
			request("a write", f.write, func() *http.Response { return v.post(setName("y")) })
			other := v.copy()
			request("a logout", f.logout, func() *http.Response { return other.post(use(func(s *session.Session) { s.Destroy() })) })
			check(t, "cookie", v.jar["__Host-sid"], cookie)
			f.end(t, s)

			eventually(t, "the app goes on", func() bool { return read().StatusCode == served })
			switch {
			case f.logout == served:
				check(t, "name after the logout", seen, "")
			case f.write == served:
				check(t, "name", seen, "y")
			case !f.unknown:
				check(t, "name", seen, "x")
			}
			request("a login", served, func() *http.Response {
				return v.post(use(func(s *session.Session) { s.Regenerate(); nameKey.Set(s, "z") }))
			})
			check(t, "name after another login", nameOf(v), "z")
			for _, secret := range []string{cookie, secretA, "a password", redistest.Password} {
				if strings.Contains(book.String(), secret) {
					t.Error("the log has a secret")
				}
			}
		})
	}
}
