package session_test

import (
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"net/http/httptrace"
	"net/textproto"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gorilla/securecookie"
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
