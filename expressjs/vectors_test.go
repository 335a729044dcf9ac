package expressjs_test

import (
	"bytes"
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/seed-4f96e14b/session"
	"github.com/seed-4f96e14b/session/expressjs"
)

// testdata/express.json is what a real Express app, with its clock stopped, put on the
// wire and into Redis. These tests run Go on the same, at the same virtual time.

type vectors struct {
	Sign []struct {
		Value       string
		Secret      vectorSecret
		CookieValue string
	}
	Unsign []struct {
		Name, Input string
		Secret      vectorSecret
		Result      any // the value, or false
	}
	IncomingSetup struct{ Sid, RedisKey, RedisValue string }
	Incoming      []struct {
		Name, CookieHeader string
		Accepted           bool
		Commands           [][]string
	}
	Sessions     []vectorSession
	Flows        []vectorFlow
	ForeignSetup struct {
		Sid   string
		Clock time.Time
	}
	Foreign []struct {
		Name, RedisValue, CookieHeader string
		Read, Modify                   vectorReply
	}
}

type vectorSession struct {
	Name         string
	Secrets      []vectorSecret
	Options      vectorOptions
	StoreOptions vectorStoreOptions
	Request      vectorRequest
	Sid          string
	SetCookie    string
	CookieHeader string
	RedisKey     string
	RedisValue   string
	TTL          int
}

type vectorFlow struct {
	Name         string
	Secrets      []vectorSecret
	Options      vectorOptions
	StoreOptions vectorStoreOptions
	Steps        []struct {
		AtMs            int
		Action          string
		CookieHeader    string
		SetCookie       string
		SeenAtStart     string
		Secrets         []vectorSecret
		OptionsOverride *vectorOptions
		Redis           map[string]struct {
			RedisValue string
			TTL        int
		}
	}
}

type vectorReply struct {
	Status     int // 0 where the request hangs
	Seen       string
	SetCookie  string
	RedisValue string
	TTL        int
}

type vectorRequest struct {
	Path  string
	HTTPS bool
}

type vectorOptions struct {
	Rolling, Resave, SaveUninitialized bool
	Name                               string
	Cookie                             any
}

type vectorStoreOptions struct {
	Prefix       *string
	TTL          any
	DisableTouch bool
	DisableTTL   bool
}

// A vectorSecret is a string, or bytes in hex.
type vectorSecret string

func (s *vectorSecret) UnmarshalJSON(data []byte) error {
	var text string
	if err := json.Unmarshal(data, &text); err == nil {
		*s = vectorSecret(text)
		return nil
	}
	var b struct{ Hex string }
	if err := json.Unmarshal(data, &b); err != nil {
		return err
	}
	raw, err := hex.DecodeString(b.Hex)
	*s = vectorSecret(raw)
	return err
}

func readVectors(t testing.TB) (v vectors) {
	t.Helper()
	data, err := os.ReadFile("testdata/express.json")
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(data, &v); err != nil {
		t.Fatal(err)
	}
	return v
}

// frozen is the time at which the vectors were made.
var frozen = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

// at runs a test with the clock at a time.
func at(t *testing.T, when time.Time, test func(t *testing.T)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		time.Sleep(time.Until(when))
		test(t)
	})
}

// A redisMap is as much of Redis as a RedisStore uses. It has no expiry: a test looks
// at the time to live that each key was given.
type redisMap struct {
	mu   sync.Mutex
	keys map[string]redisValue
	gets int
}

type redisValue struct {
	text string
	ttl  time.Duration
}

func newRedisMap() *redisMap { return &redisMap{keys: make(map[string]redisValue)} }

func (r *redisMap) Get(_ context.Context, key string) *redis.StringCmd {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.gets++
	v, ok := r.keys[key]
	if !ok {
		return redis.NewStringResult("", redis.Nil)
	}
	return redis.NewStringResult(v.text, nil)
}

func (r *redisMap) SetNX(_ context.Context, key string, value any, ttl time.Duration) *redis.BoolCmd {
	r.mu.Lock()
	defer r.mu.Unlock()
	if _, ok := r.keys[key]; ok {
		return redis.NewBoolResult(false, nil)
	}
	r.keys[key] = redisValue{string(value.([]byte)), ttl}
	return redis.NewBoolResult(true, nil)
}

func (r *redisMap) Del(_ context.Context, keys ...string) *redis.IntCmd {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, key := range keys {
		delete(r.keys, key)
	}
	return redis.NewIntResult(int64(len(keys)), nil)
}

func (r *redisMap) Eval(_ context.Context, _ string, keys []string, args ...any) *redis.Cmd {
	r.mu.Lock()
	defer r.mu.Unlock()
	if v, ok := r.keys[keys[0]]; !ok || v.text != string(args[0].([]byte)) {
		return redis.NewCmdResult(int64(0), nil)
	}
	r.keys[keys[0]] = redisValue{string(args[1].([]byte)), time.Duration(args[2].(int64)) * time.Millisecond}
	return redis.NewCmdResult(int64(1), nil)
}

func (r *redisMap) EvalSha(ctx context.Context, _ string, keys []string, args ...any) *redis.Cmd {
	return r.Eval(ctx, "", keys, args...)
}

// vectorManager returns a manager with the options of a vector.
func vectorManager(t testing.TB, client session.RedisClient, secrets []vectorSecret, o vectorOptions, s vectorStoreOptions, r vectorRequest) (*session.Manager, error) {
	t.Helper()
	options := expressjs.Options{
		Name: o.Name, Rolling: o.Rolling, Resave: o.Resave, SaveUninitialized: o.SaveUninitialized,
		Store: expressjs.RedisStore{Client: client, DisableTouch: s.DisableTouch},
	}
	for _, secret := range secrets {
		options.Secrets = append(options.Secrets, string(secret))
	}
	if cookie, ok := o.Cookie.(map[string]any); ok {
		options.Cookie = vectorCookie(cookie, r)
	} else if o.Cookie != nil { // the one cookie function of the vectors
		options.Cookie = expressjs.Cookie{Path: r.Path, MaxAge: time.Minute, SameSite: "lax"}
	}
	if s.Prefix != nil {
		options.Store.Prefix, options.Store.NoPrefix = *s.Prefix, *s.Prefix == ""
	}
	switch ttl := s.TTL.(type) {
	case float64:
		options.Store.TTL = time.Duration(ttl) * time.Second
	case string: // the one ttl function of the vectors
		options.Store.TTLFunc = func(values map[string]json.RawMessage) time.Duration {
			if string(values["role"]) == `"admin"` {
				return 77 * time.Second
			}
			return time.Second
		}
	}
	all, err := options.Session()
	if err != nil {
		return nil, err
	}
	return newManager(t, all)
}

func vectorCookie(o map[string]any, r vectorRequest) (c expressjs.Cookie) {
	if ms, ok := o["maxAge"].(float64); ok {
		c.MaxAge = time.Duration(ms * float64(time.Millisecond))
	}
	if date, ok := o["expires"].(string); ok { // which Express turns into a maxAge
		when, _ := time.Parse(time.RFC3339, date)
		c.MaxAge = when.Sub(frozen)
	}
	c.Path, _ = o["path"].(string)
	c.Domain, _ = o["domain"].(string)
	c.Partitioned, _ = o["partitioned"].(bool)
	c.Priority, _ = o["priority"].(string)
	c.Secure = o["secure"] == true || o["secure"] == "auto" && r.HTTPS
	c.ScriptAccess = o["httpOnly"] == false
	switch sameSite := o["sameSite"].(type) {
	case string:
		c.SameSite = sameSite
		if sameSite == "auto" {
			c.SameSite = map[bool]string{true: "none", false: "lax"}[r.HTTPS]
		}
	case bool:
		c.SameSite = map[bool]string{true: "strict", false: ""}[sameSite]
	}
	return c
}

// ask sends one request with a Cookie header.
func ask(m *session.Manager, cookie string, do func(s *session.Session)) *http.Response {
	r := httptest.NewRequest(http.MethodGet, "http://localhost/", nil)
	if cookie != "" {
		r.Header.Set("Cookie", cookie)
	}
	w := httptest.NewRecorder()
	serve(m.Handler(only(do)), w, r)
	return w.Result()
}

const plainCookie = `{"originalMaxAge":null,"expires":null,"httpOnly":true,"path":"/"}`

func TestVectorsSign(t *testing.T) {
	for _, v := range readVectors(t).Sign {
		t.Run(fmt.Sprintf("%q", v.Value), func(t *testing.T) {
			store := newRedisMap()
			m, err := vectorManager(t, store, []vectorSecret{v.Secret}, vectorOptions{}, vectorStoreOptions{}, vectorRequest{})
			if v.Secret == "" {
				if err == nil || !strings.Contains(err.Error(), "Secrets[0] is empty") {
					t.Errorf("an empty secret: error %v", err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			store.keys["sess:"+v.Value] = redisValue{`{"cookie":{"originalMaxAge":60000,"expires":null},"userId":"u1"}`, time.Minute}
			var id string
			response := ask(m, "connect.sid="+v.CookieValue, func(s *session.Session) {
				if id = s.ID(); userKey.Get(s) == "u1" {
					userKey.Set(s, "u2") // so that the cookie is sent again
				}
			})
			if v.Value == "" {
				if id == "" || store.gets > 0 {
					t.Errorf("a signed empty id was looked up %d times", store.gets)
				}
				return
			}
			if id != v.Value {
				t.Errorf("verified as %q", id)
			}
			if c := response.Header.Get("Set-Cookie"); !strings.HasPrefix(c, "connect.sid="+v.CookieValue+";") {
				t.Errorf("signed as %q, want %q", c, v.CookieValue)
			}
		})
	}
}

const userKey session.Key[string] = "userId"

func TestVectorsUnsign(t *testing.T) {
	for _, v := range readVectors(t).Unsign {
		t.Run(v.Name, func(t *testing.T) {
			if v.Secret == "" {
				return // refused, as TestVectorsSign shows
			}
			store := newRedisMap()
			m, err := vectorManager(t, store, []vectorSecret{v.Secret}, vectorOptions{}, vectorStoreOptions{}, vectorRequest{})
			if err != nil {
				t.Fatal(err)
			}
			ask(m, "connect.sid="+percent("s:"+v.Input), func(s *session.Session) { userKey.Get(s) })
			want := v.Result != false && v.Result != ""
			if asked := store.gets > 0; asked != want {
				t.Errorf("the store was asked: %v, want %v", asked, want)
			}
		})
	}
}

// percent encodes every byte.
func percent(s string) string {
	var b strings.Builder
	for i := range len(s) {
		fmt.Fprintf(&b, "%%%02X", s[i])
	}
	return b.String()
}

func TestVectorsIncoming(t *testing.T) {
	v := readVectors(t)
	differs := map[string]string{
		"duplicate, second good": "every cookie of the name is tried, so that a stale one does not lock the user out (expressjs/session#881)",
	}
	for _, in := range v.Incoming {
		t.Run(in.Name, func(t *testing.T) {
			store := newRedisMap()
			store.keys[v.IncomingSetup.RedisKey] = redisValue{v.IncomingSetup.RedisValue, time.Hour}
			m, err := vectorManager(t, store, []vectorSecret{"keyboard cat"}, vectorOptions{}, vectorStoreOptions{}, vectorRequest{})
			if err != nil {
				t.Fatal(err)
			}
			var id string
			ask(m, in.CookieHeader, func(s *session.Session) { id = s.ID() })
			want, asks := in.Accepted, len(in.Commands) > 0
			if _, ok := differs[in.Name]; ok {
				want, asks = true, true
			}
			if accepted := id == v.IncomingSetup.Sid; accepted != want {
				t.Errorf("accepted: %v, want %v", accepted, want)
			}
			if asked := store.gets > 0; asked != asks {
				t.Errorf("the store was asked: %v, want %v", asked, asks)
			}
		})
	}
}

// TestVectorsRead reads what Express has stored, and changes something else.
func TestVectorsRead(t *testing.T) {
	for _, v := range readVectors(t).Sessions {
		if v.RedisValue == "" || v.CookieHeader == "" {
			continue // maxAge 0, which Express does not store, and a secure cookie that it does not send
		}
		t.Run(v.Name, func(t *testing.T) {
			at(t, frozen, func(t *testing.T) {
				store := newRedisMap()
				store.keys[v.RedisKey] = redisValue{v.RedisValue, time.Duration(v.TTL) * time.Second}
				m := foundManager(t, store, v)
				want := rawMembers(t, v.RedisValue)
				var id string
				ask(m, v.CookieHeader, func(s *session.Session) {
					id = s.ID()
					for name, value := range want {
						if name == "cookie" {
							continue
						}
						got := session.Key[json.RawMessage](name).Get(s)
						if !bytes.Equal(got, value) && string(value) != "null" {
							t.Errorf("%q is %s, want %s", name, got, value)
						}
					}
					session.Key[int]("added").Set(s, 1)
				})
				if id != v.Sid {
					t.Fatalf("read the session %q, want %q", id, v.Sid)
				}
				got := rawMembers(t, store.keys[v.RedisKey].text)
				for name, value := range want {
					if !bytes.Equal(got[name], value) {
						t.Errorf("a save left %q as %s, want %s", name, got[name], value)
					}
				}
				if string(got["added"]) != "1" {
					t.Errorf("saved %s", store.keys[v.RedisKey].text)
				}
			})
		})
	}
}

// TestVectorsWrite makes Go store what Express has stored: in a session that it begins
// with the same options, and in one that Express has begun.
func TestVectorsWrite(t *testing.T) {
	for _, v := range readVectors(t).Sessions {
		t.Run(v.Name, func(t *testing.T) {
			if reason, ok := refusedOptions[v.Name]; ok {
				_, err := vectorManager(t, newRedisMap(), v.Secrets, v.Options, v.StoreOptions, v.Request)
				if err == nil || !strings.Contains(err.Error(), reason) {
					t.Errorf("options that are refused: error %v, want %q", err, reason)
				}
			} else {
				at(t, frozen, func(t *testing.T) { writeNew(t, v) })
			}
			if v.RedisValue != "" {
				at(t, frozen, func(t *testing.T) { writeFound(t, v) })
			}
		})
	}
}

// refusedOptions are those of the vectors that have no place in Go, and the error.
var refusedOptions = map[string]string{
	"cookie: maxAge 1 ms":     "must be whole seconds", // JavaScript's milliseconds
	"cookie: maxAge 1001 ms":  "must be whole seconds",
	"cookie: maxAge fraction": "must be whole seconds",
}

func writeNew(t *testing.T, v vectorSession) {
	if v.Name == "cookie: maxAge 0 -> DEL" {
		return // 0 is Go's word for until the browser closes; Destroy is for what Express does here
	}
	store := newRedisMap()
	m, err := vectorManager(t, store, v.Secrets, v.Options, v.StoreOptions, v.Request)
	if err != nil {
		t.Fatal(err)
	}
	var id string
	response := ask(m, "", func(s *session.Session) {
		id = s.ID()
		setMembers(t, s, v.RedisValue)
	})
	if len(id) != len("z5BdRDRItWKy9HKBuwNEB0cawzJxdKMj") || strings.Trim(id, base64url) != "" {
		t.Errorf("the id is %q", id)
	}
	key := strings.TrimSuffix(v.RedisKey, v.Sid) + id
	compareRecord(t, store, key, canonicalCookie(v.RedisValue), v.TTL)

	got, want := response.Header.Get("Set-Cookie"), v.SetCookie
	if v.Name == "cookie: secure over http -> stored, no Set-Cookie" {
		want = "connect.sid=x; Path=/; HttpOnly; Secure" // the TLS may end at a proxy; a log line warns
	}
	gotName, gotRest, _ := strings.Cut(got, "=")
	wantName, wantRest, _ := strings.Cut(want, "=")
	_, gotAttributes, _ := strings.Cut(gotRest, ";")
	_, wantAttributes, _ := strings.Cut(wantRest, ";")
	if gotName != wantName || gotAttributes != wantAttributes {
		t.Errorf("Set-Cookie %q, want %q", got, want)
	}
}

const base64url = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"

func writeFound(t *testing.T, v vectorSession) {
	store := newRedisMap()
	begun := fmt.Sprintf(`{"cookie":%s}`, rawMembers(t, v.RedisValue)["cookie"])
	store.keys[v.RedisKey] = redisValue{begun, time.Hour}
	cookie := v.CookieHeader
	if cookie == "" {
		return
	}
	response := ask(foundManager(t, store, v), cookie, func(s *session.Session) { setMembers(t, s, v.RedisValue) })
	if len(rawMembers(t, v.RedisValue)) == 1 {
		return // nothing was put in, so nothing is saved
	}
	compareRecord(t, store, v.RedisKey, v.RedisValue, v.TTL)
	want := v.SetCookie
	if !strings.Contains(want, "Expires=") {
		want = "" // a cookie that lives until the browser closes is sent once
	}
	if got := response.Header.Get("Set-Cookie"); got != want {
		t.Errorf("begun by Express: Set-Cookie %q, want %q", got, want)
	}
}

// foundManager has the store of a vector and other cookie options, which do not matter
// to a session that is there.
func foundManager(t *testing.T, store *redisMap, v vectorSession) *session.Manager {
	t.Helper()
	options := vectorOptions{Name: v.Options.Name, Cookie: map[string]any{"secure": strings.HasPrefix(v.Options.Name, "__Host-")}}
	m, err := vectorManager(t, store, v.Secrets, options, v.StoreOptions, v.Request)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// setMembers sets every value that a record has.
func setMembers(t *testing.T, s *session.Session, record string) {
	t.Helper()
	for name, value := range rawMembers(t, record) {
		if name != "cookie" {
			session.Key[json.RawMessage](name).Set(s, value)
		}
	}
	if len(rawMembers(t, record)) == 1 {
		s.Touch()
	}
}

func rawMembers(t testing.TB, record string) (members map[string]json.RawMessage) {
	t.Helper()
	if err := json.Unmarshal([]byte(record), &members); err != nil {
		t.Fatalf("%v in %s", err, record)
	}
	return members
}

// parse returns a record's JSON without our own member, numbers as they stand there.
func parse(t testing.TB, record string) map[string]any {
	t.Helper()
	d := json.NewDecoder(strings.NewReader(record))
	d.UseNumber()
	var value map[string]any
	if err := d.Decode(&value); err != nil {
		t.Fatalf("%v in %s", err, record)
	}
	delete(value, "_goSession")
	return value
}

// canonicalCookie writes the attributes as Go does, which Express takes for the same.
func canonicalCookie(record string) string {
	for express, ours := range map[string]string{
		`,"sameSite":false`: ``, `"secure":false,`: ``, `"sameSite":true`: `"sameSite":"strict"`, `"sameSite":"Lax"`: `"sameSite":"lax"`,
		`"originalMaxAge":false,"expires":false`: `"originalMaxAge":null,"expires":null`,
	} {
		record = strings.Replace(record, express, ours, 1)
	}
	return record
}

func compareRecord(t *testing.T, store *redisMap, key, want string, ttl int) {
	t.Helper()
	got, ok := store.keys[key]
	if !ok {
		t.Fatalf("nothing under %q; there is %v", key, slices.Collect(maps.Keys(store.keys)))
	}
	if got, want := parse(t, got.text), parse(t, want); !reflect.DeepEqual(got, want) {
		t.Errorf("stored %v\nwant %v", got, want)
	}
	if want := time.Duration(ttl) * time.Second; got.ttl != want {
		if ttl == -1 && got.ttl > 0 {
			return // disableTTL: every key that Go writes has a time to live
		}
		t.Errorf("time to live %v, want %v", got.ttl, want)
	}
}

// TestVectorsForeign reads and changes records that a program other than Express may
// have written.
func TestVectorsForeign(t *testing.T) {
	v := readVectors(t)
	cookie := v.Foreign[0].CookieHeader
	key := "sess:" + v.ForeignSetup.Sid
	manager := func(t *testing.T, store *redisMap) *session.Manager {
		m, err := vectorManager(t, store, []vectorSecret{"keyboard cat"}, vectorOptions{Cookie: map[string]any{"maxAge": 60000.0}}, vectorStoreOptions{}, vectorRequest{})
		if err != nil {
			t.Fatal(err)
		}
		return m
	}
	for _, f := range v.Foreign {
		t.Run(f.Name, func(t *testing.T) {
			at(t, v.ForeignSetup.Clock, func(t *testing.T) {
				store := newRedisMap()
				store.keys[key] = redisValue{f.RedisValue, time.Hour}
				response := ask(manager(t, store), cookie, func(s *session.Session) {
					if f.Read.Status != http.StatusOK {
						if len(s.Keys()) > 0 || s.ID() == v.ForeignSetup.Sid {
							t.Errorf("what Express cannot read is a session with %q", s.Keys())
						}
						return
					}
					for name, want := range parse(t, f.Read.Seen) {
						if got := parseValue(t, session.Key[json.RawMessage](name).Get(s)); name != "cookie" && !sameValue(got, want) {
							t.Errorf("%q is %v, want %v", name, got, want)
						}
					}
				})
				if response.StatusCode != http.StatusOK || f.Read.Status != http.StatusOK && store.keys[key].text != f.RedisValue {
					t.Errorf("status %d, left %s", response.StatusCode, store.keys[key].text)
				}

				store.keys = map[string]redisValue{key: {f.RedisValue, time.Hour}}
				response = ask(manager(t, store), cookie, func(s *session.Session) { session.Key[int]("n").Set(s, 1) })
				if f.Modify.Status != http.StatusOK || f.RedisValue == "" || f.RedisValue == "null" {
					if store.keys[key].text != f.RedisValue || len(store.keys) != 2 {
						t.Errorf("what is no session was touched, or no new one begun: %v", store.keys)
					}
					return
				}
				got, want := parse(t, store.keys[key].text), parse(t, f.Modify.RedisValue)
				got["cookie"], want["cookie"] = withoutNull(got["cookie"]), withoutNull(want["cookie"])
				maps.DeleteFunc(got, func(name string, _ any) bool {
					_, ok := want[name]
					return !ok && strings.HasPrefix(f.Name, "reserved key") // Express drops them
				})
				if !sameValue(got, want) {
					t.Errorf("saved %v\nwant %v", got, want)
				}
				if ttl := time.Duration(f.Modify.TTL) * time.Second; store.keys[key].ttl != ttl {
					t.Errorf("time to live %v, want %v", store.keys[key].ttl, ttl)
				}
				wantCookie := f.Modify.SetCookie
				switch f.Name {
				case "sameSite bogus": // where Express sends no cookie at all, and an error nobody sees
					wantCookie = v.Foreign[0].Modify.SetCookie
				case "secure true over http": // the TLS may end at a proxy; a log line warns
					wantCookie = v.Foreign[0].Modify.SetCookie + "; Secure"
				}
				if got := response.Header.Get("Set-Cookie"); got != wantCookie {
					t.Errorf("Set-Cookie %q, want %q", got, wantCookie)
				}
			})
		})
	}
}

// withoutNull leaves out what means the same as not being there, and what Express drops.
func withoutNull(cookie any) any {
	m, ok := cookie.(map[string]any)
	if !ok {
		return cookie
	}
	maps.DeleteFunc(m, func(name string, value any) bool {
		return value == nil || name == "goVersion" || name == "signed"
	})
	return m
}

func parseValue(t testing.TB, value []byte) any {
	t.Helper()
	if value == nil {
		return nil
	}
	return parse(t, fmt.Sprintf(`{"v":%s}`, value))["v"]
}

// sameValue compares numbers as JavaScript does.
func sameValue(a, b any) bool {
	switch a := a.(type) {
	case json.Number:
		b, ok := b.(json.Number)
		x, errA := a.Float64()
		y, errB := b.Float64()
		return ok && errors.Join(errA, errB) == nil && x == y
	case map[string]any:
		b, ok := b.(map[string]any)
		if !ok || len(a) != len(b) {
			return false
		}
		for name := range a {
			if !sameValue(a[name], b[name]) {
				return false
			}
		}
		return true
	}
	return reflect.DeepEqual(a, b)
}
