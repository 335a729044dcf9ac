package expressjs

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"github.com/seed-4f96e14b/session"
	"github.com/seed-4f96e14b/session/internal/wire"
)

// A renewal moves a session from one key to another, with calls that each concern one
// key. It must lose no change, survive no logout, and end whoever goes on with it:
//
//  1. The save of the request that renews puts the next id into the record, as
//     "renewal". The record is still good under the old id. Another request that renews
//     the same session finds that id there, and helps to move the session to it.
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
// The copy never goes back in time: whoever copies has read the copy before the record,
// and replaces only the copy that it has read.

// pointerSuffix makes the key of a pointer out of an id.
const pointerSuffix = ":renewed"

// A pointer is a session to Express too, if one without values, because its
// store.all() reads every key.
type pointer struct {
	Cookie  json.RawMessage `json:"cookie"`
	Renewed struct {
		To string `json:"to"`
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
	for range maxRenewals {
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
		pointers, sid = append(pointers, sid+pointerSuffix), next
	}
	for _, key := range pointers { // last, so that a Delete which failed can be made again
		if err := store.Delete(ctx, key); err != nil {
			return err
		}
	}
	return nil
}

// Renew leaves alone a session that another request has moved meanwhile, and the id of a
// renewal that is under way.
func (c *codec) Renew(r *wire.Record, replaced []wire.Digest, next wire.ID) {
	if slices.ContainsFunc(replaced, r.Opens) {
		c.announce(r, next.Handle)
	}
}

// announce makes a renewal under way, unless one is.
func (c *codec) announce(r *wire.Record, next string) {
	f := foreign{cookie: c.fresh}
	if old, ok := r.Foreign.(*foreign); ok {
		f = *old
	}
	if f.renewal == nil {
		f.renewal = &renewal{From: base64.RawStdEncoding.EncodeToString(r.Secrets[0][:]), To: next}
		r.Foreign = &f
	}
}

// Settle makes the steps from the second on. If a call fails, it looks once what has
// become of it.
func (c *codec) Settle(ctx context.Context, store wire.Store, s wire.Settled, ttl time.Duration) (wire.Settled, error) {
	m := move{codec: c, store: store, from: s.At, record: s.Data, next: s.ID.Handle, ttl: ttl}
	m.to = m.announced(m.record)
	if m.to == "" { // another request has moved it, to where it is
		return wire.Settled{ID: idOf(s.At), At: s.At, Data: s.Data}, nil
	}
	err := error(session.ErrConflict)
	if m.to == m.next { // nobody else knows that key yet
		err = m.step(ctx)
	}
	for attempt, failures := 1, 0; err != nil; attempt++ {
		if !errors.Is(err, session.ErrConflict) {
			if failures++; failures > 1 {
				return wire.Settled{}, err
			}
		}
		if err := pause(ctx, attempt); err != nil {
			return wire.Settled{}, err
		}
		var moved bool
		if moved, err = m.look(ctx); moved {
			at, data, err := c.Load(ctx, store, m.from)
			return wire.Settled{ID: idOf(m.to), At: at, Data: data}, err
		}
		if errors.Is(err, session.ErrNotFound) {
			return wire.Settled{}, err
		}
		if err == nil {
			err = m.step(ctx)
		}
	}
	return wire.Settled{ID: idOf(m.to), At: m.to, Data: m.record}, nil
}

// A move is what Settle knows of the store.
type move struct {
	codec    *codec
	store    wire.Store
	from, to string
	record   []byte // under from
	copied   []byte // under to; nil if there is nothing
	next     string // to, unless another renewal was announced first
	ttl      time.Duration
}

// announced returns the id to which a record is about to move, or "".
func (m *move) announced(record []byte) string {
	r, err := m.codec.Decode(m.from, record)
	if f, ok := r.Foreign.(*foreign); ok && err == nil && f.renewal != nil {
		return f.renewal.To
	}
	return ""
}

// step makes the steps from the second on, on what it knows. An error is
// session.ErrConflict where that was out of date.
func (m *move) step(ctx context.Context) error {
	if err := m.point(ctx); err != nil {
		return err
	}
	var err error
	if m.copied == nil {
		err = m.store.Create(ctx, m.to, m.record, m.ttl)
	} else if !bytes.Equal(m.copied, m.record) {
		err = m.store.CompareAndSwap(ctx, m.to, m.copied, m.record, m.ttl)
	}
	if err != nil {
		return err
	}
	return m.store.CompareAndSwap(ctx, m.from, m.record, nil, m.ttl)
}

// point makes the pointer lead to where the session moves.
func (m *move) point(ctx context.Context) error {
	p := pointer{Cookie: json.RawMessage(`{"originalMaxAge":null,"expires":null,"httpOnly":true,"path":"/"}`)}
	p.Renewed.To = m.to
	key, data := m.from+pointerSuffix, encode(p)
	err := m.store.Create(ctx, key, data, m.ttl)
	if !errors.Is(err, session.ErrConflict) {
		return err
	}
	old, err := m.store.Load(ctx, key)
	if err != nil || bytes.Equal(old, data) {
		return err
	}
	return m.store.CompareAndSwap(ctx, key, old, data, m.ttl)
}

// look reads anew what is there, and reports whether the session has moved. The error is
// session.ErrNotFound if it has ended; then nothing of it is left.
func (m *move) look(ctx context.Context) (moved bool, err error) {
	m.copied, err = m.store.Load(ctx, m.to)
	if err != nil && !errors.Is(err, session.ErrNotFound) {
		return false, err
	}
	m.record, err = m.store.Load(ctx, m.from)
	switch {
	case errors.Is(err, session.ErrNotFound):
		return false, errors.Join(err, m.codec.Delete(ctx, m.store, m.from), m.store.Delete(ctx, m.to))
	case err != nil:
		return false, err
	case len(m.record) == 0:
		return true, nil
	}
	if to := m.announced(m.record); to == m.to {
		return false, nil
	} else if to != "" { // Express has saved over our announcement, and another request made its own
		m.to = to
		return false, session.ErrConflict
	}
	return false, m.announceAgain(ctx)
}

// announceAgain makes the first step on a record that Express has saved over ours.
func (m *move) announceAgain(ctx context.Context) error {
	r, err := m.codec.Decode(m.from, m.record)
	if err != nil {
		return err
	}
	m.codec.announce(&r, m.to)
	record := m.codec.Encode(&r)
	if err := m.store.CompareAndSwap(ctx, m.from, m.record, record, m.ttl); err != nil {
		return err
	}
	m.record = record
	return nil
}

// pause waits a random time, longer with each attempt.
func pause(ctx context.Context, attempt int) error {
	timer := time.NewTimer(rand.N(time.Duration(min(attempt, 16)) * time.Millisecond / 2))
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
