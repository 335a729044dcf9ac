package session_test

import (
	"bytes"
	"context"
	"crypto/md5"
	cryptorand "crypto/rand"
	"crypto/sha1"
	"crypto/sha512"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httptrace"
	"net/textproto"
	"os"
	"os/exec"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/gorilla/securecookie"
	"github.com/redis/go-redis/v9"
	"github.com/seed-4f96e14b/session"
	"github.com/seed-4f96e14b/session/internal/testing/redistest"
)

// The 25 checks of docs/security.md, by their rank. Each has the core of its check
// here; where another test goes deeper, docs/security.md names both.

const sid = "__Host-sid"

// sign returns a cookie of our name with a signature of ours, by securecookie itself.
func sign(t testing.TB, name, secret, id string, configure ...func(*securecookie.SecureCookie)) string {
	t.Helper()
	codec := securecookie.New([]byte(secret), nil).SetSerializer(securecookie.NopEncoder{})
	for _, f := range configure {
		f(codec)
	}
	value, err := codec.Encode(name, []byte(id))
	if err != nil {
		t.Fatal(err)
	}
	return value
}

// idOf returns the handle and the secret that a cookie carries, in one.
func idOf(t testing.TB, cookie string) string {
	t.Helper()
	raw, err := base64.URLEncoding.DecodeString(cookie)
	if err != nil {
		t.Fatal(err)
	}
	id, err := base64.URLEncoding.DecodeString(strings.SplitN(string(raw), "|", 3)[1])
	if err != nil || len(id) != 32 {
		t.Fatalf("an id of %d bytes, error %v", len(id), err)
	}
	return string(id)
}

// with sends the cookie of our name, and nothing else.
func with(cookie string) func(*http.Request) {
	return func(r *http.Request) { r.Header.Set("Cookie", sid+"="+cookie) }
}

var (
	logout = destroy
	login  = func(name string) handler {
		return use(func(s *session.Session) { s.Regenerate(); nameKey.Set(s, name) })
	}
)

// Rank 1. An id that we did not issue is never adopted, signed or not: what is set gets
// an id of our own.
func TestSecurityForeignIDsAreNeverAdopted(t *testing.T) {
	forEachStore(t, func(t *testing.T, store session.Store) {
		sp := &spy{Store: store}
		m := newManager(t, session.Options{Store: sp})
		ended := newVisitor(m)
		ended.get(setName("x"))
		dead := ended.jar[sid]
		ended.get(logout)
		ids := map[string]string{
			"ended":                dead,
			"unsigned":             base64.URLEncoding.EncodeToString([]byte(strings.Repeat("u", 32))),
			"chosen":               "chosen-by-the-client",
			"signed, never issued": sign(t, sid, secretA, strings.Repeat("a", 32)),
			"signed, a path":       sign(t, sid, secretA, "../../../../../../etc/passwd\x00\x00\x00\x00"),
			"signed, a pattern":    sign(t, sid, secretA, strings.Repeat("*{?[sess:", 4)[:32]),
			"signed, line breaks":  sign(t, sid, secretA, strings.Repeat("\r\n", 16)),
		}
		for name, cookie := range ids {
			v := newVisitor(m)
			v.jar[sid] = cookie
			v.post(use(func(s *session.Session) {
				check(t, name+": name before", nameKey.Has(s), false)
				nameKey.Set(s, "mine")
			}))
			if v.jar[sid] == cookie {
				t.Errorf("%s: adopted", name)
			}
			check(t, name+": name", nameOf(v), "mine")
			other := newVisitor(m)
			other.jar[sid] = cookie
			check(t, name+": name under the planted cookie", nameOf(other), "")
		}
		for _, key := range sp.keys {
			if !regexp.MustCompile(`^[A-Za-z0-9_-]{22}$`).MatchString(key) {
				t.Errorf("the store was asked for %q", key)
			}
		}
	})
}

// Rank 2. Regenerate gives a new id and kills the old one in the store, at once, also
// where requests of the old session run meanwhile. Renew does the same to the cookie.
func TestSecurityRegenerateKillsTheOldSession(t *testing.T) {
	forEachStore(t, func(t *testing.T, store session.Store) {
		sp := &spy{Store: store}
		m := newManager(t, session.Options{Store: sp, StoreTimeout: time.Minute})
		v := newVisitor(m)
		v.get(setName("anonymous"))
		old, oldKey := v.copy(), sp.keys[0]
		var wg sync.WaitGroup
		for range 10 { // of the same browser, at the same time
			wg.Go(func() { old.copy().post(count) })
		}
		response := v.post(login("ada"))
		if _, err := store.Load(t.Context(), oldKey); !errors.Is(err, session.ErrNotFound) {
			t.Errorf("the old record: error %v, want ErrNotFound", err)
		}
		wg.Wait()
		if _, err := store.Load(t.Context(), oldKey); !errors.Is(err, session.ErrNotFound) {
			t.Errorf("the old record afterwards: error %v, want ErrNotFound", err)
		}
		check(t, "cookies", len(cookies(response)), 1)
		check(t, "old cookie", nameOf(old), "")
		check(t, "new cookie", nameOf(v), "ada")

		renewed := v.copy()
		renewed.get(renew)
		check(t, "data after Renew", nameOf(renewed), "ada")
		check(t, "cookie before Renew", nameOf(v), "")

		// Three times in one request: one cookie, and one record for one.
		counter := newManager(t, session.Options{Store: store})
		before, _ := counter.Len(t.Context())
		response = renewed.post(use(func(s *session.Session) {
			for range 3 {
				s.Regenerate()
			}
			nameKey.Set(s, "eve")
		}))
		check(t, "cookies of three", len(cookies(response)), 1)
		after, err := counter.Len(t.Context())
		check(t, "records after three", fmt.Sprint(after, err), fmt.Sprint(before, " <nil>"))
	})
}

// interleave sends the requests of one browser at once, and when all have loaded the
// session, lets them make their other calls of the store one by one, in the order that
// rng gives.
func interleave(t *testing.T, rng *rand.Rand, store session.Store, v *visitor, requests ...handler) (tabs []*visitor) {
	type event struct {
		request int
		ended   bool
	}
	events := make(chan event)
	turns := make([]chan struct{}, len(requests))
	for i, request := range requests {
		turns[i] = make(chan struct{})
		sp := &spy{Store: store, before: func(string, string) error {
			events <- event{i, false}
			<-turns[i]
			return nil
		}}
		tab := v.copy()
		tab.server = newManager(t, session.Options{Store: sp, StoreTimeout: time.Minute}).Handler(app)
		tabs = append(tabs, tab)
		go func() {
			tab.post(request)
			events <- event{i, true}
		}()
	}
	var waiting []int
	await := func() {
		if e := <-events; !e.ended {
			waiting = append(waiting, e.request)
		}
	}
	for range requests {
		await()
	}
	loads := slices.Sorted(slices.Values(waiting))
	waiting = nil
	for _, request := range loads {
		turns[request] <- struct{}{}
		await()
	}
	for len(waiting) > 0 {
		n := rng.IntN(len(waiting))
		request := waiting[n]
		waiting = slices.Delete(waiting, n, n+1)
		turns[request] <- struct{}{}
		await()
	}
	return tabs
}

// Rank 3. Logout is final: in 1,000 interleavings with requests that loaded the session
// before it, nothing brings it back, in the store or under any cookie.
func TestSecurityLogoutIsFinal(t *testing.T) {
	const schedules = 1000
	slow := []handler{
		setName("late"), count, renew, look,
		use(func(s *session.Session) { s.SetMaxAge(time.Hour) }),
		use(func(s *session.Session) { s.Save(); nameKey.Set(s, "later") }),
		use(func(s *session.Session) { s.Renew(0); s.Save(); s.Renew(0) }),
		use(func(s *session.Session) { nameKey.Get(s); s.Reload(); roleKey.Set(s, "late") }),
		logout,
	}
	ends := map[string]struct {
		end     handler
		records int // that are left: of the session that took its place
	}{
		"logout":     {logout, 0},
		"regenerate": {use(func(s *session.Session) { s.Regenerate() }), 1},
	}
	test := func(t *testing.T, store session.Store) {
		m := newManager(t, session.Options{Store: store})
		for name, end := range ends {
			t.Run(name, func(t *testing.T) {
				for seed := range uint64(schedules) {
					rng := rand.New(rand.NewPCG(seed, 0))
					v := newVisitor(m)
					v.get(setName("x"))
					tabs := interleave(t, rng, store, v, slow[rng.IntN(len(slow))], slow[rng.IntN(len(slow))], end.end)
					for _, tab := range append(tabs, v) {
						tab.server = m.Handler(app)
						if name, n := nameOf(tab), counterOf(tab); name != "" || n != 0 {
							t.Fatalf("schedule %d: the session is back, with %q and %d", seed, name, n)
						}
					}
					if n, err := m.Len(t.Context()); n != end.records || err != nil {
						t.Fatalf("schedule %d: %d records, error %v, want %d", seed, n, err, end.records)
					}
					if err := m.Clear(t.Context()); err != nil {
						t.Fatal(err)
					}
				}
			})
		}
	}
	t.Run("memory", func(t *testing.T) { test(t, new(session.MemoryStore)) })
	t.Run("redis", func(t *testing.T) { test(t, &session.RedisStore{Client: redistest.Client(t, redistest.ListRights)}) })
}

// Rank 4. A store that does not answer is a 503 and no anonymous visitor: the handler of an
// unsafe request does not run, the cookie stays, and so does the session.
func TestSecurityOutageIsNeverAnonymous(t *testing.T) {
	for what, err := range map[string]error{
		"refused": errDown, "LOADING": errors.New("LOADING Redis is loading"), "READONLY": errors.New("READONLY replica"),
		"a deadline": context.DeadlineExceeded, "cancelled": context.Canceled, "the end of a connection": io.EOF,
	} {
		sp := &spy{Store: new(session.MemoryStore)}
		v := newVisitor(newManager(t, session.Options{Store: sp}))
		v.get(setName("x"))
		cookie := v.jar[sid]
		sp.everyOp(func() error { return err })
		for _, method := range []string{http.MethodPost, http.MethodPut, http.MethodPatch, http.MethodDelete} {
			expectUnavailable(t, what+" "+method, v.do(method, func(http.ResponseWriter, *http.Request) { t.Errorf("%s: the handler of a %s ran", what, method) }))
		}
		expectUnavailable(t, what+" GET", v.get(func(w http.ResponseWriter, r *http.Request) {
			if !nameKey.Has(session.From(r.Context())) {
				http.Redirect(w, r, "/login", http.StatusSeeOther)
			}
		}))
		check(t, what+": cookie", v.jar[sid], cookie)
		sp.works()
		check(t, what+": name afterwards", nameOf(v), "x")
	}
}

// Rank 5. The session is saved before the first byte. If that fails, nothing of the
// handler's response goes out: no status, no Location, no cookie, no body.
func TestSecurityFailedSaveReplacesTheResponse(t *testing.T) {
	sp := &spy{Store: new(session.MemoryStore)}
	m := newManager(t, session.Options{Store: sp})
	server := httptest.NewTLSServer(m.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		nameKey.Set(session.From(r.Context()), "bob")
		http.SetCookie(w, &http.Cookie{Name: "mine", Value: "1"})
		for _, h := range []string{"Content-Length", "ETag", "Content-Encoding", "Clear-Site-Data"} {
			w.Header().Set(h, "11")
		}
		http.Redirect(w, r, "/welcome", http.StatusSeeOther)
		io.WriteString(w, "welcome bob")
	})))
	defer server.Close()
	client := server.Client()
	client.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	for _, fails := range []bool{true, false} {
		if fails {
			sp.on("C", down)
		} else {
			sp.works()
		}
		response, err := client.Get(server.URL)
		if err != nil {
			t.Fatal(err)
		}
		if !fails {
			check(t, "status of a save that works", response.StatusCode, http.StatusSeeOther)
			check(t, "its cookies", len(cookies(response)), 2)
			response.Body.Close()
			continue
		}
		expectUnavailable(t, "redirect", response)
		response.Body.Close()
		for _, h := range []string{"ETag", "Content-Encoding", "Clear-Site-Data"} {
			check(t, h, response.Header.Get(h), "")
		}
	}
}

// Rank 6. A logout or a login that the store did not make is never answered as if it had
// worked, whatever the handler does with the error.
func TestSecurityFailedLogoutIsNoLogout(t *testing.T) {
	for what, tt := range map[string]struct {
		fails string
		do    handler
	}{
		"logout, delete fails": {"D", logout},
		"login, create fails":  {"C", login("ada")},
		"login, delete fails":  {"D", login("ada")},
		"renewal, save fails":  {"S", renew},
	} {
		sp := &spy{Store: new(session.MemoryStore)}
		v := newVisitor(newManager(t, session.Options{Store: sp}))
		v.get(setName("x"))
		cookie := v.jar[sid]
		sp.onceOn(tt.fails, down)
		expectUnavailable(t, what, v.post(func(w http.ResponseWriter, r *http.Request) {
			tt.do(w, r)
			w.WriteHeader(http.StatusNoContent)
		}))
		check(t, what+": the cookie that tries again", v.jar[sid], cookie)
		check(t, what+": name", nameOf(v), "x")
		check(t, what+": again", v.post(tt.do).StatusCode, http.StatusOK)
	}
}

// Rank 7. Whatever does not verify is as no cookie: the same response to the byte, no call
// of the store, no error. There is nothing to tell one reason from another by.
func TestSecurityBadCookiesAreAnonymous(t *testing.T) {
	sp := &spy{Store: new(session.MemoryStore)}
	var book logBook
	m := newManager(t, session.Options{Store: sp, Logger: book.logger()})
	v := newVisitor(m)
	v.get(setName("x"))
	good := v.jar[sid]
	id := idOf(t, good)
	sign := func(name, secret, id string, configure ...func(*securecookie.SecureCookie)) string {
		return sign(t, name, secret, id, configure...)
	}
	encrypted, err := securecookie.New([]byte(secretA), make([]byte, 32)).SetSerializer(securecookie.NopEncoder{}).Encode(sid, []byte(id))
	if err != nil {
		t.Fatal(err)
	}
	bad := map[string]string{
		"empty":               "",
		"bad base64":          strings.Repeat("!", len(good)),
		"bad MAC":             good[:len(good)-10] + "AAAAAAAAAA",
		"truncated":           good[:len(good)/2],
		"oversized":           strings.Repeat(good, 40),
		"unsigned":            base64.URLEncoding.EncodeToString([]byte(id)),
		"another name":        sign("sid", secretA, id),
		"another key":         sign(sid, secretB, id),
		"HMAC-SHA-1":          sign(sid, secretA, id, func(c *securecookie.SecureCookie) { c.HashFunc(sha1.New) }),
		"HMAC-MD5":            sign(sid, secretA, id, func(c *securecookie.SecureCookie) { c.HashFunc(md5.New) }),
		"HMAC-SHA-512":        sign(sid, secretA, id, func(c *securecookie.SecureCookie) { c.HashFunc(sha512.New) }),
		"encrypted":           encrypted,
		"an id that is short": sign(sid, secretA, id[:31]),
		"an id that is long":  sign(sid, secretA, id+"x"),
		"respelled":           respell(good),
		"quoted":              `"` + good + `"`,
	}
	for i := range good {
		b := []byte(good)
		b[i] ^= 0x04
		bad[fmt.Sprintf("byte %d", i)] = string(b)
	}
	replaced := v.copy()
	v.get(renew)
	good = v.jar[sid]
	former := newVisitor(m)
	former.get(setName("former"))
	dead := former.jar[sid]
	former.get(logout)
	respond := func(cookie string) string {
		sp.took()
		response := newVisitor(m).send(http.MethodPost, func(w http.ResponseWriter, r *http.Request) {
			s := session.From(r.Context())
			fmt.Fprint(w, nameKey.Get(s), s.Keys(), s.Err())
		}, with(cookie))
		body, _ := io.ReadAll(response.Body)
		return fmt.Sprint(summary(response), string(body))
	}
	want := respond("")
	for name, cookie := range bad {
		check(t, name, respond(cookie), want)
		check(t, name+": calls", sp.took(), "")
	}
	check(t, "log lines", len(counted(&book, "no good signature")), book.lines())
	check(t, "of a session that has ended", respond(dead), want)
	check(t, "that a renewal replaced", respond(replaced.jar[sid]), want)
	check(t, "the good one is better", strings.Contains(respond(good), "x[name]"), true)
	check(t, "signed by securecookie itself", strings.Contains(respond(sign(sid, secretA, idOf(t, good))), "x[name]"), true)
}

// Rank 8. Both timeouts are kept by the server, whatever the browser keeps, after records
// that went to Redis and came back; and every key of Redis has an end.
func TestSecurityTimeoutsAreTheServers(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		v := newVisitor(newManager(t, session.Options{IdleTimeout: 2 * time.Second, AbsoluteTimeout: 5 * time.Second}))
		v.get(setName("x"))
		for second := range 5 {
			check(t, fmt.Sprintf("used, after %d s", second), nameOf(v), "x")
			time.Sleep(time.Second)
		}
		check(t, "used, after 5 s", nameOf(v), "")
		v.get(setName("y"))
		time.Sleep(1900 * time.Millisecond)
		check(t, "unused for less than 2 s", nameOf(v), "y")
		time.Sleep(2100 * time.Millisecond)
		check(t, "unused for more", nameOf(v), "")

		// Longer than a signature lives with securecookie's own default of 30 days.
		v = newVisitor(newManager(t, session.Options{Cookie: session.Cookie{MaxAge: 60 * 24 * time.Hour}, AbsoluteTimeout: -1}))
		v.get(setName("z"))
		time.Sleep(31 * 24 * time.Hour)
		check(t, "of 60 days, on day 31", nameOf(v), "z")
		time.Sleep(50 * 24 * time.Hour)
		check(t, "and used then, on day 81", nameOf(v), "z")
	})
	client := redistest.Client(t)
	admin := redistest.Admin(t, client.Options().Addr)
	options := session.Options{Store: &session.RedisStore{Client: client}, IdleTimeout: time.Minute, AbsoluteTimeout: 2 * time.Minute}
	v := newVisitor(newManager(t, options))
	v.get(setName("x"))
	for i, do := range []handler{count, renew, look, use(func(s *session.Session) { s.SetMaxAge(time.Hour) }), login("y")} {
		v.get(do)
		keys := admin.Keys(t.Context(), "*").Val()
		check(t, "keys", len(keys), 1)
		if ttl := admin.PTTL(t.Context(), keys[0]).Val(); ttl <= 0 || ttl > 2*time.Minute+time.Minute {
			t.Errorf("step %d: time to live %v", i, ttl)
		}
	}
	options.IdleTimeout = time.Second
	v = newVisitor(newManager(t, options))
	v.get(setName("x"))
	time.Sleep(time.Second)
	check(t, "in Redis, unused", nameOf(v), "")
}

// Rank 9. Every Set-Cookie has all attributes of the options, also the second time round,
// and what browsers refuse is refused by New.
func TestSecurityCookieAttributes(t *testing.T) {
	for name, tt := range map[string]struct {
		cookie session.Cookie
		want   string // of every Set-Cookie, without the value and without when it ends
	}{
		"the zero value":         {session.Cookie{}, "__Host-sid; Path=/; HttpOnly; Secure; SameSite=Lax"},
		"strict":                 {session.Cookie{SameSite: http.SameSiteStrictMode}, "__Host-sid; Path=/; HttpOnly; Secure; SameSite=Strict"},
		"another site's frame":   {session.Cookie{SameSite: http.SameSiteNoneMode, Partitioned: true}, "__Host-sid; Path=/; HttpOnly; Secure; SameSite=None; Partitioned"},
		"subdomains":             {session.Cookie{Name: "__Secure-sid", Domain: "example.com"}, "__Secure-sid; Path=/; Domain=example.com; HttpOnly; Secure; SameSite=Lax"},
		"a path":                 {session.Cookie{Name: "__Secure-sid", Path: "/app"}, "__Secure-sid; Path=/app; HttpOnly; Secure; SameSite=Lax"},
		"the upgrade of __Host-": {session.Cookie{Name: "__Host-Http-sid"}, "__Host-Http-sid; Path=/; HttpOnly; Secure; SameSite=Lax"},
		"for scripts":            {session.Cookie{ScriptAccess: true}, "__Host-sid; Path=/; Secure; SameSite=Lax"},
		"in the clear":           {session.Cookie{Insecure: true}, "sid; Path=/; HttpOnly; SameSite=Lax"},
	} {
		tt.cookie.MaxAge = time.Hour
		m := newManager(t, session.Options{Cookie: tt.cookie})
		for range 2 {
			v := newVisitor(m)
			for _, step := range []struct {
				what string
				do   handler
			}{{"create", setName("x")}, {"change", setName("y")}, {"renew", renew}, {"regenerate", login("z")}, {"delete", logout}} {
				response := v.post(step.do)
				check(t, name+", "+step.what+": cookies", len(cookies(response)), 1)
				parts := slices.DeleteFunc(strings.Split(cookies(response)[0], "; "), func(part string) bool {
					return strings.HasPrefix(part, "Max-Age=") || strings.HasPrefix(part, "Expires=")
				})
				size := len(parts[0])
				cookieName, value, _ := strings.Cut(parts[0], "=")
				parts[0] = cookieName
				check(t, name+", "+step.what, strings.Join(parts, "; "), tt.want)
				check(t, name+", "+step.what+": no value", value == "", step.what == "delete")
				if size > 200 {
					t.Errorf("%s: %d bytes of 4096", name, size)
				}
			}
		}
	}
	for _, cookie := range []session.Cookie{
		{Name: "__Host-x", Domain: "example.com"}, {Name: "__Host-x", Path: "/app"}, {Name: "__Host-x", Insecure: true}, {Name: "__hOST-x", Insecure: true},
		{Name: "__Secure-x", Insecure: true}, {SameSite: http.SameSiteNoneMode, Insecure: true}, {Partitioned: true, Insecure: true},
		{Name: strings.Repeat("n", 4000)}, {Name: "a;b"}, {Name: "a\x00"}, {Name: "a,b"}, {Name: "é"}, {Path: "/\r\nSet-Cookie: a=b"}, {Domain: "a;b"}, {Domain: "[::1]"},
	} {
		if _, err := session.New(session.Options{Cookie: cookie}); err == nil {
			t.Errorf("New takes %+v", cookie)
		}
	}
}

// Rank 10. There is no default key, and New takes none that can be guessed.
func TestSecuritySecretsThatCanBeGuessed(t *testing.T) {
	store := &session.RedisStore{Client: redis.NewClient(&redis.Options{Addr: "127.0.0.1:1"})}
	readme, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	example := regexp.MustCompile(`SESSION_SECRET='([^']+)'`).FindSubmatch(readme)
	if example == nil {
		t.Fatal("the README has no example of a secret")
	}
	for name, secrets := range map[string][]string{
		"none": nil, "an empty list": {}, "an unset variable": {""}, "1 byte": {"k"}, "15 bytes": {secretA[:15]}, "16 bytes": {secretA[:16]}, "31 bytes": {secretA[:31]},
		"Express's example": {"keyboard cat"}, "gorilla's example": {"very-secret"}, "the README's": {string(example[1])},
		"zeros": {strings.Repeat("\x00", 64)}, "one letter": {strings.Repeat("a", 64)}, "a good one and a bad one": {secretA, "short"},
	} {
		if _, err := session.New(session.Options{Store: store, Secrets: secrets}); err == nil || !strings.Contains(err.Error(), "openssl rand") {
			t.Errorf("%s: error %v", name, err)
		}
	}
	if _, err := session.New(session.Options{Store: store, Secrets: []string{secretA[:32]}}); err != nil {
		t.Errorf("32 bytes: %v", err)
	}
	// In memory without a secret, every manager has a random one.
	memory := new(session.MemoryStore)
	v := newVisitor(newManager(t, session.Options{Store: memory, Secrets: []string{}}))
	v.get(setName("x"))
	check(t, "name", nameOf(v), "x")
	v.server = newManager(t, session.Options{Store: memory, Secrets: []string{}}).Handler(app)
	check(t, "name under another random secret", nameOf(v), "")
}

// Rank 11. A secret is replaced by a rolling deploy of two instances: nobody is logged out,
// nothing is a 500, and what is sent is signed by the new one.
func TestSecurityRotationLogsNobodyOut(t *testing.T) {
	store := new(session.MemoryStore)
	instance := func(secrets ...string) http.Handler {
		return newManager(t, session.Options{Store: store, Secrets: secrets, Cookie: session.Cookie{MaxAge: time.Hour}}).Handler(app)
	}
	v := newVisitor(newManager(t, session.Options{Store: store, Cookie: session.Cookie{MaxAge: time.Hour}}))
	v.get(setName("x"))
	for step, instances := range [][2]http.Handler{
		{instance(secretA), instance(secretA, secretB)},          // the new one verifies first,
		{instance(secretA, secretB), instance(secretB, secretA)}, // then signs,
		{instance(secretB, secretA), instance(secretB)},          // then is alone
	} {
		for i := range 6 {
			v.server = instances[i%2]
			response := v.post(count)
			check(t, fmt.Sprintf("step %d: status", step), response.StatusCode, http.StatusOK)
			check(t, fmt.Sprintf("step %d: name", step), nameOf(v), "x")
		}
	}
	check(t, "no change is lost", counterOf(v), 18)
	v.server = instance(secretA)
	response := v.post(look)
	check(t, "status where the new secret is unknown", response.StatusCode, http.StatusOK)
	check(t, "name where the new secret is unknown", nameOf(v), "")
}

// Rank 12. Ids have 256 random bits, also under load; a source of randomness that fails
// ends the program; and an id that is in use is not taken over.
func TestSecurityIDsAreRandom(t *testing.T) {
	if os.Getenv("SESSION_TEST_RANDOMNESS") != "" {
		cryptorand.Reader = io.LimitReader(strings.NewReader(strings.Repeat("r", 40)), 40) // one id, and part of a second
		m := newManager(t, session.Options{})
		for range 10 {
			newVisitor(m).get(setName("x"))
		}
		os.Exit(0)
	}
	const goroutines, each = 64, 256
	m := newManager(t, session.Options{})
	ids := make([][]string, goroutines)
	var wg sync.WaitGroup
	for i := range ids {
		wg.Go(func() {
			for range each {
				v := newVisitor(m)
				v.get(setName("x"))
				ids[i] = append(ids[i], idOf(t, v.jar[sid]))
			}
		})
	}
	wg.Wait()
	all := slices.Concat(ids...)
	seen := make(map[string]bool)
	var ones [256]int
	for _, id := range all {
		for _, half := range []string{id[:16], id[16:]} {
			if seen[half] {
				t.Fatal("a handle or a secret came twice")
			}
			seen[half] = true
		}
		for bit := range ones {
			ones[bit] += int(id[bit/8] >> (bit % 8) & 1)
		}
	}
	n := float64(len(all))
	for bit, count := range ones {
		if deviation := math.Abs(float64(count) - n/2); deviation > 6*math.Sqrt(n)/2 { // by chance in one of a million runs
			t.Errorf("bit %d is set in %d of %v ids", bit, count, n)
		}
	}
	if slices.IsSorted(all) {
		t.Error("the ids ascend")
	}

	cmd := exec.Command(os.Args[0], "-test.run=^TestSecurityIDsAreRandom$")
	cmd.Env = append(os.Environ(), "SESSION_TEST_RANDOMNESS=fails")
	if out, err := cmd.CombinedOutput(); err == nil || !bytes.Contains(out, []byte("failed to read random data")) {
		t.Errorf("a program without randomness goes on: %v, %s", err, out)
	}

	forEachStore(t, func(t *testing.T, store session.Store) {
		if err := store.Create(t.Context(), "key", []byte("first"), time.Minute); err != nil {
			t.Fatal(err)
		}
		if err := store.Create(t.Context(), "key", []byte("second"), time.Minute); !errors.Is(err, session.ErrConflict) {
			t.Errorf("error %v, want ErrConflict", err)
		}
		data, err := store.Load(t.Context(), "key")
		check(t, "record", fmt.Sprint(string(data), " ", err), "first <nil>")
	})
}

// Rank 13. Who only looks, comes without a cookie, with a dead one, or logs out without a
// session, leaves nothing: no record, no cookie, no write.
func TestSecurityVisitorsLeaveNothing(t *testing.T) {
	memory := new(session.MemoryStore)
	sp := &spy{Store: memory}
	m := newManager(t, session.Options{Store: sp})
	former := newVisitor(m)
	former.get(setName("x"))
	dead := former.jar[sid]
	former.get(logout)
	for name, tt := range map[string]struct {
		cookie string
		do     handler
		want   string
	}{
		"reads":                       {"", look, ""},
		"is told its id":              {"", use(func(s *session.Session) { s.ID(); s.Keys(); s.Created(); s.Expires(); s.Touch() }), ""},
		"deletes what is not there":   {"", use(func(s *session.Session) { nameKey.Delete(s); nameKey.Pop(s) }), ""},
		"logs out without a session":  {"", logout, ""},
		"renews without a session":    {"", renew, ""},
		"reads, with a dead cookie":   {dead, look, "L"},
		"reads, with a forged cookie": {dead[:60] + strings.Repeat("A", 60), look, ""},
	} {
		for range 100 {
			v := newVisitor(m)
			if tt.cookie != "" {
				v.jar[sid] = tt.cookie
			}
			sp.took()
			response := v.get(tt.do)
			check(t, name+": calls", took(sp, response), tt.want)
		}
	}
	check(t, "records", recordsIn(t, memory), 0)
}

// A way to Redis that can be cut, and mended.
type way struct {
	addr  string
	mu    sync.Mutex
	state string
	conns []net.Conn
}

func (w *way) set(state string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.state = state
	for _, c := range w.conns {
		c.Close()
	}
	w.conns = nil
}

func (w *way) dial(ctx context.Context, _, _ string) (conn net.Conn, err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	switch w.state {
	case "refused":
		return nil, syscall.ECONNREFUSED
	case "hung", "reset":
		conn, other := net.Pipe()
		if w.state == "reset" {
			other.Close()
		}
		w.conns = append(w.conns, conn, other)
		return conn, nil
	}
	conn, err = new(net.Dialer).DialContext(ctx, "tcp", w.addr)
	w.conns = append(w.conns, conn)
	return conn, err
}

// Rank 14. A request waits for StoreTimeout and no longer, whatever has become of the way to
// Redis and of the client's own patience, and the app goes on by itself.
func TestSecurityStoreTimeoutHolds(t *testing.T) {
	const timeout = 100 * time.Millisecond
	w := &way{addr: redistest.Start(t)}
	client := redis.NewClient(&redis.Options{Dialer: w.dial, Username: redistest.User, Password: redistest.Password, ReadTimeout: -1, WriteTimeout: -1, MaxRetries: 1000}) // it would wait for minutes
	defer client.Close()
	m := newManager(t, session.Options{Store: &session.RedisStore{Client: client}, StoreTimeout: timeout})
	v := newVisitor(m)
	v.get(setName("x"))
	states := []string{"refused", "hung", "reset"}
	leaving := make(map[string]*visitor)
	for _, state := range states {
		leaving[state] = newVisitor(m)
		leaving[state].get(setName("leaving"))
	}
	for _, state := range states {
		w.set(state)
		for what, do := range map[string]handler{"read": look, "write": count, "login": login("y"), "logout": logout} {
			v := v
			if what == "logout" { // which the client goes on trying, and may yet do
				v = leaving[state]
			}
			began := time.Now()
			expectUnavailable(t, state+", "+what, v.get(do))
			if took := time.Since(began); took > 50*timeout { // a bound that no busy machine breaks
				t.Errorf("%s, %s: %v", state, what, took)
			}
		}
		w.set("works")
		eventually(t, "the app goes on", func() bool { return v.get(look).StatusCode == http.StatusOK })
		check(t, state+": name afterwards", nameOf(v), "x")
	}
}

// Rank 15. A client that leaves loses no save, and what it asked for is done whole.
func TestSecurityDisconnectLosesNoSave(t *testing.T) {
	forEachStore(t, func(t *testing.T, store session.Store) {
		m := newManager(t, session.Options{Store: store})
		v := newVisitor(m)
		v.get(setName("x"))
		leave := func(do func(s *session.Session)) {
			started, ended := make(chan struct{}), make(chan struct{})
			handler := m.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				close(started)
				<-r.Context().Done()
				do(session.From(r.Context()))
			}))
			server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				defer close(ended)
				handler.ServeHTTP(w, r)
			}))
			defer server.Close()
			conn, err := net.Dial("tcp", server.Listener.Addr().String())
			if err != nil {
				t.Fatal(err)
			}
			fmt.Fprintf(conn, "POST / HTTP/1.1\r\nHost: localhost\r\nCookie: %s=%s\r\nContent-Length: 0\r\n\r\n", sid, v.jar[sid])
			<-started
			conn.Close()
			<-ended
		}
		leave(func(s *session.Session) { nameKey.Set(s, "y"); counterKey.Update(s, increment) })
		check(t, "name", nameOf(v), "y")
		check(t, "counter", counterOf(v), 1)
		var id string
		leave(func(s *session.Session) { s.Regenerate(); nameKey.Set(s, "new"); id = s.ID() })
		check(t, "the old session", nameOf(v), "")
		made, err := m.Load(t.Context(), id)
		if err != nil {
			t.Fatal(err)
		}
		check(t, "the new one", nameKey.Get(made), "new")
	})
}

// Rank 16. What leaves the session as it was writes nothing, and a deadline that moves never
// overwrites what another request has written.
func TestSecurityReadersWriteNothing(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		memory := new(session.MemoryStore)
		sp := &spy{Store: memory}
		m := newManager(t, session.Options{Store: sp, IdleTimeout: time.Hour})
		v := newVisitor(m)
		v.get(setName("x"))
		for what, do := range map[string]handler{
			"reads":               look,
			"sets what is there":  setName("x"),
			"sets and sets back":  use(func(s *session.Session) { nameKey.Set(s, "y"); nameKey.Set(s, "x") }),
			"updates to the same": use(func(s *session.Session) { nameKey.Update(s, func(name string) string { return name }) }),
		} {
			sp.took()
			v.get(do)
			check(t, what, sp.took(), "L")
		}
		time.Sleep(30 * time.Minute) // the deadline is due
		writer := v.copy()
		sp.onceOn("S", func() error {
			check(t, "writer", writer.get(setName("written meanwhile")).StatusCode, http.StatusOK)
			return nil
		})
		check(t, "reader", v.get(look).StatusCode, http.StatusOK)
		check(t, "name", nameOf(v), "written meanwhile")

		time.Sleep(30 * time.Minute)
		var wg sync.WaitGroup
		for range 100 {
			wg.Go(func() { v.copy().get(look) })
		}
		wg.Go(func() { writer.get(setName("among readers")) })
		wg.Wait()
		check(t, "name", nameOf(v), "among readers")
	})
}

// Rank 17. Cookie headers as nobody should send them: which of them open the session "x",
// and what they cost.
func TestSecurityOddCookieHeaders(t *testing.T) {
	sp := &spy{Store: new(session.MemoryStore)}
	m := newManager(t, session.Options{Store: sp})
	v := newVisitor(m)
	v.get(setName("x"))
	good := v.jar[sid]
	bad := good[:len(good)-8] + "AAAAAAAA"
	own, ours, theirs := sid+"="+good, sid+"="+good, sid+"="+bad
	many := func(n int, cookie string, last ...string) string {
		return strings.Join(append(slices.Repeat([]string{cookie}, n), last...), "; ")
	}
	for name, tt := range map[string]struct {
		headers []string
		want    string
	}{
		"alone":                        {[]string{own}, "x"},
		"among others":                 {[]string{"a=b; " + own + "; c=d"}, "x"},
		"bad, good":                    {[]string{theirs + "; " + ours}, "x"},
		"good, bad":                    {[]string{ours + "; " + theirs}, "x"},
		"bad, good in two headers":     {[]string{theirs, ours}, "x"},
		"empty, good":                  {[]string{sid + "=; " + ours}, "x"},
		"without =, good":              {[]string{sid + "; " + ours}, "x"},
		"no space between":             {[]string{"a=b;" + own}, "x"},
		"spaces and tabs around":       {[]string{" \t " + sid + " =" + good + " "}, "x"},
		"after the old $Version":       {[]string{"$Version=1; " + own + "; $Path=/"}, "x"},
		"2,999 bad before it":          {[]string{many(2999, theirs, own)}, "x"},
		"the last of 3,000":            {[]string{many(2999, "a=b", own)}, "x"},
		"one of 3,001":                 {[]string{many(3000, "a=b", own)}, "x"}, // net/http would see none
		"the first of 3,001":           {[]string{own + "; " + many(3000, "a=b")}, "x"},
		"nameless":                     {[]string{"=" + own}, ""},
		"nameless, with a space":       {[]string{"= " + own}, ""},
		"lower case":                   {[]string{"__host-sid=" + good}, ""},
		"upper case":                   {[]string{"__HOST-SID=" + good}, ""},
		"percent-encoded":              {[]string{"%5F%5FHost-sid=" + good}, ""},
		"after a Unicode space":        {[]string{"\u2000" + own}, ""},
		"after a no-break space":       {[]string{"\u00a0" + own}, ""},
		"with a NUL":                   {[]string{sid + "\x00=" + good}, ""},
		"in quotes":                    {[]string{sid + `="` + good + `"`}, ""},
		"half a quote":                 {[]string{sid + `="` + good}, ""},
		"a list with commas":           {[]string{"a=b," + own}, ""},
		"in the quotes of another":     {[]string{`a="b; ` + own + `"`}, ""},
		"name and value percent-coded": {[]string{sid + "=" + strings.ReplaceAll(good, "=", "%3D")}, ""},
		"with a backslash":             {[]string{sid + `=\` + good}, ""},
	} {
		sp.took()
		response := newVisitor(m).send(http.MethodPost, use(func(s *session.Session) { check(t, name, nameKey.Get(s), tt.want) }), func(r *http.Request) {
			r.Header["Cookie"] = tt.headers
		})
		want := map[string]string{"x": "L", "": ""}[tt.want]
		check(t, name+": calls, and no cookie", took(sp, response), want)
		check(t, name+": status", response.StatusCode, http.StatusOK)
	}

	// One that a logout left behind, because its Domain or Path has changed since, does not
	// hide the good one. 2,999 of our name cost what Go's own parsing does, and a load.
	former := newVisitor(m)
	former.get(setName("former"))
	dead := sid + "=" + former.jar[sid]
	former.get(logout)
	sp.took()
	newVisitor(m).send(http.MethodGet, use(func(s *session.Session) { check(t, "after one that has ended", nameKey.Get(s), "x") }), func(r *http.Request) {
		r.Header.Set("Cookie", dead+"; "+own)
	})
	check(t, "calls for two good signatures", sp.took(), "L L")
	for name, cookie := range map[string]string{"good": own, "bad": theirs, "dead": dead} {
		r := newRequest("https://example.com/")
		r.Header.Set("Cookie", many(2999, cookie))
		r = r.WithContext(context.WithValue(r.Context(), handlerKey{}, handler(look)))
		sp.took()
		ours := allocated(func() { v.server.ServeHTTP(httptest.NewRecorder(), r) })
		if calls := sp.took(); strings.Count(calls, "L") > rounds || strings.ContainsAny(calls, "CSD") {
			t.Errorf("%s: calls %q in %d rounds", name, calls, rounds)
		}
		theirs := allocated(func() { r.CookiesNamed(sid) })
		if ours > theirs+64<<10 {
			t.Errorf("%s: %d bytes, and parsing alone takes %d", name, ours, theirs)
		}
	}
}

// rounds is how often allocated runs its function.
const rounds = 5

// allocated returns how many bytes f allocates, at the least: others allocate too.
func allocated(f func()) (least uint64) {
	least = math.MaxUint64
	for range rounds {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		f()
		runtime.ReadMemStats(&after)
		least = min(least, after.TotalAlloc-before.TotalAlloc)
	}
	return least
}

// Rank 18. Nobody makes a cookie of what is in Redis, not even with the key that signs;
// and two managers in one Redis, by name, by prefix or by secret, never meet.
func TestSecurityStoreIsNoBunchOfKeys(t *testing.T) {
	client := redistest.Client(t)
	admin := redistest.Admin(t, client.Options().Addr)
	redistest.Allow(t, client.Options().Addr, "~admin:*")
	manager := func(options session.Options, prefix string) *session.Manager {
		options.Store = &session.RedisStore{Client: client, Prefix: prefix}
		return newManager(t, options)
	}
	v := newVisitor(manager(session.Options{}, ""))
	v.get(setName("x"))
	for range 3 {
		v.get(renew)
	}
	cookie := v.jar[sid]
	id := idOf(t, cookie)
	var dump strings.Builder
	for _, key := range admin.Keys(t.Context(), "*").Val() {
		fmt.Fprintln(&dump, key, admin.Get(t.Context(), key).Val())
	}
	for _, secret := range []string{id[16:], base64.RawURLEncoding.EncodeToString([]byte(id[16:])), hex.EncodeToString([]byte(id[16:])), cookie, secretA} {
		if strings.Contains(dump.String(), secret) {
			t.Errorf("Redis has %q", secret)
		}
	}
	check(t, "the dump has the session", strings.Contains(dump.String(), base64.RawURLEncoding.EncodeToString([]byte(id[:16]))), true)
	for at := range dump.Len() - 16 { // who has the signing key too, and tries every 16 bytes of the dump as the secret
		thief := newVisitor(manager(session.Options{}, ""))
		thief.jar[sid] = sign(t, sid, secretA, id[:16]+dump.String()[at:at+16])
		check(t, "name for the thief", nameOf(thief), "")
	}

	ours := manager(session.Options{}, "")
	for name, tt := range map[string]struct {
		other      *session.Manager
		cookieName string
	}{
		"another name":                   {manager(session.Options{Cookie: session.Cookie{Name: "__Host-admin"}}, ""), "__Host-admin"},
		"another secret":                 {manager(session.Options{Secrets: []string{secretB}}, ""), sid},
		"another prefix":                 {manager(session.Options{}, "admin:"), sid},
		"a prefix that begins with ours": {manager(session.Options{}, "sess:admin:"), sid},
	} {
		admin := newVisitor(tt.other)
		admin.get(setName("admin"))
		check(t, name+": admin", nameOf(admin), "admin")
		swapped := newVisitor(ours)
		swapped.jar[sid] = admin.jar[tt.cookieName]
		check(t, name+": the admin's cookie with us", nameOf(swapped), "")
		swapped = newVisitor(tt.other)
		swapped.jar[tt.cookieName] = cookie
		check(t, name+": our cookie with the admins", nameOf(swapped), "")
	}
	check(t, "name", nameOf(v), "x")
}

// Rank 19. A response with a Set-Cookie is not stored by anybody, one whose handler looked at
// the session varies by cookie, also where it failed, and no other is touched.
func TestSecurityResponsesAreNotShared(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		sp := &spy{Store: new(session.MemoryStore)}
		m := newManager(t, session.Options{Store: sp, Rolling: true, Cookie: session.Cookie{MaxAge: time.Hour}})
		v := newVisitor(m)
		expect := func(what string, response *http.Response, cacheControl, vary string) {
			t.Helper()
			check(t, what+": Cache-Control", response.Header.Get("Cache-Control"), cacheControl)
			check(t, what+": Vary", response.Header.Get("Vary"), vary)
		}
		public := func(do handler) handler {
			return func(w http.ResponseWriter, r *http.Request) {
				w.Header().Set("Cache-Control", "public, max-age=60")
				do(w, r)
			}
		}
		expect("without a session, untouched", v.get(public(untouched)), "public, max-age=60", "")
		expect("without a session, read", v.get(public(look)), "public, max-age=60", "Cookie")
		expect("created", v.get(public(setName("x"))), "no-store", "Cookie")
		expect("read", v.get(public(look)), "public, max-age=60", "Cookie")
		expect("told its id", v.get(public(use(func(s *session.Session) { s.ID() }))), "public, max-age=60", "Cookie")
		time.Sleep(30 * time.Minute)
		expect("untouched, and the cookie goes again", v.get(public(untouched)), "no-store", "Cookie")
		expect("renewed", v.get(public(renew)), "no-store", "Cookie")
		sp.onceOn("L", down)
		expect("failed before the handler", v.post(public(look)), "no-store", "")
		v.server = newManager(t, session.Options{Store: sp}).Handler(app)
		sp.onceOn("L", down)
		expect("failed", v.get(public(look)), "no-store", "Cookie")
		expect("ended", v.get(public(logout)), "no-store", "Cookie")
	})
}

// Rank 20. No cookie, secret, signing key or value is in a log line at any level, in an error
// or in a printed value; and no response says what is behind the app.
func TestSecurityNothingSecretLeaks(t *testing.T) {
	var book logBook
	var out strings.Builder
	sp := &spy{Store: new(session.MemoryStore)}
	m := newManager(t, session.Options{Store: sp, Logger: book.logger()})
	v := newVisitor(m)
	secrets := []string{secretA, "a private text"}
	remember := func() {
		if cookie := v.jar[sid]; cookie != "" {
			secret := idOf(t, cookie)[16:]
			secrets = append(secrets, cookie, secret, hex.EncodeToString([]byte(secret)), base64.StdEncoding.EncodeToString([]byte(secret)), base64.RawURLEncoding.EncodeToString([]byte(secret)))
		}
	}
	request := func(do handler) {
		response := v.post(func(w http.ResponseWriter, r *http.Request) {
			do(w, r)
			s := session.From(r.Context())
			fmt.Fprintln(&out, s.Err(), s, m)
			fmt.Fprintf(&out, "%v %+v %#v %q\n", s, s, s, s.Err())
			slog.New(slog.NewJSONHandler(&out, nil)).Info("a session", "session", s, "manager", m, "request", w)
		})
		remember()
		body, _ := io.ReadAll(response.Body)
		for _, backend := range []string{"10.1.2.3", "refused", "redis", "sess:"} {
			if strings.Contains(fmt.Sprint(response.Header, string(body)), backend) {
				t.Errorf("the client is told %q", backend)
			}
		}
		fmt.Fprintln(&out, string(body))
	}
	private := setName("a private text")
	request(private)
	for _, op := range []string{"L", "S", "D", "C"} {
		for _, do := range []handler{look, count, renew, login("a private text"), logout} {
			sp.onceOn(op, down)
			request(do)
			sp.works()
			request(private)
		}
	}
	old := v.copy()
	request(renew)
	old.get(private)
	request(use(func(s *session.Session) { session.Key[int]("name").Get(s) })) // not of its key's type
	request(use(func(s *session.Session) { nameKey.Set(s, strings.Repeat("a private text", 10_000)) }))
	request(use(func(s *session.Session) { s.Destroy(); nameKey.Set(s, "a private text") }))
	request(func(w http.ResponseWriter, r *http.Request) { r.Header.Set("Cookie", "x"); private(w, r) })

	for _, secret := range secrets {
		for _, form := range []string{secret, strings.Trim(fmt.Sprint([]byte(secret)), "[]")} {
			if strings.Contains(book.String(), form) {
				t.Errorf("logged: %q", form)
			}
			if strings.Contains(out.String(), form) {
				t.Errorf("printed: %q", form)
			}
		}
	}
	if book.lines() < 12 || len(secrets) < 50 {
		t.Errorf("%d log lines and %d secrets: the test has shown nothing", book.lines(), len(secrets))
	}
}

// Rank 21. Whatever is under a session's key, there is no panic, nothing is opened that the
// cookie does not open, and who was locked out can log in again.
func TestSecuritySpoiledRecordsOpenNothing(t *testing.T) {
	sp := &spy{Store: new(session.MemoryStore)}
	m := newManager(t, session.Options{Store: sp})
	v, other := newVisitor(m), newVisitor(m)
	v.get(setName("x"))
	other.get(setName("other"))
	key, record, foreign := sp.keys[0], sp.data[0], sp.data[1]
	visit := func(what string, data []byte) (name string, status int) {
		ctx := context.Background()
		sp.Store.Delete(ctx, key)
		if err := sp.Store.Create(ctx, key, data, time.Hour); err != nil {
			t.Fatal(err)
		}
		status = v.copy().get(use(func(s *session.Session) { name = nameKey.Get(s); s.Keys() })).StatusCode
		if isNewer := len(data) > 1 && data[0] == record[0] && data[1] > record[1]; status != http.StatusOK && !isNewer {
			t.Errorf("%s: status %d for %x", what, status, data)
		}
		return name, status
	}
	for n := range record {
		if name, _ := visit("truncated", record[:n]); name != "" {
			t.Errorf("the first %d bytes open it", n)
		}
	}
	for bit := range len(record) * 8 {
		data := bytes.Clone(record)
		data[bit/8] ^= 1 << (bit % 8)
		visit("a bit flipped", data)
	}
	rng := rand.New(rand.NewPCG(1, 2))
	for range 20_000 {
		data := bytes.Clone(record)
		for range 1 + rng.IntN(8) {
			data[2+rng.IntN(len(data)-2)] = byte(rng.Uint32())
		}
		visit("random", data[:len(data)-rng.IntN(3)])
	}
	for what, data := range map[string][]byte{"another session's": foreign, "a cache entry": []byte(`{"user":"admin"}`), "nothing": {}, "of the next version": append([]byte{record[0], record[1] + 1}, record[2:]...)} {
		name, status := visit(what, data)
		check(t, what+": name", name, "")
		check(t, what+": refused", status != http.StatusOK, what == "of the next version")
	}
	name, _ := visit("whole", record)
	check(t, "name", name, "x")
	visit("spoiled", record[:20])
	check(t, "login", v.post(login("y")).StatusCode, http.StatusOK)
	check(t, "name after the login", nameOf(v), "y")
	check(t, "another's", nameOf(other), "other")
}

// Rank 22. The response is the handler's own on every road: 1xx, Flush, ReadFrom, Hijack,
// ResponseController, a TimeoutHandler on either side, a panic.
func TestSecurityResponseWriterKeepsItsContract(t *testing.T) {
	m := newManager(t, session.Options{Cookie: session.Cookie{Insecure: true}})
	around := func(do handler) http.Handler { return m.Handler(http.HandlerFunc(do)) }
	save := func(w http.ResponseWriter, r *http.Request) { nameKey.Set(session.From(r.Context()), "x") }

	for name, tt := range map[string]struct {
		do     handler
		status int
		body   string
	}{
		"early hints": {func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Link", "</style.css>; rel=preload")
			w.WriteHeader(http.StatusEarlyHints)
			save(w, r)
			w.WriteHeader(http.StatusOK)
		}, http.StatusOK, ""},
		"flush": {func(w http.ResponseWriter, r *http.Request) {
			save(w, r)
			w.(http.Flusher).Flush()
			io.WriteString(w, "flushed")
		}, http.StatusOK, "flushed"},
		"read from": {func(w http.ResponseWriter, r *http.Request) {
			save(w, r)
			w.(io.ReaderFrom).ReadFrom(strings.NewReader("copied"))
		}, http.StatusOK, "copied"},
		"controller": {func(w http.ResponseWriter, r *http.Request) {
			save(w, r)
			c := http.NewResponseController(w)
			if err := errors.Join(c.SetWriteDeadline(time.Now().Add(time.Minute)), c.EnableFullDuplex(), c.Flush()); err != nil {
				t.Error(err)
			}
		}, http.StatusOK, ""},
		"hijack": {func(w http.ResponseWriter, r *http.Request) {
			save(w, r)
			conn, _, err := http.NewResponseController(w).Hijack()
			if err != nil {
				t.Error(err)
				return
			}
			defer conn.Close()
			fmt.Fprintf(conn, "HTTP/1.1 200 OK\r\nContent-Length: 8\r\nSet-Cookie: %s\r\n\r\nhijacked", w.Header().Get("Set-Cookie"))
		}, http.StatusOK, "hijacked"},
	} {
		server := httptest.NewServer(around(tt.do))
		hints := 0
		trace := &httptrace.ClientTrace{Got1xxResponse: func(code int, header textproto.MIMEHeader) error {
			hints++
			if header.Get("Set-Cookie") != "" || header.Get("Link") == "" {
				t.Errorf("%s: header of the %d: %v", name, code, header)
			}
			return nil
		}}
		request, _ := http.NewRequestWithContext(httptrace.WithClientTrace(t.Context(), trace), "GET", server.URL, nil)
		response, err := http.DefaultClient.Do(request)
		if err != nil {
			t.Fatal(err)
		}
		body, _ := io.ReadAll(response.Body)
		response.Body.Close()
		server.Close()
		check(t, name+": status", response.StatusCode, tt.status)
		check(t, name+": body", string(body), tt.body)
		check(t, name+": early hints", hints > 0, name == "early hints")
		check(t, name+": cookies", len(cookies(response)), 1)
		v := newVisitor(m)
		v.jar["sid"] = response.Cookies()[0].Value
		check(t, name+": name", nameOf(v), "x")
	}

	for _, value := range []any{"a bug", http.ErrAbortHandler, errDown} {
		v := newVisitor(m)
		v.get(setName("x"))
		func() {
			defer func() { check(t, "panic", recover(), value) }()
			v.get(func(w http.ResponseWriter, r *http.Request) {
				nameKey.Set(session.From(r.Context()), "y")
				panic(value)
			})
		}()
		check(t, "name after a panic", nameOf(v), "x")
	}

	// Around us, a TimeoutHandler answers 503, and the new cookie of what the handler does
	// later is lost with the response: the old one is anonymous then, and no error.
	inBubble(t, func(t *testing.T) {
		m := newManager(t, session.Options{})
		v := newVisitor(m)
		v.get(setName("x"))
		v.server = http.TimeoutHandler(m.Handler(app), time.Second, "too late")
		response := v.get(func(w http.ResponseWriter, r *http.Request) {
			session.From(r.Context()).Regenerate()
			time.Sleep(time.Minute)
			if _, err := io.WriteString(w, "done"); !errors.Is(err, http.ErrHandlerTimeout) {
				t.Errorf("Write: error %v, want ErrHandlerTimeout", err)
			}
		})
		check(t, "status", response.StatusCode, http.StatusServiceUnavailable)
		check(t, "cookies", len(cookies(response)), 0)
		time.Sleep(time.Hour) // until the handler has ended
		v.server = m.Handler(app)
		response = v.get(look)
		check(t, "status afterwards", response.StatusCode, http.StatusOK)
		check(t, "name afterwards", nameOf(v), "")
	})
	// Inside, the handler outlives its session, which says so.
	inBubble(t, func(t *testing.T) {
		m := newManager(t, session.Options{})
		v := newVisitor(m)
		v.get(setName("x"))
		v.server = m.Handler(http.TimeoutHandler(app, time.Second, "too late"))
		done := make(chan error, 1)
		response := v.get(func(w http.ResponseWriter, r *http.Request) {
			s := session.From(r.Context())
			nameKey.Get(s)
			time.Sleep(time.Minute)
			nameKey.Set(s, "too late")
			done <- s.Err()
		})
		check(t, "status", response.StatusCode, http.StatusServiceUnavailable)
		if err := <-done; !errors.Is(err, session.ErrClosed) {
			t.Errorf("error %v, want ErrClosed", err)
		}
		check(t, "name", nameOf(v), "x")
	})
}

// Rank 23. A Redis that is full still logs out, a replica still reads, nobody is taken for
// anonymous, and no command has two keys.
func TestSecurityDegradedRedis(t *testing.T) {
	client := redistest.Client(t)
	admin := redistest.Admin(t, client.Options().Addr)
	set := func(args ...any) {
		t.Helper()
		if err := admin.Do(t.Context(), args...).Err(); err != nil {
			t.Fatal(args, err)
		}
	}
	m := newManager(t, session.Options{Store: &session.RedisStore{Client: client}})
	v, leaving := newVisitor(m), newVisitor(m)
	v.get(setName("x"))
	leaving.get(setName("leaving"))

	set("CONFIG", "SET", "maxmemory", 1)
	check(t, "full: read", nameOf(v), "x")
	expectUnavailable(t, "full: write", v.post(setName("y")))
	expectUnavailable(t, "full: login", newVisitor(m).post(login("new")))
	check(t, "full: logout", leaving.post(logout).StatusCode, http.StatusOK)
	set("CONFIG", "SET", "maxmemory", 0)

	set("REPLICAOF", "127.0.0.1", 1)
	check(t, "replica: read", nameOf(v), "x")
	expectUnavailable(t, "replica: write", v.post(setName("y")))
	expectUnavailable(t, "replica: logout", v.copy().post(logout))
	set("CONFIG", "SET", "replica-serve-stale-data", "no")
	expectUnavailable(t, "MASTERDOWN: read", v.get(look))
	set("CONFIG", "SET", "replica-serve-stale-data", "yes")
	set("REPLICAOF", "NO", "ONE")
	check(t, "name afterwards", nameOf(v), "x")

	// A node of a Cluster refuses a command with keys of two slots.
	node := redistest.Admin(t, redistest.Start(t, "--cluster-enabled", "yes"))
	if err := node.ClusterAddSlotsRange(t.Context(), 0, 16383).Err(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the node serves its slots", func() bool { return node.Get(t.Context(), "x").Err() == redis.Nil })
	store := &session.RedisStore{Client: node}
	v = newVisitor(newManager(t, session.Options{Store: store}))
	for i, do := range []handler{setName("x"), count, renew, use(func(s *session.Session) { s.Save(); s.Reload(); s.SetMaxAge(time.Hour) }), login("y"), count, logout, setName("z")} {
		check(t, fmt.Sprintf("one node, step %d", i), v.post(do).StatusCode, http.StatusOK)
	}
	check(t, "name", nameOf(v), "z")
	if err := newManager(t, session.Options{Store: store}).Clear(t.Context()); err != nil {
		t.Errorf("Clear: %v", err)
	}
	check(t, "keys after Clear", node.DBSize(t.Context()).Val(), 0)
}

// Rank 24. Requests at once on one session, goroutines of one request, and goroutines that
// outlive it, are safe (run with -race); nothing of theirs reaches another request; and no
// goroutine is left, which is why nothing has to be closed.
func TestSecurityParallelUseIsSafe(t *testing.T) {
	test := func(t *testing.T) {
		m := newManager(t, session.Options{})
		v, other := newVisitor(m), newVisitor(m)
		v.get(count)
		other.get(setName("other"))
		var wg sync.WaitGroup
		var kept []*session.Session
		var mu sync.Mutex
		for i := range 32 {
			wg.Go(func() {
				v.copy().get(use(func(s *session.Session) {
					mu.Lock()
					kept = append(kept, s)
					mu.Unlock()
					var inner sync.WaitGroup
					for range 4 {
						inner.Go(func() {
							counterKey.Update(s, increment)
							session.Key[int](fmt.Sprint(i)).Set(s, i)
							s.Keys()
							s.Err()
							if i%8 == 0 {
								s.Save()
							}
						})
					}
					inner.Wait()
				}))
			})
		}
		wg.Wait()
		check(t, "counter", counterOf(v), 1+32*4)
		for _, s := range kept {
			wg.Go(func() { nameKey.Set(s, "late"); s.Renew(0); s.Destroy() })
		}
		for range 32 {
			wg.Go(func() { check(t, "another's name", nameOf(other), "other") })
		}
		wg.Wait()
		for _, s := range kept {
			if !errors.Is(s.Err(), session.ErrClosed) {
				t.Errorf("error %v, want ErrClosed", s.Err())
			}
		}
		check(t, "counter after late calls", counterOf(v), 1+32*4)

		for range 50 { // a second logout is a logout too
			wg.Go(func() { check(t, "logout", v.copy().post(logout).StatusCode, http.StatusOK) })
		}
		wg.Wait()
		check(t, "counter after the logout", counterOf(v), 0)
	}
	test(t)
	inBubble(t, test) // which fails if a goroutine is left
}

// Rank 25. All sessions of one user end, also while logins run: those that began before the
// change of the credential open nothing, wherever the list was when they were stored. And
// the cookie that deletes names the same cookie as the one that it deletes.
func TestSecurityEndAllSessionsOfAUser(t *testing.T) {
	const versionKey session.Key[int64] = "credentialVersion"
	forEachStore(t, func(t *testing.T, store session.Store) {
		m := newManager(t, session.Options{Store: store, StoreTimeout: time.Minute})
		var version atomic.Int64 // of ada's password, in the application's database
		login := func(name string) (v *visitor, began int64) {
			v = newVisitor(m)
			v.post(use(func(s *session.Session) {
				began = version.Load() // as of when the password was checked
				runtime.Gosched()
				s.Regenerate()
				nameKey.Set(s, name)
				versionKey.Set(s, began)
			}))
			return v, began
		}
		user := func(v *visitor) (name string) { // what every request asks
			v.copy().get(use(func(s *session.Session) {
				if name = nameKey.Get(s); name == "ada" && versionKey.Get(s) != version.Load() {
					name = ""
				}
			}))
			return name
		}
		bob, _ := login("bob")
		early, _ := login("ada")
		type result struct {
			v     *visitor
			began int64
		}
		var mu sync.Mutex
		var results []result
		var wg sync.WaitGroup
		for range 8 {
			wg.Go(func() {
				for range 20 {
					v, began := login("ada")
					mu.Lock()
					results = append(results, result{v, began})
					mu.Unlock()
				}
			})
		}
		version.Add(1)
		for s, err := range m.All(t.Context()) {
			if err == nil && nameKey.Get(s) == "ada" && versionKey.Get(s) != version.Load() {
				err = m.Destroy(t.Context(), s.ID())
			}
			if err != nil {
				t.Error(err)
			}
		}
		check(t, "the record of a session that was there", nameOf(early), "")
		wg.Wait()
		for _, r := range results {
			want := ""
			if r.began == 1 {
				want = "ada"
			}
			check(t, fmt.Sprintf("a login that began with version %d", r.began), user(r.v), want)
		}
		check(t, "another user", user(bob), "bob")

		if err := m.Clear(t.Context()); err != nil { // all users
			t.Fatal(err)
		}
		check(t, "another user after Clear", user(bob), "")
	})
	for _, cookie := range []session.Cookie{{}, {Name: "__Secure-sid", Path: "/app", Domain: "example.com", SameSite: http.SameSiteNoneMode, Partitioned: true}} {
		v := newVisitor(newManager(t, session.Options{Cookie: cookie}))
		identity := func(response *http.Response) string {
			c := response.Cookies()[0]
			return fmt.Sprint(c.Name, c.Path, c.Domain, c.Partitioned, c.Secure)
		}
		sent := identity(v.get(setName("x")))
		response := v.post(logout)
		check(t, "what is deleted", identity(response), sent)
		if c := response.Cookies()[0]; c.MaxAge >= 0 || c.Value != "" || !c.Expires.Before(time.Now()) {
			t.Errorf("it does not delete: %v", c)
		}
	}
}
