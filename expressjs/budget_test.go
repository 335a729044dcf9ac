package expressjs_test

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/seed-4f96e14b/session"
	"github.com/seed-4f96e14b/session/expressjs"
	"github.com/seed-4f96e14b/session/internal/testing/redistest"
)

// What a request costs in Redis: a word is a command and a round trip, and 0 is none. Before
// the colon is who asks: a browser with a session; one whose deadline is due to move; one
// with a cookie that is forged, or of a session that has ended, or that was renewed
// elsewhere: without grace, with one that lasts or is over, or twice. The columns are options of Express, except for the first: what express-session
// 1.19 with connect-redis 9 sends for the same, without options that cost something (with
// disableTouch it leaves the expire out). A cell that is empty is as that of "none".
const budget = `
request                    | (in Express)   | none                            | resave                                          | saveUninitialized                               | rolling                                         | disableTouch | ttl | ttl function | maxAge | old secret
no cookie: untouched       | 0              | 0                               |                                                 | set                                             |                                                 |              |     |              |        |
no cookie: read            | 0              | 0                               |                                                 | set                                             |                                                 |              |     |              |        |
no cookie: write           | set            | set                             |                                                 |                                                 |                                                 |              |     |              |        |
no cookie: save            | set            | set                             |                                                 |                                                 |                                                 |              |     |              |        |
no cookie: login           | del set        | set                             |                                                 |                                                 |                                                 |              |     |              |        |
no cookie: logout          | del            | 0                               |                                                 |                                                 |                                                 |              |     |              |        |
session: untouched         | get expire     | 0                               | get evalsha                                     | get                                             | get                                             |              |     |              |        |
session: untouched, POST   | get expire     | get                             | get evalsha                                     |                                                 |                                                 |              |     |              |        |
session: read              | get expire     | get                             | get evalsha                                     |                                                 |                                                 |              |     |              |        |
session: read, POST        | get expire     | get                             | get evalsha                                     |                                                 |                                                 |              |     |              |        |
session: write             | get set        | get evalsha                     |                                                 |                                                 |                                                 |              |     |              |        |
session: equal write       | get expire     | get                             | get evalsha                                     |                                                 |                                                 |              |     |              |        |
session: lifetime          | get expire     | get evalsha                     |                                                 |                                                 |                                                 |              |     |              |        |
session: touch             | get expire     | get                             | get evalsha                                     |                                                 |                                                 |              |     |              |        |
session: save              | get set expire | get evalsha                     |                                                 |                                                 | get evalsha                                     |              |     |              |        |
session: login             | get del set    | set del get                     | get set del get                                 | get set del get                                 | get set del get                                 |              |     |              |        |
session: login, POST       | get del set    | get set del get                 |                                                 |                                                 |                                                 |              |     |              |        |
session: renew             |                | get evalsha set set evalsha     |                                                 |                                                 |                                                 |              |     |              |        |
session: logout            | get del        | del get                         | get del get                                     | get del get                                     | get del get                                     |              |     |              |        |
session: logout, POST      | get del        | get del get                     |                                                 |                                                 |                                                 |              |     |              |        |
session: read, then logout | get del        | get del get                     |                                                 |                                                 |                                                 |              |     |              |        |
due: untouched             | get expire     | 0                               | get evalsha                                     | get                                             | get evalsha                                     |              |     |              |        |
due: untouched, POST       | get expire     | get                             | get evalsha                                     |                                                 | get evalsha                                     |              |     |              |        |
due: read                  | get expire     | get evalsha                     |                                                 |                                                 |                                                 | get          |     |              |        |
due: read, POST            | get expire     | get evalsha                     |                                                 |                                                 |                                                 | get          |     |              |        |
due: write                 | get set        | get evalsha                     |                                                 |                                                 |                                                 |              |     |              |        |
due: equal write           | get expire     | get evalsha                     |                                                 |                                                 |                                                 | get          |     |              |        |
due: touch                 | get expire     | get evalsha                     |                                                 |                                                 |                                                 | get          |     |              |        |
due: save                  | get set expire | get evalsha                     |                                                 |                                                 | get evalsha evalsha                             |              |     |              |        | get evalsha evalsha
due: login                 | get del set    | set del get                     | get set del get                                 | get set del get                                 | get set del get                                 |              |     |              |        |
due: renew                 |                | get evalsha set set evalsha     |                                                 |                                                 |                                                 |              |     |              |        |
forged: untouched, POST    | 0              | 0                               |                                                 | set                                             |                                                 |              |     |              |        |
forged: read               | 0              | 0                               |                                                 | set                                             |                                                 |              |     |              |        |
forged: write              | set            | set                             |                                                 |                                                 |                                                 |              |     |              |        |
forged: login              | del set        | set                             |                                                 |                                                 |                                                 |              |     |              |        |
ended: untouched           | get            | 0                               | get                                             | get set                                         | get                                             |              |     |              |        |
ended: read                | get            | get                             |                                                 | get set                                         |                                                 |              |     |              |        |
ended: write               | get set        | get set                         |                                                 |                                                 |                                                 |              |     |              |        |
ended: login               | get del set    | set del get                     | get set del get                                 | get set del get                                 | get set del get                                 |              |     |              |        |
ended: read, then logout   | get del        | get del get                     |                                                 |                                                 |                                                 |              |     |              |        |
renewed: read              |                | get get                         |                                                 |                                                 |                                                 |              |     |              |        |
renewed: write             |                | get get                         |                                                 |                                                 |                                                 |              |     |              |        |
renewed: login             |                | set del get del get del         | get get set del get del get del                 | get get set del get del get del                 | get get set del get del get del                 |              |     |              |        |
renewed: logout            |                | del get del get del             | get get del get del get del                     | get get del get del get del                     | get get del get del get del                     |              |     |              |        |
in grace: read             |                | get get get                     | get get get evalsha                             |                                                 |                                                 |              |     |              |        |
in grace: write            |                | get get get evalsha             |                                                 |                                                 |                                                 |              |     |              |        |
in grace: renew            |                | get get get                     | get get get evalsha                             |                                                 |                                                 |              |     |              |        |
in grace: login            |                | set del get del get del         | get get get set del get del get del get del     | get get get set del get del get del get del     | get get get set del get del get del get del     |              |     |              |        |
in grace: logout           |                | del get del get del             | get get get del get del get del get del         | get get get del get del get del get del         | get get get del get del get del get del         |              |     |              |        |
after grace: read          |                | get get get                     |                                                 | get get get set                                 |                                                 |              |     |              |        |
after grace: write         |                | get get get set                 |                                                 |                                                 |                                                 |              |     |              |        |
after grace: logout        |                | del get del get del             | get get get del get del get del                 | get get get del get del get del                 | get get get del get del get del                 |              |     |              |        |
twice: read                |                | get get get get                 |                                                 |                                                 |                                                 |              |     |              |        |
twice: logout              |                | del get del get del get del del | get get get get del get del get del get del del | get get get get del get del get del get del del | get get get get del get del get del get del del |              |     |              |        |
`

// The rows' requests, after the colon.
var budgetRequests = map[string]func(s *session.Session){
	"untouched":         doNothing,
	"read":              readUser,
	"write":             setUser("u2"),
	"equal write":       setUser("u1"),
	"lifetime":          func(s *session.Session) { s.SetMaxAge(30 * time.Minute) },
	"touch":             func(s *session.Session) { s.Touch() },
	"save":              func(s *session.Session) { s.Save() },
	"login":             func(s *session.Session) { s.Regenerate(); userKey.Set(s, "u3") },
	"renew":             renewGrace,
	"logout":            destroy,
	"read, then logout": func(s *session.Session) { userKey.Get(s); s.Destroy() },
}

// The columns' options.
var budgetOptions = map[string]func(o *expressjs.Options){
	"none":              func(*expressjs.Options) {},
	"resave":            resave,
	"saveUninitialized": saveUninitialized,
	"rolling":           rolling,
	"disableTouch":      func(o *expressjs.Options) { o.Store.DisableTouch = true },
	"ttl":               func(o *expressjs.Options) { o.Store.TTL = 12 * time.Hour },
	"ttl function": func(o *expressjs.Options) {
		o.Store.TTLFunc = func(map[string]json.RawMessage) time.Duration { return 12 * time.Hour }
	},
	"maxAge":     maxAge(24 * time.Hour),
	"old secret": secrets(siteOther, siteSecret),
}

func TestBudget(t *testing.T) {
	client := redistest.Client(t)
	sent := new(redistest.Commands)
	client.AddHook(sent)
	store := &session.RedisStore{Client: client}
	store.CompareAndSwap(t.Context(), "a", nil, nil, time.Hour) // so that Redis has the script
	for _, finding := range redistest.OffBudget(budget, func(request, option string) string {
		return budgetCost(t, sent, store, request, option)
	}) {
		t.Error(finding)
	}
}

// budgetCost makes the request, and returns what was sent to Redis for it.
func budgetCost(t *testing.T, sent *redistest.Commands, store session.Store, request, option string) string {
	t.Helper()
	set, ok := budgetOptions[option]
	who, what, _ := strings.Cut(request, ": ")
	what, isPost := strings.CutSuffix(what, ", POST")
	do, known := budgetRequests[what]
	if !ok || !known {
		t.Fatalf("%s, with %s: nobody knows what that is", request, option)
	}
	before, now := openSite(t, store), openSite(t, store, set)
	switch {
	case who == "due": // the deadline is to move from there to where the options have it
		before = openSite(t, store, func(o *expressjs.Options) { o.Store.TTL = time.Hour })
	case option != "old secret":
		before = now
	}
	b := before.visitor()
	b.get(setUser("u1"))
	switch who {
	case "session", "due":
	case "no cookie":
		clear(b.jar)
	case "forged":
		b.jar["connect.sid"] = signature("a", "another secret")
	case "ended":
		b.copy().get(destroy)
	case "renewed":
		b.copy().get(renewNow)
	case "in grace":
		b.copy().get(renewGrace)
	case "after grace":
		b.copy().get(func(s *session.Session) { s.Renew(time.Millisecond) })
		time.Sleep(2 * time.Millisecond) // of the server's clock too
	case "twice":
		second := b.copy()
		second.get(renewGrace)
		second.get(renewGrace)
	default:
		t.Fatalf("%s: nobody knows who that is", request)
	}
	b.site = now
	method := http.MethodGet
	if isPost {
		method = http.MethodPost
	}
	sent.Took()
	response := b.through(now.Handler(only(do)), httptest.NewRequest(method, "http://localhost/", nil))
	want := http.StatusOK
	if request == "renewed: write" {
		want = http.StatusServiceUnavailable
	}
	expect(t, request+", with "+option+": status", response.StatusCode, want)
	return sent.Took()
}
