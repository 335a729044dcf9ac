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

// load reads the session that the cookie names, once. It acquires the session.
func (s *Session) load() {
	if s.phase != unloaded {
		return
	}
	if s.closed {
		s.fail(ErrClosed)
		return
	}
	if s.fail(s.acquire()) != nil {
		return
	}
	defer s.release()
	if s.phase != unloaded { // another goroutine was faster
		return
	}
	s.readCookie()
	s.find()
}

// find looks for the session of the cookies that verify. The first that opens one counts:
// a cookie left behind by another Domain or Path, which a logout could not delete, does not
// hide the good one behind it.
func (s *Session) find() {
	if !s.cookie.verified() {
		s.begin()
		return
	}
	ctx, cancel := s.manager.bound(s.request.Context())
	defer cancel()
	replaced := ""
	looks := 0
	for c := range s.cookie.all() {
		if looks++; looks > maxLooks {
			break
		}
		var st stored
		var err error
		s.outside(func() { st, s.standing, err = s.manager.load(ctx, c.id) })
		switch {
		case err == nil:
			s.phase, s.id, s.secret = found, wire.ID{Handle: st.At, Secret: c.id.Secret}, wire.DigestOf(c.id.Secret)
			s.oldSignature = c.old
			s.show(st)
			return
		case errors.Is(err, wire.ErrReplaced):
			replaced = c.id.Handle
		case errors.Is(err, ErrNotFound):
		case errors.Is(err, ErrUnreadable):
			s.say(slog.LevelWarn, "session: the stored record is unreadable, and left alone; its cookie opens nothing", err,
				slog.String("session", s.manager.codec.LogHandle(c.id.Handle)))
		default:
			s.begin()
			s.fail(err)
			return
		}
	}
	s.begin()
	if replaced != "" {
		s.phase = stale
		s.say(slog.LevelInfo, "session: the cookie has just been replaced, without a grace or after its session was renewed again; the request is anonymous", nil,
			slog.String("session", s.manager.codec.LogHandle(replaced)))
	}
}

// maxLooks bounds for how many cookies a session is looked for. Honest browsers bring two,
// where a cookie of another Domain or Path has been left behind.
const maxLooks = 8

// readCookie looks at the request's cookies, once.
func (s *Session) readCookie() {
	if s.cookie.read {
		return
	}
	s.cookie.readFrom(s.request, s.manager)
	if s.cookie.bad > 0 {
		s.lines = append(s.lines, logLine{level: slog.LevelWarn, text: badSignature, more: s.cookie.bad - 1})
	}
}

// badSignature names the likely causes, because no single request can tell.
const badSignature = "session: a cookie of our name has no good signature, and counts as none. " +
	"Does another program on this host use the name (ports share cookies)? Does another instance have other Secrets, or a new one at each start? Was a secret removed too early?"

// reload reads the session again. Who was let in stays in, unless all cookies but a new one
// have lost their worth since.
func (s *Session) reload() (err error) {
	ctx, cancel := s.manager.bound(s.request.Context())
	defer cancel()
	var st stored
	s.outside(func() { st, err = s.manager.follow(ctx, s.stored.At) })
	switch {
	case err == nil && st.Resets == s.stored.Resets:
		s.show(st)
		return nil
	case err == nil:
		return ErrRenewed
	case errors.Is(err, ErrNotFound) || errors.Is(err, ErrUnreadable):
		s.phase = ended
		return nil
	}
	return err
}

// show makes st what the handler sees.
func (s *Session) show(st stored) {
	s.stored, s.changes = st, nil
	s.now = s.stored.Copy()
}

// begin makes the session one that is in no store.
func (s *Session) begin() {
	if s.phase != unloaded { // else there is nothing to clear, and most anonymous requests come here once
		s.id, s.secret, s.stored, s.now = wire.ID{}, wire.Digest{}, stored{}, wire.Record{}
		s.changes, s.renewal = nil, nil
		s.standing, s.oldSignature, s.sendCookie, s.owesCookie = wire.Unknown, false, keepCookie, false
	}
	s.phase = fresh
}

// needID gives a new session its id: late, because most anonymous requests need none.
func (s *Session) needID() {
	if s.id.Handle == "" {
		s.id = s.manager.codec.NewID()
	}
}

// needDates gives a session that is not stored its beginning, as late.
func (s *Session) needDates() {
	if s.phase != found && s.now.Created == 0 {
		s.dateFrom(time.Now())
	}
}

func (s *Session) dateFrom(now time.Time) {
	s.manager.codec.Begin(&s.now, now)
	s.now.Used = now.UnixMilli()
}

// presented is what a request's cookies say of its session: those of our name with a good
// signature, each once, in the request's order. Most requests have one.
type presented struct {
	first candidate
	more  []candidate
	read  bool
	any   bool // there was a cookie of our name, good or bad
	bad   int  // how many had no good signature
}

// A candidate is a cookie with a good signature.
type candidate struct {
	id    wire.ID
	value string // that the id came in
	old   bool   // signed by an older secret
}

// readFrom looks at the request's cookies, as [http.Request.CookiesNamed] does.
func (p *presented) readFrom(r *http.Request, m *Manager) {
	p.read = true
	var seen map[wire.ID]bool // beside the first
	last := ""                // the same again costs nothing
	for _, line := range r.Header["Cookie"] {
		for line != "" {
			var pair string
			pair, line, _ = strings.Cut(line, ";")
			value, quoted, ok := cookieValue(pair, m.cookieName)
			if !ok {
				continue
			}
			p.any = true
			if value == last {
				continue
			}
			last = value
			id, old, ok := m.codec.Verify(value, quoted)
			switch c := (candidate{id, value, old}); {
			case !ok:
				p.bad++
			case !p.verified():
				p.first = c
			case id != p.first.id && !seen[id]:
				if seen == nil {
					seen = make(map[wire.ID]bool)
				}
				seen[id] = true
				p.more = append(p.more, c)
			}
		}
	}
}

// verified reports whether there is a candidate.
func (p *presented) verified() bool { return p.first.value != "" }

// all goes through the candidates.
func (p *presented) all() iter.Seq[candidate] {
	return func(yield func(candidate) bool) {
		if !p.verified() || !yield(p.first) {
			return
		}
		for _, c := range p.more {
			if !yield(c) {
				return
			}
		}
	}
}

// value returns what may be sent again for the id, as far as that is known.
func (p *presented) value(id wire.ID) string {
	if p.first.id == id && !p.first.old {
		return p.first.value
	}
	return ""
}

// cookieValue returns the value in a pair of a Cookie header, if the pair has the name.
// Values with bytes that no server may send are none, as in net/http; space around the name and
// the value is not theirs, as in Node.
func cookieValue(pair, name string) (value string, quoted, ok bool) {
	pairName, value, _ := strings.Cut(textproto.TrimString(pair), "=")
	if textproto.TrimString(pairName) != name {
		return "", false, false
	}
	value = textproto.TrimString(value)
	if len(value) > 1 && value[0] == '"' && value[len(value)-1] == '"' {
		value, quoted = value[1:len(value)-1], true
	}
	for i := range len(value) {
		if c := value[i]; c < ' ' || c > '~' || c == '"' || c == '\\' {
			return "", false, false
		}
	}
	return value, quoted, true
}
