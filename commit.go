package session

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"github.com/seed-4f96e14b/session/internal/wire"
)

// The methods of Session in load.go, commit.go and reply.go are called with s.mu held, and give it up
// while they talk to the store or run the handler's functions (see outside).
// Those that do have acquired the session, or do so themselves where they say.

// drop forgets what the request changed.
func (s *Session) drop() {
	s.changes, s.renewal = nil, nil
	s.needDates()
	created := time.UnixMilli(s.now.Created)
	s.now = wire.Record{}
	s.dateFrom(created)
}

// outside runs f without s.mu. If f panics nobody knows what it has done, so the
// session has failed also for a handler that recovers.
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

// commit saves what there is to save before the header leaves. The error is that
// of the session: what failed now, or before.
func (s *Session) commit() error {
	s.mu.Lock()
	defer s.unlock()
	if err := s.acquire(); err != nil {
		return s.fail(err)
	}
	defer s.release()
	s.committed = true
	switch {
	case s.err == nil:
		if s.manager.options.Rolling {
			s.used = true
		}
		s.fail(s.about(s.write(false)))
		s.moved = s.used // it was due or not; only a first look after this is written at the end
	case s.regenerated: // the old session ends although the new one cannot begin
		if err := s.deleteRetired(); err != nil {
			s.say(slog.LevelError, "session: the session to be replaced could not be deleted", err)
		}
	}
	if s.err != nil && s.owesCookie && s.sendCookie == issueCookie {
		_ = s.confirm() // what an earlier Save has stored stays the client's
	}
	return s.err
}

// miss is commit where the header left by another way. What would need a cookie fails.
func (s *Session) miss() {
	s.mu.Lock()
	defer s.unlock()
	s.committed = true
	switch {
	case s.renewal != nil:
		s.fail(callError{"Renew", ErrHeaderSent})
	case s.regenerated:
		s.fail(callError{"Regenerate", ErrHeaderSent})
	case s.sendCookie == issueCookie:
		s.fail(callError{"Save", ErrHeaderSent})
	}
}

// A cookieState says what the response does with the client's cookie.
type cookieState uint8

const (
	keepCookie    cookieState = iota
	refreshCookie             // send it again, for its Max-Age or its signature
	issueCookie               // send it, because the client does not have it
)

// finish saves what changed after the header left, also what changes while it saves, and
// ends the session with its request.
func (s *Session) finish() error {
	s.mu.Lock()
	defer s.unlock()
	defer func() { s.closed = true }() // before anybody can make a change that nobody saves
	if s.sendsWithMove() {             // too late for it: the next request moves both
		s.moved = true
	}
	for range maxFinalSaves {
		if s.err != nil {
			return s.err
		}
		if err := s.acquire(); err != nil {
			return s.fail(err)
		}
		calls := s.calls
		err := s.saveLate()
		s.release()
		if err != nil || s.calls == calls {
			return s.fail(s.about(err))
		}
	}
	return s.fail(fmt.Errorf("a goroutine of the request goes on changing the session: %w", ErrClosed))
}

// maxFinalSaves bounds how long the end of a request waits for goroutines of its handler.
const maxFinalSaves = 16

// saveLate saves what changed after the header left.
func (s *Session) saveLate() error {
	if s.phase != fresh {
		return s.write(false)
	}
	if len(s.changes) > 0 && !s.now.IsEmpty() {
		return ErrHeaderSent
	}
	return nil
}

// close ends the session with its request, which saves nothing more.
func (s *Session) close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
}

// write brings the store up to date: always if force is set, else by the rules
// of express-session's resave and saveUninitialized, and when the deadline is
// due to move.
func (s *Session) write(force bool) error {
	options := &s.manager.options
	switch s.phase {
	case fresh:
		if force || s.regenerated || options.SaveUninitialized && !s.removed || !s.now.IsEmpty() {
			return s.create()
		}
	case found:
		switch changed := s.renewal != nil || !s.now.SameData(&s.stored.Record); {
		case force || changed || options.Resave && s.writes == 0:
			return s.swap(changed)
		case s.owesCookie:
			return s.confirm()
		case s.used && !s.moved && !options.DisableTouch && s.manager.isDue(&s.stored.Record):
			s.moved = true
			s.move()
		}
	case stale:
		if !s.now.IsEmpty() {
			return ErrRenewed
		}
	case ended:
		if len(s.changes) > 0 || s.renewal != nil {
			s.drop()
			s.say(slog.LevelInfo, "session: ended while the request ran; what it changed ended with it", nil)
		}
	}
	return nil
}

// create saves a new session, and then deletes those that it replaces.
func (s *Session) create() error {
	ctx, cancel := s.manager.bound(s.request.Context())
	defer cancel()
	s.needID()
	s.needDates()
	made, next, n := s.id, s.now.Copy(), len(s.changes)
	var st stored
	var err error
	s.outside(func() { made, st, err = s.manager.create(ctx, made, next) })
	if err != nil {
		return err
	}
	if err := s.deleteRetiredWithin(ctx); err != nil {
		s.outside(func() { s.manager.takeBack(ctx, made.Handle) })
		return err
	}
	s.id, s.secret, s.standing = made, wire.DigestOf(made.Secret), wire.Current
	s.regenerated, s.removed, s.sendCookie = false, false, issueCookie
	return s.install(st, n)
}

// swap saves a session that the store has.
func (s *Session) swap(changed bool) error {
	ctx, cancel := s.manager.bound(s.request.Context())
	defer cancel()
	old, renewal := s.stored, s.renewal
	save := swap{old: old, next: s.now.Copy(), changes: s.changes, secret: s.secret, renewal: renewal}
	wantsCookie := changed && s.manager.cookieMaxAge(&s.now) > 0 || s.sendsWithMove()
	if wantsCookie && !s.committed && !s.manager.isDue(&old.Record) {
		// The cookie lives as long as the session, and this save cannot send it. So the
		// session's use is left to a write that can.
		wantsCookie, save.isNoUse = false, true
	}

	var st stored
	var err error
	s.outside(func() { st, err = s.manager.swap(ctx, save) })
	switch {
	case errors.Is(err, ErrNotFound):
		s.phase = ended
		s.drop()
		s.say(slog.LevelInfo, "session: ended while the request ran; what it changed ended with it", nil)
		return nil
	case errors.Is(err, ErrRenewed) && !changed:
		return s.overtaken(len(save.changes))
	case err != nil:
		return err
	}
	s.renewal = nil
	if !renewal.isMade(&st.Record) && st.Resets != old.Resets { // since it was saved
		s.writes++
		return s.overtaken(len(save.changes))
	}
	switch {
	case renewal.isMade(&st.Record):
		s.id = wire.ID{Handle: st.At, Secret: renewal.next.Secret}
		s.secret = st.Secret
		s.sendCookie, s.owesCookie = issueCookie, !s.committed
	case s.owesCookie || st.MaxAge != old.MaxAge || wantsCookie: // owed by an earlier Save
		s.refreshCookie()
	}
	return s.install(st, len(save.changes))
}

// overtaken is called when another request has made all cookies worthless but its own, and the
// first n changes are saved, or change nothing.
func (s *Session) overtaken(n int) error {
	if len(s.changes) > n {
		return ErrRenewed
	}
	s.begin()
	s.phase = stale
	return nil
}

// confirm makes a write with which the cookie goes that an earlier Save has left to the
// commit, and which saves no change. If it fails, nobody knows whether the cookie is still the
// right one, and it does not go. For a cookie that the client has that is no error, because a
// later response sends it.
func (s *Session) confirm() error {
	ctx, cancel := s.manager.bound(s.request.Context())
	defer cancel()
	save, n := swap{old: s.stored, next: s.stored.Copy(), secret: s.secret}, len(s.changes)
	isNew := s.sendCookie == issueCookie
	var st stored
	var err error
	s.outside(func() { st, err = s.manager.swap(ctx, save) })
	s.owesCookie = false
	switch {
	case err == nil && s.err == nil:
		s.refreshCookie()
		return s.install(st, n)
	case err == nil:
		s.stored = st
		return nil
	}
	s.sendCookie = keepCookie
	switch {
	case errors.Is(err, ErrNotFound):
		s.phase = ended
	case errors.Is(err, ErrRenewed):
	case isNew:
		return err
	default:
		s.say(slog.LevelWarn, "session: the cookie could not be refreshed", err)
	}
	return nil
}

// move writes that a session was used which has not changed, so that its deadline moves.
// That it cannot is no error: another request does it, or the next.
func (s *Session) move() {
	ctx, cancel := s.manager.bound(s.request.Context())
	defer cancel()
	old, next, n := s.stored, s.stored.Copy(), len(s.changes)
	next.Used = time.Now().UnixMilli()
	var st stored
	var err error
	s.outside(func() { st, err = s.manager.replace(ctx, old, next) })
	if err != nil {
		if !errors.Is(err, ErrConflict) && !errors.Is(err, ErrNotFound) {
			s.say(slog.LevelWarn, "session: the deadline could not be moved", err)
		}
		return
	}
	if s.sendsWithMove() {
		s.refreshCookie()
	}
	s.fail(s.install(st, n))
}

// sendsWithMove reports whether the cookie goes with a move of the deadline: if it is to
// live as long, or has an old signature.
func (s *Session) sendsWithMove() bool {
	return s.manager.options.Rolling || s.oldSignature
}

// refreshCookie sends the cookie again that the client has. That goes only together with a
// write of the commit: after an earlier one, another request may have replaced the cookie,
// and this response would put it back.
func (s *Session) refreshCookie() {
	if s.owesCookie = !s.committed; s.committed {
		s.sendCookie = max(s.sendCookie, refreshCookie)
	}
}

// install makes st what the store has and the handler sees, with the changes
// after the first n, which came while st was written.
func (s *Session) install(st stored, n int) error {
	s.phase, s.stored = found, st
	s.writes++
	s.changes = s.changes[n:]
	now := s.stored.Copy()
	for done := 0; done < len(s.changes); done++ {
		var err error
		c := s.changes[done]
		s.outside(func() { err = c.make(&now) })
		if err != nil {
			return err
		}
	}
	s.now = now
	return nil
}

// retire lists the records that have to go for this session to be gone.
func (s *Session) retire() {
	if s.removed {
		return
	}
	add := func(handle string) {
		if !slices.Contains(s.retired, handle) {
			s.retired = append(s.retired, handle)
		}
	}
	if s.phase == found {
		add(s.id.Handle)
	}
	for c := range s.cookie.all() {
		add(c.id.Handle)
	}
}

// deleteRetired deletes what retire has listed.
func (s *Session) deleteRetired() error {
	ctx, cancel := s.manager.bound(s.request.Context())
	defer cancel()
	return s.deleteRetiredWithin(ctx)
}

func (s *Session) deleteRetiredWithin(ctx context.Context) (err error) {
	if s.undeleted != nil {
		return s.undeleted
	}
	for len(s.retired) > 0 && err == nil {
		s.outside(func() { err = s.manager.remove(ctx, s.retired[0]) })
		switch {
		case err == nil:
			s.retired = s.retired[1:]
		case ctx.Err() != nil: // a request does not wait for that twice
			s.undeleted = err
		}
	}
	return err
}
