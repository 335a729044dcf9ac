package session_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/seed-4f96e14b/session"
	"github.com/seed-4f96e14b/session/internal/testing/redistest"
)

// browse opens the page in a real Chromium, and returns when reported is closed. Where
// Chromium is not installed the test is skipped, but in CI it fails.
func browse(t *testing.T, url string, reported <-chan struct{}) {
	t.Helper()
	path, err := exec.LookPath("chromium")
	switch {
	case err != nil && os.Getenv("CI") == "":
		t.Skip("chromium is not installed (Debian: apt-get install chromium): skipping what needs a real browser")
	case err != nil:
		t.Fatal(err)
	}
	// Without a sandbox, which root cannot have: the page is ours.
	command := exec.Command(path, "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-dev-shm-usage",
		"--disable-background-networking", "--disable-component-update", "--disable-sync", "--ignore-certificate-errors",
		"--user-data-dir="+t.TempDir(), "--remote-debugging-port=0", url)
	command.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := command.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		syscall.Kill(-command.Process.Pid, syscall.SIGKILL)
		command.Wait()
	}()
	select {
	case <-reported:
	case <-time.After(2 * time.Minute):
		t.Fatal("the page has reported nothing")
	}
}

// rotationPage renews the session again and again, and beside each renewal sends many
// requests at once. It reports how they were answered.
const rotationPage = `<!doctype html><script>
const report = {anonymous: 0, failed: 0, sent: 0};
async function ask(path) {
	const response = await fetch(path, {method: 'POST'});
	if (path === '/count') report.sent++;
	if (response.status !== 200) report.failed++;
	else if (await response.text() !== 'x') report.anonymous++;
}
(async () => {
	await ask('/login');
	for (let renewal = 0; renewal < 20; renewal++) {
		const all = [];
		for (let i = 0; i < 20; i++) all.push(ask('/read'), ask('/read'), ask('/count'));
		await Promise.all(all.slice(0, 5)); // and the others are under way
		all.push(ask('/renew'));
		for (let i = 0; i < 10; i++) all.push(ask('/read'), ask('/count'));
		await Promise.all(all);
	}
	await fetch('/report', {method: 'POST', body: JSON.stringify(report)});
})();
</script>`

// In a real browser, which sends requests in parallel and takes cookies as they come, a
// rotation logs nobody out and drops nothing.
func TestChromiumRotation(t *testing.T) {
	for name, store := range map[string]func(t *testing.T) session.Store{
		"memory": func(*testing.T) session.Store { return new(session.MemoryStore) },
		"redis": func(t *testing.T) session.Store {
			client := redis.NewClient(redistest.Options(redistest.Start(t)))
			t.Cleanup(func() { client.Close() })
			return &session.RedisStore{Client: client}
		},
	} {
		t.Run(name, func(t *testing.T) {
			sessions := newManager(t, session.Options{Store: store(t), StoreTimeout: time.Minute})
			var report struct{ Anonymous, Failed, Sent int }
			var counter, cookies atomic.Int64
			reported := make(chan struct{})
			mux := http.NewServeMux()
			mux.HandleFunc("GET /", func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, rotationPage) })
			answer := func(do func(s *session.Session)) http.HandlerFunc {
				return func(w http.ResponseWriter, r *http.Request) {
					s := session.From(r.Context())
					do(s)
					fmt.Fprint(w, nameKey.Get(s))
				}
			}
			mux.HandleFunc("POST /login", answer(func(s *session.Session) { s.Regenerate(); nameKey.Set(s, "x") }))
			mux.HandleFunc("POST /read", answer(func(s *session.Session) {}))
			mux.HandleFunc("POST /count", answer(func(s *session.Session) { counterKey.Update(s, increment) }))
			mux.HandleFunc("POST /renew", answer(func(s *session.Session) { s.Renew(30 * time.Second) }))
			mux.HandleFunc("POST /report", func(w http.ResponseWriter, r *http.Request) {
				if err := json.NewDecoder(r.Body).Decode(&report); err != nil {
					t.Error(err)
				}
				counter.Store(int64(counterKey.Get(session.From(r.Context()))))
				close(reported)
			})
			server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				sessions.Handler(mux).ServeHTTP(w, r)
				cookies.Add(int64(len(w.Header()["Set-Cookie"])))
			}))
			server.EnableHTTP2 = true
			server.StartTLS()
			defer server.Close()
			browse(t, server.URL, reported)
			check(t, "requests that were anonymous, or failed", report.Anonymous+report.Failed, 0)
			check(t, "counter", int(counter.Load()), report.Sent)
			check(t, "requests that counted", report.Sent, 20*30)
			check(t, "cookies, of the login and the renewals", cookies.Load(), 1+20)
		})
	}
}
