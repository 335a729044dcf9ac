package session_test

import (
	"bytes"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/seed-4f96e14b/session"
)

// Whatever a Cookie header holds, the answer is 200 and anonymous, and the store is
// not asked.
func FuzzCookieHeader(f *testing.F) {
	sp := &spy{Store: new(session.MemoryStore)}
	m := newManager(f, session.Options{Store: sp})
	v := newVisitor(m)
	v.get(setName("x"))
	good := v.jar["__Host-sid"]
	for _, seed := range []string{"", "__Host-sid=", "__Host-sid=" + good[:40], "__Host-sid=\"x\"; a=b", "__host-sid=" + good, "__Host-sid=AAAA; __Host-sid=BBBB", "=;=;,"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, header string) {
		if bytes.Contains([]byte(header), []byte(good)) {
			return
		}
		sp.took()
		w := httptest.NewRecorder()
		r := httptest.NewRequest(http.MethodPost, "https://example.com/", nil)
		r.Header.Set("Cookie", header)
		m.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if s := session.From(r.Context()); len(s.Keys()) > 0 || s.Err() != nil {
				t.Errorf("keys %q, error %v", s.Keys(), s.Err())
			}
		})).ServeHTTP(w, r)
		if w.Code != http.StatusOK || len(w.Result().Cookies()) > 0 || sp.took() != "" {
			t.Errorf("status %d, header %q", w.Code, w.Header())
		}
	})
}

// Whatever the store returns, there is no panic, and no session that the cookie's
// secret does not open.
func FuzzRecord(f *testing.F) {
	sp := &spy{Store: new(session.MemoryStore)}
	m := newManager(f, session.Options{Store: sp})
	v := newVisitor(m)
	v.get(use(func(s *session.Session) { nameKey.Set(s, "Ada"); counterKey.Set(s, 1) }))
	record, key := sp.data[0], sp.keys[0]
	f.Add(record)
	f.Add(record[:len(record)/2])
	f.Add([]byte{})
	f.Add([]byte{0xf5, 1})
	f.Add([]byte{0xf5, 2})
	f.Add([]byte(`{"cookie":{"path":"/"}}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		sp.Store.Delete(t.Context(), key)
		sp.Store.Create(t.Context(), key, data, time.Hour)
		response := v.copy().get(use(func(s *session.Session) {
			for _, name := range s.Keys() {
				session.Key[json.RawMessage](name).Get(s)
			}
			nameKey.Set(s, "x")
		}))
		switch response.StatusCode {
		case http.StatusOK:
		case http.StatusServiceUnavailable: // a newer version
			if len(data) < 2 || data[1] < 2 {
				t.Errorf("status 503 for %x", data)
			}
		default:
			t.Errorf("status %d for %x", response.StatusCode, data)
		}
	})
}

// What goes in comes out, under any key.
func FuzzRoundTrip(f *testing.F) {
	m := newManager(f, session.Options{MaxBytes: 1 << 30})
	f.Add("key", "text", int64(1), 1.5, []byte("bytes"))
	f.Add("", "", int64(-1<<63), 0.0, []byte(nil))
	f.Add("\xff", "\xff\u2028<>&\x00", int64(1<<62), 5e-324, []byte{0, 255})
	f.Fuzz(func(t *testing.T, key, text string, number int64, fraction float64, blob []byte) {
		type values struct {
			Text     []byte // JSON holds text as Unicode; bytes it holds as they are
			Number   int64
			Fraction float64
			Blob     []byte
		}
		k := session.Key[values](key)
		in := values{[]byte(text), number, fraction, blob}
		v := newVisitor(m)
		stored := v.get(use(func(s *session.Session) { k.Set(s, in) })).StatusCode == http.StatusOK
		if fraction != fraction || fraction-fraction != 0 {
			if stored {
				t.Error("NaN or infinity was stored")
			}
			return
		}
		v.get(use(func(s *session.Session) {
			out, ok := k.Lookup(s)
			if !ok || !bytes.Equal(out.Text, in.Text) || out.Number != in.Number || out.Fraction != in.Fraction || !bytes.Equal(out.Blob, in.Blob) {
				t.Errorf("got %+v, want %+v", out, in)
			}
		}))
	})
}

// Any calls, in any order, in two requests at once, leave a session that can be used.
func FuzzCalls(f *testing.F) {
	f.Add([]byte{0, 1, 2, 3}, []byte{4, 5, 6, 7})
	f.Add([]byte{8, 9, 10, 11, 12}, []byte{0, 6})
	f.Add([]byte{5}, []byte{6})
	f.Fuzz(func(t *testing.T, a, b []byte) {
		if len(a)+len(b) > 50 {
			return
		}
		sp := &spy{Store: new(session.MemoryStore)}
		v := newVisitor(newManager(t, session.Options{Store: sp}))
		v.get(setName("x"))
		other := v.copy()
		first := once()
		sp.before = func(op, _ string) error {
			if op != "L" && first() {
				other.get(calls(b))
			}
			return nil
		}
		v.get(calls(a))
		sp.works()
		for _, v := range []*visitor{v, other, newVisitor(newManager(t, session.Options{Store: sp}))} {
			status := v.get(use(func(s *session.Session) { s.Regenerate(); nameKey.Set(s, "end") })).StatusCode
			if name := nameOf(v); status != http.StatusOK || name != "end" {
				t.Errorf("status %d, name %q", status, name)
			}
		}
	})
}

// calls makes a call of the session for each byte.
func calls(script []byte) handler {
	all := []func(s *session.Session){
		func(s *session.Session) { nameKey.Get(s) },
		func(s *session.Session) { nameKey.Set(s, "y") },
		func(s *session.Session) { counterKey.Update(s, increment) },
		func(s *session.Session) { nameKey.Pop(s) },
		func(s *session.Session) { s.Renew() },
		func(s *session.Session) { s.Regenerate() },
		func(s *session.Session) { s.Destroy() },
		func(s *session.Session) { s.Save() },
		func(s *session.Session) { s.Reload() },
		func(s *session.Session) { s.SetMaxAge(time.Hour) },
		func(s *session.Session) { s.SetMaxAge(0) },
		func(s *session.Session) { s.Touch() },
		func(s *session.Session) { s.ID(); s.Keys(); s.Created(); s.Expires() },
	}
	return use(func(s *session.Session) {
		for _, b := range script {
			all[int(b)%len(all)](s)
		}
	})
}
