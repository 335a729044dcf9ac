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

// What is in this file tells a call that Redis has refused the connection it waits for.
// go-redis tries again for about two seconds before it says so, which is longer than most
// apps wait.

// Dials are what a client of go-redis does to get connections: the dial, and the HELLO on
// what it got. A hook sees them, in the clients of the nodes if the client is one for a
// Cluster. A call that has a connection pays nothing for it.
type dials struct {
	next     atomic.Pointer[failure] // the next that fails
	answered atomic.Bool             // a call was; before, the client of a Cluster may know no nodes

	mu     sync.Mutex
	failed map[string]failedDial               // by the address, where the last has failed
	greets map[string]int                      // by the address, how many connections are at their HELLO
	nodes  map[weak.Pointer[redis.Client]]bool // of a Cluster, that have the hook; nil once all have
}

// A failure is a failed dial that has not happened yet.
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

// watched has the dials of each client that a store has: a hook of a client stays, and a
// client may be that of many stores.
var watched sync.Map // by weak.Pointer

// dialsOf returns the dials of a client. It is nil for one of another type than go-redis
// has, and sees nothing of one that [redis.Client.WithTimeout] has made of another.
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

// addTo adds the hook to the client of a node that has none.
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

// answer is called when a call has ended. The first answer of a Cluster means that its client
// knows all nodes, of which some may be older than the hook.
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

// A dialHook is that of one client, which is not the client of a Cluster.
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

func (d *dials) greet(addr string, n int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.greets[addr] += n; d.greets[addr] == 0 {
		delete(d.greets, addr)
	}
}

// ended remembers how a dial has ended, or its HELLO.
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

// nextFailure returns the next failed dial, or of nil dials one that never happens.
func (d *dials) nextFailure() *failure {
	if d == nil {
		return &noFailure
	}
	return d.next.Load()
}

// freshCause is how long a dial that failed may explain that there is no answer. A dial of
// go-redis takes five seconds at most, unless its options say otherwise.
const freshCause = 10 * time.Second

// cause returns why there is no connection for the key, or nil if nobody knows.
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

// A refusal is why a call gets no connection, and what was known when it was.
type refusal struct {
	err    error
	open   uint32 // connections that are past their HELLO
	inUse  uint32 // of these, by calls that may be answered
	reused uint32 // how often a connection was taken again that was free, so far
}

// isTotal reports whether nothing is left to answer a call that has seen the refusal first:
// nobody has a connection, and those that somebody had then are gone, and not free now.
func (r refusal) isTotal(first refusal) bool {
	return r.inUse == 0 && r.open <= first.open-first.inUse
}

// refusal returns that of the key's server. Its error is nil if no dial was refused, the
// first of the failures or a later one.
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

// refusedByAll is refusal where the client of a Cluster looks for a node that tells it who
// the others are.
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

// node returns the client whose connections the key needs. It is nil if nobody knows yet.
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
