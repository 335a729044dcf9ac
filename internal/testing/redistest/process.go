package redistest

import (
	"net"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/redis/go-redis/v9"
)

// A Process is a redis-server that a test stops and starts again, always on the same port
// and in the same directory. What it acknowledged is on disk, unless it is configured
// otherwise.
type Process struct {
	Addr string

	t      testing.TB
	dir    string
	server *server
}

// NewProcess returns a server that does not run yet. It ends with the test. Where
// redis-server is not installed the test is skipped, but in CI it fails.
func NewProcess(t testing.TB) *Process {
	t.Helper()
	path, port := lookPath(t), freePort(t)
	addr := net.JoinHostPort("127.0.0.1", port)
	s := &server{path: path, addr: addr, port: port, client: redis.NewClient(&redis.Options{Addr: addr, MaxRetries: -1})}
	t.Cleanup(func() { s.client.Close() })
	return &Process{Addr: addr, t: t, dir: t.TempDir(), server: s}
}

// Start runs the server, with the arguments as more configuration, more rights of the user
// first, and waits until it takes connections. It may not be ready yet to answer them.
func (p *Process) Start(args ...string) {
	p.t.Helper()
	p.server.args = slices.Concat([]string{
		"--port", p.server.port, "--bind", "127.0.0.1", "--dir", p.dir, "--loglevel", "warning",
		"--save", "", "--appendonly", "yes", "--appendfsync", "always",
		"--user",
	}, strings.Fields(user(Rights)), args)
	p.server.run(p.t)
	eventually(p.t, "redis-server takes connections", func() bool {
		if !p.server.alive() {
			p.t.Fatalf("redis-server on %s ended", p.Addr)
		}
		conn, err := net.Dial("tcp", p.Addr)
		if err == nil {
			conn.Close()
		}
		return err == nil
	})
}

// AwaitReady waits until the server answers.
func (p *Process) AwaitReady() {
	p.t.Helper()
	eventually(p.t, "redis-server answers", func() bool { return p.server.client.Ping(p.t.Context()).Err() == nil })
}

// Kill ends the server at once.
func (p *Process) Kill() { p.server.kill() }

// Signal sends the server a signal.
func (p *Process) Signal(sig syscall.Signal) {
	p.t.Helper()
	if err := p.server.process.Process.Signal(sig); err != nil {
		p.t.Fatal(err)
	}
}
