package session_test

import (
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/seed-4f96e14b/session"
	"github.com/seed-4f96e14b/session/internal/testing/faultproxy"
	"github.com/seed-4f96e14b/session/internal/testing/redistest"
)

// The races that users of session libraries report, each at a gate. Their names are
// what a model test that fails is to be turned into.

// atGate sends the slow request, and when it is about to make its nth call of op,
// sends the fast one to another process, with the cookie of before.
func atGate(t *testing.T, options session.Options, op string, n int, slow, fast handler) (slowTab, fastTab *visitor, response *http.Response) {
	t.Helper()
	sp := &spy{Store: new(session.MemoryStore)}
	options.Store = sp
	slowTab = newVisitor(newManager(t, options))
	slowTab.get(use(func(s *session.Session) { nameKey.Set(s, "x"); counterKey.Set(s, 0) }))
	fastTab = slowTab.elsewhere(newManager(t, options))
	var calls atomic.Int32
	passed := false
	sp.before = func(o, _ string) error {
		if o == op && int(calls.Add(1)) == n {
			sp.works()
			passed = true
			fastTab.get(fast)
		}
		return nil
	}
	response = slowTab.get(slow)
	if !passed {
		t.Fatalf("the slow request made no call %s number %d", op, n)
	}
	return slowTab, fastTab, response
}

var (
	renew   = use(func(s *session.Session) { s.Renew(0) })
	rotate  = use(func(s *session.Session) { s.Renew(30 * time.Second) })
	destroy = use(func(s *session.Session) { s.Destroy() })
	count   = use(func(s *session.Session) { counterKey.Update(s, increment) })
	look    = use(func(s *session.Session) { nameKey.Get(s) })
)

func TestRaceSlowRequestLogout(t *testing.T) {
	slow, fast, response := atGate(t, session.Options{}, "S", 1, count, destroy)
	check(t, "status", response.StatusCode, http.StatusOK)
	check(t, "cookies", len(cookies(response)), 0)
	check(t, "names", nameOf(slow)+nameOf(fast), "")
}

// What another request has changed since the cookie lost its worth is a 503, and not
// saved; within a grace it is saved.
func TestRaceSlowRequestRenew(t *testing.T) {
	options := session.Options{Cookie: session.Cookie{MaxAge: time.Hour}}
	slow, fast, response := atGate(t, options, "S", 1, count, renew)
	check(t, "status", response.StatusCode, http.StatusServiceUnavailable)
	check(t, "cookies", len(cookies(response)), 0)
	check(t, "old cookie", nameOf(slow), "")
	check(t, "new cookie", nameOf(fast), "x")
	check(t, "counter", counterOf(fast), 0)

	slow, fast, response = atGate(t, options, "S", 1, count, rotate)
	check(t, "in the grace: status", response.StatusCode, http.StatusOK)
	check(t, "in the grace: cookies", len(cookies(response)), 0)
	check(t, "in the grace: old cookie", counterOf(slow), 1)
	check(t, "in the grace: new cookie", counterOf(fast), 1)
}

// A lifetime that is set by a request whose cookie another has rotated meanwhile would be the
// server's alone: no cookie goes that could have it.
func TestRaceSlowSetMaxAgeRotate(t *testing.T) {
	remember := use(func(s *session.Session) { s.SetMaxAge(20 * 24 * time.Hour); counterKey.Update(s, increment) })
	_, fast, response := atGate(t, session.Options{}, "S", 1, remember, rotate)
	check(t, "cookies", len(cookies(response)), 0)
	fast.get(use(func(s *session.Session) {
		check(t, "counter", counterKey.Get(s), 1)
		if left := time.Until(s.Expires()); left > session.DefaultIdleTimeout {
			t.Errorf("it ends after %v", left)
		}
	}))
}

func TestRaceSlowRenewRequest(t *testing.T) {
	for name, renewal := range map[string]handler{"renew": renew, "rotate": rotate} {
		slow, fast, response := atGate(t, session.Options{}, "S", 1, renewal, count)
		check(t, name+": status", response.StatusCode, http.StatusOK)
		check(t, name+": new cookie", counterOf(slow), 1)
		check(t, name+": old cookie", nameOf(fast), map[string]string{"renew": "", "rotate": "x"}[name])
	}
}

func TestRaceSlowRenewLogout(t *testing.T) {
	slow, fast, response := atGate(t, session.Options{}, "S", 1, renew, destroy)
	check(t, "cookies", len(cookies(response)), 0)
	check(t, "names", nameOf(slow)+nameOf(fast), "")
}

func TestRaceSlowLogoutRenew(t *testing.T) {
	slow, fast, response := atGate(t, session.Options{}, "D", 1, destroy, renew)
	check(t, "status", response.StatusCode, http.StatusOK)
	check(t, "names", nameOf(slow)+nameOf(fast), "")
}

// Of two renewals at once the first counts. The other is skipped if it is a rotation, and
// fails if it was to leave no other cookie.
func TestRaceRenewRenew(t *testing.T) {
	slow, fast, response := atGate(t, session.Options{}, "S", 1, renew, renew)
	check(t, "status", response.StatusCode, http.StatusServiceUnavailable)
	check(t, "cookies", len(cookies(response)), 0)
	check(t, "names", nameOf(slow)+"|"+nameOf(fast), "|x")

	slow, fast, response = atGate(t, session.Options{}, "S", 1, renew, rotate)
	check(t, "after a rotation: status", response.StatusCode, http.StatusServiceUnavailable)
	check(t, "after a rotation: cookies", len(cookies(response)), 0)
	check(t, "after a rotation: names", nameOf(slow)+"|"+nameOf(fast), "x|x")

	rotateAndCount := use(func(s *session.Session) { s.Renew(30 * time.Second); counterKey.Update(s, increment) })
	slow, fast, response = atGate(t, session.Options{}, "S", 1, rotateAndCount, rotateAndCount)
	check(t, "two rotations: status", response.StatusCode, http.StatusOK)
	check(t, "two rotations: cookies", len(cookies(response)), 0)
	check(t, "two rotations: counter", counterOf(fast), 2)
	check(t, "two rotations: old cookie", counterOf(slow), 2)
}

func TestRaceTwoLogins(t *testing.T) {
	login := func(name string) handler {
		return use(func(s *session.Session) { s.Regenerate(); nameKey.Set(s, name); roleKey.Set(s, name) })
	}
	for _, gate := range []string{"C", "D"} {
		slow, fast, _ := atGate(t, session.Options{}, gate, 1, login("ada"), login("eve"))
		for v, want := range map[*visitor]string{slow: "ada", fast: "eve"} {
			v.get(use(func(s *session.Session) { check(t, "login", nameKey.Get(s)+roleKey.Get(s), want+want) }))
		}
	}
}

// due makes a read move the deadline.
func due(t *testing.T, op string, slow, fast handler) (slowTab, fastTab *visitor, response *http.Response) {
	t.Helper()
	store := new(session.MemoryStore)
	seed := newVisitor(newManager(t, session.Options{Store: store, Cookie: session.Cookie{MaxAge: shortAge}}))
	seed.get(use(func(s *session.Session) { nameKey.Set(s, "x"); counterKey.Set(s, 0) }))
	sp := &spy{Store: store}
	slowTab = newVisitor(newManager(t, session.Options{Store: sp, Rolling: true, Cookie: session.Cookie{MaxAge: longAge}}))
	slowTab.jar = seed.jar
	fastTab = slowTab.elsewhere(newManager(t, session.Options{Store: sp, Rolling: true, Cookie: session.Cookie{MaxAge: longAge}}))
	sp.onceOn(op, func() error { fastTab.get(fast); return nil })
	return slowTab, fastTab, slowTab.get(slow)
}

func TestRaceDeadlineMoveDestroy(t *testing.T) {
	slow, fast, response := due(t, "S", look, destroy)
	check(t, "status", response.StatusCode, http.StatusOK)
	check(t, "cookies", len(cookies(response)), 0)
	check(t, "names", nameOf(slow)+nameOf(fast), "")
}

func TestRaceDeadlineMoveSave(t *testing.T) {
	slow, _, response := due(t, "S", look, count)
	check(t, "cookies", len(cookies(response)), 0) // the other's save moved it
	check(t, "counter", counterOf(slow), 1)

	slow, _, _ = due(t, "S", count, look)
	check(t, "counter", counterOf(slow), 1)
}

func TestRaceReadOnlyRequestWrite(t *testing.T) {
	sp := &spy{Store: new(session.MemoryStore)}
	v := newVisitor(newManager(t, session.Options{Store: sp}))
	v.get(setName("x"))
	other := v.copy()
	sp.took()
	v.get(use(func(s *session.Session) {
		nameKey.Get(s)
		other.get(setName("y"))
		listKey.Get(s)
	}))
	check(t, "calls: the reader writes nothing", sp.took(), "L L S")
	check(t, "name", nameOf(v), "y")
}

// 26 requests at once, each with a key of its own: the demonstration that loses most
// of them with other libraries.
func TestRace26Keys(t *testing.T) {
	rounds := 1000
	m := newManager(t, session.Options{})
	for range rounds {
		v := newVisitor(m)
		v.get(setName("x"))
		var wg sync.WaitGroup
		for letter := 'a'; letter <= 'z'; letter++ {
			tab := v.copy()
			wg.Go(func() {
				tab.get(use(func(s *session.Session) { session.Key[int](string(letter)).Set(s, 1) }))
			})
		}
		wg.Wait()
		kept := 0
		v.get(use(func(s *session.Session) { kept = len(s.Keys()) - 1 }))
		if kept != 26 {
			t.Fatalf("%d of 26 keys were kept", kept)
		}
	}
}

func TestRace100Increments(t *testing.T) {
	forEachStore(t, func(t *testing.T, store session.Store) {
		// What is shown is that nothing is lost, not how fast a busy machine is.
		v := newVisitor(newManager(t, session.Options{Store: store, StoreTimeout: time.Minute}))
		v.get(use(func(s *session.Session) { counterKey.Set(s, 0) }))
		var wg sync.WaitGroup
		for range 100 {
			tab := v.copy()
			wg.Go(func() { tab.get(count) })
		}
		wg.Wait()
		check(t, "counter", counterOf(v), 100)
	})
}

// A flash message may be shown twice when two requests pop it at once, and is gone
// after that.
func TestRaceFlashPoppedTwice(t *testing.T) {
	shown := 0
	pop := use(func(s *session.Session) {
		if _, ok := nameKey.Pop(s); ok {
			shown++
		}
	})
	slow, fast, _ := atGate(t, session.Options{}, "S", 1, pop, pop)
	check(t, "shown", shown, 2)
	check(t, "names", nameOf(slow)+nameOf(fast), "")
}

// A save that Redis applied, whose reply is lost on the way, and which the client sends
// again; another request writes in the gap. Nothing is counted twice, and
// nothing is lost.
func TestRaceLostReplyOnTheWire(t *testing.T) {
	addr := redistest.Start(t)
	proxy := faultproxy.New(t, addr)
	direct := redis.NewClient(redistest.Options(addr))
	defer direct.Close()
	options := redistest.Options(proxy.Addr)
	options.MinRetryBackoff, options.MaxRetryBackoff = time.Millisecond, time.Millisecond
	through := redis.NewClient(options)
	defer through.Close()

	for name, request := range map[string]struct {
		command string
		do      handler
	}{
		"change": {"evalsha", count},
		"renew":  {"evalsha", use(func(s *session.Session) { s.Renew(0); counterKey.Update(s, increment) })},
		"login":  {"set", use(func(s *session.Session) { n := counterKey.Get(s); s.Regenerate(); counterKey.Set(s, n+1) })},
		"logout": {"del", destroy},
	} {
		t.Run(name, func(t *testing.T) {
			v := newVisitor(newManager(t, session.Options{Store: &session.RedisStore{Client: direct}}))
			v.get(count)
			v.get(count) // and the script is on the server
			other := v.copy()
			v.server = newManager(t, session.Options{Store: &session.RedisStore{Client: through}, StoreTimeout: time.Minute}).Handler(app)

			broken := proxy.Broken()
			proxy.BreakNext(request.command, faultproxy.Before(func() {
				if request.command == "evalsha" {
					other.get(count) // the gap
				}
			}, faultproxy.ResetAfter))
			response := v.get(request.do)
			check(t, "status", response.StatusCode, http.StatusOK)
			check(t, "replies lost", proxy.Broken()-broken, 1)
			// The gap comes after a renewal was applied, so that the other tab has a dead cookie there.
			want := map[string]int{"change": 4, "renew": 3, "login": 3, "logout": 0}[name]
			check(t, "counter", counterOf(v), want)
		})
	}
}

// twoProcesses returns managers of one application in two processes, each with a client of
// its own, and the servers' admin.
func twoProcesses(t *testing.T, options session.Options) (here, there *session.Manager, admin *redis.Client) {
	t.Helper()
	addr := redistest.Start(t)
	open := func() *session.Manager {
		options.Store = &session.RedisStore{Client: client(t, addr)}
		return newManager(t, options)
	}
	return open(), open(), redistest.Admin(t, addr)
}

// What one process has answered, another goes by in the next request, which may be a GET.
func TestTwoProcessesAgree(t *testing.T) {
	here, there, admin := twoProcesses(t, session.Options{})
	for name, tt := range map[string]struct {
		do   handler
		name string // there, after that, with the cookie of before
	}{
		"a change":   {setName("y"), "y"},
		"a deletion": {use(func(s *session.Session) { nameKey.Delete(s) }), ""},
		"a renewal":  {renew, ""},
		"a logout":   {logout, ""},
	} {
		for _, method := range []string{http.MethodGet, http.MethodPost} {
			v := newVisitor(here)
			v.get(setName("x"))
			tab := v.copy()
			tab.server = there.Handler(app)
			check(t, name+": name there before", nameOf(tab), "x")
			check(t, name+": status", v.post(tt.do).StatusCode, http.StatusOK)
			tab.do(method, use(func(s *session.Session) { check(t, name+": name there, by "+method, nameKey.Get(s), tt.name) }))
			tab.jar = v.copy().jar
			check(t, name+": name there, with the cookie of now", nameOf(tab), nameOf(v))
			v.post(logout)
		}
	}
	check(t, "sessions left", admin.DBSize(t.Context()).Val(), 0)
}

// Two processes lose no update of each other, and bring back no session that the other has
// ended.
func TestTwoProcessesLoseNothing(t *testing.T) {
	// On a busy machine some conflicts take more than a second.
	here, there, admin := twoProcesses(t, session.Options{StoreTimeout: time.Minute})
	servers := []http.Handler{here.Handler(app), there.Handler(app)}
	const tabs, requests = 6, 20
	v := newVisitor(here)
	v.get(setName("x"))
	var wg sync.WaitGroup
	for i := range tabs {
		tab := v.copy()
		tab.server = servers[i%2]
		wg.Go(func() {
			for n := range requests {
				tab.do([]string{http.MethodGet, http.MethodPost}[n%2], count)
				tab.get(look)
			}
		})
	}
	wg.Wait()
	check(t, "counter", counterOf(v), tabs*requests)

	// What is set after the logout would be a session of its own.
	change := use(func(s *session.Session) {
		if nameKey.Has(s) {
			counterKey.Update(s, increment)
		}
	})
	for range 20 {
		v := newVisitor(here)
		v.get(setName("x"))
		for i := range tabs {
			tab := v.copy()
			tab.server = servers[i%2]
			wg.Go(func() {
				for range 3 {
					tab.get(change)
				}
			})
		}
		v.copy().post(logout)
		wg.Wait()
	}
	check(t, "sessions left", admin.DBSize(t.Context()).Val(), 1)
}
