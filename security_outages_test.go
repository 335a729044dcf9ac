package session_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/seed-4f96e14b/session"
	"github.com/seed-4f96e14b/session/internal/testing/redistest"
)

// Rank 4. A store that does not answer is a 503 and no anonymous visitor: the handler of an
// unsafe request does not run, the cookie stays, and so does the session.
func TestSecurityOutageIsNeverAnonymous(t *testing.T) {
	for what, err := range map[string]error{
		"refused": errDown, "LOADING": errors.New("LOADING Redis is loading"), "READONLY": errors.New("READONLY replica"),
		"a deadline": context.DeadlineExceeded, "cancelled": context.Canceled, "the end of a connection": io.EOF,
	} {
		sp := &spy{Store: new(session.MemoryStore)}
		v := newVisitor(newManager(t, session.Options{Store: sp}))
		v.get(setName("x"))
		cookie := v.jar[sid]
		sp.everyOp(func() error { return err })
		for _, method := range []string{http.MethodPost, http.MethodPut, http.MethodPatch, http.MethodDelete} {
			expectUnavailable(t, what+" "+method, v.do(method, func(http.ResponseWriter, *http.Request) { t.Errorf("%s: the handler of a %s ran", what, method) }))
		}
		expectUnavailable(t, what+" GET", v.get(func(w http.ResponseWriter, r *http.Request) {
			if !nameKey.Has(session.From(r.Context())) {
				http.Redirect(w, r, "/login", http.StatusSeeOther)
			}
		}))
		check(t, what+": cookie", v.jar[sid], cookie)
		sp.works()
		check(t, what+": name afterwards", nameOf(v), "x")
	}
}

// Rank 5. The session is saved before the first byte. If that fails, nothing of the
// handler's response goes out: no status, no Location, no cookie, no body.
func TestSecurityFailedSaveReplacesTheResponse(t *testing.T) {
	sp := &spy{Store: new(session.MemoryStore)}
	m := newManager(t, session.Options{Store: sp})
	server := httptest.NewTLSServer(m.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		nameKey.Set(session.From(r.Context()), "bob")
		http.SetCookie(w, &http.Cookie{Name: "mine", Value: "1"})
		for _, h := range []string{"Content-Length", "ETag", "Content-Encoding", "Clear-Site-Data"} {
			w.Header().Set(h, "11")
		}
		http.Redirect(w, r, "/welcome", http.StatusSeeOther)
		io.WriteString(w, "welcome bob")
	})))
	defer server.Close()
	client := server.Client()
	client.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	for _, fails := range []bool{true, false} {
		if fails {
			sp.on("C", down)
		} else {
			sp.works()
		}
		response, err := client.Get(server.URL)
		if err != nil {
			t.Fatal(err)
		}
		if !fails {
			check(t, "status of a save that works", response.StatusCode, http.StatusSeeOther)
			check(t, "its cookies", len(cookies(response)), 2)
			response.Body.Close()
			continue
		}
		expectUnavailable(t, "redirect", response)
		response.Body.Close()
		for _, h := range []string{"ETag", "Content-Encoding", "Clear-Site-Data"} {
			check(t, h, response.Header.Get(h), "")
		}
	}
}

// Rank 6. A logout or a login that the store did not make is never answered as if it had
// worked, whatever the handler does with the error.
func TestSecurityFailedLogoutIsNoLogout(t *testing.T) {
	for what, tt := range map[string]struct {
		fails string
		do    handler
	}{
		"logout, delete fails": {"D", logout},
		"login, create fails":  {"C", login("ada")},
		"login, delete fails":  {"D", login("ada")},
		"renewal, save fails":  {"S", renew},
	} {
		sp := &spy{Store: new(session.MemoryStore)}
		v := newVisitor(newManager(t, session.Options{Store: sp}))
		v.get(setName("x"))
		cookie := v.jar[sid]
		sp.onceOn(tt.fails, down)
		expectUnavailable(t, what, v.post(func(w http.ResponseWriter, r *http.Request) {
			tt.do(w, r)
			w.WriteHeader(http.StatusNoContent)
		}))
		check(t, what+": the cookie that tries again", v.jar[sid], cookie)
		check(t, what+": name", nameOf(v), "x")
		check(t, what+": again", v.post(tt.do).StatusCode, http.StatusOK)
	}
}

// A way to Redis that can be cut, and mended.
type way struct {
	addr  string
	mu    sync.Mutex
	state string
	conns []net.Conn
}

func (w *way) set(state string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.state = state
	for _, c := range w.conns {
		c.Close()
	}
	w.conns = nil
}

func (w *way) dial(ctx context.Context, _, _ string) (conn net.Conn, err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	switch w.state {
	case "refused":
		return nil, syscall.ECONNREFUSED
	case "hung", "reset":
		conn, other := net.Pipe()
		if w.state == "reset" {
			other.Close()
		}
		w.conns = append(w.conns, conn, other)
		return conn, nil
	}
	conn, err = new(net.Dialer).DialContext(ctx, "tcp", w.addr)
	w.conns = append(w.conns, conn)
	return conn, err
}

// Rank 14. A request waits for StoreTimeout and no longer, whatever has become of the way to
// Redis and of the client's own patience, and the app goes on by itself.
func TestSecurityStoreTimeoutHolds(t *testing.T) {
	const timeout = 100 * time.Millisecond
	w := &way{addr: redistest.Start(t)}
	client := redis.NewClient(&redis.Options{Dialer: w.dial, Username: redistest.User, Password: redistest.Password, ReadTimeout: -1, WriteTimeout: -1, MaxRetries: 1000}) // it would wait for minutes
	defer client.Close()
	m := newManager(t, session.Options{Store: &session.RedisStore{Client: client}, StoreTimeout: timeout})
	v := newVisitor(m)
	v.get(setName("x"))
	states := []string{"refused", "hung", "reset"}
	leaving := make(map[string]*visitor)
	for _, state := range states {
		leaving[state] = newVisitor(m)
		leaving[state].get(setName("leaving"))
	}
	for _, state := range states {
		w.set(state)
		for what, do := range map[string]handler{"read": look, "write": count, "login": login("y"), "logout": logout} {
			v := v
			if what == "logout" { // which the client goes on trying, and may yet do
				v = leaving[state]
			}
			began := time.Now()
			expectUnavailable(t, state+", "+what, v.get(do))
			if took := time.Since(began); took > 50*timeout { // a bound that no busy machine breaks
				t.Errorf("%s, %s: %v", state, what, took)
			}
		}
		w.set("works")
		eventually(t, "the app goes on", func() bool { return v.get(look).StatusCode == http.StatusOK })
		check(t, state+": name afterwards", nameOf(v), "x")
	}
}

// Rank 15. A client that leaves loses no save, and what it asked for is done whole.
func TestSecurityDisconnectLosesNoSave(t *testing.T) {
	forEachStore(t, func(t *testing.T, store session.Store) {
		m := newManager(t, session.Options{Store: store})
		v := newVisitor(m)
		v.get(setName("x"))
		leave := func(do func(s *session.Session)) {
			started, ended := make(chan struct{}), make(chan struct{})
			handler := m.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				close(started)
				<-r.Context().Done()
				do(session.From(r.Context()))
			}))
			server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				defer close(ended)
				handler.ServeHTTP(w, r)
			}))
			defer server.Close()
			conn, err := net.Dial("tcp", server.Listener.Addr().String())
			if err != nil {
				t.Fatal(err)
			}
			fmt.Fprintf(conn, "POST / HTTP/1.1\r\nHost: localhost\r\nCookie: %s=%s\r\nContent-Length: 0\r\n\r\n", sid, v.jar[sid])
			<-started
			conn.Close()
			<-ended
		}
		leave(func(s *session.Session) { nameKey.Set(s, "y"); counterKey.Update(s, increment) })
		check(t, "name", nameOf(v), "y")
		check(t, "counter", counterOf(v), 1)
		var id string
		leave(func(s *session.Session) { s.Regenerate(); nameKey.Set(s, "new"); id = s.ID() })
		check(t, "the old session", nameOf(v), "")
		made, err := m.Load(t.Context(), id)
		if err != nil {
			t.Fatal(err)
		}
		check(t, "the new one", nameKey.Get(made), "new")
	})
}

// Rank 21. Whatever is under a session's key, there is no panic, nothing is opened that the
// cookie does not open, and who was locked out can log in again.
func TestSecuritySpoiledRecordsOpenNothing(t *testing.T) {
	sp := &spy{Store: new(session.MemoryStore)}
	m := newManager(t, session.Options{Store: sp})
	v, other := newVisitor(m), newVisitor(m)
	v.get(setName("x"))
	other.get(setName("other"))
	key, record, foreign := sp.keys[0], sp.data[0], sp.data[1]
	visit := func(what string, data []byte) (name string, status int) {
		ctx := context.Background()
		sp.Store.Delete(ctx, key)
		if err := sp.Store.Create(ctx, key, data, time.Hour); err != nil {
			t.Fatal(err)
		}
		status = v.copy().get(use(func(s *session.Session) { name = nameKey.Get(s); s.Keys() })).StatusCode
		if isNewer := len(data) > 1 && data[0] == record[0] && data[1] > record[1]; status != http.StatusOK && !isNewer {
			t.Errorf("%s: status %d for %x", what, status, data)
		}
		return name, status
	}
	for n := range record {
		if name, _ := visit("truncated", record[:n]); name != "" {
			t.Errorf("the first %d bytes open it", n)
		}
	}
	for bit := range len(record) * 8 {
		data := bytes.Clone(record)
		data[bit/8] ^= 1 << (bit % 8)
		visit("a bit flipped", data)
	}
	rng := rand.New(rand.NewPCG(1, 2))
	for range 20_000 {
		data := bytes.Clone(record)
		for range 1 + rng.IntN(8) {
			data[2+rng.IntN(len(data)-2)] = byte(rng.Uint32())
		}
		visit("random", data[:len(data)-rng.IntN(3)])
	}
	for what, data := range map[string][]byte{"another session's": foreign, "a cache entry": []byte(`{"user":"admin"}`), "nothing": {}, "of the next version": append([]byte{record[0], record[1] + 1}, record[2:]...)} {
		name, status := visit(what, data)
		check(t, what+": name", name, "")
		check(t, what+": refused", status != http.StatusOK, what == "of the next version")
	}
	name, _ := visit("whole", record)
	check(t, "name", name, "x")
	visit("spoiled", record[:20])
	check(t, "login", v.post(login("y")).StatusCode, http.StatusOK)
	check(t, "name after the login", nameOf(v), "y")
	check(t, "another's", nameOf(other), "other")
}

// Rank 23. A Redis that is full still logs out, a replica still reads, nobody is taken for
// anonymous, and no command has two keys.
func TestSecurityDegradedRedis(t *testing.T) {
	client := redistest.Client(t)
	admin := redistest.Admin(t, client.Options().Addr)
	set := func(args ...any) {
		t.Helper()
		if err := admin.Do(t.Context(), args...).Err(); err != nil {
			t.Fatal(args, err)
		}
	}
	m := newManager(t, session.Options{Store: &session.RedisStore{Client: client}})
	v, leaving := newVisitor(m), newVisitor(m)
	v.get(setName("x"))
	leaving.get(setName("leaving"))

	set("CONFIG", "SET", "maxmemory", 1)
	check(t, "full: read", nameOf(v), "x")
	expectUnavailable(t, "full: write", v.post(setName("y")))
	expectUnavailable(t, "full: login", newVisitor(m).post(login("new")))
	check(t, "full: logout", leaving.post(logout).StatusCode, http.StatusOK)
	set("CONFIG", "SET", "maxmemory", 0)

	set("REPLICAOF", "127.0.0.1", 1)
	check(t, "replica: read", nameOf(v), "x")
	expectUnavailable(t, "replica: write", v.post(setName("y")))
	expectUnavailable(t, "replica: logout", v.copy().post(logout))
	set("CONFIG", "SET", "replica-serve-stale-data", "no")
	expectUnavailable(t, "MASTERDOWN: read", v.get(look))
	set("CONFIG", "SET", "replica-serve-stale-data", "yes")
	set("REPLICAOF", "NO", "ONE")
	check(t, "name afterwards", nameOf(v), "x")

	// A node of a Cluster refuses a command with keys of two slots.
	node := redistest.Admin(t, redistest.Start(t, "--cluster-enabled", "yes"))
	if err := node.ClusterAddSlotsRange(t.Context(), 0, 16383).Err(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the node serves its slots", func() bool { return node.Get(t.Context(), "x").Err() == redis.Nil })
	store := &session.RedisStore{Client: node}
	v = newVisitor(newManager(t, session.Options{Store: store}))
	for i, do := range []handler{setName("x"), count, renew, use(func(s *session.Session) { s.Save(); s.Reload(); s.SetMaxAge(time.Hour) }), login("y"), count, logout, setName("z")} {
		check(t, fmt.Sprintf("one node, step %d", i), v.post(do).StatusCode, http.StatusOK)
	}
	check(t, "name", nameOf(v), "z")
	if err := newManager(t, session.Options{Store: store}).Clear(t.Context()); err != nil {
		t.Errorf("Clear: %v", err)
	}
	check(t, "keys after Clear", node.DBSize(t.Context()).Val(), 0)
}
