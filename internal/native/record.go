package native

import (
	"encoding/binary"
	"math"
	"time"

	"github.com/seed-4f96e14b/session/internal/wire"
)

// A record is a magic byte, which no text begins with, the version of the format, and the
// fields in order. A number is a uvarint. A list stands after its length, and so do the
// fields of later versions, each key and each value. The values stay readable in a dump.
//
// A field that an older version may ignore goes into Extra, as a tag, a length and its
// bytes: every version keeps it. A field that it must not ignore takes a new version of the
// format.
const (
	recordMagic   = 0xF5
	recordVersion = 2
)

// Encode implements [wire.Records].
func (c *codec) Encode(r *wire.Record) []byte {
	values := r.Size()
	size := 64 + len(r.Secret) + len(r.Replaced) + len(r.Saves) + len(r.Extra) + values + values/8
	b := append(make([]byte, 0, size), recordMagic, recordVersion)
	b = binary.AppendUvarint(b, uint64(r.Created))
	b = binary.AppendUvarint(b, uint64(r.Used))
	b = binary.AppendUvarint(b, uint64(r.Kept))
	b = binary.AppendUvarint(b, encodeMaxAge(r.MaxAge))
	b = append(b, r.Secret[:]...)
	b = appendList(b, r.Replaced, wire.ReplacedSize)
	b = binary.AppendUvarint(b, r.Resets)
	b = appendList(b, r.Saves, wire.SaveSize)
	b = appendList(b, r.Extra, 1)
	return appendValues(b, r)
}

// appendList appends how many elements of that size the list has, and then the list.
func appendList(b, list []byte, size int) []byte {
	return append(binary.AppendUvarint(b, uint64(len(list)/size)), list...)
}

// encodeMaxAge returns the seconds plus one, and 0 for none.
func encodeMaxAge(m wire.MaxAge) uint64 {
	own, ok := m.Own()
	if !ok {
		return 0
	}
	return uint64(own/time.Second) + 1
}

// maxSeconds is the longest lifetime that fits a time.Duration.
const maxSeconds = uint64(math.MaxInt64) / uint64(time.Second)

// Decode implements [wire.Records].
func (c *codec) Decode(_ string, data []byte) (wire.Record, error) {
	switch {
	case len(data) < 2 || data[0] != recordMagic || data[1] < recordVersion:
		return wire.Record{}, wire.ErrUnreadable
	case data[1] > recordVersion:
		return wire.Record{}, wire.ErrNewerFormat
	}
	d := decoder{rest: data[2:]}
	r := wire.Record{Created: d.time(), Used: d.time(), Kept: d.time(), MaxAge: d.maxAge()}
	copy(r.Secret[:], d.bytes(len(r.Secret)))
	r.Replaced = d.list(wire.ReplacedSize)
	r.Resets = d.uvarint()
	r.Saves = d.list(wire.SaveSize)
	r.Extra = d.list(1)
	n := d.uvarint()
	if d.failed || !isPacked(n, d.rest) {
		return wire.Record{}, wire.ErrUnreadable
	}
	r.SetPacked(d.rest, packing{})
	return r, nil
}

// A decoder takes fields off the front of rest. Once a field is not there it has failed,
// and returns zeros.
type decoder struct {
	rest   []byte
	failed bool
}

func (d *decoder) uvarint() uint64 {
	n, size := binary.Uvarint(d.rest)
	if size <= 0 {
		d.fail()
		return 0
	}
	d.rest = d.rest[size:]
	return n
}

// time takes Unix milliseconds, which are not negative.
func (d *decoder) time() int64 {
	n := d.uvarint()
	if n > math.MaxInt64 {
		d.fail()
		return 0
	}
	return int64(n)
}

func (d *decoder) maxAge() wire.MaxAge {
	seconds := d.uvarint()
	switch {
	case seconds > maxSeconds+1:
		d.fail()
		return 0
	case seconds == 0:
		return 0
	}
	return wire.NewMaxAge(time.Duration(seconds-1) * time.Second)
}

// list takes as many elements of that size as the number before them says.
func (d *decoder) list(size int) []byte {
	n := d.uvarint()
	if n > uint64(len(d.rest)/size) {
		d.fail()
		return nil
	}
	return d.bytes(int(n) * size)
}

func (d *decoder) bytes(n int) []byte {
	if n > len(d.rest) {
		d.fail()
		return nil
	}
	b := d.rest[:n:n]
	d.rest = d.rest[n:]
	return b
}

func (d *decoder) fail() { d.failed, d.rest = true, nil }
