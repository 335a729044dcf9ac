package session_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/seed-4f96e14b/session"
	"github.com/seed-4f96e14b/session/internal/testing/redistest"
	"github.com/seed-4f96e14b/session/storetest"
)

// Wherever the key of a session is, and while it moves, a Cluster is a store like any
// other.
func TestCluster(t *testing.T) {
	t.Parallel()
	// Slow nodes are not to be taken for dead ones here.
	cluster := redistest.Cluster(t, "--cluster-node-timeout", "15000")
	client := cluster.Client(t)
	for _, replicas := range []int{0, 1} {
		t.Run(fmt.Sprint("contract, waiting for replicas: ", replicas), func(t *testing.T) {
			n := 0
			storetest.Run(t, func(t *testing.T) session.Store {
				n++
				return &session.RedisStore{Client: client, Prefix: fmt.Sprintf("sess:test[%d,%d]*:", replicas, n), WaitReplicas: replicas}
			})
		})
		t.Run(fmt.Sprint("requests, waiting for replicas: ", replicas), func(t *testing.T) {
			store := &session.RedisStore{Client: client, Prefix: "sess:requests:", WaitReplicas: replicas}
			m := newManager(t, session.Options{Store: store})
			for range 20 {
				lifeOfASession(t, m)
			}
			check(t, "sessions left", recordsIn(t, store), 0)
		})
	}
	if testing.Short() {
		return
	}
	for _, replicas := range []int{0, 1} {
		t.Run(fmt.Sprint("slots move, waiting for replicas: ", replicas), func(t *testing.T) {
			slotsMove(t, cluster, replicas)
		})
	}
	t.Run("the user needs its rights", func(t *testing.T) { clusterUser(t, cluster) })
}

func lifeOfASession(t *testing.T, m *session.Manager) {
	t.Helper()
	count := use(func(s *session.Session) { counterKey.Update(s, increment) })
	ok := func(what string, response *http.Response) {
		t.Helper()
		check(t, what, response.StatusCode, http.StatusOK)
	}
	v := newVisitor(m)
	ok("anonymous", v.get(count))
	anonymous := v.copy()
	ok("login", v.post(use(func(s *session.Session) { s.Regenerate(); nameKey.Set(s, "ada") })))
	check(t, "counter after login", counterOf(v), 0)
	check(t, "counter of the session before login", counterOf(anonymous), 0)
	ok("update", v.post(count))
	ok("update", v.get(count))
	check(t, "counter", counterOf(v), 2)
	replaced := v.copy()
	ok("renew", v.post(use(func(s *session.Session) { s.Renew(0) })))
	check(t, "name under the renewed cookie", nameOf(v), "ada")
	check(t, "name under the replaced cookie", nameOf(replaced), "")
	ended := v.copy()
	ok("logout", v.post(use(func(s *session.Session) { s.Destroy() })))
	check(t, "name after logout", nameOf(ended), "")
}

// While slots with live sessions move from one primary to another and back, each
// request is answered, and each increment counts once.
func slotsMove(t *testing.T, cluster *redistest.ClusterServers, replicas int) {
	client := cluster.Client(t)
	redirected := new(redirections)
	client.OnNewNode(func(node *redis.Client) { node.AddHook(redirected) })
	store := &session.RedisStore{Client: client, WaitReplicas: replicas}
	c := newCrowd(t, store, store)
	c.start()
	primaries, moved := cluster.Primaries(t), 0
	for start := time.Now(); time.Since(start) < 3*time.Second; moved++ {
		slot := cluster.SlotOf(t, "sess:"+c.members[moved%len(c.members)].handle)
		here := slices.Index(primaries, cluster.PrimaryOf(t, slot))
		cluster.MoveSlot(t, slot, primaries[(here+1)%len(primaries)], 10*time.Millisecond)
	}
	c.finish(t)
	t.Logf("%d slots moved, %d ASK and %d MOVED; %v", moved, redirected.ask.Load(), redirected.moved.Load(), c)
	if redirected.ask.Load() == 0 || redirected.moved.Load() == 0 {
		t.Errorf("%d ASK and %d MOVED: the clients saw nothing of the moves", redirected.ask.Load(), redirected.moved.Load())
	}
	check(t, "answers that are none", c.unavailable(), 0)
	check(t, "acknowledged increments that are lost", c.lost(), 0)
	check(t, "increments that count twice", c.doubled(), 0)
}

// A redirections counts how often nodes of a cluster say that a key is elsewhere.
type redirections struct {
	ask, moved atomic.Int64
}

func (r *redirections) count(err error) {
	if _, ok := redis.IsAskError(err); ok {
		r.ask.Add(1)
	}
	if _, ok := redis.IsMovedError(err); ok {
		r.moved.Add(1)
	}
}

func (r *redirections) DialHook(next redis.DialHook) redis.DialHook { return next }
func (r *redirections) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error {
		err := next(ctx, cmd)
		r.count(err)
		return err
	}
}
func (r *redirections) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return func(ctx context.Context, cmds []redis.Cmder) error {
		err := next(ctx, cmds)
		for _, cmd := range cmds {
			r.count(cmd.Err())
		}
		return err
	}
}

// When a primary dies under load the clients get 503 until its replica has taken over,
// and then go on, without anything being restarted. Nobody is taken for logged out.
// Redis may lose the last increments that it acknowledged.
func TestClusterPrimaryDies(t *testing.T) {
	skipFailover(t)
	cluster := redistest.Cluster(t)
	client := cluster.Client(t)
	c := newCrowd(t, &session.RedisStore{Client: client, WaitReplicas: 1}, &session.RedisStore{Client: client})
	c.start()
	c.served(t)
	cluster.Kill(t, cluster.PrimaryOf(t, c.slot(t, cluster)))
	took := c.served(t)
	c.finish(t)
	t.Logf("all served again %v after the kill; %v", took, c)
}

// The same with WaitReplicas: what was acknowledged is what the one replica has, so
// nothing is lost. Its sessions are served again when it has a replica of its own.
func TestClusterPrimaryDiesWithWaitReplicas(t *testing.T) {
	skipFailover(t)
	cluster := redistest.Cluster(t)
	client := cluster.Client(t)
	store := &session.RedisStore{Client: client, WaitReplicas: 1}
	c := newCrowd(t, store, store)
	c.start()
	c.served(t)
	slot := c.slot(t, cluster)
	primary := cluster.PrimaryOf(t, slot)
	cluster.Kill(t, primary)
	for deadline := time.Now().Add(recovery); cluster.PrimaryOf(t, slot) == primary; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("no failover in %v", recovery)
		}
	}
	cluster.Restart(t, primary)
	took := c.served(t)
	c.finish(t)
	t.Logf("all served again %v after the failover; %v", took, c)
	check(t, "acknowledged increments that are lost", c.lost(), 0)
	check(t, "increments that count twice", c.doubled(), 0)
}

func skipFailover(t *testing.T) {
	t.Helper()
	if testing.Short() {
		t.Skip("servers take seconds to find that one is dead")
	}
	t.Parallel()
}

// recovery is how long sessions may be out of service: the servers take some seconds,
// and on a machine that is busy many.
const recovery = 30 * time.Second

// A crowd is browsers that count at the same time, each in a session of its own.
type crowd struct {
	members []*member
	epoch   atomic.Int64 // counts the calls of served
	done    chan struct{}
	wg      sync.WaitGroup
}

// A member is one browser of a crowd. After a 503 it cannot know whether its increment
// was saved.
type member struct {
	crowd   *crowd
	visitor *visitor
	handle  string
	served  atomic.Int64 // the epoch in which the last request began that was answered with 200

	last    int // the counter in the last 200
	unknown int // the 503s since

	ok, unavailable, anonymous, other int
	lost, doubled                     int
}

// newCrowd makes the sessions of a crowd in one store, and has them used in another.
func newCrowd(t *testing.T, prepare, store session.Store) *crowd {
	t.Helper()
	c := &crowd{done: make(chan struct{})}
	first, second := newManager(t, session.Options{Store: prepare}), newManager(t, session.Options{Store: store})
	const size = 12
	for range size {
		m := &member{crowd: c, visitor: newVisitor(first)}
		response := m.visitor.get(use(func(s *session.Session) { nameKey.Set(s, "ada"); m.handle = s.ID() }))
		if response.StatusCode != http.StatusOK {
			t.Fatalf("a new session: status %d", response.StatusCode)
		}
		m.visitor.server = second.Handler(app)
		c.members = append(c.members, m)
	}
	return c
}

func (c *crowd) start() {
	for _, m := range c.members {
		c.wg.Go(func() {
			// A load that fails is found at another time for a safe method.
			for methods := []string{http.MethodGet, http.MethodPost}; ; methods[0], methods[1] = methods[1], methods[0] {
				select {
				case <-c.done:
					return
				case <-time.After(5 * time.Millisecond):
					m.request(methods[0])
				}
			}
		})
	}
}

func (m *member) request(method string) {
	epoch := m.crowd.epoch.Load()
	response := m.visitor.do(method, func(w http.ResponseWriter, r *http.Request) {
		s := session.From(r.Context())
		if nameKey.Get(s) != "ada" {
			w.WriteHeader(http.StatusTeapot)
			return
		}
		counterKey.Update(s, increment)
		w.WriteHeader(http.StatusOK) // saves
		fmt.Fprint(w, counterKey.Get(s))
	})
	switch response.StatusCode {
	case http.StatusOK:
		m.ok++
		m.saw(response.Body)
		m.served.Store(epoch)
	case http.StatusServiceUnavailable:
		m.unavailable++
		m.unknown++
	case http.StatusTeapot:
		m.anonymous++
	default:
		m.other++
	}
}

func (m *member) saw(body io.Reader) {
	var counter int
	if _, err := fmt.Fscan(body, &counter); err != nil {
		m.other++
	}
	m.lost += max(0, m.last+1-counter)
	m.doubled += max(0, counter-(m.last+1+m.unknown))
	m.last, m.unknown = counter, 0
}

// slot returns the slot of one of the sessions.
func (c *crowd) slot(t *testing.T, cluster *redistest.ClusterServers) int {
	t.Helper()
	return cluster.SlotOf(t, "sess:"+c.members[0].handle)
}

// served waits until each member has had a 200 for a request that began after the
// call, and returns how long that took.
func (c *crowd) served(t *testing.T) time.Duration {
	t.Helper()
	start, epoch := time.Now(), c.epoch.Add(1)
	for _, m := range c.members {
		for m.served.Load() < epoch {
			if time.Since(start) > recovery {
				t.Fatalf("a session is still out of service after %v", recovery)
			}
			time.Sleep(5 * time.Millisecond)
		}
	}
	return time.Since(start)
}

// finish ends the load, and checks what holds whatever happens to the servers: nobody
// was anonymous, and no counter is more than what was asked for.
func (c *crowd) finish(t *testing.T) {
	t.Helper()
	close(c.done)
	c.wg.Wait()
	for i, m := range c.members {
		check(t, fmt.Sprint(i, ": answers to an anonymous request"), m.anonymous, 0)
		check(t, fmt.Sprint(i, ": answers that are neither 200 nor 503"), m.other, 0)
		if m.ok == 0 {
			t.Errorf("%d: no request was answered", i)
		}
		m.request(http.MethodPost)
		check(t, fmt.Sprint(i, ": requests without an answer in the end"), m.unknown, 0)
		if asked := m.ok + m.unavailable; m.last > asked {
			t.Errorf("%d: the counter is %d after %d requests", i, m.last, asked)
		}
	}
}

func (c *crowd) sum(f func(*member) int) (n int) {
	for _, m := range c.members {
		n += f(m)
	}
	return n
}

func (c *crowd) unavailable() int { return c.sum(func(m *member) int { return m.unavailable }) }

// lost returns how many acknowledged increments are missing, as far as clients can tell.
func (c *crowd) lost() int    { return c.sum(func(m *member) int { return m.lost }) }
func (c *crowd) doubled() int { return c.sum(func(m *member) int { return m.doubled }) }

func (c *crowd) String() string {
	ok := c.sum(func(m *member) int { return m.ok })
	return fmt.Sprintf("%d acknowledged, %d times 503, %d lost", ok, c.unavailable(), c.lost())
}

// A primary whose replica is behind dies. Without WaitReplicas the last writes are lost,
// a logout as well; with it none that was acknowledged.
func TestWaitReplicasKeepsWhatWasAcknowledged(t *testing.T) {
	skipFailover(t)
	for _, replicas := range []int{0, 1} {
		client, link, replica := slowReplica(t, 50*time.Millisecond)
		store := &session.RedisStore{Client: client, WaitReplicas: replicas}
		writers := make([]writer, 16)
		var wg sync.WaitGroup
		for i := range writers {
			wg.Go(func() { writers[i].write(store, fmt.Sprint(i, " "), time.Second) })
		}
		time.Sleep(800 * time.Millisecond)
		link.cut()
		wg.Wait()
		if err := replica.ReplicaOf(t.Context(), "NO", "ONE").Err(); err != nil {
			t.Fatal(err)
		}

		acknowledged, lost := 0, 0
		for i := range writers {
			for key, want := range writers[i].acknowledged {
				data, err := (&session.RedisStore{Client: replica}).Load(t.Context(), key)
				acknowledged++
				if want == "" && errors.Is(err, session.ErrNotFound) || err == nil && string(data) == want {
					continue
				}
				lost++
			}
		}
		t.Logf("waiting for %d replicas: %d of %d records are not as acknowledged", replicas, lost, acknowledged)
		if acknowledged == 0 || (lost > 0) != (replicas == 0) {
			t.Errorf("waiting for %d replicas: %d of %d records are not as acknowledged", replicas, lost, acknowledged)
		}
	}
}

// slowReplica runs a primary, and a replica that gets everything late. It returns an app's
// client for the one and an admin's for the other.
func slowReplica(t *testing.T, delay time.Duration) (primary *redis.Client, link *slowLink, replica *redis.Client) {
	t.Helper()
	primary = redistest.Client(t, redistest.WaitRights)
	admin := redistest.Admin(t, primary.Options().Addr)
	link = newSlowLink(t, primary.Options().Addr, delay)
	host, port, _ := net.SplitHostPort(link.addr())
	replica = redistest.Admin(t, redistest.Start(t, "--replicaof", host+" "+port))
	eventually(t, "the replica is up to date", func() bool {
		return strings.Contains(admin.Info(t.Context(), "replication").Val(), "state=online") &&
			strings.Contains(replica.Info(t.Context(), "replication").Val(), "master_link_status:up")
	})
	return primary, link, replica
}

// A writer knows what of its records was acknowledged, "" for a deletion.
type writer struct {
	acknowledged map[string]string
}

// write creates, changes and deletes records for a time. It leaves what was not
// acknowledged out.
func (w *writer) write(store session.Store, prefix string, period time.Duration) {
	w.acknowledged = make(map[string]string)
	for n, start := 0, time.Now(); time.Since(start) < period; n++ {
		key := fmt.Sprint(prefix, n)
		for i, step := range []func(ctx context.Context) (string, error){
			func(ctx context.Context) (string, error) { return "v", store.Create(ctx, key, []byte("v"), time.Hour) },
			func(ctx context.Context) (string, error) {
				return "w", store.CompareAndSwap(ctx, key, []byte("v"), []byte("w"), time.Hour)
			},
			func(ctx context.Context) (string, error) { return "", store.Delete(ctx, key) },
		} {
			if i > n%3 {
				break
			}
			ctx, cancel := context.WithTimeout(context.Background(), 500*time.Millisecond)
			value, err := step(ctx)
			cancel()
			if err != nil {
				delete(w.acknowledged, key)
				break
			}
			w.acknowledged[key] = value
		}
	}
}

// A slowLink passes on connections to a server, and what comes from it late.
type slowLink struct {
	listener net.Listener
	broken   chan struct{}
}

func newSlowLink(t *testing.T, addr string, delay time.Duration) *slowLink {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	link := &slowLink{listener: listener, broken: make(chan struct{})}
	t.Cleanup(link.cut)
	go func() {
		for {
			near, err := listener.Accept()
			if err != nil {
				return
			}
			far, err := net.Dial("tcp", addr)
			if err != nil {
				near.Close()
				continue
			}
			go func() {
				<-link.broken
				near.Close()
				far.Close()
			}()
			go io.Copy(far, near)
			go link.copyLate(near, far, delay)
		}
	}()
	return link
}

func (l *slowLink) addr() string { return l.listener.Addr().String() }

// cut loses what is on the way.
func (l *slowLink) cut() {
	l.listener.Close()
	select {
	case <-l.broken:
	default:
		close(l.broken)
	}
}

func (l *slowLink) copyLate(to io.Writer, from io.Reader, delay time.Duration) {
	type chunk struct {
		data []byte
		due  time.Time
	}
	chunks := make(chan chunk, 1<<16)
	go func() {
		defer close(chunks)
		for {
			buffer := make([]byte, 4096)
			n, err := from.Read(buffer)
			if err != nil {
				return
			}
			chunks <- chunk{buffer[:n], time.Now().Add(delay)}
		}
	}()
	for c := range chunks {
		select {
		case <-time.After(time.Until(c.due)):
			to.Write(c.data)
		case <-l.broken:
			return
		}
	}
}

func eventually(t *testing.T, what string, ready func() bool) {
	t.Helper()
	for deadline := time.Now().Add(recovery); !ready(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("waited %v until %s", recovery, what)
		}
	}
}

// With WaitReplicas the replica has what a request has done when it is answered.
func TestWaitReplicasWaits(t *testing.T) {
	primary, _, replica := slowReplica(t, 20*time.Millisecond)
	m := newManager(t, session.Options{Store: &session.RedisStore{Client: primary, WaitReplicas: 1}})
	for range 10 {
		lifeOfASession(t, m)
		v := newVisitor(m)
		v.get(setName("x"))
		check(t, "sessions that the replica has", replica.DBSize(t.Context()).Val(), 1)
		v.get(logout)
		check(t, "sessions that the replica has", replica.DBSize(t.Context()).Val(), 0)
	}
}

// With too few replicas a write is an error, although it is done; a request that
// writes is answered 503, and one that reads is served. A deletion that is repeated
// because it was not acknowledged is one that has to be acknowledged.
func TestWaitReplicasMissing(t *testing.T) {
	client := redistest.Client(t, redistest.WaitRights)
	store := &session.RedisStore{Client: client, WaitReplicas: 1}
	within := func(do func(ctx context.Context) error) error {
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		defer cancel()
		return do(ctx)
	}
	refused := func(what string, do func(ctx context.Context) error) {
		t.Helper()
		if err := within(do); !errors.Is(err, session.ErrNotReplicated) {
			t.Errorf("%s: error %v, want ErrNotReplicated", what, err)
		}
	}
	refused("Create", func(ctx context.Context) error { return store.Create(ctx, "a", []byte("x"), time.Hour) })
	// So that the server has the script, and the time is not spent on EVALSHA.
	(&session.RedisStore{Client: client}).CompareAndSwap(t.Context(), "none", []byte("x"), []byte("y"), time.Hour)
	refused("CompareAndSwap", func(ctx context.Context) error {
		return store.CompareAndSwap(ctx, "a", []byte("x"), []byte("y"), time.Hour)
	})
	data, err := store.Load(t.Context(), "a")
	check(t, "the record", fmt.Sprintf("%s %v", data, err), "y <nil>")
	refused("Delete", func(ctx context.Context) error { return store.Delete(ctx, "a") })
	refused("Delete again", func(ctx context.Context) error { return store.Delete(ctx, "a") })

	v := newVisitor(newManager(t, session.Options{Store: &session.RedisStore{Client: client}}))
	v.get(setName("x"))
	v.server = newManager(t, session.Options{Store: store, StoreTimeout: 50 * time.Millisecond}).Handler(app)
	check(t, "name", nameOf(v), "x")
	expectUnavailable(t, "change", v.get(setName("y")))
	expectUnavailable(t, "login", v.get(use(func(s *session.Session) { s.Regenerate(); nameKey.Set(s, "y") })))
	expectUnavailable(t, "logout", v.copy().post(use(func(s *session.Session) { s.Destroy() })))
}

// A manager does not take a write for done because it finds it on the primary, also
// where the store's time is shorter than the manager's.
func TestWaitReplicasIsNotTalkedOver(t *testing.T) {
	client := redistest.Client(t, redistest.WaitRights)
	v := newVisitor(newManager(t, session.Options{Store: &session.RedisStore{Client: client}}))
	v.get(setName("x"))
	hasty := &hastyStore{&session.RedisStore{Client: client, WaitReplicas: 1}}
	v.server = newManager(t, session.Options{Store: hasty}).Handler(app)
	expectUnavailable(t, "change", v.get(setName("y")))
	expectUnavailable(t, "login", v.get(use(func(s *session.Session) { s.Regenerate(); nameKey.Set(s, "y") })))
	expectUnavailable(t, "new session", newVisitor(newManager(t, session.Options{Store: hasty})).get(setName("y")))
}

// A hastyStore gives its writes a part of the time that they may take.
type hastyStore struct{ session.Store }

func (s *hastyStore) Create(ctx context.Context, key string, data []byte, ttl time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, 50*time.Millisecond)
	defer cancel()
	return s.Store.Create(ctx, key, data, ttl)
}

func (s *hastyStore) CompareAndSwap(ctx context.Context, key string, old, data []byte, ttl time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, 50*time.Millisecond)
	defer cancel()
	return s.Store.CompareAndSwap(ctx, key, old, data, ttl)
}

// The time that a WAIT may take is the call's, not that of the client's own settings.
func TestWaitReplicasOutlastsTheClient(t *testing.T) {
	primary, _, _ := slowReplica(t, 200*time.Millisecond)
	options := redistest.Options(primary.Options().Addr)
	options.ReadTimeout, options.MaxRetries = 50*time.Millisecond, -1
	client := redis.NewClient(options)
	defer client.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	store := &session.RedisStore{Client: client, WaitReplicas: 1}
	check(t, "Create", store.Create(ctx, "a", []byte("x"), time.Hour), nil)
}

// A client of another type cannot be asked to wait, and so nothing is written.
func TestWaitReplicasUnsupported(t *testing.T) {
	client := redistest.Client(t)
	store := &session.RedisStore{Client: struct{ session.RedisClient }{client}, WaitReplicas: 1}
	if err := store.Create(t.Context(), "a", []byte("x"), time.Hour); !errors.Is(err, errors.ErrUnsupported) {
		t.Errorf("Create: error %v, want ErrUnsupported", err)
	}
	check(t, "keys", len(redistest.Admin(t, client.Options().Addr).Keys(t.Context(), "*").Val()), 0)
}
