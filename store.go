package session

import (
	"context"
	"errors"
	"iter"
	"math"
	"time"

	"github.com/seed-4f96e14b/session/internal/wire"
)

// A Store keeps encoded sessions by key. [MemoryStore] and [RedisStore] are
// stores; package storetest in this module checks any other.
//
// A [Manager] builds its promises on these rules, which an implementation has to keep:
//
//   - Only Create brings a record into being. CompareAndSwap never does,
//     so a session that has ended stays ended.
//   - Each method is atomic: of two calls at once, one is first.
//   - A record whose ttl has run out is not there, for any method.
//   - ErrNotFound and ErrConflict say what the store knows. Whatever it does not
//     know (no answer, a refusal, a time-out) is another error.
//   - The bytes handed in are not kept, and those handed out are the caller's
//     own: copy at the border.
//   - A call that gets a cancelled or expired context does nothing.
//   - Keys are compared byte by byte; any string of up to 255 bytes is a key.
//     Data may be empty, and of any bytes.
//   - A ttl that is not positive is an error that changes nothing. A positive one
//     may be rounded up to the store's resolution, a second at most.
//
// All methods are safe for concurrent use.
type Store interface {
	// Load returns the record under key, or an error that is ErrNotFound.
	// Where something is there that no Store wrote, it returns an error that
	// is ErrUnreadable.
	Load(ctx context.Context, key string) ([]byte, error)

	// Create saves a record under a key that is not in use, for the time ttl.
	// If the key is in use it changes nothing and returns ErrConflict.
	Create(ctx context.Context, key string, data []byte, ttl time.Duration) error

	// CompareAndSwap replaces the record under key by data, for the time ttl,
	// if it is old. If it is not, or is gone, CompareAndSwap changes nothing
	// and returns ErrConflict.
	CompareAndSwap(ctx context.Context, key string, old, data []byte, ttl time.Duration) error

	// Delete removes the record under key. It is no error if there is none.
	Delete(ctx context.Context, key string) error
}

// A KeyLister is a [Store] that can list its records, as express-session's
// store.all does. [Manager.All] and [Manager.Len] use it.
type KeyLister interface {
	Store

	// Keys goes through the keys of all live records, in no order. A record that
	// is created or deleted meanwhile may be among them or not. No key comes
	// twice. An error is the last pair that the sequence yields.
	Keys(ctx context.Context) iter.Seq2[string, error]
}

// A Clearer is a [Store] that can delete all its records, as express-session's
// store.clear does. [Manager.Clear] uses it.
type Clearer interface {
	Store

	// Clear deletes all records that are there when it is called.
	Clear(ctx context.Context) error
}

// A Validator is a [Store] that can check its own configuration. [New] asks it, and fails with
// its error.
type Validator interface {
	Store

	// Validate returns nil if the store can be used, and otherwise an error
	// that names the remedy. It does not ask a server.
	Validate() error
}

var (
	// ErrNotFound is returned by [Store.Load] if no live record has the key,
	// and by [Session.Save] and [Session.Reload] if the session has ended.
	ErrNotFound = wire.ErrNotFound

	// ErrConflict is returned by [Store.Create] for a key in use, and by
	// [Store.CompareAndSwap] for a record that is no longer the expected one.
	ErrConflict = wire.ErrConflict

	// ErrUnreadable is returned by [Store.Load] if something is under the key
	// that is not a record, such as a Redis key of another type. The session is then
	// anonymous, and what is there is left alone.
	ErrUnreadable = wire.ErrUnreadable

	// ErrFull is returned by [MemoryStore.Create] when the store holds MaxEntries
	// sessions that are all alive.
	ErrFull = errors.New("session: store is full")

	// ErrNotReplicated is returned by a [RedisStore] with WaitReplicas for a write
	// that too few replicas have acknowledged. The primary may have the write, but
	// the request fails: what it would be told may be lost.
	ErrNotReplicated = wire.ErrNotReplicated

	// errTTL is the error of both stores for a ttl that is not positive.
	errTTL = errors.New("session: ttl is not positive")
)

// wholeMilliseconds rounds a positive ttl up to the resolution of both stores.
func wholeMilliseconds(ttl time.Duration) time.Duration {
	if rest := ttl % time.Millisecond; rest > 0 && ttl <= math.MaxInt64-time.Millisecond {
		ttl += time.Millisecond - rest
	}
	return ttl.Truncate(time.Millisecond)
}
