package session_test

import (
	"bytes"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/seed-4f96e14b/session"
)

func TestNewRefusesBadOptions(t *testing.T) {
	javaScriptDay := time.Duration(24 * 60 * 60 * 1000)
	redisStore := &session.RedisStore{Client: redis.NewClient(&redis.Options{Addr: "127.0.0.1:1"})}
	long := strings.Repeat("x", 5000)
	readme, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	_, example, _ := strings.Cut(string(readme), "SESSION_SECRET='")
	example, _, _ = strings.Cut(example, "'")

	tests := []struct {
		name    string
		options session.Options
		want    string // in the one line of the error
	}{
		{"Redis without a secret", session.Options{Store: redisStore}, "Secrets is empty"},
		{"unset variable", session.Options{Secrets: []string{secretA, ""}}, "Secrets[1] is empty"},
		{"short secret", session.Options{Secrets: []string{"keyboard cat"}}, "Secrets[0] has 12 bytes"},
		{"31 bytes", session.Options{Secrets: []string{secretA[:31]}}, "31 bytes"},
		{"zeros", session.Options{Secrets: []string{strings.Repeat("\x00", 32)}}, "one byte repeated"},
		{"the README's example", session.Options{Secrets: []string{example}}, "example of the README"},
		{"the same secret twice", session.Options{Secrets: []string{secretA, secretB, secretA}}, "Secrets[2] stands in the list"},
		{"Redis without a client", session.Options{Store: new(session.RedisStore), Secrets: []string{secretA}}, "without a Client"},
		{"Redis with a nil client", session.Options{Store: &session.RedisStore{Client: (*redis.ClusterClient)(nil)}, Secrets: []string{secretA}}, "without a Client"},
		{"negative WaitReplicas", session.Options{Store: &session.RedisStore{Client: redisStore.Client, WaitReplicas: -1}, Secrets: []string{secretA}}, "WaitReplicas -1"},
		{"WaitReplicas with a client that cannot", session.Options{Store: &session.RedisStore{Client: struct{ session.RedisClient }{}, WaitReplicas: 1}, Secrets: []string{secretA}}, "cannot do"},
		{"nil memory store", session.Options{Store: (*session.MemoryStore)(nil)}, "nil *MemoryStore"},
		{"negative MaxEntries", session.Options{Store: &session.MemoryStore{MaxEntries: -1}}, "MaxEntries -1"},

		{"JavaScript's day as MaxAge", session.Options{Cookie: session.Cookie{MaxAge: javaScriptDay}}, "Cookie.MaxAge is 86.4ms"},
		{"JavaScript's 30 days as MaxAge", session.Options{Cookie: session.Cookie{MaxAge: 30 * javaScriptDay}}, "Cookie.MaxAge is 2.592s"},
		{"JavaScript's day as IdleTimeout", session.Options{IdleTimeout: javaScriptDay}, "IdleTimeout is 86.4ms"},
		{"JavaScript's day as AbsoluteTimeout", session.Options{AbsoluteTimeout: javaScriptDay}, "AbsoluteTimeout is 86.4ms"},
		{"negative MaxAge", session.Options{Cookie: session.Cookie{MaxAge: -time.Hour}}, "Cookie.MaxAge is -1h"},
		{"MaxAge over 400 days", session.Options{Cookie: session.Cookie{MaxAge: 401 * 24 * time.Hour}, AbsoluteTimeout: -1}, "400 days"},
		{"MaxAge over AbsoluteTimeout", session.Options{Cookie: session.Cookie{MaxAge: 31 * 24 * time.Hour}}, "longer than the AbsoluteTimeout of 720h"},
		{"negative IdleTimeout", session.Options{IdleTimeout: -time.Hour}, "IdleTimeout is -1h"},
		{"IdleTimeout over AbsoluteTimeout", session.Options{IdleTimeout: 2 * time.Hour, AbsoluteTimeout: time.Hour}, "longer than the AbsoluteTimeout of 1h"},
		{"negative StoreTimeout", session.Options{StoreTimeout: -1}, "StoreTimeout is -1ns"},
		{"JavaScript's StoreTimeout", session.Options{StoreTimeout: 500}, "StoreTimeout is 500ns"},
		{"negative MaxBytes", session.Options{MaxBytes: -1}, "MaxBytes is -1"},

		{"name with a space", session.Options{Cookie: session.Cookie{Name: "a b"}}, "Cookie.Name"},
		{"name with =", session.Options{Cookie: session.Cookie{Name: "a=b"}}, "Cookie.Name"},
		{"name with |, the separator of what is signed", session.Options{Cookie: session.Cookie{Name: "a|b"}}, "Cookie.Name"},
		{"name with a line break", session.Options{Cookie: session.Cookie{Name: "a\r\nb"}}, "Cookie.Name"},
		{"name that is too long", session.Options{Cookie: session.Cookie{Name: long}}, "4096"},
		{"__Host- with Domain", session.Options{Cookie: session.Cookie{Name: "__Host-x", Domain: "example.com"}}, "without a Domain"},
		{"__Host- with Path", session.Options{Cookie: session.Cookie{Name: "__Host-x", Path: "/app"}}, "Path"},
		{"__Host- and Insecure", session.Options{Cookie: session.Cookie{Name: "__Host-x", Insecure: true}}, "secure cookie"},
		{"__host- in lower case, as browsers match it", session.Options{Cookie: session.Cookie{Name: "__host-x", Insecure: true}}, "secure cookie"},
		{"__Secure- and Insecure", session.Options{Cookie: session.Cookie{Name: "__Secure-x", Insecure: true}}, "secure cookie"},
		{"__Http- and ScriptAccess", session.Options{Cookie: session.Cookie{Name: "__Http-x", ScriptAccess: true}}, "scripts cannot read"},
		{"__Host-Http- and ScriptAccess", session.Options{Cookie: session.Cookie{Name: "__Host-Http-x", ScriptAccess: true}}, "scripts cannot read"},
		{"SameSite=None and Insecure", session.Options{Cookie: session.Cookie{SameSite: http.SameSiteNoneMode, Insecure: true}}, "SameSite is None"},
		{"SameSite out of range", session.Options{Cookie: session.Cookie{SameSite: 17}}, "SameSite is 17"},
		{"Partitioned and Insecure", session.Options{Cookie: session.Cookie{Partitioned: true, Insecure: true}}, "Partitioned"},
		{"relative path", session.Options{Cookie: session.Cookie{Path: "app"}}, "Cookie.Path"},
		{"path with an attribute", session.Options{Cookie: session.Cookie{Path: "/a;Secure"}}, "Cookie.Path"},
		{"path that browsers ignore", session.Options{Cookie: session.Cookie{Path: "/" + long}}, "Cookie.Path"},
		{"domain with a port", session.Options{Cookie: session.Cookie{Domain: "example.com:80"}}, "Cookie.Domain"},
		{"domain with a line break", session.Options{Cookie: session.Cookie{Domain: "a\nb"}}, "Cookie.Domain"},
		{"domain that net/http drops", session.Options{Cookie: session.Cookie{Domain: "my_host.example"}}, "Cookie.Domain"},
		{"address as domain", session.Options{Cookie: session.Cookie{Domain: "127.0.0.1"}}, "Cookie.Domain"},
		{"domain that ends with a dot", session.Options{Cookie: session.Cookie{Domain: "example.com."}}, "Cookie.Domain"},
		{"path that ends with a space", session.Options{Cookie: session.Cookie{Path: "/app "}}, "Cookie.Path"},
		{"priority", session.Options{Cookie: session.Cookie{Priority: "urgent"}}, "Cookie.Priority"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			m, err := session.New(tt.options)
			if err == nil || m != nil {
				t.Fatal("accepted")
			}
			lines := strings.Split(err.Error(), "\n")[1:]
			if !slices.ContainsFunc(lines, func(line string) bool { return strings.Contains(line, tt.want) }) {
				t.Errorf("got %q, want a line with %q", err, tt.want)
			}
			for _, secret := range tt.options.Secrets {
				if len(secret) > 0 && strings.Contains(err.Error(), secret) {
					t.Error("the error quotes a secret")
				}
			}
		})
	}

	// All problems come at once.
	_, err = session.New(session.Options{
		Secrets:     []string{"short"},
		IdleTimeout: -1,
		MaxBytes:    -1,
		Cookie:      session.Cookie{Name: "a b", Path: "x", Priority: "y"},
	})
	if lines := strings.Count(err.Error(), "\n"); lines < 6 {
		t.Errorf("got %d lines, want one for each of six mistakes: %v", lines, err)
	}
}

func TestNewAccepts(t *testing.T) {
	for name, options := range map[string]session.Options{
		"zero":               {},
		"everything at once": {Resave: true, SaveUninitialized: true, Rolling: true},
		"longest MaxAge":     {Cookie: session.Cookie{MaxAge: 400 * 24 * time.Hour}, AbsoluteTimeout: -1},
		"no absolute end":    {IdleTimeout: 1000 * 24 * time.Hour, AbsoluteTimeout: -1},
		"subdomains":         {Cookie: session.Cookie{Domain: "example.com"}},
		"Express's name":     {Cookie: session.Cookie{Name: "connect.sid"}},
		"third party":        {Cookie: session.Cookie{SameSite: http.SameSiteNoneMode, Partitioned: true}},
		"two secrets":        {Secrets: []string{secretA, secretB}},
		"32 bytes":           {Secrets: []string{secretA[:32]}},
	} {
		options.Logger = slog.New(slog.DiscardHandler)
		if _, err := session.New(options); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// New keeps no part of the options that the caller can change, and changes none.
func TestNewCopies(t *testing.T) {
	options := session.Options{Secrets: []string{secretA}}
	m := newManager(t, options)
	v := newVisitor(m)
	v.get(setName("x"))
	options.Secrets[0] = secretB
	check(t, "name", nameOf(v), "x")
	if options.Store != nil || options.IdleTimeout != 0 || options.Cookie.Name != "" {
		t.Error("New changed the caller's options")
	}
}

func TestRandomSecretIsLogged(t *testing.T) {
	var book logBook
	for range 2 {
		if _, err := session.New(session.Options{Logger: book.logger()}); err != nil {
			t.Fatal(err)
		}
	}
	if book.lines() != 2 || !strings.Contains(book.String(), "random") {
		t.Errorf("log: %s", book.String())
	}
}

// An ownStore is one of the app's own, which is not ours to print.
type ownStore struct {
	session.Store
	held map[string]string
}

// Nothing of ours prints a secret, an id or what a session holds.
func TestNothingSecretIsPrinted(t *testing.T) {
	store := new(session.MemoryStore)
	options := session.Options{Store: store, Secrets: []string{secretA, secretB}}
	m := newManager(t, options)
	v := newVisitor(m)
	v.get(setName("a private text"))
	var out bytes.Buffer
	v.get(func(w http.ResponseWriter, r *http.Request) {
		s := session.From(r.Context())
		nameKey.Get(s)
		text := slog.New(slog.NewTextHandler(&out, nil))
		json := slog.New(slog.NewJSONHandler(&out, nil))
		own := options
		own.Store = &ownStore{Store: store, held: map[string]string{"of somebody": "a private text"}}
		for _, v := range []any{
			options, &options, own, m, s, store, struct{ O session.Options }{options}, struct{ m *session.Manager }{m}, r.Context(), w,
		} {
			for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%d"} {
				fmt.Fprintf(&out, verb+"\n", v)
			}
			text.Info("x", "v", v)
			json.Info("x", "v", v)
		}
	})
	secrets := []string{secretA, secretB, "private", fmt.Sprintf("%x", secretA), fmt.Sprint([]byte(secretA)), fmt.Sprint([]byte("private"))}
	for _, value := range v.jar {
		secrets = append(secrets, value)
	}
	for _, secret := range secrets {
		if strings.Contains(out.String(), strings.Trim(secret, "[]")) {
			t.Errorf("printed: %q", secret)
		}
	}
	if !strings.Contains(out.String(), "[redacted]") {
		t.Error("the test printed no options")
	}
}
