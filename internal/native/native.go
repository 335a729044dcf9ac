// Package native is this library's own way to write sessions.
//
// A cookie holds a handle and a secret, signed. The handle is the store's key and may be
// known to anybody. The record holds digests of the secrets that open it, so a copy of the
// store opens nothing, and a renewal is an ordinary save under the same key.
package native

import (
	"context"
	"math"
	"time"

	"github.com/seed-4f96e14b/session/internal/wire"
)

// Format is this library's own format.
type Format struct{}

// IsForeign is false: the options are for this library alone.
func (Format) IsForeign() bool { return false }

// NewCodec returns what a Manager with these settings writes and reads with.
func (Format) NewCodec(settings wire.Settings) wire.Codec {
	return &codec{cookies: newCookies(settings)}
}

// A codec implements [wire.Codec].
type codec struct{ cookies }

// Begin implements [wire.Records].
func (c *codec) Begin(r *wire.Record, now time.Time) { r.Created = now.UnixMilli() }

// CheckKey implements [wire.Records]. Any text can name a value.
func (c *codec) CheckKey(string) error { return nil }

// Lifetime implements [wire.Records]. The record has no say.
func (c *codec) Lifetime(_ *wire.Record, otherwise time.Duration) time.Duration { return otherwise }

// IsOver implements [wire.Records].
func (c *codec) IsOver(deadline int64, now time.Time) bool { return deadline <= now.UnixMilli() }

// housekeeping is how much longer than the session the store keeps the record, so that the
// library alone decides when a session ends.
const housekeeping = time.Minute

// TTL implements [wire.Records].
func (c *codec) TTL(left time.Duration) time.Duration {
	return min(left, math.MaxInt64-housekeeping) + housekeeping
}

// Load implements [wire.Places]. A session stays under its handle, also when it is renewed.
func (c *codec) Load(ctx context.Context, store wire.Store, handle string) (st wire.Stored, err error) {
	st.At = handle
	if st.Data, err = store.Load(ctx, handle); err == nil {
		st.Record, err = c.Decode(handle, st.Data)
	}
	return st, err
}

// Follow implements [wire.Places]. It is Load: a renewal moves nothing.
func (c *codec) Follow(ctx context.Context, store wire.Store, at string, _ time.Time) (wire.Stored, error) {
	return c.Load(ctx, store, at)
}

// Delete implements [wire.Places].
func (c *codec) Delete(ctx context.Context, store wire.Store, handle string) error {
	return store.Delete(ctx, handle)
}

// Renew implements [wire.Places].
func (c *codec) Renew(r *wire.Record, _ string, next wire.ID, now time.Time, grace time.Duration) bool {
	return r.Renew(wire.DigestOf(next.Secret), now, grace)
}

// Settle implements [wire.Places]. Nothing is left to do: the save of the new secret was all.
func (c *codec) Settle(_ context.Context, _ wire.Store, _ wire.ID, st wire.Stored, _ wire.Save, _ func(*wire.Record) time.Duration) (wire.Stored, error) {
	return st, nil
}
