package expressjs

import (
	"encoding/json"
	"net/http"
	"time"

	"github.com/seed-4f96e14b/session/internal/wire"
)

// A wireFormat is the format of express-session and connect-redis.
type wireFormat struct {
	ttl func(values map[string]json.RawMessage) time.Duration // may be nil
}

// IsForeign implements [wire.Format]. It is true: the options are those of an existing app.
func (wireFormat) IsForeign() bool { return true }

// NewCodec implements [wire.Format].
func (f wireFormat) NewCodec(settings wire.Settings) wire.Codec {
	c := &codec{
		secrets: settings.Secrets,
		name:    settings.Cookie.Name,
		maxAge:  wire.NewMaxAge(settings.MaxAge),
		ttl:     f.ttl,
	}
	c.fresh = newCookieMember(&settings.Cookie, settings.Priority)
	return c
}

// A codec implements [wire.Codec]. The id in the cookie is also the store's key.
type codec struct {
	secrets [][]byte // the first signs, all verify
	name    string
	maxAge  wire.MaxAge
	fresh   *cookieMember // of a session that begins
	ttl     func(values map[string]json.RawMessage) time.Duration
}

var _ wire.Codec = (*codec)(nil)

// newCookieMember returns the member "cookie" for the attributes in the options. It leaves out what
// Express would leave out.
func newCookieMember(c *http.Cookie, priority string) *cookieMember {
	m := &cookieMember{attributes: attributes{
		domain: c.Domain, path: c.Path, httpOnly: c.HttpOnly, secure: c.Secure,
		partitioned: c.Partitioned, priority: priority, sameSite: c.SameSite,
	}}
	add := func(name string, value any) { m.members = append(m.members, member{name, quote(name), encode(value)}) }
	add(originalMaxAge, nil)
	if c.Partitioned {
		add("partitioned", true)
	}
	if priority != "" {
		add("priority", priority)
	}
	add(expires, nil)
	if c.Secure {
		add("secure", true)
	}
	add("httpOnly", c.HttpOnly)
	if c.Domain != "" {
		add("domain", c.Domain)
	}
	add("path", c.Path)
	switch c.SameSite {
	case http.SameSiteStrictMode:
		add("sameSite", "strict")
	case http.SameSiteLaxMode:
		add("sameSite", "lax")
	case http.SameSiteNoneMode:
		add("sameSite", "none")
	}
	return m
}
