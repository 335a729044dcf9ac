package expressjs_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/seed-4f96e14b/session"
	"github.com/seed-4f96e14b/session/expressjs"
)

// A session of thousands of values, as a cart that was kept in them, is read and saved with a
// handful of allocations: what is not asked for is not taken apart.
func TestLargeRecords(t *testing.T) {
	const keys = 6000
	handler, _ := largeSession(t, keys)
	key := session.Key[int]("key-3000")
	for name, tt := range map[string]struct {
		do   func(s *session.Session)
		most float64
	}{
		"a read":  {func(s *session.Session) { key.Get(s) }, 120},
		"a write": {func(s *session.Session) { key.Update(s, func(n int) int { return n + 1 }) }, 240},
	} {
		visit := handler(tt.do)
		visit()
		if allocs := testing.AllocsPerRun(5, visit); allocs > tt.most {
			t.Errorf("%s: %v allocations, want %v at most", name, allocs, tt.most)
		}
	}
}

func BenchmarkLargeRecords(b *testing.B) {
	key := session.Key[int]("key-300")
	for _, keys := range []int{600, 6000} {
		handler, size := largeSession(b, keys)
		for name, do := range map[string]func(s *session.Session){
			"read":  func(s *session.Session) { key.Get(s) },
			"write": func(s *session.Session) { key.Update(s, func(n int) int { return n + 1 }) },
		} {
			b.Run(fmt.Sprintf("%d keys, %s", keys, name), func(b *testing.B) {
				b.ReportAllocs()
				b.SetBytes(int64(size))
				for visit := handler(do); b.Loop(); {
					visit()
				}
			})
		}
	}
}

// largeSession returns what makes a request out of what a handler does, for an Express session
// with many values, and the size of its record.
func largeSession(t testing.TB, keys int) (handler func(do func(*session.Session)) func(), size int) {
	var record strings.Builder
	record.WriteString(`{"cookie":{"originalMaxAge":null,"expires":null,"httpOnly":true,"path":"/"}`)
	for i := range keys {
		fmt.Fprintf(&record, `,"key-%d":%d`, i, i)
	}
	record.WriteString("}")
	m, _ := newShared(t, withRecord(record.String()), func(o *expressjs.Options) { o.MaxBytes = 1 << 20 })
	return func(do func(*session.Session)) func() {
		h := m.Handler(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { do(session.From(r.Context())) }))
		return func() {
			r := httptest.NewRequest(http.MethodGet, "/", nil)
			r.Header.Set("Cookie", testCookie)
			w := httptest.NewRecorder()
			if h.ServeHTTP(w, r); w.Code != http.StatusOK {
				t.Fatal(w.Code)
			}
		}
	}, record.Len()
}
