package session_test

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2/server"
	"github.com/redis/go-redis/v9"
	"github.com/seed-4f96e14b/session"
	"github.com/seed-4f96e14b/session/internal/testing/redistest"
)

// A refusal is a Redis that a client cannot talk to.
type refusal struct {
	begin func(t *testing.T) (app session.RedisClient, mend func())
	says  string // in the log, as a regular expression
	slow  bool   // go-redis does not let go of a connection at once that is closed at its HELLO
}

// The clients are as users make them.
var refusals = map[string]refusal{
	"nothing listens": {says: "connection refused", begin: func(t *testing.T) (session.RedisClient, func()) {
		server := redistest.NewProcess(t)
		return client(t, server.Addr), func() { server.Start(); server.AwaitReady() }
	}},
	"dead, with many connections": {says: "connection refused", begin: func(t *testing.T) (session.RedisClient, func()) {
		s := newFaulty(t)
		app := client(t, s.server.Addr)
		connect(t, s, app, 8)
		s.server.Kill()
		return app, func() { s.server.Start(); s.server.AwaitReady() }
	}},
	"no such host": {says: "no such host", begin: func(t *testing.T) (session.RedisClient, func()) {
		return client(t, "redis..internal:6379"), nil
	}},
	"closes at once": {slow: true, says: "EOF|connection reset by peer|broken pipe", begin: func(t *testing.T) (session.RedisClient, func()) {
		d := newDoor(t, closes)
		return client(t, d.addr), func() { d.open(leadsTo(redistest.Start(t))) }
	}},
	"closes at once, with TLS": {says: "EOF|connection reset by peer|broken pipe", begin: func(t *testing.T) (session.RedisClient, func()) {
		d := newDoor(t, closes)
		app, guard := tlsClient(t, d.addr)
		return app, func() { d.open(guard(redistest.Start(t))) }
	}},
	"a certificate of an unknown CA": {says: "x509: certificate signed by unknown authority", begin: func(t *testing.T) (session.RedisClient, func()) {
		other, _ := redistest.StartTLS(t)
		d := newDoor(t, leadsTo(other))
		app, guard := tlsClient(t, d.addr)
		return app, func() { d.open(guard(redistest.Start(t))) }
	}},
	"no TLS": {says: "tls: ", begin: func(t *testing.T) (session.RedisClient, func()) {
		plain := redistest.Start(t)
		d := newDoor(t, func(conn net.Conn) {
			io.WriteString(conn, "-ERR Protocol error: unauthenticated multibulk length\r\n")
			leadsTo(plain)(conn)
		})
		app, guard := tlsClient(t, d.addr)
		return app, func() { d.open(guard(plain)) }
	}},
	"WRONGPASS": {says: "WRONGPASS", begin: func(t *testing.T) (session.RedisClient, func()) {
		s := newFaulty(t)
		s.do(t, "ACL", "SETUSER", redistest.User, "resetpass", ">a password that the app has not")
		return client(t, s.server.Addr), func() { s.do(t, "ACL", "SETUSER", redistest.User, ">"+redistest.Password) }
	}},
	"NOAUTH": {says: "NOAUTH", begin: func(t *testing.T) (session.RedisClient, func()) {
		s := newFaulty(t)
		s.do(t, "CONFIG", "SET", "requirepass", "a password that the app has not")
		return redistest.Admin(t, s.server.Addr), func() { s.do(t, "CONFIG", "SET", "requirepass", "") }
	}},
	"a cluster that is not there": {says: "connection refused", begin: func(t *testing.T) (session.RedisClient, func()) {
		node := redistest.NewProcess(t)
		return clusterClient(t, node.Addr), func() { startCluster(t, node) }
	}},
	"a cluster whose node has died": {says: "connection refused", begin: func(t *testing.T) (session.RedisClient, func()) {
		node := redistest.NewProcess(t)
		startCluster(t, node)
		app := clusterClient(t, node.Addr)
		check(t, "an answer before the store has the client", app.Get(t.Context(), "sess:none").Err(), error(redis.Nil))
		m := newManager(t, session.Options{Store: &session.RedisStore{Client: app}})
		check(t, "login", newVisitor(m).get(setName("w")).StatusCode, served)
		node.Kill()
		return app, func() { startCluster(t, node) }
	}},
	"a Sentinel whose primary is dead": {says: "connection refused", begin: func(t *testing.T) (session.RedisClient, func()) {
		primary := redistest.NewProcess(t)
		app := redis.NewFailoverClient(&redis.FailoverOptions{
			MasterName: "sessions", Username: redistest.User, Password: redistest.Password, SentinelAddrs: []string{sentinelOf(t, primary.Addr)},
		})
		t.Cleanup(func() { app.Close() })
		return app, func() { primary.Start(); primary.AwaitReady() }
	}},
}

// What Redis refuses is answered at once, though go-redis would try again for longer than
// StoreTimeout; the log says why; and nobody has to tell the app that Redis is back.
func TestRefusedAtOnce(t *testing.T) {
	earlier := newVisitor(newManager(t, session.Options{}))
	earlier.get(setName("x"))
	for name, refusal := range refusals {
		t.Run(name, func(t *testing.T) {
			app, mend := refusal.begin(t)
			atOnce := time.Second
			if refusal.slow {
				atOnce *= 2
			}
			says := regexp.MustCompile(refusal.says)
			var book logBook
			var failed error
			m := newManager(t, session.Options{
				Store: &session.RedisStore{Client: app}, StoreTimeout: 10 * time.Second, Logger: book.logger(),
				ErrorHandler: func(_ http.ResponseWriter, _ *http.Request, err error) { failed = err },
			})
			v := newVisitor(m)
			v.jar = earlier.copy().jar
			for what, request := range map[string]func() *http.Response{
				"a read":   func() *http.Response { return v.get(use(readAll)) },
				"a POST":   func() *http.Response { return v.post(untouched) },
				"a login":  func() *http.Response { return newVisitor(m).post(setName("y")) },
				"a logout": func() *http.Response { return v.copy().get(destroy) },
			} {
				lines, began := book.lines(), time.Now()
				response := request()
				took := time.Since(began)
				t.Logf("%s took %v: %v", what, took.Round(time.Millisecond), failed)
				check(t, what+": status", response.StatusCode, refused)
				check(t, what+": cookies", len(cookies(response)), 0)
				check(t, what+": log lines", book.lines()-lines, 1)
				if took > atOnce {
					t.Errorf("%s took %v", what, took)
				}
				if !errors.Is(failed, session.ErrUnavailable) || !says.MatchString(failed.Error()) || strings.Contains(failed.Error(), "no answer") {
					t.Errorf("%s: the error %v, want %q", what, failed, refusal.says)
				}
			}
			check(t, "lines with the cause", len(says.FindAllString(book.String(), -1)), book.lines())
			for _, secret := range []string{earlier.jar["__Host-sid"], redistest.Password, "a password"} {
				if strings.Contains(book.String(), secret) {
					t.Error("the log has a secret")
				}
			}
			if mend != nil {
				mend()
				eventually(t, "a login", func() bool { return v.post(setName("y")).StatusCode == served })
				check(t, "name", nameOf(v), "y")
			}
		})
	}
}

// So is each of many at once, of two managers with one client: none of them waits for a dial
// that another makes.
func TestRefusedAtOnceInACrowd(t *testing.T) {
	server := redistest.NewProcess(t)
	app := client(t, server.Addr)
	var book logBook
	var crowd sync.WaitGroup
	var slowest atomic.Int64
	const requests = 200
	var visitors []*visitor
	for range 2 {
		visitors = append(visitors, newVisitor(newManager(t, session.Options{
			Store: &session.RedisStore{Client: app}, StoreTimeout: 10 * time.Second, Logger: book.logger(),
		})))
	}
	for i := range requests {
		crowd.Go(func() {
			began := time.Now()
			check(t, "status", visitors[i%2].copy().post(setName("x")).StatusCode, refused)
			for took := int64(time.Since(began)); ; {
				if most := slowest.Load(); took <= most || slowest.CompareAndSwap(most, took) {
					return
				}
			}
		})
	}
	crowd.Wait()
	t.Logf("the slowest took %v", time.Duration(slowest.Load()))
	if slowest := time.Duration(slowest.Load()); slowest > 5*time.Second {
		t.Errorf("the slowest took %v", slowest)
	}
	check(t, "lines with the cause", strings.Count(book.String(), "connection refused"), requests)
	server.Start()
	server.AwaitReady()
	for _, v := range visitors {
		eventually(t, "a login", func() bool { return v.post(setName("x")).StatusCode == served })
	}
}

// The next request after a Redis is back has it.
func TestRefusalIsNotRemembered(t *testing.T) {
	server := redistest.NewProcess(t)
	v := newVisitor(newManager(t, session.Options{Store: &session.RedisStore{Client: client(t, server.Addr)}, StoreTimeout: 10 * time.Second}))
	for range 3 {
		check(t, "status while it is down", v.post(setName("x")).StatusCode, refused)
		server.Start("--appendonly", "no")
		server.AwaitReady()
		check(t, "status when it is back", v.post(setName("x")).StatusCode, served)
		server.Kill()
		v.jar = make(map[string]string)
	}
}

// Connections that are refused fail nobody who has one, or gets one that becomes free.
func TestRefusalBesideConnectionsThatWork(t *testing.T) {
	for name, option := range map[string]func(o *redis.Options){
		"by default":        func(*redis.Options) {},
		"with MinIdleConns": func(o *redis.Options) { o.MinIdleConns = 3 },
	} {
		t.Run(name, func(t *testing.T) {
			s := newFaulty(t)
			d := newDoor(t, leadsTo(s.server.Addr))
			options := redistest.Options(d.addr)
			option(options)
			app := redis.NewClient(options)
			t.Cleanup(func() { app.Close() })
			var book logBook
			m := newManager(t, session.Options{Store: &session.RedisStore{Client: app}, StoreTimeout: 10 * time.Second, Logger: book.logger()})
			v := newVisitor(m)
			v.get(setName("x"))
			d.close()
			for range 5 {
				s.do(t, "CLIENT", "PAUSE", 300, "ALL") // longer than go-redis waits before it dials again
				var reading sync.WaitGroup
				for range 3 {
					reading.Go(func() { check(t, "name", nameOf(v), "x") })
				}
				reading.Wait()
			}
			check(t, "log", book.String(), "")
		})
	}
}

// Where Redis does not answer in time, the error also says what is known of the cause.
func TestNoAnswerHasACause(t *testing.T) {
	s := newFaulty(t)
	d := newDoor(t, leadsTo(s.proxy.Addr))
	var book logBook
	m := newManager(t, session.Options{Store: &session.RedisStore{Client: client(t, d.addr)}, StoreTimeout: faultTimeout, Logger: book.logger()})
	v := newVisitor(m)
	v.get(setName("x"))
	d.close()
	asked := make(chan struct{})
	s.proxy.BreakNext("get", func(ask func() []byte) []byte {
		close(asked)
		return s.proxy.Swallow(ask)
	})
	var first sync.WaitGroup
	first.Go(func() { check(t, "status of who has the connection", v.copy().get(look).StatusCode, refused) })
	<-asked
	check(t, "status of who gets none", v.copy().get(look).StatusCode, refused)
	first.Wait()
	check(t, "log lines", book.lines(), 2)
	if n := strings.Count(book.String(), "no answer within 300ms: dial tcp "+d.addr+": connect: connection refused"); n == 0 {
		t.Errorf("the log: %s", book.String())
	}
}

// connect has a client open that many connections.
func connect(t *testing.T, s *faulty, app *redis.Client, n int) {
	t.Helper()
	s.do(t, "CLIENT", "PAUSE", 100, "ALL")
	var connecting sync.WaitGroup
	for range n {
		connecting.Go(func() { app.Get(t.Context(), "sess:none") })
	}
	connecting.Wait()
}

// tlsClient returns a client that talks TLS, and what leads it from its door to a server
// that does not, with a certificate that it trusts.
func tlsClient(t *testing.T, addr string) (*redis.Client, func(server string) func(net.Conn)) {
	vouched := httptest.NewTLSServer(nil) // has a certificate for 127.0.0.1
	t.Cleanup(vouched.Close)
	roots := x509.NewCertPool()
	roots.AddCert(vouched.Certificate())
	options := redistest.Options(addr)
	options.TLSConfig = &tls.Config{RootCAs: roots}
	app := redis.NewClient(options)
	t.Cleanup(func() { app.Close() })
	return app, func(server string) func(net.Conn) {
		return func(conn net.Conn) {
			leadsTo(server)(tls.Server(conn, &tls.Config{Certificates: vouched.TLS.Certificates}))
		}
	}
}

// A door is where a client dials, and what is behind it changes.
type door struct {
	addr     string
	listener net.Listener
	behind   atomic.Pointer[func(net.Conn)]
}

func newDoor(t *testing.T, behind func(net.Conn)) *door {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	d := &door{addr: listener.Addr().String(), listener: listener}
	d.open(behind)
	t.Cleanup(d.close)
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				(*d.behind.Load())(conn)
			}()
		}
	}()
	return d
}

func (d *door) open(behind func(net.Conn)) { d.behind.Store(&behind) }

// close lets nobody in any more. Who is in stays.
func (d *door) close() { d.listener.Close() }

func closes(net.Conn) {}

func leadsTo(server string) func(net.Conn) {
	return func(conn net.Conn) {
		other, err := net.Dial("tcp", server)
		if err != nil {
			return
		}
		go func() {
			io.Copy(other, conn)
			other.Close()
		}()
		io.Copy(conn, other)
	}
}

// startCluster starts a Redis Cluster of one node.
func startCluster(t *testing.T, node *redistest.Process) {
	t.Helper()
	node.Start(append(strings.Fields(redistest.ClusterRights), "--cluster-enabled", "yes")...)
	node.AwaitReady()
	admin := redistest.Admin(t, node.Addr)
	admin.ClusterAddSlotsRange(t.Context(), 0, 16383) // an error if it has them from before
	eventually(t, "the cluster is ready", func() bool {
		return strings.Contains(admin.ClusterInfo(t.Context()).Val(), "cluster_state:ok")
	})
}

func clusterClient(t *testing.T, addr string) *redis.ClusterClient {
	app := redis.NewClusterClient(&redis.ClusterOptions{Addrs: []string{addr}, Username: redistest.User, Password: redistest.Password})
	t.Cleanup(func() { app.Close() })
	return app
}

// sentinelOf returns the address of a Sentinel that takes another for the primary.
func sentinelOf(t *testing.T, primary string) string {
	t.Helper()
	s, err := server.NewServer("127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	host, port, _ := net.SplitHostPort(primary)
	s.Register("SENTINEL", func(c *server.Peer, _ string, args []string) {
		if strings.EqualFold(args[0], "get-master-addr-by-name") {
			c.WriteStrings([]string{host, port})
		} else {
			c.WriteLen(0)
		}
	})
	return s.Addr().String()
}
