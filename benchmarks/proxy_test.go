package main

import (
	"fmt"
	"io"
	"net"
	"testing"
)

// What is written at once is one turn, however many commands it is.
func TestProxy(t *testing.T) {
	server, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	go func() {
		conn, err := server.Accept()
		if err != nil {
			return
		}
		defer conn.Close()
		for answer := make([]byte, 1<<10); ; {
			n, err := conn.Read(answer)
			if err != nil {
				return
			}
			conn.Write(answer[:n])
		}
	}()
	proxy, err := startProxy(server.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer proxy.Stop()
	conn, err := net.Dial("tcp", proxy.Addr)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	const get, set = "*2\r\n$3\r\nget\r\n$1\r\na\r\n", "*3\r\n$3\r\nSET\r\n$1\r\na\r\n$4\r\n\r\n\r\n\r\n"
	for _, burst := range []string{get, get + set, set} {
		io.WriteString(conn, burst)
		if _, err := io.ReadFull(conn, make([]byte, len(burst))); err != nil {
			t.Fatal(err)
		}
	}
	want := fmt.Sprint(Traffic{3, 2 * len(get+set), 2 * len(get+set), map[string]int{"GET": 2, "SET": 2}})
	if got := fmt.Sprint(proxy.Take()); got != want {
		t.Errorf("%s, want %s", got, want)
	}
	if got := proxy.Take(); got.Turns != 0 {
		t.Errorf("taken twice: %v", got)
	}
}
