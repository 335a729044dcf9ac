// Package redistest starts real Redis servers for tests. Each of them has the user that
// docs/redis.md tells apps to log in as, and clients log in as that user. When its test
// ends, each key that is left has to have a time to live.
package redistest

import (
	"net/url"
	"testing"

	"github.com/redis/go-redis/v9"
)

// Start runs a redis-server of the test's own on a free port of 127.0.0.1, with the
// arguments as configuration, and returns its address. The server ends with the
// test. Where redis-server is not installed the test is skipped, but in CI it fails.
func Start(t testing.TB, args ...string) string {
	t.Helper()
	return launch(t, freePort, withoutDisk(Rights, args...)).addr
}

// Client returns an app's client for a server that [Start] runs for the test, with what
// [Allow] gives on top.
func Client(t testing.TB, rights ...string) *redis.Client {
	t.Helper()
	addr := Start(t)
	if len(rights) > 0 {
		Allow(t, addr, rights...)
	}
	client := redis.NewClient(Options(addr))
	t.Cleanup(func() { client.Close() })
	return client
}

// Options returns those of an app's client for a server at the address: the user and
// the password, and all else as go-redis has it.
func Options(addr string) *redis.Options {
	return &redis.Options{Addr: addr, Username: User, Password: Password}
}

// URL returns [Options] as an app has them in its environment.
func URL(scheme, addr string) string {
	u := url.URL{Scheme: scheme, User: url.UserPassword(User, Password), Host: addr, Path: "/0"}
	return u.String()
}

// Admin returns a client for a server at the address that may do everything. It is for
// what the test does to the server, or wants to know of it, and for nothing that an app
// does.
func Admin(t testing.TB, addr string) *redis.Client {
	t.Helper()
	client := redis.NewClient(&redis.Options{Addr: addr})
	t.Cleanup(func() { client.Close() })
	return client
}
