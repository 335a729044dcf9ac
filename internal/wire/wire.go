// Package wire is the seam between a session and how it is written: its id in a
// cookie, its record in the store, and where in the store that is. This library's own format
// is in package native, and that of Express in package expressjs.
package wire

import (
	"cmp"
	"context"
	"net/http"
	"time"
)

// A Format is a way to write sessions.
type Format interface {
	// IsForeign reports whether the options are those of another program. A Manager then
	// takes secrets that are weak, with a warning, and lifetimes that browsers cut.
	IsForeign() bool

	// NewCodec returns what a Manager with these settings writes and reads with.
	NewCodec(Settings) Codec
}

// Settings are what a Codec needs to know of its Manager.
type Settings struct {
	Secrets  [][]byte      // the first signs, all verify
	Cookie   http.Cookie   // the name, and all attributes that do not depend on the session
	Priority string        // "", "low", "medium" or "high"
	MaxAge   time.Duration // of the cookie of a session that has no other; 0 until the browser closes
}

// A Codec writes and reads the sessions of one Manager. It is safe for concurrent use.
type Codec interface {
	Cookies
	Records
	Places
}

// An ID is what a cookie carries. The handle is the store's key of a session that was never
// renewed. The secret opens the record. A format may use one text for both.
type ID struct {
	Handle, Secret string
}

// Cookies writes and reads cookies.
type Cookies interface {
	// NewID returns a random id that was never used.
	NewID() ID

	// Verify returns the id in a cookie's value, and reports whether its signature is good. Old
	// says that the signature is by one of the Secrets that is not the first. The value has only
	// bytes that net/http accepts in a cookie. Quoted says that it stood between double quotes.
	Verify(value string, quoted bool) (id ID, old, ok bool)

	// SetCookie returns the Set-Cookie line for the id of a session, and reports whether it has
	// the Secure attribute. The browser is to keep the cookie for maxAge; 0 is until it closes.
	// If value is not empty, it is a cookie value that holds the id with the newest signature,
	// and may be sent again.
	SetCookie(id ID, value string, r *Record, maxAge time.Duration) (line string, secure bool)

	// DeleteCookie returns the Set-Cookie line that makes a browser delete the cookie of a
	// session. The record is nil if nobody has loaded it.
	DeleteCookie(r *Record) string

	// IsHandle reports whether a key of the store can be that of a session.
	IsHandle(key string) bool

	// LogHandle returns what a log line calls the session.
	LogHandle(handle string) string
}

// Records writes and reads records.
type Records interface {
	// Begin gives an empty record what a session has when it begins.
	Begin(r *Record, now time.Time)

	// CheckKey returns an error if no value can have this key.
	CheckKey(key string) error

	// Encode returns the bytes of a record.
	Encode(*Record) []byte

	// Decode reads the bytes of a record that was found under the key at. Encode or another
	// program has written them. The values may share memory with data, which must not change
	// any more. The error is ErrNotFound, ErrUnreadable or ErrNewerFormat.
	Decode(at string, data []byte) (Record, error)

	// Lifetime returns for how long a session lives without being used. The Manager's options
	// and the record say otherwise, and a format may know better.
	Lifetime(r *Record, otherwise time.Duration) time.Duration

	// IsOver reports whether a session has ended whose deadline, in Unix milliseconds, is this,
	// although its record is still in the store.
	IsOver(deadline int64, now time.Time) bool

	// TTL returns for how long the store is to keep a record when its deadline is left away.
	TTL(left time.Duration) time.Duration
}

// Places knows under which key of the store a session is, and makes the calls that depend on it.
type Places interface {
	// Load returns the session that the handle of a cookie leads to. The error is
	// ErrNotFound, ErrReplaced, one of Decode's, or the store's.
	Load(ctx context.Context, store Store, handle string) (Stored, error)

	// Follow returns the session that was under the key at. It follows the renewals that have
	// moved the session since that time.
	Follow(ctx context.Context, store Store, at string, since time.Time) (Stored, error)

	// Delete removes the session that had the handle, wherever it is now.
	Delete(ctx context.Context, store Store, handle string) error

	// Renew changes r, the record under the key at, so that the secret of next opens it, and the
	// secret before it for the time grace more. It reports whether it did; see [Record.Renew].
	// Settle does the rest, once the record is stored.
	Renew(r *Record, at string, next ID, now time.Time, grace time.Duration) bool

	// Settle ends a renewal. The record that Renew has changed was stored as st by that save.
	// Settle returns the session as it is then. The client gets next if the session now has its
	// secret, and no cookie if another renewal was faster. ttl returns for how long the store is
	// to keep a record that is used now. The error is ErrNotFound if the session has ended.
	Settle(ctx context.Context, store Store, next ID, st Stored, save Save, ttl func(*Record) time.Duration) (Stored, error)
}

// Stored is a record as the store has it.
type Stored struct {
	At   string // the store's key
	Data []byte
	Record

	// Moving says that a renewal is about to move the session to another key. A save waits
	// until it has, because a change of the record would make the renewal begin again.
	Moving bool
}

// Name returns a name of the session that stays the same when a renewal moves it.
func (s *Stored) Name() string { return cmp.Or(s.Origin, s.At) }

// A Store has the methods of session.Store.
type Store interface {
	Load(ctx context.Context, key string) ([]byte, error)
	Create(ctx context.Context, key string, data []byte, ttl time.Duration) error
	CompareAndSwap(ctx context.Context, key string, old, data []byte, ttl time.Duration) error
	Delete(ctx context.Context, key string) error
}
