package session

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/seed-4f96e14b/session/internal/wire"
)

// The methods of Session in this file are called with s.mu held, and give it up
// while they talk to the store or run the handler's functions (see outside).
// Those that do have acquired the session, or do so themselves where they say.

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
	if s.cookie.n == 0 {
		s.begin()
		return
	}
	ctx, cancel := s.manager.bound(s.request.Context())
	defer cancel()
	replaced := ""
	for i, id := range s.cookie.verified() {
		proof := wire.DigestOf(id.Secret)
		st, err := s.fetchWithin(ctx, id.Handle)
		switch {
		case err == nil && st.Opens(proof):
			s.phase, s.id, s.proof, s.replaces = found, id, proof, st.Secrets
			s.cookie.old = s.cookie.older[i]
			s.show(st)
			return
		case err == nil:
			replaced = id.Handle
		case errors.Is(err, ErrNotFound):
		case errors.Is(err, ErrUnreadable):
			s.say(slog.LevelWarn, "session: the stored record is unreadable, and left alone; its cookie opens nothing",
				slog.String("session", s.manager.codec.LogHandle(id.Handle)), slog.Any("err", err))
		default:
			s.begin()
			s.fail(err)
			return
		}
	}
	s.begin()
	if replaced != "" {
		s.phase = stale
		s.say(slog.LevelInfo, "session: the cookie has been replaced by a renewal; the request is anonymous",
			slog.String("session", s.manager.codec.LogHandle(replaced)))
	}
}

// readCookie looks at the request's cookies, once.
func (s *Session) readCookie() {
	if !s.cookie.read {
		s.cookie.readFrom(s.request, s.manager)
	}
}

// begin makes the session one that is in no store.
func (s *Session) begin() {
	if s.phase != unloaded { // else there is nothing to clear, and most anonymous requests come here once
		s.id, s.stored, s.now, s.changes = wire.ID{}, stored{}, wire.Record{}, nil
		s.renewed, s.made, s.writes, s.sendCookie = false, false, 0, keepCookie
	}
	s.phase = fresh
}

// needID gives a new session its id: late, because most anonymous requests need none.
func (s *Session) needID() {
	if s.id.Handle == "" {
		s.id = s.manager.codec.NewID()
	}
}

// needDates gives a session that is not stored its beginning and its deadline, as late.
func (s *Session) needDates() {
	if s.phase != found && s.now.Created == 0 {
		now := time.Now()
		s.manager.codec.Begin(&s.now, now)
		s.now.Expires = s.manager.deadline(&s.now, now)
	}
}

// show makes st what the handler sees.
func (s *Session) show(st stored) {
	s.stored, s.changes = st, nil
	s.now = s.stored.Copy()
}

// reload reads the session again.
func (s *Session) reload() error {
	st, err := s.fetch(s.id.Handle)
	switch {
	case err == nil && st.Opens(s.proof):
		s.show(st)
		return nil
	case err == nil || errors.Is(err, ErrNotFound) || errors.Is(err, ErrUnreadable):
		s.phase = ended
		return nil
	}
	return err
}

// drop forgets what the request changed.
func (s *Session) drop() {
	s.changes, s.renewed = nil, false
	s.needDates()
	created, expires := s.now.Created, s.now.Expires
	s.now = wire.Record{}
	s.manager.codec.Begin(&s.now, time.UnixMilli(created))
	s.now.Expires = expires
}

// fetch asks the store for one record.
func (s *Session) fetch(handle string) (st stored, err error) {
	ctx, cancel := s.manager.bound(s.request.Context())
	defer cancel()
	return s.fetchWithin(ctx, handle)
}

func (s *Session) fetchWithin(ctx context.Context, handle string) (st stored, err error) {
	s.outside(func() { st, err = s.manager.fetch(ctx, handle) })
	return st, err
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
	if s.err != nil {
		s.recheck()
		if s.regenerated { // the old session ends although the new one cannot begin
			if err := s.deleteRetired(); err != nil {
				s.say(slog.LevelError, "session: the session to be replaced could not be deleted", slog.Any("err", err))
			}
		}
		return s.err
	}
	if s.manager.options.Rolling {
		s.used = true
	}
	before := s.writes
	s.fail(s.write(false))
	if s.writes == before {
		s.recheck()
	}
	return s.err
}

// recheck drops the cookie that an earlier Save asked for, if another request has
// renewed or ended the session since: the browser may have a newer one. Nobody else
// has the cookie of a session that this request has made.
func (s *Session) recheck() {
	if s.sendCookie == keepCookie || s.made {
		return
	}
	st, err := s.fetch(s.id.Handle)
	if errors.Is(err, ErrUnavailable) && s.sendCookie == issueCookie {
		return // the client has no other
	}
	if err != nil || !st.Opens(s.proof) {
		s.sendCookie = keepCookie
	}
}

// A cookieState says what the response does with the client's cookie.
type cookieState uint8

const (
	keepCookie    cookieState = iota
	refreshCookie             // send it again, for its Max-Age or its signature
	issueCookie               // send it, because the client does not have it
)

// finish saves what changed after the header left.
func (s *Session) finish() error {
	s.mu.Lock()
	defer s.unlock()
	if s.err != nil {
		return s.err
	}
	if err := s.acquire(); err != nil {
		return s.fail(err)
	}
	defer s.release()
	if s.phase == fresh {
		if len(s.changes) > 0 && !s.now.IsEmpty() {
			return s.fail(ErrHeaderSent)
		}
		return nil
	}
	if s.sendsWithMove() { // too late for it: the next request moves both
		s.moved = true
	}
	return s.fail(s.write(false))
}

// close ends the session with its request.
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
		if force || s.regenerated || options.SaveUninitialized || !s.now.IsEmpty() {
			return s.create()
		}
	case found:
		switch changed := s.renewed || !s.now.SameData(&s.stored.Record); {
		case force || changed || options.Resave && s.writes == 0:
			return s.swap(changed)
		case s.used && !s.moved && !options.DisableTouch && (s.manager.due(&s.stored.Record) || s.cookie.old && s.manager.isCapped(&s.stored.Record)):
			s.moved = true
			s.move()
		}
	case stale, ended:
		if len(s.changes) > 0 || s.renewed {
			s.drop()
			s.say(slog.LevelInfo, "session: ended or renewed while the request ran; what it changed is dropped")
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
	s.id, s.proof = made, wire.DigestOf(made.Secret)
	s.replaces = slices.Clone(s.proof[:])
	s.regenerated, s.made, s.sendCookie = false, true, issueCookie
	return s.install(st, n)
}

// swap saves a session that the store has.
func (s *Session) swap(changed bool) error {
	ctx, cancel := s.manager.bound(s.request.Context())
	defer cancel()

	codec := s.manager.codec
	changes, replaces, next, renewed := s.changes, s.replaces, s.next, s.renewed
	renew := func(r *wire.Record) {
		if renewed {
			codec.Renew(r, replaces, next)
		}
	}
	replay := func(r *wire.Record) error {
		renew(r)
		for _, c := range changes {
			if err := c(r); err != nil {
				return err
			}
		}
		return nil
	}
	old, r := s.stored, s.now.Copy()
	renew(&r)

	var st stored
	var err error
	s.outside(func() {
		st, err = s.manager.swap(ctx, old, r, replay)
		if err == nil && renewed {
			next, st, err = s.manager.settle(ctx, next, st)
		}
	})
	switch {
	case errors.Is(err, ErrNotFound):
		s.phase = ended
		s.drop()
		s.say(slog.LevelInfo, "session: ended while the request ran; what it changed ended with it")
		return nil
	case err != nil:
		return err
	}
	switch {
	case renewed:
		s.id, s.proof, s.renewed = next, wire.DigestOf(next.Secret), false
		s.replaces = slices.Concat(replaces, s.proof[:])
		s.sendCookie = issueCookie
	case changed && s.manager.cookieMaxAge(&st.Record) > 0 || st.MaxAge != old.MaxAge:
		s.refreshCookie()
	default:
		s.refreshIfMoved()
	}
	return s.install(st, len(changes))
}

// move moves the deadline of a session that was used and not changed. That it
// cannot is no error: another request moves it, or the next.
func (s *Session) move() {
	ctx, cancel := s.manager.bound(s.request.Context())
	defer cancel()
	old, next, n := s.stored, s.stored.Copy(), len(s.changes)
	var st stored
	var err error
	s.outside(func() { st, err = s.manager.swapOnce(ctx, old, next) })
	if err != nil {
		if !errors.Is(err, ErrConflict) && !errors.Is(err, ErrNotFound) {
			s.say(slog.LevelWarn, "session: the deadline could not be moved", slog.Any("err", err))
		}
		return
	}
	s.refreshIfMoved()
	s.fail(s.install(st, n))
}

// refreshIfMoved sends the cookie again with a deadline that moved.
func (s *Session) refreshIfMoved() {
	if s.sendsWithMove() {
		s.refreshCookie()
	}
}

// sendsWithMove reports whether the cookie goes with a move of the deadline: if it is to
// live as long, or has an old signature.
func (s *Session) sendsWithMove() bool {
	return s.manager.options.Rolling || s.cookie.old
}

func (s *Session) refreshCookie() { s.sendCookie = max(s.sendCookie, refreshCookie) }

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
		s.outside(func() { err = c(&now) })
		if err != nil {
			return err
		}
	}
	s.now = now
	return nil
}

// retire lists the records that have to go for this session to be gone.
func (s *Session) retire() {
	if s.phase == destroyed {
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
	for _, id := range s.cookie.verified() {
		add(id.Handle)
	}
}

// deleteRetired deletes what retire has listed.
func (s *Session) deleteRetired() error {
	ctx, cancel := s.manager.bound(s.request.Context())
	defer cancel()
	return s.deleteRetiredWithin(ctx)
}

func (s *Session) deleteRetiredWithin(ctx context.Context) (err error) {
	for len(s.retired) > 0 && err == nil {
		s.outside(func() { err = s.manager.remove(ctx, s.retired[0]) })
		if err == nil {
			s.retired = s.retired[1:]
		}
	}
	return err
}

// header adds what the response says of the session. It runs after commit.
func (s *Session) header(h http.Header) {
	s.mu.Lock()
	defer s.unlock()
	if s.looked {
		s.addVary(h)
	}
	switch {
	case s.phase == destroyed:
		s.clearCookie(h)
	case s.sendCookie != keepCookie && s.phase == found && s.stored.Opens(s.proof):
		s.sendCookie = keepCookie
		m := s.manager
		cookie, secure := m.codec.SetCookie(s.id, s.cookie.value(s.id), &s.stored.Record, m.cookieLife(&s.stored.Record))
		s.setCookie(h, cookie)
		if m.browserDrops(s.request, secure) {
			s.say(slog.LevelWarn, "session: a browser that sees plain HTTP here drops this secure cookie: use HTTPS or localhost, or set Cookie.Insecure; "+
				"behind a proxy that ends TLS all is well, and X-Forwarded-Proto: https from it stops this warning")
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
	lines, ok := h["Vary"]
	if !ok {
		s.vary[0] = "Cookie"
		h["Vary"] = s.vary[:]
		return
	}
	for _, line := range lines {
		for field := range strings.SplitSeq(line, ",") {
			if field = strings.TrimSpace(field); strings.EqualFold(field, "Cookie") || field == "*" {
				return
			}
		}
	}
	h.Add("Vary", "Cookie")
}
