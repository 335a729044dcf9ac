package session

import (
	"bytes"
	"cmp"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"time"

	"github.com/seed-4f96e14b/session/internal/native"
	"github.com/seed-4f96e14b/session/internal/records"
	"github.com/seed-4f96e14b/session/internal/wire"
)

// The defaults of [Options].
const (
	DefaultIdleTimeout     = 24 * time.Hour
	DefaultAbsoluteTimeout = 30 * 24 * time.Hour
	DefaultStoreTimeout    = time.Second
	DefaultMaxBytes        = 64 << 10
)

// Options configure a [Manager]. The zero value of every field is the safe
// choice, and Options{} as a whole keeps sessions in memory.
type Options struct {
	_ [0]func() // no unkeyed literals

	// Store keeps the sessions. Nil means a new [MemoryStore]: the sessions live
	// in this process and end with it. If the store is a [Validator], New asks it
	// whether it is configured well.
	Store Store

	// Secrets sign the cookie: the first signs, all verify. To rotate, put a new
	// one first and remove the old one when its sessions have ended: a cookie
	// signed by an older secret is signed anew the next time that it is sent, at
	// the latest when the session's deadline next moves.
	//
	// A secret has 32 bytes or more, from a random source: openssl rand -base64 32.
	// No secrets are allowed with a MemoryStore only: a random one then lives as
	// long as the sessions do.
	Secrets []string `json:"-"`

	// WireFormat is how cookies and records are written. Nil means this library's own
	// way, which keeps no secret of a cookie in the store. Package expressjs has
	// the way of an Express app.
	WireFormat WireFormat

	// Resave saves a session at the end of every request, changed or not
	// (express-session's resave). The session is loaded for every request.
	Resave bool

	// SaveUninitialized saves new sessions that nothing was put in
	// (express-session's saveUninitialized): every visitor without a cookie gets
	// one, and a record. The session is loaded for every request.
	SaveUninitialized bool

	// Rolling makes every request count as use, and lets the browser's cookie live
	// as long as the session: it is sent again whenever the deadline moves, which is
	// once per twentieth of the lifetime (express-session's rolling: with every
	// response). The session is loaded for every request.
	Rolling bool

	// DisableTouch makes reading a session no use of it: its deadline moves only when
	// it is saved, also with Rolling (connect-redis's disableTouch).
	DisableTouch bool

	// Cookie configures the cookie.
	Cookie Cookie

	// IdleTimeout is how long a session lives unused, in whole seconds. Zero means
	// Cookie.MaxAge, or DefaultIdleTimeout if that is zero too. If both are set,
	// the smaller counts. A shorter one holds for all sessions as soon as it is
	// deployed, a longer one for all that are used from then on. With package expressjs
	// it is the time for which Redis is told to keep a session without a MaxAge.
	IdleTimeout time.Duration

	// AbsoluteTimeout ends a session this long after it began, however busy it is,
	// in whole seconds. Zero means DefaultAbsoluteTimeout, negative means never.
	// Regenerate begins a session, Renew does not.
	AbsoluteTimeout time.Duration

	// StoreTimeout bounds what a request waits for the store: each load, and
	// everything that a save needs with its retries and the wait for other saves of
	// the same session, whatever the store's own settings. Zero means
	// DefaultStoreTimeout. A call that is still running then is abandoned. A request waits
	// three times at most for a store that does not answer, whatever its handler calls: for a
	// load or a save, for the end of a session, and for what an earlier Save has left to do.
	StoreTimeout time.Duration

	// MaxBytes is the size of the largest record to write. Zero means
	// DefaultMaxBytes. A larger session is an [ErrTooLarge], unless it was
	// even larger before.
	MaxBytes int

	// ErrorHandler answers a request whose session could not be loaded or saved.
	// What the handler wrote is dropped before. If ErrorHandler sends no status
	// itself, 503 is sent where the error is an [ErrUnavailable] or [ErrRenewed], and
	// 500 otherwise.
	// Nil means the plain text of that status. The error names no id, but may name
	// servers: it is for the log, not for the client.
	ErrorHandler func(w http.ResponseWriter, r *http.Request, err error)

	// Logger gets a line for everything that goes wrong. Nil means slog.Default(). Of lines
	// that clients can cause, one of a kind is written in a minute, and then one whose
	// attribute "more" is the number of those left out.
	// No line holds a cookie or a secret; a "session" attribute is [Session.ID], or
	// with package expressjs, where that is half a secret, a digest of it.
	Logger *slog.Logger
}

// A WireFormat is how sessions are written: ids into cookies, and records into the
// store. Nil in [Options] means this library's own. Package expressjs has the other
// one there is, that of express-session and connect-redis; programs cannot add any.
type WireFormat interface{ wire.Format }

// Format implements [fmt.Formatter], so that the secrets are not printed. Package fmt
// prints them without asking it where Options are an unexported field of a struct, and for
// the verbs %w and %p, which fit no Options; go vet finds those.
func (o Options) Format(f fmt.State, _ rune) {
	type options Options // without this method
	shown := options(o)
	shown.Secrets = slices.Repeat([]string{"[redacted]"}, len(o.Secrets))
	// Not by the verb: one that fits no pointer prints what is behind it, such as
	// the sessions in a store of the app's own.
	fmt.Fprintf(f, fmt.FormatString(f, 'v'), shown)
}

// LogValue implements [slog.LogValuer], so that no handler logs the secrets.
func (o Options) LogValue() slog.Value { return slog.StringValue(fmt.Sprintf("%+v", o)) }

// withDefaults returns the options with every zero duration and size filled in.
func (o Options) withDefaults() Options {
	if o.Store == nil {
		o.Store = new(MemoryStore)
	}
	if o.WireFormat == nil {
		o.WireFormat = native.Format{}
	}
	o.Secrets = slices.Clone(o.Secrets)
	o.AbsoluteTimeout = cmp.Or(o.AbsoluteTimeout, DefaultAbsoluteTimeout)
	o.StoreTimeout = cmp.Or(o.StoreTimeout, DefaultStoreTimeout)
	o.MaxBytes = cmp.Or(o.MaxBytes, DefaultMaxBytes)
	return o
}

func (o *Options) absoluteTimeout() time.Duration {
	if o.AbsoluteTimeout < 0 {
		return records.Forever
	}
	return o.AbsoluteTimeout
}

// lifetimes compiles the options, which are valid.
func (o *Options) lifetimes() records.Lifetimes {
	l := records.Lifetimes{Absolute: o.absoluteTimeout()}
	l.UntilClosed = cmp.Or(o.IdleTimeout, min(DefaultIdleTimeout, l.Absolute))
	switch maxAge := o.Cookie.MaxAge; {
	case maxAge == 0:
		l.Idle = l.UntilClosed
	case o.IdleTimeout == 0:
		l.Idle = maxAge
	default:
		l.Idle = min(o.IdleTimeout, maxAge)
	}
	return l
}

// validate reports everything that is wrong with the options, in the order of
// the fields. They have their defaults.
func (o *Options) validate() error {
	var errs []error
	refuse := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }

	if store, ok := o.Store.(Validator); ok {
		if err := store.Validate(); err != nil {
			refuse("Store: %w", err)
		}
	}
	errs = append(errs, o.validateSecrets()...)
	errs = append(errs, o.Cookie.validate(o.WireFormat.IsForeign())...)

	absolute := o.absoluteTimeout()
	if o.IdleTimeout < 0 {
		refuse("IdleTimeout is %v; it must be positive, or 0 for the default", o.IdleTimeout)
	}
	if err := wholeSeconds(o.IdleTimeout); err != nil {
		refuse("IdleTimeout %w", err)
	}
	if err := wholeSeconds(absolute); err != nil && absolute != records.Forever {
		refuse("AbsoluteTimeout %w", err)
	}
	if o.IdleTimeout > absolute {
		refuse("IdleTimeout is %v, longer than the AbsoluteTimeout of %v; shorten it, or set AbsoluteTimeout too", o.IdleTimeout, absolute)
	}
	if o.Cookie.MaxAge > absolute {
		refuse("Cookie.MaxAge is %v, longer than the AbsoluteTimeout of %v; shorten it, or set AbsoluteTimeout too", o.Cookie.MaxAge, absolute)
	}
	if o.StoreTimeout < time.Millisecond {
		refuse("StoreTimeout is %v; it must be a millisecond or more, written as 500*time.Millisecond", o.StoreTimeout)
	}
	if o.MaxBytes < 0 {
		refuse("MaxBytes is %d; it must be positive, or 0 for the default", o.MaxBytes)
	}
	return errors.Join(errs...)
}

// exampleSecret is the one in the README, long enough to pass every other check.
const exampleSecret = "replace-me: openssl rand -base64 32"

const minSecretSize = 32

func (o *Options) validateSecrets() (errs []error) {
	refuseAt := func(at, format string, args ...any) {
		errs = append(errs, fmt.Errorf("%s %s; make one with: openssl rand -base64 32", at, fmt.Sprintf(format, args...)))
	}
	if _, inMemory := o.Store.(*MemoryStore); len(o.Secrets) == 0 && !inMemory {
		refuseAt("Secrets", "is empty, and sessions in a store that outlives the process need a secret")
	}
	for i, secret := range o.Secrets {
		at := fmt.Sprintf("Secrets[%d]", i)
		switch {
		case secret == "":
			refuseAt(at, "is empty, as an environment variable that is not set")
		case slices.Index(o.Secrets, secret) < i:
			refuseAt(at, "stands in the list already")
		}
	}
	if !o.WireFormat.IsForeign() {
		for _, weakness := range o.weakSecrets() {
			errs = append(errs, fmt.Errorf("%w; make one with: openssl rand -base64 32", weakness))
		}
	}
	return errs
}

// weakSecrets returns an error for each secret that may be guessed.
func (o *Options) weakSecrets() (errs []error) {
	for i, secret := range o.Secrets {
		weak := func(format string, args ...any) {
			at := fmt.Sprintf("Secrets[%d]", i)
			errs = append(errs, fmt.Errorf("%s %s", at, fmt.Sprintf(format, args...)))
		}
		switch {
		case secret == "": // not a secret at all
		case len(secret) < minSecretSize:
			weak("has %d bytes, and needs %d or more", len(secret), minSecretSize)
		case secret == exampleSecret:
			weak("is the example of the README")
		case len(bytes.Trim([]byte(secret), secret[:1])) == 0:
			weak("is one byte repeated")
		}
	}
	return errs
}

// keys returns the secrets as bytes, or a random one if there are none.
func (o *Options) keys() [][]byte {
	if len(o.Secrets) == 0 {
		key := make([]byte, minSecretSize)
		rand.Read(key)
		return [][]byte{key}
	}
	keys := make([][]byte, len(o.Secrets))
	for i, secret := range o.Secrets {
		keys[i] = []byte(secret)
	}
	return keys
}

var _ fmt.Formatter = Options{}
