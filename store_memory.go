package session

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"hash/maphash"
	"iter"
	"math"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"time"
	"weak"
)

// A MemoryStore keeps sessions in the memory of this process, and they end with it. It is fit for
// production if one process serves all requests.
//
// The zero value is an empty store without a limit, ready for use. Expired
// sessions are removed within a minute of their time. The store needs no Close:
// it runs no goroutine while it waits, and can be garbage collected at any time.
//
// A MemoryStore is safe for concurrent use, and must not be copied.
type MemoryStore struct {
	// MaxEntries is how many sessions the store holds at most. When it is full,
	// [MemoryStore.Create] fails with [ErrFull], and the sessions that are there
	// go on: no live session is thrown out to make room. A Manager keeps a session
	// for a minute after its deadline, and it counts until then. Zero means no
	// limit; a negative value is an error of [New]. MaxEntries must not be changed after
	// the first use.
	MaxEntries int

	shards  [memoryShards]memoryShard
	count   atomic.Int64 // entries in all shards, expired ones that are not swept included
	sweeper atomic.Bool  // whether a timer for the next sweep is set
}

const (
	memoryShards  = 256
	sweepInterval = time.Minute
)

// A memoryShard holds the entries whose keys hash to it. Requests on different cores
// mostly need different shards, so they do not wait for each other, nor for a sweep, which
// locks one shard at a time.
type memoryShard struct {
	mu      sync.Mutex
	entries map[string]*memoryEntry
	// earliest is no later than the first expiry in entries. A sweep before
	// that has nothing to find and is skipped, also by a flood on a full store.
	earliest int64
}

// A memoryEntry is a record. Its bytes are replaced, and never changed in place.
type memoryEntry struct {
	data    []byte
	expires int64 // Unix milliseconds
}

// Validate implements [Validator]. It refuses a nil store and a negative MaxEntries.
func (s *MemoryStore) Validate() error {
	switch {
	case s == nil:
		return errors.New("a nil *MemoryStore; leave Store out, or use new(session.MemoryStore)")
	case s.MaxEntries < 0:
		return fmt.Errorf("a MemoryStore with MaxEntries %d; use 0 for no limit", s.MaxEntries)
	}
	return nil
}

var memorySeed = maphash.MakeSeed()

func (s *MemoryStore) shard(key string) *memoryShard {
	return &s.shards[maphash.String(memorySeed, key)%memoryShards]
}

// Load implements [Store].
func (s *MemoryStore) Load(ctx context.Context, key string) ([]byte, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	data, err := s.lend(key)
	return bytes.Clone(data), err
}

func (s *MemoryStore) lend(key string) ([]byte, error) {
	sh := s.shard(key)
	sh.mu.Lock()
	defer sh.mu.Unlock()
	e, ok := sh.live(key, time.Now())
	if !ok {
		return nil, ErrNotFound
	}
	return e.data, nil
}

// A lender is a MemoryStore for a Manager. A Manager does not change bytes that it has loaded, so
// a lender does not copy them.
type lender struct{ *MemoryStore }

func (s lender) Load(ctx context.Context, key string) ([]byte, error) { return s.lend(key) }

// Create implements [Store]. It returns [ErrFull] when the store holds MaxEntries
// live sessions.
func (s *MemoryStore) Create(ctx context.Context, key string, data []byte, ttl time.Duration) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if ttl <= 0 {
		return errTTL
	}
	sh := s.shard(key)
	if s.full() && !sh.has(key) {
		s.sweep()
	}
	defer s.scheduleSweep()
	sh.mu.Lock()
	defer sh.mu.Unlock()
	now := time.Now()
	if _, ok := sh.live(key, now); ok {
		return ErrConflict
	}
	if _, expired := sh.entries[key]; !expired {
		if n := s.count.Add(1); s.MaxEntries > 0 && n > int64(s.MaxEntries) {
			s.count.Add(-1)
			return fmt.Errorf("%w: it holds %d live sessions, its MaxEntries", ErrFull, s.MaxEntries)
		}
	}
	sh.add(key, newEntry(data, now, ttl))
	return nil
}

func (s *MemoryStore) full() bool {
	return s.MaxEntries > 0 && s.count.Load() >= int64(s.MaxEntries)
}

// CompareAndSwap implements [Store].
func (s *MemoryStore) CompareAndSwap(ctx context.Context, key string, old, data []byte, ttl time.Duration) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if ttl <= 0 {
		return errTTL
	}
	sh := s.shard(key)
	sh.mu.Lock()
	defer sh.mu.Unlock()
	now := time.Now()
	e, ok := sh.live(key, now)
	if !ok || !bytes.Equal(e.data, old) {
		return ErrConflict
	}
	*e = newEntry(data, now, ttl)
	sh.earliest = min(sh.earliest, e.expires)
	return nil
}

// Delete implements [Store].
func (s *MemoryStore) Delete(ctx context.Context, key string) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	sh := s.shard(key)
	sh.mu.Lock()
	defer sh.mu.Unlock()
	if _, ok := sh.entries[key]; ok {
		delete(sh.entries, key)
		s.count.Add(-1)
	}
	return nil
}

// Keys implements [KeyLister]. It never holds a lock while the loop's body runs.
func (s *MemoryStore) Keys(ctx context.Context) iter.Seq2[string, error] {
	return func(yield func(string, error) bool) {
		for i := range s.shards {
			if err := ctx.Err(); err != nil {
				yield("", err)
				return
			}
			for _, key := range s.shards[i].keys(time.Now()) {
				if !yield(key, nil) {
					return
				}
			}
		}
	}
}

// Clear implements [Clearer].
func (s *MemoryStore) Clear(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	for i := range s.shards {
		sh := &s.shards[i]
		sh.mu.Lock()
		s.count.Add(-int64(len(sh.entries)))
		sh.entries = nil
		sh.mu.Unlock()
	}
	return nil
}

// Format implements [fmt.Formatter]. No verb prints what the sessions hold.
func (s *MemoryStore) Format(f fmt.State, _ rune) {
	fmt.Fprintf(f, "session.MemoryStore(%d entries)", s.count.Load())
}

// scheduleSweep sets the timer for the next sweep, unless one is set or the store is empty. The
// timer has a weak pointer to the store, so that it does not keep it alive.
func (s *MemoryStore) scheduleSweep() {
	if s.count.Load() == 0 || !s.sweeper.CompareAndSwap(false, true) {
		return
	}
	store := weak.Make(s)
	time.AfterFunc(sweepInterval, func() {
		if s := store.Value(); s != nil {
			s.sweeper.Store(false)
			s.sweep()
			s.scheduleSweep()
		}
	})
}

// sweep removes the expired entries, one shard after the other.
func (s *MemoryStore) sweep() {
	for i := range s.shards {
		if s.shards[i].sweep(time.Now(), &s.count) {
			runtime.Gosched() // a request that waits for a CPU is not to wait for all shards
		}
	}
}

// sweep reports whether there was anything to look for.
func (sh *memoryShard) sweep(now time.Time, count *atomic.Int64) bool {
	sh.mu.Lock()
	defer sh.mu.Unlock()
	nowMS := now.UnixMilli()
	if len(sh.entries) == 0 || nowMS < sh.earliest {
		return false
	}
	sh.earliest = math.MaxInt64
	for key, e := range sh.entries {
		if e.expires <= nowMS {
			delete(sh.entries, key)
			count.Add(-1)
		} else {
			sh.earliest = min(sh.earliest, e.expires)
		}
	}
	if len(sh.entries) == 0 {
		sh.entries = nil // a map that was large gives its memory back
	}
	return true
}

// live returns the entry under key if its time has not run out.
func (sh *memoryShard) live(key string, now time.Time) (*memoryEntry, bool) {
	e, ok := sh.entries[key]
	return e, ok && now.UnixMilli() < e.expires
}

func (sh *memoryShard) has(key string) bool {
	sh.mu.Lock()
	defer sh.mu.Unlock()
	_, ok := sh.entries[key]
	return ok
}

func newEntry(data []byte, now time.Time, ttl time.Duration) memoryEntry {
	e := memoryEntry{data: append(make([]byte, 0, len(data)), data...), expires: now.UnixMilli() + wholeMilliseconds(ttl).Milliseconds()}
	if now.Nanosecond()%int(time.Millisecond) > 0 {
		e.expires++ // so that no record ends early
	}
	return e
}

func (sh *memoryShard) add(key string, e memoryEntry) {
	if len(sh.entries) == 0 {
		sh.entries = make(map[string]*memoryEntry)
		sh.earliest = e.expires
	}
	// A copy of the key, which may be a part of a larger text that has the secret.
	sh.entries[strings.Clone(key)] = &e
	sh.earliest = min(sh.earliest, e.expires)
}

func (sh *memoryShard) keys(now time.Time) []string {
	sh.mu.Lock()
	defer sh.mu.Unlock()
	nowMS := now.UnixMilli()
	keys := make([]string, 0, len(sh.entries))
	for key, e := range sh.entries {
		if nowMS < e.expires {
			keys = append(keys, key)
		}
	}
	return keys
}

var (
	_ KeyLister     = (*MemoryStore)(nil)
	_ Clearer       = (*MemoryStore)(nil)
	_ Validator     = (*MemoryStore)(nil)
	_ fmt.Formatter = (*MemoryStore)(nil)
)
