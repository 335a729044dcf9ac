package storetest

import (
	"bytes"
	"compress/flate"
	"context"
	"errors"
	"fmt"
	"iter"
	"slices"
	"sync"
	"time"

	"github.com/seed-4f96e14b/session"
)

// A store is right until a bug is seeded, which replaces some of its functions. The
// lock is held while they are called, except for keys, whose loop may call back.
type store struct {
	mu      sync.Mutex
	records map[string]record

	load                 func(c call) ([]byte, error)
	create, swap, delete func(c call) error
	keys                 func(ctx context.Context) iter.Seq2[string, error]
	clearAll             func(ctx context.Context) error
	validate             func() error
}

type record struct {
	data    []byte
	expires time.Time // zero: never
}

// A call has what a method is called with.
type call struct {
	ctx       context.Context
	key       string
	old, data []byte
	ttl       time.Duration
}

var errTTL = errors.New("ttl is not positive")

func newStore() *store {
	s := &store{records: make(map[string]record)}
	s.load = func(c call) ([]byte, error) {
		if err := c.ctx.Err(); err != nil {
			return nil, err
		}
		if !s.has(c.key) {
			return nil, session.ErrNotFound
		}
		return bytes.Clone(s.records[c.key].data), nil
	}
	s.create = func(c call) error {
		if err := c.admit(); err != nil {
			return err
		}
		if s.has(c.key) {
			return session.ErrConflict
		}
		s.put(c)
		return nil
	}
	s.swap = func(c call) error {
		if err := c.admit(); err != nil {
			return err
		}
		if !s.is(c.key, c.old) {
			return session.ErrConflict
		}
		s.put(c)
		return nil
	}
	s.delete = func(c call) error {
		if err := c.ctx.Err(); err != nil {
			return err
		}
		delete(s.records, c.key)
		return nil
	}
	s.keys = func(ctx context.Context) iter.Seq2[string, error] {
		return func(yield func(string, error) bool) {
			if err := ctx.Err(); err != nil {
				yield("", err)
				return
			}
			for _, key := range s.list() {
				if !yield(key, nil) {
					return
				}
			}
		}
	}
	s.validate = func() error { return nil }
	s.clearAll = func(ctx context.Context) error {
		if err := ctx.Err(); err != nil {
			return err
		}
		clear(s.records)
		return nil
	}
	return s
}

func (s *store) Load(ctx context.Context, key string) ([]byte, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.load(call{ctx: ctx, key: key})
}

func (s *store) Create(ctx context.Context, key string, data []byte, ttl time.Duration) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.create(call{ctx: ctx, key: key, data: data, ttl: ttl})
}

func (s *store) CompareAndSwap(ctx context.Context, key string, old, data []byte, ttl time.Duration) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.swap(call{ctx, key, old, data, ttl})
}

func (s *store) Delete(ctx context.Context, key string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.delete(call{ctx: ctx, key: key})
}

func (s *store) Keys(ctx context.Context) iter.Seq2[string, error] { return s.keys(ctx) }

func (s *store) Validate() error { return s.validate() }

func (s *store) Clear(ctx context.Context) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.clearAll(ctx)
}

func (c call) admit() error {
	if err := c.ctx.Err(); err != nil {
		return err
	}
	if c.ttl <= 0 {
		return errTTL
	}
	return nil
}

func (s *store) has(key string) bool {
	r, ok := s.records[key]
	return ok && (r.expires.IsZero() || time.Now().Before(r.expires))
}

func (s *store) is(key string, data []byte) bool {
	return s.has(key) && bytes.Equal(s.records[key].data, data)
}

func (s *store) put(c call) {
	s.records[c.key] = record{bytes.Clone(c.data), time.Now().Add(c.ttl)}
}

func (s *store) expire(key string, at time.Time) {
	if r, ok := s.records[key]; ok {
		s.records[key] = record{r.data, at}
	}
}

func (s *store) list() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	var keys []string
	for key := range s.records {
		if s.has(key) {
			keys = append(keys, key)
		}
	}
	slices.Sort(keys)
	return keys
}

// pause lets all others go first: in a bubble, no time passes until they all wait.
func (s *store) pause(d time.Duration) {
	s.mu.Unlock()
	time.Sleep(d)
	s.mu.Lock()
}

// tearSwap has others write between the comparison and the write of a swap, but only for
// the nanoseconds in which nobody has the lock.
func tearSwap(s *store) {
	swap := s.swap
	s.swap = func(c call) error {
		if !s.is(c.key, c.old) || c.admit() != nil {
			return swap(c)
		}
		s.mu.Unlock()
		s.mu.Lock()
		s.put(c)
		return nil
	}
}

func cutAt(n int) func(key string) string {
	return func(key string) string { return key[:min(len(key), n)] }
}

// asciiLower keeps what is no letter, also where it is no UTF-8.
func asciiLower(key string) string {
	b := []byte(key)
	for i, c := range b {
		if 'A' <= c && c <= 'Z' {
			b[i] = c - 'A' + 'a'
		}
	}
	return string(b)
}

func compressed(key string) int {
	var b bytes.Buffer
	w, _ := flate.NewWriter(&b, flate.BestCompression)
	_, _ = w.Write([]byte(key))
	_ = w.Close()
	return b.Len()
}

func (c call) undying() call {
	c.ctx = context.WithoutCancel(c.ctx)
	return c
}

// compares replaces how swap compares.
func compares(equal func(data, old []byte) bool) func(*store) {
	return func(s *store) {
		swap := s.swap
		s.swap = func(c call) error {
			if data := s.records[c.key].data; s.has(c.key) && equal(data, c.old) {
				c.old = data
			} else if s.has(c.key) && c.admit() == nil {
				return session.ErrConflict
			}
			return swap(c)
		}
	}
}

// changesKeys puts f before all functions.
func changesKeys(f func(string) string) func(*store) {
	return func(s *store) {
		load := s.load
		s.load = func(c call) ([]byte, error) {
			c.key = f(c.key)
			return load(c)
		}
		for _, function := range []*func(call) error{&s.create, &s.swap, &s.delete} {
			correct := *function
			*function = func(c call) error {
				c.key = f(c.key)
				return correct(c)
			}
		}
	}
}

func refusesKeys(bad func(string) bool) func(*store) {
	return func(s *store) {
		create := s.create
		s.create = func(c call) error {
			if bad(c.key) {
				return fmt.Errorf("invalid key %q", c.key)
			}
			return create(c)
		}
	}
}

// changesData puts f before what is written.
func changesData(f func([]byte) []byte) func(*store) {
	return func(s *store) {
		create, swap := s.create, s.swap
		s.create = func(c call) error {
			c.data = f(c.data)
			return create(c)
		}
		s.swap = func(c call) error {
			c.data = f(c.data)
			return swap(c)
		}
	}
}

// listsKeys puts f behind the list of live keys.
func listsKeys(f func(s *store, keys []string) []string) func(*store) {
	return func(s *store) {
		keys := s.keys
		s.keys = func(ctx context.Context) iter.Seq2[string, error] {
			if ctx.Err() != nil {
				return keys(ctx)
			}
			return func(yield func(string, error) bool) {
				for _, key := range f(s, s.list()) {
					if !yield(key, nil) {
						return
					}
				}
			}
		}
	}
}
