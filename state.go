package session

import (
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/seed-4f96e14b/session/internal/records"
	"github.com/seed-4f96e14b/session/internal/wire"
)

// This file holds what a session knows, and its lock. The unexported methods here and in load.go,
// commit.go and reply.go are called with s.mu held. Those that talk to the store are called by a
// goroutine that has acquired the session, and give up s.mu meanwhile; see outside.

// A state is what a Session knows. It is behind a pointer because of package fmt, which prints
// all fields of a struct, without calling its Format method, for a verb that does not fit, such
// as %w in Sprintf.
type state struct {
	manager *Manager
	outer   *Session      // of a manager wrapped around this one
	request *http.Request // as it came, without this session in its context
	inner   *http.Request // as the handler gets it

	lookedLate atomic.Bool // the first look came after the header; the ResponseWriter clears it

	mu      sync.Mutex // guards all that follows
	phase   phase
	opened  opened
	busy    turnstile
	brought brought     // the request's cookies
	id      wire.ID     // of the session as it is saved or will be; zero until it is needed
	stored  wire.Stored // what the store had when we last looked
	draft   draft
	retired retired
	reply   reply
	err     error     // the first
	lines   []logLine // to be written when mu is free
}

// A draft is what the handler has made of the session.
type draft struct {
	wire.Record                  // what the handler sees
	changes     []change         // those that made it out of what is stored
	renewal     *records.Renewal // that the next save is to make; nil for none
}

// A phase is what is known of the session's record.
type phase uint8

const (
	unasked phase = iota // nobody has looked
	absent               // it is in no store
	begun                // it is in no store, and is saved even if it is empty: Regenerate has begun it
	found                // it is in the store, as it was loaded
	saved                // it is in the store, as this request has saved it
	stale                // another request has just replaced the cookie: it is empty, and cannot be saved
	ended                // it was in the store, and is gone
)

func (p phase) isStored() bool { return p == found || p == saved }

// begin makes the session an empty one that is in no store.
func (s *Session) begin(as phase) {
	if s.phase != unasked { // before that there is nothing to clear
		s.id, s.stored, s.draft, s.opened = wire.ID{}, wire.Stored{}, draft{}, opened{}
		if s.reply.cookie != removeCookie {
			s.reply.cookie = keepCookie
		}
	}
	s.phase = as
}

// show makes st what the store has and what the handler sees.
func (s *Session) show(st wire.Stored) {
	s.stored = st
	s.draft.Record, s.draft.changes = s.stored.Copy(), nil
}

// markEnded is called when the session is no longer in the store.
func (s *Session) markEnded() {
	s.phase = ended
	s.reply.cookie = keepCookie
}

// drop empties the draft. Only the time at which the session began stays.
func (s *Session) drop() {
	s.needDates()
	created := time.UnixMilli(s.draft.Created)
	s.draft = draft{}
	s.dateFrom(created)
}

// needID gives a new session its id. Most anonymous requests need none.
func (s *Session) needID() {
	if s.id.Handle == "" {
		s.id = s.manager.codec.NewID()
	}
}

// needDates gives a session that is not stored the time at which it begins. Most anonymous requests
// need none.
func (s *Session) needDates() {
	if !s.phase.isStored() && s.draft.Created == 0 {
		s.dateFrom(time.Now())
	}
}

// dateFrom makes the session one that begins now.
func (s *Session) dateFrom(now time.Time) {
	s.manager.codec.Begin(&s.draft.Record, now)
	s.draft.Used = now.UnixMilli()
}

// secret returns the digest of the secret in the client's cookie, or in the one that the client
// is about to get.
func (s *Session) secret() wire.Digest { return wire.DigestOf(s.id.Secret) }

// A turnstile lets one goroutine of a request through at a time: one that talks to the store, or
// that is about to replace the cookie.
type turnstile struct {
	taken bool
	freed chan struct{} // closed when it is free again; nil if nobody waits
}

// acquire waits until no other goroutine of the request talks to the store. It is called with
// s.mu held, and gives that up while it waits. The wait is bounded, so that a function given to
// Update that calls the session ends in an error and not in a deadlock.
func (s *Session) acquire() error {
	if !s.busy.taken {
		s.busy.taken = true
		return nil
	}
	timeout := time.NewTimer(maxCalls * min(s.manager.options.StoreTimeout, records.Forever/maxCalls))
	defer timeout.Stop()
	for s.busy.taken {
		if s.busy.freed == nil {
			s.busy.freed = make(chan struct{})
		}
		freed := s.busy.freed
		s.mu.Unlock()
		select {
		case <-freed:
			s.mu.Lock()
		case <-timeout.C:
			s.mu.Lock()
			return fmt.Errorf("%w: another call of the same request is still waiting for it", ErrUnavailable)
		}
	}
	s.busy.taken = true
	return nil
}

// maxCalls is for how many calls of the store acquire waits, each as slow as it may be.
const maxCalls = 10

// release lets the next goroutine through that waits in acquire.
func (s *Session) release() {
	s.busy.taken = false
	if s.busy.freed != nil {
		close(s.busy.freed)
		s.busy.freed = nil
	}
}

// outside runs f without s.mu. If f panics, nobody knows what it has done, so the session fails,
// also for a handler that recovers.
func (s *Session) outside(f func()) {
	returned := false
	s.mu.Unlock()
	defer func() {
		s.mu.Lock()
		if !returned {
			s.fail(errors.New("session: a panic interrupted a call of the store, or a function given to Update"))
		}
	}()
	f()
	returned = true
}

// unlock ends a method that holds s.mu, and then writes its log lines: the logger may look at the
// session itself.
func (s *Session) unlock() {
	lines := s.lines
	s.lines = nil
	s.mu.Unlock()
	for _, l := range lines {
		s.manager.logLine(s.request.Context(), s.inner.Pattern, l)
	}
}

// say adds a log line, which unlock writes. The line names the session if its id is known.
func (s *Session) say(level slog.Level, text string, err error, attrs ...slog.Attr) {
	if s.id.Handle != "" {
		attrs = append(attrs, slog.String("session", s.manager.codec.LogHandle(s.id.Handle)))
	}
	s.lines = append(s.lines, logLine{level: level, text: text, err: err, attrs: attrs})
}

// fail remembers err if it is the session's first error, and returns it.
func (s *Session) fail(err error) error {
	if err != nil && s.err == nil {
		s.err = err
		if s.reply.stage == closed {
			s.say(slog.LevelError, "session: a call after the end of the request has no effect", err)
		}
	}
	return err
}
