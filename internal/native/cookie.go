package native

import (
	"crypto/rand"
	"encoding/base64"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/gorilla/securecookie"
	"github.com/seed-4f96e14b/session/internal/wire"
)

// Cookies implement [wire.Cookies]. The ids are signed by securecookie, and the cookie's name
// is part of what is signed.
type cookies struct {
	signers  []*securecookie.SecureCookie // the first signs, all verify
	cookie   http.Cookie
	priority string // "; Priority=High", which net/http does not know, or nothing

	// A Set-Cookie line is the name, the value, the attributes before Max-Age, Max-Age, and
	// those after it.
	name, before, after string
}

const (
	handleSize   = 16
	handleLength = (handleSize*8 + 5) / 6 // in base64
	secretSize   = 16

	// MaxIDLength bounds a signed id: base64 of a time, of the id, and of the signature.
	MaxIDLength = 128
)

func newCookies(settings wire.Settings) cookies {
	c := cookies{cookie: settings.Cookie, name: settings.Cookie.Name + "="}
	if p := settings.Priority; p != "" {
		c.priority = "; Priority=" + strings.ToUpper(p[:1]) + p[1:]
	}
	template := settings.Cookie
	template.MaxAge = 1
	line := strings.TrimPrefix(template.String(), c.name)
	c.before, c.after, _ = strings.Cut(line, "; Max-Age=1")
	c.after += c.priority
	for _, secret := range settings.Secrets {
		// There is no key that encrypts: the id is random, so there is nothing to hide.
		// MaxAge is 0: the record says how long a session lives, not the time of signing.
		c.signers = append(c.signers, securecookie.New(secret, nil).
			SetSerializer(securecookie.NopEncoder{}).MaxAge(0).MaxLength(MaxIDLength))
	}
	return c
}

// NewID implements [wire.Cookies]. It returns 256 bits of crypto/rand, which crashes the
// program rather than return anything else.
func (c *cookies) NewID() wire.ID {
	var b [handleSize + secretSize]byte
	rand.Read(b[:])
	return newID(b)
}

// newID returns an id whose texts share one piece of memory.
func newID(b [handleSize + secretSize]byte) wire.ID {
	var text [handleLength + secretSize]byte
	base64.RawURLEncoding.Encode(text[:], b[:handleSize])
	copy(text[handleLength:], b[handleSize:])
	both := string(text[:])
	return wire.ID{Handle: both[:handleLength], Secret: both[handleLength:]}
}

// IsHandle implements [wire.Cookies].
func (c *cookies) IsHandle(key string) bool {
	b, err := base64.RawURLEncoding.Strict().DecodeString(key)
	return err == nil && len(b) == handleSize
}

// LogHandle implements [wire.Cookies]. A handle is not secret.
func (c *cookies) LogHandle(handle string) string { return handle }

// Verify implements [wire.Cookies].
func (c *cookies) Verify(value string, quoted bool) (id wire.ID, old, ok bool) {
	if quoted || len(value) > MaxIDLength || !isCanonical(value) {
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

var strictBase64 = base64.URLEncoding.Strict()

// isCanonical reports whether the value is spelt as we spell it. securecookie ignores the
// unused bits of base64's last letter, so that one cookie would have several spellings. It also
// ignores line breaks, which no cookie has.
func isCanonical(value string) bool {
	var last [4]byte
	var b [3]byte
	if copy(last[:], value[max(len(value)-len(last), 0):]) < len(last) {
		return false
	}
	_, err := strictBase64.Decode(b[:], last[:])
	return err == nil
}

// SetCookie implements [wire.Cookies].
func (c *cookies) SetCookie(id wire.ID, value string, _ *wire.Record, maxAge time.Duration) (line string, secure bool) {
	if value == "" {
		value = c.sign(id)
	}
	if maxAge <= 0 {
		return c.name + value + c.before + c.after, c.cookie.Secure
	}
	seconds := max((maxAge+time.Second-1)/time.Second, 1)
	return c.name + value + c.before + "; Max-Age=" + strconv.FormatInt(int64(seconds), 10) + c.after, c.cookie.Secure
}

func (c *cookies) sign(id wire.ID) string {
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

// DeleteCookie implements [wire.Cookies]. Browsers tell cookies apart by name, path, domain
// and partition.
func (c *cookies) DeleteCookie(*wire.Record) string {
	cookie := c.cookie
	cookie.MaxAge = -1
	cookie.Expires = time.Unix(1, 0)
	return cookie.String() + c.priority
}
