package session

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/seed-4f96e14b/session/internal/records"
	"github.com/seed-4f96e14b/session/internal/wire"
)

// A Session is the session of one request. Handlers get it by [From], and pass
// it to the methods of a [Key].
//
// It is safe for concurrent use, and ends with its request. A later change has no effect, and
// [Session.Err] says so. The session holds no lock while it runs code that is not its own: the
// store, a function given to [Key.Update], or a logger.
type Session struct {
	*state
}

type contextKey struct{}

// From returns the session of the request that ctx belongs to. If handlers of several managers
// are nested, it is the session of the innermost one. Without a session, From panics.
func From(ctx context.Context) *Session {
	s, ok := FromContext(ctx)
	if !ok {
		panic("session: no session in the context; wrap the handler, as in http.ListenAndServe(addr, sessions.Handler(mux)), and pass the context of the request: r.Context(), which in gin is c.Request.Context(), not c")
	}
	return s
}

// FromContext is [From] for code that may run without a session. It reports whether there is
// one.
func FromContext(ctx context.Context) (*Session, bool) {
	s, ok := ctx.Value(contextKey{}).(*Session)
	return s, ok
}

// ID returns a public name of the session. It stays the same when the session is renewed, and
// changes when it is regenerated. It is safe to log, to list and to show to the user, and is
// useless as a cookie. With package expressjs it is Express's req.sessionID, which also changes
// with a renewal, and should not be logged.
func (s *Session) ID() string {
	s.mu.Lock()
	defer s.unlock()
	s.open()
	s.needID()
	return s.id.Handle
}

// Keys returns the keys of all values, sorted. A key whose value is JSON null is left out. To go
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

// Created returns when the session began. The absolute timeout counts from that time.
func (s *Session) Created() time.Time {
	s.mu.Lock()
	defer s.unlock()
	s.open()
	s.needDates()
	return time.UnixMilli(s.draft.Created)
}

// Expires returns when the session ends if it is not used before. A request that uses the
// session moves that time when it saves it.
func (s *Session) Expires() time.Time {
	s.mu.Lock()
	defer s.unlock()
	s.open()
	s.needDates()
	return s.manager.records.Expires(&s.draft.Record)
}

// SetMaxAge gives this session a lifetime of its own, as "remember me" does. The browser keeps
// the cookie for d, and the session ends when it is not used for d. This replaces
// [Cookie].MaxAge and [Options.IdleTimeout]. d is rounded up to whole seconds, and cut to what is
// left of the absolute timeout.
//
// Zero means that the cookie lives until the browser closes, whatever Cookie.MaxAge says, and
// that the server keeps the session for IdleTimeout. A negative d, one under a second, or one
// over [Options.AbsoluteTimeout] is an error of the session.
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

// Regenerate begins a new session without data, under a new cookie. The old session is deleted
// when the new one is saved. Call it at login, before you set the values of the login (OWASP ASVS
// 7.2.4), and wherever data must not be carried over. The new session does not inherit a lifetime
// from SetMaxAge. After the first byte of the response, Regenerate is an [ErrHeaderSent].
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

// Renew gives the session a new secret, and so the client a new cookie. The values and
// [Session.ID] stay. A browser may have other requests under way with the old cookie. That
// cookie opens the session for the time grace more, counted from when the session is saved.
//
// Use a grace of 0 where rights grow or a credential changes: somebody else may have the old
// cookie. Then every cookie but the new one is worthless. A request that was under way with an
// old one is anonymous or, if it changes the session, fails with [ErrRenewed]. Use 30 seconds for
// a rotation by time. A grace over 5 minutes, or a negative one, is an error of the session.
//
// A request that comes with the old cookie within its grace can read, change and end the session.
// Its response sends no cookie. Its SetMaxAge does nothing, and neither does its Renew with a
// grace. After the grace, all that an old cookie can do is to end the session, by Destroy or
// Regenerate.
//
// Of two renewals at once, the first counts. The second is skipped or, if its grace is 0, its
// request fails with [ErrRenewed]. A session that is not stored yet needs no renewal, because its
// first secret is new; Renew does nothing then. After the first byte of the response, Renew is an
// [ErrHeaderSent].
//
// The browser keeps the old cookie if the new one does not reach it: because the response is
// lost, because the store has renewed the session and not said so in time, or because an older
// response, which refreshes the old cookie for [Options.Rolling] or a MaxAge, arrives after the
// new cookie. After the grace the user then has to log in again.
//
// With package expressjs, a renewal moves the session to another key. That takes three more calls
// of the store.
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

// mayReplaceCookie reports whether a cookie can still be sent. If so, it has acquired the session.
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

// Touch counts the request as use of the session, even if the handler reads nothing. The deadline
// moves with the save before the first byte. So a stream that lasts longer than the idle timeout
// calls [Session.Save] now and then.
func (s *Session) Touch() {
	s.mu.Lock()
	defer s.unlock()
	s.open()
}

// Destroy ends the session. It deletes the record now, and the cookie with the response. It also
// works where the session could not be loaded. (In an outage of the store, only a request with a
// safe method gets as far as this.)
//
// The session is then a new and empty one. A value that is set now, such as a message for the
// next page, begins it, and its cookie replaces the deleted one. After the first byte of the
// response, that is an [ErrHeaderSent].
//
// The error is an [ErrUnavailable], and sticky: a logout that has failed is never answered as if
// it had worked. A second Destroy is not an error.
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

// Save stores the session now, even if it has not changed, and moves its deadline. Call it before
// a handler streams, hijacks the connection, or tells another process to look at the session. All
// other changes are saved without it. A new session must be saved before the first byte of the
// response, because its cookie goes with the header.
//
// Save does not refresh a cookie that the client already has; the save before the first byte does.
// So a stream that calls Save keeps the session alive, and not the browser's cookie, also with
// [Options.Rolling].
//
// The error is [ErrNotFound] if the session has ended, or if nothing was changed and another
// request has just replaced the cookie. Any other error is sticky.
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
	switch isSaved, err := s.do(s.next(when), when); {
	case errors.Is(err, ErrHeaderSent):
		return s.fail(callError{"Save", err})
	case err != nil:
		return s.fail(s.about(err))
	case !isSaved:
		return fmt.Errorf("session: ended, nothing is saved: %w", ErrNotFound)
	}
	return nil
}

// Reload loads the session again, and drops the changes that this request has not saved. The
// error is [ErrNotFound] if the session has ended or was never saved. The session is then empty.
// If it has ended, nothing more of this request is saved, unless Regenerate follows. Any other
// error is sticky.
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

// Err returns the first error of the session in this request, or nil.
func (s *Session) Err() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.err
}

// Format implements [fmt.Formatter]. No verb prints what the session holds.
func (Session) Format(f fmt.State, _ rune) {
	fmt.Fprint(f, "session.Session")
}

// open loads the session if nobody has, and counts as use. Whatever the handler reads or changes
// goes through it.
func (s *Session) open() {
	if s.reply.look == unlooked {
		s.reply.look = s.lookNow()
		s.lookedLate.Store(s.reply.look == tooLate)
	}
	s.load()
}

// get returns the JSON under key, or nil.
func (s *Session) get(key string) []byte {
	s.mu.Lock()
	defer s.unlock()
	s.open()
	return s.draft.Get(key)
}

// change makes a change that Key.Set or Key.Delete asks for.
func (s *Session) change(c change) {
	s.mu.Lock()
	defer s.unlock()
	s.apply(c)
}

// changeIf sets the key of c to value, if the key still holds old, and reports whether it did.
// It remembers c, which may make another value after a conflict.
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

// apply makes a change on the draft, and remembers it. It reports whether the change was made.
func (s *Session) apply(c change) bool {
	if s.reply.stage == closed {
		s.fail(callError{c.String(), ErrClosed})
		return false
	}
	s.open()
	s.needDates()
	if err := c.Make(&s.draft.Record); err != nil {
		s.fail(err)
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

// reject remembers the error of a change that could not be made.
func (s *Session) reject(c change, err error) {
	s.mu.Lock()
	defer s.unlock()
	if s.reply.stage == closed {
		err = callError{c.String(), ErrClosed}
	}
	s.fail(err)
}
