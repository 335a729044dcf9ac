package session

import (
	"bytes"
	"context"
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

// A Session is the session of one request. Handlers get it by [From], and pass
// it to the methods of a [Key].
//
// It is safe for concurrent use, and ends with its request: later changes have no
// effect, and [Session.Err] says so. No lock is held while the store, a function
// given to [Key.Update], a logger or anything else that is not ours runs.
type Session struct {
	*state
}

// A state is what a Session knows and holds. It is behind a pointer because package fmt
// prints a struct in full, without asking it, where a verb does not fit: as %w in Sprintf.
type state struct {
	manager *Manager
	outer   *Session      // of a manager wrapped around this one
	request *http.Request // as it came: its context does not hold this session
	inner   *http.Request // as the handler gets it

	lookedLate atomic.Bool // at the first time, and the ResponseWriter has not yet dealt with it

	mu      sync.Mutex // guards all that follows
	phase   phase
	opened  opened
	busy    turnstile
	brought brought     // cookies
	id      wire.ID     // of the session as it is or will be saved; zero until needed
	stored  wire.Stored // what the store had when we last looked
	draft   draft
	retired retired
	reply   reply
	err     error     // the first
	lines   []logLine // to be logged when mu is free
}

// A draft is what the handler has made of the session.
type draft struct {
	wire.Record                  // what the handler sees
	changes     []change         // those that made it out of what is stored
	renewal     *records.Renewal // that the next save is to make; nil for none
}

// secret returns the digest of the secret that the client has, or is to get.
func (s *Session) secret() wire.Digest { return wire.DigestOf(s.id.Secret) }

type contextKey struct{}

// From returns the session of the request that ctx belongs to: that of the
// innermost [Manager.Handler]. Without one it panics.
func From(ctx context.Context) *Session {
	s, ok := FromContext(ctx)
	if !ok {
		panic("session: no session in the context; wrap the handler, as in http.ListenAndServe(addr, sessions.Handler(mux)), and pass the context of the request: r.Context(), which in gin is c.Request.Context(), not c")
	}
	return s
}

// FromContext is [From] for code that may run without a session: it reports
// whether there is one.
func FromContext(ctx context.Context) (*Session, bool) {
	s, ok := ctx.Value(contextKey{}).(*Session)
	return s, ok
}

// ID returns a public handle of the session. It stays the same when the session
// is renewed and changes when it is regenerated. It is safe to log, to list and
// to show to the user, and useless as a cookie. With package expressjs it is Express's
// req.sessionID, which changes with a renewal too, and is better not logged.
func (s *Session) ID() string {
	s.mu.Lock()
	defer s.unlock()
	s.open()
	s.needID()
	return s.id.Handle
}

// Keys returns the names of all values, sorted. JSON null is no value. To go
// through the values, read each as a Key[json.RawMessage].
func (s *Session) Keys() []string {
	s.mu.Lock()
	defer s.unlock()
	s.open()
	keys := make([]string, 0, len(s.draft.Values()))
	for _, v := range s.draft.Values() {
		if !bytes.Equal(v.JSON, jsonNull) {
			keys = append(keys, string(v.Key))
		}
	}
	return keys
}

// Created returns when the session began. The absolute timeout counts from there.
func (s *Session) Created() time.Time {
	s.mu.Lock()
	defer s.unlock()
	s.open()
	s.needDates()
	return time.UnixMilli(s.draft.Created)
}

// Expires returns when the session ends if it is not used before. A request that
// uses it moves that time when it is saved.
func (s *Session) Expires() time.Time {
	s.mu.Lock()
	defer s.unlock()
	s.open()
	s.needDates()
	return s.manager.records.Expires(&s.draft.Record)
}

// SetMaxAge gives this session a lifetime of its own, as "remember me" does: the
// browser keeps the cookie, and the session lives unused, for d rounded up to
// seconds, but not beyond what is left of the absolute timeout. It takes the place of [Cookie].MaxAge
// and of [Options.IdleTimeout]. Zero means until the browser closes, whatever MaxAge
// says, and IdleTimeout on the server.
// A negative d, one under a second as JavaScript's milliseconds are, and one over
// [Options.AbsoluteTimeout] is an error of the session.
func (s *Session) SetMaxAge(d time.Duration) {
	s.mu.Lock()
	defer s.unlock()
	switch {
	case d < 0:
		s.fail(fmt.Errorf("session: SetMaxAge(%v): negative; Destroy ends a session", d))
	case d > 0 && d < time.Second:
		s.fail(fmt.Errorf("session: SetMaxAge(%v): under a second; a day is 24*time.Hour", d))
	case d > s.manager.records.Lifetimes.Absolute:
		s.fail(fmt.Errorf("session: SetMaxAge(%v): longer than the AbsoluteTimeout of %v; shorten it, or set AbsoluteTimeout too", d, s.manager.records.Lifetimes.Absolute))
	case s.reply.stage == sent:
		s.fail(callError{"SetMaxAge", ErrHeaderSent})
	default:
		s.open()
		switch {
		case s.phase == stale:
			s.fail(callError{"SetMaxAge", ErrRenewed})
		case s.opened.standing == wire.InGrace: // its response sends no cookie that could have it
		default:
			s.apply(change{Call: "SetMaxAge", Make: func(r *wire.Record) error {
				if own := wire.NewMaxAge(roundUp(d)); r.MaxAge != own {
					r.MaxAge, r.Used = own, time.Now().UnixMilli()
				}
				return nil
			}})
		}
	}
}

// Regenerate begins a new session without data, under a new cookie; the old one is
// deleted when the new one is saved. Call it at login, before the values of the
// login are set (OWASP ASVS 7.2.4), and wherever else data must not be carried
// over. A lifetime of the session's own is not carried over either: call SetMaxAge
// after Regenerate. After the first byte of the response it is an [ErrHeaderSent].
func (s *Session) Regenerate() {
	s.mu.Lock()
	defer s.unlock()
	if !s.mayReplaceCookie("Regenerate") {
		return
	}
	defer s.release()
	s.readCookies()
	s.retire()
	s.begin(begun)
	s.reply.look = inTime
}

// Renew gives the session a new secret, and so the client a new cookie. Values and
// [Session.ID] stay. The cookie before opens the session for the time grace more, from when
// the session is saved, because a browser has other requests under way with it.
//
// A grace of 0 makes every cookie worthless but the new one. That is right where rights grow
// or a credential changes: the old cookie may be in somebody else's hands. A request that
// was under way with it is anonymous or, if it changes the session, fails with
// [ErrRenewed]. All that a replaced cookie can still do, however old it is, is to end the
// session, by Destroy or Regenerate. For a rotation by time, 30 seconds are right. The most are 5 minutes; more,
// or a negative grace, is an error of the session.
//
// A request that comes with the cookie before, within its grace, has all of the session: it
// reads, writes and can end it. Its response sends no cookie; its SetMaxAge, and its Renew
// with a grace, do nothing.
//
// Of two renewals at once the first counts: the other is skipped, and with a grace of 0
// its request fails with [ErrRenewed]. A session that is not stored yet, and gets its first
// secret anyway, is not renewed. After the first byte of the response, Renew is an
// [ErrHeaderSent].
//
// If the new cookie does not reach the browser, it is left with one that is worthless after
// the grace. That happens if the response is lost; if it is an error because the store made the
// renewal and did not say so in time; and if an older response, which sends the cookie before
// again because of [Options.Rolling] or a MaxAge, arrives after it. The user can log in again.
// With package expressjs a renewal moves the session to another key, which takes three
// calls of the store more.
func (s *Session) Renew(grace time.Duration) {
	s.mu.Lock()
	defer s.unlock()
	if grace < 0 || grace > maxGrace {
		s.fail(fmt.Errorf("session: Renew(%v): the grace is from 0 to %v", grace, maxGrace))
		return
	}
	s.open()
	if !s.mayReplaceCookie("Renew") {
		return
	}
	defer s.release()
	switch {
	case s.phase == stale || s.phase.isStored() && s.stored.Secret != s.secret():
		if grace == 0 {
			s.fail(callError{"Renew", ErrRenewed})
		}
	case s.phase.isStored() && s.draft.renewal == nil:
		s.draft.renewal = &records.Renewal{Next: s.manager.codec.NewID(), Grace: grace}
	case s.phase.isStored():
		s.draft.renewal.Grace = min(s.draft.renewal.Grace, grace)
	}
}

// maxGrace is the longest grace of [Session.Renew].
const maxGrace = 5 * time.Minute

// mayReplaceCookie acquires the session if the cookie can still be sent.
func (s *Session) mayReplaceCookie(method string) bool {
	if s.reply.stage == closed {
		s.fail(callError{method, ErrClosed})
		return false
	}
	if s.fail(s.acquire()) != nil {
		return false
	}
	if s.reply.stage == sent {
		s.release()
		s.fail(callError{method, ErrHeaderSent})
		return false
	}
	return true
}

// Touch counts the request as use of the session, even if nothing is read. What moves
// the deadline is the save before the first byte: a stream that outlives the idle
// timeout calls [Session.Save] now and then.
func (s *Session) Touch() {
	s.mu.Lock()
	defer s.unlock()
	s.open()
}

// Destroy ends the session: it deletes the record now, and the cookie with the
// response. It does so also where the session could not be read, if the handler
// runs at all: with a method that is not safe it does not, in an outage.
//
// The session is then a new and empty one. A Set, as that of a message for the next page,
// begins it, and its cookie takes the place of the one that goes; after the first byte of
// the response that is an [ErrHeaderSent].
//
// The error is an [ErrUnavailable], and sticky: a logout that failed is never
// answered as if it had worked. A second Destroy is no error.
func (s *Session) Destroy() error {
	s.mu.Lock()
	defer s.unlock()
	if s.reply.stage == closed {
		return s.fail(callError{"Destroy", ErrClosed})
	}
	if err := s.acquire(); err != nil {
		return s.fail(err)
	}
	defer s.release()
	if s.reply.look == unlooked {
		s.reply.look = s.lookNow()
	}
	s.readCookies()
	s.retire()
	if err := s.deleteRetired(); err != nil {
		return s.fail(err)
	}
	if s.phase.isStored() {
		ended := s.stored.Copy()
		s.retired.record = &ended
	}
	s.begin(absent)
	s.reply.cookie = removeCookie
	return nil
}

// Save stores the session now, changed or not, and moves its deadline. Handlers
// need it before they stream, hijack the connection or tell another process to
// look; all other changes are saved by themselves. A new session must be saved
// before the first byte of the response, with which its cookie goes. With
// [Options.Rolling] a stream that saves after it keeps the session alive, and not the
// browser's cookie.
//
// A cookie that the client has already is sent again by what is saved before the first
// byte, and not by a Save.
//
// The error is [ErrNotFound] if the session has ended meanwhile, or if nothing was changed
// and the cookie had just been replaced. Any other error is sticky.
func (s *Session) Save() error {
	s.mu.Lock()
	defer s.unlock()
	if s.reply.stage == closed {
		return s.fail(callError{"Save", ErrClosed})
	}
	s.open()
	if s.err != nil {
		return s.err
	}
	if err := s.acquire(); err != nil {
		return s.fail(err)
	}
	defer s.release()
	when := saveBefore
	if s.reply.stage != open {
		when = saveAfter
	}
	switch isSaved, err := s.take(s.next(when), when); {
	case errors.Is(err, ErrHeaderSent):
		return s.fail(callError{"Save", err})
	case err != nil:
		return s.fail(s.about(err))
	case !isSaved:
		return fmt.Errorf("session: ended, nothing is saved: %w", ErrNotFound)
	}
	return nil
}

// Reload reads again what the store has, and drops the values that this request
// changed and did not save. The error is [ErrNotFound] if the session has ended or was never
// saved; the session is then empty, and if it has ended nothing more of this
// request is saved unless Regenerate follows. Any other error is sticky.
func (s *Session) Reload() error {
	s.mu.Lock()
	defer s.unlock()
	if s.reply.stage == closed {
		return s.fail(callError{"Reload", ErrClosed})
	}
	loadedNow := s.phase == unasked
	s.open()
	if s.err != nil {
		return s.err
	}
	if err := s.acquire(); err != nil {
		return s.fail(err)
	}
	defer s.release()
	if s.phase.isStored() && !loadedNow {
		if err := s.fail(s.reload()); err != nil {
			return err
		}
	}
	if !s.phase.isStored() {
		s.drop()
		return fmt.Errorf("session: nothing to reload: %w", ErrNotFound)
	}
	return nil
}

// Err returns the first thing that went wrong with the session in this request,
// or nil.
func (s *Session) Err() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.err
}

// Format implements [fmt.Formatter]: no verb prints what the session holds.
func (Session) Format(f fmt.State, _ rune) {
	fmt.Fprint(f, "session.Session")
}

// unlock ends a method that holds s.mu, and then logs what it had to say: a
// logger may look at the session itself.
func (s *Session) unlock() {
	lines := s.lines
	s.lines = nil
	s.mu.Unlock()
	for _, l := range lines {
		s.manager.logLine(s.request.Context(), s.inner.Pattern, l)
	}
}

func (s *Session) say(level slog.Level, text string, err error, attrs ...slog.Attr) {
	if s.id.Handle != "" {
		attrs = append(attrs, slog.String("session", s.manager.codec.LogHandle(s.id.Handle)))
	}
	s.lines = append(s.lines, logLine{level: level, text: text, err: err, attrs: attrs})
}

// fail remembers the first error, and returns err.
func (s *Session) fail(err error) error {
	if err != nil && s.err == nil {
		s.err = err
		if s.reply.stage == closed {
			s.say(slog.LevelError, "session: call without effect", err)
		}
	}
	return err
}

// A turnstile lets one goroutine of a request through at a time: one that talks to the store,
// or is about to replace the cookie.
type turnstile struct {
	taken bool
	freed chan struct{} // closed when it is free again; nil if nobody waits
}

// acquire waits until no other goroutine of the request talks to the store. It is
// called with s.mu held, which it gives up while it waits, and bounds the wait
// so that an Update's function that calls back ends in an error, not a deadlock.
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

// maxCalls is how many calls of the store, all as slow as they may be, a goroutine
// waits for.
const maxCalls = 10

func (s *Session) release() {
	s.busy.taken = false
	if s.busy.freed != nil {
		close(s.busy.freed)
		s.busy.freed = nil
	}
}

// open loads the session if nobody has, and counts as use. Every look of the
// handler goes through it.
func (s *Session) open() {
	if s.reply.look == unlooked {
		s.reply.look = s.lookNow()
		s.lookedLate.Store(s.reply.look == tooLate)
	}
	s.load()
}

func (s *Session) get(key string) []byte {
	s.mu.Lock()
	defer s.unlock()
	s.open()
	return s.draft.Get(key)
}

// change makes a change and remembers it.
func (s *Session) change(c change) {
	s.mu.Lock()
	defer s.unlock()
	s.apply(c)
}

// changeIf sets the key of c to value, and remembers that as c, if the key is still old.
func (s *Session) changeIf(c change, old, value []byte) bool {
	s.mu.Lock()
	defer s.unlock()
	s.open()
	if now := s.draft.Get(c.Key); !bytes.Equal(now, old) || (now == nil) != (old == nil) {
		return false
	}
	set := change{Call: c.Call, Key: c.Key, Make: func(r *wire.Record) error { r.Set(c.Key, value); return nil }}
	if n := len(s.draft.changes); s.apply(set) {
		s.draft.changes[n] = c
	}
	return true
}

func (s *Session) apply(c change) bool {
	if s.reply.stage == closed {
		s.fail(callError{c.String(), ErrClosed})
		return false
	}
	s.open()
	s.needDates()
	if s.fail(c.Make(&s.draft.Record)) != nil {
		return false
	}
	if s.draft.changes == nil {
		s.draft.changes = make([]change, 0, 4) // a login makes as many
	}
	s.draft.changes = append(s.draft.changes, c)
	if s.phase == absent && s.reply.stage == sent && !s.busy.taken && !s.draft.IsEmpty() {
		s.fail(s.about(ErrHeaderSent))
	}
	return true
}

// reject is fail for a change that could not be made.
func (s *Session) reject(c change, err error) {
	s.mu.Lock()
	defer s.unlock()
	if s.reply.stage == closed {
		err = callError{c.String(), ErrClosed}
	}
	s.fail(err)
}
