package expressjs_test

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/seed-4f96e14b/session"
)

// TestVectorsFlows makes each step of the flows on what Express had left in Redis after
// the step before. What Go then has in Redis, and the cookie that it sends, is what Express
// has and sends, or stands in flowDiffers with the reason.
func TestVectorsFlows(t *testing.T) {
	unused := maps.Clone(flowDiffers)
	for _, flow := range readVectors(t).Flows {
		t.Run(flow.Name, func(t *testing.T) {
			before := newRedisMap()
			options, secrets := flow.Options, flow.Secrets
			for i, step := range flow.Steps {
				name := fmt.Sprintf("%s | %d %s", flow.Name, step.AtMs, step.Action)
				if step.OptionsOverride != nil {
					options = *step.OptionsOverride
				}
				if step.Secrets != nil {
					secrets = step.Secrets
				}
				do, ok := flowActions[step.Action]
				after := newRedisMap()
				for key, v := range step.Redis {
					after.keys[key] = redisValue{v.RedisValue, time.Duration(v.TTL) * time.Second}
				}
				if ok {
					now := frozen.Add(time.Duration(step.AtMs) * time.Millisecond)
					var got string
					old := maps.Clone(before.keys)
					at(t, now, func(t *testing.T) {
						m, err := vectorManager(t, before, secrets, options, flow.StoreOptions, vectorRequest{})
						if err != nil {
							t.Fatal(err)
						}
						response := ask(m, step.CookieHeader, func(s *session.Session) {
							seen := parse(t, step.SeenAtStart)
							if got := userKey.Get(s); seen["userId"] != nil && got != seen["userId"] || seen["userId"] == nil && got != "" {
								t.Errorf("step %d: sees the user %q, want %v", i, got, seen["userId"])
							}
							do(s)
						})
						got = summary(t, now, old, before.keys, response.Header.Get("Set-Cookie"))
					})
					want := summary(t, now, old, after.keys, step.SetCookie)
					if d, ok := flowDiffers[name]; ok {
						delete(unused, name)
						if want = d.want; d.reason == "" {
							t.Errorf("step %q: no reason", name)
						}
					}
					if got != want {
						t.Errorf("step %q:\ngot  %s\nwant %s", name, got, want)
					}
				}
				before = after
			}
		})
	}
	for name := range unused {
		t.Errorf("no such step: %q", name)
	}
}

const nKey session.Key[int] = "n"

func next(n int) int { return n + 1 }

// flowActions are the actions of the flows in Go. req.session = null has no counterpart.
var flowActions = map[string]func(s *session.Session){
	"untouched":                           func(s *session.Session) {},
	"read session.userId":                 func(s *session.Session) { userKey.Get(s) },
	"session.n++":                         func(s *session.Session) { nKey.Update(s, next) },
	"session.n++; save()":                 func(s *session.Session) { nKey.Update(s, next); s.Save() },
	"save()":                              func(s *session.Session) { s.Save() },
	"destroy()":                           func(s *session.Session) { s.Destroy() },
	"regenerate()":                        func(s *session.Session) { s.Regenerate() },
	`regenerate(); session.userId = "u1"`: func(s *session.Session) { s.Regenerate(); userKey.Set(s, "u1") },
	"session.cookie.maxAge = 3600000":     func(s *session.Session) { s.SetMaxAge(time.Hour) },
	"session.cookie.expires = null; session.n = 1":  func(s *session.Session) { s.SetMaxAge(0); nKey.Set(s, 1) },
	"session.cookie.expires = false; session.n = 1": func(s *session.Session) { s.SetMaxAge(0); nKey.Set(s, 1) },
	"session.a=1; session.b=2":                      func(s *session.Session) { aKey.Set(s, 1); session.Key[int]("b").Set(s, 2) },
	"session.a = 1":                                 func(s *session.Session) { aKey.Set(s, 1) },
	"delete session.a":                              func(s *session.Session) { aKey.Delete(s) },
	"session.x = 1; reload()":                       func(s *session.Session) { session.Key[int]("x").Set(s, 1); s.Reload() },
	`regenerate(); session.userId = "u1"; save()`:   func(s *session.Session) { s.Regenerate(); userKey.Set(s, "u1"); s.Save() },
	"session.cookie.maxAge = 3600000; session.remember = true": func(s *session.Session) {
		s.SetMaxAge(time.Hour)
		session.Key[bool]("remember").Set(s, true)
	},
	"delete session.a; session.a = 1 (order changes)": func(s *session.Session) { aKey.Delete(s); aKey.Set(s, 1) },
}

const aKey session.Key[int] = "a"

// summary says what is in Redis and what cookie is sent. Times are seconds from now, and
// new ids are "new".
func summary(t testing.TB, now time.Time, before, after map[string]redisValue, setCookie string) string {
	t.Helper()
	label := func(sid string) string {
		if _, ok := before["sess:"+sid]; ok {
			return "old"
		}
		return "new"
	}
	var parts []string
	for _, key := range slices.Sorted(maps.Keys(after)) {
		v := after[key]
		text := "unchanged"
		if old, ok := before[key]; !ok || old.text != v.text {
			record := parse(t, v.text)
			cookie := record["cookie"].(map[string]any)
			delete(record, "cookie")
			data, _ := json.Marshal(record)
			text = fmt.Sprintf("maxAge %v expires %s %s", cookie["originalMaxAge"], seconds(now, cookie["expires"]), data)
		}
		parts = append(parts, fmt.Sprintf("%s: ttl %d %s", label(strings.TrimPrefix(key, "sess:")), v.ttl/time.Second, text))
	}
	if len(parts) == 0 {
		parts = append(parts, "nothing stored")
	}
	parts = append(parts, cookieSummary(now, setCookie, label))
	return strings.Join(parts, " | ")
}

func seconds(now time.Time, date any) string {
	when, err := time.Parse(time.RFC3339, fmt.Sprint(date))
	if err != nil {
		return fmt.Sprint(date)
	}
	return fmt.Sprintf("%+d", when.Sub(now)/time.Second)
}

func cookieSummary(now time.Time, line string, label func(string) string) string {
	if line == "" {
		return "no cookie"
	}
	c, err := http.ParseSetCookie(line)
	if err != nil {
		return err.Error()
	}
	if c.MaxAge < 0 {
		return "cookie deleted"
	}
	value, _ := url.PathUnescape(c.Value)
	sid, _, _ := strings.Cut(strings.TrimPrefix(value, "s:"), ".")
	if c.Expires.IsZero() {
		return "cookie " + label(sid)
	}
	return fmt.Sprintf("cookie %s expires %+d", label(sid), c.Expires.Sub(now)/time.Second)
}

// flowDiffers are the steps in which Go does something else than Express.
var flowDiffers = map[string]struct{ want, reason string }{
	`login, read, write, logout (session cookie) | 1000 read session.userId`: {
		`old: ttl 86400 maxAge <nil> expires <nil> {"userId":"u1"} | no cookie`, moves},
	`login, read, write, logout (session cookie) | 4000 destroy()`: {
		`nothing stored | cookie deleted`, deletes},
	`login, read, write, logout (maxAge 60 s) | 10000 read session.userId`: {
		`old: ttl 60 maxAge 60000 expires +60 {"userId":"u1"} | no cookie`, moves},
	`login, read, write, logout (maxAge 60 s) | 30000 read session.userId`: {
		`old: ttl 60 maxAge 60000 expires +60 {"n":1,"userId":"u1"} | no cookie`, moves},
	`login, read, write, logout (maxAge 60 s) | 40000 destroy()`: {
		`nothing stored | cookie deleted`, deletes},
	`rolling true (maxAge 60 s): Set-Cookie each time, JSON expires goes stale, TTL moves | 30000 read session.userId`: {
		`old: ttl 60 maxAge 60000 expires +60 {"userId":"u1"} | cookie old expires +60`, moves},
	`rolling true (maxAge 60 s): Set-Cookie each time, JSON expires goes stale, TTL moves | 59000 read session.userId`: {
		`old: ttl 60 maxAge 60000 expires +60 {"userId":"u1"} | cookie old expires +60`, moves},
	`rolling true (maxAge 60 s): Set-Cookie each time, JSON expires goes stale, TTL moves | 90000 read session.userId`: {
		`old: ttl 60 maxAge 60000 expires +60 {"userId":"u1"} | cookie old expires +60`, moves},
	`rolling true with a session cookie | 30000 read session.userId`: {
		`old: ttl 86400 maxAge <nil> expires <nil> {"userId":"u1"} | cookie old`, moves},
	`rolling true, saveUninitialized true | 30000 untouched`: {
		`old: ttl 60 maxAge 60000 expires +60 {} | cookie old expires +60`, moves},
	`HAZARD: explicit save() after the stored expires has passed deletes the live session | 50000 read session.userId`: {
		`old: ttl 60 maxAge 60000 expires +60 {"userId":"u1"} | cookie old expires +60`, moves},
	`HAZARD: explicit save() after the stored expires has passed deletes the live session | 70000 read session.userId`: {
		`old: ttl 60 maxAge 60000 expires +60 {"userId":"u1"} | cookie old expires +60`, moves},
	`HAZARD: explicit save() after the stored expires has passed deletes the live session | 80000 session.n++; save()`: {
		`old: ttl 60 maxAge 60000 expires +60 {"n":1,"userId":"u1"} | cookie old expires +60`, alive},
	`explicit save(): stored expires is the OLD one, TTL then bumped by touch | 20000 session.n++; save()`: {
		`old: ttl 60 maxAge 60000 expires +60 {"n":1,"userId":"u1"} | cookie old expires +60`, fresh},
	`explicit save(): stored expires is the OLD one, TTL then bumped by touch | 30000 save()`: {
		`old: ttl 60 maxAge 60000 expires +60 {"n":1,"userId":"u1"} | no cookie`, fresh},
	`explicit save(): stored expires is the OLD one, TTL then bumped by touch | 31000 read session.userId`: {
		`old: ttl 60 maxAge 60000 expires +60 {"n":1,"userId":"u1"} | no cookie`, moves},
	`cookie.maxAge changed, data untouched (resave false): lost | 1000 session.cookie.maxAge = 3600000`: {
		`old: ttl 3600 maxAge 3600000 expires +3600 {"userId":"u1"} | cookie old expires +3600`, kept},
	`cookie.maxAge changed, data untouched (resave false): lost | 2000 read session.userId`: {
		`old: ttl 3600 unchanged | no cookie`, kept},
	`cookie.expires = false (remember me off) | 1000 session.cookie.expires = false; session.n = 1`: {
		`old: ttl 86400 maxAge <nil> expires <nil> {"n":1,"userId":"u1"} | cookie old`, null},
	`cookie.expires = false (remember me off) | 2000 session.n++`: {
		`old: ttl 86400 maxAge false expires false {"n":2,"userId":"u1"} | no cookie`, once},
	`cookie.expires = null | 1000 session.cookie.expires = null; session.n = 1`: {
		`old: ttl 86400 maxAge <nil> expires <nil> {"n":1,"userId":"u1"} | cookie old`, told},
	`unset destroy: destroy() issues DEL twice | 1000 destroy()`: {
		`nothing stored | cookie deleted`, deletes},
	`save() of an unmodified new session: SET without Set-Cookie (orphan) | 0 save()`: {
		`new: ttl 60 maxAge 60000 expires +60 {} | cookie new expires +60`, orphan},
	`delete a key / set the same value / reorder keys | 2000 delete session.a; session.a = 1 (order changes)`: {
		`old: ttl 60 unchanged | no cookie`, order},
	`config change: stored cookie wins over the new options | 1000 read session.userId`: {
		`old: ttl 60 unchanged | no cookie`, notYet},
	`secret rotation, session cookie, rolling false: cookie is NEVER re-signed | 1000 read session.userId`: {
		`old: ttl 86400 maxAge <nil> expires <nil> {"userId":"u1"} | cookie old`, resigned},
	`secret rotation, session cookie, rolling false: cookie is NEVER re-signed | 2000 session.n++`: {
		`old: ttl 86400 maxAge <nil> expires <nil> {"n":1,"userId":"u1"} | cookie old`, resigned},
	`secret rotation, rolling true: re-signed on the first read | 1000 read session.userId`: {
		`old: ttl 60 unchanged | no cookie`, notYet},
	`secret rotation, rolling true: re-signed on the first read | 3000 read session.userId`: {
		`old: ttl 60 maxAge 60000 expires +60 {"userId":"u1"} | cookie old expires +60`, moves},
	`secret rotation: three keys, oldest still accepted; dropped key rejected | 1000 read session.userId`: {
		`old: ttl 86400 maxAge <nil> expires <nil> {"userId":"u1"} | cookie old`, resigned},
	`store ttl 100, session cookie | 30000 read session.userId`: {
		`old: ttl 100 maxAge <nil> expires <nil> {"userId":"u1"} | no cookie`, moves},
}

const (
	moves    = `a read that moves the deadline moves it in the record too, so that "expires" does not go stale`
	deletes  = `Destroy deletes the browser's cookie too (expressjs/session#241)`
	alive    = `a save moves the deadline first, so it never ends the session`
	orphan   = `what is stored gets its cookie`
	fresh    = `a save moves the deadline first`
	kept     = `a lifetime is kept also if nothing else changes`
	null     = `false and null mean the same, and Go writes null`
	told     = `a changed lifetime is sent to the browser`
	once     = `a cookie that lives until the browser closes is sent once, for false as for null`
	order    = `the order of keys is no change`
	notYet   = `the cookie of rolling goes when the deadline moves, once per twentieth of the lifetime`
	resigned = `a cookie with an old signature is signed anew when the deadline moves`
)
