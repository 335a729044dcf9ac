package faultproxy

import (
	"bufio"
	"cmp"
	"net"
	"strings"
	"sync"
	"testing"
)

// A Gate stands between a Redis client and its server, and passes on what comes, at once
// and both ways. It can be shut for what the server pushes, which is how it tells a client
// to forget a key, or for everything. It is safe for concurrent use.
type Gate struct {
	Addr string // for the client

	server string

	mu     sync.Mutex
	opened sync.Cond
	state  gateState
	closed bool
	names  []string
	held   int
	lines  map[*gated]struct{}
}

type gateState int

const (
	gateOpen   gateState = iota
	gatePushes           // holds pushes back
	gateAll              // holds everything back
)

// A gated is a connection, and the pushes that are held back on it.
type gated struct {
	client, server net.Conn
	held           []byte
}

// NewGate opens a gate to the server at the address. It ends with the test.
func NewGate(t testing.TB, server string) *Gate {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	g := &Gate{Addr: listener.Addr().String(), server: server, lines: make(map[*gated]struct{})}
	g.opened.L = &g.mu
	var running sync.WaitGroup
	t.Cleanup(func() {
		listener.Close()
		g.mu.Lock()
		g.closed = true
		for line := range g.lines {
			line.client.Close()
			line.server.Close()
		}
		g.opened.Broadcast()
		g.mu.Unlock()
		running.Wait()
	})
	running.Go(func() {
		for {
			client, err := listener.Accept()
			if err != nil {
				return
			}
			running.Go(func() { g.serve(client) })
		}
	})
	return g
}

// HoldPushes holds back what the server pushes from now on. Replies pass.
func (g *Gate) HoldPushes() { g.set(gatePushes) }

// HoldAll holds back everything from now on, as a network that drops every packet.
func (g *Gate) HoldAll() { g.set(gateAll) }

// Open lets everything pass, what was held back first.
func (g *Gate) Open() { g.set(gateOpen) }

// Took returns the commands that have passed since it was last asked, without those that
// are about the connection. "0" is none.
func (g *Gate) Took() string {
	g.mu.Lock()
	defer g.mu.Unlock()
	names := strings.Join(g.names, " ")
	g.names = nil
	return cmp.Or(names, "0")
}

// Held returns how many pushes are held back, or were.
func (g *Gate) Held() int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.held
}

// Break ends all connections of now.
func (g *Gate) Break() {
	g.mu.Lock()
	defer g.mu.Unlock()
	for line := range g.lines {
		line.client.Close()
		line.server.Close()
	}
}

func (g *Gate) set(state gateState) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.state = state
	if state == gateOpen {
		for line := range g.lines {
			line.client.Write(line.held)
			line.held = nil
		}
	}
	g.opened.Broadcast()
}

func (g *Gate) serve(client net.Conn) {
	defer client.Close()
	server, err := net.Dial("tcp", g.server)
	if err != nil {
		return
	}
	defer server.Close()
	line := &gated{client: client, server: server}
	g.mu.Lock()
	if g.closed {
		g.mu.Unlock()
		return
	}
	g.lines[line] = struct{}{}
	g.mu.Unlock()
	defer func() {
		g.mu.Lock()
		delete(g.lines, line)
		g.mu.Unlock()
	}()
	var commands sync.WaitGroup
	commands.Go(func() {
		defer server.Close()
		for r := bufio.NewReader(client); ; {
			value, err := readValue(r)
			if err != nil || g.command(line, value) != nil {
				return
			}
		}
	})
	replies := bufio.NewReader(server)
	for {
		value, err := readValue(replies)
		if err != nil || g.reply(line, value) != nil {
			break
		}
	}
	client.Close()
	commands.Wait()
}

// reply passes a value on to the client, or keeps it.
func (g *Gate) reply(line *gated, value []byte) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.await()
	if value[0] == '>' && g.state == gatePushes {
		g.held++
		line.held = append(line.held, value...)
		return nil
	}
	_, err := line.client.Write(value)
	return err
}

// await waits while everything is held back. It is called with g.mu held.
func (g *Gate) await() {
	for g.state == gateAll && !g.closed {
		g.opened.Wait()
	}
}

// command passes a command on to the server.
func (g *Gate) command(line *gated, value []byte) error {
	g.mu.Lock()
	g.await()
	switch name := name(value); name {
	case "hello", "auth", "select", "client", "ping":
	default:
		g.names = append(g.names, name)
	}
	g.mu.Unlock()
	_, err := line.server.Write(value)
	return err
}
