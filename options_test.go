package session_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
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
		{"the README's example", session.Options{Secrets: []string{example}}, "example in the README"},
		{"the same secret twice", session.Options{Secrets: []string{secretA, secretB, secretA}}, "Secrets[2] is in the list already"},
		{"Redis without a client", session.Options{Store: new(session.RedisStore), Secrets: []string{secretA}}, "without a Client"},
		{"Redis with a nil client", session.Options{Store: &session.RedisStore{Client: (*redis.ClusterClient)(nil)}, Secrets: []string{secretA}}, "without a Client"},
		{"negative WaitReplicas", session.Options{Store: &session.RedisStore{Client: redisStore.Client, WaitReplicas: -1}, Secrets: []string{secretA}}, "WaitReplicas -1"},
		{"WaitReplicas with a client that cannot", session.Options{Store: &session.RedisStore{Client: struct{ session.RedisClient }{}, WaitReplicas: 1}, Secrets: []string{secretA}}, "cannot do"},
		{"nil Redis store", session.Options{Store: (*session.RedisStore)(nil), Secrets: []string{secretA}}, "nil *RedisStore"},
		{"NoPrefix and a Prefix", session.Options{Store: &session.RedisStore{Client: redisStore.Client, NoPrefix: true, Prefix: "a:"}, Secrets: []string{secretA}}, "NoPrefix and the Prefix"},
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

// New refuses a client with which a session that has ended might be seen again, and says
// what to use instead.
func TestNewRefusesClientsOfRedis(t *testing.T) {
	const (
		toRing      = "use redis.NewClient, NewFailoverClient or NewClusterClient"
		toPipeliner = "use the client that it was made of"
		toCache     = "leave ClientSideCacheConfig and ClientSideCache out of its options"
		toReplicas  = "leave ReadOnly (or ReplicaOnly), RouteByLatency and RouteRandomly out of its options"
	)
	addrs := []string{"127.0.0.1:1", "127.0.0.1:2"}
	ring := redis.NewRing(&redis.RingOptions{Addrs: map[string]string{"a": addrs[0], "b": addrs[1]}})
	plain := redis.NewClient(&redis.Options{Addr: addrs[0]})
	pipeliner, err := plain.AutoPipeline()
	if err != nil {
		t.Fatal(err)
	}
	async, err := plain.AsyncAutoPipeline()
	if err != nil {
		t.Fatal(err)
	}
	caches := redis.NewClient(&redis.Options{Addr: addrs[0], ClientSideCacheConfig: new(redis.ClientSideCacheConfig)})
	clients := []io.Closer{ring, plain, pipeliner, async, caches}
	cluster := func(options redis.ClusterOptions) session.RedisClient {
		options.Addrs = addrs
		client := redis.NewClusterClient(&options)
		clients = append(clients, client)
		return client
	}
	failover := func(options redis.FailoverOptions) session.RedisClient {
		options.MasterName, options.SentinelAddrs = "sessions", addrs
		client := redis.NewFailoverClusterClient(&options)
		clients = append(clients, client)
		return client
	}
	universal := func(options redis.UniversalOptions) session.RedisClient {
		options.Addrs = addrs
		client := redis.NewUniversalClient(&options)
		clients = append(clients, client)
		return client
	}
	cache := redis.NewClient(&redis.Options{Addr: addrs[0], ClientSideCache: redis.NewLocalCache(redis.ClientSideCacheConfig{})})
	clients = append(clients, cache)
	for name, tt := range map[string]struct {
		client session.RedisClient
		what   string
		remedy string
	}{
		"Ring":                     {ring, "redis.Ring", toRing},
		"Ring, embedded":           {struct{ *redis.Ring }{ring}, "redis.Ring", toRing},
		"AutoPipeliner":            {pipeliner, "redis.AutoPipeliner", toPipeliner},
		"AutoPipeliner, async":     {async, "redis.AutoPipeliner", toPipeliner},
		"cache":                    {caches, "caches", toCache},
		"cache of the app's own":   {cache, "caches", toCache},
		"cache, embedded":          {struct{ *redis.Client }{caches}, "caches", toCache},
		"Cluster, ReadOnly":        {cluster(redis.ClusterOptions{ReadOnly: true}), "replicas", toReplicas},
		"Cluster, RouteByLatency":  {cluster(redis.ClusterOptions{RouteByLatency: true}), "replicas", toReplicas},
		"Cluster, RouteRandomly":   {cluster(redis.ClusterOptions{RouteRandomly: true}), "replicas", toReplicas},
		"Sentinel, ReplicaOnly":    {failover(redis.FailoverOptions{ReplicaOnly: true}), "replicas", toReplicas},
		"Sentinel, RouteByLatency": {failover(redis.FailoverOptions{RouteByLatency: true}), "replicas", toReplicas},
		"Sentinel, RouteRandomly":  {failover(redis.FailoverOptions{RouteRandomly: true}), "replicas", toReplicas},
		"universal, ReadOnly":      {universal(redis.UniversalOptions{ReadOnly: true}), "replicas", toReplicas},
		"universal, Sentinel": {
			universal(redis.UniversalOptions{MasterName: "sessions", RouteByLatency: true}), "replicas", toReplicas,
		},
	} {
		_, err := session.New(session.Options{Secrets: []string{secretA}, Store: &session.RedisStore{Client: tt.client, WaitReplicas: 1}})
		if err == nil {
			t.Errorf("%s: accepted", name)
			continue
		}
		_, lines, _ := strings.Cut(err.Error(), "\n")
		if !strings.HasPrefix(lines, "Store: ") || strings.Contains(lines, "\n") || !strings.Contains(lines, tt.what) || !strings.HasSuffix(lines, "; "+tt.remedy) {
			t.Errorf("%s: got %q, want one line that names %s and the remedy %q", name, lines, tt.what, tt.remedy)
		}
	}
	for _, client := range clients {
		client.Close()
	}
}

// Every client that asks the primary, and one of which nothing is known, is accepted.
func TestNewAcceptsClientsOfRedis(t *testing.T) {
	one, some := []string{"127.0.0.1:1"}, []string{"127.0.0.1:1", "127.0.0.1:2"}
	clients := map[string]redis.UniversalClient{
		"one server":                redis.NewClient(&redis.Options{Addr: one[0]}),
		"Sentinel":                  redis.NewFailoverClient(&redis.FailoverOptions{MasterName: "sessions", SentinelAddrs: some}),
		"Sentinel, as a Cluster":    redis.NewFailoverClusterClient(&redis.FailoverOptions{MasterName: "sessions", SentinelAddrs: some}),
		"Cluster":                   redis.NewClusterClient(&redis.ClusterOptions{Addrs: some}),
		"universal, one server":     redis.NewUniversalClient(&redis.UniversalOptions{Addrs: one}),
		"universal, some servers":   redis.NewUniversalClient(&redis.UniversalOptions{Addrs: some}),
		"universal, Sentinel":       redis.NewUniversalClient(&redis.UniversalOptions{Addrs: some, MasterName: "sessions"}),
		"universal, as a Cluster":   redis.NewUniversalClient(&redis.UniversalOptions{Addrs: one, IsClusterMode: true}),
		"one server, old protocol":  redis.NewClient(&redis.Options{Addr: one[0], Protocol: 2}),
		"one server, other timeout": redis.NewClient(&redis.Options{Addr: one[0]}).WithTimeout(time.Second),
	}
	accept := func(name string, client session.RedisClient, replicas int) {
		t.Helper()
		_, err := session.New(session.Options{Secrets: []string{secretA}, Store: &session.RedisStore{Client: client, WaitReplicas: replicas}})
		if err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	for name, client := range clients {
		for replicas := range 2 {
			accept(name, client, replicas)
		}
		accept("of another type, around "+name, struct{ session.RedisClient }{client}, 0)
		client.Close()
	}
	accept("of another type", struct{ session.RedisClient }{}, 0)
}

// A choosyStore is somebody else's, and knows what is wrong with it.
type choosyStore struct {
	session.Store
	wrong error
	asked int
}

func (s *choosyStore) Validate() error {
	s.asked++
	return s.wrong
}

// New asks a store what is wrong with it, whoever has written it, and says so with all else.
func TestNewAsksTheStore(t *testing.T) {
	store := &choosyStore{Store: new(session.MemoryStore), wrong: errors.New("a choosyStore without a table; give it one")}
	m, err := session.New(session.Options{Store: store, MaxBytes: -1})
	if m != nil || !errors.Is(err, store.wrong) {
		t.Fatalf("error %v, want the store's", err)
	}
	check(t, "the lines", strings.Split(err.Error(), "\n"), []string{
		"session: invalid options:",
		"Store: a choosyStore without a table; give it one",
		"Secrets is empty, and sessions in a store that outlives the process need a secret; make one with: openssl rand -base64 32",
		"MaxBytes is -1; it must be positive, or 0 for the default",
	})
	check(t, "how often it was asked", store.asked, 1)
	store.wrong = nil
	v := newVisitor(newManager(t, session.Options{Store: store}))
	v.get(setName("x"))
	check(t, "name", nameOf(v), "x")
	check(t, "how often it was asked", store.asked, 2)
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
		// Verbs that fit none of these: package fmt prints them without asking.
		for _, v := range []any{m, s, store, own.Store.(*ownStore).Store, r.Context(), w, struct{ m *session.Manager }{m}, struct{ s *session.Session }{s}, *s} {
			for _, verb := range []string{"%w", "%p", "%t", "%c", "%U", "%e", "%s", "%y"} {
				fmt.Fprintf(&out, verb+"\n", v)
			}
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
