package main

import (
	"net/http"
	"slices"
	"time"

	"github.com/valyala/fasthttp"
)

// A Peer is a session library with one of its stores.
type Peer struct {
	Name  string // of the library, and after a slash the store: "scs/redis"
	Kind  Kind
	Floor string // the peer without sessions that it is to be compared with: "bare" where empty

	// Open returns the peer ready to serve. It is called once in a process.
	Open func(Env) App

	// Skipped says why the peer is not run. Its figures stay as they were measured.
	Skipped string

	// Settles is how long after a login a session is read as it goes on being read.
	Settles time.Duration

	// Node is the folder of a server that is not written in Go, and Open nil. It is run as
	// node server.js with the addresses to listen on and of Redis, and "sliding" for S.
	Node string
}

// A Kind says where a peer keeps its sessions.
type Kind string

const (
	Memory Kind = "memory"
	Redis  Kind = "redis"
	Cookie Kind = "cookie"
	None   Kind = "none" // of a floor
)

// An Env is what a peer is to be configured with.
type Env struct {
	Redis   string // the address, for those of the kind Redis
	Sliding bool   // a read prolongs the session by the idle time: the workload S
}

// An App has one handler for each workload that the peer knows: of net/http, or of fasthttp.
// A handler answers 200 and a short text if the session was what it should be, else 500.
type App struct {
	HTTP  map[Workload]http.Handler
	Fast  map[Workload]fasthttp.RequestHandler
	Close func()
}

// A Workload is what a request does with its session.
type Workload string

const (
	Untouched Workload = "U" // has a cookie, and the handler does not look
	Anonymous Workload = "A" // has no cookie; reads the user, and finds none
	Read      Workload = "R" // reads the user
	Sliding   Workload = "S" // the same, where reading prolongs the session
	Write     Workload = "W" // increments a counter
	Equal     Workload = "E" // sets the role to what it is
	Login     Workload = "N" // has no cookie; gets a new id and the four values
)

// Workloads are all of them.
var Workloads = []Workload{Untouched, Anonymous, Read, Sliding, Write, Equal, Login}

// hasCookie reports whether the requests of the workload bring a cookie.
func (w Workload) hasCookie() bool { return w != Anonymous && w != Login }

var peers []Peer

// register is for the peers' files: var _ = register(Peer{...}).
func register(more ...Peer) bool {
	peers = append(peers, more...)

	return true
}

// peerNamed returns a peer.
func peerNamed(name string) Peer {
	i := slices.IndexFunc(peers, func(p Peer) bool { return p.Name == name })
	if i < 0 {
		panic("no peer " + name)
	}
	return peers[i]
}
