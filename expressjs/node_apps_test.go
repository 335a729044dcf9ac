package expressjs_test

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/seed-4f96e14b/session"
	"github.com/seed-4f96e14b/session/expressjs"
	"github.com/seed-4f96e14b/session/internal/testing/nodetest"
	"github.com/seed-4f96e14b/session/internal/testing/redistest"
	"github.com/seed-4f96e14b/session/internal/testing/suitetest"
)

// apps is a service of two apps, one in Express and one in Go, with the same
// routes and one set of sessions.
type apps struct {
	options         expressjs.Options
	client          *redis.Client // of the Go app
	redis           *redis.Client // of the test
	express, golang side
	handlers        sync.Map // of visitor.inGo, by name
}

// A side is one of the two apps.
type side struct{ name, url string }

type account struct {
	ID   int    `json:"id"`
	Name string `json:"name"`
}

// startApps starts all of it for the test.
func startApps(t *testing.T, options expressjs.Options) *apps {
	t.Helper()
	client := redistest.Client(t)
	a := &apps{client: client, redis: redistest.Admin(t, client.Options().Addr)}
	a.deploy(t, options)
	return a
}

// deploy replaces both apps by new ones, and checks at their end what is in Redis.
func (a *apps) deploy(t *testing.T, options expressjs.Options) {
	t.Helper()
	if options.Secrets == nil {
		options.Secrets = []string{secretA}
	}
	options.Store.Client = a.client
	a.options = options
	redistest.Allow(t, a.client.Options().Addr, "~"+a.prefix()+"*")
	sessions, err := expressjs.New(options) // logs to the default logger, which suitetest watches
	if err != nil {
		t.Fatal(err)
	}
	suitetest.Key(options.Secrets...)
	server := httptest.NewServer(sessions.Handler(a.routes(t)))
	t.Cleanup(server.Close)
	a.golang = side{"Go", server.URL}
	a.express = side{"Express", startNode(t, nodeConfig(options, a.redis.Options().Addr))}
	express := a.express // what is deployed later is stopped first
	t.Cleanup(func() {
		a.express = express
		a.check(t)
	})
}

// nodeConfig returns the options that mean the same in Express.
func nodeConfig(o expressjs.Options, redisAddr string) map[string]any {
	cookie := map[string]any{"httpOnly": !o.Cookie.ScriptAccess}
	if o.Cookie.MaxAge > 0 {
		cookie["maxAge"] = o.Cookie.MaxAge.Milliseconds()
	}
	if o.Cookie.SameSite != "" {
		cookie["sameSite"] = o.Cookie.SameSite
	}
	if o.Cookie.Priority != "" {
		cookie["priority"] = o.Cookie.Priority
	}
	options := map[string]any{
		"secret": o.Secrets, "cookie": cookie,
		"resave": o.Resave, "saveUninitialized": o.SaveUninitialized, "rolling": o.Rolling,
	}
	if o.Name != "" {
		options["name"] = o.Name
	}
	store := map[string]any{"disableTouch": o.Store.DisableTouch}
	if o.Store.Prefix != "" || o.Store.NoPrefix {
		store["prefix"] = o.Store.Prefix
	}
	if o.Store.TTL > 0 {
		store["ttl"] = o.Store.TTL / time.Second
	}
	return map[string]any{"redis": "redis://" + redisAddr, "session": options, "store": store}
}

// routes are those of testdata/node/app.js that can be the same, and one for inGo.
func (a *apps) routes(t *testing.T) http.Handler {
	mux := http.NewServeMux()
	handle := func(pattern string, h func(s *session.Session, name string, body []byte) string) {
		mux.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) {
			body, err := io.ReadAll(r.Body)
			if err != nil {
				t.Errorf("%s: %v", pattern, err)
			}
			io.WriteString(w, h(session.From(r.Context()), r.PathValue("name"), body))
		})
	}
	type value = session.Key[json.RawMessage]
	handle("GET /id", func(s *session.Session, _ string, _ []byte) string { return s.ID() })
	handle("GET /get/{name}", func(s *session.Session, name string, _ []byte) string {
		return string(value(name).Get(s))
	})
	handle("POST /set/{name}", func(s *session.Session, name string, body []byte) string {
		value(name).Set(s, body)
		return ""
	})
	handle("POST /login", func(s *session.Session, _ string, body []byte) string {
		s.Regenerate()
		value("user").Set(s, body)
		return ""
	})
	handle("POST /regenerate", func(s *session.Session, _ string, _ []byte) string {
		s.Regenerate()
		return ""
	})
	handle("POST /logout", func(s *session.Session, _ string, _ []byte) string {
		_ = s.Destroy()
		return ""
	})
	handle("POST /do/{name}", func(s *session.Session, name string, _ []byte) string {
		f, ok := a.handlers.LoadAndDelete(name)
		if !ok {
			t.Errorf("POST /do/%s: no such handler", name)
			return ""
		}
		f.(func(s *session.Session))(s)
		return ""
	})
	return mux
}

// bothWays runs a scenario from Express to Go, and from Go to Express.
func (a *apps) bothWays(t *testing.T, scenario func(t *testing.T, from, to side)) {
	for _, way := range [][2]side{{a.express, a.golang}, {a.golang, a.express}} {
		t.Run(way[0].name+" to "+way[1].name, func(t *testing.T) {
			if err := a.redis.FlushDB(t.Context()).Err(); err != nil {
				t.Fatal(err)
			}
			scenario(t, way[0], way[1])
			a.check(t)
		})
	}
}

func (a *apps) prefix() string {
	if a.options.Store.Prefix == "" && !a.options.Store.NoPrefix {
		return "sess:"
	}
	return a.options.Store.Prefix
}

// check looks at everything in Redis: each key is one of ours and will go by itself, each
// value is a session to Express, and connect-redis can list them all.
func (a *apps) check(t *testing.T) {
	t.Helper()
	ctx := context.Background() // that of the test has ended when it cleans up
	keys, err := a.redis.Keys(ctx, "*").Result()
	if err != nil {
		t.Error(err)
	}
	for _, key := range keys {
		if !strings.HasPrefix(key, a.prefix()) {
			t.Errorf("Redis has the key %s, which has not the prefix %q", key, a.prefix())
		}
		value, err := a.redis.Get(ctx, key).Result()
		if errors.Is(err, redis.Nil) {
			continue // its time to live ended meanwhile
		}
		if err != nil {
			t.Errorf("%s: %v", key, err)
		}
		if ttl := a.redis.PTTL(ctx, key).Val(); ttl == -1 {
			t.Errorf("%s has no time to live", key)
		}
		if value == "" && a.redis.Exists(ctx, key+":renewed").Val() == 1 {
			continue
		}
		var record struct{ Cookie map[string]any }
		if err := json.Unmarshal([]byte(value), &record); err != nil || record.Cookie == nil {
			t.Errorf("%s: Express cannot read %s", key, value)
		}
	}
	a.list(t)
}

// A listing is what connect-redis's all, length and ids say.
type listing struct {
	All    []map[string]json.RawMessage
	Length int
	IDs    []string
}

func (a *apps) list(t *testing.T) *listing {
	t.Helper()
	var l listing
	response, err := http.Get(a.express.url + "/store")
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	body, _ := io.ReadAll(response.Body)
	if response.StatusCode != http.StatusOK || json.Unmarshal(body, &l) != nil {
		t.Errorf("connect-redis cannot list the sessions: %d %s", response.StatusCode, body)
	}
	return &l
}

// of returns the sessions in which somebody is logged in.
func (l *listing) of(user string) (all []map[string]json.RawMessage) {
	for _, session := range l.All {
		if string(session["user"]) == user {
			all = append(all, session)
		}
	}
	return all
}

// record returns the members of what Redis has of a session.
func (a *apps) record(t *testing.T, id string) map[string]json.RawMessage {
	t.Helper()
	value, err := a.redis.Get(t.Context(), a.prefix()+id).Result()
	if err != nil {
		t.Fatalf("the session in Redis: %v", err)
	}
	var members map[string]json.RawMessage
	if err := json.Unmarshal([]byte(value), &members); err != nil {
		t.Fatalf("the session in Redis: %v in %s", err, value)
	}
	return members
}

// has reports whether Redis has anything of a session that is not empty.
func (a *apps) has(t *testing.T, id string) bool {
	t.Helper()
	n, err := a.redis.StrLen(t.Context(), a.prefix()+id).Result()
	if err != nil {
		t.Fatal(err)
	}
	return n > 0
}

// ends returns when Redis will delete a session.
func (a *apps) ends(t *testing.T, id string) time.Time {
	t.Helper()
	ttl, err := a.redis.PTTL(t.Context(), a.prefix()+id).Result()
	if err != nil || ttl < 0 {
		t.Fatalf("time to live of the session: %v, %v", ttl, err)
	}
	return time.Now().Add(ttl)
}

// A visitor is a browser: its cookie goes to both sides, which have one host.
type visitor struct {
	t         *testing.T
	apps      *apps
	client    *http.Client
	setCookie string // of the last response
}

func (a *apps) visitor(t *testing.T) *visitor {
	jar, err := cookiejar.New(nil)
	if err != nil {
		t.Fatal(err)
	}
	return &visitor{t: t, apps: a, client: &http.Client{Jar: jar, Timeout: time.Minute}}
}

// copy returns somebody who has the cookie as it is now.
func (v *visitor) copy() *visitor {
	c := v.apps.visitor(v.t)
	u, _ := url.Parse(v.apps.golang.url)
	c.client.Jar.SetCookies(u, v.client.Jar.Cookies(u))
	return c
}

// cookie returns the value of the cookie.
func (v *visitor) cookie() string {
	v.t.Helper()
	u, _ := url.Parse(v.apps.golang.url)
	cookies := v.client.Jar.Cookies(u)
	if len(cookies) != 1 {
		v.t.Fatalf("the browser has %d cookies", len(cookies))
	}
	return cookies[0].Value
}

// id returns the session's id, as the cookie has it.
func (v *visitor) id() string {
	v.t.Helper()
	value, err := url.PathUnescape(v.cookie())
	signed, ok := strings.CutPrefix(value, "s:")
	i := strings.LastIndexByte(signed, '.')
	if err != nil || !ok || i < 0 {
		v.t.Fatal("the cookie is not signed")
	}
	return signed[:i]
}

// send returns the answer's status and body.
func (v *visitor) send(method string, to side, path, body string) (int, string) {
	v.t.Helper()
	request, err := http.NewRequest(method, to.url+path, strings.NewReader(body))
	if err != nil {
		v.t.Fatal(err)
	}
	response, err := v.client.Do(request)
	if err != nil {
		v.t.Errorf("%s %s %s: %v", to.name, method, path, err)
		return 0, ""
	}
	defer response.Body.Close()
	answer, err := io.ReadAll(response.Body)
	if err != nil {
		v.t.Errorf("%s %s %s: %v", to.name, method, path, err)
	}
	v.setCookie = response.Header.Get("Set-Cookie")
	return response.StatusCode, string(answer)
}

func (v *visitor) ok(method string, to side, path, body string) string {
	v.t.Helper()
	status, answer := v.send(method, to, path, body)
	if status != http.StatusOK {
		v.t.Errorf("%s %s %s: %d %s", to.name, method, path, status, answer)
	}
	return answer
}

func (v *visitor) get(from side, path string) string {
	v.t.Helper()
	return v.ok("GET", from, path, "")
}

func (v *visitor) post(to side, path, body string) string {
	v.t.Helper()
	return v.ok("POST", to, path, body)
}

func (v *visitor) want(from side, path, want string) {
	v.t.Helper()
	if got := v.get(from, path); got != want {
		v.t.Errorf("%s GET %s: %s, want %s", from.name, path, orNothing(got), orNothing(want))
	}
}

// wantAnonymous says that neither side knows the visitor.
func (v *visitor) wantAnonymous() {
	v.t.Helper()
	for _, side := range []side{v.apps.express, v.apps.golang} {
		c := v.copy() // a new session that a side begins is not for the other
		c.want(side, "/get/user", "")
	}
}

func (v *visitor) wantBoth(path, want string) {
	v.t.Helper()
	v.want(v.apps.express, path, want)
	v.want(v.apps.golang, path, want)
}

func orNothing(s string) string {
	if s == "" {
		return "nothing"
	}
	return s
}

// inGo makes a request whose handler, in Go, is f.
func (v *visitor) inGo(f func(s *session.Session)) {
	v.t.Helper()
	name := fmt.Sprintf("%p", &f)
	v.apps.handlers.Store(name, f)
	v.post(v.apps.golang, "/do/"+name, "")
}

// slowInGo makes a request whose handler, in Go, loads the session, waits until
// meanwhile is done, and then is f.
func (v *visitor) slowInGo(meanwhile func(), f func(s *session.Session)) {
	v.t.Helper()
	loaded, goOn, done := make(chan struct{}), make(chan struct{}), make(chan struct{})
	slow := v.copy() // so that the answer does not change the browser's cookie
	go func() {
		defer close(done)
		slow.inGo(func(s *session.Session) {
			s.Keys()
			close(loaded)
			<-goOn
			f(s)
		})
	}()
	select {
	case <-loaded:
	case <-done:
		v.t.Fatal("the handler in Go has not run")
	}
	meanwhile()
	close(goOn)
	<-done
}

// slowOnExpress makes a request that loads the session, waits until meanwhile is done,
// and then sets a value. It returns the status.
func (v *visitor) slowOnExpress(meanwhile func(), path, value string) (status int) {
	v.t.Helper()
	done := make(chan struct{})
	slow := v.copy()
	go func() {
		defer close(done)
		status, _ = slow.send("POST", v.apps.express, "/slow/"+path, value)
	}()
	v.get(v.apps.express, "/held")
	meanwhile()
	v.post(v.apps.express, "/release", "")
	<-done
	return status
}

// startNode runs testdata/node/app.js until the test ends, and returns its URL. Where
// Node or its packages are not to be had the test is skipped, but in CI it fails.
func startNode(t *testing.T, config any) string {
	t.Helper()
	nodetest.Install(t, nodeDir)
	settings, err := json.Marshal(config)
	if err != nil {
		t.Fatal(err)
	}
	app := exec.Command("node", "app.js")
	app.Dir = nodeDir
	app.Env = append(os.Environ(), "APP_CONFIG="+string(settings))
	app.Stderr = t.Output()
	stdin, err := app.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := app.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := app.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		stdin.Close()
		app.Wait()
	})
	port, err := bufio.NewReader(stdout).ReadString('\n')
	if err != nil {
		t.Fatalf("the Express app does not start: %v", err)
	}
	return "http://127.0.0.1:" + strings.TrimSpace(port)
}

const nodeDir = "testdata/node"

// expires returns what the JSON of a session says of its end.
func (a *apps) expires(t *testing.T, id string) time.Time {
	t.Helper()
	var cookie struct{ Expires time.Time }
	if err := json.Unmarshal(a.record(t, id)["cookie"], &cookie); err != nil {
		t.Fatal(err)
	}
	return cookie.Expires
}
