// Package records keeps the sessions of one Manager in its store, each as one record. It
// knows neither HTTP nor options: it gets an id and changes, and returns what the store has.
package records

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/seed-4f96e14b/session/internal/wire"
)

// A Keeper loads, creates, replaces and removes records. It is safe for concurrent use, and
// holds no lock while the store or a function of the app runs.
type Keeper struct {
	Settings
	writer wire.Writer   // the Keeper's name in the records that it saves
	saves  atomic.Uint64 // the number of its last save
	turns  turns
}

// Settings are what a Keeper needs to know. They do not change.
type Settings struct {
	Codec     wire.Codec
	Store     wire.Store
	Lifetimes Lifetimes
	MaxBytes  int           // of the largest record to write
	Timeout   time.Duration // of one load or one save
	InProcess bool          // the store answers at once, and needs no time-out
}

// New returns a Keeper with a random name.
func New(settings Settings) *Keeper {
	k := &Keeper{Settings: settings}
	rand.Read(k.writer[:])
	return k
}

// Bound returns the context for one load or one save. It ends when the time for that is over,
// and not when the client leaves.
func (k *Keeper) Bound(ctx context.Context) (context.Context, context.CancelFunc) {
	if k.InProcess {
		return context.Background(), func() {}
	}
	return context.WithTimeout(context.WithoutCancel(ctx), k.Timeout)
}

// nextSave returns the number of the next save of this Keeper. A save of a session that is in
// the store is made by the goroutine that has the turn.
func (k *Keeper) nextSave() wire.Save {
	return wire.Save{Writer: k.writer, Number: k.saves.Add(1)}
}

// put encodes next with a deadline that counts from now, and has call write it to the key at.
// A record that is too large may be written if its values have not grown since old. The error
// is ErrConflict, ErrTooLarge or ErrUnavailable.
func (k *Keeper) put(now time.Time, at string, next, old *wire.Record, call func(data []byte, ttl time.Duration) error) (wire.Stored, error) {
	next.Kept = k.deadline(next, now)
	data := k.Codec.Encode(next)
	if len(data) > k.MaxBytes && (old == nil || next.Size() > old.Size()) {
		key, size := next.Largest()
		return wire.Stored{}, fmt.Errorf("%w: %d bytes, and MaxBytes is %d; the largest value is that of key %q with %d bytes", wire.ErrTooLarge, len(data), k.MaxBytes, key, size)
	}
	ttl := k.Codec.TTL(time.Duration(next.Kept-now.UnixMilli()) * time.Millisecond)
	switch err := call(data, ttl); {
	case errors.Is(err, wire.ErrConflict):
		return wire.Stored{}, err
	case err != nil:
		return wire.Stored{}, wire.Unavailable("save", err)
	}
	return wire.Stored{At: at, Data: data, Record: *next}, nil
}

// Remove deletes the record that the handle leads to, if there is one.
func (k *Keeper) Remove(ctx context.Context, handle string) error {
	err := k.Codec.Delete(ctx, k.Store, handle)
	if err != nil && !errors.Is(err, wire.ErrNotFound) {
		return wire.Unavailable("delete", err)
	}
	return nil
}

// TakeBack removes a record whose cookie was not sent. If no time is left for that, it happens
// after the request.
func (k *Keeper) TakeBack(ctx context.Context, handle string) {
	if k.Remove(ctx, handle) == nil {
		return
	}
	go func() {
		ctx, cancel := k.Bound(ctx)
		defer cancel()
		_ = k.Remove(ctx, handle) // if this fails too, the time to live ends it
	}()
}
