package session_test

import (
	"context"
	"errors"
	"fmt"
	"math"
	"net"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
	"weak"

	"github.com/alicebob/miniredis/v2"
	"github.com/redis/go-redis/v9"
	"github.com/seed-4f96e14b/session"
	"github.com/seed-4f96e14b/session/internal/redistest"
	"github.com/seed-4f96e14b/session/storetest"
)

func TestStoreContract(t *testing.T) {
	t.Run("memory", func(t *testing.T) {
		storetest.RunInBubble(t, func(*testing.T) session.Store { return new(session.MemoryStore) })
	})
	t.Run("miniredis", func(t *testing.T) {
		storetest.Run(t, func(t *testing.T) session.Store {
			server := miniredis.RunT(t)
			client := redis.NewClient(&redis.Options{Addr: server.Addr()})
			t.Cleanup(func() { client.Close() })
			go func() { // miniredis has no time of its own
				for last := time.Now(); t.Context().Err() == nil; {
					time.Sleep(20 * time.Millisecond)
					now := time.Now() // on a busy machine it has slept for longer
					server.FastForward(now.Sub(last))
					last = now
				}
			}()
			return &session.RedisStore{Client: client}
		})
	})
	t.Run("redis", func(t *testing.T) {
		client, n := redistest.Client(t), 0
		storetest.Run(t, func(t *testing.T) session.Store {
			n++
			return &session.RedisStore{Client: client, Prefix: fmt.Sprintf("test[%d]*:", n)}
		})
	})
	t.Run("redis, auto-pipelined", func(t *testing.T) {
		pipeliner, err := redistest.Client(t).AutoPipeline()
		if err != nil {
			t.Fatal(err)
		}
		defer pipeliner.Close()
		n := 0
		storetest.Run(t, func(t *testing.T) session.Store {
			n++
			// Its keys cannot be listed, so it passes as a plain store.
			return struct{ session.Store }{&session.RedisStore{Client: pipeliner, Prefix: fmt.Sprint(n, ":")}}
		})
	})
	t.Run("ring", func(t *testing.T) {
		a, b := redistest.Start(t), redistest.Start(t)
		client := redis.NewRing(&redis.RingOptions{Addrs: map[string]string{"a": a, "b": b}})
		defer client.Close()
		store := &session.RedisStore{Client: client}
		v := newVisitor(newManager(t, session.Options{Store: store}))
		for i := range 50 {
			if err := store.Create(t.Context(), fmt.Sprint(i), []byte("x"), time.Hour); err != nil {
				t.Fatal(err)
			}
		}
		v.get(setName("x"))
		v.get(setName("y"))
		check(t, "name", nameOf(v), "y")
		if n, err := store.Len(t.Context()); n != 51 || err != nil {
			t.Errorf("Len: %d, %v", n, err)
		}
		// With a shard down nobody can say that all sessions have ended.
		client.ForEachShard(t.Context(), func(ctx context.Context, shard *redis.Client) error {
			if shard.Options().Addr == b {
				shard.ShutdownNoSave(ctx)
			}
			return nil
		})
		for client.Len() == 2 {
			time.Sleep(10 * time.Millisecond)
		}
		if err := store.Clear(t.Context()); err == nil {
			t.Error("Clear says that it is done")
		}
	})
}

func TestMemoryStoreExpiresToTheEdge(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		store := new(session.MemoryStore)
		store.Create(t.Context(), "a", []byte("x"), time.Minute)
		time.Sleep(time.Minute - time.Millisecond)
		if _, err := store.Load(t.Context(), "a"); err != nil {
			t.Errorf("a millisecond before: %v", err)
		}
		time.Sleep(time.Millisecond)
		if _, err := store.Load(t.Context(), "a"); !errors.Is(err, session.ErrNotFound) {
			t.Errorf("at the time: error %v, want ErrNotFound", err)
		}
	})
}

// Not a nanosecond early, whenever it began.
func TestMemoryStoreExpiresNotEarly(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		for range 1000 {
			store := new(session.MemoryStore)
			time.Sleep(333_333)
			store.Create(t.Context(), "a", []byte("x"), time.Millisecond)
			time.Sleep(time.Millisecond - 1)
			if _, err := store.Load(t.Context(), "a"); err != nil {
				t.Fatalf("a nanosecond before: %v", err)
			}
		}
	})
}

// A full store refuses what is new, goes on with what is there, and has room again
// when sessions end.
func TestMemoryStoreIsBounded(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		store := &session.MemoryStore{MaxEntries: 100}
		for i := range 100 {
			if err := store.Create(t.Context(), fmt.Sprint(i), []byte("x"), time.Duration(i+1)*time.Hour); err != nil {
				t.Fatal(err)
			}
		}
		err := store.Create(t.Context(), "new", []byte("x"), time.Hour)
		if !errors.Is(err, session.ErrFull) || !strings.Contains(err.Error(), "100") {
			t.Errorf("error %v, want ErrFull with the number", err)
		}
		if err := store.Create(t.Context(), "7", []byte("x"), time.Hour); !errors.Is(err, session.ErrConflict) {
			t.Errorf("a key in use: error %v, want ErrConflict", err)
		}
		if err := store.CompareAndSwap(t.Context(), "7", []byte("x"), []byte("y"), 8*time.Hour); err != nil {
			t.Errorf("a session that is there: %v", err)
		}
		time.Sleep(time.Hour) // the first has expired, and nothing has swept it yet
		if err := store.Create(t.Context(), "new", []byte("x"), time.Hour); err != nil {
			t.Errorf("after one expired: %v", err)
		}
		if err := store.Create(t.Context(), "newer", []byte("x"), time.Hour); !errors.Is(err, session.ErrFull) {
			t.Errorf("full again: error %v, want ErrFull", err)
		}
		store.Delete(t.Context(), "50")
		if err := store.Create(t.Context(), "newer", []byte("x"), time.Hour); err != nil {
			t.Errorf("after one was deleted: %v", err)
		}
	})

	t.Run("at once", func(t *testing.T) {
		store := &session.MemoryStore{MaxEntries: 100}
		var wg sync.WaitGroup
		for i := range 8 {
			wg.Go(func() {
				for n := range 100 {
					store.Create(t.Context(), fmt.Sprint(i, " ", n), nil, time.Hour)
				}
			})
		}
		wg.Wait()
		if n, _ := store.Len(t.Context()); n != 100 {
			t.Errorf("%d sessions, want 100", n)
		}
	})

	t.Run("a request", func(t *testing.T) {
		m := newManager(t, session.Options{Store: &session.MemoryStore{MaxEntries: 1}})
		v := newVisitor(m)
		v.get(setName("x"))
		expectUnavailable(t, "new session", newVisitor(m).get(setName("y")))
		v.get(setName("z"))
		check(t, "the live one", nameOf(v), "z")
	})
}

// Expired sessions leave memory by themselves, without a goroutine that waits.
func TestMemoryStoreSweepsByItself(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		store := new(session.MemoryStore)
		for i := range 1000 {
			store.Create(t.Context(), fmt.Sprint(i), []byte("x"), time.Minute)
		}
		store.Create(t.Context(), "stays", []byte("x"), time.Hour)
		check(t, "printed", fmt.Sprint(store), "session.MemoryStore(1001 entries)")
		time.Sleep(2*time.Minute + time.Second)
		synctest.Wait()
		check(t, "printed after two minutes", fmt.Sprint(store), "session.MemoryStore(1 entries)")
		time.Sleep(time.Hour)
		synctest.Wait()
		check(t, "printed after an hour", fmt.Sprint(store), "session.MemoryStore(0 entries)")
		check(t, "goroutines of stores", sweepers(), 0)
		store.Create(t.Context(), "again", []byte("x"), time.Minute)
		time.Sleep(3 * time.Minute)
		synctest.Wait()
		check(t, "printed after a second filling", fmt.Sprint(store), "session.MemoryStore(0 entries)")
	})
}

// A store that nobody uses any more is collected, with sessions in it.
func TestMemoryStoreNeedsNoClose(t *testing.T) {
	var stores []weak.Pointer[session.MemoryStore]
	for range 100 {
		store := new(session.MemoryStore)
		store.Create(t.Context(), "a", []byte("x"), 24*time.Hour)
		stores = append(stores, weak.Make(store))
	}
	for range 10 {
		runtime.GC()
	}
	alive := 0
	for _, store := range stores {
		if store.Value() != nil {
			alive++
		}
	}
	check(t, "stores that are still there", alive, 0)
	check(t, "goroutines of stores", sweepers(), 0)
}

// sweepers returns how many calls a memory store has on the stacks of all goroutines, at
// the least: the timer of a store of another test may just be running.
func sweepers() (least int) {
	stacks := make([]byte, 1<<20)
	least = math.MaxInt
	for looks := 0; looks < 100 && least > 0; looks++ {
		least = min(least, strings.Count(string(stacks[:runtime.Stack(stacks, true)]), "session.(*MemoryStore)."))
		runtime.Gosched()
	}
	return least
}

// Every key has a time to live, within a minute of the session's deadline.
func TestRedisKeysExpire(t *testing.T) {
	client := redistest.Client(t)
	store := &session.RedisStore{Client: client}
	for name, tt := range map[string]struct {
		options session.Options
		do      []handler
		want    time.Duration
	}{
		"new":          {session.Options{}, []handler{setName("x")}, 24 * time.Hour},
		"changed":      {session.Options{}, []handler{setName("x"), setName("y")}, 24 * time.Hour},
		"renewed":      {session.Options{}, []handler{setName("x"), use(func(s *session.Session) { s.Renew() })}, 24 * time.Hour},
		"regenerated":  {session.Options{}, []handler{setName("x"), use(func(s *session.Session) { s.Regenerate() })}, 24 * time.Hour},
		"resaved":      {session.Options{Resave: true}, []handler{setName("x"), untouched}, 24 * time.Hour},
		"remembered":   {session.Options{}, []handler{setName("x"), use(func(s *session.Session) { s.SetMaxAge(100 * time.Hour) })}, 100 * time.Hour},
		"uninitalized": {session.Options{SaveUninitialized: true}, []handler{untouched}, 24 * time.Hour},
		"absolute":     {session.Options{AbsoluteTimeout: time.Hour}, []handler{setName("x")}, time.Hour},
	} {
		client.FlushAll(t.Context())
		tt.options.Store = store
		v := newVisitor(newManager(t, tt.options))
		for _, do := range tt.do {
			v.get(do)
		}
		keys, _ := client.Keys(t.Context(), "*").Result()
		check(t, name+": keys", len(keys), 1)
		if !strings.HasPrefix(keys[0], "sess:") {
			t.Errorf("%s: key %q", name, keys[0])
		}
		if ttl := client.PTTL(t.Context(), keys[0]).Val(); ttl > tt.want+time.Minute || ttl < tt.want+55*time.Second {
			t.Errorf("%s: time to live %v, want %v and a minute", name, ttl, tt.want)
		}
	}
}

// A counter of commands, as a hook of the client.
type commands struct {
	mu    sync.Mutex
	names []string
}

func (c *commands) DialHook(next redis.DialHook) redis.DialHook { return next }
func (c *commands) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error {
		c.mu.Lock()
		c.names = append(c.names, cmd.Name())
		c.mu.Unlock()
		return next(ctx, cmd)
	}
}
func (c *commands) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return next
}

func (c *commands) took() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	names := strings.Join(c.names, " ")
	c.names = nil
	return names
}

// Round trips: 0 untouched or forged, 1 read, 2 read and write, 1 create (2 where it
// replaces a session), 2 logout after a read; EVAL once, where the server does not
// have the script.
func TestRedisCommands(t *testing.T) {
	client := redistest.Client(t)
	counter := new(commands)
	client.Ping(t.Context()) // so that the connection's greetings are not counted
	client.AddHook(counter)
	v := newVisitor(newManager(t, session.Options{Store: &session.RedisStore{Client: client}}))
	forged := v.copy()
	for _, step := range []struct {
		name string
		do   handler
		want string
	}{
		{"create", setName("x"), "set"},
		{"untouched", untouched, ""},
		{"read", use(func(s *session.Session) { nameKey.Get(s); s.ID(); s.Keys() }), "get"},
		{"first write", setName("y"), "get evalsha eval"},
		{"write", setName("z"), "get evalsha"},
		{"equal write", setName("z"), "get"},
		{"renew", use(func(s *session.Session) { s.Renew() }), "get evalsha"},
		{"login", use(func(s *session.Session) { s.Regenerate(); nameKey.Set(s, "u") }), "set del"},
		{"logout", use(func(s *session.Session) { nameKey.Get(s); s.Destroy() }), "get del"},
	} {
		counter.took()
		check(t, step.name, v.get(step.do).StatusCode, 200)
		check(t, step.name, counter.took(), step.want)
	}
	forged.jar["__Host-sid"] = strings.Repeat("A", 120)
	forged.post(use(func(s *session.Session) { nameKey.Get(s) }))
	check(t, "forged", counter.took(), "")

	v.get(setName("x"))
	client.ScriptFlush(t.Context())
	counter.took()
	v.get(setName("y"))
	check(t, "write after the server forgot the script", counter.took(), "get evalsha eval")
	check(t, "name", nameOf(v), "y")
}

// A key of another type is unreadable: anonymous, and left alone.
func TestRedisKeyOfAnotherType(t *testing.T) {
	client := redistest.Client(t)
	v := newVisitor(newManager(t, session.Options{Store: &session.RedisStore{Client: client}}))
	v.get(setName("x"))
	key := client.Keys(t.Context(), "*").Val()[0]
	client.Del(t.Context(), key)
	client.HSet(t.Context(), key, "field", "value")
	response := v.get(use(func(s *session.Session) {
		check(t, "name", nameKey.Get(s), "")
		check(t, "error", s.Err(), nil)
	}))
	check(t, "status", response.StatusCode, 200)
	check(t, "type", client.Type(t.Context(), key).Val(), "hash")
}

// The prefix keeps applications apart, also where it has the characters of patterns.
func TestRedisPrefix(t *testing.T) {
	client := redistest.Client(t)
	prefixes := []string{"sess:", "app[1]:", "app1:", "*", "a?b:", `\`, "[^a]:"}
	for i, prefix := range prefixes {
		store := &session.RedisStore{Client: client, Prefix: prefix}
		for n := range i + 1 {
			store.Create(t.Context(), fmt.Sprint("key", n), []byte("x"), time.Hour)
		}
	}
	for i, prefix := range prefixes {
		store := &session.RedisStore{Client: client, Prefix: prefix}
		if n, err := store.Len(t.Context()); n != i+1 || err != nil {
			t.Errorf("prefix %q: %d keys and error %v, want %d", prefix, n, err, i+1)
		}
	}
	(&session.RedisStore{Client: client, Prefix: "a?b:"}).Clear(t.Context())
	left := client.Keys(t.Context(), "*").Val()
	if slices.Contains(left, "a?b:key0") || len(left) != 1+2+3+4+6+7 {
		t.Errorf("after Clear: %q", left)
	}
}

// A client whose own settings would hang for seconds does not hang a request.
func TestRedisThatNeverAnswers(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	client := redis.NewClient(&redis.Options{Addr: listener.Addr().String()})
	defer client.Close()
	memory := new(session.MemoryStore)
	v := newVisitor(newManager(t, session.Options{Store: memory}))
	v.get(setName("x"))
	v.server = newManager(t, session.Options{Store: &session.RedisStore{Client: client}, StoreTimeout: 50 * time.Millisecond}).Handler(app)
	expectUnavailable(t, "read", v.get(use(func(s *session.Session) { nameKey.Get(s) })))
}
