package expressjs

import (
	"bytes"
	"cmp"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"strings"
	"time"

	"github.com/seed-4f96e14b/session"
	"github.com/seed-4f96e14b/session/internal/retry"
	"github.com/seed-4f96e14b/session/internal/wire"
)

// A renewal moves a session from one key to another, by calls that each concern one key. It
// must not lose a change, and a logout at any time must end the session. It has four steps:
//
//  1. The request that renews saves the session with an announcement of the next id, in the
//     member "renewal". The record still holds under the old id. Other requests of Go
//     that save the session wait now, because each change of the record repeats the steps
//     below. If the renewal does not go on, they stop waiting, and one of them may announce a
//     renewal in its place.
//  2. A pointer from the old key to the next is written, under a key of its own. It says for
//     how long it is good.
//  3. The record is copied to the next key. No cookie has that id yet.
//  4. The old record is replaced by an empty value, if it is still what was copied. At that
//     moment the session moves. If the record has changed, it is copied again. If it
//     is gone, the session has ended, and the copy is deleted.
//
// Express does not take an empty value for a session. Go finds it, and looks for the pointer. A
// request with the old cookie follows one pointer, as long as that is good. A request that had
// loaded the session before follows all pointers, to save its changes. A logout deletes the
// old key first, then looks for the pointer, deletes what that points to, and so on, however
// old the pointers are. So either the logout deletes the copy, or step 4 fails.
//
// Two renewals at once have a next id each, and one of them gets through step 4. The other
// deletes its copy, which no other request writes or knows. The pointer leads to the id of the
// renewal that moved the session. This is so because a renewal reads the pointer before it reads
// the record with its own announcement, changes the pointer only from what it has read, and
// writes it after each announcement.
//
// A renewal without grace counts twice in Resets. The announcement counts first, so that a
// request which had loaded the session before cannot take its place. The copy counts again, so
// that a request which loaded the session between the two saves nothing after the move.

// pointerSuffix makes the key of a pointer out of an id.
const pointerSuffix = ":renewed"

// A pointer says to which id a session has moved. To Express it is a session without values,
// because Express's store.all() reads every key.
type pointer struct {
	Cookie  json.RawMessage `json:"cookie"`
	Renewed struct {
		To string `json:"to"`
		By string `json:"by"` // an announcement; each has a name of its own
		worth
	} `json:"_goSession"`
}

// maxRenewals bounds how many pointers are followed.
const maxRenewals = 1000

// IsHandle implements [wire.Cookies]. Every key but that of a pointer can be a session's.
func (c *codec) IsHandle(key string) bool { return !strings.HasSuffix(key, pointerSuffix) }

// Load implements [wire.Places]. It follows one renewal of an old id, as long as its grace lasts.
func (c *codec) Load(ctx context.Context, store wire.Store, sid string) (wire.Stored, error) {
	st, err := c.load(ctx, store, sid)
	if err != nil || len(st.Data) > 0 {
		return st, err
	}
	p, err := c.follow(ctx, store, sid)
	if err != nil {
		return wire.Stored{}, err
	}
	now := time.Now()
	until := p.Renewed.until()
	switch {
	case !now.Before(until.Add(wire.Overlap)):
		return wire.Stored{}, session.ErrNotFound
	case p.Renewed.Grace <= 0:
		return wire.Stored{}, wire.ErrReplaced
	}
	st, err = c.load(ctx, store, p.Renewed.To)
	switch {
	case err != nil:
		return wire.Stored{}, err
	case len(st.Data) > 0:
		st.Replaced = wire.NewReplacedSecrets(wire.ReplacedSecret{Digest: wire.DigestOf(sid), Until: until.UnixMilli(), Opens: true})
		return st, nil
	}
	again, err := c.follow(ctx, store, st.At)
	if err != nil {
		return wire.Stored{}, err
	}
	if end := again.Renewed.at(); end.Before(until) && now.Before(end.Add(wire.Overlap)) {
		return wire.Stored{}, wire.ErrReplaced
	}
	return wire.Stored{}, session.ErrNotFound
}

// Follow implements [wire.Places]. It follows all renewals since that time.
func (c *codec) Follow(ctx context.Context, store wire.Store, at string, since time.Time) (wire.Stored, error) {
	for range maxRenewals {
		st, err := c.load(ctx, store, at)
		if err != nil || len(st.Data) > 0 {
			return st, err
		}
		p, err := c.follow(ctx, store, at)
		switch {
		case err != nil:
			return wire.Stored{}, err
		case p.Renewed.at().Before(since):
			return wire.Stored{}, session.ErrNotFound
		}
		at = p.Renewed.To
	}
	return wire.Stored{}, errTooManyRenewals
}

var errTooManyRenewals = fmt.Errorf("a session that was renewed more than %d times while its first cookie was in use", maxRenewals)

// load reads what is under the key. If the session has moved, that is empty data, and the record
// is empty too.
func (c *codec) load(ctx context.Context, store wire.Store, at string) (st wire.Stored, err error) {
	st.At = at
	if st.Data, err = store.Load(ctx, at); err == nil && len(st.Data) > 0 {
		st.Record, err = c.Decode(at, st.Data)
		st.Moving = renewalOf(&st.Record).isUnderWay()
	}
	return st, err
}

// follow returns the pointer of an id. The error is session.ErrNotFound if there is none.
func (c *codec) follow(ctx context.Context, store wire.Store, sid string) (p pointer, err error) {
	data, err := store.Load(ctx, sid+pointerSuffix)
	if err == nil && (json.Unmarshal(data, &p) != nil || p.Renewed.To == "") {
		err = fmt.Errorf("%w: not a pointer", session.ErrUnreadable)
	}
	return p, err
}

// Delete implements [wire.Places]. It deletes along all pointers, however old.
func (c *codec) Delete(ctx context.Context, store wire.Store, sid string) error {
	var pointers []string
	for {
		if err := store.Delete(ctx, sid); err != nil {
			return err
		}
		next, err := c.follow(ctx, store, sid)
		if err != nil && !errors.Is(err, session.ErrNotFound) && !errors.Is(err, session.ErrUnreadable) {
			return err
		}
		if err != nil {
			break
		}
		if pointers, sid = append(pointers, sid+pointerSuffix), next.Renewed.To; len(pointers) == maxRenewals {
			return errTooManyRenewals
		}
	}
	for _, key := range pointers { // last, so that a Delete which failed can be made again
		if err := store.Delete(ctx, key); err != nil {
			return err
		}
	}
	return nil
}

// A worth says when an id was renewed, and for how long after that it opens the session.
// Both are in milliseconds.
type worth struct {
	At    int64 `json:"at"`
	Grace int64 `json:"grace"`
}

func (w *worth) at() time.Time { return time.UnixMilli(w.At) }

// until returns when the id becomes worthless.
func (w *worth) until() time.Time { return time.UnixMilli(w.At + w.Grace) }

// A renewal in a record announces that the session is about to move to another id. Express may copy
// the member into another session, as passport's keepSessionInfo does with all members. There it
// has no effect, because only the request that announced a renewal goes on with it.
type renewal struct {
	To string `json:"to"`
	worth
}

// patience is how long others wait for an announced renewal. Most need a few milliseconds, and the
// process that announced it may have died.
const patience = 250 * time.Millisecond

// isUnderWay reports whether it is worth waiting for the renewal, which may be nil. A time that
// is far ahead comes from another clock, and says nothing.
func (r *renewal) isUnderWay() bool {
	return r != nil && time.Since(r.at()).Abs() < patience
}

// renewalOf returns what a record announces, or nil.
func renewalOf(r *wire.Record) *renewal {
	if f, ok := r.Foreign.(*foreign); ok {
		return f.renewal
	}
	return nil
}

// Renew implements [wire.Places]. It announces the renewal; Settle makes it.
func (c *codec) Renew(r *wire.Record, at string, next wire.ID, now time.Time, grace time.Duration) bool {
	r.Origin = cmp.Or(r.Origin, at)
	if grace == 0 {
		r.Resets++
	}
	c.announce(r, &renewal{next.Handle, worth{At: now.UnixMilli(), Grace: grace.Milliseconds()}})
	return true
}

// announce makes next what the record announces. Nil removes an announcement.
func (c *codec) announce(r *wire.Record, next *renewal) {
	f := foreign{cookie: c.fresh}
	if old, ok := r.Foreign.(*foreign); ok {
		f = *old
	}
	f.renewal = next
	r.Foreign = &f
}

// Settle implements [wire.Places]. It makes the steps from the second on. After a call that fails,
// it looks once whether that call was made.
func (c *codec) Settle(ctx context.Context, store wire.Store, next wire.ID, st wire.Stored, save wire.Save, ttl func(*wire.Record) time.Duration) (wire.Stored, error) {
	own := renewalOf(&st.Record)
	if own == nil || own.To != next.Handle { // another renewal has taken its place
		return st, nil
	}
	m := move{
		codec: c, store: store, from: st.At, own: *own, resets: st.Resets, origin: st.Origin,
		by: rand.Text(), record: st.Data, save: save, ttl: ttl,
	}
	err := m.step(ctx)
	for attempt, failures := 1, 0; err != nil; attempt++ {
		if errors.Is(err, session.ErrNotReplicated) { // what a look would find is not yet kept
			return wire.Stored{}, err
		}
		if !errors.Is(err, session.ErrConflict) {
			if failures++; failures > 1 {
				return wire.Stored{}, err
			}
		}
		if err := retry.Pause(ctx, attempt); err != nil {
			return wire.Stored{}, err
		}
		err = m.look(ctx)
		switch {
		case errors.Is(err, session.ErrNotFound):
			return wire.Stored{}, err
		case errors.Is(err, errOvertaken):
			return m.giveUp(ctx)
		case err == nil && len(m.record) == 0:
			return m.end(ctx)
		case err == nil:
			err = m.step(ctx)
		}
	}
	st = wire.Stored{At: m.own.To, Data: m.copied}
	st.Record, err = c.Decode(st.At, st.Data)
	return st, err
}

// A move is what Settle knows of the store, in the order in which it looks.
type move struct {
	codec   *codec
	store   wire.Store
	from    string
	own     renewal // what is to be announced
	resets  uint64  // of the record that announced it first
	origin  string  // of that record
	by      string  // the announcement that is to stand in the record
	pointer []byte  // from the one to the other; nil if there is none
	copied  []byte  // under own.To; nil if there is nothing
	record  []byte  // under from; empty if the session has moved
	save    wire.Save
	ttl     func(*wire.Record) time.Duration
}

// errOvertaken is the error of a renewal whose place another has taken.
var errOvertaken = errors.New("another renewal was faster")

// step makes the steps from the second on, based on what it knows. The error is
// session.ErrConflict if that is out of date.
func (m *move) step(ctx context.Context) error {
	p := pointer{Cookie: json.RawMessage(`{"originalMaxAge":null,"expires":null,"httpOnly":true,"path":"/"}`)}
	p.Renewed.To, p.Renewed.By, p.Renewed.worth = m.own.To, m.by, m.own.worth
	r, err := m.codec.Decode(m.from, m.record)
	if err != nil {
		return err
	}
	ttl := m.ttl(&r)
	trace := ttl + min(traceTTL, math.MaxInt64-ttl)
	if err := m.put(ctx, m.from+pointerSuffix, m.pointer, encode(p), trace); err != nil {
		return err
	}
	m.codec.announce(&r, nil)
	if m.own.Grace == 0 {
		r.Resets++
	}
	copied := m.codec.Encode(&r)
	if err := m.put(ctx, m.own.To, m.copied, copied, ttl); err != nil {
		return err
	}
	m.copied = copied
	return m.store.CompareAndSwap(ctx, m.from, m.record, nil, trace)
}

// traceTTL is how much longer the pointer stays than a session that is not used again, for a slow
// request with the old cookie.
const traceTTL = 24 * time.Hour

// put makes data what the store has under key, if that is old now.
func (m *move) put(ctx context.Context, key string, old, data []byte, ttl time.Duration) error {
	switch {
	case old == nil:
		return m.store.Create(ctx, key, data, ttl)
	case bytes.Equal(old, data):
		return nil
	}
	return m.store.CompareAndSwap(ctx, key, old, data, ttl)
}

// look reads the keys again. If Express has saved over the announcement, or the announcement of a
// renewal that does not go on has taken its place, look announces the renewal again. The error is
// session.ErrNotFound if the session has ended; then nothing of it is left.
func (m *move) look(ctx context.Context) (err error) {
	if m.pointer, err = m.load(ctx, m.from+pointerSuffix); err != nil {
		return err
	}
	if m.copied, err = m.load(ctx, m.own.To); err != nil {
		return err
	}
	m.record, err = m.store.Load(ctx, m.from)
	switch {
	case errors.Is(err, session.ErrNotFound):
		if err := errors.Join(m.codec.Delete(ctx, m.store, m.from), m.store.Delete(ctx, m.own.To)); err != nil {
			return fmt.Errorf("delete what is left of an ended session: %v", err)
		}
		return session.ErrNotFound
	case err != nil || len(m.record) == 0:
		return err
	}
	r, err := m.codec.Decode(m.from, m.record)
	if err != nil {
		return err
	}
	switch announced := renewalOf(&r); {
	case announced != nil && announced.To == m.own.To:
		return nil
	case r.Resets > m.resets || announced.isUnderWay():
		return errOvertaken
	}
	now := time.Now()
	r.Resets, r.Origin = m.resets, m.origin
	m.own.At, m.by = now.UnixMilli(), rand.Text()
	m.codec.announce(&r, &m.own)
	r.Stamp(m.save)
	if err := m.store.CompareAndSwap(ctx, m.from, m.record, m.codec.Encode(&r), m.ttl(&r)); err != nil {
		return err
	}
	return session.ErrConflict // with what was read before the announcement
}

// load is the store's Load, but returns nil if nothing is there.
func (m *move) load(ctx context.Context, key string) ([]byte, error) {
	data, err := m.store.Load(ctx, key)
	if errors.Is(err, session.ErrNotFound) {
		return nil, nil
	}
	return data, err
}

// end finds out where a session is that has moved, by this renewal or by another.
func (m *move) end(ctx context.Context) (wire.Stored, error) {
	p, err := m.codec.follow(ctx, m.store, m.from)
	if err != nil && !errors.Is(err, session.ErrNotFound) {
		return wire.Stored{}, err
	}
	if err != nil || p.Renewed.To != m.own.To { // nowhere, since it has ended; or by another
		return m.giveUp(ctx)
	}
	return m.codec.Follow(ctx, m.store, m.from, time.Time{})
}

// giveUp deletes the copy, and finds out where the session is.
func (m *move) giveUp(ctx context.Context) (wire.Stored, error) {
	if err := m.store.Delete(ctx, m.own.To); err != nil {
		return wire.Stored{}, err
	}
	return m.codec.Follow(ctx, m.store, m.from, time.Time{})
}
