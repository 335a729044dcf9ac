package redistest

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
)

// settle is how long servers may take to start and to find each other, on a machine
// that is busy with other tests too.
const settle = time.Minute

// A server is a process that can be killed and started again.
type server struct {
	path, addr, port string
	args             []string
	tls              *tls.Config // nil for a server without
	client           *redis.Client
	process          *exec.Cmd
	exited           chan struct{}
}

// launch runs a redis-server on a port from choose, and waits until it answers.
func launch(t testing.TB, choose func(testing.TB) string, args func(port, dir string) []string) *server {
	t.Helper()
	return launchTLS(t, nil, choose, args)
}

// launchTLS runs one that is talked to with the configuration.
func launchTLS(t testing.TB, config *tls.Config, choose func(testing.TB) string, args func(port, dir string) []string) *server {
	t.Helper()
	path, dir := lookPath(t), t.TempDir()
	const attempts = 10 // another process may take the free port first
	for range attempts {
		port := choose(t)
		addr := net.JoinHostPort("127.0.0.1", port)
		s := &server{path: path, addr: addr, port: port, args: args(port, dir), tls: config}
		s.client = redis.NewClient(&redis.Options{Addr: addr, TLSConfig: config, MaxRetries: -1})
		t.Cleanup(func() { s.client.Close() })
		if s.start(t) {
			return s
		}
	}
	t.Fatalf("redis-server did not start in %d attempts", attempts)
	return nil
}

// withoutDisk returns the arguments of a server that keeps nothing on disk, and whose
// replicas get everything at once. The user has the rights.
func withoutDisk(rights string, args ...string) func(port, dir string) []string {
	return func(port, dir string) []string {
		return slices.Concat([]string{
			"--port", port, "--bind", "127.0.0.1", "--dir", dir, "--loglevel", "warning",
			"--save", "", "--appendonly", "no",
			"--repl-diskless-sync", "yes", "--repl-diskless-sync-delay", "0", "--repl-ping-replica-period", "1",
			"--user",
		}, strings.Fields(user(rights)), args)
	}
}

// start runs the server and waits until it answers.
func (s *server) start(t testing.TB) bool {
	t.Helper()
	s.run(t)
	for deadline := time.Now().Add(settle); time.Now().Before(deadline); time.Sleep(5 * time.Millisecond) {
		answers := s.client.Ping(context.Background()).Err() == nil
		if !s.alive() {
			return false
		}
		if answers {
			return true
		}
	}
	return false
}

// run starts the process, which ends with the test.
func (s *server) run(t testing.TB) {
	t.Helper()
	process, exited := exec.Command(s.path, s.args...), make(chan struct{})
	if err := process.Start(); err != nil {
		t.Fatalf("start redis-server: %v", err)
	}
	go func() {
		process.Wait()
		close(exited)
	}()
	t.Cleanup(func() {
		s.expectTTLs(t)
		process.Process.Kill()
		<-exited
	})
	s.process, s.exited = process, exited
}

// expectTTLs fails the test if the server has a key without a time to live. A server
// that does not say is passed over: a test may leave it dead, hung, or closed to us.
func (s *server) expectTTLs(t testing.TB) {
	t.Helper()
	keys, err := s.immortals()
	if err != nil {
		t.Logf("nobody looked at the times to live in %s: %v", s.addr, err)
	}
	for _, key := range keys {
		t.Errorf("the key %s in %s has no time to live", key, s.addr)
	}
}

// immortals returns the keys without a time to live, with their databases.
func (s *server) immortals() (keys []string, err error) {
	if !s.alive() {
		return nil, nil
	}
	ctx := context.Background() // the test's own may have ended
	client := s.open(0)
	defer client.Close()
	info, err := client.Info(ctx, "keyspace").Result()
	if err != nil {
		return nil, err
	}
	for line := range strings.Lines(info) {
		var db, all, expiring int
		if n, _ := fmt.Sscanf(line, "db%d:keys=%d,expires=%d", &db, &all, &expiring); n < 3 || all == expiring {
			continue
		}
		client := s.open(db)
		defer client.Close()
		it := client.Scan(ctx, 0, "*", 1000).Iterator()
		for it.Next(ctx) {
			if client.PTTL(ctx, it.Val()).Val() == -1 {
				keys = append(keys, fmt.Sprintf("%q of database %d", it.Val(), db))
			}
		}
		if err := it.Err(); err != nil {
			return keys, err
		}
	}
	return keys, nil
}

// open returns a client that gives up soon.
func (s *server) open(db int) *redis.Client {
	const patience = 2 * time.Second
	return redis.NewClient(&redis.Options{
		Addr: s.addr, TLSConfig: s.tls, DB: db,
		MaxRetries: -1, DialerRetries: 1, DialTimeout: patience, ReadTimeout: patience, WriteTimeout: patience,
	})
}

func (s *server) kill() {
	s.process.Process.Kill()
	<-s.exited
}

func (s *server) restart(t testing.TB) {
	t.Helper()
	if s.alive() {
		t.Fatalf("%s runs", s.addr)
	}
	if !s.start(t) {
		t.Fatalf("%s did not start again", s.addr)
	}
}

func (s *server) alive() bool {
	select {
	case <-s.exited:
		return false
	default:
		return true
	}
}

func (s *server) id(t testing.TB) string {
	t.Helper()
	return must[string](t)(s.client.ClusterMyID(context.Background()).Result())
}

func (s *server) slots() ([]redis.ClusterSlot, error) {
	//lint:ignore SA1019 Redis 6.2 has no CLUSTER SHARDS
	return s.client.ClusterSlots(context.Background()).Result()
}

// inSync reports whether the server is a primary with that many replicas that are up
// to date, or one of these replicas.
func (s *server) inSync(replicas int) bool {
	info := s.client.Info(context.Background(), "replication").Val()
	if strings.Contains(info, "role:slave") {
		return strings.Contains(info, "master_link_status:up")
	}
	return strings.Contains(info, "role:master") && strings.Count(info, "state=online") == replicas
}

// lookPath returns the redis-server that is installed, or skips the test.
func lookPath(t testing.TB) string {
	t.Helper()
	path, err := exec.LookPath("redis-server")
	if err != nil {
		if os.Getenv("CI") != "" {
			t.Fatal("redis-server is not installed, and CI skips nothing")
		}
		t.Skip("redis-server is not installed (Debian: apt-get install redis-server): skipping what needs a real one")
	}
	return path
}

func freePort(t testing.TB) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(fmt.Errorf("find a free port: %w", err))
	}
	defer l.Close()
	_, port, _ := net.SplitHostPort(l.Addr().String())
	return port
}

func eventually(t testing.TB, what string, ready func() bool) {
	t.Helper()
	for deadline := time.Now().Add(settle); !ready(); {
		if time.Now().After(deadline) {
			t.Fatalf("waited %v until %s", settle, what)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// must returns a function that passes on the first of its arguments, and ends the test
// if the second is an error.
func must[T any](t testing.TB) func(T, error) T {
	t.Helper()
	return func(value T, err error) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return value
	}
}
