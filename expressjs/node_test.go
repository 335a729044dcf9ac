package expressjs_test

import (
	"errors"
	"net/http"
	"net/url"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/seed-4f96e14b/session"
	"github.com/seed-4f96e14b/session/expressjs"
)

// The tests in this file put this package and the real express-session, with
// connect-redis on Node, in front of one real Redis, and one browser in front of both.

const (
	secretA = "the first secret of these tests: 4b1d"
	secretB = "another one, which comes after it: 90"
	ada     = `{"id":1,"name":"Ada"}`
	bob     = `{"id":2,"name":"Bob"}`
)

const (
	accountKey session.Key[account] = "user"
	themeKey   session.Key[string]  = "theme"
	countKey   session.Key[int]     = "count"
)

// Under whatever options the app has, a login on one side is one on the other, and each
// sees what the other changes.
func TestNodeLogin(t *testing.T) {
	for name, options := range map[string]expressjs.Options{
		"defaults":          {},
		"Express's own":     {Resave: true, SaveUninitialized: true},
		"maxAge":            {Rolling: true, Cookie: expressjs.Cookie{MaxAge: time.Hour, SameSite: "lax", Priority: "high"}},
		"name, prefix, ttl": {Name: "sid", Store: expressjs.RedisStore{Prefix: "shop*:", TTL: time.Minute}},
		"no prefix":         {Store: expressjs.RedisStore{NoPrefix: true}, Cookie: expressjs.Cookie{ScriptAccess: true, SameSite: "strict"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			a := startApps(t, options)
			a.bothWays(t, func(t *testing.T, from, to side) {
				v := a.visitor(t)
				v.post(from, "/login", ada)
				v.want(to, "/get/user", ada)
				v.want(from, "/id", v.id())
				v.want(to, "/id", v.id())

				v.post(to, "/set/theme", `"dark"`)
				v.want(from, "/get/theme", `"dark"`)
				v.post(from, "/set/theme", `"light"`)
				v.want(to, "/get/theme", `"light"`)
				v.want(to, "/get/user", ada)

				record := a.record(t, v.id())
				if user, theme := string(record["user"]), string(record["theme"]); user != ada || theme != `"light"` {
					t.Errorf("Redis has user %s and theme %s", user, theme)
				}
			})

			cookies, members, ends := [2]string{}, [2]string{}, [2]time.Time{}
			for i, side := range []side{a.express, a.golang} {
				v := a.visitor(t)
				v.post(side, "/login", ada)
				cookies[i] = withoutValues(v.setCookie)
				members[i] = withoutValues(string(a.record(t, v.id())["cookie"]))
				ends[i] = a.ends(t, v.id())
			}
			if cookies[0] != cookies[1] {
				t.Errorf("the cookie of\nExpress: %s\nGo:      %s", cookies[0], cookies[1])
			}
			if members[0] != members[1] {
				t.Errorf("the member cookie of\nExpress: %s\nGo:      %s", members[0], members[1])
			}
			if diff := ends[1].Sub(ends[0]).Abs(); diff > 10*time.Second { // they logged in one after the other
				t.Errorf("Redis keeps a session of Go for %v more or less than one of Express", diff)
			}
		})
	}
}

// withoutValues leaves out of a cookie what differs from one to the next.
func withoutValues(cookie string) string {
	return regexp.MustCompile(`=s%3A[^;]+|Expires=[^;]+|"expires":"[^"]+"`).ReplaceAllString(cookie, "...")
}

// What Express has put into a session is read in Go by typed keys.
func TestNodeValuesFromExpress(t *testing.T) {
	a := startApps(t, expressjs.Options{})
	v := a.visitor(t)
	const profile = `{"name":"Ada","languages":["go","js"],"address":{"city":"Zürich"}}`
	const text = "Grüße, 世界 🎉 <b>&\u2028"
	v.post(a.express, "/set/count", `42`)
	v.post(a.express, "/set/text", `"`+text+`"`)
	v.post(a.express, "/set/"+url.PathEscape("schlüssel 🔑"), `true`)
	v.post(a.express, "/set/profile", profile)
	v.post(a.express, "/javascript", "")
	before := a.record(t, v.id())

	type user struct {
		Name      string
		Languages []string
		Address   struct{ City string }
	}
	type buffer struct {
		Type string
		Data []int
	}
	wantUser := user{Name: "Ada", Languages: []string{"go", "js"}}
	wantUser.Address.City = "Zürich"
	v.inGo(func(s *session.Session) {
		wantValue(t, s, countKey, 42)
		wantValue(t, s, session.Key[string]("text"), text)
		wantValue(t, s, session.Key[bool]("schlüssel 🔑"), true)
		wantValue(t, s, session.Key[user]("profile"), wantUser)
		wantValue(t, s, session.Key[time.Time]("date"), time.Date(2026, 1, 2, 3, 4, 5, 678_000_000, time.UTC))
		wantValue(t, s, session.Key[float64]("big"), 1<<64)
		wantValue(t, s, session.Key[float64]("bigger"), 1e21)
		wantValue(t, s, session.Key[float64]("small"), 5e-324)
		wantValue(t, s, session.Key[buffer]("buffer"), buffer{"Buffer", []int{'h', 'i'}})
		for _, key := range []session.Key[any]{"nothing", "missing", "nan"} {
			if key.Has(s) || slices.Contains(s.Keys(), string(key)) {
				t.Errorf("%s: null and undefined are values", key)
			}
		}
		themeKey.Set(s, "dark")
	})

	// Go's save has left all of it as it was, byte for byte, also what Go cannot hold.
	after := a.record(t, v.id())
	for name, text := range map[string]string{"half": `"\ud83d"`, "big": `18446744073709552000`, "bigger": `1e+21`, "nothing": `null`} {
		if got := string(after[name]); got != text {
			t.Errorf("%s: %s, want %s", name, got, text)
		}
	}
	delete(after, "theme")
	delete(after, "_goSession")
	if !reflect.DeepEqual(after, before) {
		t.Errorf("after a save by Go\n%s, before\n%s", after, before)
	}
}

func wantValue[T any](t *testing.T, s *session.Session, key session.Key[T], want T) {
	t.Helper()
	if got, ok := key.Lookup(s); !ok || !reflect.DeepEqual(got, want) {
		t.Errorf("%s: %v, %v, want %v", key, got, ok, want)
	}
}

// What Go has put into a session is JSON to Express. A number beyond 2^53 stays exact
// until Express saves the session: JavaScript has no such number.
func TestNodeValuesFromGo(t *testing.T) {
	a := startApps(t, expressjs.Options{})
	v := a.visitor(t)
	const bigKey session.Key[int64] = "big"
	const big = 1<<60 + 1
	v.inGo(func(s *session.Session) {
		accountKey.Set(s, account{1, "Ada"})
		session.Key[string]("text").Set(s, "Grüße 🎉 <b>&\u2028")
		session.Key[time.Time]("date").Set(s, time.Date(2026, 1, 2, 3, 4, 5, 678_000_000, time.UTC))
		session.Key[*int]("nil").Set(s, nil)
		bigKey.Set(s, big)
	})
	v.want(a.express, "/get/user", ada)
	v.want(a.express, "/get/text", "\"Grüße 🎉 <b>&\u2028\"")
	v.want(a.express, "/get/date", `"2026-01-02T03:04:05.678Z"`)
	v.want(a.express, "/get/nil", `null`)
	v.want(a.express, "/get/big", `1152921504606847000`)
	v.inGo(func(s *session.Session) { wantValue(t, s, bigKey, big) }) // Express has only read
	if got := string(a.record(t, v.id())["big"]); got != "1152921504606846977" {
		t.Errorf("Redis has the number %s", got)
	}

	v.post(a.express, "/set/theme", `"dark"`)
	v.want(a.golang, "/get/big", `1152921504606847000`)
}

// What Go has to remember of a session survives the saves of Express, and passport's
// copying of a session into another one.
func TestNodeKeepsTheBookkeeping(t *testing.T) {
	a := startApps(t, expressjs.Options{})
	v := a.visitor(t)
	var created time.Time
	v.inGo(func(s *session.Session) {
		accountKey.Set(s, account{1, "Ada"})
		created = s.Created()
	})
	made := string(a.record(t, v.id())["_goSession"])
	v.post(a.express, "/set/theme", `"dark"`)
	if kept := string(a.record(t, v.id())["_goSession"]); kept != made || kept == "" {
		t.Errorf("after a save by Express %s, before %s", kept, made)
	}
	wantCreated := func(s *session.Session) {
		if got := s.Created(); !got.Equal(created) {
			t.Errorf("Created: %v, want %v", got, created)
		}
	}
	v.inGo(wantCreated)

	v.inGo(renewNow)
	before := v.copy()
	v.post(a.express, "/passport?keep", `42`)
	v.inGo(wantCreated)
	old := v.copy()
	v.inGo(renewNow) // of another session, to which passport has copied the first renewal
	before.wantAnonymous()
	old.wantAnonymous()
	v.wantBoth("/get/user", ada)
}

// A session that has a cookie of its own, as with "remember me", keeps it on the other side.
func TestNodeOwnCookie(t *testing.T) {
	a := startApps(t, expressjs.Options{Cookie: expressjs.Cookie{SameSite: "lax"}})
	remember := map[string]func(v *visitor){
		a.express.name: func(v *visitor) {
			v.post(a.express, "/cookie", `{"maxAge":3600000,"sameSite":"strict","httpOnly":false}`)
		},
		a.golang.name: func(v *visitor) { v.inGo(func(s *session.Session) { s.SetMaxAge(time.Hour) }) },
	}
	a.bothWays(t, func(t *testing.T, from, to side) {
		v := a.visitor(t)
		v.post(from, "/login", ada)
		remember[from.name](v)
		cookie, member := v.setCookie, string(a.record(t, v.id())["cookie"])
		// Express takes what is left of the hour when it has set the end: now and then a millisecond less.
		if !strings.Contains(member, `"originalMaxAge":3600000,`) && !strings.Contains(member, `"originalMaxAge":35999`) {
			t.Errorf("%s has left the member cookie %s", from.name, member)
		}
		for _, side := range []side{to, from} {
			v.post(side, "/set/theme", `"`+side.name+`"`)
			if got := string(a.record(t, v.id())["cookie"]); withoutValues(got) != withoutValues(member) {
				t.Errorf("after a save by %s the member cookie is\n%s, before\n%s", side.name, got, member)
			}
			if withoutValues(v.setCookie) != withoutValues(cookie) {
				t.Errorf("after a save by %s the cookie is\n%s, before\n%s", side.name, v.setCookie, cookie)
			}
			for what, end := range map[string]time.Time{
				"the cookie": cookieEnd(t, v.setCookie), "JSON": a.expires(t, v.id()), "Redis": a.ends(t, v.id()),
			} {
				if left := time.Until(end); left < 59*time.Minute || left > 61*time.Minute {
					t.Errorf("after a save by %s the session ends in %v, says %s", side.name, left, what)
				}
			}
		}
	})
}

// With rolling, a read on either side moves what Redis and the browser know of the end.
func TestNodeRolling(t *testing.T) {
	t.Parallel()
	const lifetime = 5 * time.Second
	a := startApps(t, expressjs.Options{Rolling: true, Cookie: expressjs.Cookie{MaxAge: lifetime}})
	a.bothWays(t, func(t *testing.T, from, to side) {
		v := a.visitor(t)
		v.post(from, "/login", ada)
		cookie, stored := cookieEnd(t, v.setCookie), a.ends(t, v.id())

		// Real time has to pass, because neither Redis nor Node takes another one; and a
		// whole second of it, because cookies have no finer one.
		time.Sleep(time.Until(stored.Add(1200*time.Millisecond - lifetime)))
		v.want(to, "/get/user", ada)
		if v.setCookie == "" {
			t.Fatalf("%s sends no cookie", to.name)
		}
		if moved := cookieEnd(t, v.setCookie).Sub(cookie); moved < time.Second {
			t.Errorf("%s moves the cookie's end by %v", to.name, moved)
		}
		if moved := a.ends(t, v.id()).Sub(stored); moved < time.Second {
			t.Errorf("%s moves the end in Redis by %v", to.name, moved)
		}
	})
}

func cookieEnd(t *testing.T, line string) time.Time {
	t.Helper()
	cookie, err := http.ParseSetCookie(line)
	if err != nil {
		t.Fatalf("the cookie %q: %v", line, err)
	}
	return cookie.Expires
}

// A session that only Express reads stays alive in Redis, while its JSON says that
// it has ended: connect-redis moves the time to live alone. It is alive for Go too, and a
// save by Go does not end it.
func TestNodeReadsOnExpressAlone(t *testing.T) {
	t.Parallel()
	const lifetime = 3 * time.Second
	a := startApps(t, expressjs.Options{Rolling: true, Cookie: expressjs.Cookie{MaxAge: lifetime}})
	reads, writes := a.visitor(t), a.visitor(t)
	visitors := []*visitor{reads, writes}
	for _, v := range visitors {
		v.post(a.express, "/login", ada)
	}
	// Real time has to pass: Redis, Node and the JSON have to see the same one.
	for tick := time.NewTicker(lifetime / 8); time.Since(a.expires(t, writes.id())) < 100*time.Millisecond; <-tick.C {
		for _, v := range visitors {
			v.want(a.express, "/get/user", ada)
		}
	}
	reads.want(a.golang, "/get/user", ada)
	writes.post(a.golang, "/set/theme", `"dark"`)
	for _, v := range visitors {
		if left := time.Until(a.expires(t, v.id())); left <= 0 || left > lifetime {
			t.Errorf("after a request to Go the JSON says that the session ends in %v", left)
		}
		if left := time.Until(a.ends(t, v.id())); left <= 0 || left > lifetime {
			t.Errorf("after a request to Go the session ends in %v", left)
		}
		v.want(a.express, "/get/user", ada)
	}
	writes.want(a.express, "/get/theme", `"dark"`)
}

// A session that nobody uses ends for both.
func TestNodeExpiry(t *testing.T) {
	t.Parallel()
	a := startApps(t, expressjs.Options{Store: expressjs.RedisStore{TTL: 2 * time.Second}})
	visitors := []*visitor{a.visitor(t), a.visitor(t)}
	visitors[0].post(a.express, "/login", ada)
	visitors[1].post(a.golang, "/login", ada)
	for _, v := range visitors {
		for a.has(t, v.id()) {
			time.Sleep(50 * time.Millisecond) // real time, because Redis has no other
		}
		v.wantAnonymous()
	}
}

// Where one side regenerates the session, as a login does, the cookie of before is worth
// nothing on the other.
func TestNodeRegenerate(t *testing.T) {
	a := startApps(t, expressjs.Options{})
	a.bothWays(t, func(t *testing.T, from, to side) {
		for _, path := range []string{"/login", "/regenerate"} {
			v := a.visitor(t)
			v.post(to, "/login", bob)
			v.want(from, "/get/user", bob)
			old, oldID := v.copy(), v.id()

			v.post(from, path, ada)
			if v.id() == oldID || a.has(t, oldID) {
				t.Errorf("%s on %s: the old session is still there", path, from.name)
			}
			old.wantAnonymous()
			if path == "/login" {
				v.wantBoth("/get/user", ada)
			} else {
				v.wantAnonymous()
			}
		}
	})
}

// Where one side destroys the session, the visitor is logged out of the other.
func TestNodeDestroy(t *testing.T) {
	a := startApps(t, expressjs.Options{})
	a.bothWays(t, func(t *testing.T, from, to side) {
		v := a.visitor(t)
		v.post(to, "/login", ada)
		v.want(from, "/get/user", ada)
		old := v.copy()
		v.post(from, "/logout", "")
		v.wantAnonymous()
		old.wantAnonymous()
		if n := a.list(t).Length; n != 0 {
			t.Errorf("after the logout Redis holds %d keys", n)
		}

		old.post(to, "/login", bob) // with the dead cookie
		old.wantBoth("/get/user", bob)
	})
}

// A session that Go has renewed is the same one, under a new cookie, for Express; the old
// cookie is nobody's. connect-redis can still list the sessions: it counts the two
// keys that stay behind, and one of them looks to it like a session without values.
func TestNodeRenew(t *testing.T) {
	a := startApps(t, expressjs.Options{})
	login := func(on side) (v, old *visitor) {
		v = a.visitor(t)
		v.post(on, "/login", ada)
		old = v.copy()
		v.inGo(func(s *session.Session) {
			s.Renew(0)
			themeKey.Set(s, "dark")
		})
		return v, old
	}
	a.bothWays(t, func(t *testing.T, on, _ side) {
		v, old := login(on)
		if v.id() == old.id() || a.has(t, old.id()) {
			t.Error("the session is still under its old id")
		}
		v.wantBoth("/get/user", ada)
		v.wantBoth("/get/theme", `"dark"`)
		old.wantAnonymous()

		l := a.list(t)
		if ids := []string{v.id(), old.id(), old.id() + ":renewed"}; l.Length != 3 || len(l.IDs) != 3 || !sameElements(l.IDs, ids) {
			t.Errorf("length() is %d, ids() are %s, want %s", l.Length, l.IDs, ids)
		}
		if len(l.All) != 2 || len(l.of(ada)) != 1 {
			t.Errorf("all() is %s, want the session and the pointer to it", l.All)
		}

		v.post(a.express, "/set/theme", `"light"`) // Express goes on with it
		v.wantBoth("/get/theme", `"light"`)
		thief := old.copy()
		thief.post(a.express, "/set/user", bob)
		if thief.id() == old.id() {
			t.Error("Express begins a session under the old id")
		}
		v.wantBoth("/get/user", ada)
	})

	t.Run("a logout with the new cookie", func(t *testing.T) {
		for _, side := range []side{a.express, a.golang} {
			v, old := login(a.express)
			dead := v.copy()
			v.post(side, "/logout", "")
			dead.wantAnonymous()
			old.wantAnonymous()
		}
	})
	t.Run("a logout with the old cookie ends it on Go, and not on Express", func(t *testing.T) {
		v, old := login(a.express)
		old.copy().post(a.express, "/logout", "")
		v.wantBoth("/get/user", ada)
		old.post(a.golang, "/logout", "")
		v.wantAnonymous()
	})
	t.Run("twice", func(t *testing.T) {
		v, first := login(a.express)
		second := v.copy()
		v.inGo(renewNow)
		first.wantAnonymous()
		second.wantAnonymous()
		v.wantBoth("/get/user", ada)
		dead := v.copy()
		first.post(a.golang, "/logout", "")
		dead.wantAnonymous()
	})
}

func sameElements(a, b []string) bool {
	return slices.Equal(slices.Sorted(slices.Values(a)), slices.Sorted(slices.Values(b)))
}

// A new secret is put first on both sides: the old cookie is good as long as its secret is
// listed. Go signs it anew when it saves; then the old secret can go, and with it
// every cookie that nobody has signed anew.
func TestNodeSecretRotation(t *testing.T) {
	for name, maxAge := range map[string]time.Duration{"until the browser closes": 0, "maxAge": time.Hour} {
		t.Run(name, func(t *testing.T) {
			options := func(secrets ...string) expressjs.Options {
				return expressjs.Options{Secrets: secrets, Cookie: expressjs.Cookie{MaxAge: maxAge}}
			}
			a := startApps(t, options(secretA))
			v := a.visitor(t)
			v.post(a.express, "/login", ada)

			a.deploy(t, options(secretB, secretA))
			old := v.copy()
			v.wantBoth("/get/user", ada)
			v.post(a.golang, "/set/theme", `"dark"`)
			if v.id() != old.id() || v.cookie() == old.cookie() {
				t.Error("after a save by Go the cookie has not the same id under a new signature")
			}
			old.wantBoth("/get/user", ada)
			v.wantBoth("/get/user", ada)

			a.deploy(t, options(secretB))
			old.wantAnonymous()
			v.wantBoth("/get/user", ada)
			v.wantBoth("/get/theme", `"dark"`)
		})
	}
}

const flashKey session.Key[map[string][]string] = "flash"

// A message that one side leaves by connect-flash's member is shown once by the other.
func TestNodeFlash(t *testing.T) {
	a := startApps(t, expressjs.Options{})
	v := a.visitor(t)
	v.post(a.express, "/flash/info", "saved 100%")
	v.post(a.express, "/flash/info", "and sent")
	if got := string(a.record(t, v.id())["flash"]); got != `{"info":["saved 100%","and sent"]}` {
		t.Errorf("Express has left %s", got)
	}
	v.inGo(func(s *session.Session) {
		flash, ok := flashKey.Pop(s)
		if want := map[string][]string{"info": {"saved 100%", "and sent"}}; !ok || !reflect.DeepEqual(flash, want) {
			t.Errorf("Go pops %v, %v", flash, ok)
		}
	})
	if got := v.post(a.express, "/flash/info/pop", ""); got != `[]` {
		t.Errorf("after Go, Express pops %s", got)
	}

	v.inGo(func(s *session.Session) {
		flashKey.Update(s, func(flash map[string][]string) map[string][]string {
			if flash == nil {
				flash = make(map[string][]string)
			}
			flash["error"] = append(flash["error"], "it is late")
			return flash
		})
	})
	if got := v.post(a.express, "/flash/error/pop", ""); got != `["it is late"]` {
		t.Errorf("Express pops %s", got)
	}
	v.inGo(func(s *session.Session) {
		if flash, _ := flashKey.Pop(s); len(flash) != 0 {
			t.Errorf("after Express, Go pops %v", flash)
		}
	})
}

// Who has logged in by passport is known to Go, and the other way round.
func TestNodePassport(t *testing.T) {
	type login struct {
		User int `json:"user"`
	}
	const passportKey session.Key[login] = "passport"
	a := startApps(t, expressjs.Options{})
	v := a.visitor(t)
	v.post(a.golang, "/set/theme", `"dark"`)
	old := v.copy()
	v.post(a.express, "/passport", `42`)
	if got := string(a.record(t, v.id())["passport"]); got != `{"user":42}` {
		t.Errorf("passport has left %s", got)
	}
	v.inGo(func(s *session.Session) { wantValue(t, s, passportKey, login{42}) })
	old.want(a.golang, "/get/theme", "")

	w := a.visitor(t)
	w.inGo(func(s *session.Session) {
		s.Regenerate()
		passportKey.Set(s, login{7})
	})
	w.want(a.express, "/passport", `{"id":7}`)
	w.post(a.golang, "/logout", "")
	w.want(a.express, "/passport", "")
}

// What Express saves while a request of Go runs is kept: Go makes its changes again on it.
func TestNodeGoReplays(t *testing.T) {
	a := startApps(t, expressjs.Options{Cookie: expressjs.Cookie{MaxAge: time.Hour}})
	v := a.visitor(t)
	v.post(a.express, "/login", ada)
	v.post(a.express, "/set/count", `1`)
	v.slowInGo(func() {
		v.post(a.express, "/set/theme", `"dark"`)
		v.post(a.express, "/set/count", `10`)
	}, func(s *session.Session) {
		wantValue(t, s, countKey, 1)
		countKey.Update(s, func(n int) int { return n + 1 })
		session.Key[string]("lang").Set(s, "go")
	})
	v.wantBoth("/get/theme", `"dark"`)
	v.wantBoth("/get/count", `11`)
	v.wantBoth("/get/lang", `"go"`)

	// A Renew moves what Express has saved meanwhile, too.
	old := v.copy()
	v.slowInGo(func() { v.post(a.express, "/set/theme", `"light"`) }, renewNow)
	moved := a.list(t).of(ada)
	if a.has(t, old.id()) || len(moved) != 1 || string(moved[0]["theme"]) != `"light"` {
		t.Errorf("the session has not moved, or without what Express saved: %s", moved)
	}
}

// A session that Express ends while a request of Go runs stays ended, whatever that
// request does to it.
func TestNodeGoBringsNothingBack(t *testing.T) {
	a := startApps(t, expressjs.Options{})
	for _, end := range []string{"/logout", "/login", "/regenerate"} {
		for name, change := range map[string]func(s *session.Session){
			"Set":    func(s *session.Session) { themeKey.Set(s, "dark") },
			"Update": func(s *session.Session) { countKey.Update(s, func(n int) int { return n + 1 }) },
			"Renew":  renewNow,
			"Save": func(s *session.Session) {
				if err := s.Save(); !errors.Is(err, session.ErrNotFound) {
					t.Errorf("Save: %v, want ErrNotFound", err)
				}
			},
		} {
			v := a.visitor(t)
			v.post(a.express, "/login", ada)
			old := v.copy()
			v.slowInGo(func() { v.post(a.express, end, bob) }, change)
			if back := a.list(t).of(ada); a.has(t, old.id()) || len(back) > 0 {
				t.Errorf("%s in Go after %s on Express has brought back %s", name, end, back)
			}
			old.wantAnonymous()
		}
	}
}

// What nobody can promise, because Express saves by overwriting: a slow request of
// Express undoes what Go has saved meanwhile, and brings back what Go has ended. It does
// neither if it reloads the session before it changes it.
func TestNodeSlowExpress(t *testing.T) {
	a := startApps(t, expressjs.Options{})
	login := func() *visitor {
		v := a.visitor(t)
		v.post(a.express, "/login", ada)
		return v
	}
	t.Run("undoes a change", func(t *testing.T) {
		v := login()
		v.slowOnExpress(func() { v.post(a.golang, "/set/theme", `"dark"`) }, "lang", `"js"`)
		v.wantBoth("/get/theme", "")
		v.wantBoth("/get/lang", `"js"`)
	})
	t.Run("keeps it after a reload", func(t *testing.T) {
		v := login()
		v.slowOnExpress(func() { v.post(a.golang, "/set/theme", `"dark"`) }, "lang?reload", `"js"`)
		v.wantBoth("/get/theme", `"dark"`)
		v.wantBoth("/get/lang", `"js"`)
	})
	for name, end := range map[string]func(s *session.Session){
		"destroyed":   func(s *session.Session) { _ = s.Destroy() },
		"regenerated": (*session.Session).Regenerate,
		"renewed":     renewNow,
	} {
		t.Run("brings back what was "+name, func(t *testing.T) {
			v := login()
			old := v.copy()
			v.slowOnExpress(func() { v.inGo(end) }, "lang", `"js"`)
			old.wantBoth("/get/user", ada)

			old.copy().post(a.golang, "/logout", "") // but not for ever
			old.wantAnonymous()
		})
		t.Run("after a reload leaves alone what was "+name, func(t *testing.T) {
			v := login()
			old := v.copy()
			if status := v.slowOnExpress(func() { v.inGo(end) }, "lang?reload", `"js"`); status != http.StatusInternalServerError {
				t.Errorf("Express answers %d", status)
			}
			old.wantAnonymous()
			if a.has(t, old.id()) {
				t.Error("the session is back")
			}
		})
	}
}
