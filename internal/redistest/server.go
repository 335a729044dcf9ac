package redistest

import (
	"context"
	"net"
	"os/exec"
	"syscall"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
)

// A Server is a redis-server that a test stops and starts again, always on the same port
// and in the same directory. What it acknowledged is on disk.
type Server struct {
	Addr string

	t       testing.TB
	path    string
	dir     string
	process *exec.Cmd
	exited  chan struct{}
}

// NewServer returns a server that does not run yet. It ends with the test. Where
// redis-server is not installed the test is skipped, but in CI it fails.
func NewServer(t testing.TB) *Server {
	t.Helper()
	s := &Server{Addr: freeAddr(t), t: t, path: lookPath(t), dir: t.TempDir()}
	t.Cleanup(s.Kill)
	return s
}

// Start runs the server, with the arguments as more configuration, and waits until it
// takes connections. It may not be ready yet to answer them.
func (s *Server) Start(args ...string) {
	s.t.Helper()
	_, port, _ := net.SplitHostPort(s.Addr)
	args = append([]string{"--port", port, "--bind", "127.0.0.1", "--dir", s.dir, "--loglevel", "warning",
		"--save", "", "--appendonly", "yes", "--appendfsync", "always"}, args...)
	s.process = exec.Command(s.path, args...)
	if err := s.process.Start(); err != nil {
		s.t.Fatalf("start redis-server: %v", err)
	}
	exited, process := make(chan struct{}), s.process
	s.exited = exited
	go func() {
		process.Wait()
		close(exited)
	}()
	for deadline := time.Now().Add(10 * time.Second); time.Now().Before(deadline); {
		if conn, err := net.Dial("tcp", s.Addr); err == nil {
			conn.Close()
			return
		}
		select {
		case <-s.exited:
			s.t.Fatalf("redis-server on %s ended", s.Addr)
		case <-time.After(5 * time.Millisecond):
		}
	}
	s.t.Fatalf("redis-server on %s takes no connections", s.Addr)
}

// AwaitReady waits until the server answers.
func (s *Server) AwaitReady() {
	s.t.Helper()
	client := redis.NewClient(&redis.Options{Addr: s.Addr, MaxRetries: -1})
	defer client.Close()
	for deadline := time.Now().Add(10 * time.Second); time.Now().Before(deadline); time.Sleep(5 * time.Millisecond) {
		if client.Ping(context.Background()).Err() == nil {
			return
		}
	}
	s.t.Fatalf("redis-server on %s does not get ready", s.Addr)
}

// Kill ends the server at once, if it runs.
func (s *Server) Kill() {
	if s.process != nil {
		s.process.Process.Kill()
		<-s.exited
		s.process = nil
	}
}

// Signal sends the server a signal.
func (s *Server) Signal(sig syscall.Signal) {
	s.t.Helper()
	if err := s.process.Process.Signal(sig); err != nil {
		s.t.Fatal(err)
	}
}
