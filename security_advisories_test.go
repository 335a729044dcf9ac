package session_test

import (
	"context"
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"net/url"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/seed-4f96e14b/session"
	"github.com/seed-4f96e14b/session/internal/testing/redistest"
)

// What went wrong in other libraries, and in the requirements and faults of
// docs/security.md, where no other test has it.

// The id comes in the cookie alone: not in the address, a form or another header.
func TestOnlyTheCookieIsRead(t *testing.T) {
	sp := &spy{Store: new(session.MemoryStore)}
	m := newManager(t, session.Options{Store: sp})
	v := newVisitor(m)
	v.get(setName("x"))
	cookie, handle := v.jar[sid], sp.keys[0]
	for _, id := range []string{cookie, handle} {
		for name, prepare := range map[string]func(r *http.Request){
			"query": func(r *http.Request) {
				r.URL.RawQuery = url.Values{sid: {id}, "sid": {id}, "session_id": {id}, "jsessionid": {id}}.Encode()
			},
			"path": func(r *http.Request) { r.URL.Path = "/;jsessionid=" + id + ";" + sid + "=" + id },
			"form": func(r *http.Request) {
				body := url.Values{sid: {id}, "sid": {id}}.Encode()
				r.Body, r.ContentLength = io.NopCloser(strings.NewReader(body)), int64(len(body))
				r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
			},
			"bearer":    func(r *http.Request) { r.Header.Set("Authorization", "Bearer "+id) },
			"basic":     func(r *http.Request) { r.SetBasicAuth(sid, id) },
			"header":    func(r *http.Request) { r.Header.Set("X-Session", id); r.Header.Set(sid, id) },
			"Cookie2":   func(r *http.Request) { r.Header.Set("Cookie2", sid+"="+id) },
			"setcookie": func(r *http.Request) { r.Header.Set("Set-Cookie", sid+"="+id) },
		} {
			sp.took()
			response := newVisitor(m).send(http.MethodPost, use(func(s *session.Session) { check(t, name, nameKey.Get(s), "") }), prepare)
			check(t, name+": calls", took(sp, response), "")
		}
	}
}

// A thousand logins and logouts leave a browser with one cookie at most, so no Cookie
// header ever grows too long for a server.
func TestLoginsLeaveOneCookie(t *testing.T) {
	for _, cookie := range []session.Cookie{{MaxAge: time.Hour}, {Name: "__Secure-sid", Path: "/app", Domain: "example.com"}} {
		server := newManager(t, session.Options{Cookie: cookie}).Handler(app)
		jar, err := cookiejar.New(nil)
		if err != nil {
			t.Fatal(err)
		}
		page, _ := url.Parse("https://www.example.com/app/page")
		request := func(do handler) int {
			r := newRequest(page.String())
			r = r.WithContext(context.WithValue(r.Context(), handlerKey{}, do))
			for _, c := range jar.Cookies(page) {
				r.AddCookie(c)
			}
			w := httptest.NewRecorder()
			server.ServeHTTP(w, r)
			jar.SetCookies(page, w.Result().Cookies())
			return len(jar.Cookies(page))
		}
		for range 1000 {
			check(t, "cookies after a login", request(login("x")), 1)
			check(t, "cookies after a logout", request(logout), 0)
		}
	}
}

// What a proxy says, or somebody in its name, changes no cookie.
func TestForwardedHeadersChangeNothing(t *testing.T) {
	m := newManager(t, session.Options{Cookie: session.Cookie{MaxAge: time.Hour}})
	attributes := func(name, value string) string {
		response := newVisitor(m).send(http.MethodPost, setName("x"), func(r *http.Request) {
			if name != "" {
				r.Header.Set(name, value)
			}
		})
		_, attributes, _ := strings.Cut(cookies(response)[0], ";")
		return attributes
	}
	want := attributes("", "")
	for _, header := range [][2]string{
		{"X-Forwarded-Proto", "http"}, {"X-Forwarded-Proto", "https"}, {"X-Forwarded-Proto", "http\r\nSet-Cookie: a=b"}, {"X-Forwarded-Host", "evil.example"}, {"Forwarded", "proto=http;host=evil.example"},
		{"X-Forwarded-Prefix", "/evil"}, {"Front-End-Https", "off"}, {"X-Forwarded-Ssl", "off"}, {"X-Url-Scheme", "http"},
	} {
		check(t, header[0]+": "+header[1], attributes(header[0], header[1]), want)
	}
}

// The header of the handler stays as it is, byte for byte; ours is added.
func TestHeadersOfTheHandlerStay(t *testing.T) {
	theirs := http.Header{
		"Set-Cookie": {"a=1; Path=/", "b=2; Path=/x", "a=3"}, "Link": {"</a>; rel=preload", "</b>; rel=preload", ""},
		"X-Many": {"1", "2", "2"}, "x-lower": {"kept"}, "Www-Authenticate": {`Basic realm="a, b"`, "Bearer"}, "Vary": {"Accept", "Origin, Accept-Encoding"},
	}
	for name, do := range map[string]handler{"saved": setName("x"), "read": look, "ended": logout} {
		v := newVisitor(newManager(t, session.Options{}))
		v.get(setName("before"))
		ours := len(cookies(v.copy().get(do)))
		v.get(setName("before"))
		response := v.get(func(w http.ResponseWriter, r *http.Request) {
			for key, values := range theirs {
				w.Header()[key] = slices.Clone(values)
			}
			do(w, r)
		})
		for key, values := range theirs {
			got := response.Header[key]
			if added := map[string]int{"Set-Cookie": ours, "Vary": 1}[key]; len(got) != len(values)+added || !slices.Equal(got[:len(values)], values) {
				t.Errorf("%s: %s is %q, and was %q", name, key, got, values)
			}
		}
	}
}

// Nothing of a request gets into the log, where it could look like a line of it.
func TestLogHasNoBytesOfTheClient(t *testing.T) {
	var book logBook
	sp := &spy{Store: new(session.MemoryStore)}
	m := newManager(t, session.Options{Store: sp, Logger: book.logger()})
	v := newVisitor(m)
	v.get(setName("x"))
	const forged = "\r\ntime=2026-01-01 level=ERROR msg=\"admin logged in\"\x1b[2J\x00\u2028"
	send := func(failing bool) {
		lines := book.lines()
		if failing {
			sp.onceOn("L", down)
		}
		v.copy().send(http.MethodPost, look, func(r *http.Request) {
			r.Header["Cookie"] = []string{sid + "=" + v.jar[sid] + "; a=" + forged, sid + "=" + forged, forged}
			r.URL.Path, r.URL.RawQuery, r.Host = "/"+forged, forged, forged
			r.Header["X-Forwarded-Proto"] = []string{forged}
			r.Header["User-Agent"] = []string{forged}
		})
		check(t, "lines", book.lines()-lines, map[bool]int{false: 0, true: 1}[failing])
	}
	send(false)
	send(true)
	if text := book.String(); strings.ContainsAny(text, "\r\x1b\x00\u2028") || strings.Contains(text, "admin logged in") {
		t.Errorf("the log: %q", text)
	}
}

// A logout that goes on to an error page, or to a panic, is a logout, and the browser
// forgets its cookie where a response is sent.
func TestLogoutThenError(t *testing.T) {
	for name, rest := range map[string]func(w http.ResponseWriter, s *session.Session){
		"error page":      func(w http.ResponseWriter, _ *session.Session) { w.WriteHeader(http.StatusInternalServerError) },
		"forbidden":       func(w http.ResponseWriter, _ *session.Session) { http.Error(w, "no", http.StatusForbidden) },
		"empty after it":  func(_ http.ResponseWriter, s *session.Session) { nameKey.Set(s, "y"); nameKey.Delete(s) },
		"a second logout": func(_ http.ResponseWriter, s *session.Session) { s.Destroy() },
	} {
		v := newVisitor(newManager(t, session.Options{}))
		v.get(setName("x"))
		old := v.copy()
		v.post(func(w http.ResponseWriter, r *http.Request) {
			s := session.From(r.Context())
			s.Destroy()
			rest(w, s)
		})
		check(t, name+": cookies that are left", len(v.jar), 0)
		check(t, name+": name", nameOf(old), "")
	}
	v := newVisitor(newManager(t, session.Options{}))
	v.get(setName("x"))
	func() {
		defer func() { recover() }()
		v.post(use(func(s *session.Session) { s.Destroy(); panic("a bug") }))
	}()
	check(t, "name after a panic", nameOf(v), "")
}

// A process that dies in the middle of a login leaves two whole sessions, the old one as it
// was, and both end by themselves.
func TestCrashDuringALogin(t *testing.T) {
	client := redistest.Client(t, redistest.ListRights)
	admin := redistest.Admin(t, client.Options().Addr)
	store := &session.RedisStore{Client: client}
	sp := &spy{Store: store}
	v := newVisitor(newManager(t, session.Options{Store: sp, StoreTimeout: time.Minute}))
	v.get(setName("x"))
	crashed := make(chan struct{})
	defer close(crashed)
	reached := make(chan struct{})
	sp.onceOn("D", func() error { close(reached); <-crashed; return errDown })
	dying := v.copy()
	go dying.post(login("y"))
	<-reached

	restarted := newManager(t, session.Options{Store: store})
	v.server = restarted.Handler(app)
	check(t, "the old session", nameOf(v), "x")
	var names []string
	for s, err := range restarted.All(t.Context()) {
		if err != nil {
			t.Fatal(err)
		}
		names = append(names, nameKey.Get(s))
	}
	slices.Sort(names)
	check(t, "sessions", names, []string{"x", "y"})
	for _, key := range admin.Keys(t.Context(), "*").Val() {
		if ttl := admin.PTTL(t.Context(), key).Val(); ttl <= 0 {
			t.Errorf("a key lives %v", ttl)
		}
	}
	check(t, "the next login", v.post(login("z")).StatusCode, http.StatusOK)
	check(t, "name", nameOf(v), "z")
}

// An id from a list of sessions that a client sends back names a session of this manager,
// or nothing: no path, no pattern, no key of another program, and no other manager's session.
func TestHostileIDs(t *testing.T) {
	client := redistest.Client(t, redistest.ListRights)
	m := newManager(t, session.Options{Store: &session.RedisStore{Client: client}})
	admins := newManager(t, session.Options{Store: &session.RedisStore{Client: client, Prefix: "sess:admin:"}})
	admin := newVisitor(admins)
	var adminID string
	admin.get(use(func(s *session.Session) { nameKey.Set(s, "admin"); adminID = s.ID() }))
	client.Set(t.Context(), "sess:cache", "of another program", time.Hour)
	v := newVisitor(m)
	v.get(setName("x"))
	for _, id := range []string{
		"", "*", "cache", "admin:" + adminID, "../" + adminID, adminID + "\x00", strings.Repeat("A", 21), strings.Repeat("A", 22) + "=", strings.Repeat("A", 21) + "B",
		strings.Repeat("A", 1<<20), v.jar[sid], "\r\nDEL sess:cache\r\n", "{a}",
	} {
		if _, err := m.Load(t.Context(), id); !errors.Is(err, session.ErrNotFound) {
			t.Errorf("Load(%.40q): error %v, want ErrNotFound", id, err)
		}
		if err := m.Destroy(t.Context(), id); err != nil {
			t.Errorf("Destroy(%.40q): %v", id, err)
		}
	}
	check(t, "the admin", nameOf(admin), "admin")
	check(t, "another program's key", client.Get(t.Context(), "sess:cache").Val(), "of another program")
	check(t, "name", nameOf(v), "x")
	for s, err := range m.All(t.Context()) {
		if err != nil {
			t.Fatal(err)
		}
		check(t, "a session in the list", nameKey.Get(s), "x")
	}
}

// A relic is a session as the store has it, made in another bubble: at another time.
type relic struct {
	cookie, key string
	record      []byte
}

func madeAfter(t *testing.T, wait time.Duration, options session.Options) (r relic) {
	inBubble(t, func(t *testing.T) {
		time.Sleep(wait)
		sp := &spy{Store: new(session.MemoryStore)}
		options.Store = sp
		v := newVisitor(newManager(t, options))
		v.get(setName("x"))
		r = relic{v.jar[sid], sp.keys[0], sp.data[0]}
	})
	return r
}

// found returns the browser of a session that was made at another time.
func (r relic) found(t *testing.T, options session.Options, ttl time.Duration) *visitor {
	store := new(session.MemoryStore)
	if err := store.Create(t.Context(), r.key, r.record, ttl); err != nil {
		t.Fatal(err)
	}
	options.Store = store
	v := newVisitor(newManager(t, options))
	v.jar[sid] = r.cookie
	return v
}

// Clocks that differ, and clocks that jump, end a session early or by the difference later,
// and never make one that does not end.
func TestClockSkew(t *testing.T) {
	const year = 365 * 24 * time.Hour
	options := session.Options{IdleTimeout: 30 * time.Minute, AbsoluteTimeout: 24 * time.Hour}
	for name, jump := range map[string]time.Duration{"an hour": time.Hour, "10 years": 10 * year} {
		early, late := madeAfter(t, 0, options), madeAfter(t, jump, options)
		t.Run(name+" forward", func(t *testing.T) {
			inBubble(t, func(t *testing.T) {
				time.Sleep(jump)
				v := early.found(t, options, 2*jump)
				check(t, "name", nameOf(v), "")
				v.post(login("y"))
				check(t, "name after a login", nameOf(v), "y")
			})
		})
		t.Run(name+" back, unused", func(t *testing.T) {
			inBubble(t, func(t *testing.T) {
				v := late.found(t, options, 31*time.Minute)
				check(t, "name", nameOf(v), "x")
				time.Sleep(31 * time.Minute)
				check(t, "name when the store's time is over", nameOf(v), "")
			})
		})
		t.Run(name+" back, used all the time", func(t *testing.T) {
			inBubble(t, func(t *testing.T) {
				v := late.found(t, options, 31*time.Minute)
				began := time.Now()
				v.get(use(func(s *session.Session) { nameKey.Set(s, "y") }))
				v.get(use(func(s *session.Session) {
					if s.Created().After(time.Now()) || s.Expires().After(began.Add(options.IdleTimeout)) {
						t.Errorf("created %v, expires %v, now %v", s.Created(), s.Expires(), time.Now())
					}
				}))
				for nameOf(v) != "" && time.Since(began) < 2*options.AbsoluteTimeout {
					time.Sleep(10 * time.Minute)
					v.get(count)
				}
				if lived := time.Since(began); lived > options.AbsoluteTimeout {
					t.Errorf("it has lived for %v", lived)
				}
			})
		})
	}
}

// The state of a login with OAuth is kept across the way to the provider and back: in an
// anonymous session, once, and not beyond the login.
func TestOAuthStateSurvivesTheRedirect(t *testing.T) {
	const stateKey session.Key[string] = "state"
	v := newVisitor(newManager(t, session.Options{}))
	response := v.get(func(w http.ResponseWriter, r *http.Request) {
		stateKey.Set(session.From(r.Context()), "random")
		http.Redirect(w, r, "https://provider.example/authorize?state=random", http.StatusFound)
	})
	check(t, "a browser sends it with a link from another site", response.Cookies()[0].SameSite, http.SameSiteLaxMode)
	another := newVisitor(newManager(t, session.Options{}))
	callback := func(v *visitor) (state string) {
		v.get(use(func(s *session.Session) {
			state, _ = stateKey.Pop(s)
			s.Regenerate()
			nameKey.Set(s, "ada")
		}))
		return state
	}
	check(t, "state in another browser", callback(another), "")
	check(t, "state", callback(v), "random")
	check(t, "state the second time", callback(v), "")
}

// What there is of cryptography in the library, file by file: nothing of our own, no cipher,
// and no other source of randomness for what must not be guessed.
func TestCryptographyInUse(t *testing.T) {
	want := map[string][]string{
		"internal/native/cookie.go":  {"crypto/rand", "github.com/gorilla/securecookie"}, // ids, and HMAC-SHA-256 of cookies
		"internal/records/keeper.go": {"crypto/rand"},                                    // the name of a Manager in the records that it saves
		"internal/wire/record.go":    {"crypto/sha256"},                                  // digests of secrets
		"internal/wire/secrets.go":   {"crypto/subtle"},                                  // their comparison
		"internal/retry/retry.go":    {"math/rand/v2"},                                   // a pause between two attempts: no secret
		"options.go":                 {"crypto/rand"},                                    // a secret where there is none, in memory
		"store_redis.go":             {"crypto/sha1"},                                    // what EVALSHA calls a script: no secret
		"expressjs/cookie.go":        {"crypto/hmac", "crypto/rand", "crypto/sha256"},    // Express's signature and ids
		"expressjs/renew.go":         {"crypto/rand"},                                    // marks of renewals
		"storetest/cases.go":         {"math/rand/v2"},                                   // keys that no database can compress
	}
	got := make(map[string][]string)
	for _, dir := range []string{".", "internal/wire", "internal/retry", "internal/native", "internal/records", "expressjs", "storetest"} {
		files, _ := filepath.Glob(filepath.Join(dir, "*.go"))
		for _, name := range files {
			if strings.HasSuffix(name, "_test.go") {
				continue
			}
			file, err := parser.ParseFile(token.NewFileSet(), name, nil, parser.SkipObjectResolution)
			if err != nil {
				t.Fatal(err)
			}
			for _, spec := range file.Imports {
				path, _ := strconv.Unquote(spec.Path.Value)
				if strings.HasPrefix(path, "crypto") || strings.Contains(path, "rand") || strings.Contains(path, "securecookie") || strings.Contains(path, "uuid") || path == "encoding/gob" {
					got[name] = append(got[name], path)
				}
			}
			ast.Inspect(file, func(n ast.Node) bool { // securecookie with a second key would encrypt
				if call, ok := n.(*ast.CallExpr); ok {
					if f, ok := call.Fun.(*ast.SelectorExpr); ok && fmt.Sprint(f.X, f.Sel) == "securecookie New" {
						if key, ok := call.Args[1].(*ast.Ident); !ok || key.Name != "nil" {
							t.Errorf("%s: securecookie gets a key for encryption", name)
						}
					}
				}
				return true
			})
		}
	}
	check(t, "cryptography", got, want)
}
