package suitetest_test

import (
	"context"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/seed-4f96e14b/session"
	"github.com/seed-4f96e14b/session/internal/testing/suitetest"
)

const (
	signingKey = "what the cookies of this test are signed with"
	sid        = "LXEWQrcmsEQBYnyp-6wy9chTD7GQPMTb"
	express    = "s%3A" + sid + ".SkF2GfSH8Cmrn%2BY1iH%2B70dgTbn%2BTlBslZZGfrQg5Bwg"
)

func TestMain(m *testing.M) { suitetest.Main(m) }

// visit makes a session, and returns its id and its cookie.
func visit(t *testing.T) (id string, cookie *http.Cookie) {
	t.Helper()
	m, err := session.New(session.Options{Secrets: []string{signingKey}, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	w := httptest.NewRecorder()
	m.Handler(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		s := session.From(r.Context())
		session.Key[string]("name").Set(s, "x")
		id = s.ID()
	})).ServeHTTP(w, httptest.NewRequest("GET", "/", nil))
	return id, w.Result().Cookies()[0]
}

// secretOf returns the secret half of the id in a cookie: time|base64 of the id|mac, in base64.
func secretOf(t *testing.T, cookie *http.Cookie) []byte {
	t.Helper()
	parts := strings.SplitN(decode(t, cookie.Value), "|", 3)
	return []byte(decode(t, parts[1]))[16:]
}

// A text that has a secret in it is found, whoever shows it and in what encoding, and not
// shown again.
func TestLeaksAreFound(t *testing.T) {
	id, cookie := visit(t)
	secret := secretOf(t, cookie)
	decoded, _ := url.PathUnescape(express)
	tests := map[string]string{
		"a cookie":                     cookie.Value,
		"half a cookie":                cookie.Value[len(cookie.Value)/2:],
		"a cookie in quotes":           fmt.Sprintf("%q", cookie.Value),
		"a Set-Cookie line":            cookie.String(),
		"the secret":                   string(secret),
		"the secret in hex":            hex.EncodeToString(secret),
		"the secret in capitals":       fmt.Sprintf("%X", secret),
		"the secret as bytes":          fmt.Sprint(secret),
		"the secret as bytes of Go":    fmt.Sprintf("%#v", secret),
		"the secret in quotes":         fmt.Sprintf("%q", secret),
		"the id with its secret":       strings.SplitN(decode(t, cookie.Value), "|", 3)[1],
		"a cookie of Express":          express,
		"a cookie of Express, decoded": decoded,
		"the signature of Express":     decoded[len(decoded)-30:],
		"an id of Express":             "sess:" + sid + "!",
		"an id of Express in hex":      hex.EncodeToString([]byte(sid)),
		"the bytes of an id":           hex.EncodeToString([]byte(decode(t, sid))),
		"a signing key":                signingKey,
		"a signing key as bytes":       fmt.Sprint([]byte(signingKey)),
	}
	for name, text := range tests {
		t.Run(name, func(t *testing.T) {
			for how, show := range map[string]func(r *suitetest.Record){
				"a log":   func(r *suitetest.Record) { r.Logger(t, nil).Debug("got " + text) },
				"an attr": func(r *suitetest.Record) { r.Logger(t, nil).With("x", 1).WithGroup("g").Info("got", "what", text) },
				"an error": func(r *suitetest.Record) {
					r.Show(fmt.Errorf("got: %w", errors.New("it was "+text)))
				},
				"a field": func(r *suitetest.Record) { r.Show(session.Options{Cookie: session.Cookie{Domain: text}}) },
			} {
				var r suitetest.Record
				show(&r)
				r.Cookies([]*http.Cookie{cookie, {Value: express}})
				r.Key(signingKey)
				leaks := r.Leaks()
				if len(leaks) == 0 {
					t.Errorf("%s: not found", how)
				}
				for _, leak := range leaks {
					if !strings.HasPrefix(leak, "TestLeaksAreFound") || !strings.Contains(leak, "********") || strings.Contains(leak, text) {
						t.Errorf("%s: found, and reported as %s", how, leak)
					}
				}
			}
		})
	}

	var r suitetest.Record
	r.Logger(t, nil).Info("session: ended while the request ran", "session", id, "name", cookie.Name)
	r.Show(errors.New("Secrets[0] has 12 bytes; make one with: openssl rand -base64 32"), cookie.Name, strings.Repeat("A", 100))
	r.Cookies([]*http.Cookie{cookie, {Value: express}, {Value: strings.Repeat("A", 100)}, {Value: "short"}})
	r.Key(signingKey)
	if leaks := r.Leaks(); len(leaks) > 0 {
		t.Errorf("found what is none: %s", leaks)
	}
}

// A few bytes that a text shares with a secret by chance are no leak, however long they
// are in quotes.
func TestChanceIsNoLeak(t *testing.T) {
	_, cookie := visit(t)
	secret := secretOf(t, cookie)
	for _, n := range []int{3, 4, 6} {
		for i := 0; i+n <= len(secret); i++ {
			var r suitetest.Record
			piece := secret[i : i+n]
			r.Logger(t, nil).Info("got", "err", fmt.Sprintf("key %q", piece), "bytes", fmt.Sprint(piece), "in go", fmt.Sprintf("%#v", piece))
			r.Cookies([]*http.Cookie{cookie})
			if leaks := r.Leaks(); len(leaks) > 0 {
				t.Fatalf("%d bytes: found %s", n, leaks)
			}
		}
	}
}

// The logger that is watched goes on writing as it did.
func TestLoggerPassesOn(t *testing.T) {
	var r suitetest.Record
	var text strings.Builder
	log := r.Logger(t, slog.New(slog.NewTextHandler(&text, nil)))
	log.Debug("not on this level")
	log.With("a", 1).WithGroup("g").Warn("a warning", "b", 2)
	if got := text.String(); strings.Count(got, "\n") != 1 || !strings.HasSuffix(got, "level=WARN msg=\"a warning\" a=1 g.b=2\n") {
		t.Errorf("wrote %q", got)
	}
}

// A call of the store that never ends is seen, and one that ends is given the time.
func TestGoroutinesAreFound(t *testing.T) {
	end := make(chan struct{})
	hang(t, end)
	left := suitetest.Goroutines(10 * time.Millisecond)
	if len(left) != 1 || !strings.Contains(left[0], "hanging") {
		t.Errorf("found %q", left)
	}
	time.AfterFunc(50*time.Millisecond, func() { close(end) })
	if left := suitetest.Goroutines(time.Minute); len(left) > 0 {
		t.Errorf("after the call: %q", left)
	}
}

// hang has the library abandon a call of a store.
func hang(t *testing.T, end chan struct{}) {
	t.Helper()
	m, err := session.New(session.Options{
		Store: &hanging{Store: new(session.MemoryStore), end: end}, Secrets: []string{signingKey},
		StoreTimeout: time.Millisecond, Logger: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		t.Fatal(err)
	}
	id, _ := visit(t)
	if err := m.Destroy(t.Context(), id); !errors.Is(err, session.ErrUnavailable) {
		t.Fatalf("error %v", err)
	}
}

type hanging struct {
	session.Store
	end chan struct{}
}

func (h *hanging) Delete(context.Context, string) error {
	<-h.end
	return nil
}

func decode(t *testing.T, text string) string {
	t.Helper()
	b, err := base64.URLEncoding.DecodeString(text)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// A run fails that leaves a goroutine, or whose default logger gets what the default
// client got.
func TestMainFails(t *testing.T) {
	if !suitetest.InItsOwnProcess(t, "by the default logger: a cookie is in \"", "it was ********", "goroutines of the library are left", "suitetest_test.(*hanging).Delete") {
		return
	}
	_, cookie := visit(t)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { http.SetCookie(w, cookie) }))
	defer server.Close()
	response, err := http.Get(server.URL)
	if err != nil {
		t.Fatal(err)
	}
	response.Body.Close()
	slog.Info("it was " + cookie.Value)
	hang(t, make(chan struct{}))
}
