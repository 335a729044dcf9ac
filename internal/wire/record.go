package wire

import (
	"bytes"
	"crypto/sha256"
	"slices"
	"time"
)

// A Record is what the store keeps of a session. Times are Unix milliseconds.
type Record struct {
	Created int64  // the absolute timeout counts from here
	Used    int64  // the last use that was written; the idle timeout counts from here
	Kept    int64  // until when the store was told to keep the session
	MaxAge  MaxAge // a lifetime of the session's own

	// Secret is the digest of the secret in the session's cookie. Replaced are the digests
	// of secrets that it had before.
	Secret   Digest
	Replaced ReplacedSecrets

	// Resets counts the renewals without grace, each of which made all secrets but the new
	// one worthless. A request that has loaded the session before one saves nothing after it.
	Resets uint64

	// Saves are the last saves of the last writers. See [Record.Stamp].
	Saves Saves

	// Extra are fields that a later version of this library has written, as they stand in
	// the record. This version keeps them.
	Extra []byte

	// Origin is the session's first key in the store, if a renewal changes the key. It is
	// empty if a renewal does not.
	Origin string

	// Foreign is what the format keeps beside the values. What it points to does not change.
	Foreign any

	packed  []byte // nil if the values are listed
	packing Packing
	values  []Value // sorted by key, each key once
	shared  bool    // values belongs to another record too, and is copied before it changes
}

// A Value is one key of a session and its JSON.
type Value struct {
	Key, JSON []byte
}

// A Packing is how a format packs the values of a record. Most requests read one or two of
// them, and need no list of all.
type Packing interface {
	// Get returns the JSON under key, or nil.
	Get(packed []byte, key string) []byte

	// Values returns a list of all values, sorted by key.
	Values(packed []byte) []Value

	// Size returns the bytes of all keys and values.
	Size(packed []byte) int

	// Equal reports whether the packed values are those of the list.
	Equal(packed []byte, values []Value) bool
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
		r.SetValues(r.packing.Values(r.packed))
	}
	return r.values
}

// SetValues gives the record its values, which are sorted by key, each key once.
func (r *Record) SetValues(values []Value) {
	r.values, r.shared, r.packed = values, false, nil
}

// SetPacked gives the record its values, which must not change any more.
func (r *Record) SetPacked(packed []byte, packing Packing) { r.packed, r.packing = packed, packing }

// Packed returns the values as the record's format packs them, or nil if they have been
// listed or changed.
func (r *Record) Packed() []byte { return r.packed }

// few is up to how many bytes packed values are searched one after the other, and not listed.
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
		return r.packing.Get(r.packed, key)
	}
	if i, ok := r.find(key); ok {
		return r.values[i].JSON
	}
	return nil
}

// Set stores JSON under key. If json is nil, it removes the key.
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
		return r.packing.Size(r.packed)
	}
	for _, v := range r.values {
		n += len(v.Key) + len(v.JSON)
	}
	return n
}

// Largest returns the key whose value is the largest, and the size of that value.
func (r *Record) Largest() (key string, size int) {
	for _, v := range r.Values() {
		if key == "" || len(v.JSON) > size {
			key, size = string(v.Key), len(v.JSON)
		}
	}
	return key, size
}

// SameData reports whether r and o have the same values and lifetime, byte for byte.
func (r *Record) SameData(o *Record) bool {
	switch {
	case r.MaxAge != o.MaxAge:
		return false
	case r.packed != nil && o.packed != nil:
		return bytes.Equal(r.packed, o.packed)
	case o.packed != nil:
		return o.packing.Equal(o.packed, r.values)
	}
	return slices.EqualFunc(r.Values(), o.values, func(a, b Value) bool {
		return bytes.Equal(a.Key, b.Key) && bytes.Equal(a.JSON, b.JSON)
	})
}
