package expressjs_test

import (
	"bytes"
	"cmp"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/redis/go-redis/v9"
	"github.com/seed-4f96e14b/session"
	"github.com/seed-4f96e14b/session/expressjs"
)

const (
	testSecret = "the secret of these tests, 32 bytes long"
	testSid    = "LXEWQrcmsEQBYnyp-6wy9chTD7GQPMTb"
	// testCookie is testSid as cookie-signature signs it with testSecret.
	testCookie = "connect.sid=s%3ALXEWQrcmsEQBYnyp-6wy9chTD7GQPMTb.SkF2GfSH8Cmrn%2BY1iH%2B70dgTbn%2BTlBslZZGfrQg5Bwg"
)

// newShared returns a manager on the client, and what it logs.
func newShared(t testing.TB, client session.RedisClient, change func(*expressjs.Options)) (*session.Manager, *bytes.Buffer) {
	t.Helper()
	options := expressjs.Options{Secrets: []string{testSecret}, Store: expressjs.RedisStore{Client: client}}
	if change != nil {
		change(&options)
	}
	all, err := options.Session()
	if err != nil {
		t.Fatal(err)
	}
	var log bytes.Buffer
	all.Logger = slog.New(slog.NewTextHandler(&log, nil))
	m, err := newManager(t, all)
	if err != nil {
		t.Fatal(err)
	}
	return m, &log
}

// withRecord is a Redis with one record, under testSid.
func withRecord(record string) *redisMap {
	store := newRedisMap()
	store.keys["sess:"+testSid] = redisValue{record, time.Hour}
	return store
}

func (r *redisMap) record() string { return r.keys["sess:"+testSid].text }

func TestRecordsThatExpressCannotReadEither(t *testing.T) {
	records := map[string]string{
		"text":                     `hello`,
		"truncated":                `{"cookie":{"path":"/"},"userId":"u1`,
		"two values":               `{"cookie":{}} {"cookie":{}}`,
		"array":                    `[{"cookie":{}}]`,
		"string":                   `"cookie"`,
		"number":                   `17`,
		"byte order mark":          "\ufeff" + `{"cookie":{}}`,
		"no cookie":                `{"userId":"u1"}`,
		"empty object":             `{}`,
		"cookie null":              `{"cookie":null,"userId":"u1"}`,
		"cookie an array":          `{"cookie":[],"userId":"u1"}`,
		"cookie a string":          `{"cookie":"{}","userId":"u1"}`,
		"cookie a number":          `{"cookie":1,"userId":"u1"}`,
		"last cookie null":         `{"cookie":{},"userId":"u1","cookie":null}`,
		"originalMaxAge a string":  `{"cookie":{"originalMaxAge":"60000"},"userId":"u1"}`,
		"originalMaxAge an object": `{"cookie":{"originalMaxAge":{}},"userId":"u1"}`,
		"originalMaxAge true":      `{"cookie":{"originalMaxAge":true},"userId":"u1"}`,
		"another library's":        "\xf5\x01\x00",
		"ten thousand brackets":    strings.Repeat("[", 10_001),
		"deep":                     `{"cookie":{},"a":` + strings.Repeat("[", 10_001) + strings.Repeat("]", 10_001) + `}`,
	}
	for name, record := range records {
		t.Run(name, func(t *testing.T) {
			store := withRecord(record)
			m, log := newShared(t, store, nil)
			response := ask(m, testCookie, func(s *session.Session) {
				if len(s.Keys()) > 0 || s.Err() != nil {
					t.Errorf("keys %q, error %v", s.Keys(), s.Err())
				}
				userKey.Set(s, "u2")
			})
			if response.StatusCode != http.StatusOK || store.record() != record {
				t.Errorf("status %d, left %q", response.StatusCode, store.record())
			}
			if n := strings.Count(log.String(), "\n"); n != 1 || !strings.Contains(log.String(), "not a session of Express") {
				t.Errorf("logged %q", log)
			}
			if strings.Contains(log.String(), testSid) || strings.Contains(log.String(), "u1") {
				t.Errorf("the log has the id or the data: %q", log)
			}

			ask(m, testCookie, func(s *session.Session) { s.Destroy() })
			if record := store.record(); record != "" {
				t.Errorf("after Destroy there is %q", record)
			}
		})
	}
}

// A value as deep as Go reads is saved. One level more, and the record around it could not be
// read again, with all that is in it.
func TestValueTooDeep(t *testing.T) {
	for depth, want := range map[int]int{9999: http.StatusOK, 10_000: http.StatusInternalServerError} {
		deep := json.RawMessage(strings.Repeat("[", depth) + strings.Repeat("]", depth))
		store := withRecord(`{"cookie":{},"userId":"u1"}`)
		m, _ := newShared(t, store, nil)
		response := ask(m, testCookie, func(s *session.Session) { session.Key[json.RawMessage]("deep").Set(s, deep) })
		if user := userOf(m, testCookie); response.StatusCode != want || user != "u1" {
			t.Errorf("depth %d: status %d, want %d; then the user is %q", depth, response.StatusCode, want, user)
		}
	}
}

func TestRecordOfAnotherRedisType(t *testing.T) {
	server := miniredis.RunT(t)
	client := redis.NewClient(&redis.Options{Addr: server.Addr()})
	t.Cleanup(func() { client.Close() })
	server.Lpush("sess:"+testSid, "x")
	m, log := newShared(t, client, nil)
	response := ask(m, testCookie, func(s *session.Session) { userKey.Set(s, "u2") })
	if list, err := server.List("sess:" + testSid); response.StatusCode != http.StatusOK || err != nil || len(list) != 1 {
		t.Errorf("status %d, list %q, %v", response.StatusCode, list, err)
	}
	if !strings.Contains(log.String(), "unreadable") {
		t.Errorf("logged %q", log)
	}
}

// Attributes that no Set-Cookie can have are left alone in the record, and not sent.
func TestRecordWithBadAttributes(t *testing.T) {
	tests := []struct{ cookie, want string }{
		{`"path":"/;\r\nSet-Cookie: x=y","domain":"a b\n"`, "; Path=/; Expires=#; HttpOnly"},
		{`"path":7,"domain":{},"httpOnly":0,"secure":0,"sameSite":5,"priority":"urgent","partitioned":"yes"`, "; Path=/; Expires=#; HttpOnly"},
		{`"path":"/app","httpOnly":false,"secure":"auto","sameSite":"STRICT","priority":"High","partitioned":true`, "; Path=/app; Expires=#; Secure; Partitioned; Priority=High; SameSite=Strict"},
		{`"path":"","domain":"example.com","sameSite":"maybe"`, "; Domain=example.com; Path=/; Expires=#; HttpOnly"},
	}
	for _, tt := range tests {
		store := withRecord(`{"cookie":{"originalMaxAge":60000,` + tt.cookie + `}}`)
		m, _ := newShared(t, store, nil)
		response := ask(m, testCookie, func(s *session.Session) { userKey.Set(s, "u2") })
		lines := response.Header.Values("Set-Cookie")
		if len(lines) != 1 {
			t.Fatalf("%s: Set-Cookie %q", tt.cookie, lines)
		}
		before, after, _ := strings.Cut(lines[0], "Expires=")
		_, after, _ = strings.Cut(after, ";")
		if got, want := before+"Expires=#;"+after, testCookie+tt.want; got != want {
			t.Errorf("%s: Set-Cookie %q, want %q", tt.cookie, got, want)
		}
		if !strings.Contains(store.record(), tt.cookie) {
			t.Errorf("the save left %s", store.record())
		}
	}
}

// Lifetimes that nobody would configure, and dates that are none.
func TestRecordWithOddLifetime(t *testing.T) {
	for maxAge, want := range map[string]time.Duration{
		"1": time.Second, "0": time.Second, "-5": time.Second, "60000.9": time.Minute, "1e3": time.Second,
		"null": 24 * time.Hour, "false": 24 * time.Hour,
	} {
		for _, date := range []string{`null`, `"never"`, `""`, `{}`, `-1`, `1e300`, `"1970-01-01T00:00:00.000Z"`, `"0000-01-01T00:00:00Z"`, `true`} {
			store := withRecord(fmt.Sprintf(`{"cookie":{"originalMaxAge":%s,"expires":%s},"userId":"u1"}`, maxAge, date))
			m, _ := newShared(t, store, nil)
			response := ask(m, testCookie, func(s *session.Session) {
				if userKey.Get(s) != "u1" {
					t.Errorf("maxAge %s, expires %s: no session", maxAge, date)
				}
				userKey.Set(s, "u2")
			})
			if ttl := store.keys["sess:"+testSid].ttl; response.StatusCode != http.StatusOK || ttl != want {
				t.Errorf("maxAge %s, expires %s: status %d, time to live %v, want %v", maxAge, date, response.StatusCode, ttl, want)
			}
		}
	}
	huge := withRecord(`{"cookie":{"originalMaxAge":1e300},"userId":"u1"}`)
	m, _ := newShared(t, huge, nil)
	ask(m, testCookie, func(s *session.Session) { userKey.Set(s, "u2") })
	if ttl := huge.keys["sess:"+testSid].ttl; ttl < 100*365*24*time.Hour {
		t.Errorf("time to live %v for a maxAge of 1e300", ttl)
	}
}

// EXPI-8 and EXPI-9: Express moves the time to live alone, so that a record is alive whose
// "expires" has passed. A save makes it right.
func TestStaleExpires(t *testing.T) {
	at(t, frozen, func(t *testing.T) {
		store := withRecord(`{"cookie":{"originalMaxAge":60000,"expires":"2025-12-31T23:59:00.000Z","httpOnly":true,"path":"/"},"userId":"u1"}`)
		m, _ := newShared(t, store, nil)
		ask(m, testCookie, func(s *session.Session) {
			if userKey.Get(s) != "u1" {
				t.Error("a session that is there was taken for ended")
			}
			if err := s.Save(); err != nil {
				t.Error(err)
			}
		})
		if !strings.Contains(store.record(), `"expires":"2026-01-01T00:01:00.000Z"`) {
			t.Errorf("left %s", store.record())
		}
	})
}

// A session that is there ends later, also where its record says it has ended, or nothing.
func TestExpiresOfALiveSession(t *testing.T) {
	for _, cookie := range []string{`{}`, `{"originalMaxAge":null,"expires":null}`, `{"originalMaxAge":60000,"expires":"2025-01-01T00:00:00.000Z"}`} {
		m, _ := newShared(t, withRecord(`{"cookie":`+cookie+`}`), nil)
		ask(m, testCookie, func(s *session.Session) {
			if left := time.Until(s.Expires()); left <= 0 {
				t.Errorf("%s: ended %v ago", cookie, -left)
			}
		})
	}
}

// A logout deletes the cookie that the browser has: it goes by path and domain.
func TestCookieOfOtherOptionsIsDeleted(t *testing.T) {
	for _, look := range []bool{true, false} {
		m, _ := newShared(t, withRecord(`{"cookie":{"path":"/app","domain":"example.com"},"userId":"u1"}`), nil)
		response := ask(m, testCookie, func(s *session.Session) {
			if look {
				userKey.Get(s)
			}
			s.Destroy()
		})
		want := "connect.sid=; Path=/; Max-Age=0; "
		if look {
			want = "connect.sid=; Domain=example.com; Path=/app; Max-Age=0; "
		}
		if got := response.Header.Get("Set-Cookie"); !strings.HasPrefix(got, want) {
			t.Errorf("Set-Cookie %q, want %q", got, want)
		}
	}
}

func TestManagerLoad(t *testing.T) {
	m, _ := newShared(t, withRecord(`{"cookie":{},"userId":"u1"}`), nil)
	s, err := m.Load(t.Context(), testSid)
	if err != nil || userKey.Get(s) != "u1" {
		t.Errorf("user %q, error %v", userKey.Get(s), err)
	}
	renewed := newCookie(t, ask(m, testCookie, renewNow))
	s, err = m.Load(t.Context(), testSid)
	if err != nil || userKey.Get(s) != "u1" || !strings.Contains(renewed, s.ID()) { // who asks is no browser
		t.Errorf("by the old id: error %v", err)
	}
	if _, err := m.Load(t.Context(), testSid+":renewed"); !errors.Is(err, session.ErrNotFound) {
		t.Errorf("a pointer is taken for a session: %v", err)
	}
}

// INT-09: what Go does not change stays byte for byte, also what its strings cannot hold.
func TestUntouchedMembersStay(t *testing.T) {
	members := []string{
		`"\ud800":1`, `"\udfff":{"a":[1, 2]}`, `"big":12345678901234567890`, `"exact":1.0`, `"exp":1E2`, `"zero":-0`,
		`"lone":"\ud800x\udc00"`, `"escaped":"\u003c\/\u2028"`, `"spaced":{ "a" : [ 1 , 2 ] }`, `"":null`, `"ключ":"✓"`,
	}
	store := withRecord(`{ "cookie" : {"originalMaxAge":null,"expires":null,"later":{"x":1}} , ` + strings.Join(members, " , \n") + " }\n")
	m, _ := newShared(t, store, nil)
	for range 2 {
		ask(m, testCookie, func(s *session.Session) { nKey.Update(s, next) })
	}
	for _, member := range append(members, `"later":{"x":1}`, `"n":2`) {
		if !strings.Contains(store.record(), member) {
			t.Errorf("%s is not in %s", member, store.record())
		}
	}
}

// Our member may be anything: Express can write to it, or copy it into another session as
// passport's keepSessionInfo does.
func TestForeignBookkeeping(t *testing.T) {
	store := newRedisMap()
	m, _ := newShared(t, store, nil)
	ask(m, "", func(s *session.Session) { userKey.Set(s, "u0") })
	var ours string
	for _, v := range store.keys {
		ours = string(rawMembers(t, v.text)["_goSession"])
	}
	saves := func(n int) string { return base64.StdEncoding.EncodeToString(bytes.Repeat([]byte{255}, n)) }
	for _, own := range []string{`null`, `1`, `"x"`, `[]`, `{}`, `{"created":"x"}`, `{"created":-1,"used":-1,"kept":-1,"resets":-1}`,
		`{"created":99999999999999999,"used":99999999999999999,"kept":9223372036854775807}`, `{"created":1e400}`,
		`{"renewal":{"to":"stolen"}}`, `{"renewal":7}`, `{"renewal":{"to":"stolen","at":"x"}}`,
		`{"renewal":{"to":"stolen","at":9223372036854775807,"grace":-9223372036854775808}}`, `{"renewal":{"to":"` + testSid + `"}}`,
		`{"resets":18446744073709551615}`, `{"origin":7,"saves":7}`, `{"saves":"?"}`, `{"saves":"AAAA"}`, `{"saves":["AAAA"]}`,
		`{"saves":"` + saves(16*24) + `"}`, `{"saves":"` + saves(17*24) + `"}`, `{"saves":"` + saves(24_000) + `"}`, ours} {
		store := withRecord(`{"cookie":{},"userId":"u1","_goSession":` + own + `}`)
		m, _ := newShared(t, store, nil)
		response := ask(m, testCookie, func(s *session.Session) {
			if userKey.Get(s) != "u1" || slices.Contains(s.Keys(), "_goSession") || s.Created().After(time.Now()) {
				t.Errorf("%s: user %q, keys %q, created %v", own, userKey.Get(s), s.Keys(), s.Created())
			}
			userKey.Set(s, "u2")
			s.Renew(0)
		})
		for _, v := range store.keys {
			var written struct{ Saves []byte }
			json.Unmarshal(rawMembers(t, cmp.Or(v.text, "{}"))["_goSession"], &written)
			most := 24
			if own == `{"saves":"`+saves(16*24)+`"}` {
				most = 16 * 24
			}
			if own != ours && len(written.Saves) > most {
				t.Errorf("%.80s: %d bytes of saves are written", own, len(written.Saves))
			}
		}
		var cookie string
		for _, c := range response.Cookies() {
			cookie = c.Name + "=" + c.Value
		}
		if response.StatusCode != http.StatusOK || strings.Contains(cookie, "stolen") {
			t.Errorf("%s: status %d, cookie %q", own, response.StatusCode, cookie)
		}
		ask(m, cookie, func(s *session.Session) {
			if userKey.Get(s) != "u2" {
				t.Errorf("%s: after a renewal the user is %q", own, userKey.Get(s))
			}
		})
	}
}

// A member of ours that is wrong takes no other with it, and those of a later version stay.
func TestBookkeepingOfALaterVersion(t *testing.T) {
	const begun = 1767225000000
	for _, later := range []string{
		`"user":"ada"`, `"logins":[ 1 , {"a":2} ]`, `"\ud800":1`, `"Saves":"x"`, `"device":"\u003c"`, `"end":12345678901234567890`,
	} {
		for _, wrong := range []string{`"saves":7`, `"resets":{}`, `"used":"x"`, `"renewal":[]`, `"origin":1`} {
			at(t, frozen, func(t *testing.T) {
				store := withRecord(fmt.Sprintf(`{"cookie":{},"userId":"u1","_goSession":{"created":%d,%s,%s}}`, int64(begun), wrong, later))
				m, _ := newShared(t, store, nil)
				cookie := testCookie
				for _, change := range []func(*session.Session){setUser("u2"), renewGrace, setUser("u3")} {
					response := ask(m, cookie, func(s *session.Session) {
						expect(t, later+": created", s.Created().UnixMilli(), begun)
						change(s)
					})
					expect(t, later+": status", response.StatusCode, http.StatusOK)
					if len(response.Cookies()) > 0 {
						cookie = newCookie(t, response)
					}
					text := store.keys["sess:"+sidIn(strings.TrimPrefix(cookie, "connect.sid="))].text
					if got := string(rawMembers(t, text)["_goSession"]); strings.Count(got, later) != 1 || !json.Valid([]byte(got)) {
						t.Errorf("%s is not kept in %s", later, got)
					}
				}
			})
		}
	}
}

// INT-07: names that Express drops are refused, and nothing is saved.
func TestReservedNames(t *testing.T) {
	for _, name := range []string{"cookie", "_goSession", "id", "req", "save", "touch", "reload", "destroy", "regenerate", "resetMaxAge", "constructor", "toString", "__proto__", "a\xff", "a\ufffd"} {
		for how, set := range map[string]func(*session.Session){
			"Set":    func(s *session.Session) { session.Key[int](name).Set(s, 1) },
			"Update": func(s *session.Session) { session.Key[int](name).Update(s, next) },
		} {
			store := withRecord(`{"cookie":{},"userId":"u1"}`)
			before := store.record()
			m, log := newShared(t, store, nil)
			response := ask(m, testCookie, func(s *session.Session) {
				userKey.Set(s, "u2")
				set(s)
				if s.Err() == nil || !strings.Contains(s.Err().Error(), fmt.Sprintf("%q", name)) {
					t.Errorf("%s %q: error %v", how, name, s.Err())
				}
			})
			if response.StatusCode != http.StatusInternalServerError || store.record() != before {
				t.Errorf("%s %q: status %d, left %s, logged %s", how, name, response.StatusCode, store.record(), log)
			}
		}
	}
}

// Our save is made again over what Express has saved since, and never over nothing.
func TestExpressSavesMeanwhile(t *testing.T) {
	store := withRecord(`{"cookie":{"originalMaxAge":60000},"userId":"u1","n":1}`)
	m, _ := newShared(t, store, nil)
	ask(m, testCookie, func(s *session.Session) {
		nKey.Update(s, next)
		store.keys["sess:"+testSid] = redisValue{`{"cookie":{"originalMaxAge":60000},"userId":"u2","n":5,"theme":"dark"}`, time.Minute}
	})
	got := rawMembers(t, store.record())
	if string(got["n"]) != "6" || string(got["userId"]) != `"u2"` || string(got["theme"]) != `"dark"` {
		t.Errorf("saved %s", store.record())
	}

	ask(m, testCookie, func(s *session.Session) {
		nKey.Update(s, next)
		delete(store.keys, "sess:"+testSid) // Express's destroy
	})
	if len(store.keys) > 0 {
		t.Errorf("brought back %v", store.keys)
	}
}

// When a session began is kept where Go has saved it, also across Express's saves, and not
// known before.
func TestCreated(t *testing.T) {
	at(t, frozen, func(t *testing.T) {
		store := withRecord(`{"cookie":{"originalMaxAge":36000000},"userId":"u1"}`)
		options, err := expressjs.Options{Secrets: []string{testSecret}, Store: expressjs.RedisStore{Client: store}}.Session()
		if err != nil {
			t.Fatal(err)
		}
		options.AbsoluteTimeout = 24 * time.Hour
		m, err := newManager(t, options)
		if err != nil {
			t.Fatal(err)
		}
		ask(m, testCookie, func(s *session.Session) { userKey.Set(s, "u2") })
		time.Sleep(23 * time.Hour)
		store.keys["sess:"+testSid] = redisValue{strings.Replace(store.record(), "u2", "u3", 1), time.Hour}
		ask(m, testCookie, func(s *session.Session) {
			if user := userKey.Get(s); user != "u3" || !s.Created().Equal(frozen) {
				t.Errorf("user %q, created %v, want %v", user, s.Created(), frozen)
			}
		})
		time.Sleep(time.Hour)
		if user := userOf(m, testCookie); user != "" {
			t.Errorf("after AbsoluteTimeout the user is %q", user)
		}
	})
}

// A save whose reply is lost is recognised by its number, and made once.
func TestLostReply(t *testing.T) {
	store := &lossy{redisMap: withRecord(`{"cookie":{},"n":1}`), lose: 1}
	m, _ := newShared(t, store, nil)
	ask(m, testCookie, func(s *session.Session) { nKey.Update(s, next) })
	if got := rawMembers(t, store.record())["n"]; string(got) != "2" || store.lose != 0 {
		t.Errorf("n is %s, want 2", got)
	}
}

// A lossy Redis applies a swap, and answers as to a client that has sent it twice.
type lossy struct {
	*redisMap
	lose int
}

func (l *lossy) EvalSha(ctx context.Context, sha string, keys []string, args ...any) *redis.Cmd {
	cmd := l.redisMap.EvalSha(ctx, sha, keys, args...)
	if n, _ := cmd.Int(); n == 1 && l.lose > 0 {
		l.lose--
		return l.redisMap.EvalSha(ctx, sha, keys, args...)
	}
	return cmd
}

func TestOptionsThatAreRefused(t *testing.T) {
	client := newRedisMap()
	good := func() expressjs.Options {
		return expressjs.Options{Secrets: []string{testSecret}, Store: expressjs.RedisStore{Client: client}}
	}
	if _, err := expressjs.New(good()); err != nil {
		t.Fatal(err)
	}
	ring := redis.NewRing(&redis.RingOptions{Addrs: map[string]string{"a": "127.0.0.1:1"}})
	defer ring.Close()
	caches := redis.NewClient(&redis.Options{ClientSideCacheConfig: new(redis.ClientSideCacheConfig)})
	defer caches.Close()
	for want, change := range map[string]func(o *expressjs.Options){
		"Store: a RedisStore with a redis.Ring":         func(o *expressjs.Options) { o.Store.Client = ring },
		"Store: a RedisStore with a client that caches": func(o *expressjs.Options) { o.Store.Client = caches },
		"Secrets is empty":                              func(o *expressjs.Options) { o.Secrets = nil },
		"Secrets[1] is empty":                           func(o *expressjs.Options) { o.Secrets = append(o.Secrets, "") },
		"RedisStore without a Client":                   func(o *expressjs.Options) { o.Store.Client = nil },
		"NoPrefix and the Prefix":                       func(o *expressjs.Options) { o.Store.Prefix, o.Store.NoPrefix = "a:", true },
		`Cookie.SameSite is "auto"`:                     func(o *expressjs.Options) { o.Cookie.SameSite = "auto" },
		"SameSite is None":                              func(o *expressjs.Options) { o.Cookie.SameSite = "none" },
		"Partitioned is set":                            func(o *expressjs.Options) { o.Cookie.Partitioned = true },
		"MaxAge is 86.4ms":                              func(o *expressjs.Options) { o.Cookie.MaxAge = 24 * 60 * 60 * 1000 },
		"IdleTimeout is 86.4µs":                         func(o *expressjs.Options) { o.Store.TTL = 86400 },
		"Name is":                                       func(o *expressjs.Options) { o.Name = "a b" },
		`Priority is "urgent"`:                          func(o *expressjs.Options) { o.Cookie.Priority = "urgent" },
		"Path is":                                       func(o *expressjs.Options) { o.Cookie.Path = "app" },
	} {
		o := good()
		change(&o)
		if _, err := expressjs.New(o); err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), testSecret) {
			t.Errorf("want an error with %q, got %v", want, err)
		}
	}
}

// A secret of the Express app may be weak. It is used, and named in the log by its number.
func TestWeakSecret(t *testing.T) {
	_, log := newShared(t, newRedisMap(), func(o *expressjs.Options) { o.Secrets = []string{testSecret, "keyboard cat", strings.Repeat("x", 40)} })
	if got := log.String(); strings.Count(got, "weak secret") != 2 || !strings.Contains(got, "Secrets[1] has 12 bytes") || strings.Contains(got, "keyboard") {
		t.Errorf("logged %q", got)
	}
}

func TestNothingSecretIsPrinted(t *testing.T) {
	client := withRecord(`{"cookie":{},"userId":"a private text"}`) // one of the app's own, which is not ours to print
	o := expressjs.Options{Secrets: []string{testSecret}, Store: expressjs.RedisStore{Client: client}}
	all, err := o.Session()
	if err != nil {
		t.Fatal(err)
	}
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%d", "%x", "%q"} {
		for _, v := range []any{o, &o, all, all.WireFormat, struct{ O expressjs.Options }{o}} {
			text := fmt.Sprintf(verb, v)
			for _, secret := range []string{testSecret, fmt.Sprintf("%x", testSecret), testSid, "private"} {
				if strings.Contains(text, secret) {
					t.Errorf("%s of %T prints %q", verb, v, secret)
				}
			}
		}
	}
}

func TestNoPrefix(t *testing.T) {
	store := newRedisMap()
	store.keys[testSid] = redisValue{`{"cookie":{},"userId":"u1"}`, time.Hour}
	m, _ := newShared(t, store, func(o *expressjs.Options) { o.Store.NoPrefix = true })
	ask(m, testCookie, func(s *session.Session) {
		if userKey.Get(s) != "u1" {
			t.Error("not found under the bare id")
		}
	})
}

// ttl as a function says how long Redis keeps a session, and not how long the browser does.
func TestTTLFunc(t *testing.T) {
	at(t, frozen, func(t *testing.T) {
		store := withRecord(`{"cookie":{"originalMaxAge":3600000,"expires":"2026-01-01T01:00:00.000Z"},"role":"user"}`)
		m, _ := newShared(t, store, func(o *expressjs.Options) {
			o.Store.TTLFunc = func(values map[string]json.RawMessage) time.Duration {
				return map[string]time.Duration{`"admin"`: time.Minute, `"user"`: 2 * time.Hour, `"gone"`: -1}[string(values["role"])]
			}
		})
		role := session.Key[string]("role")
		for _, tt := range []struct {
			role string
			want time.Duration
		}{{"admin", time.Minute}, {"user", 2 * time.Hour}, {"gone", time.Second}} {
			ask(m, testCookie, func(s *session.Session) { role.Set(s, tt.role) })
			if ttl := store.keys["sess:"+testSid].ttl; ttl != tt.want && tt.role != "user" {
				t.Errorf("%s: time to live %v, want %v", tt.role, ttl, tt.want)
			}
			if !strings.Contains(store.record(), `"expires":"2026-01-01T01:00:00.000Z"`) {
				t.Errorf("%s: the cookie's end moved: %s", tt.role, store.record())
			}
		}
	})
}

func newCookie(t testing.TB, response *http.Response) string {
	t.Helper()
	for _, c := range response.Cookies() {
		if c.MaxAge >= 0 {
			return c.Name + "=" + c.Value
		}
	}
	t.Fatalf("no cookie in %v", response.Header)
	return ""
}

// userOf returns the user of the session that a cookie opens.
func userOf(m *session.Manager, cookie string) (user string) {
	ask(m, cookie, func(s *session.Session) { user = userKey.Get(s) })
	return user
}

func TestRenew(t *testing.T) {
	renew := renewNow
	begin := func(t *testing.T) (*redisMap, *session.Manager, string) {
		store := withRecord(`{"cookie":{"originalMaxAge":60000},"userId":"u1"}`)
		m, _ := newShared(t, store, nil)
		renewed := newCookie(t, ask(m, testCookie, renew))
		if user := userOf(m, renewed); user != "u1" {
			t.Fatalf("the new cookie's user is %q", user)
		}
		for key, v := range store.keys {
			if strings.Contains(v.text, `"renewal"`) {
				t.Errorf("after it %s says that it is under way", strings.Replace(key, testSid, "ID", 1))
			}
		}
		return store, m, renewed
	}
	t.Run("the old cookie is dead", func(t *testing.T) {
		store, m, _ := begin(t)
		if user := userOf(m, testCookie); user != "" || store.record() != "" {
			t.Errorf("user %q, record %q", user, store.record())
		}
		response := ask(m, testCookie, setUser("u2"))
		if response.StatusCode != http.StatusServiceUnavailable || len(response.Cookies()) > 0 {
			t.Errorf("a change with it: status %d, cookies %q", response.StatusCode, response.Cookies())
		}
	})
	t.Run("a logout with the old cookie ends the session", func(t *testing.T) {
		store, m, renewed := begin(t)
		renewed = newCookie(t, ask(m, renewed, renew))
		ask(m, testCookie, func(s *session.Session) { s.Destroy() })
		if user := userOf(m, renewed); user != "" || len(store.keys) > 0 {
			t.Errorf("user %q, keys %v", user, store.keys)
		}
	})
	t.Run("Manager.Destroy by the old id ends the session", func(t *testing.T) {
		store, m, _ := begin(t)
		if err := m.Destroy(t.Context(), testSid); err != nil || len(store.keys) > 0 {
			t.Errorf("error %v, keys %v", err, store.keys)
		}
	})
	t.Run("a change that was under way is kept", func(t *testing.T) {
		store := withRecord(`{"cookie":{"originalMaxAge":60000},"userId":"u1","n":1}`)
		m, _ := newShared(t, store, nil)
		var renewed string
		response := ask(m, testCookie, func(s *session.Session) {
			nKey.Update(s, next)
			renewed = newCookie(t, ask(m, testCookie, inOrder(count, renewGrace)))
		})
		expect(t, "status", response.StatusCode, http.StatusOK)
		expect(t, "cookies", len(response.Cookies()), 0)
		expect(t, "n", countOf(m, renewed), 3)
	})
	t.Run("a change that was under way is refused if there is no grace", func(t *testing.T) {
		store := withRecord(`{"cookie":{"originalMaxAge":60000},"userId":"u1","n":1}`)
		m, _ := newShared(t, store, nil)
		var renewed string
		response := ask(m, testCookie, func(s *session.Session) {
			nKey.Update(s, next)
			renewed = newCookie(t, ask(m, testCookie, inOrder(count, renewNow)))
		})
		expect(t, "status", response.StatusCode, http.StatusServiceUnavailable)
		expect(t, "cookies", len(response.Cookies()), 0)
		expect(t, "n", countOf(m, renewed), 2)
	})
	t.Run("two at once have one session", func(t *testing.T) {
		store := withRecord(`{"cookie":{"originalMaxAge":60000},"userId":"u1","n":1}`)
		m, _ := newShared(t, store, nil)
		var first string
		response := ask(m, testCookie, func(s *session.Session) {
			inOrder(count, renewGrace)(s)
			first = newCookie(t, ask(m, testCookie, inOrder(count, renewGrace)))
		})
		expect(t, "status of the second", response.StatusCode, http.StatusOK)
		expect(t, "cookies of the second", len(response.Cookies()), 0)
		expect(t, "n", countOf(m, first), 3)
	})
	timedRun(t, "one overtakes the other", func(t *testing.T) {
		store := &meddled{redisMap: withRecord(`{"cookie":{"originalMaxAge":60000},"userId":"u1"}`)}
		m, _ := newShared(t, store, nil)
		other, _ := newShared(t, store, nil)
		var first string
		store.before = func() { first = newCookie(t, ask(other, testCookie, renew)) }
		response := ask(m, testCookie, renew)
		expect(t, "status of the one that was overtaken", response.StatusCode, http.StatusServiceUnavailable)
		expect(t, "its cookies", len(response.Cookies()), 0)
		expect(t, "user of the other", userOf(m, first), "u1")
		copies := 0
		for _, v := range store.keys {
			copies += strings.Count(v.text, `"userId":"u1"`) // "u1" alone is now and then in a random id
		}
		if copies != 1 {
			t.Errorf("%d copies of the session are left", copies)
		}
	})
	t.Run("Express saves between the steps", func(t *testing.T) {
		store := &meddled{redisMap: withRecord(`{"cookie":{"originalMaxAge":60000},"userId":"u1"}`)}
		store.before = func() {
			store.keys["sess:"+testSid] = redisValue{`{"cookie":{"originalMaxAge":60000},"userId":"u3"}`, time.Minute}
		}
		m, _ := newShared(t, store, nil)
		renewed := newCookie(t, ask(m, testCookie, renew))
		if user := userOf(m, renewed); user != "u3" || store.record() != "" {
			t.Errorf("user %q, want what Express saved; under the old id %q", user, store.record())
		}
	})
	t.Run("Express destroys between the steps", func(t *testing.T) {
		store := &meddled{redisMap: withRecord(`{"cookie":{"originalMaxAge":60000},"userId":"u1"}`)}
		store.before = func() { delete(store.keys, "sess:"+testSid) }
		m, _ := newShared(t, store, nil)
		if response := ask(m, testCookie, renew); len(response.Cookies()) > 0 || response.StatusCode != http.StatusOK || len(store.keys) > 0 {
			t.Errorf("status %d, cookies %q, keys %v", response.StatusCode, response.Cookies(), store.keys)
		}
	})
	t.Run("the list has no session twice", func(t *testing.T) {
		server := miniredis.RunT(t)
		client := redis.NewClient(&redis.Options{Addr: server.Addr()})
		t.Cleanup(func() { client.Close() })
		server.Set("sess:"+testSid, `{"cookie":{"originalMaxAge":60000},"userId":"u1"}`)
		m, _ := newShared(t, client, nil)
		ask(m, testCookie, renew)
		var users []string
		for s, err := range m.All(t.Context()) {
			if err != nil {
				t.Fatal(err)
			}
			users = append(users, userKey.Get(s))
		}
		if !slices.Equal(users, []string{"u1"}) {
			t.Errorf("the list is %q", users)
		}
		for _, key := range server.Keys() {
			if server.TTL(key) <= 0 {
				t.Errorf("%s has no time to live", strings.Replace(key, testSid, "ID", 1))
			}
		}
	})
}

// A meddled Redis does something once before the record is copied, and once after the
// old record was found empty.
type meddled struct {
	*redisMap
	before, after func()
}

func (m *meddled) Get(ctx context.Context, key string) *redis.StringCmd {
	cmd := m.redisMap.Get(ctx, key)
	if after := m.after; after != nil && cmd.Val() == "" && cmd.Err() == nil {
		m.after = nil
		after()
	}
	return cmd
}

func (m *meddled) SetNX(ctx context.Context, key string, value any, ttl time.Duration) *redis.BoolCmd {
	if before := m.before; before != nil && !strings.HasSuffix(key, ":renewed") {
		m.before = nil
		before()
	}
	return m.redisMap.SetNX(ctx, key, value, ttl)
}

// A store that fails in the middle of a renewal is a 503, and the session is not lost.
func TestRenewFails(t *testing.T) {
	for step := 1; ; step++ {
		store := &failing{redisMap: withRecord(`{"cookie":{"originalMaxAge":60000},"userId":"u1"}`), after: step}
		m, _ := newShared(t, store, nil)
		response := ask(m, testCookie, renewNow)
		store.after = 1 << 30
		if response.StatusCode == http.StatusOK {
			if step < 5 {
				t.Errorf("a renewal takes %d calls", step)
			}
			return
		}
		if response.StatusCode != http.StatusServiceUnavailable || len(response.Cookies()) > 0 {
			t.Errorf("after %d calls: status %d, cookies %q", step, response.StatusCode, response.Cookies())
		}
		if user := userOf(m, testCookie); user != "u1" {
			t.Errorf("after %d calls the session is lost", step)
		}
		renewed := newCookie(t, ask(m, testCookie, renewNow))
		if user := userOf(m, renewed); user != "u1" {
			t.Errorf("after %d calls, and another renewal, the user is %q", step, user)
		}
	}
}

// A failing Redis does nothing after some calls.
type failing struct {
	*redisMap
	after int
}

var errDown = errors.New("down")

func (f *failing) down() bool { f.after--; return f.after < 0 }

func (f *failing) Get(ctx context.Context, key string) *redis.StringCmd {
	if f.down() {
		return redis.NewStringResult("", errDown)
	}
	return f.redisMap.Get(ctx, key)
}

func (f *failing) SetNX(ctx context.Context, key string, value any, ttl time.Duration) *redis.BoolCmd {
	if f.down() {
		return redis.NewBoolResult(false, errDown)
	}
	return f.redisMap.SetNX(ctx, key, value, ttl)
}

func (f *failing) EvalSha(ctx context.Context, sha string, keys []string, args ...any) *redis.Cmd {
	if f.down() {
		return redis.NewCmdResult(nil, errDown)
	}
	return f.redisMap.EvalSha(ctx, sha, keys, args...)
}

// The log names a session by a digest of its id.
func TestLogNamesNoID(t *testing.T) {
	store := withRecord(`{"cookie":{},"userId":"u1"}`)
	m, log := newShared(t, store, nil)
	renewed := newCookie(t, ask(m, testCookie, renewNow))
	ask(m, testCookie, func(s *session.Session) { s.Touch() })                            // stale
	ask(m, renewed, func(s *session.Session) { userKey.Set(s, "u2"); clear(store.keys) }) // ended
	ids := append(slices.Collect(maps.Keys(store.keys)), testSid, strings.TrimPrefix(renewed, "connect.sid=s%3A")[:32])
	for _, id := range ids {
		if strings.Contains(log.String(), id) {
			t.Errorf("the log has an id: %s", log)
		}
	}
	if strings.Count(log.String(), "session=") < 2 {
		t.Errorf("the log names no session: %s", log)
	}
}
