package session

import (
	"iter"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"time"

	"github.com/seed-4f96e14b/session/internal/wire"
)

// This file decides what the client is told: by the cookie, Vary and Cache-Control.

// A reply is what the response says of the session, and how far it is.
type reply struct {
	stage  stage
	look   look
	cookie cookie
	vary   [1]string // the value of the header
}

// A stage is how far the response is.
type stage uint8

const (
	open   stage = iota // nothing has left
	sent                // the header is on its way
	closed              // the request has ended, or the session is of none
)

// A look is when the handler first looked at the session.
type look uint8

const (
	unlooked look = iota
	inTime        // before the header left, with Vary: Cookie
	tooLate
)

// lookNow returns what a first look is worth that happens now.
func (s *Session) lookNow() look {
	if s.reply.stage == open {
		return inTime
	}
	return tooLate
}

// A cookie is what becomes of the client's cookie.
type cookie uint8

const (
	keepCookie    cookie = iota // the response says nothing about it
	oweRefresh                  // after a Save; the commit refreshes it, if it can write
	oweIssue                    // after a Save with a Renew; the commit issues it, if it can write
	refreshCookie               // it is sent again, for its Max-Age or its signature
	issueCookie                 // it is sent, because the client does not have it
	removeCookie                // it is deleted, because Destroy has ended the session
)

func (c cookie) isOwed() bool { return c == oweRefresh || c == oweIssue }

// A deed is what a save has done.
type deed struct {
	step     step
	when     occasion
	failed   bool
	changed  bool // values or the lifetime
	lifetime bool // changed, by SetMaxAge
	renewed  bool // the session now has the secret that Renew has made
	used     bool // the save has moved the deadline
}

// answer decides what becomes of the cookie after a save, as shouldSetCookie does in
// express-session. The first line that fits counts. A cookie that the client has, or that a
// Save has renewed, goes only together with a write of the commit: after an earlier write
// another request may have replaced it, and this response would put it back. So an earlier
// Save owes the cookie to the commit.
//
//	the save                                                           the cookie is
//	came after the header                                              as before
//	failed                                                             kept
//	was of a session whose secret is not the one of this request       kept
//	made the session, in this request                                  issued
//	renewed it, in this request                                        issued, or before the commit owed
//	follows a Save that owes a refresh                                 refreshed, or before the commit owed
//	changed the lifetime                                               refreshed, or before the commit owed
//	moved the deadline, and the cookie lives as long as the session    refreshed, or before the commit owed
//	did none of these                                                  as before
func (s *Session) answer(did deed) cookie {
	before := s.reply.cookie
	switch {
	case did.when.afterHeader():
		return before
	case did.failed:
		return keepCookie
	case s.stored.Secret != s.secret():
		return keepCookie
	case did.step == create || before == issueCookie:
		return issueCookie
	case did.renewed || before == oweIssue:
		return owed(oweIssue, issueCookie, did.when)
	case before == oweRefresh:
		return owed(oweRefresh, refreshCookie, did.when)
	case did.lifetime:
		return owed(oweRefresh, refreshCookie, did.when)
	case did.used && s.sharesLifetime(did.changed):
		return owed(oweRefresh, refreshCookie, did.when)
	}
	return before
}

// owed returns inCommit if the save is that of the commit, and else before.
func owed(before, inCommit cookie, when occasion) cookie {
	if when == atCommit {
		return inCommit
	}
	return before
}

// sharesLifetime reports whether the browser's cookie is to be refreshed by a save that moves the
// deadline.
func (s *Session) sharesLifetime(changed bool) bool {
	return changed && s.manager.cookieMaxAge(&s.draft.Record) > 0 || s.refreshesAlways()
}

// refreshesAlways reports whether every save that moves the deadline refreshes the cookie: because
// of Rolling, or because the cookie has an old signature.
func (s *Session) refreshesAlways() bool {
	return s.manager.options.Rolling || s.opened.signedByOld
}

// header adds to the response what it says of the session. It runs after commit.
func (s *Session) header(h http.Header) {
	s.mu.Lock()
	defer s.unlock()
	if s.reply.look != unlooked {
		s.addVary(h)
	}
	switch s.reply.cookie {
	case removeCookie:
		if s.brought.any {
			s.setCookie(h, s.manager.codec.DeleteCookie(s.retired.record))
		}
	case issueCookie, refreshCookie, oweIssue: // owed only if the handler panicked before the commit
		s.sendCookie(h)
	}
}

// sendCookie sends the cookie of the session as the store has it.
func (s *Session) sendCookie(h http.Header) {
	m := s.manager
	line, secure := m.codec.SetCookie(s.id, s.brought.value(s.id), &s.stored.Record, m.cookieLife(&s.stored.Record))
	s.setCookie(h, line)
	if m.browserDrops(s.request, secure) {
		s.say(slog.LevelWarn, "session: a browser that sees plain HTTP here drops this secure cookie: use HTTPS or localhost, or set Cookie.Insecure; "+
			"behind a proxy that ends TLS all is well, and X-Forwarded-Proto: https from it stops this warning", nil)
	}
}

// cookieMaxAge returns for how long the browser is to keep the cookie. 0 is until it closes.
func (m *Manager) cookieMaxAge(r *wire.Record) time.Duration {
	if own, ok := r.MaxAge.Own(); ok {
		return own
	}
	return m.options.Cookie.MaxAge
}

// cookieLife is cookieMaxAge for a cookie that is sent now. The cookie ends with the session at the
// latest, and not after the time at which browsers end it anyway.
func (m *Manager) cookieLife(r *wire.Record) time.Duration {
	life := min(m.cookieMaxAge(r), maxCookieAge)
	if life > 0 {
		life = max(min(life, m.records.Left(r)), time.Millisecond)
	}
	return life
}

// setCookie adds the Set-Cookie line. A cache must not give it to anybody else.
func (s *Session) setCookie(h http.Header, line string) {
	s.addVary(h)
	h.Add("Set-Cookie", line)
	h.Set("Cache-Control", "no-store")
}

// addVary tells caches that the response depends on the cookie. The usual case, a header without
// Vary, allocates nothing.
func (s *Session) addVary(h http.Header) {
	if _, ok := h["Vary"]; !ok {
		s.reply.vary[0] = "Cookie"
		h["Vary"] = s.reply.vary[:]
		return
	}
	if !variesByCookie(h) {
		h.Add("Vary", "Cookie")
	}
}

// variesByCookie reports whether the header tells caches that the response depends on the cookie.
func variesByCookie(h http.Header) bool {
	for field := range listed(h["Vary"]) {
		if strings.EqualFold(field, "Cookie") || field == "*" {
			return true
		}
	}
	return false
}

// isForSharedCaches reports whether the header lets a cache give the response to others than the
// client (RFC 9111 §3).
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
