// Package faultproxy stands between a Redis client and its server, and breaks what passes
// as a test says.
package faultproxy

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// A Proxy passes commands on to a server and replies back, one at a time on each
// connection. It is safe for concurrent use.
type Proxy struct {
	Addr string // for the client

	server string
	closed chan struct{}

	mu     sync.Mutex
	decide func(command string) Fault
	broken int
}

// A Fault is what becomes of one command. It may call ask, once, which has the server do
// it and returns the reply. What it returns goes to the client; if that is nil, the
// connection is reset.
type Fault func(ask func() []byte) []byte

// New starts a proxy for the server at the address. It breaks nothing yet, and ends with
// the test.
func New(t testing.TB, server string) *Proxy {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &Proxy{Addr: listener.Addr().String(), server: server, closed: make(chan struct{})}
	var connections sync.WaitGroup
	t.Cleanup(func() {
		listener.Close()
		close(p.closed)
		connections.Wait()
	})
	connections.Go(func() {
		for {
			client, err := listener.Accept()
			if err != nil {
				return
			}
			connections.Go(func() { p.serve(client.(*net.TCPConn)) })
		}
	})
	return p
}

// Break has decide say what becomes of each command from now on, by its name in lower
// case. Nil, from decide or for it, breaks nothing. Commands that are about the connection
// are always passed on.
func (p *Proxy) Break(decide func(command string) Fault) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.decide = decide
}

// Broken returns how many commands the proxy has broken.
func (p *Proxy) Broken() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.broken
}

// BreakNext breaks the next command of that name.
func (p *Proxy) BreakNext(name string, fault Fault) {
	done := false
	p.Break(func(command string) Fault {
		if done || command != name {
			return nil
		}
		done = true
		return fault
	})
}

// ResetBefore is a connection that breaks before the server has the command.
func ResetBefore(func() []byte) []byte { return nil }

// ResetAfter is a connection that breaks after the server has done the command, and
// before the client has the reply.
func ResetAfter(ask func() []byte) []byte {
	ask()
	return nil
}

// Swallow loses the reply: the client waits until it gives up.
func (p *Proxy) Swallow(ask func() []byte) []byte {
	ask()
	<-p.closed
	return nil
}

// Delay lets the command wait before the server gets it.
func Delay(d time.Duration) Fault {
	return func(ask func() []byte) []byte {
		time.Sleep(d)
		return ask()
	}
}

// Before runs f before the client gets the reply, and then does to it what fault says.
func Before(f func(), fault Fault) Fault {
	return func(ask func() []byte) []byte {
		return fault(func() []byte {
			reply := ask()
			f()
			return reply
		})
	}
}

// Swap returns a fault that gives each of two commands under way at once the reply of the
// other. One that finds no other within the time gets its own.
func Swap(within time.Duration) Fault {
	type half struct {
		reply []byte
		other chan []byte
	}
	meet := make(chan half)
	return func(ask func() []byte) []byte {
		mine := half{ask(), make(chan []byte, 1)}
		select {
		case meet <- mine:
			return <-mine.other
		case first := <-meet:
			first.other <- mine.reply
			return first.reply
		case <-time.After(within):
			return mine.reply
		}
	}
}

func (p *Proxy) fault(command string) Fault {
	switch command {
	case "hello", "auth", "select", "client", "ping":
		return nil
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.decide == nil {
		return nil
	}
	fault := p.decide(command)
	if fault != nil {
		p.broken++
	}
	return fault
}

func (p *Proxy) serve(client *net.TCPConn) {
	defer client.Close()
	server, err := net.Dial("tcp", p.server)
	if err != nil {
		client.SetLinger(0)
		return
	}
	defer server.Close()
	ended := make(chan struct{})
	defer close(ended)
	go func() { // what the connection waits for ends with the test
		select {
		case <-p.closed:
			client.Close()
			server.Close()
		case <-ended:
		}
	}()
	commands, replies := bufio.NewReader(client), bufio.NewReader(server)
	for {
		command, err := readValue(commands)
		if err != nil {
			return
		}
		ask := func() []byte {
			if _, err := server.Write(command); err != nil {
				return nil
			}
			reply, err := readReply(replies)
			if err != nil {
				return nil
			}
			return reply
		}
		var reply []byte
		if fault := p.fault(name(command)); fault != nil {
			reply = fault(ask)
		} else {
			reply = ask()
		}
		if reply == nil {
			client.SetLinger(0)
			return
		}
		if _, err := client.Write(reply); err != nil {
			return
		}
	}
}

// name returns the first word of a command, in lower case.
func name(command []byte) string {
	fields := bytes.SplitN(command, []byte("\r\n"), 4)
	if len(fields) < 4 {
		return ""
	}
	return strings.ToLower(string(fields[2]))
}

// readReply reads the next reply as it stands, with what the server pushes before it.
func readReply(r *bufio.Reader) ([]byte, error) {
	var reply []byte
	for {
		value, err := readValue(r)
		if err != nil {
			return nil, err
		}
		reply = append(reply, value...)
		if value[0] != '>' {
			return reply, nil
		}
	}
}

// readValue reads one value of the Redis protocol as it stands.
func readValue(r *bufio.Reader) ([]byte, error) {
	line, err := r.ReadBytes('\n')
	if err != nil {
		return nil, err
	}
	if len(line) < 3 {
		return nil, fmt.Errorf("faultproxy: %q is no line of the protocol", line)
	}
	n, _ := strconv.Atoi(string(line[1 : len(line)-2]))
	switch line[0] {
	case '$', '!', '=':
		if n < 0 {
			return line, nil
		}
		text := make([]byte, n+2)
		_, err := io.ReadFull(r, text)
		return append(line, text...), err
	case '%':
		n *= 2
	case '|': // attributes, and then what they are of
		n = 2*n + 1
	case '*', '~', '>':
	default:
		n = 0
	}
	for range n {
		value, err := readValue(r)
		if err != nil {
			return nil, err
		}
		line = append(line, value...)
	}
	return line, nil
}
