package expressjs

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"strings"
	"time"

	"github.com/seed-4f96e14b/session"
	"github.com/seed-4f96e14b/session/internal/wire"
)

// A renewal moves a session from one key to another, with calls that each concern one
// key. It must lose no change, survive no logout, and end whoever goes on with it:
//
//  1. The save of the request that renews announces the next id in the record, as
//     "renewal". The record is still good under the old id. If another request renews
//     the same session, its own announcement takes the place of this one, which
//     stops the renewal that announced before. That one waits for the other, and
//     announces again only if that does not get on.
//  2. A pointer from the old key to the next is made, under a key of its own.
//  3. The record is copied to the next key, which nobody has a cookie of yet.
//  4. The old record is replaced by nothing at all, if it is still what was copied.
//     That is the moment at which the session moves. If the record has changed, it is
//     copied again; if it is gone, the session has ended, and the copy is deleted.
//
// Express takes an empty value for no session, and Go looks for the pointer there. A
// logout deletes the old key before it looks for the pointer, and then what that points
// to: either the copy is deleted, or the move fails at step 4.
//
// Two renewals at once each have a next id, and one of them comes to step 4. The other
// deletes its copy, which nobody else writes or knows. The pointer leads to the one that
// moved: who changes it has read it before the record in which its own announcement
// stands, changes only what it has read, and writes it after each announcement.

// pointerSuffix makes the key of a pointer out of an id.
const pointerSuffix = ":renewed"

// A pointer is a session to Express too, if one without values, because its
// store.all() reads every key.
type pointer struct {
	Cookie  json.RawMessage `json:"cookie"`
	Renewed struct {
		To string `json:"to"`
		By string `json:"by"` // an announcement; each has a name of its own
	} `json:"_goSession"`
}

// maxRenewals bounds how many pointers are followed.
const maxRenewals = 1000

func (c *codec) IsHandle(key string) bool { return !strings.HasSuffix(key, pointerSuffix) }

// Load follows the renewals of an old id.
func (c *codec) Load(ctx context.Context, store wire.Store, sid string) (at string, data []byte, err error) {
	for range maxRenewals {
		data, err := store.Load(ctx, sid)
		if err != nil || len(data) > 0 {
			return sid, data, err
		}
		next, err := c.follow(ctx, store, sid)
		if err != nil {
			return sid, nil, err
		}
		sid = next
	}
	return sid, nil, session.ErrNotFound
}

// follow returns what the pointer of an id points to, or session.ErrNotFound.
func (c *codec) follow(ctx context.Context, store wire.Store, sid string) (string, error) {
	data, err := store.Load(ctx, sid+pointerSuffix)
	if err != nil {
		return "", err
	}
	var p pointer
	if json.Unmarshal(data, &p) != nil || p.Renewed.To == "" {
		return "", fmt.Errorf("%w: not a pointer", session.ErrUnreadable)
	}
	return p.Renewed.To, nil
}

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
		if pointers, sid = append(pointers, sid+pointerSuffix), next; len(pointers) == maxRenewals {
			return fmt.Errorf("a session that was renewed more than %d times while a cookie of its beginning was in use", maxRenewals)
		}
	}
	for _, key := range pointers { // last, so that a Delete which failed can be made again
		if err := store.Delete(ctx, key); err != nil {
			return err
		}
	}
	return nil
}

// Renew leaves alone a session that another request has moved meanwhile.
func (c *codec) Renew(r *wire.Record, replaced wire.Digests, next wire.ID) {
	if replaced.Has(wire.Digest(r.Secrets)) {
		c.announce(r, next.Handle)
	}
}

func (c *codec) announce(r *wire.Record, next string) {
	f := foreign{cookie: c.fresh}
	if old, ok := r.Foreign.(*foreign); ok {
		f = *old
	}
	f.renewal = &renewal{From: base64.RawStdEncoding.EncodeToString(r.Secrets), To: next}
	r.Foreign = &f
}

// Settle makes the steps from the second on. If a call fails, it looks once what has
// become of it.
func (c *codec) Settle(ctx context.Context, store wire.Store, s wire.Settled, ttl func(*wire.Record) time.Duration) (wire.Settled, error) {
	m := move{codec: c, store: store, from: s.At, to: s.ID.Handle, by: rand.Text(), record: s.Data, ttl: ttl}
	var err error
	switch m.announced(s.Data) {
	case "": // by Renew, because another request had moved the session to where it is
		return wire.Settled{ID: idOf(s.At), At: s.At, Data: s.Data}, nil
	case m.to:
		err = m.step(ctx)
	default: // another renewal has taken the place of this one
		err = session.ErrConflict
	}
	for attempt, failures := 1, 0; err != nil; attempt++ {
		if errors.Is(err, session.ErrNotReplicated) { // what a look would find is not yet kept
			return wire.Settled{}, err
		}
		if !errors.Is(err, session.ErrConflict) {
			if failures++; failures > 1 {
				return wire.Settled{}, err
			}
		}
		if err := wire.Pause(ctx, attempt); err != nil {
			return wire.Settled{}, err
		}
		err = m.look(ctx)
		switch {
		case errors.Is(err, session.ErrNotFound):
			return wire.Settled{}, err
		case err == nil && len(m.record) == 0:
			return m.end(ctx)
		case err == nil:
			err = m.step(ctx)
		}
	}
	return wire.Settled{ID: idOf(m.to), At: m.to, Data: m.record}, nil
}

// A move is what Settle knows of the store, in the order in which it has looked.
type move struct {
	codec    *codec
	store    wire.Store
	from, to string
	by       string // the announcement that is to stand in the record
	pointer  []byte // from the one to the other; nil if there is none
	copied   []byte // under to; nil if there is nothing
	record   []byte // under from; empty if the session has moved
	ttl      func(*wire.Record) time.Duration

	other string // another renewal that the record announces
	waits int    // how often it was found there
}

// patience is how often a renewal finds another under way, before it takes its place.
// A renewal needs fewer calls than that many looks do.
const patience = 8

// announced returns the next id that a record announces, or "".
func (m *move) announced(record []byte) string {
	r, err := m.codec.Decode(m.from, record)
	if f, ok := r.Foreign.(*foreign); ok && err == nil && f.renewal != nil {
		return f.renewal.To
	}
	return ""
}

// step makes the steps from the second on, on what it knows. The error is
// session.ErrConflict where that was out of date.
func (m *move) step(ctx context.Context) error {
	p := pointer{Cookie: json.RawMessage(`{"originalMaxAge":null,"expires":null,"httpOnly":true,"path":"/"}`)}
	p.Renewed.To, p.Renewed.By = m.to, m.by
	r, err := m.codec.Decode(m.from, m.record)
	if err != nil {
		return err
	}
	ttl := m.ttl(&r)
	trace := ttl + min(traceTTL, math.MaxInt64-ttl)
	if err := m.put(ctx, m.from+pointerSuffix, m.pointer, encode(p), trace); err != nil {
		return err
	}
	if err := m.put(ctx, m.to, m.copied, m.record, ttl); err != nil {
		return err
	}
	return m.store.CompareAndSwap(ctx, m.from, m.record, nil, trace)
}

// traceTTL is how much longer than a session that is not used again the way to it
// stays, for a request with the old cookie that takes its time.
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

// look reads anew what is there, and announces the renewal again where another's
// announcement, or what Express saved, has taken its place. The error is
// session.ErrNotFound if the session has ended; then nothing of it is left.
func (m *move) look(ctx context.Context) (err error) {
	if m.pointer, err = m.load(ctx, m.from+pointerSuffix); err != nil {
		return err
	}
	if m.copied, err = m.load(ctx, m.to); err != nil {
		return err
	}
	m.record, err = m.store.Load(ctx, m.from)
	switch {
	case errors.Is(err, session.ErrNotFound):
		if err := errors.Join(m.codec.Delete(ctx, m.store, m.from), m.store.Delete(ctx, m.to)); err != nil {
			return fmt.Errorf("delete what is left of an ended session: %v", err)
		}
		return session.ErrNotFound
	case err != nil || len(m.record) == 0 || m.announced(m.record) == m.to:
		return err
	}
	if other := m.announced(m.record); other != "" {
		if other != m.other {
			m.other, m.waits = other, 0
		}
		if m.waits++; m.waits < patience {
			return session.ErrConflict
		}
	}
	r, err := m.codec.Decode(m.from, m.record)
	if err != nil {
		return err
	}
	m.codec.announce(&r, m.to)
	r.Stamp()
	m.by = rand.Text()
	if err := m.store.CompareAndSwap(ctx, m.from, m.record, m.codec.Encode(&r), m.ttl(&r)); err != nil {
		return err
	}
	return session.ErrConflict // with what was read before the announcement
}

// load is the store's Load, and nil for what is not there.
func (m *move) load(ctx context.Context, key string) ([]byte, error) {
	data, err := m.store.Load(ctx, key)
	if errors.Is(err, session.ErrNotFound) {
		return nil, nil
	}
	return data, err
}

// end finds out where a session is that has moved, by this renewal or by another.
func (m *move) end(ctx context.Context) (wire.Settled, error) {
	moved, err := m.codec.follow(ctx, m.store, m.from)
	if err != nil && !errors.Is(err, session.ErrNotFound) {
		return wire.Settled{}, err
	}
	if moved != m.to { // by another, or nowhere: it has ended since
		if err := m.store.Delete(ctx, m.to); err != nil {
			return wire.Settled{}, err
		}
	}
	if err != nil {
		return wire.Settled{}, err
	}
	at, data, err := m.codec.Load(ctx, m.store, moved)
	return wire.Settled{ID: idOf(moved), At: at, Data: data}, err
}
