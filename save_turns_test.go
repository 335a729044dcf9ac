package session_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/seed-4f96e14b/session"
	"github.com/seed-4f96e14b/session/internal/testing/faultproxy"
	"github.com/seed-4f96e14b/session/internal/testing/redistest"
)

// A save whose reply was lost on the way, and which the client of the store sends again, comes
// back as a conflict. The record has its number, so it is not made twice, however many other
// processes have saved since: up to as many as the record remembers. Beyond that nobody can
// tell, and the answer is a 503.
func TestLostReply(t *testing.T) {
	forEachStore(t, func(t *testing.T, store session.Store) {
		for between, status := range map[int]int{0: 200, 1: 200, 7: 200, 15: 200, 16: 503, 40: 503} {
			sp := &spy{Store: store}
			v := newVisitor(newManager(t, session.Options{Store: sp}))
			v.get(count)
			others := processes(t, between, v, session.Options{Store: sp})
			first := once()
			sp.after = func(op, key string, err error) error {
				if op != "S" || err != nil || !first() {
					return err
				}
				for _, other := range others {
					other.get(count)
					other.get(count)
				}
				return session.ErrConflict
			}
			check(t, fmt.Sprintf("status with %d writers in between", between), v.get(count).StatusCode, status)
			check(t, fmt.Sprintf("counter with %d writers in between", between), counterOf(v), 2+2*between)
		}
	})
	t.Run("of a new session", func(t *testing.T) {
		sp := &spy{Store: new(session.MemoryStore)}
		v := newVisitor(newManager(t, session.Options{Store: sp}))
		first := once()
		sp.after = func(op, key string, err error) error {
			if op == "C" && first() {
				return session.ErrConflict
			}
			return err
		}
		v.get(count)
		check(t, "calls", sp.took(), "C L")
		check(t, "counter", counterOf(v), 1)
	})
	t.Run("of a logout", func(t *testing.T) {
		sp := &spy{Store: new(session.MemoryStore)}
		v := newVisitor(newManager(t, session.Options{Store: sp}))
		v.get(count)
		sp.Store.Delete(context.Background(), sp.keys[0])
		response := v.post(destroy)
		check(t, "status", response.StatusCode, http.StatusOK)
	})
}

// processes returns n windows of a browser, each of which talks to a process of its own.
func processes(t *testing.T, n int, v *visitor, options session.Options) (windows []*visitor) {
	for range n {
		windows = append(windows, v.elsewhere(newManager(t, options)))
	}
	return windows
}

// A save that was refused, and not made, is made again also when as many others have saved
// as the record remembers, as long as it shows that.
func TestConflictWithManyWriters(t *testing.T) {
	for others, status := range map[int]int{15: 200, 16: 503} {
		sp := &spy{Store: new(session.MemoryStore)}
		v := newVisitor(newManager(t, session.Options{Store: sp}))
		v.get(count)
		windows := processes(t, others, v, session.Options{Store: sp})
		sp.onceOn("S", func() error {
			for _, other := range windows {
				other.get(count)
			}
			return nil
		})
		check(t, fmt.Sprint(others, " others: status"), v.get(count).StatusCode, status)
		want := 1 + others
		if status == 200 {
			want++
		}
		check(t, fmt.Sprint(others, " others: counter"), counterOf(v), want)

		// The next is based on what is there now.
		check(t, "status of the next", v.get(count).StatusCode, http.StatusOK)
		check(t, "counter after the next", counterOf(v), want+1)
	}
}

// A process that starts again is another writer: its numbers begin anew.
func TestWriterThatRestarts(t *testing.T) {
	sp := &spy{Store: new(session.MemoryStore)}
	v := newVisitor(newManager(t, session.Options{Store: sp}))
	for n := range 50 {
		v = v.elsewhere(newManager(t, session.Options{Store: sp}))
		first := once()
		sp.after = func(op, _ string, err error) error {
			if op != "L" && err == nil && first() {
				return session.ErrConflict // and the reply is lost
			}
			return err
		}
		check(t, "status", v.get(count).StatusCode, http.StatusOK)
		check(t, "counter", counterOf(v), n+1)
	}
}

// A call that was given up, because it took too long, may be made late. The request has failed,
// and what it counted is there once or not at all, whatever is saved before and after.
func TestCallMadeLate(t *testing.T) {
	for name, between := range map[string]int{"at once": 0, "after another save": 1, "after many": 20} {
		for _, elsewhere := range []bool{false, true} {
			sp := &spy{Store: new(session.MemoryStore)}
			late := &lateStore{Store: sp}
			m := newManager(t, session.Options{Store: late})
			v := newVisitor(m)
			v.get(count)
			late.next.Store(true)
			check(t, name+": status", v.get(count).StatusCode, http.StatusServiceUnavailable)
			tab := v.copy()
			if elsewhere {
				tab = v.elsewhere(newManager(t, session.Options{Store: sp}))
			}
			for range between {
				check(t, name+": status of another", tab.get(count).StatusCode, http.StatusOK)
			}
			want := 1 + between
			if late.made() == nil {
				want++
			}
			if between > 0 {
				check(t, name+": made late on another record", want, 1+between)
			}
			check(t, name+": counter", counterOf(v), want)
			check(t, name+": status after it", v.get(count).StatusCode, http.StatusOK)
			check(t, name+": counter after it", counterOf(v), want+1)
		}
	}
	t.Run("while the next save is under way", func(t *testing.T) {
		sp := &spy{Store: new(session.MemoryStore)}
		late := &lateStore{Store: sp}
		v := newVisitor(newManager(t, session.Options{Store: late}))
		v.get(count)
		late.next.Store(true)
		check(t, "status", v.get(count).StatusCode, http.StatusServiceUnavailable)
		sp.onceOn("S", func() error { return late.made() })
		check(t, "status of the next", v.get(count).StatusCode, http.StatusOK)
		check(t, "counter", counterOf(v), 3)
	})
}

// A lateStore gives up the next CompareAndSwap, which made then makes.
type lateStore struct {
	session.Store
	next atomic.Bool
	made func() error
}

func (l *lateStore) CompareAndSwap(ctx context.Context, key string, old, data []byte, ttl time.Duration) error {
	call := func() error {
		return l.Store.(*spy).Store.CompareAndSwap(context.Background(), key, slices.Clone(old), slices.Clone(data), ttl)
	}
	if l.next.CompareAndSwap(true, false) {
		l.made = call
		return context.DeadlineExceeded
	}
	return l.Store.CompareAndSwap(ctx, key, old, data, ttl)
}

// A process makes one save of a session at a time: another waits, in the order of the requests,
// and is based on it.
func TestSavesTakeTurns(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		var under, most atomic.Int32
		sp := &spy{Store: new(session.MemoryStore), before: func(op, _ string) error {
			if op == "S" {
				most.Store(max(most.Load(), under.Add(1)))
				defer under.Add(-1)
			}
			time.Sleep(time.Millisecond)
			return nil
		}}
		v := newVisitor(newManager(t, session.Options{Store: sp}))
		v.get(count)
		sp.took()
		var all sync.WaitGroup
		answered := make(chan int, 20)
		for i := range 20 {
			all.Go(func() {
				check(t, "status", v.copy().get(count).StatusCode, http.StatusOK)
				answered <- i
			})
			time.Sleep(time.Microsecond)
		}
		all.Wait()
		for i := range 20 {
			check(t, "who is answered next", <-answered, i)
		}
		check(t, "saves at a time", most.Load(), 1)
		check(t, "saves", strings.Count(sp.took(), "S"), 20)
		check(t, "counter", counterOf(v), 21)
	})
}

// Who waits for its turn too long fails, and nobody goes without. Other sessions wait for nothing.
func TestTurnThatDoesNotCome(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		hangs := make(chan struct{})
		sp := &spy{Store: new(session.MemoryStore)}
		m := newManager(t, session.Options{Store: sp, StoreTimeout: 10 * time.Second})
		v, other := newVisitor(m), newVisitor(m)
		v.get(count)
		other.get(count)
		sp.onceOn("S", func() error { <-hangs; return nil })
		began := time.Now()
		var first sync.WaitGroup
		first.Go(func() { check(t, "the first", v.copy().get(count).StatusCode, http.StatusServiceUnavailable) })
		time.Sleep(time.Millisecond)
		for range 10 {
			first.Go(func() {
				status := v.copy().get(count).StatusCode
				if took := time.Since(began); status != http.StatusServiceUnavailable && took < 10*time.Second {
					t.Errorf("status %d after %v", status, took)
				}
			})
		}
		check(t, "another session", other.get(count).StatusCode, http.StatusOK)
		if took := time.Since(began); took > time.Millisecond {
			t.Errorf("another session took %v", took)
		}
		first.Wait()
		if took := time.Since(began); took > 10*time.Second+time.Millisecond {
			t.Errorf("it took %v", took)
		}
		close(hangs)
		time.Sleep(time.Second)
		before := counterOf(v)
		check(t, "after it", v.get(count).StatusCode, http.StatusOK)
		check(t, "counter after it", counterOf(v), before+1)
	})
}

// A turn that comes at the very moment at which somebody gives up waiting for it is handed on.
func TestTurnThatComesTooLate(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		sp := &spy{Store: new(session.MemoryStore)}
		v := newVisitor(newManager(t, session.Options{Store: sp}))
		v.get(count)
		for range 100 {
			hangs := make(chan struct{})
			sp.onceOn("S", func() error { <-hangs; return nil })
			var all sync.WaitGroup
			for range 4 {
				all.Go(func() { v.copy().get(count) })
			}
			all.Wait() // after StoreTimeout, in which the first waited for the store, and the others for it
			close(hangs)
			check(t, "status of the next", v.get(count).StatusCode, http.StatusOK)
		}
	})
}

// A turn ends with a panic too: of the store, or of a function given to Update.
func TestTurnEndsWithAPanic(t *testing.T) {
	sp := &spy{Store: new(session.MemoryStore)}
	v := newVisitor(newManager(t, session.Options{Store: sp}))
	v.get(count)
	sp.onceOn("S", func() error { panic("of the store") })
	panics(t, "a save", "of the store", func() { v.get(count) })
	check(t, "status", v.get(count).StatusCode, http.StatusOK)
	other := v.elsewhere(newManager(t, session.Options{Store: sp}))
	calls := 0
	sp.onceOn("S", func() error { other.get(count); return nil })
	panics(t, "a replay", "of the function", func() {
		v.get(use(func(s *session.Session) {
			counterKey.Update(s, func(n int) int {
				if calls++; calls > 1 {
					panic("of the function")
				}
				return n
			})
			nameKey.Set(s, "x")
		}))
	})
	check(t, "status", v.get(count).StatusCode, http.StatusOK)
}

// Redis makes a save, its reply is cut off, and go-redis sends it again, while twenty requests
// change the session at once. (Eight marks in a record were not enough: the counter said 23
// after 22 answers of 200.)
func TestRaceRepliesCutOff(t *testing.T) {
	const rounds, requests = 20, 20
	proxy := faultproxy.New(t, redistest.Start(t))
	options := redistest.Options(proxy.Addr)
	options.MinRetryBackoff, options.MaxRetryBackoff = 8*time.Millisecond, 16*time.Millisecond
	client := redis.NewClient(options)
	defer client.Close()
	store := &session.RedisStore{Client: client}
	here := newManager(t, session.Options{Store: store, StoreTimeout: time.Minute})
	there := newManager(t, session.Options{Store: store, StoreTimeout: time.Minute})
	for name, second := range map[string]*session.Manager{"one process": here, "two processes": there} {
		v := newVisitor(here)
		v.get(count)
		want := 1
		for round := range rounds {
			var made atomic.Int32
			proxy.Break(func(command string) faultproxy.Fault {
				if n := made.Add(1); command == "evalsha" && n%7 == int32(round%7) {
					return faultproxy.ResetAfter
				}
				return nil
			})
			var served atomic.Int32
			var all sync.WaitGroup
			for i := range requests {
				tab := v.copy()
				if i%2 == 1 {
					tab = v.elsewhere(second)
				}
				all.Go(func() {
					if status := tab.get(count).StatusCode; status == http.StatusOK {
						served.Add(1)
					} else if status != http.StatusServiceUnavailable {
						t.Errorf("status %d", status)
					}
				})
			}
			all.Wait()
			proxy.Break(nil)
			got, answered := counterOf(v), int(served.Load())
			// A 503 says that nobody knows. go-redis gives up after three replies that were cut off.
			if least, most := want+answered, want+requests; got < least || got > most {
				t.Errorf("%s: counter %d after %d answers of 200 and %d requests, before them %d", name, got, answered, requests, want)
			}
			if answered == 0 {
				t.Errorf("%s: all failed", name)
			}
			want = got
		}
	}
	if proxy.Broken() < rounds {
		t.Errorf("%d replies were cut off", proxy.Broken())
	}
}

// What a later version of this library has written in a record stays, whatever is saved.
func TestFieldsOfLaterVersionsStay(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		const extra = "\x01\x05later"
		plain := encoded(0, 0, []string{fuzzSecret}, "name", `"x"`)
		at := len(plain) - len("\x00\x01\x04name\x03\"x\"")
		if plain[at] != 0 {
			t.Fatalf("the field is not at %d of %x", at, plain)
		}
		record := slices.Concat(plain[:at], []byte{byte(len(extra))}, []byte(extra), plain[at+1:])
		r := newRig(t, record)
		for _, do := range []handler{setName("y"), count, rotate, renew, use(func(s *session.Session) { s.SetMaxAge(time.Hour) })} {
			check(t, "status", r.visitor.get(do).StatusCode, http.StatusOK)
			p, ok := parse(r.record(t))
			check(t, "readable", ok, true)
			check(t, "extra", p.extra, extra)
		}
		time.Sleep(12 * time.Minute)
		r.visitor.get(look)
		p, _ := parse(r.record(t))
		check(t, "extra after a read", p.extra, extra)
		check(t, "values", fmt.Sprint(p.values), `map[counter:1 name:"y"]`)
		r.visitor.get(use(func(s *session.Session) { s.Regenerate() }))
		if data := r.record(t); data != nil {
			t.Errorf("after Regenerate there is %x", data)
		}
	})
}

var errSave = errors.New("down")

// A change that comes while the last save runs, by a goroutine that the handler leaves behind,
// is saved too, or is an error and a line of the log.
func TestChangeDuringTheLastSave(t *testing.T) {
	for name, prepare := range map[string]handler{"a new session": untouched, "a stored one": count} {
		for _, op := range []string{"first", "second", "both"} {
			inBubble(t, func(t *testing.T) {
				sp := &spy{Store: new(session.MemoryStore)}
				v := newVisitor(newManager(t, session.Options{Store: sp}))
				v.get(prepare)
				sp.took()
				changes := 0
				var errs []error
				response := v.get(use(func(s *session.Session) {
					nameKey.Set(s, "x")
					saves := 0
					sp.mu.Lock()
					sp.before = func(o, _ string) error {
						if o == "L" {
							return nil
						}
						saves++
						if op == "both" && saves <= 2 || op == "first" && saves == 1 || op == "second" && saves == 2 {
							changes++
							listKey.Update(s, func(all []string) []string { return append(all, "a") })
							errs = append(errs, s.Err())
						}
						return nil
					}
					sp.mu.Unlock()
				}))
				check(t, name+", "+op+": status", response.StatusCode, http.StatusOK)
				for _, err := range errs {
					check(t, name+", "+op+": error", err, nil)
				}
				v.get(use(func(s *session.Session) {
					check(t, name+", "+op+": values", fmt.Sprint(nameKey.Get(s), len(listKey.Get(s))), fmt.Sprint("x", changes))
				}))
				if op != "second" && changes == 0 {
					t.Error("there was no change")
				}
			})
		}
	}
}

// Whatever a goroutine that the handler leaves behind has changed without an error is saved.
func TestNoChangeGetsLostAtTheEnd(t *testing.T) {
	m := newManager(t, session.Options{})
	for range 2000 {
		v := newVisitor(m)
		v.get(setName("x"))
		made, left := 0, make(chan struct{})
		v.get(use(func(s *session.Session) {
			nameKey.Set(s, "y")
			go func() {
				defer close(left)
				for range 10 {
					if counterKey.Update(s, increment); s.Err() == nil {
						made++
					}
				}
			}()
		}))
		<-left
		if got := counterOf(v); got != made {
			t.Fatalf("counter %d after %d changes without an error", got, made)
		}
	}
}

// One that comes later is an error and a line of the log, and one that cannot be saved cuts the
// response off.
func TestChangeAfterTheLastSave(t *testing.T) {
	book := &logBook{}
	sp := &spy{Store: new(session.MemoryStore)}
	v := newVisitor(newManager(t, session.Options{Store: sp, Logger: book.logger()}))
	v.get(setName("x"))
	var kept *session.Session
	v.get(use(func(s *session.Session) { nameKey.Get(s); kept = s }))
	nameKey.Set(kept, "late")
	if err := kept.Err(); !errors.Is(err, session.ErrClosed) || !strings.Contains(book.String(), "has no effect") {
		t.Errorf("error %v, log %s", err, book)
	}
	check(t, "name", nameOf(v), "x")

	panics(t, "the handler", http.ErrAbortHandler.Error(), func() {
		v.get(use(func(s *session.Session) {
			counterKey.Set(s, 1)
			sp.onceOn("S", func() error {
				nameKey.Set(s, "late")
				sp.on("S", func() error { return errSave })
				return nil
			})
		}))
	})
	if !strings.Contains(book.String(), "the response is cut off") {
		t.Errorf("log %s", book)
	}
}

// Nothing runs between the last save and the end of the session, not even a logger.
func TestChangeByALoggerAtTheEnd(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		sp := &spy{Store: new(session.MemoryStore)}
		var s *session.Session
		lines := 0
		logger := slog.New(handlerFunc(func(r slog.Record) {
			if lines++; lines == 1 {
				counterKey.Set(s, 1)
			}
		}))
		v := newVisitor(newManager(t, session.Options{Store: sp, Logger: logger}))
		v.get(setName("x"))
		time.Sleep(12 * time.Hour)
		sp.on("S", func() error { return errDown })
		v.get(func(w http.ResponseWriter, r *http.Request) {
			w.WriteHeader(http.StatusOK)
			s = session.From(r.Context())
			nameKey.Get(s) // and that it was used is written at the end, or cannot be
		})
		if !errors.Is(s.Err(), session.ErrClosed) || lines != 2 {
			t.Errorf("error %v, %d lines", s.Err(), lines)
		}
	})
}

// A handlerFunc is a handler of slog that takes every line.
type handlerFunc func(slog.Record)

func (f handlerFunc) Enabled(context.Context, slog.Level) bool { return true }
func (f handlerFunc) Handle(_ context.Context, r slog.Record) error {
	f(r)
	return nil
}
func (f handlerFunc) WithAttrs([]slog.Attr) slog.Handler { return f }
func (f handlerFunc) WithGroup(string) slog.Handler      { return f }

// A handler that http.TimeoutHandler has left behind changes the session while it is saved.
func TestTimeoutHandlerDuringTheLastSave(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		sp := &spy{Store: new(session.MemoryStore)}
		book := &logBook{}
		m := newManager(t, session.Options{Store: sp, Logger: book.logger()})
		v := newVisitor(m)
		v.get(count)
		lost, saved := 0, 0
		for after := range 12 {
			var err error
			left := make(chan struct{})
			slow := http.TimeoutHandler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				defer close(left)
				s := session.From(r.Context())
				counterKey.Update(s, increment)
				time.Sleep(10*time.Millisecond + time.Duration(after)*time.Millisecond)
				counterKey.Update(s, increment)
				err = s.Err()
			}), 10*time.Millisecond, "slow")
			sp.on("S", func() error { time.Sleep(3 * time.Millisecond); return nil })
			before := counterOf(v)
			lines := strings.Count(book.String(), "has no effect")
			v.get(slow.ServeHTTP)
			<-left
			time.Sleep(time.Minute) // or the next line is left out
			switch got, logged := counterOf(v)-before, strings.Count(book.String(), "has no effect")-lines; {
			case got == 2 && err == nil && logged == 0:
				saved++
			case got == 1 && errors.Is(err, session.ErrClosed) && logged == 1:
				lost++
			default:
				t.Errorf("after %d ms: counted %d, error %v, %d lines", after, got, err, logged)
			}
		}
		if saved < 3 || lost < 3 {
			t.Errorf("%d were saved, %d refused", saved, lost)
		}
	})
}
