package session_test

import (
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/seed-4f96e14b/session"
)

// The workloads of a session library, on the memory store, the handler called
// directly. "bare" is the same without a session: subtract it.
func BenchmarkHandler(b *testing.B) {
	profile := func(s *session.Session) {
		session.Key[int64]("userId").Set(s, 42)
		session.Key[string]("email").Set(s, "ada@example.com")
		roleKey.Set(s, "user")
		session.Key[[]int]("cart").Set(s, []int{100001, 100002, 100003, 100004, 100005, 100006, 100007, 100008, 100009, 100010})
	}
	work := []struct {
		name   string
		cookie bool
		do     http.HandlerFunc
	}{
		{"untouched", true, func(w http.ResponseWriter, r *http.Request) {}},
		{"anonymous", false, func(w http.ResponseWriter, r *http.Request) {
			session.Key[int64]("userId").Get(session.From(r.Context()))
		}},
		{"read", true, func(w http.ResponseWriter, r *http.Request) {
			session.Key[int64]("userId").Get(session.From(r.Context()))
		}},
		{"write", true, func(w http.ResponseWriter, r *http.Request) {
			counterKey.Update(session.From(r.Context()), increment)
		}},
		{"equal", true, func(w http.ResponseWriter, r *http.Request) {
			roleKey.Set(session.From(r.Context()), "user")
		}},
		{"login", false, func(w http.ResponseWriter, r *http.Request) {
			s := session.From(r.Context())
			s.Regenerate()
			profile(s)
		}},
	}
	for _, bb := range work {
		b.Run(bb.name, func(b *testing.B) {
			m := newManager(b, session.Options{})
			v := newVisitor(m)
			v.get(use(profile))
			r := newRequest("https://example.com/")
			if bb.cookie {
				r.AddCookie(&http.Cookie{Name: "__Host-sid", Value: v.jar["__Host-sid"]})
			}
			run(b, m.Handler(bb.do), r)
		})
	}
	b.Run("bare", func(b *testing.B) {
		run(b, http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}), newRequest("https://example.com/"))
	})
	b.Run("read, parallel", func(b *testing.B) {
		m := newManager(b, session.Options{})
		v := newVisitor(m)
		v.get(use(profile))
		handler := m.Handler(work[2].do)
		b.ReportAllocs()
		b.RunParallel(func(pb *testing.PB) {
			r := newRequest("https://example.com/")
			r.AddCookie(&http.Cookie{Name: "__Host-sid", Value: v.jar["__Host-sid"]})
			w := httptest.NewRecorder()
			for pb.Next() {
				clear(w.Header())
				handler.ServeHTTP(w, r)
			}
		})
	})
}

func run(b *testing.B, handler http.Handler, r *http.Request) {
	w := httptest.NewRecorder()
	b.ReportAllocs()
	for b.Loop() {
		clear(w.Header())
		handler.ServeHTTP(w, r)
	}
}

// An untouched request costs the session, its context and the request's copy.
func TestUntouchedAllocations(t *testing.T) {
	v := newVisitor(newManager(t, session.Options{}))
	handler := newManager(t, session.Options{}).Handler(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	v.get(setName("x"))
	r := newRequest("https://example.com/")
	r.AddCookie(&http.Cookie{Name: "__Host-sid", Value: v.jar["__Host-sid"]})
	w := httptest.NewRecorder()
	if n := testing.AllocsPerRun(100, func() { handler.ServeHTTP(w, r) }); n > 3 {
		t.Errorf("%v allocations, want 3", n)
	}
}
