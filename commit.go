package session

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"

	"github.com/seed-4f96e14b/session/internal/records"
	"github.com/seed-4f96e14b/session/internal/wire"
)

// This file decides what is saved, and when.

// An occasion is when a save may be due.
type occasion uint8

const (
	saveBefore occasion = iota // the handler calls Save, and the header has not left
	atCommit                   // the header is about to leave
	saveAfter                  // the handler calls Save, and the header has left
	atEnd                      // the request ends
)

func (o occasion) isSave() bool      { return o == saveBefore || o == saveAfter }
func (o occasion) afterHeader() bool { return o == saveAfter || o == atEnd }

// A step is what a save does.
type step uint8

const (
	nothing    step = iota
	create          // make a record
	replace         // replace the record by what the handler has made of it
	confirm         // replace it by the same, so that the cookie may go
	touch           // write that the session is used, which moves its deadline
	forget          // drop changes that ended with their session
	headerSent      // fail with ErrHeaderSent
	renewed         // fail with ErrRenewed
)

// next decides what a save does, as shouldSave and shouldTouch do in express-session. The
// first line that fits counts. Stored is found or saved.
//
//	the session is   and                                                          the step is
//	failed           an earlier Save has renewed it: that stays the client's      confirm
//	failed                                                                        nothing
//	absent           has values, or Save is called, after the header has left     headerSent
//	absent           has values, or Save is called                                create
//	absent           SaveUninitialized, before the header leaves, and no Destroy  create
//	begun                                                                         create
//	stored           Save is called                                               replace
//	stored           its values, lifetime or secret are to change                 replace
//	found            Resave                                                       replace
//	stored           an earlier Save has left its cookie to the commit            confirm
//	stored           it was used, and that is due to be written                   touch
//	stale            has values                                                   renewed
//	ended            has changes                                                  forget
//	                 none of these                                                nothing
func (s *Session) next(when occasion) step {
	options, isStored := &s.manager.options, s.phase.isStored()
	switch {
	case s.err != nil && when == atCommit && s.reply.cookie == oweIssue:
		return confirm
	case s.err != nil:
		return nothing
	case s.phase == absent && when.afterHeader() && (!s.draft.IsEmpty() || when.isSave()):
		return headerSent
	case s.phase == absent && (!s.draft.IsEmpty() || when.isSave()):
		return create
	case s.phase == absent && options.SaveUninitialized && when == atCommit && s.reply.cookie != removeCookie:
		return create
	case s.phase == begun:
		return create
	case isStored && when.isSave():
		return replace
	case isStored && s.isChanged():
		return replace
	case s.phase == found && options.Resave:
		return replace
	case isStored && when == atCommit && s.reply.cookie.isOwed():
		return confirm
	case isStored && !options.DisableTouch && s.wasUsed(when) && s.manager.records.IsDue(&s.stored.Record):
		return touch
	case s.phase == stale && !s.draft.IsEmpty():
		return renewed
	case s.phase == ended && (len(s.draft.changes) > 0 || s.draft.renewal != nil):
		return forget
	}
	return nothing
}

// isChanged reports whether the session differs from what the store has.
func (s *Session) isChanged() bool {
	return s.draft.renewal != nil || !s.draft.SameData(&s.stored.Record)
}

// wasUsed reports whether this occasion is to write that the request has used the session. If the
// first look came after the header, the end of the request writes it, but not where the cookie
// would have to go with it: then the next request writes both.
func (s *Session) wasUsed(when occasion) bool {
	switch when {
	case atCommit:
		return s.reply.look == inTime || s.manager.options.Rolling
	case atEnd:
		return s.reply.look == tooLate && !s.refreshesAlways()
	}
	return false
}

// do makes the step that next has decided on, and reports whether the session was saved.
func (s *Session) do(next step, when occasion) (isSaved bool, err error) {
	switch next {
	case create:
		return true, s.create(when)
	case replace:
		return s.replace(when)
	case confirm:
		return true, s.confirm(when)
	case touch:
		s.touch(when)
	case forget:
		s.forget()
	case headerSent:
		return false, ErrHeaderSent
	case renewed:
		return false, ErrRenewed
	}
	return false, nil
}

// commit saves what there is to save before the header leaves. It returns the session's error:
// what failed now, or earlier in the request.
func (s *Session) commit() error {
	s.mu.Lock()
	defer s.unlock()
	if err := s.acquire(); err != nil {
		return s.fail(err)
	}
	defer s.release()
	s.reply.stage = sent // from here on a change that needs another cookie comes too late
	if s.err == nil {
		if _, err := s.do(s.next(atCommit), atCommit); err != nil {
			s.fail(s.about(err))
		}
	} else if s.phase == begun { // the old session ends, although the new one cannot begin
		if err := s.deleteRetired(); err != nil {
			s.say(slog.LevelError, "session: the session to be replaced could not be deleted", err)
		}
	}
	if s.err != nil {
		// The response is an error. What an earlier Save has stored is still the client's, so
		// next may have a cookie to confirm. If that fails, the first error counts.
		_, _ = s.do(s.next(atCommit), atCommit)
	}
	return s.err
}

// miss is called instead of commit where somebody has sent the header without us. What would need
// a cookie has failed.
func (s *Session) miss() {
	s.mu.Lock()
	defer s.unlock()
	s.reply.stage = sent
	if s.reply.look == inTime { // not for Vary
		s.reply.look = tooLate
	}
	switch {
	case s.draft.renewal != nil:
		s.fail(callError{"Renew", ErrHeaderSent})
	case s.phase == begun:
		s.fail(callError{"Regenerate", ErrHeaderSent})
	case s.reply.cookie == issueCookie || s.reply.cookie == oweIssue:
		s.fail(callError{"Save", ErrHeaderSent})
	}
}

// finish saves what has changed after the header left, including what changes while it saves, and
// ends the session with its request.
func (s *Session) finish() error {
	s.mu.Lock()
	defer s.unlock()
	defer func() { s.reply.stage = closed }() // before anybody can make a change that nobody saves
	for range maxFinalSaves {
		if s.err != nil {
			return s.err
		}
		if err := s.acquire(); err != nil {
			return s.fail(err)
		}
		// Goroutines of the handler may change the session while it is saved. Then it is saved
		// again.
		next := s.next(atEnd)
		_, err := s.do(next, atEnd)
		s.release()
		switch {
		case err != nil:
			return s.fail(s.about(err))
		case next == nothing || len(s.draft.changes) == 0:
			return nil
		}
	}
	return s.fail(fmt.Errorf("a goroutine of the request goes on changing the session: %w", ErrClosed))
}

// close ends the session with its request, which saves nothing more.
func (s *Session) close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.reply.stage = closed
}

// maxFinalSaves bounds how long the end of a request waits for goroutines of its handler.
const maxFinalSaves = 16

// create saves a new session, and then deletes those that it replaces.
func (s *Session) create(when occasion) error {
	m := s.manager
	ctx, cancel := m.records.Bound(s.request.Context())
	defer cancel()
	s.needID()
	s.needDates()
	id, draft, n := s.id, s.draft.Copy(), len(s.draft.changes)
	var st wire.Stored
	var err error
	s.outside(func() { id, st, err = m.records.Create(ctx, id, draft) })
	if err != nil {
		return err
	}
	if err := s.deleteRetiredWithin(ctx); err != nil {
		// After a login the old session must be gone, because an attacker may have its cookie.
		// So the login fails, and the user can try again.
		s.outside(func() { m.records.TakeBack(ctx, id.Handle) })
		return err
	}
	s.id, s.stored, s.opened = id, st, opened{standing: wire.Current}
	s.reply.cookie = s.answer(deed{step: create, when: when})
	return s.install(saved, st, n)
}

// replace saves a session that the store has, and reports whether it did. It saves nothing if the
// session has ended meanwhile, or if another request has replaced the cookie and this one changes
// nothing.
func (s *Session) replace(when occasion) (isSaved bool, err error) {
	m := s.manager
	ctx, cancel := m.records.Bound(s.request.Context())
	defer cancel()
	old, renewal, n := s.stored, s.draft.renewal, len(s.draft.changes)
	did := deed{step: replace, when: when, changed: s.isChanged(), used: true}
	if when == saveBefore && s.sharesLifetime(did.changed) && !m.records.IsDue(&old.Record) {
		// The cookie is to live as long as the session, and only the commit can send it.
		// So this save does not move the deadline.
		did.used = false
	}
	r := records.Replacement{
		Old: old, Next: s.draft.Copy(), Changes: s.draft.changes, Secret: s.secret(), Renewal: renewal, KeepUsed: !did.used,
	}
	var st wire.Stored
	s.outside(func() { st, err = m.records.Replace(ctx, r) })
	switch {
	case errors.Is(err, ErrNotFound): // a logout is not an error, and what it ended stays ended
		s.markEnded()
		s.forget()
		return false, nil
	case errors.Is(err, ErrRenewed) && !did.changed: // nothing is lost
		return false, s.overtaken(n)
	case err != nil:
		return false, err
	}
	s.draft.renewal = nil
	did.renewed, did.lifetime = renewal.IsMade(&st.Record), st.MaxAge != old.MaxAge
	if !did.renewed && st.Resets != old.Resets { // another has made the cookie worthless since
		return true, s.overtaken(n)
	}
	if did.renewed { // with package expressjs, under another key too
		s.id = wire.ID{Handle: st.At, Secret: renewal.Next.Secret}
	}
	s.stored = st
	s.reply.cookie = s.answer(did)
	return true, s.install(saved, st, n)
}

// overtaken is called when another request has made this request's cookie worthless. The first n
// changes are saved, or change nothing; the session fails if there are more.
func (s *Session) overtaken(n int) error {
	if len(s.draft.changes) > n {
		return ErrRenewed
	}
	s.begin(stale)
	return nil
}

// confirm replaces the record by an equal one, because an earlier Save has left the cookie to the
// commit. If that fails, nobody knows whether the cookie is still the right one, and it is not
// sent. The failure is an error only if the client does not have the cookie; else a later response
// refreshes it.
func (s *Session) confirm(when occasion) error {
	m := s.manager
	ctx, cancel := m.records.Bound(s.request.Context())
	defer cancel()
	r, n := records.Replacement{Old: s.stored, Next: s.stored.Copy(), Secret: s.secret()}, len(s.draft.changes)
	var st wire.Stored
	var err error
	s.outside(func() { st, err = m.records.Replace(ctx, r) })
	if err == nil {
		s.stored = st
		s.reply.cookie = s.answer(deed{step: confirm, when: when, used: true})
		if s.err != nil {
			return nil
		}
		return s.install(saved, st, n)
	}
	isNew := s.reply.cookie == oweIssue
	s.reply.cookie = s.answer(deed{step: confirm, when: when, failed: true})
	switch {
	case errors.Is(err, ErrNotFound):
		s.markEnded()
	case errors.Is(err, ErrRenewed):
	case isNew:
		return err
	default:
		s.say(slog.LevelWarn, "session: the cookie could not be refreshed", err)
	}
	return nil
}

// touch writes that the session was used, so that its deadline moves. A failure is not an error,
// because the next request tries again.
func (s *Session) touch(when occasion) {
	m := s.manager
	ctx, cancel := m.records.Bound(s.request.Context())
	defer cancel()
	old, n := s.stored, len(s.draft.changes)
	var st wire.Stored
	var err error
	s.outside(func() { st, err = m.records.Touch(ctx, old) })
	switch {
	case err == nil:
		s.stored = st
		s.reply.cookie = s.answer(deed{step: touch, when: when, used: true})
		s.fail(s.install(s.phase, st, n))
	case !errors.Is(err, ErrConflict) && !errors.Is(err, ErrNotFound):
		s.say(slog.LevelWarn, "session: the deadline could not be moved", err)
	}
}

// forget drops the changes of a session that has ended.
func (s *Session) forget() {
	s.drop()
	s.say(slog.LevelInfo, "session: the session ended while the request ran; the request's changes are dropped", nil)
}

// install makes st what the store has and what the handler sees. The changes after the first n were
// made while st was written, and are made again on it.
func (s *Session) install(as phase, st wire.Stored, n int) error {
	s.phase, s.stored = as, st
	s.draft.changes = s.draft.changes[n:]
	next := s.stored.Copy()
	for done := 0; done < len(s.draft.changes); done++ {
		var err error
		c := s.draft.changes[done]
		s.outside(func() { err = c.Make(&next) })
		if err != nil {
			return err
		}
	}
	s.draft.Record = next
	return nil
}

// Retired are the records that the request is to delete, because it ends their session.
type retired struct {
	handles []string
	record  *wire.Record // of the session that Destroy has ended, if it was loaded
	failed  error        // of a deletion that used up its time; a request does not wait for that twice
}

// retire lists the records that have to go so that this session is gone: its own, and that of each
// cookie that verifies. After a Destroy, none is left.
func (s *Session) retire() {
	if s.reply.cookie == removeCookie {
		return
	}
	add := func(handle string) {
		if !slices.Contains(s.retired.handles, handle) {
			s.retired.handles = append(s.retired.handles, handle)
		}
	}
	if s.phase.isStored() {
		add(s.id.Handle)
	}
	for c := range s.brought.all() {
		add(c.id.Handle)
	}
}

// deleteRetired deletes the records that retire has listed.
func (s *Session) deleteRetired() error {
	ctx, cancel := s.manager.records.Bound(s.request.Context())
	defer cancel()
	return s.deleteRetiredWithin(ctx)
}

// deleteRetiredWithin is deleteRetired for a save that has a context already.
func (s *Session) deleteRetiredWithin(ctx context.Context) (err error) {
	if s.retired.failed != nil {
		return s.retired.failed
	}
	for len(s.retired.handles) > 0 && err == nil { // those that fail stay listed, for another attempt
		s.outside(func() { err = s.manager.records.Remove(ctx, s.retired.handles[0]) })
		switch {
		case err == nil:
			s.retired.handles = s.retired.handles[1:]
		case ctx.Err() != nil:
			s.retired.failed = err
		}
	}
	return err
}
