package main

import (
	"bufio"
	"context"
	"io"
	"net/http"
	"net/http/cookiejar"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/seed-4f96e14b/session/internal/testing/nodetest"
	"github.com/seed-4f96e14b/session/internal/testing/redistest"
)

const (
	secret    = "only for the tests of this example"
	login     = `{"email":"ada@example.com","password":"analytical engine"}`
	noSession = `{"error":"not logged in"}`
)

func TestOneLogin(t *testing.T) {
	url, expressURL := serveBoth(t, env{})
	b := newBrowser(t, url)
	b.expect("GET", "/home", "", 401, noSession)
	b.expect("GET", "/account", "", 401, noSession)
	b.expect("POST", "/account", `{"theme":"dark"}`, 401, noSession)
	b.expect("POST", "/login", `{"email":"ada@example.com","password":"wrong"}`, 401, `{"error":"wrong email or password"}`)

	b.expect("POST", "/login", login, 200, `{"id":1,"name":"Ada"}`)
	b.expect("GET", "/account", "", 200, `{"name":"Ada","theme":"light","from":"Go"}`)
	for _, bad := range []string{``, `{`, `{"theme":1}`, `{"theme":"pink"}`} {
		b.expect("POST", "/account", bad, 400, `{"error":"the theme is light or dark"}`)
	}
	b.expect("POST", "/account", `{"theme":"dark"}`, 200, `{"name":"Ada","theme":"dark","from":"Go"}`)
	b.expect("GET", "/home", "", 200, `{"hello":"Ada","theme":"dark","from":"Express"}`)

	// The route that has moved still works where it was, if the proxy sends it there.
	direct := &browser{t, b.client, expressURL}
	direct.expect("GET", "/account", "", 200, `{"name":"Ada","theme":"dark","from":"Express"}`)
	direct.expect("POST", "/account", `{"theme":"light"}`, 200, `{"name":"Ada","theme":"light","from":"Express"}`)
	b.expect("GET", "/account", "", 200, `{"name":"Ada","theme":"light","from":"Go"}`)

	before := b.copy()
	b.expect("POST", "/login", login, 200, `{"id":1,"name":"Ada"}`) // another login, another session
	before.expect("GET", "/account", "", 401, noSession)
	before = b.copy()
	b.expect("POST", "/logout", "", 204, "")
	b.expect("GET", "/account", "", 401, noSession)
	before.expect("GET", "/account", "", 401, noSession)
	before.expect("GET", "/home", "", 401, noSession)
}

// What the README shows of curl is what happens, word for word.
func TestReadme(t *testing.T) {
	if _, err := exec.LookPath("curl"); err != nil {
		t.Skip("curl is not installed: skipping the README's lines")
	}
	readme, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	url, expressURL := serveBoth(t, env{})
	hosts := strings.NewReplacer("curl ", "curl -s ", "localhost:8080", url, "localhost:3000", expressURL)
	dir := t.TempDir()
	tried := 0
	for _, block := range regexp.MustCompile("(?s)```console\n(.*?)```").FindAllSubmatch(readme, -1) {
		for _, step := range strings.Split(string(block[1]), "$ ")[1:] {
			line, want, _ := strings.Cut(step, "\n")
			shell := exec.CommandContext(t.Context(), "sh", "-c", hosts.Replace(line))
			shell.Dir = dir
			got, err := shell.Output()
			if string(got) != want || err != nil {
				t.Errorf("$ %s\n%s%v, want\n%s", line, got, err, want)
			}
			tried++
		}
	}
	if tried == 0 {
		t.Error("the README has nothing to try")
	}
}

// Behind TLS both sides send a secure cookie, and send it over TLS only.
func TestCookieInProduction(t *testing.T) {
	url, _ := serveBoth(t, env{"APP_ENV": "production"})
	request := func(method, path, body, cookie string) *http.Response {
		r, err := http.NewRequest(method, url+path, strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Content-Type", "application/json")
		r.Header.Set("Cookie", cookie)
		response, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		response.Body.Close()
		return response
	}
	attributes := regexp.MustCompile(`^shop\.sid=s%3A\S+; Path=/; Expires=[^;]+; HttpOnly; Secure; SameSite=Lax$`)
	cookie := request("POST", "/login", login, "").Header.Get("Set-Cookie")
	if !attributes.MatchString(cookie) {
		t.Errorf("cookie of Express: %q", cookie)
	}
	pair, _, _ := strings.Cut(cookie, ";")
	changed := request("POST", "/account", `{"theme":"dark"}`, pair)
	if cookie := changed.Header.Get("Set-Cookie"); changed.StatusCode != http.StatusOK || !attributes.MatchString(cookie) {
		t.Errorf("Go: status %d, cookie %q", changed.StatusCode, cookie)
	}
}

// When Redis or Express is gone, nobody is told that he is not logged in.
func TestOutage(t *testing.T) {
	url, _ := serveBoth(t, env{})
	b := newBrowser(t, url)
	b.expect("POST", "/login", login, 200, `{"id":1,"name":"Ada"}`)
	b.url = serve(t, env{"SESSION_SECRET": secret, "REDIS_URL": "redis://127.0.0.1:1/0", "EXPRESS_URL": "http://127.0.0.1:1"})
	b.expect("GET", "/account", "", 503, `{"error":"the session could not be read or saved; try again"}`)
	b.expect("GET", "/home", "", 502, `{"error":"the Express app does not answer"}`)
}

// Another site cannot make a browser change something by a route that has moved.
func TestCrossOrigin(t *testing.T) {
	url := serve(t, env{"SESSION_SECRET": secret})
	request, _ := http.NewRequest("POST", url+"/account", strings.NewReader(`{"theme":"dark"}`))
	request.Header.Set("Sec-Fetch-Site", "cross-site")
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	response.Body.Close()
	if response.StatusCode != http.StatusForbidden {
		t.Errorf("status %d", response.StatusCode)
	}
}

func TestBadConfiguration(t *testing.T) {
	for _, tt := range []struct {
		env  env
		want string
	}{
		{env{}, "SESSION_SECRET is not set"},
		{env{"SESSION_SECRET": ""}, "variable that is not set"},
		{env{"SESSION_SECRET": secret + "," + secret}, "Secrets[1]"},
		{env{"SESSION_SECRET": secret, "REDIS_URL": "localhost"}, "REDIS_URL"},
		{env{"SESSION_SECRET": secret, "EXPRESS_URL": ""}, "EXPRESS_URL is"},
		{env{"SESSION_SECRET": secret, "EXPRESS_URL": "localhost:3000"}, "EXPRESS_URL is"},
		{env{"SESSION_SECRET": secret, "APP_ENV": "prod"}, "use development or production"},
		{env{"SESSION_SECRET": secret, "PORT": "no port"}, "listen"},
		{env{"SESSION_SECRET": secret, "PORT": ""}, "PORT is set and empty"},
	} {
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		err := run(ctx, tt.env.lookup, func(string) {})
		cancel()
		if err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%v: error %v, want one with %q", tt.env, err, tt.want)
		}
	}
}

func TestBadConfigurationOfExpress(t *testing.T) {
	for _, tt := range []struct {
		env  env
		want string
	}{
		{env{"SESSION_SECRET": ""}, "SESSION_SECRET is not set"},
		{env{"REDIS_URL": "localhost"}, "REDIS_URL is no URL"},
		{env{"PORT": "no port"}, "PORT is"},
		{env{"APP_ENV": "prod"}, "use development or production"},
	} {
		var output strings.Builder
		app := expressApp(t, env{"SESSION_SECRET": secret}, tt.env)
		app.Stderr = &output
		if err := app.Run(); err == nil || !strings.Contains(output.String(), tt.want) {
			t.Errorf("%v: error %v, and it says %s", tt.env, err, &output)
		}
	}
}

type env map[string]string

func (e env) lookup(name string) (string, bool) {
	value, ok := e[name]
	return value, ok
}

// serveBoth runs Redis, the Express app and the program until the test ends.
func serveBoth(t *testing.T, more env) (url, expressURL string) {
	t.Helper()
	addr := redistest.Start(t)
	both := env{"SESSION_SECRET": secret, "REDIS_URL": "redis://" + addr + "/0"}
	for name, value := range more {
		both[name] = value
	}
	both["EXPRESS_URL"] = serveExpress(t, both)
	redistest.Allow(t, addr, "~shop:*")
	both["REDIS_URL"] = redistest.URL("redis", addr) // connect-redis needs other rights
	return serve(t, both), both["EXPRESS_URL"]
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

// serveExpress runs node/app.js until the test ends, and returns its URL.
func serveExpress(t *testing.T, env env) string {
	t.Helper()
	app := expressApp(t, env, map[string]string{"PORT": "0"})
	app.Stderr = t.Output()
	stdout, err := app.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := app.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		app.Process.Signal(syscall.SIGTERM)
		if err := app.Wait(); err != nil {
			t.Errorf("the Express app did not shut down in good order: %v", err)
		}
	})
	line, err := bufio.NewReader(stdout).ReadString('\n')
	url, ok := strings.CutPrefix(strings.TrimSpace(line), "listening on ")
	if err != nil || !ok {
		t.Fatalf("the Express app does not start: %q, %v", line, err)
	}
	return url
}

// expressApp returns node/app.js, not started, with the variables. Where Node or its
// packages are not to be had the test is skipped.
func expressApp(t *testing.T, variables ...env) *exec.Cmd {
	t.Helper()
	nodetest.Install(t, "node")
	app := exec.Command("node", "app.js")
	app.Dir = "node"
	app.Env = os.Environ()
	for _, env := range variables {
		for name, value := range env {
			app.Env = append(app.Env, name+"="+value)
		}
	}
	return app
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
	request.Header.Set("Content-Type", "application/json")
	response, err := b.client.Do(request)
	if err != nil {
		b.t.Fatal(err)
	}
	defer response.Body.Close()
	got, _ := io.ReadAll(response.Body)
	if response.StatusCode != wantStatus || strings.TrimSpace(string(got)) != wantBody {
		b.t.Errorf("%s %s: %d %s, want %d %s", method, path, response.StatusCode, got, wantStatus, wantBody)
	}
}
