package expressjs_test

import (
	"crypto/tls"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/seed-4f96e14b/session"
	"github.com/seed-4f96e14b/session/expressjs"
)

// cookieBehaviours are those of the cookie, its attributes and its lifetime.
func cookieBehaviours() []behaviour {
	return []behaviour{
		{"CI-4", timed(func(t *testing.T) {
			site := newSite(t)
			good := site.has(t, "found", expressRecord(time.Minute, time.Minute, `,"userId":"u1"`), time.Hour).jar["connect.sid"]
			for header, want := range map[string]string{
				"connect.sid=" + good:                          "u1",
				"connect.sid=s%3Astale.x; connect.sid=" + good: "u1",
				"a=1;connect.sid=" + good + " ;b=2":            "u1",
				`connect.sid="` + good + `"`:                   "u1",
				"Connect.Sid=" + good:                          "",
				"a=1, connect.sid=" + good:                     "",
			} {
				r := httptest.NewRequest("GET", "/", nil)
				r.Header.Set("Cookie", header)
				site.visitor().through(reads(t, site, want), r)
			}
			r := httptest.NewRequest("GET", "/", nil)
			r.Header["Cookie"] = []string{"a=1", "connect.sid=" + good}
			site.visitor().through(reads(t, site, "u1"), r)
		})},
		{"CO-7", timed(func(t *testing.T) {
			before := newSite(t, maxAge(time.Minute), func(o *expressjs.Options) { o.Cookie.SameSite = "lax" })
			b := before.visitor()
			b.get(setUser("u1"))
			after := openSite(t, before.store.Store, maxAge(time.Hour), func(o *expressjs.Options) { o.Cookie.SameSite, o.Cookie.ScriptAccess = "strict", true })
			b.site = after
			found := sent(t, b.get(setUser("u2")))
			expect(t, "of a session that was there", attributesOf(found), "; Path=/; Expires=+60; HttpOnly; SameSite=Lax")
			begun := sent(t, after.visitor().get(setUser("u3")))
			expect(t, "of a new one", attributesOf(begun), "; Path=/; Expires=+3600; SameSite=Strict")
		})},
		{"CO-8", func(t *testing.T) {
			for want, change := range map[string]func(*expressjs.Options){
				"Cookie.Priority": func(o *expressjs.Options) { o.Cookie.Priority = "urgent" },
				"Cookie.Domain":   func(o *expressjs.Options) { o.Cookie.Domain = "a b" },
				"Cookie.Path":     func(o *expressjs.Options) { o.Cookie.Path = "/a;b" },
				"Cookie.Name":     func(o *expressjs.Options) { o.Name = "a=b" },
				"Cookie.SameSite": func(o *expressjs.Options) { o.Cookie.SameSite = "auto" },
			} {
				refused(want, change)(t)
			}
		}},
		{"CO-10", func(t *testing.T) {
			refused("Partitioned", func(o *expressjs.Options) { o.Cookie.Partitioned = true })(t)
			refused("SameSite", func(o *expressjs.Options) { o.Cookie.SameSite = "none" })(t)
		}},
		{"CO-11", refused("__Host-", func(o *expressjs.Options) { o.Name = "__Host-sid" })},

		{"EXPI-1", timed(func(t *testing.T) {
			site := newSite(t, maxAge(time.Minute))
			b := site.visitor()
			expect(t, "cookie", attributesOf(sent(t, b.get(setUser("u1")))), "; Path=/; Expires=+60; HttpOnly")
			expect(t, "originalMaxAge", memberOf(t, site, b.sid(), "originalMaxAge"), "60000")
			expect(t, "expires", memberOf(t, site, b.sid(), "expires"), `"2026-01-01T00:01:00.000Z"`)
			refused("must be whole seconds", maxAge(1500*time.Millisecond))(t)
		})},
		{"EXPI-4", timed(func(t *testing.T) {
			site := newSite(t, maxAge(2*time.Second))
			b := site.visitor()
			b.get(setUser("u1"))
			for range 300 {
				b.get(readUser)
				time.Sleep(150*time.Millisecond + 333*time.Microsecond) // so that the deadline moves each time
			}
			expect(t, "originalMaxAge after 300 reads", memberOf(t, site, b.sid(), "originalMaxAge"), "2000")
		})},
		{"EXPI-6", timed(func(t *testing.T) {
			refused("it can be from 0", maxAge(-time.Second))(t)
			site := newSite(t, maxAge(0))
			b := site.visitor()
			expect(t, "cookie", attributesOf(sent(t, b.get(setUser("u1")))), "; Path=/; HttpOnly")
			expect(t, "user", b.user(), "u1")
		})},
		{"EXPI-8", timed(func(t *testing.T) {
			site := newSite(t, maxAge(3*time.Second))
			b := site.has(t, "found", expressRecord(3*time.Second, 3*time.Second, `,"userId":"u1"`), time.Hour) // as EXPIRE has made it
			time.Sleep(4 * time.Second)
			expect(t, "user a second after expires", b.user(), "u1")
		})},
		{"EXPI-9", timed(func(t *testing.T) {
			site := newSite(t, maxAge(time.Minute), rolling)
			b := site.has(t, "found", expressRecord(time.Minute, time.Minute, `,"userId":"u1"`), time.Hour)
			time.Sleep(80 * time.Second)
			b.get(func(s *session.Session) {
				setUser("u2")(s)
				if err := s.Save(); err != nil {
					t.Error(err)
				}
			})
			expect(t, "user", b.user(), "u2")
			expect(t, "ttl", site.store.ttl, time.Minute)
		})},

		{"PX-01", overHTTP("https", false, false)},
		{"PX-02", overHTTP("https,http", false, false)},
		{"PX-03", overHTTP("", false, true)},
		{"PX-06", overHTTP("", false, true)},
		{"CS-01", overHTTP("", true, false)},
		{"CS-02", overHTTP("", false, true)},
		{"SEC-1", overHTTP("http", true, false)},
		{"SEC-4", func(t *testing.T) {
			for proto, warned := range map[string]bool{"HTTPS": false, " https ": false, "https, http": false, "wss": true, "https;x": true, "http, https": true} {
				t.Run(proto, overHTTP(proto, false, warned))
			}
		}},

		{"PA-01", timed(onPath("http://localhost/"))},
		{"PA-02", timed(onPath("http://foo.bar/"))},
		{"PA-03", timed(onPath("http://localhost/foo/bar/baz"))},
		{"PA-04", timed(onPath("http://localhost/foo/bar/baz/qux"))},
		{"PA-05", func(t *testing.T) { mounted(t, "/foo/bar") }},
		{"PA-06", func(t *testing.T) { mounted(t, "/foo/foo/bar") }},

		{"GI-02", func(t *testing.T) {
			newSite(t).visitor().get(func(s *session.Session) {
				if id := s.ID(); len(id) != 32 || strings.Trim(id, base64url) != "" {
					t.Errorf("the id is %q", id)
				}
			})
		}},
		{"GI-03", foreignID("apple", "s%3Aapple.D8Y%2BpkTAmeR0PobOhY4G97PRW%2Bj7bUnP%2F5m6%2FOn1MCU")},
		{"GI-04", foreignID("%", "s%3A%25.kzQ6x52kKVdF35Qh62AWk4ZekS28K5XYCXKa%2FOTZ01g")},
		{"GI-05", foreignID("/foo", "s%3A%2Ffoo.paEKBtAHbV5s1IB8B2zPnzAgYmmnRPIqObW4VRYj%2FMQ")},
		{"NM-01", func(t *testing.T) {
			expect(t, "name", newSite(t).visitor().get(setUser("u1")).Cookies()[0].Name, "connect.sid")
		}},
		{"NM-02", func(t *testing.T) {
			site := newSite(t, func(o *expressjs.Options) { o.Name = "session_id" })
			b := site.visitor()
			expect(t, "name", b.get(setUser("u1")).Cookies()[0].Name, "session_id")
			expect(t, "user", b.user(), "u1")
		}},

		{"RO-02", timed(func(t *testing.T) {
			site := newSite(t, rolling, maxAge(time.Minute))
			b := site.visitor()
			b.get(setUser("u1"))
			for _, step := range []struct {
				wait time.Duration
				want string
			}{{0, "L"}, {2 * time.Second, "L"}, {time.Second, "L S old+60"}, {2 * time.Second, "L"}, {50 * time.Second, "L S old+60"}} {
				time.Sleep(step.wait)
				site.store.took()
				expect(t, fmt.Sprint("after another ", step.wait), traced(t, site, b.get(doNothing), b.sid()), step.want)
			}
		})},
		{"RO-04", timed(func(t *testing.T) {
			site := newSite(t, rolling, saveUninitialized, maxAge(time.Minute))
			expect(t, "untouched", traced(t, site, site.visitor().get(doNothing), ""), "C new+60")
		})},

		{"SE-01", refused("Secrets is empty", func(o *expressjs.Options) { o.Secrets = []string{} })},
		{"SE-02", rotated([]string{siteSecret}, []string{siteSecret}, "u1")},
		{"SE-03", rotated([]string{"\x00\xff\x80 bytes that are no UTF-8, really"}, []string{"\x00\xff\x80 bytes that are no UTF-8, really"}, "u1")},
		{"SE-04", rotated([]string{siteSecret, siteOther}, []string{siteSecret, siteOther}, "u1")},
		{"SE-05", rotated([]string{siteSecret, siteOther}, []string{siteOther}, "")},
		{"SE-06", rotated([]string{siteOther}, []string{siteSecret, siteOther}, "u1")},
		{"INT-12", timed(func(t *testing.T) {
			for left, want := range map[time.Duration]string{time.Minute: "L", 30 * time.Second: "L S old+60"} {
				site := newSite(t, secrets(siteOther, siteSecret), maxAge(time.Minute)) // siteSecret is the old one
				b := site.has(t, "found", expressRecord(time.Minute, left, `,"userId":"u1"`), time.Hour)
				response := b.get(readUser)
				expect(t, fmt.Sprint(left, " before the end"), traced(t, site, response, "found"), want)
				if c := sent(t, response); c != nil {
					expect(t, "signed anew", c.Value, signature("found", siteOther))
				}
			}
		})},
		{"INT-13", func(t *testing.T) {
			site := newSite(t)
			b := site.visitor()
			b.get(setUser("u1"))
			for what, change := range map[string]func(*expressjs.Options){
				"name": func(o *expressjs.Options) { o.Name = "sid" }, "secret": secrets(siteOther),
			} {
				b.site = openSite(t, site.store.Store, change)
				expect(t, "user with another "+what, b.user(), "")
			}
		}},

		{"CA-02", timed(sends("; Path=/; HttpOnly", nil))},
		{"CA-03", timed(func(t *testing.T) {
			b := newSite(t).visitor()
			expect(t, "with the first response", sent(t, b.get(setUser("u1"))) != nil, true)
			expect(t, "with a later one", sent(t, b.get(setUser("u2"))) == nil, true)
		})},
		{"CA-04", timed(sends("; Path=/admin; Expires=+5; Secure; Priority=High", func(o *expressjs.Options) {
			o.Cookie.ScriptAccess, o.Cookie.MaxAge, o.Cookie.Path, o.Cookie.Priority, o.Cookie.Secure = true, 5*time.Second, "/admin", "high", true
		}))},
		{"CA-06", timed(func(t *testing.T) {
			response := newSite(t).visitor().visit("GET", "/", func(w http.ResponseWriter, r *http.Request) {
				setUser("u1")(session.From(r.Context()))
				http.SetCookie(w, &http.Cookie{Name: "mine", Value: "1"})
			})
			var names []string
			for _, c := range response.Cookies() {
				names = append(names, c.Name)
			}
			expect(t, "cookies", strings.Join(names, " "), "mine connect.sid")
		})},
		{"CA-07", timed(func(t *testing.T) {
			response := newSite(t).visitor().visit("GET", "/", func(w http.ResponseWriter, r *http.Request) {
				setUser("u1")(session.From(r.Context()))
				w.Header()["Set-Cookie"] = []string{"a=1", "b=2"}
				w.WriteHeader(http.StatusNoContent)
			})
			expect(t, "cookies", len(response.Cookies()), 3)
		})},
		{"OM-01", timed(func(t *testing.T) {
			site := newSite(t, maxAge(2*time.Second))
			b := site.visitor()
			b.get(setUser("u1"))
			expect(t, "originalMaxAge", memberOf(t, site, b.sid(), "originalMaxAge"), "2000")
		})},
		{"OM-02", timed(func(t *testing.T) {
			site := newSite(t, maxAge(2*time.Second))
			b := site.visitor()
			for range 3000 {
				b.get(func(s *session.Session) { nKey.Update(s, next) })
				time.Sleep(time.Millisecond)
			}
			expect(t, "originalMaxAge after 3000 saves", memberOf(t, site, b.sid(), "originalMaxAge"), "2000")
		})},
		{"MA-01", timed(sends("; Path=/; Expires=+2; HttpOnly", maxAge(2*time.Second)))},
		{"MA-02", timed(lives(5*time.Second, "; Path=/; Expires=+5; HttpOnly"))},
		{"MA-03", timed(lives(3_000_000*time.Second, "; Path=/; Expires=+3000000; HttpOnly"))},
		{"EX-01", func(t *testing.T) {
			response := newSite(t).visitor().get(func(s *session.Session) { setUser("u1")(s); s.SetMaxAge(-time.Second) })
			expect(t, "status", response.StatusCode, http.StatusInternalServerError)
			expect(t, "cookies", len(response.Cookies()), 0)
		}},
		{"EX-02", timed(lives(0, "; Path=/; HttpOnly"))},
		{"EX-03", timed(func(t *testing.T) { afterExpiresNull(t, readUser) })},
		{"EX-04", timed(func(t *testing.T) { afterExpiresNull(t, setUser("u2")) })},
		{"END-05", timed(func(t *testing.T) {
			site := newSite(t, maxAge(time.Minute))
			b := site.visitor()
			first := sent(t, b.get(setUser("u1")))
			sid := b.sid()
			expect(t, "the cookie's end", first.Expires, expiresOf(t, site, sid).Truncate(time.Second))
			time.Sleep(10 * time.Second)
			b.get(setUser("u2"))
			expect(t, "the id", b.sid(), sid)
			expect(t, "stored end after ten seconds", expiresOf(t, site, sid).Sub(first.Expires), 10*time.Second)
		})},
		{"TO-01", timed(func(t *testing.T) {
			site := newSite(t, maxAge(time.Minute))
			b := site.visitor()
			b.get(setUser("u1"))
			first := expiresOf(t, site, b.sid())
			time.Sleep(100 * time.Millisecond)
			b.get(func(s *session.Session) { s.Touch() })
			expect(t, "moved after 100 ms", expiresOf(t, site, b.sid()).Sub(first), 0)
			time.Sleep(5 * time.Second)
			b.get(func(s *session.Session) { s.Touch() })
			expect(t, "moved after 5.1 s", expiresOf(t, site, b.sid()).Sub(first), 5100*time.Millisecond)
		})},
		{"PT-01", timed(sends("; Path=/; HttpOnly", nil))},
		{"PT-03", timed(sends("; Path=/; HttpOnly; Secure; Partitioned", func(o *expressjs.Options) { o.Cookie.Partitioned, o.Cookie.Secure = true, true }))},

		{"CK-01", timed(sends("; Path=/; HttpOnly", func(o *expressjs.Options) { o.Cookie = expressjs.Cookie{} }))},
		{"CK-11", timed(sends("; Path=/", func(o *expressjs.Options) { o.Cookie.ScriptAccess = true }))},
		{"CK-12", timed(sends("; Path=/; Expires=+60; HttpOnly", maxAge(time.Minute)))},
		{"CK-13", timed(func(t *testing.T) {
			b := newSite(t, maxAge(time.Minute)).visitor()
			b.get(setUser("u1"))
			time.Sleep(10 * time.Second)
			b.get(func(s *session.Session) {
				expect(t, "left after ten seconds", time.Until(s.Expires()), 50*time.Second)
			})
		})},
		{"CK-16", stores(`"partitioned":true`, func(o *expressjs.Options) { o.Cookie.Partitioned, o.Cookie.Secure = true, true })},
		{"CK-17", stores(`"path":"/app"`, func(o *expressjs.Options) { o.Cookie.Path = "/app" })},
		{"CK-18", stores(`"priority":"high"`, func(o *expressjs.Options) { o.Cookie.Priority = "high" })},
	}
}

func reads(t *testing.T, s *site, want string) http.Handler {
	return s.Handler(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		if got := userKey.Get(session.From(r.Context())); got != want {
			t.Errorf("Cookie %q: user %q, want %q", r.Header["Cookie"], got, want)
		}
	}))
}

// attributesOf returns a cookie without its value, its end as seconds from now.
func attributesOf(c *http.Cookie) string {
	if c == nil {
		return "no cookie"
	}
	_, attributes, _ := strings.Cut(c.Raw, ";")
	if before, after, ok := strings.Cut(attributes, "Expires="); ok {
		_, after, _ = strings.Cut(after, "GMT")
		attributes = fmt.Sprintf("%sExpires=%+d%s", before, time.Until(c.Expires)/time.Second, after)
	}
	return ";" + attributes
}

// memberOf returns the JSON of a member of a stored record's cookie.
func memberOf(t *testing.T, s *site, sid, name string) string {
	t.Helper()
	return string(rawMembers(t, string(rawMembers(t, s.record(t, sid))["cookie"]))[name])
}

func expiresOf(t *testing.T, s *site, sid string) (end time.Time) {
	t.Helper()
	if err := json.Unmarshal([]byte(memberOf(t, s, sid, "expires")), &end); err != nil {
		t.Fatal(err)
	}
	return end
}

// overHTTP sends a secure cookie, whatever the request came over. Where a browser would
// drop it and no proxy says that it ends TLS, a log line warns.
func overHTTP(proto string, viaTLS, warns bool) func(t *testing.T) {
	return func(t *testing.T) {
		site := newSite(t, func(o *expressjs.Options) { o.Cookie.Secure = true })
		r := httptest.NewRequest("GET", "http://shop.example/", nil)
		r.Header.Set("X-Forwarded-Proto", proto)
		if viaTLS {
			r.TLS = new(tls.ConnectionState)
		}
		response := site.visitor().through(site.Handler(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
			setUser("u1")(session.From(r.Context()))
		})), r)
		expect(t, "cookie", attributesOf(sent(t, response)), "; Path=/; HttpOnly; Secure")
		expect(t, "warned", site.log.count("plain HTTP") > 0, warns)
	}
}

// onPath: a request has a session wherever it goes; the cookie's path is the browser's business.
func onPath(target string) func(t *testing.T) {
	return func(t *testing.T) {
		site := newSite(t, func(o *expressjs.Options) { o.Cookie.Path = "/foo/bar" })
		response := site.visitor().visit("GET", target, func(_ http.ResponseWriter, r *http.Request) {
			setUser("u1")(session.From(r.Context()))
		})
		expect(t, "cookie", attributesOf(sent(t, response)), "; Path=/foo/bar; HttpOnly")
	}
}

func mounted(t *testing.T, path string) {
	site := newSite(t, func(o *expressjs.Options) { o.Cookie.Path = "/foo/bar" })
	app := http.StripPrefix("/foo", site.Handler(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		setUser("u1")(session.From(r.Context()))
	})))
	response := site.visitor().through(app, httptest.NewRequest("GET", path, nil))
	expect(t, "cookie", attributesOf(sent(t, response)), "; Path=/foo/bar; HttpOnly")
}

// foreignID reads a session whose id a genid of the Express app has made, and signs the id as
// Express does.
func foreignID(sid, cookie string) func(t *testing.T) {
	return timed(func(t *testing.T) {
		site := newSite(t, secrets("keyboard cat"))
		b := site.has(t, sid, expressRecord(time.Minute, time.Minute, `,"userId":"u1"`), time.Hour)
		b.jar["connect.sid"] = cookie
		expect(t, "user", b.user(), "u1")
		c := sent(t, b.get(setUser("u2")))
		expect(t, "cookie", c.Value, cookie)
	})
}

// rotated begins a session with some secrets, and reads it with others.
func rotated(before, after []string, want string) func(t *testing.T) {
	return func(t *testing.T) {
		site := newSite(t, secrets(before...))
		b := site.visitor()
		b.get(setUser("u1"))
		b.site = openSite(t, site.store.Store, secrets(after...))
		expect(t, "user", b.user(), want)
	}
}

// sends begins a session with the options.
func sends(want string, change func(*expressjs.Options)) func(t *testing.T) {
	return func(t *testing.T) {
		if change == nil {
			change = func(*expressjs.Options) {}
		}
		expect(t, "cookie", attributesOf(sent(t, newSite(t, change).visitor().get(setUser("u1")))), want)
	}
}

// lives begins a session that is given a lifetime.
func lives(d time.Duration, want string) func(t *testing.T) {
	return func(t *testing.T) {
		b := newSite(t, maxAge(time.Minute)).visitor()
		response := b.get(func(s *session.Session) { setUser("u1")(s); s.SetMaxAge(d) })
		expect(t, "cookie", attributesOf(sent(t, response)), want)
	}
}

func afterExpiresNull(t *testing.T, do func(*session.Session)) {
	b := newSite(t, maxAge(time.Minute)).visitor()
	b.get(func(s *session.Session) { setUser("u1")(s); s.SetMaxAge(0) })
	expect(t, "cookie with the second request", attributesOf(sent(t, b.get(do))), "no cookie")
}

func stores(want string, change func(*expressjs.Options)) func(t *testing.T) {
	return func(t *testing.T) {
		site := newSite(t, change)
		b := site.visitor()
		b.get(setUser("u1"))
		expect(t, want+" is stored", strings.Contains(site.record(t, b.sid()), want), true)
	}
}
