package session

import (
	"context"
	"errors"
	"net"
	"runtime"
	"sync"
	"sync/atomic"
	"time"
	"weak"

	"github.com/redis/go-redis/v9"
)

// This file tells a call that Redis has refused the connection for which it waits. go-redis
// itself tries again for about two seconds before it says so, which is longer than most apps
// wait.

// Dials are what a client of go-redis does to get connections: the dial, and the HELLO on the new
// connection. A hook sees them. For a Cluster, the hook is in the clients of its nodes. A call that
// has a connection pays nothing for it.
type dials struct {
	next     atomic.Pointer[failure] // the next that fails
	answered atomic.Bool             // a call was; before, the client of a Cluster may know no nodes

	mu     sync.Mutex
	failed map[string]failedDial               // by the address, where the last has failed
	greets map[string]int                      // by the address, how many connections are at their HELLO
	nodes  map[weak.Pointer[redis.Client]]bool // of a Cluster, that have the hook; nil once all have
}

// A failure is the next dial that will fail.
type failure struct {
	happens chan struct{} // closed when it does; nil if it never does
	number  int
}

type failedDial struct {
	err       error
	number    int
	at        time.Time
	isHello   bool // which a dial that succeeds says nothing of
	isRefusal bool // and no time-out
}

// watched has the dials of each client that a store has. A hook cannot be removed from a client,
// and several stores may share a client.
var watched sync.Map // by weak.Pointer

// dialsOf returns the dials of a client. It is nil for a client of a type that is not go-redis's. It
// sees nothing of a client that [redis.Client.WithTimeout] has made from another.
func dialsOf(client RedisClient) *dials {
	switch c := client.(type) {
	case *redis.Client:
		return watch(c, func(d *dials) {
			d.answered.Store(true)
			d.addTo(c)
		})
	case *redis.ClusterClient:
		return watch(c, func(d *dials) {
			d.nodes = make(map[weak.Pointer[redis.Client]]bool)
			c.OnNewNode(d.addTo)
		})
	}
	return nil
}

// watch returns the dials of the client. If there are none yet, begin adds the hook.
func watch[C any](client *C, begin func(*dials)) *dials {
	key, d := weak.Make(client), &dials{failed: make(map[string]failedDial), greets: make(map[string]int)}
	d.next.Store(&failure{happens: make(chan struct{}), number: 1})
	if other, ok := watched.LoadOrStore(key, d); ok {
		return other.(*dials)
	}
	begin(d)
	runtime.AddCleanup(client, func(key weak.Pointer[C]) { watched.Delete(key) }, key)
	return d
}

// addTo adds the hook to the client of a node, if it has none.
func (d *dials) addTo(node *redis.Client) {
	d.mu.Lock()
	has := d.nodes[weak.Make(node)]
	if d.nodes != nil {
		d.nodes[weak.Make(node)] = true
	}
	d.mu.Unlock()
	if !has {
		node.AddHook(dialHook{d, node.Options().Addr})
	}
}

// answer is called when a call has ended. After the first answer of a Cluster, its client knows all
// nodes. Some of their clients may be older than the hook, so answer adds it to them.
func (d *dials) answer(client RedisClient, err error, timeout time.Duration) {
	if d == nil || d.answered.Load() || err != nil && !errors.Is(err, ErrNotFound) && !errors.Is(err, ErrConflict) {
		return
	}
	cluster, ok := client.(*redis.ClusterClient)
	if !ok || !d.answered.CompareAndSwap(false, true) {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	err = cluster.ForEachShard(ctx, func(_ context.Context, node *redis.Client) error {
		d.addTo(node)
		return nil
	})
	if err == nil {
		d.mu.Lock()
		d.nodes = nil
		d.mu.Unlock()
	}
}

// A dialHook is the hook in one client, which is not the client of a Cluster.
type dialHook struct {
	dials *dials
	addr  string
}

// DialHook implements [redis.Hook].
func (h dialHook) DialHook(next redis.DialHook) redis.DialHook {
	return func(ctx context.Context, network, addr string) (net.Conn, error) {
		conn, err := next(ctx, network, addr)
		h.dials.ended(ctx, h.addr, false, err)
		return conn, err
	}
}

// ProcessHook implements [redis.Hook].
func (h dialHook) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error {
		if _, mayBeHello := cmd.(*redis.MapStringInterfaceCmd); !mayBeHello || cmd.Name() != "hello" {
			return next(ctx, cmd)
		}
		h.dials.greet(h.addr, 1)
		err := next(ctx, cmd)
		h.dials.greet(h.addr, -1)
		if _, isReply := errors.AsType[redis.Error](err); isReply {
			h.dials.ended(ctx, h.addr, true, nil)
		} else if err == nil || ctx.Err() == nil { // else it says no more than that
			h.dials.ended(ctx, h.addr, true, err)
		}
		return err
	}
}

// ProcessPipelineHook implements [redis.Hook].
func (h dialHook) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return next
}

// greet counts the connections at addr that are at their HELLO.
func (d *dials) greet(addr string, n int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.greets[addr] += n; d.greets[addr] == 0 {
		delete(d.greets, addr)
	}
}

// ended remembers how a dial, or its HELLO, has ended.
func (d *dials) ended(ctx context.Context, addr string, isHello bool, err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	switch {
	case err == nil:
		if isHello || !d.failed[addr].isHello {
			delete(d.failed, addr)
		}
		return
	case errors.Is(ctx.Err(), context.Canceled): // nobody wants the connection any more
		return
	}
	happened := d.next.Load()
	timeout, ok := errors.AsType[net.Error](err)
	d.failed[addr] = failedDial{err, happened.number, time.Now(), isHello, !ok || !timeout.Timeout()}
	d.next.Store(&failure{happens: make(chan struct{}), number: happened.number + 1})
	close(happened.happens)
}

var noFailure failure

// nextFailure returns the next failed dial. That of nil dials never happens.
func (d *dials) nextFailure() *failure {
	if d == nil {
		return &noFailure
	}
	return d.next.Load()
}

// freshCause is for how long a failed dial may explain that there is no answer. By default, a dial of
// go-redis takes five seconds at most.
const freshCause = 10 * time.Second

// cause returns why there is no connection for the key, or nil if that is not known.
func (d *dials) cause(client RedisClient, key string) error {
	if d == nil {
		return nil
	}
	node := d.node(client, key)
	d.mu.Lock()
	defer d.mu.Unlock()
	var last failedDial
	for addr, f := range d.failed {
		if f.number > last.number && time.Since(f.at) < freshCause && (node == nil || node.Options().Addr == addr) {
			last = f
		}
	}
	return last.err
}

// A refusal is why a call gets no connection, and what was known at that moment.
type refusal struct {
	err    error
	open   uint32 // connections that are past their HELLO
	inUse  uint32 // of these, by calls that may be answered
	reused uint32 // how often a connection was taken again that was free, so far
}

// isTotal reports whether nothing is left to answer a call that has seen the refusal first: no call
// has a connection, and the connections that calls had then are gone, and not free now.
func (r refusal) isTotal(first refusal) bool {
	return r.inUse == 0 && r.open <= first.open-first.inUse
}

// refusal returns the refusal of the key's server. Its error is nil if no dial was refused since the
// failure first.
func (d *dials) refusal(client RedisClient, key string, first *failure) refusal {
	node := d.node(client, key)
	if node == nil {
		return refusal{err: d.refusedByAll(client, first)}
	}
	addr := node.Options().Addr
	d.mu.Lock()
	f, greets := d.failed[addr], d.greets[addr]
	d.mu.Unlock()
	if !f.isRefusal || f.number < first.number {
		return refusal{}
	}
	r := refusal{err: f.err}
	main := node.PoolStats()
	for _, p := range []*redis.PoolStats{main, (*redis.PoolStats)(main.PipelineStats)} {
		if p == nil {
			continue
		}
		free := p.IdleConns
		if p == main && node.Options().MinIdleConns > 0 {
			free = 0 // what go-redis is about to dial for it counts as free already
		}
		r.open += p.TotalConns
		r.inUse += p.TotalConns - min(p.TotalConns, free)
		r.reused += p.Hits
	}
	r.open -= min(r.open, uint32(greets))
	r.inUse -= min(r.inUse, uint32(greets))
	return r
}

// refusedByAll returns why a Cluster's client cannot find a node that tells it about the others. It
// is nil unless all addresses have refused.
func (d *dials) refusedByAll(client RedisClient, first *failure) (err error) {
	cluster, ok := client.(*redis.ClusterClient)
	if !ok {
		return nil
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, addr := range cluster.Options().Addrs {
		f := d.failed[addr]
		if !f.isRefusal || f.number < first.number {
			return nil
		}
		err = f.err
	}
	return err
}

// node returns the client of the node that has the key. It is nil if that is not known yet.
func (d *dials) node(client RedisClient, key string) *redis.Client {
	switch c := client.(type) {
	case *redis.Client:
		return c
	case *redis.ClusterClient:
		if d.answered.Load() { // else it would ask the servers
			node, _ := c.MasterForKey(context.Background(), key)
			return node
		}
	}
	return nil
}

var _ redis.Hook = dialHook{}
