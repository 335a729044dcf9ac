package session

import (
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/binary"
	"errors"
	"slices"
	"time"
)

// A record is what the store keeps of a session.
type record struct {
	created int64  // Unix milliseconds; the absolute timeout counts from here
	expires int64  // Unix milliseconds; the end of the session unless it is used before
	maxAge  maxAge // what SetMaxAge said

	// secrets are the hashes of the secrets that open the session: one, or
	// several after renewals at the same time.
	secrets []digest

	// marks are those of the last writes, the latest first. See [stamp].
	marks []mark

	values []value // sorted by key, each key once
	shared bool    // values belongs to another record too: copy before changing it
}

// A value is one key of a session and its JSON.
type value struct {
	key, json []byte
}

// A maxAge is the lifetime that SetMaxAge gave a session, in seconds plus one.
// Zero means that the session has none of its own.
type maxAge uint64

func newMaxAge(d time.Duration) maxAge {
	seconds := d / time.Second
	if d%time.Second > 0 {
		seconds++
	}
	return min(maxAge(seconds), maxSeconds) + 1
}

// maxSeconds is the longest lifetime that fits a time.Duration.
const maxSeconds = maxAge(1<<63-1) / maxAge(time.Second)

// own returns the lifetime and reports whether the session has one of its own.
func (m maxAge) own() (time.Duration, bool) {
	if m == 0 {
		return 0, false
	}
	return time.Duration(m-1) * time.Second, true
}

// A digest is what the record holds of a secret: half of its SHA-256. The
// secret is 128 random bits, so a longer hash would protect nothing more.
type digest [16]byte

func digestOf(secret [secretSize]byte) digest {
	sum := sha256.Sum256(secret[:])
	return digest(sum[:])
}

// opens reports, in constant time for each hash, whether one of the record's
// secrets has the digest d.
func (r *record) opens(d digest) bool {
	found := 0
	for _, secret := range r.secrets {
		found |= subtle.ConstantTimeCompare(secret[:], d[:])
	}
	return found == 1
}

// A mark names one write of a record.
type mark [8]byte

// keptMarks is how many writes of others may come between a write whose reply
// was lost and the look that finds it.
const keptMarks = 8

// stamp gives the record a fresh mark, and returns it. A save that is refused
// because the record has changed finds by its mark whether the change was its
// own, applied already with the reply lost on the way.
func (r *record) stamp() mark {
	var m mark
	rand.Read(m[:])
	kept := r.marks[:min(len(r.marks), keptMarks-1)]
	r.marks = append(append(make([]mark, 0, len(kept)+1), m), kept...)
	return m
}

func (r *record) hasMark(marks []mark) bool {
	return slices.ContainsFunc(r.marks, func(m mark) bool { return slices.Contains(marks, m) })
}

// copy returns a record that can be changed without changing r.
func (r *record) copy() record {
	r.shared = true
	return *r
}

func (r *record) find(key string) (int, bool) {
	return slices.BinarySearchFunc(r.values, key, func(v value, key string) int {
		switch {
		case string(v.key) < key:
			return -1
		case string(v.key) > key:
			return 1
		}
		return 0
	})
}

// get returns the JSON under key, or nil.
func (r *record) get(key string) []byte {
	if i, ok := r.find(key); ok {
		return r.values[i].json
	}
	return nil
}

// set puts JSON under key, and removes the key if json is nil.
func (r *record) set(key string, json []byte) {
	if r.shared {
		r.values = slices.Clone(r.values)
		r.shared = false
	}
	i, ok := r.find(key)
	switch {
	case json == nil && ok:
		r.values = slices.Delete(r.values, i, i+1)
	case json == nil:
	case ok:
		r.values[i].json = json
	default:
		r.values = slices.Insert(r.values, i, value{[]byte(key), json})
	}
}

// size returns the bytes of all keys and values.
func (r *record) size() (n int) {
	for _, v := range r.values {
		n += len(v.key) + len(v.json)
	}
	return n
}

// sameData reports whether r and o hold the same values and lifetime, to the byte.
func (r *record) sameData(o *record) bool {
	return r.maxAge == o.maxAge && slices.EqualFunc(r.values, o.values, func(a, b value) bool {
		return bytes.Equal(a.key, b.key) && bytes.Equal(a.json, b.json)
	})
}

// A record is encoded as a magic byte, which no text begins with, the version
// of the format, and the fields in order: numbers as uvarints, lists by their
// length, keys and values by theirs. The values stay readable in a dump.
const (
	recordMagic   = 0xF5
	recordVersion = 1
)

var errNewerFormat = errors.New("record in a newer format than this version of the library knows")

func (r *record) encode() []byte {
	size := 64 + len(r.secrets)*len(digest{}) + len(r.marks)*len(mark{})
	for _, v := range r.values {
		size += len(v.key) + len(v.json) + 4
	}
	b := append(make([]byte, 0, size), recordMagic, recordVersion)
	b = binary.AppendUvarint(b, uint64(r.created))
	b = binary.AppendUvarint(b, uint64(r.expires))
	b = binary.AppendUvarint(b, uint64(r.maxAge))
	b = binary.AppendUvarint(b, uint64(len(r.secrets)))
	for _, s := range r.secrets {
		b = append(b, s[:]...)
	}
	b = binary.AppendUvarint(b, uint64(len(r.marks)))
	for _, m := range r.marks {
		b = append(b, m[:]...)
	}
	b = binary.AppendUvarint(b, uint64(len(r.values)))
	for _, v := range r.values {
		b = binary.AppendUvarint(b, uint64(len(v.key)))
		b = append(b, v.key...)
		b = binary.AppendUvarint(b, uint64(len(v.json)))
		b = append(b, v.json...)
	}
	return b
}

// decodeRecord reads what encode wrote. The record's values are parts of data,
// which must not change any more. The error is ErrUnreadable or errNewerFormat.
func decodeRecord(data []byte) (record, error) {
	switch {
	case len(data) < 2 || data[0] != recordMagic || data[1] < recordVersion:
		return record{}, ErrUnreadable
	case data[1] > recordVersion:
		return record{}, errNewerFormat
	}
	d := decoder{rest: data[2:]}
	r := record{
		created: int64(d.uvarint()),
		expires: int64(d.uvarint()),
		maxAge:  maxAge(d.uvarint()),
	}
	r.secrets = make([]digest, d.count(len(digest{})))
	for i := range r.secrets {
		r.secrets[i] = digest(d.bytes(len(digest{})))
	}
	r.marks = make([]mark, d.count(len(mark{})))
	for i := range r.marks {
		r.marks[i] = mark(d.bytes(len(mark{})))
	}
	r.values = make([]value, d.count(2))
	for i := range r.values {
		r.values[i] = value{d.block(), d.block()}
		if i > 0 && bytes.Compare(r.values[i-1].key, r.values[i].key) >= 0 {
			d.failed = true
		}
	}
	if d.failed || len(d.rest) > 0 || r.created < 0 || r.expires < 0 || r.maxAge > maxSeconds+1 {
		return record{}, ErrUnreadable
	}
	return r, nil
}

// A decoder takes fields off the front of rest. After the first that is not
// there it has failed, and returns zeros.
type decoder struct {
	rest   []byte
	failed bool
}

func (d *decoder) uvarint() uint64 {
	n, size := binary.Uvarint(d.rest)
	if size <= 0 {
		d.failed, d.rest = true, nil
		return 0
	}
	d.rest = d.rest[size:]
	return n
}

// count returns the length of a list whose elements take size bytes or more.
func (d *decoder) count(size int) int {
	n := d.uvarint()
	if n > uint64(len(d.rest)/size) {
		d.failed, d.rest = true, nil
		return 0
	}
	return int(n)
}

// bytes takes n bytes, which count has seen to be there.
func (d *decoder) bytes(n int) []byte {
	b := d.rest[:n:n]
	d.rest = d.rest[n:]
	return b
}

func (d *decoder) block() []byte {
	return d.bytes(d.count(1))
}
