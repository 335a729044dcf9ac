package session

import (
	"iter"
	"log/slog"
	"net"
	"net/http"
	"strings"
)

// header adds what the response says of the session. It runs after commit.
func (s *Session) header(h http.Header) {
	s.mu.Lock()
	defer s.unlock()
	if s.looked {
		s.addVary(h)
	}
	switch {
	case s.removed:
		s.clearCookie(h)
	case s.sendCookie != keepCookie && s.phase == found && s.stored.Secret == s.secret:
		s.sendCookie = keepCookie
		m := s.manager
		cookie, secure := m.codec.SetCookie(s.id, s.cookie.value(s.id), &s.stored.Record, m.cookieLife(&s.stored.Record))
		s.setCookie(h, cookie)
		if m.browserDrops(s.request, secure) {
			s.say(slog.LevelWarn, "session: a browser that sees plain HTTP here drops this secure cookie: use HTTPS or localhost, or set Cookie.Insecure; "+
				"behind a proxy that ends TLS all is well, and X-Forwarded-Proto: https from it stops this warning", nil)
		}
	}
}

// clearCookie makes the browser forget the cookie of a destroyed session.
func (s *Session) clearCookie(h http.Header) {
	if s.cookie.any {
		s.setCookie(h, s.manager.codec.DeleteCookie(s.destroyed))
	}
}

func (s *Session) setCookie(h http.Header, cookie string) {
	s.addVary(h)
	h.Add("Set-Cookie", cookie)
	h.Set("Cache-Control", "no-store")
}

func (s *Session) addVary(h http.Header) {
	if _, ok := h["Vary"]; !ok {
		s.vary[0] = "Cookie"
		h["Vary"] = s.vary[:]
		return
	}
	if !variesByCookie(h) {
		h.Add("Vary", "Cookie")
	}
}

// variesByCookie reports whether caches are told that the response depends on the cookie.
func variesByCookie(h http.Header) bool {
	for field := range listed(h["Vary"]) {
		if strings.EqualFold(field, "Cookie") || field == "*" {
			return true
		}
	}
	return false
}

// isForSharedCaches reports whether the response says that a cache may give it to others than
// the client (RFC 9111 §3).
func isForSharedCaches(h http.Header) (isShared bool) {
	for directive := range listed(h["Cache-Control"]) {
		name, value, _ := strings.Cut(strings.ToLower(directive), "=")
		switch name {
		case "private", "no-store", "no-cache":
			return false
		case "public":
			isShared = true
		case "s-maxage", "max-age":
			isShared = isShared || value != "0"
		}
	}
	return isShared
}

// listed goes through the elements of a header that is a list.
func listed(lines []string) iter.Seq[string] {
	return func(yield func(string) bool) {
		for _, line := range lines {
			for element := range strings.SplitSeq(line, ",") {
				if !yield(strings.TrimSpace(element)) {
					return
				}
			}
		}
	}
}

// browserDrops reports, once, that a secure cookie goes out where a browser will
// not take it. The proxy's word decides nothing but whether to warn.
func (m *Manager) browserDrops(r *http.Request, secure bool) bool {
	if !secure || r.TLS != nil || m.warned.Load() {
		return false
	}
	proto, _, _ := strings.Cut(r.Header.Get("X-Forwarded-Proto"), ",")
	if strings.EqualFold(strings.TrimSpace(proto), "https") || isLoopback(r.Host) {
		return false
	}
	return m.warned.CompareAndSwap(false, true)
}

// isLoopback reports whether browsers trust the host without TLS.
func isLoopback(host string) bool {
	if h, _, err := net.SplitHostPort(host); err == nil {
		host = h
	}
	host = strings.TrimSuffix(strings.ToLower(strings.Trim(host, "[]")), ".")
	if host == "localhost" || strings.HasSuffix(host, ".localhost") {
		return true
	}
	ip := net.ParseIP(host)
	return ip != nil && ip.IsLoopback()
}
