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

	"github.com/redis/go-redis/v9"
	"github.com/seed-4f96e14b/session"
	"github.com/seed-4f96e14b/session/internal/testing/redistest"
	"github.com/seed-4f96e14b/session/storetest"
)

func TestStoreContract(t *testing.T) {
	t.Run("memory", func(t *testing.T) {
		storetest.RunInBubble(t, func(*testing.T) session.Store { return new(session.MemoryStore) })
	})
	t.Run("miniredis", func(t *testing.T) {
		storetest.Run(t, func(t *testing.T) session.Store {
			server := newMiniredis(t)
			client := redis.NewClient(&redis.Options{Addr: server.Addr()})
			t.Cleanup(func() { client.Close() })
			go func() { // miniredis has no time of its own
				for last := time.Now(); t.Context().Err() == nil; {
					time.Sleep(20 * time.Millisecond)
					elapsed := time.Since(last) // more, on a busy machine
					server.FastForward(elapsed)
					last = last.Add(elapsed)
				}
			}()
			return &session.RedisStore{Client: client}
		})
	})
	t.Run("redis", func(t *testing.T) {
		client, n := redistest.Client(t, redistest.ListRights), 0
		storetest.Run(t, func(t *testing.T) session.Store {
			n++
			return &session.RedisStore{Client: client, Prefix: fmt.Sprintf("sess:test[%d]*:", n)}
		})
	})
	t.Run("redis, with a client of another type", func(t *testing.T) {
		client, n := struct{ session.RedisClient }{redistest.Client(t)}, 0
		storetest.Run(t, func(t *testing.T) session.Store {
			n++
			return &session.RedisStore{Client: client, Prefix: fmt.Sprint("sess:", n, ":")} // which cannot list its keys
		})
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
		check(t, "sessions", recordsIn(t, store), 100)
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
	eventually(t, "no goroutine of a store is left", func() bool { return sweepers() == 0 }) // others' may be at work
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
	admin := redistest.Admin(t, client.Options().Addr)
	store := &session.RedisStore{Client: client}
	for name, tt := range map[string]struct {
		options session.Options
		do      []handler
		want    time.Duration
	}{
		"new":          {session.Options{}, []handler{setName("x")}, 24 * time.Hour},
		"changed":      {session.Options{}, []handler{setName("x"), setName("y")}, 24 * time.Hour},
		"renewed":      {session.Options{}, []handler{setName("x"), use(func(s *session.Session) { s.Renew(0) })}, 24 * time.Hour},
		"regenerated":  {session.Options{}, []handler{setName("x"), use(func(s *session.Session) { s.Regenerate() })}, 24 * time.Hour},
		"resaved":      {session.Options{Resave: true}, []handler{setName("x"), untouched}, 24 * time.Hour},
		"remembered":   {session.Options{}, []handler{setName("x"), use(func(s *session.Session) { s.SetMaxAge(100 * time.Hour) })}, 100 * time.Hour},
		"uninitalized": {session.Options{SaveUninitialized: true}, []handler{untouched}, 24 * time.Hour},
		"absolute":     {session.Options{AbsoluteTimeout: time.Hour}, []handler{setName("x")}, time.Hour},
	} {
		admin.FlushAll(t.Context())
		tt.options.Store = store
		v := newVisitor(newManager(t, tt.options))
		for _, do := range tt.do {
			v.get(do)
		}
		keys, _ := admin.Keys(t.Context(), "*").Result()
		check(t, name+": keys", len(keys), 1)
		if !strings.HasPrefix(keys[0], "sess:") {
			t.Errorf("%s: key %q", name, keys[0])
		}
		if ttl := admin.PTTL(t.Context(), keys[0]).Val(); ttl > tt.want+time.Minute || ttl < tt.want+55*time.Second {
			t.Errorf("%s: time to live %v, want %v and a minute", name, ttl, tt.want)
		}
	}
}

// A key of another type is unreadable: anonymous, and left alone until a logout or a
// login ends what the cookie names.
func TestRedisKeyOfAnotherType(t *testing.T) {
	for name, tt := range map[string]struct {
		do   func(s *session.Session)
		left string
	}{
		"read":   {func(s *session.Session) { check(t, "name", nameKey.Get(s)+fmt.Sprint(s.Err()), "<nil>") }, "hash"},
		"write":  {func(s *session.Session) { nameKey.Set(s, "y") }, "hash"},
		"login":  {func(s *session.Session) { s.Regenerate(); nameKey.Set(s, "y") }, "none"},
		"logout": {func(s *session.Session) { s.Destroy() }, "none"},
	} {
		t.Run(name, func(t *testing.T) {
			client := redistest.Client(t)
			admin := redistest.Admin(t, client.Options().Addr)
			v := newVisitor(newManager(t, session.Options{Store: &session.RedisStore{Client: client}}))
			v.get(setName("x"))
			key := admin.Keys(t.Context(), "*").Val()[0]
			admin.Del(t.Context(), key)
			admin.HSet(t.Context(), key, "field", "value")
			admin.Expire(t.Context(), key, time.Hour)
			check(t, "status", v.post(use(tt.do)).StatusCode, 200)
			check(t, "type", admin.Type(t.Context(), key).Val(), tt.left)
			check(t, "login", v.post(setName("z")).StatusCode, 200)
			check(t, "name", nameOf(v), "z")
		})
	}
}

// The shortest and the longest times to live that a session can have are ones that Redis
// takes.
func TestRedisLifetimes(t *testing.T) {
	client := redistest.Client(t)
	admin := redistest.Admin(t, client.Options().Addr)
	store := &session.RedisStore{Client: client}
	const longest = (1<<63 - 1) / time.Second * time.Second
	for name, options := range map[string]session.Options{
		"shortest":                {IdleTimeout: time.Second},
		"shortest, absolute":      {AbsoluteTimeout: time.Second, IdleTimeout: time.Second},
		"longest idle":            {IdleTimeout: longest, AbsoluteTimeout: -1},
		"longest idle of a day":   {IdleTimeout: 24 * time.Hour, AbsoluteTimeout: longest},
		"longest cookie":          {AbsoluteTimeout: -1, Cookie: session.Cookie{MaxAge: 400 * 24 * time.Hour}},
		"longest of all that end": {IdleTimeout: longest, AbsoluteTimeout: longest},
	} {
		admin.FlushAll(t.Context())
		options.Store = store
		v := newVisitor(newManager(t, options))
		check(t, name+": create", v.post(setName("x")).StatusCode, 200)
		check(t, name+": write", v.post(setName("y")).StatusCode, 200)
		check(t, name+": renew", v.post(renew).StatusCode, 200)
		for _, key := range admin.Keys(t.Context(), "*").Val() {
			if ttl := admin.PTTL(t.Context(), key).Val(); ttl <= 0 {
				t.Errorf("%s: time to live %v", name, ttl)
			}
		}
	}
	for _, ttl := range []time.Duration{0, -1, -1 << 63} {
		if err := store.Create(t.Context(), "key", []byte("x"), ttl); err == nil {
			t.Errorf("a time to live of %v: no error", ttl)
		}
	}
	if err := store.Create(t.Context(), "key", []byte("x"), 1); err != nil { // rounded up
		t.Error(err)
	}
}

// A server that does not know a command, as one where it was renamed, quotes the arguments
// in its error. Ours does not: the key is half a secret where Express is the other side.
func TestRedisErrorsQuoteNothing(t *testing.T) {
	args := []string{"--rename-command", "GET", "", "--rename-command", "SET", "", "--rename-command", "EVALSHA", "", "--rename-command", "DEL", ""}
	client := redis.NewClient(redistest.Options(redistest.Start(t, args...)))
	defer client.Close()
	const key, record = "the-key-of-a-session", "the record of a session"
	soon := func() context.Context { // for the WAIT, which no replica answers
		ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
		t.Cleanup(cancel)
		return ctx
	}
	for _, replicas := range []int{0, 1} {
		store := &session.RedisStore{Client: client, WaitReplicas: replicas}
		_, err := store.Load(t.Context(), key)
		for command, err := range map[string]error{
			"get":     err,
			"set":     store.Create(soon(), key, []byte(record), time.Hour),
			"evalsha": store.CompareAndSwap(soon(), key, []byte(record), []byte("new"), time.Hour),
			"del":     store.Delete(soon(), key),
		} {
			if _, isReply := errors.AsType[redis.Error](err); !isReply {
				t.Errorf("%s: error %v, want the server's", command, err)
				continue
			}
			check(t, "error", err.Error(), "ERR unknown command '"+command+"'")
			for ; err != nil; err = errors.Unwrap(err) {
				if text := err.Error(); strings.Contains(text, key) || strings.Contains(text, record) {
					t.Errorf("%s: the error quotes what it was asked: %s", command, text)
				}
			}
		}
	}
}

// The prefix keeps applications apart, also where it has the characters of patterns.
func TestRedisPrefix(t *testing.T) {
	client := redistest.Client(t, redistest.ListRights)
	prefixes := []string{"sess:x:", "sess:app[1]:", "sess:app1:", "sess:*", "sess:a?b:", `sess:\`, "sess:[^a]:"}
	for i, prefix := range prefixes {
		store := &session.RedisStore{Client: client, Prefix: prefix}
		for n := range i + 1 {
			store.Create(t.Context(), fmt.Sprint("key", n), []byte("x"), time.Hour)
		}
	}
	for i, prefix := range prefixes {
		store := &session.RedisStore{Client: client, Prefix: prefix}
		check(t, fmt.Sprintf("keys with the prefix %q", prefix), recordsIn(t, store), i+1)
	}
	(&session.RedisStore{Client: client, Prefix: "sess:a?b:"}).Clear(t.Context())
	left := redistest.Admin(t, client.Options().Addr).Keys(t.Context(), "*").Val()
	if slices.Contains(left, "sess:a?b:key0") || len(left) != 1+2+3+4+6+7 {
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
