package storetest

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"iter"
	"maps"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/seed-4f96e14b/session"
)

// A seededBug is a mistake in a store that is right otherwise.
type seededBug struct {
	name, caughtBy string
	seed           func(s *store)
}

// Each of these is caught by a case of its own, and each case catches one.
var bugs = []seededBug{
	{"load of what is absent is no error", "load of an unknown key", func(s *store) {
		load := s.load
		s.load = func(c call) ([]byte, error) {
			data, err := load(c)
			if errors.Is(err, session.ErrNotFound) {
				err = nil
			}
			return data, err
		}
	}},
	{"load takes the record away", "load after create", func(s *store) {
		load := s.load
		s.load = func(c call) ([]byte, error) {
			data, err := load(c)
			delete(s.records, c.key)
			return data, err
		}
	}},
	{"load returns the last record for any key", "load of another key", func(s *store) {
		load, create := s.load, s.create
		last := ""
		s.create = func(c call) error {
			last = c.key
			return create(c)
		}
		s.load = func(c call) ([]byte, error) {
			if !s.has(c.key) && last != "" {
				c.key = last
			}
			return load(c)
		}
	}},

	{"create ignores that nothing was written", "create on a taken key", func(s *store) {
		create := s.create
		s.create = func(c call) error {
			if err := create(c); !errors.Is(err, session.ErrConflict) {
				return err
			}
			return nil
		}
	}},
	{"create overwrites, and then says so", "create on a taken key changes nothing", func(s *store) {
		create := s.create
		s.create = func(c call) error {
			err := create(c)
			if errors.Is(err, session.ErrConflict) {
				s.put(c)
			}
			return err
		}
	}},
	{"create of what is there is no conflict", "create of the same bytes again", func(s *store) {
		create := s.create
		s.create = func(c call) error {
			if s.is(c.key, c.data) {
				return nil
			}
			return create(c)
		}
	}},
	{"failed create sets the ttl", "create on a taken key keeps its time", func(s *store) {
		create := s.create
		s.create = func(c call) error {
			err := create(c)
			s.expire(c.key, time.Now().Add(c.ttl))
			return err
		}
	}},
	{"deleted keys stay in use", "create after delete", func(s *store) {
		create, remove := s.create, s.delete
		used := make(map[string]bool)
		s.delete = func(c call) error {
			used[c.key] = s.has(c.key)
			return remove(c)
		}
		s.create = func(c call) error {
			if used[c.key] {
				return session.ErrConflict
			}
			return create(c)
		}
	}},
	{"expired keys stay in use", "create after expiry", func(s *store) {
		create := s.create
		s.create = func(c call) error {
			if _, ok := s.records[c.key]; ok {
				return session.ErrConflict
			}
			return create(c)
		}
	}},
	{"create overwrites", "create after swap", func(s *store) {
		create := s.create
		s.create = func(c call) error {
			delete(s.records, c.key)
			return create(c)
		}
	}},

	{"swap writes nothing", "swap", func(s *store) {
		s.swap = func(c call) error {
			if err := c.admit(); err != nil || s.is(c.key, c.old) {
				return err
			}
			return session.ErrConflict
		}
	}},
	{"swap compares with what create wrote", "swap again and again", func(s *store) {
		create, swap := s.create, s.swap
		created := make(map[string][]byte)
		s.create = func(c call) error {
			err := create(c)
			if err == nil {
				created[c.key] = bytes.Clone(c.data)
			}
			return err
		}
		s.swap = func(c call) error {
			if !bytes.Equal(c.old, created[c.key]) {
				return session.ErrConflict
			}
			return swap(c)
		}
	}},
	{"swap that changes no byte is a conflict", "swap by the same bytes", func(s *store) {
		swap := s.swap
		s.swap = func(c call) error {
			if bytes.Equal(c.old, c.data) && c.admit() == nil {
				return session.ErrConflict
			}
			return swap(c)
		}
	}},
	{"swap replaces all records that are old", "swap leaves other keys alone", func(s *store) {
		swap := s.swap
		s.swap = func(c call) error {
			err := swap(c)
			for key := range s.records {
				if c.key = key; err == nil && s.is(key, c.old) {
					s.put(c)
				}
			}
			return err
		}
	}},
	{"swap ignores old", "swap of other bytes", func(s *store) {
		swap := s.swap
		s.swap = func(c call) error {
			if s.has(c.key) {
				c.old = s.records[c.key].data
			}
			return swap(c)
		}
	}},
	{"swap writes before it compares", "swap of other bytes changes nothing", func(s *store) {
		swap := s.swap
		s.swap = func(c call) error {
			err := swap(c)
			if errors.Is(err, session.ErrConflict) && s.has(c.key) {
				s.put(c)
			}
			return err
		}
	}},
	{"failed swap sets the ttl", "swap of other bytes keeps the time", func(s *store) {
		swap := s.swap
		s.swap = func(c call) error {
			err := swap(c)
			s.expire(c.key, time.Now().Add(c.ttl))
			return err
		}
	}},
	{"swap compares the length", "swap compares all bytes", compares(func(data, old []byte) bool {
		return len(data) == len(old)
	})},
	{"swap compares without regard to case", "swap compares upper and lower case", compares(bytes.EqualFold)},
	{"swap compares a prefix", "swap compares the length", compares(bytes.HasPrefix)},
	{"swap compares the first 64 KiB", "swap compares late bytes of long records", compares(func(data, old []byte) bool {
		return len(data) == len(old) && bytes.Equal(data[:min(len(data), 1<<16)], old[:min(len(old), 1<<16)])
	})},
	{"swap compares with a replica that lags", "swap of an earlier record", func(s *store) {
		swap := s.swap
		replica := make(map[string][]byte)
		s.swap = func(c call) error {
			if old, ok := replica[c.key]; ok && bytes.Equal(old, c.old) && s.has(c.key) {
				c.old = s.records[c.key].data
			}
			replica[c.key] = c.old
			return swap(c)
		}
	}},
	{"swap says not found", "swap of an unknown key", func(s *store) {
		swap := s.swap
		s.swap = func(c call) error {
			if err := swap(c); err == nil || s.has(c.key) || c.admit() != nil {
				return err
			}
			return session.ErrNotFound
		}
	}},
	{"swap creates", "swap never creates", func(s *store) {
		swap := s.swap
		s.swap = func(c call) error {
			if err := c.admit(); err == nil && !s.has(c.key) {
				s.put(c)
				return nil
			}
			return swap(c)
		}
	}},
	{"swap of nil creates", "swap of nothing never creates", func(s *store) {
		swap := s.swap
		s.swap = func(c call) error {
			if c.old == nil {
				return s.create(c)
			}
			return swap(c)
		}
	}},
	{"swap revives the deleted", "swap after delete", func(s *store) {
		swap, remove := s.swap, s.delete
		deleted := make(map[string][]byte) // soft
		s.delete = func(c call) error {
			if s.has(c.key) {
				deleted[c.key] = s.records[c.key].data
			}
			return remove(c)
		}
		s.swap = func(c call) error {
			if old, ok := deleted[c.key]; ok && bytes.Equal(old, c.old) && !s.has(c.key) {
				s.put(c)
				return nil
			}
			return swap(c)
		}
	}},
	{"swap revives the expired", "swap after expiry", func(s *store) {
		swap := s.swap
		s.swap = func(c call) error {
			if r, ok := s.records[c.key]; ok && bytes.Equal(r.data, c.old) && c.admit() == nil {
				s.put(c)
				return nil
			}
			return swap(c)
		}
	}},
	{"swap compares with a cache that outlives the record", "swap after delete and create", func(s *store) {
		create, swap := s.create, s.swap
		cache := make(map[string][]byte)
		s.create = func(c call) error {
			if _, ok := cache[c.key]; !ok {
				cache[c.key] = bytes.Clone(c.data)
			}
			return create(c)
		}
		s.swap = func(c call) error {
			if s.has(c.key) && bytes.Equal(c.old, cache[c.key]) {
				c.old = s.records[c.key].data
			}
			err := swap(c)
			if err == nil {
				cache[c.key] = bytes.Clone(c.data)
			}
			return err
		}
	}},

	{"delete does nothing", "delete", func(s *store) {
		s.delete = func(c call) error { return c.ctx.Err() }
	}},
	{"delete says not found", "delete of an unknown key", func(s *store) {
		remove := s.delete
		s.delete = func(c call) error {
			if _, ok := s.records[c.key]; !ok {
				return session.ErrNotFound
			}
			return remove(c)
		}
	}},
	{"delete by prefix", "delete leaves other keys alone", func(s *store) {
		remove := s.delete
		s.delete = func(c call) error {
			prefix := c.key
			for key := range s.records {
				if c.key = key; strings.HasPrefix(key, prefix) && c.ctx.Err() == nil {
					_ = remove(c)
				}
			}
			return c.ctx.Err()
		}
	}},
	{"delete only of what create wrote", "delete after swap", func(s *store) {
		swap, remove := s.swap, s.delete
		swapped := make(map[string]bool)
		s.swap = func(c call) error {
			err := swap(c)
			swapped[c.key] = swapped[c.key] || err == nil
			return err
		}
		s.delete = func(c call) error {
			if swapped[c.key] {
				return c.ctx.Err()
			}
			return remove(c)
		}
	}},
	{"delete leaves an empty record behind", "delete creates nothing", func(s *store) {
		remove := s.delete
		s.delete = func(c call) error {
			if _, ok := s.records[c.key]; ok {
				return remove(c)
			}
			s.records[c.key] = record{}
			return nil
		}
	}},

	{"expiry a second early", "a record lives as long as its ttl", func(s *store) {
		create := s.create
		s.create = func(c call) error {
			err := create(c)
			if err == nil {
				s.expire(c.key, time.Now().Add(c.ttl-time.Second))
			}
			return err
		}
	}},
	{"create sets no ttl", "and no longer", func(s *store) {
		create := s.create
		s.create = func(c call) error {
			err := create(c)
			if err == nil {
				s.expire(c.key, time.Time{})
			}
			return err
		}
	}},
	{"load sets the ttl anew", "loading does not prolong a record", func(s *store) {
		create, load := s.create, s.load
		ttls := make(map[string]time.Duration)
		s.create = func(c call) error {
			err := create(c)
			if err == nil {
				ttls[c.key] = c.ttl
			}
			return err
		}
		s.load = func(c call) ([]byte, error) {
			data, err := load(c)
			if err == nil {
				s.expire(c.key, time.Now().Add(ttls[c.key]))
			}
			return data, err
		}
	}},
	{"swap keeps the ttl", "swap prolongs a record", func(s *store) {
		swap := s.swap
		s.swap = func(c call) error {
			was := s.records[c.key].expires
			err := swap(c)
			s.expire(c.key, was)
			return err
		}
	}},
	{"swap sets no ttl", "swap shortens a record", func(s *store) {
		swap := s.swap
		s.swap = func(c call) error {
			err := swap(c)
			if err == nil {
				s.expire(c.key, time.Time{})
			}
			return err
		}
	}},
	{"create keeps the ttl of an earlier record", "a record does not inherit the time of the one before", func(s *store) {
		create := s.create
		expiries := make(map[string]time.Time)
		s.create = func(c call) error {
			err := create(c)
			if err != nil {
				return err
			}
			if time.Now().Before(expiries[c.key]) {
				s.expire(c.key, expiries[c.key])
			}
			expiries[c.key] = s.records[c.key].expires
			return nil
		}
	}},
	{"create refuses less than a millisecond", "the shortest ttl of create", func(s *store) {
		create := s.create
		s.create = func(c call) error {
			c.ttl = c.ttl.Truncate(time.Millisecond)
			return create(c)
		}
	}},
	{"swap takes less than a millisecond for ever", "the shortest ttl of swap", func(s *store) {
		swap := s.swap
		s.swap = func(c call) error {
			err := swap(c)
			if err == nil && c.ttl < time.Millisecond {
				s.expire(c.key, time.Time{})
			}
			return err
		}
	}},
	{"a ttl of zero or less is for ever", "zero and negative ttl of create", func(s *store) {
		create := s.create
		s.create = func(c call) error {
			if c.ttl > 0 {
				return create(c)
			}
			c.ttl = time.Hour
			err := create(c)
			if err == nil {
				s.expire(c.key, time.Time{})
			}
			return err
		}
	}},
	{"swap with a ttl of zero or less ends the record", "zero and negative ttl of swap", func(s *store) {
		swap := s.swap
		s.swap = func(c call) error {
			if c.ttl <= 0 && s.is(c.key, c.old) {
				s.put(c)
				return errTTL
			}
			return swap(c)
		}
	}},
	{"a huge ttl ends in the past", "huge ttl", func(s *store) {
		swap := s.swap
		s.swap = func(c call) error {
			err := swap(c)
			if err == nil {
				s.expire(c.key, time.Unix(0, time.Now().UnixNano()+int64(c.ttl)))
			}
			return err
		}
	}},

	{"create keeps the caller's bytes", "create copies the data", func(s *store) {
		create := s.create
		s.create = func(c call) error {
			err := create(c)
			if err == nil {
				s.records[c.key] = record{c.data, s.records[c.key].expires}
			}
			return err
		}
	}},
	{"swap keeps the caller's bytes", "swap copies the data", func(s *store) {
		swap := s.swap
		s.swap = func(c call) error {
			err := swap(c)
			if err == nil {
				s.records[c.key] = record{c.data, s.records[c.key].expires}
			}
			return err
		}
	}},
	{"swap writes into old", "swap leaves its arguments alone", func(s *store) {
		swap := s.swap
		s.swap = func(c call) error {
			defer clear(c.old)
			return swap(c)
		}
	}},
	{"load hands out the store's bytes", "load hands out a copy", func(s *store) {
		load := s.load
		s.load = func(c call) ([]byte, error) {
			if _, err := load(c); err != nil {
				return nil, err
			}
			return slices.Clip(s.records[c.key].data), nil
		}
	}},
	{"loads share the capacity of an arena", "appending to what load hands out", func(s *store) {
		load := s.load
		var arena []byte
		s.load = func(c call) ([]byte, error) {
			data, err := load(c)
			if cap(arena)-len(arena) < len(data) {
				arena = make([]byte, 0, 4096+len(data))
			}
			start := len(arena)
			arena = append(arena, data...)
			return arena[start:], err
		}
	}},
	{"equal loads share a buffer", "two loads do not share bytes", func(s *store) {
		load := s.load
		var last []byte
		s.load = func(c call) ([]byte, error) {
			data, err := load(c)
			if !bytes.Equal(data, last) {
				last = data
			}
			return slices.Clip(last), err
		}
	}},

	{"load ignores the context", "load with a dead context", func(s *store) {
		load := s.load
		s.load = func(c call) ([]byte, error) { return load(c.undying()) }
	}},
	{"create ignores the context", "create with a dead context", func(s *store) {
		create := s.create
		s.create = func(c call) error { return create(c.undying()) }
	}},
	{"swap ignores the context", "swap with a dead context", func(s *store) {
		swap := s.swap
		s.swap = func(c call) error { return swap(c.undying()) }
	}},
	{"delete ignores the context", "delete with a dead context", func(s *store) {
		remove := s.delete
		s.delete = func(c call) error { return remove(c.undying()) }
	}},
	{"any failure of load is not found", "a failed call says neither not found nor conflict", func(s *store) {
		load := s.load
		s.load = func(c call) ([]byte, error) {
			data, err := load(c)
			if err != nil {
				err = session.ErrNotFound
			}
			return data, err
		}
	}},

	{"keys lose their white space", "keys that differ in little", changesKeys(strings.TrimSpace)},
	{"keys lose their case", "keys that differ in case", changesKeys(asciiLower)},
	{"keys are cut at 254 bytes", "long keys", changesKeys(cutAt(254))},
	{"keys must be names", "hostile keys", refusesKeys(func(key string) bool { return strings.ContainsAny(key, "\r\n") })},
	{"empty data is no record", "empty data", func(s *store) {
		load := s.load
		s.load = func(c call) ([]byte, error) {
			data, err := load(c)
			if err == nil && len(data) == 0 {
				err = session.ErrNotFound
			}
			return data, err
		}
	}},
	{"nil data is refused", "nil data", func(s *store) {
		create := s.create
		s.create = func(c call) error {
			if c.data == nil {
				return errors.New("data must not be null")
			}
			return create(c)
		}
	}},
	{"data goes through a text column", "all bytes", changesData(func(data []byte) []byte {
		return bytes.ToValidUTF8(data, []byte("\uFFFD"))
	})},
	{"data goes through a JSON column", "no text, no number, no JSON", changesData(func(data []byte) []byte {
		var b bytes.Buffer
		if json.Compact(&b, data) != nil {
			return data
		}
		return b.Bytes()
	})},
	{"data is cut at 64 KiB", "1 MiB", changesData(func(data []byte) []byte { return data[:min(len(data), 1<<16)] })},

	{"create looks, then writes", "one of many creates wins", func(s *store) {
		create := s.create
		s.create = func(c call) error {
			if s.has(c.key) || c.admit() != nil {
				return create(c)
			}
			s.pause(1)
			s.put(c)
			return nil
		}
	}},
	{"swap compares, then writes", "one of many swaps wins", func(s *store) {
		swap := s.swap
		s.swap = func(c call) error {
			if !s.is(c.key, c.old) || c.admit() != nil {
				return swap(c)
			}
			s.pause(1)
			if !s.has(c.key) {
				return session.ErrConflict
			}
			s.put(c)
			return nil
		}
	}},
	{"swap leaves its lock between the comparison and the write", tornSwap, tearSwap},
	{"swap deletes, then creates", "a counter by swaps", func(s *store) {
		swap := s.swap
		s.swap = func(c call) error {
			if !s.is(c.key, c.old) || c.admit() != nil {
				return swap(c)
			}
			delete(s.records, c.key)
			s.pause(1)
			return s.create(c)
		}
	}},
	{"swap re-creates what is deleted meanwhile", "delete against swaps", func(s *store) {
		swap, remove := s.swap, s.delete
		s.swap = func(c call) error {
			if !s.is(c.key, c.old) || c.admit() != nil {
				return swap(c)
			}
			s.pause(2)
			if s.has(c.key) {
				return swap(c)
			}
			s.put(c)
			return nil
		}
		s.delete = func(c call) error {
			s.pause(1) // in the midst of the swaps
			return remove(c)
		}
	}},
	{"create sets the ttl after the write", "a write and its ttl are one", func(s *store) {
		create := s.create
		s.create = func(c call) error {
			err := create(c)
			if err == nil {
				s.expire(c.key, time.Time{})
				s.pause(10 * time.Millisecond)
				s.expire(c.key, time.Now().Add(c.ttl))
			}
			return err
		}
	}},
	{"create rewrites the whole file", "many keys at once", func(s *store) {
		create := s.create
		s.create = func(c call) error {
			file := maps.Clone(s.records)
			s.pause(1)
			s.records = file
			err := create(c)
			s.pause(1) // until all have written
			return err
		}
	}},

	{"keys with the store's prefix", "keys of all records", listsKeys(func(_ *store, keys []string) []string {
		for i, key := range keys {
			keys[i] = "sess:" + key
		}
		return keys
	})},
	{"keys of expired records", "keys of deleted and expired records", listsKeys(func(s *store, _ []string) []string {
		s.mu.Lock()
		defer s.mu.Unlock()
		return slices.Collect(maps.Keys(s.records))
	})},
	{"pages of keys overlap", "many keys, each once", listsKeys(func(_ *store, keys []string) []string {
		if len(keys) < 1000 {
			return keys
		}
		return slices.Insert(keys, 1000, keys[999])
	})},
	{"keys go on after a break", "keys, and away", func(s *store) {
		keys := s.keys
		s.keys = func(ctx context.Context) iter.Seq2[string, error] {
			return func(yield func(string, error) bool) {
				keys(ctx)(func(key string, err error) bool {
					yield(key, err)
					return true
				})
			}
		}
	}},
	{"keys end quietly where the context does", "keys with a cancelled context", func(s *store) {
		keys := s.keys
		s.keys = func(ctx context.Context) iter.Seq2[string, error] {
			return func(yield func(string, error) bool) {
				keys(ctx)(func(key string, err error) bool { return err == nil && yield(key, nil) })
			}
		}
	}},
	{"validate refuses every store", "validate", func(s *store) {
		s.validate = func() error { return errors.New("a store without a server; give it one") }
	}},
	{"clear leaves the last record", "clear", func(s *store) {
		clearAll := s.clearAll
		s.clearAll = func(ctx context.Context) error {
			keys := slices.Sorted(maps.Keys(s.records))
			if len(keys) == 0 {
				return clearAll(ctx)
			}
			last := s.records[keys[len(keys)-1]]
			err := clearAll(ctx)
			s.records[keys[len(keys)-1]] = last
			return err
		}
	}},
}

// And these are caught by cases that have a bug of their own already.
var moreBugs = []seededBug{
	{"keys lose their case, also beyond ASCII", "keys that differ in case", changesKeys(strings.ToLower)},
	{"keys are paths", "keys that differ in little", changesKeys(path.Clean)},
	{"keys end at a NUL", "keys that differ in little", changesKeys(func(key string) string {
		key, _, _ = strings.Cut(key, "\x00")
		return key
	})},
	{"keys are cut at 191 bytes", "long keys", changesKeys(cutAt(191))},
	{"keys are cut at 254 bytes from behind", "keys that differ in case", changesKeys(func(key string) string { return key[max(0, len(key)-254):] })},
	{"keys longer than 254 bytes are refused", "long keys", refusesKeys(func(key string) bool { return len(key) > 254 })},
	{"keys that are long when compressed are refused", "long keys", refusesKeys(func(key string) bool { return compressed(key) > 191 })},
	{"listed keys are UTF-8", "keys of all records", listsKeys(func(_ *store, keys []string) []string {
		for i, key := range keys {
			keys[i] = strings.ToValidUTF8(key, "\uFFFD")
		}
		return keys
	})},
	{"listed keys are cut at 254 bytes", "keys of all records", listsKeys(func(_ *store, keys []string) []string {
		for i, key := range keys {
			keys[i] = cutAt(254)(key)
		}
		return keys
	})},
	{"a swap that changes no byte is now and then a conflict", "swap by the same bytes", func(s *store) {
		swap, n := s.swap, 0
		s.swap = func(c call) error {
			if bytes.Equal(c.old, c.data) && c.admit() == nil {
				if n++; n == 50 {
					return session.ErrConflict
				}
			}
			return swap(c)
		}
	}},
	{"keys must be UTF-8", "hostile keys", refusesKeys(func(key string) bool { return strings.ToValidUTF8(key, "") != key })},
	{"an empty key is refused", "hostile keys", refusesKeys(func(key string) bool { return key == "" })},
	{"delete takes a pattern", "hostile keys", func(s *store) {
		remove := s.delete
		s.delete = func(c call) error {
			pattern := c.key
			for key := range s.records {
				if ok, err := path.Match(pattern, key); err == nil && ok && c.ctx.Err() == nil {
					c.key = key
					_ = remove(c)
				}
			}
			c.key = pattern
			return remove(c)
		}
	}},
	{"swap compares without regard to trailing blanks", "swap compares the length", compares(func(data, old []byte) bool {
		return bytes.Equal(bytes.TrimRight(data, " "), bytes.TrimRight(old, " "))
	})},
	{"swap compares as far as a NUL", "swap compares the length", compares(func(data, old []byte) bool {
		data, _, _ = bytes.Cut(data, []byte{0})
		old, _, _ = bytes.Cut(old, []byte{0})
		return bytes.Equal(data, old)
	})},
	{"swap takes a conflict for success", "swap of other bytes", func(s *store) {
		swap := s.swap
		s.swap = func(c call) error {
			if err := swap(c); !errors.Is(err, session.ErrConflict) {
				return err
			}
			return nil
		}
	}},
	{"swap always conflicts", "a counter by swaps", func(s *store) {
		s.swap = func(call) error { return session.ErrConflict }
	}},
	{"swap takes the longer ttl", "swap shortens a record", func(s *store) {
		swap := s.swap
		s.swap = func(c call) error {
			was := s.records[c.key].expires
			err := swap(c)
			if was.After(s.records[c.key].expires) {
				s.expire(c.key, was)
			}
			return err
		}
	}},
	{"swap with a ttl of zero or less is a delete", "zero and negative ttl of swap", func(s *store) {
		swap := s.swap
		s.swap = func(c call) error {
			if c.ttl <= 0 && s.is(c.key, c.old) {
				return s.delete(c)
			}
			return swap(c)
		}
	}},
	{"a ttl is cut to whole seconds", "a record lives as long as its ttl", func(s *store) {
		create := s.create
		s.create = func(c call) error {
			if c.ttl > time.Second {
				c.ttl = c.ttl.Truncate(time.Second)
			}
			return create(c)
		}
	}},
	{"a ttl is rounded up to a minute", "and no longer", func(s *store) {
		create := s.create
		s.create = func(c call) error {
			c.ttl = (c.ttl + time.Minute - 1).Truncate(time.Minute)
			return create(c)
		}
	}},
	{"create takes less than a millisecond for ever", "the shortest ttl of create", func(s *store) {
		create := s.create
		s.create = func(c call) error {
			err := create(c)
			if err == nil && c.ttl < time.Millisecond {
				s.expire(c.key, time.Time{})
			}
			return err
		}
	}},
	{"load does not look at the ttl", "and no longer", func(s *store) {
		load := s.load
		s.load = func(c call) ([]byte, error) {
			if r, ok := s.records[c.key]; ok && c.ctx.Err() == nil {
				return bytes.Clone(r.data), nil
			}
			return load(c)
		}
	}},
	{"create says that the context is dead, and goes on", "create with a dead context", func(s *store) {
		create := s.create
		s.create = func(c call) error { return errors.Join(create(c.undying()), c.ctx.Err()) }
	}},
	{"delete knows no deadline", "delete with a dead context", func(s *store) {
		remove := s.delete
		s.delete = func(c call) error {
			if errors.Is(c.ctx.Err(), context.DeadlineExceeded) {
				c = c.undying()
			}
			return remove(c)
		}
	}},
	{"any failure of create is a conflict", "a failed call says neither not found nor conflict", func(s *store) {
		create := s.create
		s.create = func(c call) error {
			if create(c) != nil {
				return session.ErrConflict
			}
			return nil
		}
	}},
	{"empty data is room for a create", "nil data", func(s *store) {
		create := s.create
		s.create = func(c call) error {
			if s.is(c.key, nil) {
				delete(s.records, c.key)
			}
			return create(c)
		}
	}},
	{"keys go on after an error", "keys with a cancelled context", func(s *store) {
		keys := s.keys
		s.keys = func(ctx context.Context) iter.Seq2[string, error] {
			return func(yield func(string, error) bool) {
				if err := ctx.Err(); err != nil && !yield("", err) {
					return
				}
				keys(context.WithoutCancel(ctx))(yield)
			}
		}
	}},
}

const tornSwap = "swaps race"
