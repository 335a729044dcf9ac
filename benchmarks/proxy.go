package main

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"sync"
)

// A Proxy stands in front of a Redis server, and counts what passes.
type Proxy struct {
	Addr     string
	listener net.Listener
	redis    string

	mu    sync.Mutex
	total Traffic
}

// Traffic is what has passed a proxy. A turn is a write of the client, of any number of
// commands, that is followed by an answer: a round trip.
type Traffic struct {
	Turns, Out, In int
	Commands       map[string]int
}

func startProxy(redis string) (*Proxy, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	p := &Proxy{Addr: l.Addr().String(), listener: l, redis: redis}
	go func() {
		for {
			client, err := l.Accept()
			if err != nil {
				return
			}
			go p.pass(client)
		}
	}()
	return p, nil
}

// Stop accepts no more connections. Those that are open end with their clients.
func (p *Proxy) Stop() { p.listener.Close() }

// Take returns what has passed since it was called last.
func (p *Proxy) Take() Traffic {
	p.mu.Lock()
	defer p.mu.Unlock()
	taken := p.total
	p.total = Traffic{}
	return taken
}

func (p *Proxy) pass(client net.Conn) {
	defer client.Close()
	server, err := net.Dial("tcp", p.redis)
	if err != nil {
		return
	}
	defer server.Close()
	asked := false // the last bytes to pass on this connection were the client's; guarded by p.mu
	go func() {
		defer client.Close()
		io.Copy(client, tap{server, func(n int) {
			p.mu.Lock()
			defer p.mu.Unlock()
			asked = false
			p.total.In += n
		}})
	}()
	commands := bufio.NewReader(tap{client, func(n int) {
		p.mu.Lock()
		defer p.mu.Unlock()
		if !asked {
			p.total.Turns++
		}
		asked = true
		p.total.Out += n
	}})
	for {
		name, command, err := readCommand(commands)
		if err != nil {
			return
		}
		p.count(name)
		if _, err := server.Write(command); err != nil {
			return
		}
	}
}

func (p *Proxy) count(name string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.total.Commands == nil {
		p.total.Commands = make(map[string]int)
	}
	p.total.Commands[name]++
}

// A tap calls seen with the number of bytes of each read.
type tap struct {
	io.Reader
	seen func(n int)
}

func (t tap) Read(b []byte) (int, error) {
	n, err := t.Reader.Read(b)
	if n > 0 {
		t.seen(n)
	}
	return n, err
}

// readCommand reads one command of the Redis protocol: an array of strings, each after its
// length.
func readCommand(r *bufio.Reader) (name string, command []byte, err error) {
	readLength := func(kind byte) (int, error) {
		line, err := r.ReadString('\n')
		if err != nil {
			return 0, err
		}
		if line[0] != kind {
			return 0, fmt.Errorf("%q in place of %q", line[0], kind)
		}
		command = append(command, line...)
		return strconv.Atoi(strings.TrimSpace(line[1:]))
	}
	words, err := readLength('*')
	for i := range words {
		size, err := readLength('$')
		if err != nil {
			return "", nil, err
		}
		word := make([]byte, size+len("\r\n"))
		if _, err := io.ReadFull(r, word); err != nil {
			return "", nil, err
		}
		command = append(command, word...)
		if i == 0 {
			name = strings.ToUpper(string(word[:size]))
		}
	}
	return name, command, err
}
