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

// Settings are what a Codec has to know of its Manager.
type Settings struct {
	Secrets  [][]byte      // the first signs, all verify
	Cookie   http.Cookie   // the name, and all attributes that do not depend on the session
	Priority string        // "", "low", "medium" or "high"
	MaxAge   time.Duration // of the cookie of a session that has no other; 0 until the browser closes
}

// A Codec is safe for concurrent use.
type Codec interface {
	Cookies
	Records
	Places
}

// An ID is what a cookie carries: the handle, which is the store's key of a session
// that was never renewed, and the secret, which opens the record. A format may use
// one text for both.
type ID struct {
	Handle, Secret string
}

// Cookies writes and reads cookies.
type Cookies interface {
	// NewID returns an id that nobody else has.
	NewID() ID

	// Verify returns the id in a cookie's value if it carries a good signature, and
	// reports whether that is by an older secret than the one that signs now. The value
	// has only bytes that net/http takes in a cookie. Quoted says that it stood between
	// double quotes.
	Verify(value string, quoted bool) (id ID, old, ok bool)

	// SetCookie returns the Set-Cookie line for the id of a session, and reports
	// whether it has the Secure attribute. The browser is to keep the cookie for
	// maxAge, which is 0 for until it closes. The value, unless it is empty, is what
	// Verify has taken for the id, signed by the newest secret: it may be sent again.
	SetCookie(id ID, value string, r *Record, maxAge time.Duration) (line string, secure bool)

	// DeleteCookie returns the Set-Cookie line that makes a browser forget the cookie
	// of a session. Its record is nil where nobody has loaded it.
	DeleteCookie(r *Record) string

	// IsHandle reports whether a store's key may be that of a session.
	IsHandle(key string) bool

	// LogHandle returns the name of a session for a log line.
	LogHandle(handle string) string
}

// Records writes and reads records.
type Records interface {
	// Begin makes an empty record that of a session that begins.
	Begin(r *Record, now time.Time)

	// CheckKey returns an error that says why a value cannot have this name, or nil.
	CheckKey(key string) error

	// Encode returns a record's bytes.
	Encode(*Record) []byte

	// Decode reads what Encode or another program has written, and was found under
	// the key at. The record's values may be parts of data, which must not change
	// any more. The error is ErrNotFound, ErrUnreadable, or says
	// that the record is of a newer version.
	Decode(at string, data []byte) (Record, error)

	// Lifetime returns how long a session lives unused, of which the manager's
	// options and the record say otherwise.
	Lifetime(r *Record, otherwise time.Duration) time.Duration

	// IsOver reports whether a session that is in the store has ended if its record says
	// that it ends at the deadline, in Unix milliseconds.
	IsOver(deadline int64, now time.Time) bool

	// TTL returns for how long the store is to keep a record whose deadline is
	// left away.
	TTL(left time.Duration) time.Duration
}

// Places knows where in the store a session is, and makes the store's calls that
// depend on it.
type Places interface {
	// Load returns the session that the handle of a cookie leads to. The error is
	// ErrNotFound, ErrReplaced, or one of Decode's or of the store's.
	Load(ctx context.Context, store Store, handle string) (Stored, error)

	// Follow returns the session that was under the key at, wherever renewals have moved
	// it since that time.
	Follow(ctx context.Context, store Store, at string, since time.Time) (Stored, error)

	// Delete removes the session that had the handle, wherever it is now.
	Delete(ctx context.Context, store Store, handle string) error

	// Renew makes r, which is to stand under the key at, a record that the secret of next
	// opens, and the secret before it for the time grace more. It reports whether it has
	// done so; see [Record.Renew]. What that leaves to do is Settle's.
	Renew(r *Record, at string, next ID, now time.Time, grace time.Duration) bool

	// Settle ends a renewal, after the record that Renew has changed is stored as st by
	// the save. It returns the session as it is then: the client is to get next if its secret
	// is the session's now, and nothing if another renewal was faster. ttl says for how
	// long the store is to keep a record that is used now. The error is
	// ErrNotFound if the session has ended.
	Settle(ctx context.Context, store Store, next ID, st Stored, save Save, ttl func(*Record) time.Duration) (Stored, error)
}

// Stored is a record as the store has it.
type Stored struct {
	At   string // the store's key
	Data []byte
	Record

	// Moving says that a renewal is about to move the session to another key. A save waits
	// for that, because it would make the renewal begin again.
	Moving bool
}

// Name returns what stays the same as long as the session lives.
func (s *Stored) Name() string { return cmp.Or(s.Origin, s.At) }

// A Store has the methods of session.Store.
type Store interface {
	Load(ctx context.Context, key string) ([]byte, error)
	Create(ctx context.Context, key string, data []byte, ttl time.Duration) error
	CompareAndSwap(ctx context.Context, key string, old, data []byte, ttl time.Duration) error
	Delete(ctx context.Context, key string) error
}
