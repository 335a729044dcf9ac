package expressjs

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"net/http"
	"net/url"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/seed-4f96e14b/session/internal/wire"
)

// NewID implements [wire.Cookies]. It returns what express-session's uid-safe makes: 24 random
// bytes as 32 letters.
func (c *codec) NewID() wire.ID {
	var b [24]byte
	rand.Read(b[:])
	return idOf(base64.RawURLEncoding.EncodeToString(b[:]))
}

func idOf(sid string) wire.ID { return wire.ID{Handle: sid, Secret: sid} }

// LogHandle implements [wire.Cookies]. It returns a part of the id's digest, which does not lead
// back to the id.
func (c *codec) LogHandle(sid string) string {
	digest := wire.DigestOf(sid)
	return hex.EncodeToString(digest[:8])
}

// maxCookieSize is what browsers keep of a cookie (RFC 6265bis §5.7).
const maxCookieSize = 4096

// Verify implements [wire.Cookies]. It reads "s:" + id + "." + signature, percent-encoded or not, as
// the packages cookie and cookie-signature do.
func (c *codec) Verify(value string, _ bool) (id wire.ID, old, ok bool) {
	if len(value) > maxCookieSize {
		return id, false, false
	}
	signed, found := strings.CutPrefix(decodeURIComponent(value), "s:")
	dot := strings.LastIndexByte(signed, '.')
	if !found || dot <= 0 { // a signed empty id is none
		return id, false, false
	}
	sid, signature := signed[:dot], signed[dot+1:]
	for n, secret := range c.secrets {
		if hmac.Equal([]byte(signature), []byte(sign(sid, secret))) {
			return idOf(sid), n > 0, true
		}
	}
	return id, false, false
}

// sign returns the signature of cookie-signature: HMAC-SHA256 in base64 without padding.
func sign(sid string, secret []byte) string {
	mac := hmac.New(sha256.New, secret)
	mac.Write([]byte(sid))
	return base64.RawStdEncoding.EncodeToString(mac.Sum(nil))
}

// decodeURIComponent returns s unchanged where JavaScript's function would throw.
func decodeURIComponent(s string) string {
	if decoded, err := url.PathUnescape(s); err == nil && utf8.ValidString(decoded) {
		return decoded
	}
	return s
}

// encodeURIComponent escapes what JavaScript's function does.
func encodeURIComponent(s string) string {
	const hexDigits = "0123456789ABCDEF"
	var b strings.Builder
	for i := range len(s) {
		switch ch := s[i]; {
		case 'a' <= ch && ch <= 'z', 'A' <= ch && ch <= 'Z', '0' <= ch && ch <= '9', strings.IndexByte("-_.!~*'()", ch) >= 0:
			b.WriteByte(ch)
		default:
			b.Write([]byte{'%', hexDigits[ch>>4], hexDigits[ch&15]})
		}
	}
	return b.String()
}

// attributes are those of a cookie that do not change with time.
type attributes struct {
	domain, path                  string
	httpOnly, secure, partitioned bool
	priority                      string // lower case
	sameSite                      http.SameSite
}

// SetCookie implements [wire.Cookies]. It writes what express-session writes: the attributes in the
// session's own record, and Expires if the session has a lifetime. It signs anew, because Verify
// accepts a value that is spelt in another way.
func (c *codec) SetCookie(id wire.ID, _ string, r *wire.Record, maxAge time.Duration) (line string, secure bool) {
	a := c.cookieOf(r).attributes
	var end string
	if maxAge > 0 {
		end = "; Expires=" + time.UnixMilli(c.cookieExpires(r)).UTC().Format(http.TimeFormat)
	}
	value := encodeURIComponent("s:" + id.Secret + "." + sign(id.Secret, c.secrets[0]))
	return a.line(c.name+"="+value, end), a.secure
}

// DeleteCookie implements [wire.Cookies]. It has the attributes in the session's own record, if that
// is known: to the browser, another path or domain makes another cookie.
func (c *codec) DeleteCookie(r *wire.Record) string {
	a := c.fresh
	if r != nil {
		a = c.cookieOf(r)
	}
	return a.line(c.name+"=", "; Max-Age=0; Expires="+time.Unix(0, 0).UTC().Format(http.TimeFormat))
}

// line puts the attributes in the order of the package cookie.
func (a *attributes) line(pair, end string) string {
	var b strings.Builder
	b.WriteString(pair)
	if a.domain != "" {
		b.WriteString("; Domain=" + a.domain)
	}
	b.WriteString("; Path=" + a.path + end)
	if a.httpOnly {
		b.WriteString("; HttpOnly")
	}
	if a.secure {
		b.WriteString("; Secure")
	}
	if a.partitioned {
		b.WriteString("; Partitioned")
	}
	if p := a.priority; p != "" {
		b.WriteString("; Priority=" + strings.ToUpper(p[:1]) + p[1:])
	}
	switch a.sameSite {
	case http.SameSiteStrictMode:
		b.WriteString("; SameSite=Strict")
	case http.SameSiteLaxMode:
		b.WriteString("; SameSite=Lax")
	case http.SameSiteNoneMode:
		b.WriteString("; SameSite=None")
	}
	return b.String()
}
