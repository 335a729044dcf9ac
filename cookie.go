package session

import (
	"cmp"
	"fmt"
	"net"
	"net/http"
	"strings"
	"time"

	"github.com/seed-4f96e14b/session/internal/native"
	"github.com/seed-4f96e14b/session/internal/records"
)

// Cookie configures the cookie that carries a session's id. Its zero value sends
//
//	__Host-sid=...; Path=/; HttpOnly; Secure; SameSite=Lax
//
// The attributes are those of RFC 6265bis, and Priority is Chromium's. The value
// is signed, opaque, and holds no data. [New] refuses what browsers refuse.
type Cookie struct {
	_ [0]func() // no unkeyed literals

	// Name is the cookie's name, and part of what is signed. Empty means
	// "__Host-sid", or "sid" where that prefix is not allowed: with a Domain, with
	// a Path other than "/", or with Insecure.
	Name string

	// MaxAge is for how long the browser keeps the cookie, and for how long the session
	// lives without being used. It is whole seconds, at most 400 days, and not longer than
	// [Options.AbsoluteTimeout]. Zero means until the browser closes.
	// [Session.SetMaxAge] changes it for one session.
	MaxAge time.Duration

	// Path and Domain say where the browser sends the cookie. An empty Path
	// means "/"; an empty Domain means this host alone, without its subdomains.
	Path, Domain string

	// SameSite says whether requests from other sites carry the cookie: Lax, Strict
	// or None of package net/http. Zero means Lax. None needs a secure cookie.
	// [http.SameSiteDefaultMode] sends no SameSite attribute, as express-session does by
	// default: Chromium then assumes Lax, and other browsers assume None.
	SameSite http.SameSite

	// Partitioned makes the browser keep a separate cookie for each top-level site (CHIPS).
	Partitioned bool

	// Priority is "low", "medium" or "high", for browsers that delete cookies
	// when they have too many. Empty sends no such attribute.
	Priority string

	// Insecure sends the cookie without the Secure attribute. It then also travels
	// over plain HTTP, where anybody on the way can read it. It is not
	// needed behind a proxy that ends TLS, nor on localhost.
	Insecure bool

	// ScriptAccess sends the cookie without the HttpOnly attribute. Every
	// script on the page can then read it.
	ScriptAccess bool
}

const (
	maxCookieAge       = 400 * 24 * time.Hour // browsers cut longer ones (RFC 6265bis §5.5)
	maxCookieSize      = 4096                 // of name and value; browsers drop larger ones (§5.7)
	maxCookieAttribute = 1024                 // browsers ignore longer ones (§5.6)
)

func (c *Cookie) name() string {
	switch {
	case c.Name != "":
		return c.Name
	case c.Insecure || c.Domain != "" || c.path() != "/":
		return "sid"
	}
	return "__Host-sid"
}

func (c *Cookie) path() string { return cmp.Or(c.Path, "/") }

// template returns the cookie with the attributes that are the same for all sessions.
func (c *Cookie) template() http.Cookie {
	return http.Cookie{
		Name:        c.name(),
		Path:        c.path(),
		Domain:      c.Domain,
		Secure:      !c.Insecure,
		HttpOnly:    !c.ScriptAccess,
		SameSite:    cmp.Or(c.SameSite, http.SameSiteLaxMode),
		Partitioned: c.Partitioned,
	}
}

// validate returns an error for each thing that browsers would refuse or silently change. A cookie
// that another program defines may have any lifetime.
func (c *Cookie) validate(isForeign bool) []error {
	errs := c.validateName()
	refuse := func(format string, args ...any) { errs = append(errs, fmt.Errorf("Cookie."+format, args...)) }
	if c.MaxAge < 0 || c.MaxAge > maxCookieAge && !isForeign {
		refuse("MaxAge is %v; it can be from 0 to 400 days", c.MaxAge)
	}
	if err := wholeSeconds(c.MaxAge); err != nil {
		refuse("MaxAge %w", err)
	}
	path := http.Cookie{Name: "x", Path: c.path()}
	if path.Valid() != nil || !strings.HasPrefix(path.Path, "/") || strings.HasSuffix(path.Path, " ") || len(path.Path) > maxCookieAttribute {
		refuse("Path is %q; it must begin with '/', not end with a space, have no ';' or control characters, and at most %d bytes", c.Path, maxCookieAttribute)
	}
	domain := http.Cookie{Name: "x", Domain: c.Domain}
	if domain.Valid() != nil || strings.HasSuffix(c.Domain, ".") || len(c.Domain) > 255 {
		refuse("Domain is %q; use a host name, such as example.com", c.Domain)
	} else if net.ParseIP(c.Domain) != nil {
		refuse("Domain is the address %s; leave it empty for a cookie of this host", c.Domain)
	}
	switch c.SameSite {
	case 0, http.SameSiteDefaultMode, http.SameSiteLaxMode, http.SameSiteStrictMode:
	case http.SameSiteNoneMode:
		if c.Insecure {
			refuse("SameSite is None; browsers accept that from secure cookies only, so leave Insecure out")
		}
	default:
		refuse("SameSite is %d; use http.SameSiteLaxMode, StrictMode or NoneMode", c.SameSite)
	}
	if c.Partitioned && c.Insecure {
		refuse("Partitioned is set; browsers accept that from secure cookies only, so leave Insecure out")
	}
	switch c.Priority {
	case "", "low", "medium", "high":
	default:
		refuse("Priority is %q; use low, medium or high", c.Priority)
	}
	return errs
}

// validateName checks the name, and whether the cookie is what a prefix in the name promises.
func (c *Cookie) validateName() (errs []error) {
	refuse := func(format string, args ...any) { errs = append(errs, fmt.Errorf("Cookie."+format, args...)) }
	template := c.template()
	bare := http.Cookie{Name: template.Name}
	switch name := template.Name; {
	case bare.Valid() != nil || strings.Contains(name, "|"):
		refuse("Name is %q; use letters, digits, '-', '_' and '.'", name)
	case len(name)+native.MaxIDLength > maxCookieSize:
		refuse("Name has %d bytes; name and value may have %d together", len(name), maxCookieSize)
	case hasPrefixFold(name, "__Host-") && (c.Insecure || c.Domain != "" || c.path() != "/"):
		refuse("Name is %q; its prefix needs a secure cookie without a Domain and with Path \"/\"", name)
	case hasPrefixFold(name, "__Secure-") && c.Insecure:
		refuse("Name is %q; its prefix needs a secure cookie, so leave Insecure out", name)
	case (hasPrefixFold(name, "__Http-") || hasPrefixFold(name, "__Host-Http-")) && (c.Insecure || c.ScriptAccess):
		refuse("Name is %q; its prefix needs a secure cookie that scripts cannot read", name)
	}
	return errs
}

func hasPrefixFold(s, prefix string) bool {
	return len(s) >= len(prefix) && strings.EqualFold(s[:len(prefix)], prefix)
}

// wholeSeconds returns an error for a duration that was written in milliseconds, as in JavaScript:
// 24*60*60*1000 is a day there, and 86.4 ms in Go.
func wholeSeconds(d time.Duration) error {
	if d%time.Second == 0 {
		return nil
	}
	return fmt.Errorf("is %v; it must be whole seconds, written as 24*time.Hour", d)
}

// roundUp rounds d up to whole seconds.
func roundUp(d time.Duration) time.Duration {
	if rest := d % time.Second; rest > 0 && d <= records.Forever-time.Second {
		d += time.Second - rest
	}
	return d.Truncate(time.Second)
}
