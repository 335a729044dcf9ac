package native

import (
	"bytes"
	"encoding/binary"

	"github.com/seed-4f96e14b/session/internal/wire"
)

// Packing is how the values stand in a record: key and JSON in turn, each after its length,
// sorted by key, each key once. It implements [wire.Packing].
type packing struct{}

// isPacked reports whether data holds n values and nothing else. The functions below rely on
// that, and so need no error.
func isPacked(n uint64, data []byte) bool {
	const smallest = 2 // bytes: the lengths of an empty key and an empty value
	if n > uint64(len(data)/smallest) {
		return false
	}
	var last []byte
	for i := range n {
		v, rest, ok := cutValue(data)
		if !ok || i > 0 && bytes.Compare(last, v.Key) >= 0 {
			return false
		}
		last, data = v.Key, rest
	}
	return len(data) == 0
}

// Get implements [wire.Packing]. It walks the values: for a few kilobytes that is cheaper than
// a list.
func (packing) Get(packed []byte, key string) []byte {
	for rest := packed; len(rest) > 0; {
		v, after, _ := cutValue(rest)
		if string(v.Key) == key {
			return v.JSON
		}
		rest = after
	}
	return nil
}

// Values implements [wire.Packing]. The values share memory with packed.
func (packing) Values(packed []byte) []wire.Value {
	values := make([]wire.Value, 0, count(packed)+1) // many requests add one
	for rest := packed; len(rest) > 0; {
		v, after, _ := cutValue(rest)
		values = append(values, v)
		rest = after
	}
	return values
}

// Size implements [wire.Packing].
func (packing) Size(packed []byte) (n int) {
	for rest := packed; len(rest) > 0; {
		v, after, _ := cutValue(rest)
		n += len(v.Key) + len(v.JSON)
		rest = after
	}
	return n
}

// Equal implements [wire.Packing]. It compares without making a list.
func (packing) Equal(packed []byte, values []wire.Value) bool {
	rest := packed
	for _, want := range values {
		v, after, ok := cutValue(rest)
		if !ok || !bytes.Equal(v.Key, want.Key) || !bytes.Equal(v.JSON, want.JSON) {
			return false
		}
		rest = after
	}
	return len(rest) == 0
}

// count returns how many values there are.
func count(packed []byte) (n int) {
	for rest := packed; len(rest) > 0; n++ {
		_, rest, _ = cutValue(rest)
	}
	return n
}

// appendValues appends to b how many values the record has, and then the values.
func appendValues(b []byte, r *wire.Record) []byte {
	if packed := r.Packed(); packed != nil {
		return append(binary.AppendUvarint(b, uint64(count(packed))), packed...)
	}
	values := r.Values()
	b = binary.AppendUvarint(b, uint64(len(values)))
	for _, v := range values {
		b = append(binary.AppendUvarint(b, uint64(len(v.Key))), v.Key...)
		b = append(binary.AppendUvarint(b, uint64(len(v.JSON))), v.JSON...)
	}
	return b
}

// cutValue returns the value that b begins with, and what follows it.
func cutValue(b []byte) (v wire.Value, rest []byte, ok bool) {
	if v.Key, rest, ok = cutText(b); !ok {
		return wire.Value{}, nil, false
	}
	v.JSON, rest, ok = cutText(rest)
	return v, rest, ok
}

// cutText returns the text that b begins with, after its length, and what follows it.
func cutText(b []byte) (text, rest []byte, ok bool) {
	n, size := binary.Uvarint(b)
	if size <= 0 || n > uint64(len(b)-size) {
		return nil, nil, false
	}
	b = b[size:]
	return b[:n:n], b[n:], true
}
