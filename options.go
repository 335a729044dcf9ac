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
	// whether its configuration is right.
	Store Store

	// Secrets sign the cookie: the first signs, and all verify. To rotate them, put a new
	// one first, and remove the old one when its sessions have ended. A cookie with an
	// old signature is signed anew the next time it is sent, at the latest when the
	// session's deadline next moves.
	//
	// A secret has 32 bytes or more, from a random source: openssl rand -base64 32.
	// Only a MemoryStore needs none: a random secret then lives as long as the
	// sessions do.
	Secrets []string `json:"-"`

	// WireFormat is how cookies and records are written. Nil means this library's own
	// format, whose records do not hold the secrets of cookies. Package expressjs has
	// the format of an Express app.
	WireFormat WireFormat

	// Resave saves a session at the end of every request, changed or not
	// (express-session's resave). The session is loaded for every request.
	Resave bool

	// SaveUninitialized saves new sessions even if no value was set
	// (express-session's saveUninitialized). Every visitor without a cookie then gets
	// one, and a record. The session is loaded for every request.
	SaveUninitialized bool

	// Rolling makes every request count as use, and lets the browser's cookie live
	// as long as the session. The cookie is sent again whenever the deadline moves, which
	// is once in a twentieth of the lifetime (express-session's rolling sends it with
	// every response). The session is loaded for every request.
	Rolling bool

	// DisableTouch means that a request which only reads its session does not use it. The
	// deadline then moves only when the session is saved, also with Rolling
	// (connect-redis's disableTouch).
	DisableTouch bool

	// Cookie configures the cookie.
	Cookie Cookie

	// IdleTimeout is for how long a session lives without being used, in whole seconds. Zero
	// means Cookie.MaxAge, or DefaultIdleTimeout if that is zero too. If both are set,
	// the smaller counts. A shorter IdleTimeout holds for all sessions as soon as it is
	// deployed, and a longer one for all that are used from then on. With package expressjs
	// it is the time for which Redis is told to keep a session without a MaxAge.
	IdleTimeout time.Duration

	// AbsoluteTimeout ends a session this long after it began, however busy it is,
	// in whole seconds. Zero means DefaultAbsoluteTimeout, and negative means never.
	// Regenerate begins a session; Renew does not.
	AbsoluteTimeout time.Duration

	// StoreTimeout bounds the wait for the store, whatever the store's own settings. It
	// bounds each load, and each save with its retries and its wait for other saves of the
	// same session. A call that is still running then is abandoned. Zero means
	// DefaultStoreTimeout.
	//
	// If the store does not answer, a request waits three times at most, whatever its
	// handler calls: for a load or a save, for the end of a session, and for what an earlier
	// Save has left to do.
	StoreTimeout time.Duration

	// MaxBytes is the size of the largest record to write. Zero means
	// DefaultMaxBytes. To save a larger session is an [ErrTooLarge], unless its values
	// have not grown.
	MaxBytes int

	// ErrorHandler answers a request whose session could not be loaded or saved. What the
	// handler wrote is dropped first. If ErrorHandler sends no status, 503 is sent
	// for an [ErrUnavailable] or [ErrRenewed], and 500 for any other error. Nil sends the
	// plain text of that status. The error holds no id, but it may name servers: it is for the
	// log, and not for the client.
	ErrorHandler func(w http.ResponseWriter, r *http.Request, err error)

	// Logger gets a line for everything that goes wrong. Nil means slog.Default(). Of the
	// lines that clients can cause, one of a kind is written in a minute, and then one whose
	// attribute "more" is the number of lines left out. No line holds a cookie or a secret. The
	// attribute "session" is [Session.ID]. With package expressjs, where the id is half of a
	// secret, it is a digest of the id.
	Logger *slog.Logger
}

// A WireFormat is how sessions are written: ids into cookies, and records into the store. Nil in
// [Options] means this library's own. The only other one, that of express-session and
// connect-redis, is in package expressjs; programs cannot add any.
type WireFormat interface{ wire.Format }

// Format implements [fmt.Formatter], so that the secrets are not printed. Package fmt does not call
// it for Options in an unexported field of a struct, nor for the verbs %w and %p, which do not fit;
// go vet finds those.
func (o Options) Format(f fmt.State, _ rune) {
	type options Options // without this method
	shown := options(o)
	shown.Secrets = slices.Repeat([]string{"[redacted]"}, len(o.Secrets))
	// The verb is always %v. One that does not fit a pointer would print what it points to,
	// such as the sessions in a store of the app's own.
	fmt.Fprintf(f, fmt.FormatString(f, 'v'), shown)
}

// LogValue implements [slog.LogValuer], so that the secrets are not logged.
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

// absoluteTimeout returns AbsoluteTimeout as a time that can be compared.
func (o *Options) absoluteTimeout() time.Duration {
	if o.AbsoluteTimeout < 0 {
		return records.Forever
	}
	return o.AbsoluteTimeout
}

// lifetimes compiles the options, which are valid, into what a request needs.
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
			refuseAt(at, "is empty, like an environment variable that is not set")
		case slices.Index(o.Secrets, secret) < i:
			refuseAt(at, "is in the list already")
		}
	}
	if !o.WireFormat.IsForeign() {
		for _, weakness := range o.weakSecrets() {
			errs = append(errs, fmt.Errorf("%w; make one with: openssl rand -base64 32", weakness))
		}
	}
	return errs
}

// weakSecrets returns an error for each secret that could be guessed.
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
			weak("is the example in the README")
		case len(bytes.Trim([]byte(secret), secret[:1])) == 0:
			weak("is one byte repeated")
		}
	}
	return errs
}

// keys returns the secrets as bytes. If there are none, it makes a random one.
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
