package session_test

import (
	"context"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/seed-4f96e14b/session"
	"github.com/seed-4f96e14b/session/internal/testing/redistest"
)

// What a request costs in Redis: a word is a command and a round trip, those in brackets
// are one pipeline and so one round trip, and 0 is none. Before the colon is who asks: a
// browser with a session; one whose deadline is due to move; one with a cookie that is
// forged, or of a session that has ended, or that was renewed elsewhere; or with two
// cookies, in this order. A column is an option of the manager, except SetMaxAge, which the
// session has, and "old secret", with which its cookie is signed. A cell that is
// empty is as the first of its line.
const budget = `
request                         | none                | Resave              | SaveUninitialized   | Rolling             | DisableTouch | Cookie.MaxAge | SetMaxAge | old secret      | WaitReplicas
no cookie: untouched            | 0                   |                     | set                 |                     |              |               |           |                 |
no cookie: read                 | 0                   |                     | set                 |                     |              |               |           |                 |
no cookie: write                | set                 |                     |                     |                     |              |               |           |                 | [set wait]
no cookie: Save                 | set                 |                     |                     |                     |              |               |           |                 | [set wait]
no cookie: login                | set                 |                     |                     |                     |              |               |           |                 | [set wait]
no cookie: renew                | 0                   |                     | set                 |                     |              |               |           |                 |
no cookie: logout               | 0                   |                     |                     |                     |              |               |           |                 |
session: untouched              | 0                   | get evalsha         | get                 | get                 |              |               |           |                 |
session: untouched, POST        | get                 | get evalsha         |                     |                     |              |               |           |                 |
session: read                   | get                 | get evalsha         |                     |                     |              |               |           |                 |
session: read, POST             | get                 | get evalsha         |                     |                     |              |               |           |                 |
session: write                  | get evalsha         |                     |                     |                     |              |               |           |                 | get [evalsha wait]
session: write, POST            | get evalsha         |                     |                     |                     |              |               |           |                 | get [evalsha wait]
session: five writes            | get evalsha         |                     |                     |                     |              |               |           |                 | get [evalsha wait]
session: equal write            | get                 | get evalsha         |                     |                     |              |               |           |                 |
session: write and write back   | get                 | get evalsha         |                     |                     |              |               |           |                 |
session: write after the header | get evalsha         | get evalsha evalsha |                     |                     |              |               |           |                 | get [evalsha wait]
session: SetMaxAge              | get evalsha         |                     |                     |                     |              |               |           |                 | get [evalsha wait]
session: Touch                  | get                 | get evalsha         |                     |                     |              |               |           |                 |
session: Save                   | get evalsha         |                     |                     |                     |              |               |           |                 | get [evalsha wait]
session: Save, then write       | get evalsha evalsha |                     |                     |                     |              |               |           |                 | get [evalsha wait] [evalsha wait]
session: Reload                 | get get             | get get evalsha     |                     |                     |              |               |           |                 |
session: login                  | set del             | get set del         | get set del         | get set del         |              |               |           |                 | [set wait] [del wait]
session: login, POST            | get set del         |                     |                     |                     |              |               |           |                 | get [set wait] [del wait]
session: renew                  | get evalsha         |                     |                     |                     |              |               |           |                 | get [evalsha wait]
session: renew, POST            | get evalsha         |                     |                     |                     |              |               |           |                 | get [evalsha wait]
session: logout                 | del                 | get del             | get del             | get del             |              |               |           |                 | [del wait]
session: logout, POST           | get del             |                     |                     |                     |              |               |           |                 | get [del wait]
session: read, then logout      | get del             |                     |                     |                     |              |               |           |                 | get [del wait]
due: untouched                  | 0                   | get evalsha         | get                 | get evalsha         |              |               |           |                 |
due: untouched, POST            | get                 | get evalsha         |                     | get evalsha         |              |               |           |                 |
due: read                       | get evalsha         |                     |                     |                     | get          |               |           |                 | get [evalsha wait]
due: read, POST                 | get evalsha         |                     |                     |                     | get          |               |           |                 | get [evalsha wait]
due: write                      | get evalsha         |                     |                     |                     |              |               |           |                 | get [evalsha wait]
due: equal write                | get evalsha         |                     |                     |                     | get          |               |           |                 | get [evalsha wait]
due: write after the header     | get evalsha         | get evalsha evalsha |                     | get evalsha evalsha |              |               |           |                 | get [evalsha wait]
due: Touch                      | get evalsha         |                     |                     |                     | get          |               |           |                 | get [evalsha wait]
due: Save                       | get evalsha         |                     |                     | get evalsha evalsha |              |               |           | get evalsha evalsha | get [evalsha wait]
due: login                      | set del             | get set del         | get set del         | get set del         |              |               |           |                 | [set wait] [del wait]
due: renew                      | get evalsha         |                     |                     |                     |              |               |           |                 | get [evalsha wait]
due: read, then logout          | get del             |                     |                     |                     |              |               |           |                 | get [del wait]
forged: untouched, POST         | 0                   |                     | set                 |                     |              |               |           |                 |
forged: read                    | 0                   |                     | set                 |                     |              |               |           |                 |
forged: write                   | set                 |                     |                     |                     |              |               |           |                 | [set wait]
forged: login                   | set                 |                     |                     |                     |              |               |           |                 | [set wait]
forged: logout                  | 0                   |                     |                     |                     |              |               |           |                 |
ended: untouched                | 0                   | get                 | get set             | get                 |              |               |           |                 |
ended: read                     | get                 |                     | get set             |                     |              |               |           |                 |
ended: write                    | get set             |                     |                     |                     |              |               |           |                 | get [set wait]
ended: login                    | set del             | get set del         | get set del         | get set del         |              |               |           |                 | [set wait] [del wait]
ended: read, then logout        | get del             |                     |                     |                     |              |               |           |                 | get [del wait]
session+ended: read             | get                 | get evalsha         |                     |                     |              |               |           |                 |
session+ended: write            | get evalsha         |                     |                     |                     |              |               |           |                 | get [evalsha wait]
session+ended: login            | set del del         | get set del del     | get set del del     | get set del del     |              |               |           |                 | [set wait] [del wait] [del wait]
session+ended: logout           | del del             | get del del         | get del del         | get del del         |              |               |           |                 | [del wait] [del wait]
ended+session: read             | get get             | get get evalsha     |                     |                     |              |               |           |                 |
ended+session: write            | get get evalsha     |                     |                     |                     |              |               |           |                 | get get [evalsha wait]
ended+session: login            | set del del         | get get set del del | get get set del del | get get set del del |              |               |           |                 | [set wait] [del wait] [del wait]
ended+session: logout           | del del             | get get del del     | get get del del     | get get del del     |              |               |           |                 | [del wait] [del wait]
renewed: read                   | get                 |                     |                     |                     |              |               |           |                 |
renewed: write, POST            | get                 |                     |                     |                     |              |               |           |                 |
renewed: login                  | set del             | get set del         | get set del         | get set del         |              |               |           |                 | [set wait] [del wait]
renewed: logout                 | del                 | get del             | get del             | get del             |              |               |           |                 | [del wait]
`

// The rows' requests, after the colon.
var budgetRequests = map[string]handler{
	"untouched":              untouched,
	"read":                   use(readAll),
	"write":                  setName("y"),
	"five writes":            use(writeFive),
	"equal write":            setName("x"),
	"write and write back":   use(func(s *session.Session) { nameKey.Set(s, "y"); nameKey.Set(s, "x") }),
	"write after the header": func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(200); setName("y")(w, r) },
	"SetMaxAge":              use(func(s *session.Session) { s.SetMaxAge(time.Hour) }),
	"Touch":                  use(func(s *session.Session) { s.Touch() }),
	"Save":                   use(func(s *session.Session) { s.Save() }),
	"Save, then write":       use(func(s *session.Session) { s.Save(); nameKey.Set(s, "y") }),
	"Reload":                 use(func(s *session.Session) { nameKey.Get(s); s.Reload() }),
	"login":                  login("u"),
	"renew":                  renew,
	"logout":                 logout,
	"read, then logout":      use(func(s *session.Session) { readAll(s); s.Destroy() }),
}

func readAll(s *session.Session) {
	nameKey.Get(s)
	counterKey.Has(s)
	s.ID()
	s.Keys()
	s.Expires()
}

func writeFive(s *session.Session) {
	nameKey.Set(s, "y")
	nameKey.Delete(s)
	nameKey.Set(s, "z")
	counterKey.Update(s, increment)
	listKey.Set(s, []string{"a"})
}

// The columns' options.
var budgetOptions = map[string]func(o *session.Options){
	"none":              func(*session.Options) {},
	"Resave":            func(o *session.Options) { o.Resave = true },
	"SaveUninitialized": func(o *session.Options) { o.SaveUninitialized = true },
	"Rolling":           func(o *session.Options) { o.Rolling = true },
	"DisableTouch":      func(o *session.Options) { o.DisableTouch = true },
	"Cookie.MaxAge":     func(o *session.Options) { o.Cookie.MaxAge = 24 * time.Hour },
	"SetMaxAge":         func(*session.Options) {},
	"old secret":        func(o *session.Options) { o.Secrets = []string{secretB, secretA} },
	"WaitReplicas":      func(o *session.Options) { o.Store.(*session.RedisStore).WaitReplicas = 1 },
}

func TestBudget(t *testing.T) {
	client, _, _ := slowReplica(t, 0)
	sent := new(redistest.Commands)
	client.AddHook(sent)
	(&session.RedisStore{Client: client}).CompareAndSwap(t.Context(), "a", nil, nil, time.Hour) // so that Redis has the script
	for _, finding := range redistest.OffBudget(budget, func(request, option string) string {
		store := &session.RedisStore{Client: client}
		return budgetCost(t, sent, store, request, option)
	}) {
		t.Error(finding)
	}
}

// A store that looks twice is found out wherever a request looks, and nowhere else.
func TestBudgetFindsOneCommandMore(t *testing.T) {
	client := redistest.Client(t)
	sent := new(redistest.Commands)
	client.AddHook(sent)
	const table = `
request            | none        | Rolling
session: untouched | 0           | get
session: read      | get         |
session: write     | get evalsha |
forged: read       | 0           |
no cookie: login   | set         |
`
	store := &session.RedisStore{Client: client}
	store.CompareAndSwap(t.Context(), "a", nil, nil, time.Hour)
	check(t, "findings", redistest.OffBudget(table, func(request, option string) string {
		return budgetCost(t, sent, looksTwice{store}, request, option)
	}), []string{
		"session: untouched, with Rolling: get get; the budget is get",
		"session: read, with none: get get; the budget is get",
		"session: read, with Rolling: get get; the budget is get",
		"session: write, with none: get get evalsha; the budget is get evalsha",
		"session: write, with Rolling: get get evalsha; the budget is get evalsha",
	})
}

type looksTwice struct{ session.Store }

func (s looksTwice) Load(ctx context.Context, key string) ([]byte, error) {
	s.Store.Load(ctx, key)
	return s.Store.Load(ctx, key)
}

// budgetCost makes the request, with a session that was begun before, and returns what the
// store sends to Redis for it.
func budgetCost(t *testing.T, sent *redistest.Commands, store session.Store, request, option string) string {
	t.Helper()
	before, options := session.Options{Store: store}, session.Options{Store: store}
	set, ok := budgetOptions[option]
	if set(&options); option != "old secret" {
		set(&before)
	}
	who, what, _ := strings.Cut(request, ": ")
	what, isPost := strings.CutSuffix(what, ", POST")
	do, known := budgetRequests[what]
	if !ok || !known {
		t.Fatalf("%s, with %s: nobody knows what that is", request, option)
	}
	m := newManager(t, before)
	begin := func() *visitor {
		v := newVisitor(m)
		v.get(use(func(s *session.Session) {
			nameKey.Set(s, "x")
			if option == "SetMaxAge" {
				s.SetMaxAge(48 * time.Hour)
			}
		}))
		if who == "due" { // the store is told of an end that is earlier than the options have it
			early := before
			early.AbsoluteTimeout = time.Hour
			early.Cookie.MaxAge = min(early.Cookie.MaxAge, time.Hour)
			v.elsewhere(newManager(t, early)).get(use(func(s *session.Session) { s.Save() }))
		}
		return v
	}
	v, second := begin(), ""
	switch who {
	case "session", "due":
	case "no cookie":
		clear(v.jar)
	case "forged":
		v.jar[sid] = strings.Repeat("A", 120)
	case "ended":
		v.copy().get(logout)
	case "renewed":
		v.copy().get(renew)
	case "ended+session":
		v.copy().get(logout)
		second = begin().jar[sid]
	case "session+ended":
		other := begin()
		other.copy().get(logout)
		second = other.jar[sid]
	default:
		t.Fatalf("%s: nobody knows who that is", request)
	}
	v.server = newManager(t, options).Handler(app)
	method := http.MethodGet
	if isPost {
		method = http.MethodPost
	}
	sent.Took()
	response := v.send(method, do, func(r *http.Request) {
		if second != "" {
			r.AddCookie(&http.Cookie{Name: sid, Value: second})
		}
	})
	want := http.StatusOK
	if who == "renewed" && what == "write" { // without grace
		want = http.StatusServiceUnavailable
	}
	check(t, request+", with "+option+": status", response.StatusCode, want)
	return sent.Took()
}

// EVAL follows once, where the server does not have the script yet, or not any more.
func TestBudgetWithoutTheScript(t *testing.T) {
	client := redistest.Client(t)
	sent := new(redistest.Commands)
	client.AddHook(sent)
	v := newVisitor(newManager(t, session.Options{Store: &session.RedisStore{Client: client}}))
	v.get(setName("x"))
	for range 2 {
		redistest.Admin(t, client.Options().Addr).ScriptFlush(t.Context())
		for _, want := range []string{"get evalsha eval", "get evalsha", "get evalsha"} {
			sent.Took()
			v.get(use(func(s *session.Session) { counterKey.Update(s, increment) }))
			check(t, "a write", sent.Took(), want)
		}
	}
	check(t, "counter", counterOf(v), 6)
}

// However busy, a session that is only read is written once per twentieth of its lifetime.
func TestBudgetOfALifetime(t *testing.T) {
	for name, set := range budgetOptions {
		if name == "WaitReplicas" || name == "Resave" { // which is to write with each request
			continue
		}
		for _, interval := range []time.Duration{time.Minute, 7 * time.Minute, time.Hour} {
			inBubble(t, func(t *testing.T) {
				sp := &spy{Store: new(session.MemoryStore)}
				options := session.Options{Store: sp}
				set(&options)
				v := newVisitor(newManager(t, options))
				lifetime := 24 * time.Hour
				v.get(use(func(s *session.Session) {
					nameKey.Set(s, "x")
					if name == "SetMaxAge" {
						lifetime = 48 * time.Hour
						s.SetMaxAge(lifetime)
					}
				}))
				sp.took()
				requests := int(lifetime / interval)
				for range requests {
					time.Sleep(interval)
					v.get(use(readAll))
				}
				due := (lifetime/20 + interval - 1) / interval // so many requests after it was moved
				want := requests / int(due)
				if name == "DisableTouch" {
					want = 0
				}
				ops := sp.took()
				reads, moves := strings.Count(ops, "L"), strings.Count(ops, "S")
				if moves != want || moves > 20 {
					t.Errorf("%s, a request every %v: the deadline moved %d times, want %d", name, interval, moves, want)
				}
				check(t, name+": reads", reads, requests)
				check(t, name+": other calls", len(strings.Fields(ops)), reads+moves)
			})
		}
	}
}
