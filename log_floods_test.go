package session_test

import (
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/seed-4f96e14b/session"
	"github.com/seed-4f96e14b/session/internal/testing/redistest"
)

const flood = 100_000

// Requests without a cookie, and with forged ones, leave nothing in Redis, and ask it
// nothing.
func TestFloodLeavesNothing(t *testing.T) {
	client := redistest.Client(t)
	m := newManager(t, session.Options{Store: &session.RedisStore{Client: client}})
	handler := m.Handler(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		nameKey.Get(session.From(r.Context()))
	}))
	v := newVisitor(m)
	v.get(setName("x"))
	good := v.jar["__Host-sid"]
	v.get(use(func(s *session.Session) { s.Destroy() }))
	admin := redistest.Admin(t, client.Options().Addr)
	before := asked(t, admin)
	for name, cookie := range map[string]func(i int) string{
		"no cookie": func(int) string { return "" },
		"forged":    func(i int) string { return fmt.Sprintf("__Host-sid=%s%06d", good[:len(good)-6], i) },
	} {
		began := time.Now()
		for i := range flood {
			r := newRequest("https://example.com/")
			if c := cookie(i); c != "" {
				r.Header.Set("Cookie", c)
			}
			w := httptest.NewRecorder()
			handler.ServeHTTP(w, r)
			if w.Code != http.StatusOK || w.Header().Get("Set-Cookie") != "" {
				t.Fatalf("%s: status %d, header %v", name, w.Code, w.Header())
			}
		}
		t.Logf("%s: %v a request", name, time.Since(began)/flood)
	}
	check(t, "commands", asked(t, admin)-before, 0)
	check(t, "keys", admin.DBSize(t.Context()).Val(), 0)
}

// asked counts what Redis was asked, without this question and what a new connection says.
func asked(t *testing.T, admin *redis.Client) (n int64) {
	t.Helper()
	stats, err := admin.InfoMap(t.Context(), "commandstats").Result()
	if err != nil {
		t.Fatal(err)
	}
	for command, text := range stats["Commandstats"] {
		var calls int64
		if fmt.Sscanf(text, "calls=%d", &calls); !strings.Contains(command, "info") {
			n += calls
		}
	}
	return n
}

// A Cookie header as large as the server takes, of one cookie or of many, is anonymous.
func TestLargeCookieHeaders(t *testing.T) {
	sp := &spy{Store: new(session.MemoryStore)}
	server := httptest.NewServer(newManager(t, session.Options{Store: sp}).Handler(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		nameKey.Get(session.From(r.Context()))
	})))
	defer server.Close()
	for name, tt := range map[string]struct {
		cookie string
		want   int
	}{
		"one of 1 MB":        {"__Host-sid=" + strings.Repeat("A", 1<<20-8<<10), http.StatusOK},
		"one of more":        {"__Host-sid=" + strings.Repeat("A", 1<<20+64<<10), http.StatusRequestHeaderFieldsTooLarge},
		"3,000 of our name":  {strings.TrimSuffix(strings.Repeat("__Host-sid=AAAA; ", 3000), "; "), http.StatusOK},
		"3,001 of our name":  {strings.TrimSuffix(strings.Repeat("__Host-sid=AAAA; ", 3001), "; "), http.StatusOK},
		"50,000 of any name": {strings.TrimSuffix(strings.Repeat("a=b; ", 50_000), "; "), http.StatusOK},
	} {
		t.Run(name, func(t *testing.T) {
			request, err := http.NewRequest("GET", server.URL, nil)
			if err != nil {
				t.Fatal(err)
			}
			request.Header.Set("Cookie", tt.cookie)
			response, err := http.DefaultClient.Do(request)
			if err != nil {
				t.Fatal(err)
			}
			response.Body.Close()
			check(t, "status", response.StatusCode, tt.want)
			check(t, "calls of the store", sp.took(), "")
		})
	}
}

// A full memory store refuses new sessions, and the live ones go on.
func TestFloodOfLogins(t *testing.T) {
	m := newManager(t, session.Options{Store: &session.MemoryStore{MaxEntries: 100}})
	users := make([]*visitor, 100)
	for i := range users {
		users[i] = newVisitor(m)
		check(t, "login", users[i].post(setName(fmt.Sprint(i))).StatusCode, http.StatusOK)
	}
	for range 10_000 {
		var err error
		v := newVisitor(m)
		response := v.post(func(w http.ResponseWriter, r *http.Request) {
			s := session.From(r.Context())
			nameKey.Set(s, "one too many")
			err = s.Save()
		})
		if response.StatusCode != http.StatusServiceUnavailable || len(v.jar) > 0 || !errors.Is(err, session.ErrFull) {
			t.Fatalf("status %d, cookies %q, error %v", response.StatusCode, v.jar, err)
		}
	}
	for i, v := range users {
		check(t, "name", nameOf(v), fmt.Sprint(i))
		check(t, "write", v.post(setName("still here")).StatusCode, http.StatusOK)
	}
	users[0].post(use(func(s *session.Session) { s.Destroy() }))
	check(t, "login where one has left", newVisitor(m).post(setName("new")).StatusCode, http.StatusOK)
}
