package session_test

import (
	"encoding/base64"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/gorilla/securecookie"
	"github.com/seed-4f96e14b/session"
)

// Every attribute, each time that a cookie is sent: on create, change, renew, roll
// and delete, and twice with one manager.
func TestCookieAttributes(t *testing.T) {
	tests := []struct {
		name    string
		cookie  session.Cookie
		want    string // NAME=VALUE and what stands before and after Max-Age
		maxAge  string
		browser bool // no Max-Age: sent on create and renew only
	}{
		{"zero value", session.Cookie{},
			"__Host-sid; Path=/|; HttpOnly; Secure; SameSite=Lax", "", true},
		{"max age", session.Cookie{MaxAge: time.Hour},
			"__Host-sid; Path=/|; HttpOnly; Secure; SameSite=Lax", "; Max-Age=3600", false},
		{"everything", session.Cookie{Name: "__Secure-x", MaxAge: time.Hour, Path: "/app", Domain: "example.com", SameSite: http.SameSiteNoneMode, Partitioned: true, Priority: "high"},
			"__Secure-x; Path=/app; Domain=example.com|; HttpOnly; Secure; SameSite=None; Partitioned; Priority=High", "; Max-Age=3600", false},
		{"insecure, for scripts, strict", session.Cookie{MaxAge: time.Hour, Insecure: true, ScriptAccess: true, SameSite: http.SameSiteStrictMode, Priority: "low"},
			"sid; Path=/|; SameSite=Strict; Priority=Low", "; Max-Age=3600", false},
		{"SameSite left to the browser", session.Cookie{SameSite: http.SameSiteDefaultMode},
			"__Host-sid; Path=/|; HttpOnly; Secure", "", true},
		{"domain", session.Cookie{Domain: "example.com", MaxAge: time.Hour, Priority: "medium"},
			"sid; Path=/; Domain=example.com|; HttpOnly; Secure; SameSite=Lax; Priority=Medium", "; Max-Age=3600", false},
		{"path", session.Cookie{Path: "/app", MaxAge: time.Hour},
			"sid; Path=/app|; HttpOnly; Secure; SameSite=Lax", "; Max-Age=3600", false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			inBubble(t, func(t *testing.T) {
				m := newManager(t, session.Options{Cookie: tt.cookie, IdleTimeout: time.Hour})
				rolling := newManager(t, session.Options{Cookie: tt.cookie, IdleTimeout: time.Hour, Rolling: true, Store: new(session.MemoryStore)})
				before, after, _ := strings.Cut(tt.want, "|")
				expect := func(what string, response *http.Response, sent bool) {
					t.Helper()
					var lines []string
					for _, line := range cookies(response) {
						name, rest, _ := strings.Cut(line, "=")
						_, rest, _ = strings.Cut(rest, ";")
						lines = append(lines, name+";"+rest)
					}
					want := []string{before + tt.maxAge + after}
					if !sent {
						want = nil
					}
					if !slices.Equal(lines, want) {
						t.Errorf("%s: got %q, want %q", what, lines, want)
					}
					if cache := response.Header.Get("Cache-Control"); (cache == "no-store") != sent {
						t.Errorf("%s: Cache-Control %q", what, cache)
					}
				}
				for range 2 {
					v := newVisitor(m)
					expect("create", v.get(setName("x")), true)
					expect("read", v.get(use(func(s *session.Session) { nameKey.Get(s) })), false)
					expect("change", v.get(setName("y")), !tt.browser)
					expect("renew", v.get(use(func(s *session.Session) { s.Renew(0) })), true)
					expect("regenerate", v.get(use(func(s *session.Session) { s.Regenerate() })), true)

					r := newVisitor(rolling)
					expect("create, rolling", r.get(setName("x")), true)
					time.Sleep(10 * time.Minute)
					expect("roll", r.get(untouched), true)

					response := v.get(use(func(s *session.Session) { s.Destroy() }))
					want := before + "; Expires=Thu, 01 Jan 1970 00:00:01 GMT; Max-Age=0" + after
					name, rest, _ := strings.Cut(want, ";")
					if got := cookies(response); !slices.Equal(got, []string{name + "=;" + rest}) {
						t.Errorf("delete: got %q, want %q", got, want)
					}
					check(t, "delete: Cache-Control", response.Header.Get("Cache-Control"), "no-store")
				}
			})
		})
	}
}

// The value is opaque: signed, of one length, without data.
func TestCookieValue(t *testing.T) {
	v := newVisitor(newManager(t, session.Options{}))
	v.get(setName("a private text"))
	value := v.jar["__Host-sid"]
	if len(value) > 128 || len("__Host-sid")+len(value) > 150 {
		t.Errorf("value of %d bytes", len(value))
	}
	plain, _ := base64.URLEncoding.DecodeString(value)
	if strings.Contains(string(plain), "private") {
		t.Error("the cookie holds data")
	}
	other := newVisitor(newManager(t, session.Options{Secrets: []string{secretB}}))
	other.get(setName("x"))
	if other.jar["__Host-sid"] == value {
		t.Error("two sessions with one cookie")
	}
}

// Whatever does not verify is anonymous: no store call, no error, no cookie, and
// the same response as without a cookie.
func TestBadCookies(t *testing.T) {
	sp := &spy{Store: new(session.MemoryStore)}
	m := newManager(t, session.Options{Store: sp})
	v := newVisitor(m)
	v.get(setName("x"))
	good := v.jar["__Host-sid"]

	foreignName := newVisitor(newManager(t, session.Options{Store: sp, Cookie: session.Cookie{Name: "__Host-other"}}))
	foreignName.get(setName("x"))
	foreignKey := newVisitor(newManager(t, session.Options{Store: sp, Secrets: []string{secretB}}))
	foreignKey.get(setName("x"))
	raw, _ := base64.URLEncoding.DecodeString(good)
	id := strings.SplitN(string(raw), "|", 3)[1]
	signed := func(value string, configure func(*securecookie.SecureCookie)) string {
		codec := securecookie.New([]byte(secretA), nil).SetSerializer(securecookie.NopEncoder{})
		configure(codec)
		encoded, err := codec.Encode("__Host-sid", []byte(value))
		if err != nil {
			t.Fatal(err)
		}
		return encoded
	}
	keep := func(*securecookie.SecureCookie) {}

	bad := map[string]string{
		"empty":                        "",
		"one byte":                     "A",
		"truncated":                    good[:len(good)-8],
		"extended":                     good + "AAAA",
		"oversized":                    strings.Repeat("A", 100_000),
		"of another name":              foreignName.jar["__Host-other"],
		"of another key":               foreignKey.jar["__Host-sid"],
		"the handle alone":             strings.TrimRight(id, "="),
		"not base64":                   strings.Repeat("!", len(good)),
		"Express's":                    "s%3Aabc.D8Y%2BpkTAmeR0PobOhY4G97PRW",
		"signed by us, too short":      signed("short", keep),
		"signed by us, empty":          signed("", keep),
		"signed by us, too long":       signed(strings.Repeat("x", 64), keep),
		"signed by us, gob":            signed("x", func(c *securecookie.SecureCookie) { c.SetSerializer(anySerializer{}) }),
		"padding left out":             strings.TrimRight(good, "="),
		"standard alphabet":            "+/" + good[2:],
		"with a line break":            good[:60] + "\n" + good[60:],
		"quoted":                       `"` + good + `"`,
		"path":                         "../../etc/passwd",
		"other spelling of the letter": respell(good),
	}
	for i := range good {
		b := []byte(good)
		b[i] ^= 1
		bad[fmt.Sprintf("bit flipped in byte %d", i)] = string(b)
	}
	sp.took()
	want := summary(v.copy().send("GET", use(func(s *session.Session) { nameKey.Get(s) }), func(r *http.Request) { r.Header.Del("Cookie") }))
	for name, value := range bad {
		sp.took()
		response := newVisitor(m).send(http.MethodPost, use(func(s *session.Session) {
			if len(s.Keys()) > 0 || s.Err() != nil {
				t.Errorf("%s: keys %q, error %v", name, s.Keys(), s.Err())
			}
		}), func(r *http.Request) { r.Header.Set("Cookie", "__Host-sid="+value) })
		if got := took(sp, response); got != "" {
			t.Errorf("%s: calls %q, want none", name, got)
		}
		if got := summary(response); got != want {
			t.Errorf("%s: response %s, want %s", name, got, want)
		}
	}
	check(t, "the good one", nameOf(v), "x")
}

func summary(r *http.Response) string { return fmt.Sprint(r.StatusCode, r.Header) }

type anySerializer struct{ securecookie.GobEncoder }

// respell changes the bits of the last letter that lax base64 ignores.
func respell(value string) string {
	n := len(strings.TrimRight(value, "="))
	if n == len(value) {
		panic("no padding, no spare bits")
	}
	b := []byte(value)
	b[n-1]++
	return string(b)
}

// Several cookies of our name: the first that verifies wins.
func TestSeveralCookies(t *testing.T) {
	m := newManager(t, session.Options{})
	a, b := newVisitor(m), newVisitor(m)
	a.get(setName("a"))
	b.get(setName("b"))
	goodA, goodB := a.jar["__Host-sid"], b.jar["__Host-sid"]
	bad := strings.Repeat("A", len(goodA))
	for name, tt := range map[string]struct {
		values []string
		want   string
	}{
		"good":             {[]string{goodA}, "a"},
		"bad, good":        {[]string{bad, goodA}, "a"},
		"good, bad":        {[]string{goodA, bad}, "a"},
		"two good":         {[]string{goodB, goodA}, "b"},
		"empty, good":      {[]string{"", goodB}, "b"},
		"bad, bad":         {[]string{bad, bad}, ""},
		"thousands of bad": {append(slices.Repeat([]string{bad}, 2900), goodA), "a"},
	} {
		t.Run(name, func(t *testing.T) {
			newVisitor(m).send("GET", use(func(s *session.Session) {
				check(t, "name", nameKey.Get(s), tt.want)
			}), func(r *http.Request) {
				for _, value := range tt.values {
					r.AddCookie(&http.Cookie{Name: "__Host-sid", Value: value})
				}
			})
		})
	}
	// The name is compared to the letter; no other spelling is ours.
	for _, name := range []string{"__host-sid", "__HOST-SID", "%5F_Host-sid", "Host-sid", "__Host-sid2"} {
		newVisitor(m).send("GET", use(func(s *session.Session) {
			check(t, name, nameKey.Get(s), "")
		}), func(r *http.Request) { r.Header.Set("Cookie", name+"="+goodA) })
	}
}

// A browser brings two cookies where the Domain or Path of the option has changed: of the
// one left behind no logout rids it, because it cannot be named any more. It must not hide
// the session of the other, and a logout or a login ends the sessions of both.
func TestCookieLeftBehind(t *testing.T) {
	for name, tt := range map[string]struct {
		behind func(v *visitor) // what became of the session of the first cookie
		want   string
		calls  string
	}{
		"alive":      {func(*visitor) {}, "first", "L"},
		"ended":      {func(v *visitor) { v.copy().get(destroy) }, "second", "L L"},
		"renewed":    {func(v *visitor) { v.copy().get(renew) }, "second", "L L"},
		"unreadable": {nil, "second", "L L"},
	} {
		t.Run(name, func(t *testing.T) {
			memory := new(session.MemoryStore)
			sp := &spy{Store: memory}
			m := newManager(t, session.Options{Store: sp})
			first, second := newVisitor(m), newVisitor(m)
			first.get(setName("first"))
			if tt.behind != nil {
				tt.behind(first)
			} else {
				memory.CompareAndSwap(t.Context(), sp.keys[0], sp.data[0], []byte("?"), time.Hour)
			}
			second.get(setName("second"))
			both := func(do handler) *http.Response {
				return newVisitor(m).send("POST", do, func(r *http.Request) {
					r.Header.Set("Cookie", "__Host-sid="+first.jar["__Host-sid"]+"; __Host-sid="+second.jar["__Host-sid"])
				})
			}
			sp.took()
			both(use(func(s *session.Session) { check(t, "name", nameKey.Get(s), tt.want) }))
			check(t, "calls", sp.took(), tt.calls)
			both(use(func(s *session.Session) { counterKey.Update(s, increment) }))
			if tt.want == "second" {
				check(t, "counter", counterOf(second), 1)
			}

			sp.onceOn("L", down)
			expectUnavailable(t, "the store is down", both(look))
			sp.works()

			end := map[string]handler{"logout": destroy, "login": use(func(s *session.Session) { s.Regenerate(); nameKey.Set(s, "new") })}
			for what, do := range end {
				second.post(setName("second"))
				first.post(setName("first"))
				check(t, what, both(do).StatusCode, http.StatusOK)
				check(t, what+": the session of the first cookie", nameOf(first), "")
				check(t, what+": that of the second", nameOf(second), "")
			}
		})
	}
}

// A rolling deploy: the new secret verifies first, then signs; nobody is logged out,
// and cookies are signed anew when they are next sent, at the latest when the
// deadline moves.
func TestSecretRotation(t *testing.T) {
	for name, cookie := range map[string]session.Cookie{
		"with max age":              {MaxAge: time.Hour},
		"until the browser closes":  {},
		"until it closes, insecure": {Insecure: true},
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(t *testing.T) {
				store := new(session.MemoryStore)
				manager := func(secrets ...string) http.Handler {
					return newManager(t, session.Options{Store: store, Secrets: secrets, Cookie: cookie, IdleTimeout: time.Hour}).Handler(app)
				}
				v := newVisitor(newManager(t, session.Options{Store: store, Cookie: cookie, IdleTimeout: time.Hour}))
				v.get(setName("x"))
				v.server = manager(secretA, secretB)
				check(t, "new secret known", nameOf(v), "x")
				v.server = manager(secretB, secretA)
				if response := v.get(use(func(s *session.Session) { nameKey.Get(s) })); len(cookies(response)) > 0 {
					t.Errorf("a read before the deadline is due sent %q", cookies(response))
				}
				time.Sleep(10 * time.Minute)
				v.get(use(func(s *session.Session) { check(t, "new secret signs", nameKey.Get(s), "x") }))
				v.server = manager(secretB)
				check(t, "old secret removed", nameOf(v), "x")
				v.server = manager(secretA)
				check(t, "new secret unknown", nameOf(v), "")
			})
		})
	}
	t.Run("when the deadline can move no more", func(t *testing.T) {
		inBubble(t, func(t *testing.T) {
			options := session.Options{Store: new(session.MemoryStore), Cookie: session.Cookie{MaxAge: 30 * 24 * time.Hour}}
			v := newVisitor(newManager(t, options))
			v.get(setName("x"))
			time.Sleep(36 * time.Hour)
			options.Secrets = []string{secretB, secretA}
			v.server = newManager(t, options).Handler(app)
			v.get(use(func(s *session.Session) { nameKey.Get(s) }))
			options.Secrets = []string{secretB}
			v.server = newManager(t, options).Handler(app)
			check(t, "name", nameOf(v), "x")
		})
	})
	t.Run("after a look that came too late for a cookie", func(t *testing.T) {
		inBubble(t, func(t *testing.T) {
			options := session.Options{Store: new(session.MemoryStore), IdleTimeout: time.Hour}
			v := newVisitor(newManager(t, options))
			v.get(setName("x"))
			options.Secrets = []string{secretB, secretA}
			v.server = newManager(t, options).Handler(app)
			time.Sleep(10 * time.Minute)
			v.get(func(w http.ResponseWriter, r *http.Request) {
				io.WriteString(w, "the header leaves")
				nameKey.Get(session.From(r.Context()))
			})
			if response := v.get(use(func(s *session.Session) { nameKey.Get(s) })); len(cookies(response)) != 1 {
				t.Errorf("the next request sent %q, want the cookie", cookies(response))
			}
		})
	})
	t.Run("on a change", func(t *testing.T) {
		store := new(session.MemoryStore)
		v := newVisitor(newManager(t, session.Options{Store: store}))
		v.get(setName("x"))
		v.server = newManager(t, session.Options{Store: store, Secrets: []string{secretB, secretA}}).Handler(app)
		v.get(setName("y"))
		v.server = newManager(t, session.Options{Store: store, Secrets: []string{secretB}}).Handler(app)
		check(t, "name", nameOf(v), "y")
	})
}

// securecookie refuses cookies after 30 days by itself; a session that lives longer
// must not end by that.
func TestOldSignature(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		v := newVisitor(newManager(t, session.Options{IdleTimeout: 20 * 24 * time.Hour, AbsoluteTimeout: 90 * 24 * time.Hour}))
		v.get(setName("x"))
		for range 8 {
			time.Sleep(10 * 24 * time.Hour)
			check(t, "name", nameOf(v), "x")
		}
	})
}

// The cookie's life ends with the session's.
func TestMaxAgeNearTheAbsoluteTimeout(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		v := newVisitor(newManager(t, session.Options{Cookie: session.Cookie{MaxAge: 10 * time.Hour}, AbsoluteTimeout: 24 * time.Hour}))
		check(t, "at first", v.get(setName("x")).Cookies()[0].MaxAge, 10*3600)
		time.Sleep(9 * time.Hour)
		v.get(setName("y"))
		time.Sleep(9 * time.Hour)
		check(t, "six hours before the end", v.get(setName("z")).Cookies()[0].MaxAge, 6*3600)
	})
}

// Vary: Cookie says that the session was looked at; an untouched request, or one
// that only passes by, gets no header of ours.
func TestCacheHeaders(t *testing.T) {
	looks := map[string]func(s *session.Session){
		"Get":        func(s *session.Session) { nameKey.Get(s) },
		"Lookup":     func(s *session.Session) { nameKey.Lookup(s) },
		"Has":        func(s *session.Session) { nameKey.Has(s) },
		"Pop":        func(s *session.Session) { counterKey.Pop(s) },
		"Set":        func(s *session.Session) { nameKey.Set(s, "x") },
		"Update":     func(s *session.Session) { counterKey.Update(s, increment) },
		"Delete":     func(s *session.Session) { counterKey.Delete(s) },
		"Keys":       func(s *session.Session) { s.Keys() },
		"ID":         func(s *session.Session) { s.ID() },
		"Created":    func(s *session.Session) { s.Created() },
		"Expires":    func(s *session.Session) { s.Expires() },
		"Touch":      func(s *session.Session) { s.Touch() },
		"Renew":      func(s *session.Session) { s.Renew(0) },
		"Regenerate": func(s *session.Session) { s.Regenerate() },
		"Destroy":    func(s *session.Session) { s.Destroy() },
		"Save":       func(s *session.Session) { s.Save() },
		"Reload":     func(s *session.Session) { s.Reload() },
		"SetMaxAge":  func(s *session.Session) { s.SetMaxAge(time.Hour) },
	}
	for name, look := range looks {
		v := newVisitor(newManager(t, session.Options{}))
		for range 2 { // anonymous, and perhaps not
			response := v.get(func(w http.ResponseWriter, r *http.Request) {
				w.Header().Set("Cache-Control", "public, max-age=60")
				w.Header().Set("Vary", "Accept-Encoding")
				look(session.From(r.Context()))
			})
			check(t, name+": Vary", response.Header.Values("Vary"), []string{"Accept-Encoding", "Cookie"})
			want := "public, max-age=60"
			if len(cookies(response)) > 0 {
				want = "no-store"
			}
			check(t, name+": Cache-Control", response.Header.Get("Cache-Control"), want)
		}
	}
	v := newVisitor(newManager(t, session.Options{}))
	v.get(setName("x"))
	for _, method := range []string{"GET", "POST"} {
		response := v.do(method, untouched)
		check(t, "untouched "+method, response.Header.Values("Vary"), nil)
		check(t, "untouched "+method, response.Header.Values("Cache-Control"), nil)
	}
	for _, vary := range []string{"cookie", "Accept, COOKIE", "*"} {
		response := v.get(func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Vary", vary)
			nameKey.Get(session.From(r.Context()))
		})
		check(t, "Vary that is there already", response.Header.Values("Vary"), []string{vary})
	}
}

// The handler's own cookies stay, and ours comes after them.
func TestCookiesOfTheHandler(t *testing.T) {
	response := newVisitor(newManager(t, session.Options{})).get(func(w http.ResponseWriter, r *http.Request) {
		nameKey.Set(session.From(r.Context()), "x")
		http.SetCookie(w, &http.Cookie{Name: "mine", Value: "1"})
	})
	if got := cookies(response); len(got) != 2 || got[0] != "mine=1" || !strings.HasPrefix(got[1], "__Host-sid=") {
		t.Errorf("got %q", got)
	}
}

// A secure cookie over plain HTTP gets one warning, unless the host is loopback or a
// proxy says that it ends TLS. Nothing else depends on that header.
func TestWarningForPlainHTTP(t *testing.T) {
	for name, tt := range map[string]struct {
		target, proto string
		insecure      bool
		want          int
	}{
		"plain":                  {"http://example.com/", "", false, 1},
		"plain, with a port":     {"http://example.com:8080/", "", false, 1},
		"proxy says http":        {"http://example.com/", "http", false, 1},
		"proxy says https":       {"http://example.com/", "https", false, 0},
		"two proxies":            {"http://example.com/", "HTTPS, http", false, 0},
		"TLS":                    {"https://example.com/", "", false, 0},
		"localhost":              {"http://localhost:8080/", "", false, 0},
		"subdomain of localhost": {"http://app.localhost/", "", false, 0},
		"IPv4 loopback":          {"http://127.0.0.2:8080/", "", false, 0},
		"IPv6 loopback":          {"http://[::1]:8080/", "", false, 0},
		"insecure by choice":     {"http://example.com/", "", true, 0},
	} {
		t.Run(name, func(t *testing.T) {
			var book logBook
			m := newManager(t, session.Options{Logger: book.logger(), Cookie: session.Cookie{Insecure: tt.insecure}})
			for range 3 {
				response := newVisitor(m).send("GET", setName("x"), func(r *http.Request) {
					sent := newRequest(tt.target)
					r.Host, r.TLS = sent.Host, sent.TLS
					r.Header.Set("X-Forwarded-Proto", tt.proto)
				})
				check(t, "cookies", len(cookies(response)), 1)
			}
			check(t, "warnings", strings.Count(book.String(), "plain HTTP"), tt.want)
		})
	}
}

// Whoever can set cookies for the domain, as a sibling subdomain where the name has no
// __Host-, hides nothing from a logout or a login: all sessions end whose cookies verify.
func TestEndsEverySessionThatIsPresented(t *testing.T) {
	forEachStore(t, func(t *testing.T, store session.Store) {
		m := newManager(t, session.Options{Store: store, Cookie: session.Cookie{Name: "sid"}})
		begin := func(name string) (cookie string, v *visitor) {
			v = newVisitor(m)
			v.get(setName(name))
			return v.jar["sid"], v
		}
		for what, others := range map[string]func() []string{
			"eight that are not signed": func() []string { return slices.Repeat([]string{"forged"}, 8) },
			"eight with a bad signature": func() []string {
				good, _ := begin("x")
				return slices.Repeat([]string{good[:len(good)-8] + "AAAAAAA="}, 8)
			},
			"two of somebody else": func() []string { a, _ := begin("eve"); b, _ := begin("eve"); return []string{a, b} },
			"fifty of somebody else": func() (all []string) {
				for range 50 {
					cookie, _ := begin("eve")
					all = append(all, cookie)
				}
				return all
			},
			"fifty that have ended": func() (all []string) {
				for range 50 {
					cookie, v := begin("eve")
					v.post(destroy)
					all = append(all, cookie)
				}
				return all
			},
		} {
			for how, end := range map[string]handler{
				"logout":                   destroy,
				"a look, then logout":      use(func(s *session.Session) { nameKey.Get(s); s.Destroy() }),
				"login":                    use(func(s *session.Session) { s.Regenerate(); nameKey.Set(s, "again") }),
				"a look, then login":       use(func(s *session.Session) { nameKey.Get(s); s.Regenerate(); nameKey.Set(s, "again") }),
				"logout, then set a flash": use(func(s *session.Session) { s.Destroy(); nameKey.Set(s, "goodbye") }),
			} {
				before := others()
				_, victim := begin("ada")
				response := newVisitor(m).send(http.MethodPost, end, func(r *http.Request) {
					for _, value := range append(before, victim.jar["sid"]) {
						r.AddCookie(&http.Cookie{Name: "sid", Value: value})
					}
				})
				check(t, what+", "+how+": status", response.StatusCode, http.StatusOK)
				check(t, what+", "+how+": the old cookie", nameOf(victim), "")
				for _, value := range before {
					other := newVisitor(m)
					other.jar["sid"] = value
					check(t, what+", "+how+": the other", nameOf(other), "")
				}
			}
		}
	})
}

// How many sessions are looked for is bounded: dead cookies in one request are no flood of calls.
func TestLooksAreBounded(t *testing.T) {
	sp := &spy{Store: new(session.MemoryStore)}
	m := newManager(t, session.Options{Store: sp})
	var dead []string
	for range 100 {
		v := newVisitor(m)
		v.get(setName("x"))
		dead = append(dead, v.jar["__Host-sid"])
		v.post(destroy)
	}
	sp.took()
	newVisitor(m).send(http.MethodGet, look, func(r *http.Request) {
		for _, value := range dead {
			r.AddCookie(&http.Cookie{Name: "__Host-sid", Value: value})
		}
	})
	check(t, "calls", sp.took(), "L L L L L L L L")
}
