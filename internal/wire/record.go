package wire

import (
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"slices"
	"time"
)

// A Record is what the store keeps of a session.
type Record struct {
	Created int64  // Unix milliseconds; the absolute timeout counts from here
	Expires int64  // Unix milliseconds; the end of the session unless it is used before
	MaxAge  MaxAge // of this session alone

	// Secrets are the digests of the secrets that open the session: one, or
	// several after renewals at the same time.
	Secrets Digests

	// Marks are those of the last writes, one after the other, the latest first. See
	// [Record.Stamp].
	Marks []byte

	// Foreign is what the format has to keep beside the values. It does not change.
	Foreign any

	packed Packed  // nil if the values are listed
	values []Value // sorted by key, each key once
	shared bool    // values belongs to another record too: copy before changing it
}

// A Value is one key of a session and its JSON.
type Value struct {
	Key, JSON []byte
}

// A MaxAge is the lifetime of one session, in milliseconds plus one. Zero means that
// it has none of its own.
type MaxAge int64

// NewMaxAge returns d, which is not negative, in whole milliseconds.
func NewMaxAge(d time.Duration) MaxAge { return MaxAge(d.Milliseconds()) + 1 }

// Own returns the lifetime, and reports whether the session has one of its own.
func (m MaxAge) Own() (time.Duration, bool) {
	if m == 0 {
		return 0, false
	}
	return time.Duration(m-1) * time.Millisecond, true
}

// A Digest is what the record holds of a secret: half of its SHA-256. The
// secret is 128 random bits or more, so a longer hash would protect nothing more.
type Digest [16]byte

// DigestOf returns the digest of a secret.
func DigestOf(secret string) Digest {
	sum := sha256.Sum256([]byte(secret))
	return Digest(sum[:])
}

// Digests are those of several secrets, one after the other, as they stand in a record.
type Digests []byte

// Has reports, in constant time for each digest, whether d is one of them.
func (all Digests) Has(d Digest) bool {
	found := 0
	for digest := range slices.Chunk(all, len(d)) {
		found |= subtle.ConstantTimeCompare(digest, d[:])
	}
	return found == 1
}

// Opens reports whether one of the record's secrets has the digest d.
func (r *Record) Opens(d Digest) bool { return r.Secrets.Has(d) }

// A Mark names one write of a record.
type Mark [8]byte

// keptMarks is how many writes of others may come between a write whose reply
// was lost and the look that finds it.
const keptMarks = 8

// Stamp gives the record a fresh mark, and returns it. A save that is refused
// because the record has changed finds by its mark whether the change was its
// own, applied already with the reply lost on the way.
func (r *Record) Stamp() Mark {
	var m Mark
	rand.Read(m[:])
	kept := r.Marks[:min(len(r.Marks), (keptMarks-1)*len(m))]
	r.Marks = slices.Concat(m[:], kept)
	return m
}

// HasMark reports whether one of the marks is among the record's.
func (r *Record) HasMark(marks []Mark) bool {
	for mark := range slices.Chunk(r.Marks, len(Mark{})) {
		if slices.Contains(marks, Mark(mark)) {
			return true
		}
	}
	return false
}

// Copy returns a record that can be changed without changing r.
func (r *Record) Copy() Record {
	r.shared = true
	return *r
}

// IsEmpty reports whether there are no values.
func (r *Record) IsEmpty() bool { return len(r.packed) == 0 && len(r.values) == 0 }

// Values returns all values, sorted by key. They must not be changed.
func (r *Record) Values() []Value {
	if r.packed != nil {
		r.SetValues(r.packed.values())
	}
	return r.values
}

// SetValues gives the record its values, which are sorted by key, each key once.
func (r *Record) SetValues(values []Value) {
	r.values, r.shared, r.packed = values, false, nil
}

// SetPacked gives the record its values.
func (r *Record) SetPacked(p Packed) { r.packed = p }

// few is for how many bytes of values a list of them does not pay.
const few = 4 << 10

func (r *Record) find(key string) (int, bool) {
	return slices.BinarySearchFunc(r.Values(), key, func(v Value, key string) int {
		switch {
		case string(v.Key) < key:
			return -1
		case string(v.Key) > key:
			return 1
		}
		return 0
	})
}

// Get returns the JSON under key, or nil.
func (r *Record) Get(key string) []byte {
	if r.packed != nil && len(r.packed) <= few {
		return r.packed.get(key)
	}
	if i, ok := r.find(key); ok {
		return r.values[i].JSON
	}
	return nil
}

// Set puts JSON under key, and removes the key if json is nil.
func (r *Record) Set(key string, json []byte) {
	i, ok := r.find(key)
	if r.shared {
		r.SetValues(slices.Clone(r.values))
	}
	switch {
	case json == nil && ok:
		r.values = slices.Delete(r.values, i, i+1)
	case json == nil:
	case ok:
		r.values[i].JSON = json
	case len(r.values) == 0:
		r.values = append(make([]Value, 0, 4), Value{[]byte(key), json})
	default:
		r.values = slices.Insert(r.values, i, Value{[]byte(key), json})
	}
}

// Size returns the bytes of all keys and values.
func (r *Record) Size() (n int) {
	if r.packed != nil {
		return r.packed.size()
	}
	for _, v := range r.values {
		n += len(v.Key) + len(v.JSON)
	}
	return n
}

// SameData reports whether r and o hold the same values and lifetime, to the byte.
func (r *Record) SameData(o *Record) bool {
	switch {
	case r.MaxAge != o.MaxAge:
		return false
	case r.packed != nil && o.packed != nil:
		return bytes.Equal(r.packed, o.packed)
	case o.packed != nil:
		return o.packed.equal(r.values)
	}
	return slices.EqualFunc(r.Values(), o.values, func(a, b Value) bool {
		return bytes.Equal(a.Key, b.Key) && bytes.Equal(a.JSON, b.JSON)
	})
}
