package session

import (
	"errors"
	"iter"
	"log/slog"
	"net/http"
	"net/textproto"
	"strings"
	"time"

	"github.com/seed-4f96e14b/session/internal/wire"
)

// This file finds the session that the request's cookies open.

// load finds the session that the cookies name, if that has not been done. It acquires the session.
func (s *Session) load() {
	if s.phase != unasked {
		return
	}
	if s.reply.stage == closed {
		s.fail(ErrClosed)
		return
	}
	if err := s.acquire(); err != nil {
		s.fail(err)
		return
	}
	defer s.release()
	if s.phase != unasked { // another goroutine was faster
		return
	}
	s.readCookies()
	if err := s.find(); err != nil {
		s.fail(err)
	}
}

// readCookies verifies the request's cookies, if that has not been done.
func (s *Session) readCookies() {
	if s.brought.read {
		return
	}
	s.brought.readFrom(s.request, s.manager)
	if s.brought.bad > 0 {
		s.lines = append(s.lines, logLine{level: slog.LevelWarn, text: badSignature, more: s.brought.bad - 1})
	}
}

// badSignature names the likely causes, because no single request can tell which it is.
const badSignature = "session: a cookie of our name has no good signature, and counts as none. " +
	"Does another program on this host use the name (ports share cookies)? Does another instance have other Secrets, or a new one at each start? Was a secret removed too early?"

// find loads the session of the cookies that verify. The first one that opens a session counts. So
// a cookie of another Domain or Path, which a logout could not delete, does not hide the good one
// behind it. The error is that of a store which could not tell.
func (s *Session) find() error {
	if !s.brought.verified() {
		s.begin(absent)
		return nil
	}
	ctx, cancel := s.manager.records.Bound(s.request.Context())
	defer cancel()
	replaced, looks := "", 0
	for c := range s.brought.all() {
		if looks++; looks > maxLooks {
			break
		}
		// A store that cannot tell about one cookie ends the search: the next cookie might open
		// another session than the one that this request has.
		var st wire.Stored
		var standing wire.Standing
		var err error
		s.outside(func() { st, standing, err = s.manager.records.Load(ctx, c.id) })
		switch {
		case err == nil:
			s.phase, s.id = found, wire.ID{Handle: st.At, Secret: c.id.Secret}
			s.opened = opened{standing: standing, signedByOld: c.signedByOld}
			s.show(st)
			return nil
		case errors.Is(err, wire.ErrReplaced):
			replaced = c.id.Handle
		case errors.Is(err, ErrNotFound):
		case errors.Is(err, ErrUnreadable):
			s.say(slog.LevelWarn, "session: the stored record is unreadable; it is left as it is, and its cookie opens nothing", err,
				slog.String("session", s.manager.codec.LogHandle(c.id.Handle)))
		default:
			s.begin(absent)
			return err
		}
	}
	s.begin(absent)
	if replaced != "" {
		s.phase = stale
		s.say(slog.LevelInfo, "session: the cookie has just been replaced, without a grace or after its session was renewed again; the request is anonymous", nil,
			slog.String("session", s.manager.codec.LogHandle(replaced)))
	}
	return nil
}

// maxLooks bounds how many cookies are tried. An honest browser brings two at most: the second is
// left over from another Domain or Path.
const maxLooks = 8

// reload loads the session again. A request whose cookie has been replaced since stays in, unless
// the renewal was one without grace.
func (s *Session) reload() (err error) {
	ctx, cancel := s.manager.records.Bound(s.request.Context())
	defer cancel()
	var st wire.Stored
	s.outside(func() { st, err = s.manager.records.Follow(ctx, s.stored.At, time.Time{}) })
	switch {
	case err == nil && st.Resets == s.stored.Resets:
		s.show(st)
		return nil
	case err == nil:
		return ErrRenewed
	case errors.Is(err, ErrNotFound) || errors.Is(err, ErrUnreadable):
		s.markEnded()
		return nil
	}
	return err
}

// Opened is how the request got into its session.
type opened struct {
	standing    wire.Standing // of the secret in its cookie; Unknown if no cookie opened a session
	signedByOld bool          // its cookie is signed by one of the Secrets that is not the first
}

// Brought are the request's cookies of our name that have a good signature, each once, in the
// request's order. Most requests have one.
type brought struct {
	first candidate
	more  []candidate
	read  bool
	any   bool // there was a cookie of our name, with a good signature or without
	bad   int  // how many had none
}

// A candidate is a cookie with a good signature.
type candidate struct {
	id          wire.ID
	value       string // that holds the id
	signedByOld bool   // by one of the Secrets that is not the first
}

// readFrom parses the Cookie header as [http.Request.CookiesNamed] does, and verifies each cookie
// of our name.
func (b *brought) readFrom(r *http.Request, m *Manager) {
	b.read = true
	// A client may send thousands of cookies, so equal ones are verified once, and most requests
	// need no map.
	var seen map[wire.ID]bool // all candidates but the first
	last := ""                // a value that is repeated is verified once
	for _, line := range r.Header["Cookie"] {
		for line != "" {
			var pair string
			pair, line, _ = strings.Cut(line, ";")
			value, quoted, ok := cookieValue(pair, m.cookieName)
			if !ok {
				continue
			}
			b.any = true
			if value == last {
				continue
			}
			last = value
			id, old, ok := m.codec.Verify(value, quoted)
			switch c := (candidate{id, value, old}); {
			case !ok:
				b.bad++
			case !b.verified():
				b.first = c
			case id != b.first.id && !seen[id]:
				if seen == nil {
					seen = make(map[wire.ID]bool)
				}
				seen[id] = true
				b.more = append(b.more, c)
			}
		}
	}
}

// verified reports whether there is a candidate.
func (b *brought) verified() bool { return b.first.value != "" }

// all goes through the candidates.
func (b *brought) all() iter.Seq[candidate] {
	return func(yield func(candidate) bool) {
		if !b.verified() || !yield(b.first) {
			return
		}
		for _, c := range b.more {
			if !yield(c) {
				return
			}
		}
	}
}

// value returns a cookie value that holds the id and has the newest signature, so that it can be
// sent again, or "" if the request brought none.
func (b *brought) value(id wire.ID) string {
	if b.first.id == id && !b.first.signedByOld {
		return b.first.value
	}
	return ""
}

// cookieValue returns the value in a pair of a Cookie header, and reports whether the pair has the
// name. As in Node, spaces around the name and the value do not belong to them. As in net/http, a
// value with a byte that no server may send does not count.
func cookieValue(pair, name string) (value string, quoted, ok bool) {
	pairName, value, _ := strings.Cut(textproto.TrimString(pair), "=")
	if textproto.TrimString(pairName) != name {
		return "", false, false
	}
	value = textproto.TrimString(value)
	if len(value) > 1 && value[0] == '"' && value[len(value)-1] == '"' {
		value, quoted = value[1:len(value)-1], true
	}
	for i := range len(value) { // as net/http's validCookieValueByte does
		if c := value[i]; c < ' ' || c > '~' || c == '"' || c == '\\' {
			return "", false, false
		}
	}
	return value, quoted, true
}
