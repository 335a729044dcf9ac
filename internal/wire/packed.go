package wire

import (
	"bytes"
	"encoding/binary"
)

// Packed are values as they stand in a record of this library's own format: key and
// JSON in turn, sorted by key, each key once, and each text after its length as a uvarint.
// Most requests read one or two values, and need no list of all.
type Packed []byte

// NewPacked returns the n values that data holds, and reports whether it holds just them.
// The data must not change any more.
func NewPacked(n uint64, data []byte) (Packed, bool) {
	const smallest = 2 // bytes: an empty key, and nothing under it
	if n > uint64(len(data)/smallest) {
		return nil, false
	}
	var last []byte
	rest := data
	for i := range n {
		v, after, ok := cutValue(rest)
		if !ok || i > 0 && bytes.Compare(last, v.Key) >= 0 {
			return nil, false
		}
		last, rest = v.Key, after
	}
	return data, len(rest) == 0
}

func (p Packed) get(key string) []byte {
	for rest := p; len(rest) > 0; {
		v, after, _ := cutValue(rest)
		if string(v.Key) == key {
			return v.JSON
		}
		rest = after
	}
	return nil
}

func (p Packed) values() []Value {
	values := make([]Value, 0, p.len()+1) // mostly for one more
	for rest := p; len(rest) > 0; {
		v, after, _ := cutValue(rest)
		values = append(values, v)
		rest = after
	}
	return values
}

func (p Packed) len() (n int) {
	for rest := p; len(rest) > 0; n++ {
		_, rest, _ = cutValue(rest)
	}
	return n
}

func (p Packed) size() (n int) {
	for rest := p; len(rest) > 0; {
		v, after, _ := cutValue(rest)
		n += len(v.Key) + len(v.JSON)
		rest = after
	}
	return n
}

func (p Packed) equal(values []Value) bool {
	rest := p
	for _, want := range values {
		v, after, ok := cutValue(rest)
		if !ok || !bytes.Equal(v.Key, want.Key) || !bytes.Equal(v.JSON, want.JSON) {
			return false
		}
		rest = after
	}
	return len(rest) == 0
}

// AppendValues appends the values of a record to b: their number, and then what
// [NewPacked] takes.
func AppendValues(b []byte, r *Record) []byte {
	if r.packed != nil {
		return append(binary.AppendUvarint(b, uint64(r.packed.len())), r.packed...)
	}
	b = binary.AppendUvarint(b, uint64(len(r.values)))
	for _, v := range r.values {
		b = append(binary.AppendUvarint(b, uint64(len(v.Key))), v.Key...)
		b = append(binary.AppendUvarint(b, uint64(len(v.JSON))), v.JSON...)
	}
	return b
}

func cutValue(b []byte) (v Value, rest []byte, ok bool) {
	if v.Key, rest, ok = cutText(b); !ok {
		return Value{}, nil, false
	}
	v.JSON, rest, ok = cutText(rest)
	return v, rest, ok
}

func cutText(b []byte) (text, rest []byte, ok bool) {
	n, size := binary.Uvarint(b)
	if size <= 0 || n > uint64(len(b)-size) {
		return nil, nil, false
	}
	b = b[size:]
	return b[:n:n], b[n:], true
}
