package session_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"net/http"
	"reflect"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/seed-4f96e14b/session"
)

func TestKeyKeepsValues(t *testing.T) {
	type profile struct {
		Name string   `json:"name"`
		Tags []string `json:"tags,omitempty"`
	}
	const (
		profileKey session.Key[profile]           = "profile"
		timeKey    session.Key[time.Time]         = "time"
		bigKey     session.Key[int64]             = "big"
		anyKey     session.Key[map[string]any]    = "any"
		rawKey     session.Key[json.RawMessage]   = "raw"
		hostileKey session.Key[string]            = "a key: {\"with\"}\x00, and \xff bytes"
		emptyKey   session.Key[string]            = ""
		pointerKey session.Key[*profile]          = "pointer"
		htmlKey    session.Key[string]            = "html"
		nestedKey  session.Key[map[string][]bool] = "nested"
	)
	forEachStore(t, func(t *testing.T, store session.Store) {
		v := newVisitor(newManager(t, session.Options{Store: store}))
		when := time.Date(2026, 11, 23, 1, 2, 3, 4, time.UTC)
		v.get(use(func(s *session.Session) {
			profileKey.Set(s, profile{"Ada", []string{"x"}})
			timeKey.Set(s, when)
			bigKey.Set(s, math.MaxInt64)
			anyKey.Set(s, map[string]any{"a": 1.5, "b": nil})
			rawKey.Set(s, json.RawMessage(`{"kept": 1}`))
			hostileKey.Set(s, "hostile")
			emptyKey.Set(s, "empty")
			pointerKey.Set(s, &profile{Name: "p"})
			htmlKey.Set(s, "<a>&\u2028 \U0001F600")
			nestedKey.Set(s, map[string][]bool{"x": {true}})
		}))
		v.get(use(func(s *session.Session) {
			check(t, "struct", profileKey.Get(s), profile{"Ada", []string{"x"}})
			check(t, "time", timeKey.Get(s), when)
			check(t, "int64 beyond 2^53", bigKey.Get(s), math.MaxInt64)
			check(t, "map", anyKey.Get(s), map[string]any{"a": 1.5, "b": nil})
			check(t, "raw", string(rawKey.Get(s)), `{"kept":1}`)
			check(t, "hostile key", hostileKey.Get(s), "hostile")
			check(t, "empty key", emptyKey.Get(s), "empty")
			check(t, "pointer", *pointerKey.Get(s), profile{Name: "p"})
			check(t, "text", htmlKey.Get(s), "<a>&\u2028 \U0001F600")
			check(t, "nested", nestedKey.Get(s), map[string][]bool{"x": {true}})
			check(t, "keys", len(s.Keys()), 10)
			for _, name := range s.Keys() {
				if !session.Key[json.RawMessage](name).Has(s) {
					t.Errorf("key %q is listed and has no value", name)
				}
			}
		}))
	})
}

func check[T any](t *testing.T, what string, got, want T) {
	t.Helper()
	if !reflect.DeepEqual(got, want) {
		t.Errorf("%s: got %v, want %v", what, got, want)
	}
}

func TestKeyMethods(t *testing.T) {
	v := newVisitor(newManager(t, session.Options{}))
	v.get(use(func(s *session.Session) {
		if name, ok := nameKey.Lookup(s); ok || name != "" || nameKey.Has(s) {
			t.Error("an absent value is there")
		}
		nameKey.Set(s, "")
		if _, ok := nameKey.Lookup(s); !ok || !nameKey.Has(s) {
			t.Error("a zero value that was set is absent")
		}
		nameKey.Set(s, "Ada")
		counterKey.Update(s, increment)
		counterKey.Update(s, increment)
		check(t, "keys", s.Keys(), []string{"counter", "name"})
	}))
	v.get(use(func(s *session.Session) {
		check(t, "counter", counterKey.Get(s), 2)
		if name, ok := nameKey.Pop(s); !ok || name != "Ada" {
			t.Errorf("Pop: %q, %v", name, ok)
		}
		if _, ok := nameKey.Pop(s); ok {
			t.Error("popped twice")
		}
		counterKey.Delete(s)
		counterKey.Delete(s)
		check(t, "keys", s.Keys(), []string{})
	}))
	v.get(use(func(s *session.Session) { check(t, "keys", s.Keys(), []string{}) }))
}

// JSON null is no value, for every method.
func TestNullIsAbsent(t *testing.T) {
	const pointerKey session.Key[*int] = "pointer"
	v := newVisitor(newManager(t, session.Options{}))
	v.get(use(func(s *session.Session) { pointerKey.Set(s, nil); nameKey.Set(s, "x") }))
	v.get(use(func(s *session.Session) {
		if _, ok := pointerKey.Lookup(s); ok || pointerKey.Has(s) {
			t.Error("null is there")
		}
		if _, ok := session.Key[json.RawMessage]("pointer").Lookup(s); ok {
			t.Error("null is there as raw JSON")
		}
		check(t, "keys", s.Keys(), []string{"name"})
		session.Key[int]("pointer").Update(s, func(n int) int { return n + 5 })
		check(t, "updated from null", session.Key[int]("pointer").Get(s), 5)
	}))
}

// A stored value of another type counts as absent, is left as it is, and is logged
// without its content.
func TestValueOfAnotherType(t *testing.T) {
	var book logBook
	m := newManager(t, session.Options{Logger: book.logger()})
	v := newVisitor(m)
	v.get(setName("a private text"))
	const wrongKey session.Key[int] = "name"
	sp := v.get(use(func(s *session.Session) {
		if n, ok := wrongKey.Lookup(s); ok || n != 0 || wrongKey.Has(s) || wrongKey.Get(s) != 0 {
			t.Error("a text was read as an int")
		}
		if s.Err() != nil {
			t.Errorf("error %v", s.Err())
		}
	}))
	check(t, "status", sp.StatusCode, http.StatusOK)
	check(t, "the value afterwards", nameOf(v), "a private text")
	if log := book.String(); !strings.Contains(log, "key=name") || !strings.Contains(log, "type=int") || strings.Contains(log, "private") {
		t.Errorf("log: %s", log)
	}
	v.get(use(func(s *session.Session) {
		if n, ok := wrongKey.Pop(s); ok || n != 0 {
			t.Error("a text was popped as an int")
		}
	}))
	check(t, "the value after Pop", nameOf(v), "a private text")
	v.get(use(func(s *session.Session) {
		wrongKey.Update(s, increment)
		check(t, "updated", wrongKey.Get(s), 1)
	}))
}

type failing struct{}

func (failing) MarshalJSON() ([]byte, error) { return nil, errors.New("no JSON of this") }

// What JSON cannot hold is an error that names the key; the response is a 500, and
// nothing is saved, not even what could be.
func TestValueThatJSONCannotHold(t *testing.T) {
	values := map[string]func(*session.Session){
		"channel":  func(s *session.Session) { session.Key[chan int]("bad").Set(s, make(chan int)) },
		"function": func(s *session.Session) { session.Key[func()]("bad").Set(s, func() {}) },
		"NaN":      func(s *session.Session) { session.Key[float64]("bad").Set(s, math.NaN()) },
		"marshaler": func(s *session.Session) {
			session.Key[failing]("bad").Set(s, failing{})
		},
		"broken raw JSON": func(s *session.Session) { session.Key[json.RawMessage]("bad").Set(s, json.RawMessage(`{`)) },
		"update": func(s *session.Session) {
			session.Key[float64]("bad").Update(s, func(float64) float64 { return math.Inf(1) })
		},
	}
	for name, set := range values {
		t.Run(name, func(t *testing.T) {
			v := newVisitor(newManager(t, session.Options{}))
			v.get(setName("before"))
			response := v.get(func(w http.ResponseWriter, r *http.Request) {
				s := session.From(r.Context())
				nameKey.Set(s, "after")
				set(s)
				if err := s.Err(); !errors.Is(err, session.ErrEncode) || !strings.Contains(err.Error(), `"bad"`) {
					t.Errorf("error %v, want an ErrEncode that names the key", err)
				}
				fmt.Fprint(w, "done")
			})
			check(t, "status", response.StatusCode, http.StatusInternalServerError)
			check(t, "name", nameOf(v), "before")
		})
	}
}

// A value that is nested deeper than encoding/json reads would be set, and not be there.
func TestValueTooDeep(t *testing.T) {
	for depth, want := range map[int]int{9999: http.StatusOK, 10_001: http.StatusInternalServerError} {
		deep := json.RawMessage(strings.Repeat("[", depth-1) + strings.Repeat("]", depth-1))
		key := session.Key[map[string]json.RawMessage]("deep")
		v := newVisitor(newManager(t, session.Options{}))
		response := v.get(use(func(s *session.Session) {
			key.Set(s, map[string]json.RawMessage{"a": deep})
			check(t, "an error", errors.Is(s.Err(), session.ErrEncode), want != http.StatusOK)
		}))
		check(t, "status", response.StatusCode, want)
		v.get(use(func(s *session.Session) { check(t, "there", key.Has(s), want == http.StatusOK) }))
	}
}

// A value handed out, and one handed in, belong to the caller.
func TestValuesAreCopies(t *testing.T) {
	v := newVisitor(newManager(t, session.Options{}))
	v.get(use(func(s *session.Session) {
		list := []string{"a"}
		listKey.Set(s, list)
		list[0] = "changed after Set"
		listKey.Get(s)[0] = "changed after Get"
		raw := session.Key[json.RawMessage]("list").Get(s)
		clear(raw)
		check(t, "in the request", listKey.Get(s), []string{"a"})
	}))
	v.get(use(func(s *session.Session) { check(t, "stored", listKey.Get(s), []string{"a"}) }))
}

// A type whose UnmarshalJSON spoils what it gets spoils nothing in the store.
func TestUnmarshalJSONGetsACopy(t *testing.T) {
	v := newVisitor(newManager(t, session.Options{}))
	v.get(setName("x"))
	for range 2 {
		v.get(use(func(s *session.Session) {
			check(t, "read", session.Key[spoiler]("name").Get(s), spoiler(`"x"`))
			check(t, "name", nameKey.Get(s), "x")
		}))
	}
}

type spoiler string

func (s *spoiler) UnmarshalJSON(data []byte) error {
	*s = spoiler(data)
	clear(data)
	return nil
}

func TestFrom(t *testing.T) {
	m := newManager(t, session.Options{})
	newVisitor(m).get(func(w http.ResponseWriter, r *http.Request) {
		s, ok := session.FromContext(r.Context())
		if !ok || s != session.From(r.Context()) || s != m.From(r.Context()) {
			t.Error("From, FromContext and Manager.From differ")
		}
	})
}

func TestWithoutMiddleware(t *testing.T) {
	if s, ok := session.FromContext(context.Background()); ok || s != nil {
		t.Error("a session in an empty context")
	}
	panics(t, "From", "sessions.Handler(", func() { session.From(context.Background()) })
	m := newManager(t, session.Options{Cookie: session.Cookie{Name: "other"}})
	panics(t, "Manager.From", `"other"`, func() { m.From(context.Background()) })
}

func panics(t *testing.T, what, text string, f func()) {
	t.Helper()
	defer func() {
		if p := fmt.Sprint(recover()); !strings.Contains(p, text) {
			t.Errorf("%s: panic %q, want one with %q", what, p, text)
		}
	}()
	f()
}

// ID is stable across renewals, changes with Regenerate, and is no cookie.
func TestID(t *testing.T) {
	m := newManager(t, session.Options{})
	v := newVisitor(m)
	id := func(do func(s *session.Session)) (id string) {
		v.get(use(func(s *session.Session) { do(s); id = s.ID() }))
		return id
	}
	anonymous := id(func(s *session.Session) {
		if first := s.ID(); s.ID() != first {
			t.Error("the id of a new session changes")
		}
	})
	first := id(func(s *session.Session) { nameKey.Set(s, "x") })
	if first == anonymous || len(first) < 22 {
		t.Errorf("id %q after %q", first, anonymous)
	}
	check(t, "unchanged", id(func(s *session.Session) {}), first)
	old := v.jar["__Host-sid"]
	check(t, "renewed", id(func(s *session.Session) { s.Renew(0) }), first)
	if v.jar["__Host-sid"] == old {
		t.Error("Renew sent no new cookie")
	}
	second := id(func(s *session.Session) { s.Regenerate() })
	if second == first {
		t.Error("Regenerate kept the id")
	}
	check(t, "regenerated", id(func(s *session.Session) {}), second)
	v.jar["__Host-sid"] = second
	if id(func(s *session.Session) {}) == second {
		t.Error("the id works as a cookie")
	}
}

func TestRegenerate(t *testing.T) {
	v := newVisitor(newManager(t, session.Options{}))
	v.get(setName("anonymous"))
	planted := v.copy()
	var began time.Time
	v.get(use(func(s *session.Session) {
		nameKey.Set(s, "dropped")
		s.Regenerate()
		if len(s.Keys()) > 0 {
			t.Errorf("keys %q", s.Keys())
		}
		nameKey.Set(s, "user")
		began = s.Created()
	}))
	check(t, "name", nameOf(v), "user")
	check(t, "planted cookie", nameOf(planted), "")
	v.get(use(func(s *session.Session) { check(t, "created", s.Created(), began) }))
}

func TestDestroy(t *testing.T) {
	sp := &spy{Store: new(session.MemoryStore)}
	v := newVisitor(newManager(t, session.Options{Store: sp}))
	v.get(setName("x"))
	before := v.copy()
	response := v.post(func(w http.ResponseWriter, r *http.Request) {
		s := session.From(r.Context())
		for range 2 {
			if err := s.Destroy(); err != nil {
				t.Errorf("Destroy: %v", err)
			}
		}
		if nameKey.Has(s) || len(s.Keys()) > 0 {
			t.Error("a destroyed session has values")
		}
	})
	check(t, "status", response.StatusCode, http.StatusOK)
	if len(v.jar) > 0 {
		t.Errorf("the browser keeps %q", v.jar)
	}
	check(t, "the old cookie", nameOf(before), "")
	check(t, "one load and one delete", strings.Count(sp.took(), "D"), 1)
}

// After Destroy the session is a new one: a message for the next page begins it, and its
// cookie takes the place of the removal.
func TestSetAfterDestroy(t *testing.T) {
	forEachStore(t, func(t *testing.T, store session.Store) {
		v := newVisitor(newManager(t, session.Options{Store: store}))
		v.get(use(func(s *session.Session) { nameKey.Set(s, "ada"); counterKey.Set(s, 1) }))
		old, before := v.copy(), ""
		response := v.post(use(func(s *session.Session) {
			before = s.ID()
			s.Destroy()
			if s.ID() == before {
				t.Error("the new session has the id of the old one")
			}
			nameKey.Set(s, "goodbye")
			check(t, "error", s.Err(), nil)
		}))
		check(t, "status", response.StatusCode, http.StatusOK)
		if c := response.Cookies(); len(c) != 1 || c[0].MaxAge < 0 {
			t.Errorf("cookies %q, want the new session's alone", cookies(response))
		}
		check(t, "the old cookie", nameOf(old), "")
		v.get(use(func(s *session.Session) {
			check(t, "message", nameKey.Get(s), "goodbye")
			check(t, "counter", counterKey.Get(s), 0)
			if s.ID() == before {
				t.Error("the id of the old session")
			}
		}))
	})
	for name, do := range map[string]func(s *session.Session){
		"regenerated":        func(s *session.Session) { s.Regenerate(); nameKey.Set(s, "z") },
		"saved":              func(s *session.Session) { nameKey.Set(s, "z"); s.Save() },
		"saved, then set":    func(s *session.Session) { s.Save(); nameKey.Set(s, "z") },
		"destroyed again":    func(s *session.Session) { nameKey.Set(s, "y"); s.Destroy(); nameKey.Set(s, "z") },
		"saved and again":    func(s *session.Session) { nameKey.Set(s, "y"); s.Save(); s.Destroy(); nameKey.Set(s, "z") },
		"saved, regenerated": func(s *session.Session) { nameKey.Set(s, "y"); s.Save(); s.Regenerate(); nameKey.Set(s, "z") },
	} {
		store := new(session.MemoryStore)
		m := newManager(t, session.Options{Store: store})
		v := newVisitor(m)
		v.get(setName("x"))
		v.get(use(func(s *session.Session) { s.Destroy(); do(s) }))
		check(t, name, nameOf(v), "z")
		n, _ := m.Len(t.Context())
		check(t, name+": sessions", n, 1)
	}
}

// With nothing set, a destroyed session stays one without a record, also where new sessions
// are saved empty, and the cookie goes.
func TestNothingAfterDestroy(t *testing.T) {
	for name, options := range map[string]session.Options{
		"": {}, "SaveUninitialized": {SaveUninitialized: true}, "Resave": {Resave: true}, "Rolling": {Rolling: true},
	} {
		sp := &spy{Store: new(session.MemoryStore)}
		options.Store = sp
		v := newVisitor(newManager(t, options))
		v.get(setName("x"))
		sp.took()
		v.post(use(func(s *session.Session) {
			s.Destroy()
			nameKey.Set(s, "y")
			nameKey.Delete(s)
			s.SetMaxAge(time.Hour)
			s.Renew(0)
		}))
		check(t, name+": calls", sp.took(), "L D")
		check(t, name+": cookies that are left", len(v.jar), 0)
	}
}

// After the first byte there is no cookie for the session that a Set would begin.
func TestSetAfterDestroyAfterTheFirstByte(t *testing.T) {
	v := newVisitor(newManager(t, session.Options{}))
	v.get(setName("x"))
	old := v.copy()
	panics(t, "the handler", http.ErrAbortHandler.Error(), func() {
		v.get(func(w http.ResponseWriter, r *http.Request) {
			s := session.From(r.Context())
			w.WriteHeader(http.StatusOK)
			if err := s.Destroy(); err != nil {
				t.Error(err)
			}
			nameKey.Set(s, "y")
			if !errors.Is(s.Err(), session.ErrHeaderSent) {
				t.Errorf("error %v, want ErrHeaderSent", s.Err())
			}
		})
	})
	check(t, "the old cookie", nameOf(old), "")
}

// A look for a flash message after a logout is no change.
func TestPopAfterDestroy(t *testing.T) {
	v := newVisitor(newManager(t, session.Options{}))
	v.get(setName("x"))
	response := v.get(use(func(s *session.Session) {
		s.Destroy()
		if _, ok := nameKey.Pop(s); ok {
			t.Error("popped a value of a destroyed session")
		}
		counterKey.Delete(s)
	}))
	check(t, "status", response.StatusCode, http.StatusOK)
}

func TestReload(t *testing.T) {
	v := newVisitor(newManager(t, session.Options{}))
	v.get(setName("first"))
	other := v.copy()
	v.get(use(func(s *session.Session) {
		nameKey.Set(s, "dropped")
		other.get(setName("second"))
		if err := s.Reload(); err != nil {
			t.Error(err)
		}
		check(t, "reloaded", nameKey.Get(s), "second")
		counterKey.Set(s, 1)
	}))
	check(t, "name", nameOf(v), "second")
	check(t, "counter", counterOf(v), 1)
}

// A session that has ended is empty after Reload, and is not begun again by what
// the request changes then.
func TestReloadOfEndedSession(t *testing.T) {
	v := newVisitor(newManager(t, session.Options{}))
	v.get(setName("x"))
	other := v.copy()
	response := v.get(use(func(s *session.Session) {
		nameKey.Get(s)
		other.get(use(func(s *session.Session) { s.Destroy() }))
		if err := s.Reload(); !errors.Is(err, session.ErrNotFound) {
			t.Errorf("Reload: error %v, want ErrNotFound", err)
		}
		if nameKey.Has(s) {
			t.Error("the session is not empty")
		}
		nameKey.Set(s, "y")
	}))
	if response.StatusCode != http.StatusOK || len(cookies(response)) > 0 {
		t.Errorf("status %d, cookies %q", response.StatusCode, cookies(response))
	}
	check(t, "name", nameOf(v), "")
}

func TestSaveStoresNow(t *testing.T) {
	v := newVisitor(newManager(t, session.Options{}))
	v.get(setName("first"))
	v.get(use(func(s *session.Session) {
		nameKey.Set(s, "second")
		if err := s.Save(); err != nil {
			t.Error(err)
		}
		check(t, "for another request", nameOf(v), "second")
		nameKey.Set(s, "third")
	}))
	check(t, "at the end", nameOf(v), "third")
}

// The session ends with its request: later calls change nothing and say so.
func TestClosedSession(t *testing.T) {
	for name, call := range map[string]func(s *session.Session) error{
		"Set":        func(s *session.Session) error { nameKey.Set(s, "late"); return s.Err() },
		"Update":     func(s *session.Session) error { counterKey.Update(s, increment); return s.Err() },
		"Delete":     func(s *session.Session) error { nameKey.Delete(s); return s.Err() },
		"Pop":        func(s *session.Session) error { nameKey.Pop(s); return s.Err() },
		"Set of c":   func(s *session.Session) error { session.Key[chan int]("c").Set(s, nil); return s.Err() },
		"SetMaxAge":  func(s *session.Session) error { s.SetMaxAge(time.Hour); return s.Err() },
		"Renew":      func(s *session.Session) error { s.Renew(0); return s.Err() },
		"Regenerate": func(s *session.Session) error { s.Regenerate(); return s.Err() },
		"Destroy":    (*session.Session).Destroy,
		"Save":       (*session.Session).Save,
		"Reload":     (*session.Session).Reload,
	} {
		for _, loaded := range []bool{true, false} {
			sp := &spy{Store: new(session.MemoryStore)}
			var book logBook
			v := newVisitor(newManager(t, session.Options{Store: sp, Logger: book.logger()}))
			v.get(setName("x"))
			var s *session.Session
			v.get(func(w http.ResponseWriter, r *http.Request) {
				s = session.From(r.Context())
				if loaded {
					nameKey.Get(s)
				}
			})
			sp.took()
			lines := book.lines()
			method, _, _ := strings.Cut(name, " ")
			if err := call(s); !errors.Is(err, session.ErrClosed) || loaded && !strings.Contains(err.Error(), ": "+method) {
				t.Errorf("%s, loaded %v: error %v, want an ErrClosed that names it", name, loaded, err)
			}
			if got := sp.took(); got != "" {
				t.Errorf("%s, loaded %v: calls %q", name, loaded, got)
			}
			if book.lines() == lines {
				t.Errorf("%s, loaded %v: no log line", name, loaded)
			}
			check(t, "name", nameOf(v), "x")
		}
	}
}

// A Session is safe for concurrent use, and an Update of one goroutine is not
// lost to another's.
func TestGoroutinesOfOneRequest(t *testing.T) {
	v := newVisitor(newManager(t, session.Options{}))
	v.get(use(func(s *session.Session) {
		var wg sync.WaitGroup
		for i := range 50 {
			wg.Go(func() {
				counterKey.Update(s, increment)
				session.Key[int](fmt.Sprintf("key %d", i)).Set(s, i)
				s.Keys()
				s.ID()
				if i%10 == 0 {
					if err := s.Save(); err != nil {
						t.Error(err)
					}
				}
			})
		}
		wg.Wait()
	}))
	v.get(use(func(s *session.Session) {
		check(t, "counter", counterKey.Get(s), 50)
		check(t, "keys", len(s.Keys()), 51)
	}))
}

// No lock is held while code of the application runs.
func TestUpdateFunctionMayLookAtTheSession(t *testing.T) {
	sp := &spy{Store: new(session.MemoryStore)}
	m := newManager(t, session.Options{Store: sp, StoreTimeout: 50 * time.Millisecond})
	v := newVisitor(m)
	v.get(use(func(s *session.Session) { counterKey.Set(s, 1) }))
	other := v.copy()
	sp.onceOn("S", func() error {
		other.get(use(func(s *session.Session) { counterKey.Update(s, increment) }))
		return nil
	})
	response := v.get(use(func(s *session.Session) {
		counterKey.Update(s, func(n int) int {
			nameKey.Get(s) // forbidden, but must not hang, also not in the replay
			s.Save()
			return n + 1
		})
	}))
	_ = response // the forbidden Save may have failed the request
}

// A function that updates its own key is a mistake, and ends in an error.
func TestUpdateOfTheKeyThatIsUpdated(t *testing.T) {
	v := newVisitor(newManager(t, session.Options{}))
	response := v.get(use(func(s *session.Session) {
		counterKey.Update(s, func(n int) int {
			counterKey.Set(s, counterKey.Get(s)+1)
			return n + 1
		})
	}))
	check(t, "status", response.StatusCode, http.StatusInternalServerError)
}

func TestPanicInUpdate(t *testing.T) {
	v := newVisitor(newManager(t, session.Options{}))
	v.get(setName("x"))
	v.get(use(func(s *session.Session) {
		panics(t, "Update", "of mine", func() { counterKey.Update(s, func(int) int { panic("of mine") }) })
		nameKey.Set(s, "y")
	}))
	check(t, "name", nameOf(v), "y")
	check(t, "counter", counterOf(v), 0)
}

func TestSetMaxAge(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		m := newManager(t, session.Options{IdleTimeout: time.Hour, AbsoluteTimeout: 100 * time.Hour})
		remember := func(d time.Duration) (*visitor, *http.Cookie) {
			v := newVisitor(m)
			response := v.get(use(func(s *session.Session) {
				nameKey.Set(s, "x")
				s.SetMaxAge(d)
				want := time.Now().Add(min(d, 100*time.Hour))
				if d == 0 {
					want = time.Now().Add(time.Hour)
				}
				if got := s.Expires(); got.Sub(want).Abs() > time.Second {
					t.Errorf("SetMaxAge(%v): expires %v, want %v", d, got, want)
				}
			}))
			return v, response.Cookies()[0]
		}

		v, cookie := remember(48*time.Hour + time.Millisecond)
		check(t, "Max-Age, rounded up", cookie.MaxAge, 48*60*60+1)
		time.Sleep(48 * time.Hour)
		check(t, "after 48 h", nameOf(v), "x")
		time.Sleep(47 * time.Hour)
		check(t, "after 95 h", nameOf(v), "x")
		time.Sleep(5 * time.Hour)
		check(t, "at the absolute timeout", nameOf(v), "")

		v, cookie = remember(0)
		check(t, "Max-Age until the browser closes", cookie.MaxAge, 0)
		time.Sleep(time.Hour)
		check(t, "after the idle timeout", nameOf(v), "")
	})
}

// Without an absolute timeout "for ever" is as long as can be said.
func TestLongestLifetimes(t *testing.T) {
	for _, options := range []session.Options{{AbsoluteTimeout: -1, StoreTimeout: math.MaxInt64}, {AbsoluteTimeout: -1}, {AbsoluteTimeout: -1, IdleTimeout: math.MaxInt64 / time.Second * time.Second}} {
		for _, d := range []time.Duration{math.MaxInt64, math.MaxInt64 - 1e9, 100 * 365 * 24 * time.Hour} {
			v := newVisitor(newManager(t, options))
			response := v.get(use(func(s *session.Session) { nameKey.Set(s, "x"); s.SetMaxAge(d) }))
			check(t, "name", nameOf(v), "x")
			if c := response.Cookies()[0]; c.MaxAge > 400*24*60*60 {
				t.Errorf("Max-Age %d, over what browsers take", c.MaxAge)
			}
		}
		v := newVisitor(newManager(t, options))
		v.get(setName("x"))
		check(t, "name", nameOf(v), "x")
	}
}

func TestSetMaxAgeRefuses(t *testing.T) {
	for _, d := range []time.Duration{-1, -time.Hour, 1, 24 * 60 * 60 * 1000} {
		v := newVisitor(newManager(t, session.Options{}))
		v.get(setName("x"))
		response := v.get(use(func(s *session.Session) { s.SetMaxAge(d) }))
		check(t, fmt.Sprintf("status after SetMaxAge(%v)", d), response.StatusCode, http.StatusInternalServerError)
		check(t, "name", nameOf(v), "x")
	}
}

func TestLifetimes(t *testing.T) {
	tests := []struct {
		name    string
		options session.Options
		idle    time.Duration
		maxAge  int
	}{
		{"defaults", session.Options{}, 24 * time.Hour, 0},
		{"idle timeout", session.Options{IdleTimeout: time.Hour}, time.Hour, 0},
		{"max age", session.Options{Cookie: session.Cookie{MaxAge: 2 * time.Hour}}, 2 * time.Hour, 7200},
		{"both, idle smaller", session.Options{IdleTimeout: time.Hour, Cookie: session.Cookie{MaxAge: 2 * time.Hour}}, time.Hour, 7200},
		{"both, max age smaller", session.Options{IdleTimeout: 3 * time.Hour, Cookie: session.Cookie{MaxAge: 2 * time.Hour}}, 2 * time.Hour, 7200},
		{"short absolute", session.Options{AbsoluteTimeout: 10 * time.Minute}, 10 * time.Minute, 0},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			inBubble(t, func(t *testing.T) {
				m := newManager(t, tt.options)
				early, late := newVisitor(m), newVisitor(m)
				early.get(setName("x"))
				c := late.get(setName("x")).Cookies()[0]
				check(t, "Max-Age", c.MaxAge, tt.maxAge)
				time.Sleep(tt.idle - time.Second)
				check(t, "a second before the deadline", nameOf(early), "x")
				time.Sleep(time.Second)
				check(t, "at the deadline", nameOf(late), "")
			})
		})
	}
}

func TestAbsoluteTimeout(t *testing.T) {
	run := func(t *testing.T, options session.Options, uses int) string {
		v := newVisitor(newManager(t, options))
		v.get(setName("x"))
		for range uses {
			time.Sleep(time.Hour)
			if nameOf(v) == "" {
				break
			}
		}
		return nameOf(v)
	}
	inBubble(t, func(t *testing.T) {
		month := 30 * 24
		check(t, "a busy session in the default's last hour", run(t, session.Options{}, month-1), "x")
		check(t, "after the default", run(t, session.Options{}, month), "")
		check(t, "renewed all the time", run(t, session.Options{AbsoluteTimeout: 5 * time.Hour}, 5), "")
		check(t, "without one", run(t, session.Options{AbsoluteTimeout: -1}, 100*24), "x")
	})
}

// A shorter timeout ends also the sessions that began under a longer one.
func TestAbsoluteTimeoutIsShortened(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		store := new(session.MemoryStore)
		v := newVisitor(newManager(t, session.Options{Store: store}))
		v.get(setName("x"))
		time.Sleep(3 * time.Hour)
		v.server = newManager(t, session.Options{Store: store, AbsoluteTimeout: 4 * time.Hour}).Handler(app)
		check(t, "an hour before", nameOf(v), "x")
		v.server = newManager(t, session.Options{Store: store, AbsoluteTimeout: 2 * time.Hour}).Handler(app)
		check(t, "an hour after", nameOf(v), "")
	})
}

// Renew goes on with the session's age, Regenerate begins a new one.
func TestAgeAcrossRenewals(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		v := newVisitor(newManager(t, session.Options{AbsoluteTimeout: 10 * time.Hour}))
		v.get(setName("x"))
		time.Sleep(6 * time.Hour)
		w := v.copy()
		v.get(use(func(s *session.Session) { s.Renew(0) }))
		time.Sleep(4 * time.Hour)
		check(t, "renewed", nameOf(v), "")
		w.get(use(func(s *session.Session) { s.Regenerate(); nameKey.Set(s, "y") }))
		time.Sleep(6 * time.Hour)
		check(t, "regenerated", nameOf(w), "y")
	})
}

// Reading is use; a request that does not look at the session is not, unless it
// calls Touch.
func TestWhatCountsAsUse(t *testing.T) {
	for name, tt := range map[string]struct {
		do    handler
		alive bool
	}{
		"read":      {use(func(s *session.Session) { nameKey.Get(s) }), true},
		"touch":     {use(func(s *session.Session) { s.Touch() }), true},
		"untouched": {untouched, false},
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(t *testing.T) {
				v := newVisitor(newManager(t, session.Options{IdleTimeout: 20 * time.Minute}))
				v.get(setName("x"))
				for range 4 {
					time.Sleep(10 * time.Minute)
					v.get(tt.do)
					v.post(untouched) // loads the session for its own sake
				}
				check(t, "alive", nameOf(v) == "x", tt.alive)
			})
		})
	}
}

// Destroy by an administrator is as final as a logout.
func TestManagerDestroy(t *testing.T) {
	forEachStore(t, func(t *testing.T, store session.Store) {
		m := newManager(t, session.Options{Store: store})
		v, other := newVisitor(m), newVisitor(m)
		v.get(setName("x"))
		other.get(setName("y"))
		response := v.get(use(func(s *session.Session) {
			nameKey.Set(s, "late")
			if err := m.Destroy(t.Context(), s.ID()); err != nil {
				t.Error(err)
			}
		}))
		check(t, "cookies", len(cookies(response)), 0)
		check(t, "name", nameOf(v), "")
		check(t, "another's name", nameOf(other), "y")
		if err := m.Destroy(t.Context(), "nobody's"); err != nil {
			t.Errorf("of a session that is not there: %v", err)
		}
	})
	sp := &spy{Store: new(session.MemoryStore)}
	sp.on("D", down)
	if err := newManager(t, session.Options{Store: sp}).Destroy(t.Context(), strings.Repeat("A", 22)); !errors.Is(err, session.ErrUnavailable) {
		t.Errorf("error %v, want ErrUnavailable", err)
	}
}

func TestManagerLoad(t *testing.T) {
	forEachStore(t, func(t *testing.T, store session.Store) {
		m := newManager(t, session.Options{Store: store})
		v := newVisitor(m)
		var id string
		v.get(use(func(s *session.Session) { nameKey.Set(s, "x"); id = s.ID() }))
		s, err := m.Load(t.Context(), id)
		if err != nil {
			t.Fatal(err)
		}
		check(t, "name", nameKey.Get(s), "x")
		check(t, "id", s.ID(), id)
		nameKey.Set(s, "y")
		if !errors.Is(s.Err(), session.ErrClosed) || !errors.Is(s.Save(), session.ErrClosed) {
			t.Errorf("it can be changed: %v", s.Err())
		}
		check(t, "name in the store", nameOf(v), "x")

		v.get(use(func(s *session.Session) { s.Destroy() }))
		for _, id := range []string{id, "", "nobody's", strings.Repeat("A", 22)} {
			if _, err := m.Load(t.Context(), id); !errors.Is(err, session.ErrNotFound) {
				t.Errorf("%q: error %v, want ErrNotFound", id, err)
			}
		}
		store.Create(t.Context(), id, []byte("no record"), time.Minute)
		if _, err := m.Load(t.Context(), id); !errors.Is(err, session.ErrUnreadable) {
			t.Errorf("error %v, want ErrUnreadable", err)
		}
	})
	sp := &spy{Store: new(session.MemoryStore)}
	sp.on("L", down)
	if _, err := newManager(t, session.Options{Store: sp}).Load(t.Context(), strings.Repeat("A", 22)); !errors.Is(err, session.ErrUnavailable) {
		t.Errorf("error %v, want ErrUnavailable", err)
	}
}

func TestAllLenClear(t *testing.T) {
	forEachStore(t, func(t *testing.T, store session.Store) {
		m := newManager(t, session.Options{Store: store})
		visitors := make([]*visitor, 5)
		for i := range visitors {
			visitors[i] = newVisitor(m)
			visitors[i].get(use(func(s *session.Session) { counterKey.Set(s, i) }))
		}
		store.Create(t.Context(), "unreadable", []byte("no record"), time.Minute)
		store.Create(t.Context(), "other:AAAAAAAAAAAAAAAAAAAAAA", []byte("another manager's"), time.Minute)

		sum := 0
		for s, err := range m.All(t.Context()) {
			if err != nil {
				t.Fatal(err)
			}
			sum += counterKey.Get(s)
			counterKey.Set(s, 100)
			if !errors.Is(s.Err(), session.ErrClosed) {
				t.Errorf("a listed session can be changed: %v", s.Err())
			}
		}
		check(t, "sum of all", sum, 0+1+2+3+4)
		n, err := m.Len(t.Context())
		if n != 5 || err != nil {
			t.Errorf("Len: %d and error %v, want 5", n, err)
		}
		cancelled, cancel := context.WithCancel(t.Context())
		cancel()
		if n, err := m.Len(cancelled); n != 0 || !errors.Is(err, session.ErrUnavailable) || !errors.Is(err, context.Canceled) {
			t.Errorf("Len that the store does not answer: %d and error %v, want ErrUnavailable with the cause", n, err)
		}
		if err := m.Clear(t.Context()); err != nil {
			t.Fatal(err)
		}
		if n, _ := m.Len(t.Context()); n != 0 {
			t.Errorf("%d sessions after Clear", n)
		}
	})
	t.Run("store without these capabilities", func(t *testing.T) {
		m := newManager(t, session.Options{Store: &spy{Store: new(session.MemoryStore)}})
		_, lenErr := m.Len(t.Context())
		var allErr error
		for _, err := range m.All(t.Context()) {
			allErr = err
		}
		for _, err := range []error{lenErr, allErr, m.Clear(t.Context())} {
			if !errors.Is(err, errors.ErrUnsupported) {
				t.Errorf("error %v, want ErrUnsupported", err)
			}
		}
	})
}
