package session

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/gorilla/securecookie"
	"github.com/seed-4f96e14b/session/internal/wire"
)

// A WireFormat is how sessions are written: ids into cookies, and records into the
// store. Nil in [Options] means this library's own. Package expressjs has the other
// one there is, that of express-session and connect-redis; programs cannot add any.
type WireFormat interface{ wire.Format }

// nativeFormat is this library's own format.
type nativeFormat struct{}

func (nativeFormat) IsForeign() bool { return false }

func (nativeFormat) NewCodec(settings wire.Settings) wire.Codec {
	c := &nativeCodec{cookie: settings.Cookie}
	if p := settings.Priority; p != "" { // which net/http does not know
		c.priority = "; Priority=" + strings.ToUpper(p[:1]) + p[1:]
	}
	const lifetime = 1
	cookie := settings.Cookie
	cookie.MaxAge = lifetime
	before, after, _ := strings.Cut(cookie.String(), fmt.Sprintf("; Max-Age=%d", lifetime))
	name := cookie.Name + "="
	c.line = [3]string{name, strings.TrimPrefix(before, name), after + c.priority}
	for _, secret := range settings.Secrets {
		// No block key: the id is random, so there is nothing to hide. MaxAge 0:
		// the record decides how long a session lives, not the time of signing.
		c.signers = append(c.signers, securecookie.New(secret, nil).
			SetSerializer(securecookie.NopEncoder{}).MaxAge(0).MaxLength(maxIDLength))
	}
	return c
}

// A nativeCodec signs ids with securecookie, the cookie's name being part of what is
// signed. The id's handle is the store's key and may be known; the record holds
// digests of the secrets that open it, so that a renewal is an ordinary save.
type nativeCodec struct {
	signers  []*securecookie.SecureCookie // the first signs, all verify
	cookie   http.Cookie
	line     [3]string // Set-Cookie, without the value after the first part and Max-Age after the second
	priority string    // the attribute
}

const (
	handleSize   = 16
	handleLength = (handleSize*8 + 5) / 6 // in base64
	secretSize   = 16
	// maxIDLength bounds a signed id: base64 of a time, the id in base64 and the MAC.
	maxIDLength = 128
)

// NewID returns 256 bits of crypto/rand, which crashes the program rather than
// return anything else.
func (c *nativeCodec) NewID() wire.ID {
	var b [handleSize + secretSize]byte
	rand.Read(b[:])
	return newID(b)
}

// newID has both texts in one piece of memory.
func newID(b [handleSize + secretSize]byte) wire.ID {
	var text [handleLength + secretSize]byte
	base64.RawURLEncoding.Encode(text[:], b[:handleSize])
	copy(text[handleLength:], b[handleSize:])
	both := string(text[:])
	return wire.ID{Handle: both[:handleLength], Secret: both[handleLength:]}
}

func (c *nativeCodec) IsHandle(key string) bool {
	b, err := base64.RawURLEncoding.Strict().DecodeString(key)
	return err == nil && len(b) == handleSize
}

// LogHandle returns the handle, which is no secret.
func (c *nativeCodec) LogHandle(handle string) string { return handle }

func (c *nativeCodec) Verify(value string, quoted bool) (id wire.ID, old, ok bool) {
	if quoted || len(value) > maxIDLength || !isCanonical(value) {
		return id, false, false
	}
	for n, signer := range c.signers {
		var b []byte
		if signer.Decode(c.cookie.Name, value, &b) != nil || len(b) != handleSize+secretSize {
			continue
		}
		return newID([handleSize + secretSize]byte(b)), n > 0, true
	}
	return id, false, false
}

// isCanonical refuses what securecookie's base64 ignores: bits of the last letter that mean
// nothing. So one cookie has one spelling; line breaks, which it ignores too, are in none.
func isCanonical(value string) bool {
	var last [4]byte
	var b [3]byte
	if copy(last[:], value[max(len(value)-len(last), 0):]) < len(last) {
		return false
	}
	_, err := strictBase64.Decode(b[:], last[:])
	return err == nil
}

var strictBase64 = base64.URLEncoding.Strict()

func (c *nativeCodec) SetCookie(id wire.ID, value string, _ *wire.Record, maxAge time.Duration) (line string, secure bool) {
	if value == "" {
		value = c.sign(id)
	}
	if maxAge <= 0 {
		return c.line[0] + value + c.line[1] + c.line[2], c.cookie.Secure
	}
	seconds := max((maxAge+time.Second-1)/time.Second, 1)
	return c.line[0] + value + c.line[1] + "; Max-Age=" + strconv.FormatInt(int64(seconds), 10) + c.line[2], c.cookie.Secure
}

func (c *nativeCodec) sign(id wire.ID) string {
	b, err := base64.RawURLEncoding.DecodeString(id.Handle)
	if err != nil {
		panic("session: the handle is not ours")
	}
	value, err := c.signers[0].Encode(c.cookie.Name, append(b, id.Secret...))
	if err != nil {
		panic(fmt.Errorf("session: sign an id of fixed size: %w", err))
	}
	return value
}

// DeleteCookie names the same cookie to the browser by name, path, domain and partition.
func (c *nativeCodec) DeleteCookie(*wire.Record) string {
	cookie := c.cookie
	cookie.MaxAge = -1
	cookie.Expires = time.Unix(1, 0)
	return cookie.String() + c.priority
}

func (c *nativeCodec) Begin(r *wire.Record, now time.Time) { r.Created = now.UnixMilli() }

func (c *nativeCodec) CheckKey(string) error { return nil }

func (c *nativeCodec) Lifetime(_ *wire.Record, otherwise time.Duration) time.Duration {
	return otherwise
}

func (c *nativeCodec) IsOver(deadline int64, now time.Time) bool {
	return deadline <= now.UnixMilli()
}

// housekeeping is how long the store keeps a record after its deadline, so that
// the library alone decides when a session ends.
const housekeeping = time.Minute

func (c *nativeCodec) TTL(left time.Duration) time.Duration {
	return min(left, never-housekeeping) + housekeeping
}

// Load finds a session under its handle, also after renewals.
func (c *nativeCodec) Load(ctx context.Context, store wire.Store, handle string) (st wire.Stored, err error) {
	st.At = handle
	if st.Data, err = store.Load(ctx, handle); err == nil {
		st.Record, err = c.Decode(handle, st.Data)
	}
	return st, err
}

// Follow is Load: a renewal moves nothing.
func (c *nativeCodec) Follow(ctx context.Context, store wire.Store, at string, _ time.Time) (wire.Stored, error) {
	return c.Load(ctx, store, at)
}

func (c *nativeCodec) Delete(ctx context.Context, store wire.Store, handle string) error {
	return store.Delete(ctx, handle)
}

func (c *nativeCodec) Renew(r *wire.Record, _ string, next wire.ID, now time.Time, grace time.Duration) bool {
	return r.Renew(wire.DigestOf(next.Secret), now, grace)
}

// Settle has nothing to do: the save of the new secret was all.
func (c *nativeCodec) Settle(_ context.Context, _ wire.Store, _ wire.ID, st wire.Stored, _ wire.Save, _ func(*wire.Record) time.Duration) (wire.Stored, error) {
	return st, nil
}

// A record is encoded as a magic byte, which no text begins with, the version of the
// format, and the fields in order: numbers as uvarints, lists by their length, the fields of
// later versions as one text by its length, keys and values by theirs. The values stay
// readable in a dump.
//
// A field that an older version may ignore goes into Extra, as a tag, a length and its
// bytes: every version keeps it. One that it must not ignore takes a new version of the
// format.
const (
	recordMagic   = 0xF5
	recordVersion = 2
)

var errNewerFormat = errors.New("record in a newer format than this version of the library knows")

func (c *nativeCodec) Encode(r *wire.Record) []byte {
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
	return wire.AppendValues(b, r)
}

// appendList appends elements of size bytes, and before them their number.
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
const maxSeconds = uint64(1<<63-1) / uint64(time.Second)

func (c *nativeCodec) Decode(_ string, data []byte) (wire.Record, error) {
	switch {
	case len(data) < 2 || data[0] != recordMagic || data[1] < recordVersion:
		return wire.Record{}, ErrUnreadable
	case data[1] > recordVersion:
		return wire.Record{}, errNewerFormat
	}
	d := decoder{rest: data[2:]}
	r := wire.Record{Created: d.time(), Used: d.time(), Kept: d.time()}
	seconds := d.uvarint()
	if seconds > maxSeconds+1 {
		d.failed = true
	} else if seconds > 0 {
		r.MaxAge = wire.NewMaxAge(time.Duration(seconds-1) * time.Second)
	}
	copy(r.Secret[:], d.bytes(len(r.Secret)))
	r.Replaced = d.list(wire.ReplacedSize)
	r.Resets = d.uvarint()
	r.Saves = d.list(wire.SaveSize)
	r.Extra = d.list(1)
	n := d.uvarint()
	values, ok := wire.NewPacked(n, d.rest)
	if d.failed || !ok {
		return wire.Record{}, ErrUnreadable
	}
	r.SetPacked(values)
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

// time takes Unix milliseconds, which are not negative.
func (d *decoder) time() int64 {
	n := d.uvarint()
	if n > math.MaxInt64 {
		d.failed = true
		return 0
	}
	return int64(n)
}

// list takes as many elements of size bytes as the number before them says.
func (d *decoder) list(size int) []byte {
	n := d.uvarint()
	if n > uint64(len(d.rest)/size) {
		d.failed, d.rest = true, nil
		return nil
	}
	return d.bytes(int(n) * size)
}

// bytes takes n bytes.
func (d *decoder) bytes(n int) []byte {
	if n > len(d.rest) {
		d.failed, d.rest = true, nil
		return nil
	}
	b := d.rest[:n:n]
	d.rest = d.rest[n:]
	return b
}
