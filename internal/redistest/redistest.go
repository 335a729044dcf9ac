// Package redistest starts real Redis servers for tests.
package redistest

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
)

// Start runs a redis-server of the test's own on a free port of 127.0.0.1, with the
// arguments as configuration, and returns its address. The server ends with the
// test. Where redis-server is not installed the test is skipped, but in CI it fails.
func Start(t testing.TB, args ...string) string {
	t.Helper()
	path := lookPath(t)
	const attempts = 3 // another process may take the free port first
	for range attempts {
		addr := freeAddr(t)
		if start(t, path, addr, args) {
			return addr
		}
	}
	t.Fatalf("redis-server did not start in %d attempts", attempts)
	return ""
}

// Client returns a client for a server that [Start] runs for the test.
func Client(t testing.TB) *redis.Client {
	t.Helper()
	client := redis.NewClient(&redis.Options{Addr: Start(t)})
	t.Cleanup(func() { client.Close() })
	return client
}

func start(t testing.TB, path, addr string, args []string) bool {
	t.Helper()
	_, port, _ := net.SplitHostPort(addr)
	dir := t.TempDir()
	args = append([]string{"--port", port, "--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--dir", dir, "--loglevel", "warning"}, args...)
	server := exec.Command(path, args...)
	if err := server.Start(); err != nil {
		t.Fatalf("start redis-server: %v", err)
	}
	exited := make(chan struct{})
	go func() {
		server.Wait()
		close(exited)
	}()
	t.Cleanup(func() {
		server.Process.Kill()
		<-exited
	})
	client := redis.NewClient(&redis.Options{Addr: addr, MaxRetries: -1})
	defer client.Close()
	for deadline := time.Now().Add(10 * time.Second); time.Now().Before(deadline); {
		if client.Ping(context.Background()).Err() == nil {
			return true
		}
		select {
		case <-exited:
			return false
		case <-time.After(5 * time.Millisecond):
		}
	}
	return false
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

func freeAddr(t testing.TB) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(fmt.Errorf("find a free port: %w", err))
	}
	defer l.Close()
	return l.Addr().String()
}
