package main

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"log"
	"maps"
	"net"
	"net/http"
	"net/http/cookiejar"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/seed-4f96e14b/session/internal/testing/redistest"
)

const (
	secret    = "only for the tests of this example"
	ada       = `{"email":"ada@example.com","password":"analytical engine"}`
	bob       = `{"email":"bob@example.com","password":"a builder's password"}`
	adaUser   = `{"userId":1,"email":"ada@example.com","role":"user"}`
	adaAdmin  = `{"userId":1,"email":"ada@example.com","role":"admin"}`
	bobUser   = `{"userId":2,"email":"bob@example.com","role":"user"}`
	noSession = `{"error":"not logged in"}`
)

func TestService(t *testing.T) {
	t.Run("memory", func(t *testing.T) {
		testService(t, env{})
	})
	t.Run("development", func(t *testing.T) {
		testService(t, env{"APP_ENV": "development"})
	})
	t.Run("redis", func(t *testing.T) {
		testService(t, env{"SESSION_SECRET": secret, "REDIS_URL": redistest.URL("redis", redistest.Start(t))})
	})
}

func testService(t *testing.T, env env) {
	url := serve(t, env)
	b := newBrowser(t, url)
	b.expect("GET", "/me", "", 401, noSession)
	b.expect("PATCH", "/session", `{"role":"admin"}`, 401, noSession)
	b.expect("POST", "/logout", "", 204, "")
	for _, wrong := range []string{`{"email":"ada@example.com","password":"wrong"}`, `{"email":"eve@example.com","password":""}`, `{}`} {
		b.expect("POST", "/login", wrong, 401, `{"error":"wrong email or password"}`)
	}
	for _, bad := range []string{``, `{`, `[]`, `"x"`, `{"email":1}`, `{"email":"` + strings.Repeat("x", 1<<20) + `"}`} {
		b.expect("POST", "/login", bad, 400, `{"error":"the body is not the JSON that this path takes"}`)
	}
	b.expect("GET", "/me", "", 401, noSession)

	b.expect("POST", "/login", ada, 200, adaUser)
	b.expect("GET", "/me", "", 200, adaUser)
	stolen := b.copy() // somebody has seen the cookie of before
	b.expect("PATCH", "/session", `{"role":"admin"}`, 200, adaAdmin)
	b.expect("GET", "/me", "", 200, adaAdmin)
	stolen.expect("GET", "/me", "", 401, noSession)
	b.expect("PATCH", "/session", `{"role":"owner"}`, 403, `{"error":"you do not have that role"}`)

	other := newBrowser(t, url)
	other.expect("POST", "/login", bob, 200, bobUser)
	other.expect("PATCH", "/session", `{"role":"admin"}`, 403, `{"error":"you do not have that role"}`)

	before := b.copy()
	b.expect("POST", "/login", bob, 200, bobUser) // another login, another session
	before.expect("GET", "/me", "", 401, noSession)
	before = b.copy()
	b.expect("POST", "/logout", "", 204, "")
	b.expect("GET", "/me", "", 401, noSession)
	before.expect("GET", "/me", "", 401, noSession)
	other.expect("GET", "/me", "", 200, bobUser)

	// Another site cannot make a browser log in or out.
	request, _ := http.NewRequest("POST", url+"/logout", nil)
	request.Header.Set("Sec-Fetch-Site", "cross-site")
	response, err := other.client.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	response.Body.Close()
	if response.StatusCode != http.StatusForbidden {
		t.Errorf("cross-site logout: status %d", response.StatusCode)
	}
	other.expect("GET", "/me", "", 200, bobUser)
}

// Unset, the cookie is the safe one.
func TestCookieInProduction(t *testing.T) {
	for _, env := range []env{{}, {"APP_ENV": "production"}} {
		response, err := http.Post(serve(t, env)+"/login", "application/json", strings.NewReader(ada))
		if err != nil {
			t.Fatal(err)
		}
		response.Body.Close()
		cookie := response.Header.Get("Set-Cookie")
		if !strings.HasPrefix(cookie, "__Host-sid=") || !strings.HasSuffix(cookie, "; Path=/; Max-Age=86400; HttpOnly; Secure; SameSite=Lax") {
			t.Errorf("cookie %q", cookie)
		}
	}
}

// When Redis is gone, nobody is told that he is not logged in.
func TestOutage(t *testing.T) {
	url := serve(t, env{"SESSION_SECRET": secret, "REDIS_URL": "redis://127.0.0.1:1/0"})
	newBrowser(t, url).expect("POST", "/login", ada, 503, `{"error":"the session could not be read or saved; try again"}`)
}

// With rediss:// the program talks to Redis over TLS alone, and to a server that its CA
// vouches for.
func TestTLS(t *testing.T) {
	addr, caFile := redistest.StartTLS(t)
	_, otherCA := redistest.StartTLS(t)
	plain := redistest.Start(t)
	unavailable := `{"error":"the session could not be read or saved; try again"}`
	for name, tt := range map[string]struct {
		server string
		ca     env
		trusts bool
	}{
		"its CA":               {addr, env{"REDIS_CA_FILE": caFile}, true},
		"the system's CAs":     {addr, env{}, false},
		"another CA":           {addr, env{"REDIS_CA_FILE": otherCA}, false},
		"a server without TLS": {plain, env{"REDIS_CA_FILE": caFile}, false},
	} {
		t.Run(name, func(t *testing.T) {
			var book strings.Builder
			log.SetOutput(&book)
			t.Cleanup(func() { log.SetOutput(os.Stderr) })
			wire := tap(t, tt.server)
			env := env{"SESSION_SECRET": secret, "REDIS_URL": redistest.URL("rediss", wire.addr)}
			maps.Copy(env, tt.ca)
			b := newBrowser(t, serve(t, env))
			if tt.trusts {
				b.expect("POST", "/login", ada, 200, adaUser)
				b.expect("GET", "/me", "", 200, adaUser)
				before := b.copy()
				b.expect("POST", "/logout", "", 204, "")
				before.expect("GET", "/me", "", 401, noSession)
			} else {
				b.expect("POST", "/login", ada, 503, unavailable)
			}
			for _, sent := range wire.all(t) {
				if !strings.HasPrefix(sent, "\x16\x03") || strings.Contains(sent, redistest.Password) || strings.Contains(sent, "sess:") {
					t.Errorf("on the wire: %.40q", sent)
				}
			}
			wantLines := 1
			if tt.trusts {
				wantLines = 0
			}
			if log := book.String(); strings.Count(log, "\n") != wantLines || strings.Contains(log, redistest.Password) {
				t.Errorf("the log: %s", log)
			}
		})
	}
}

// A wire passes on connections to a server, and keeps what goes there.
type wire struct {
	addr string
	mu   sync.Mutex
	sent []*bytes.Buffer // by connection
}

func tap(t *testing.T, server string) *wire {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { listener.Close() })
	w := &wire{addr: listener.Addr().String()}
	go func() {
		for {
			near, err := listener.Accept()
			if err != nil {
				return
			}
			far, err := net.Dial("tcp", server)
			if err != nil {
				near.Close()
				continue
			}
			sent := new(bytes.Buffer)
			w.mu.Lock()
			w.sent = append(w.sent, sent)
			w.mu.Unlock()
			go func() {
				io.Copy(near, far)
				near.Close()
			}()
			go func() {
				io.Copy(far, io.TeeReader(near, w.into(sent)))
				far.Close()
			}()
		}
	}()
	return w
}

func (w *wire) into(sent *bytes.Buffer) io.Writer {
	return writerFunc(func(p []byte) (int, error) {
		w.mu.Lock()
		defer w.mu.Unlock()
		return sent.Write(p)
	})
}

// all returns what each connection has sent, when one has.
func (w *wire) all(t *testing.T) (all []string) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
		w.mu.Lock()
		for _, sent := range w.sent {
			if sent.Len() > 0 {
				all = append(all, sent.String())
			}
		}
		w.mu.Unlock()
		if len(all) > 0 {
			return all
		}
	}
	t.Fatal("nobody has sent anything")
	return nil
}

type writerFunc func(p []byte) (int, error)

func (f writerFunc) Write(p []byte) (int, error) { return f(p) }

func TestBadConfiguration(t *testing.T) {
	empty := filepath.Join(t.TempDir(), "empty.pem")
	if err := os.WriteFile(empty, []byte("no certificate"), 0o600); err != nil {
		t.Fatal(err)
	}
	rediss := func(file string) env {
		return env{"SESSION_SECRET": secret, "REDIS_URL": "rediss://sessions:geheim@localhost/0", "REDIS_CA_FILE": file}
	}
	for _, tt := range []struct {
		env  env
		want string
	}{
		{env{"SESSION_SECRET": ""}, "variable that is not set"},
		{env{"SESSION_SECRET": "short"}, "needs 32 or more"},
		{env{"SESSION_SECRET": secret + ",short"}, "Secrets[1]"},
		{env{"REDIS_URL": "redis://localhost:6379/0"}, "need a secret"},
		{env{"REDIS_URL": "localhost", "SESSION_SECRET": secret}, "REDIS_URL"},
		{env{"REDIS_URL": "redis://sessions:geheim@localhost:x/0", "SESSION_SECRET": secret}, "REDIS_URL is not as redis://"},
		{env{"REDIS_URL": "redis://sessions:geheim/x@localhost", "SESSION_SECRET": secret}, "in the password as %2F"},
		{env{"REDIS_URL": "redis://sessions:1/geheim@localhost", "SESSION_SECRET": secret}, "in the password as %2F"},
		{rediss(""), "REDIS_CA_FILE is set and empty"},
		{rediss(empty + ".gone"), "REDIS_CA_FILE: open"},
		{rediss(empty), "no certificate in"},
		{env{"REDIS_CA_FILE": empty}, "REDIS_URL does not begin with rediss://"},
		{env{"REDIS_CA_FILE": empty, "REDIS_URL": "redis://localhost", "SESSION_SECRET": secret}, "REDIS_URL does not begin with rediss://"},
		{env{"APP_ENV": "prod"}, "use production or development"},
		{env{"PORT": "no port"}, "listen"},
		{env{"PORT": ""}, "PORT is set and empty"},
	} {
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		err := run(ctx, tt.env.lookup, func(string) {})
		cancel()
		if err == nil || !strings.Contains(err.Error(), tt.want) || strings.Contains(err.Error(), "geheim") {
			t.Errorf("%v: error %v, want one with %q and no password", tt.env, err, tt.want)
		}
	}
}

type env map[string]string

func (e env) lookup(name string) (string, bool) {
	value, ok := e[name]
	return value, ok
}

// serve runs the program until the test ends, and returns its URL.
func serve(t *testing.T, env env) string {
	t.Helper()
	env["PORT"] = "0" // any that is free
	ctx, stop := context.WithCancel(context.Background())
	listening, done := make(chan string, 1), make(chan error, 1)
	go func() { done <- run(ctx, env.lookup, func(url string) { listening <- url }) }()
	t.Cleanup(stop)
	select {
	case url := <-listening:
		t.Cleanup(func() {
			stop()
			if err := <-done; err != nil {
				t.Errorf("run: %v", err)
			}
		})
		return url
	case err := <-done:
		t.Fatalf("run: %v", err)
		return ""
	}
}

type browser struct {
	t      *testing.T
	client *http.Client
	url    string
}

func newBrowser(t *testing.T, url string) *browser {
	jar, err := cookiejar.New(nil)
	if err != nil {
		t.Fatal(err)
	}
	return &browser{t, &http.Client{Jar: jar}, url}
}

func (b *browser) copy() *browser {
	c := newBrowser(b.t, b.url)
	request, _ := http.NewRequest("GET", b.url, nil)
	c.client.Jar.SetCookies(request.URL, b.client.Jar.Cookies(request.URL))
	return c
}

func (b *browser) expect(method, path, body string, wantStatus int, wantBody string) {
	b.t.Helper()
	request, err := http.NewRequest(method, b.url+path, strings.NewReader(body))
	if err != nil {
		b.t.Fatal(err)
	}
	response, err := b.client.Do(request)
	if err != nil {
		b.t.Fatal(err)
	}
	defer response.Body.Close()
	got, _ := io.ReadAll(response.Body)
	if response.StatusCode != wantStatus || strings.TrimSpace(string(got)) != wantBody {
		b.t.Errorf("%s %s: %d %s, want %d %s", method, path, response.StatusCode, got, wantStatus, wantBody)
	}
	if wantBody != "" && (response.Header.Get("Content-Type") != "application/json" || !json.Valid(got)) {
		b.t.Errorf("%s %s: the answer is no JSON", method, path)
	}
}
