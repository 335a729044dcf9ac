// Package expressjs reads and writes the sessions of an Express app, so that Go and
// Express share one login: the cookie, the Redis key, the JSON and the time to live
// are those of express-session with connect-redis.
//
//	sessions, err := expressjs.New(expressjs.Options{
//		Secrets: []string{os.Getenv("SESSION_SECRET")},
//		Rolling: true,
//		Cookie:  expressjs.Cookie{MaxAge: 7 * 24 * time.Hour, Secure: true, SameSite: "lax"},
//		Store:   expressjs.RedisStore{Client: redis.NewClient(redisOptions)},
//	})
//
// [Options] describe the app that is there, so here a zero value means what an option
// left out means to Express, not what is safest. Handlers use the [session.Manager] as
// any other: typed keys, changes merged, final logout, errors that stick.
//
// SEMANTICS.md beside this file lists every behaviour of express-session, and whether it is
// the same here.
//
// # What is promised when both sides write
//
// First, set resave: false in the Express app. With resave: true, which is Express's
// default, each of its requests saves the session as it was when the request began, also one
// that only reads. One that runs beside a logout in Go brings the session back, and one that
// runs beside a change in Go undoes it. With resave: false only a request that changes the
// session saves it; connect-redis keeps the others' sessions alive without.
//
// The promises of package session hold between requests that Go answers. Express saves by
// overwriting, and nobody can stop it:
//
//   - Go replays its changes over what Express has saved since Go loaded the session, and
//     never brings back what Express has destroyed.
//
//   - An Express request that loaded the session before Go saved it, and saves it
//     after, undoes Go's change, as it undoes another Express request's.
//
//   - An Express request that saves a session which Go has destroyed, regenerated or
//     renewed meanwhile brings it back, as it does after an Express logout.
//
//   - An Express request that loaded the session before Go renewed it, and destroys or
//     regenerates it after, ends what is under the old id, where nothing is any more: the
//     session goes on under the new one.
//
//   - An Express request that only reads, with resave: false, sets the time to live anew, to
//     the lifetime that it has loaded: a lifetime that Go has changed meanwhile holds from the
//     next use on.
//
// Routes that change the same values at the same time are best moved together. In a slow
// Express route that stays, call req.session.reload just before the change: it then
// changes what Go has saved, and fails where Go has ended the session. And wait for
// req.session.save before an answer that sends the browser on, because the next
// request may be one for Go.
//
// # What sharing costs
//
// Express has one id for all: it is in the cookie, signed, and it is the Redis key. So who
// can read Redis and knows the secret has every session, and [session.Session.ID] is
// Express's req.sessionID. It is no cookie without its signature, and the log of this
// library holds a digest of it instead.
//
// [session.Session.Renew] gives a session another id, and so moves it to another key. That
// takes three calls of the store more. Two keys stay behind for the session's lifetime and
// a day: an empty one, which Express takes for no session, and one that leads Go from the old
// id to the new. Express does not follow it: to Express the old cookie is an unknown one at
// once, whatever the grace. So give a grace only where the requests beside a renewal are Go's.
//
// In Go the old cookie opens the session for the grace, at the cost of two calls more. It does
// so for one renewal: if the session is renewed again within the grace, the cookie of before
// the first is worthless from then on. However many renewals there were, an old cookie costs
// four calls at most. A logout with it ends the session also after the grace, with two
// calls for each renewal since.
//
// While a session moves, saves of other requests wait, a quarter of a second at most. A
// process that dies in the midst of a renewal leaves the session under the old id or the
// new one, whole. It may also leave a copy of it until its time to live ends, under an id that
// nobody has a cookie of, as may a call that Redis makes after it was given up:
// [session.Manager.All] lists that as a session.
//
// Every record that Go writes has one member more, "_goSession": when the session began and
// was used, which saves of Go's were the last, how often all its cookies were made worthless,
// its first id, and the renewal that is under way. Express keeps it and does not look at it.
package expressjs

import (
	"cmp"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/seed-4f96e14b/session"
)

// Options are those that the Express app gives to express-session. What is not here is
// not supported, for reasons that SEMANTICS.md gives: genid (ids of any form are
// read), proxy and secure: 'auto' (Secure works behind a proxy that ends TLS), unset, and
// cookie as a function (use several managers).
type Options struct {
	_ [0]func() // no unkeyed literals

	// Secrets are secret: the first signs, all verify. The app's secrets may be weaker
	// than those that package session takes; a log line says so.
	Secrets []string `json:"-"`

	// Name is name, the cookie's. Empty means connect.sid.
	Name string

	// Cookie is cookie. A session that exists keeps the attributes that its record
	// has, as with Express; these are for new ones.
	Cookie Cookie

	// Store is store: new RedisStore({...}).
	Store RedisStore

	// Resave is resave. Express's own default, which warns that it is deprecated, is true.
	Resave bool

	// SaveUninitialized is saveUninitialized. Express's own default, which warns that
	// it is deprecated, is true.
	SaveUninitialized bool

	// Rolling is rolling. The cookie is sent again with each move of the deadline, once
	// per twentieth of the lifetime; Express sends it with every response.
	Rolling bool

	// MaxBytes is the size of the largest record that Go writes, as in [session.Options].
	// Express has no such limit. Zero means [session.DefaultMaxBytes]. A session that
	// Express has made larger is read, and can be changed as long as its values do not grow;
	// a change by which they do is a [session.ErrTooLarge].
	MaxBytes int
}

// Cookie is the cookie option of express-session. Its zero value sends
//
//	connect.sid=s%3A...; Path=/; HttpOnly
type Cookie struct {
	_ [0]func()

	// MaxAge is maxAge, in whole seconds: Express's 60000 is time.Minute. Zero means until
	// the browser closes. It may be longer than the 400 days at which browsers end a cookie. The option expires, which Express only turns into a maxAge,
	// is not here.
	MaxAge time.Duration

	// Path and Domain are path and domain. An empty Path means "/".
	Path, Domain string

	// Secure is secure. Unlike Express, Go sends a secure cookie also over what looks like
	// plain HTTP, because the TLS may end before it; browsers then drop it if it does not,
	// and a log line says so. An app with secure: 'auto' sets it, or serves no TLS.
	Secure bool

	// ScriptAccess is httpOnly: false.
	ScriptAccess bool

	// SameSite is sameSite: "strict" (or true), "lax", "none", or "" for false.
	SameSite string

	// Partitioned is partitioned.
	Partitioned bool

	// Priority is priority: "low", "medium", "high" or "".
	Priority string
}

// RedisStore is the options object of connect-redis's RedisStore. The serializer is JSON.
// There is no disableTTL: every key that Go writes has a time to live. Keys without
// one are read, and a large TTL comes close.
type RedisStore struct {
	_ [0]func()

	// Client is a client of go-redis v9 that asks the primary for everything, as that of a
	// [session.RedisStore].
	Client session.RedisClient

	// Prefix is prefix. Empty means "sess:".
	Prefix string

	// NoPrefix is prefix: ''.
	NoPrefix bool

	// TTL is ttl as a number: how long a session without MaxAge lives unused, in whole
	// seconds. Zero means a day.
	TTL time.Duration

	// TTLFunc is ttl as a function: it gets the values of a session, "cookie" not among
	// them, and says for how long Redis is to keep it unused, whatever its MaxAge. It
	// may be called at any time from any goroutine, also while the session is locked, so
	// it must use nothing but the map, and not change that.
	TTLFunc func(values map[string]json.RawMessage) time.Duration

	// DisableTouch is disableTouch: a session that is only read lives as if it were not.
	DisableTouch bool
}

// New returns a Manager for the sessions of an Express app. The error lists everything
// that is wrong with the options. It is session.New of [Options.Session].
func New(options Options) (*session.Manager, error) {
	o, err := options.Session()
	if err != nil {
		return nil, err
	}
	return session.New(o)
}

// Session returns the options for [session.New] that make a Manager for the sessions
// of an Express app. What Express has no option for can be added to them: a
// StoreTimeout, an ErrorHandler, a Logger, an AbsoluteTimeout. Express has no
// absolute timeout, so they have none: a session that Go has ended because of one goes on in
// Express.
func (o Options) Session() (session.Options, error) {
	sameSite, err := sameSiteOption(o.Cookie.SameSite)
	if err != nil {
		return session.Options{}, fmt.Errorf("expressjs: invalid options:\n%w", err)
	}
	return session.Options{
		Store:             &session.RedisStore{Client: o.Store.Client, Prefix: o.Store.Prefix, NoPrefix: o.Store.NoPrefix},
		Secrets:           slices.Clone(o.Secrets),
		WireFormat:        wireFormat{ttl: o.Store.TTLFunc},
		Resave:            o.Resave,
		SaveUninitialized: o.SaveUninitialized,
		Rolling:           o.Rolling,
		DisableTouch:      o.Store.DisableTouch,
		IdleTimeout:       cmp.Or(o.Store.TTL, defaultTTL),
		AbsoluteTimeout:   -1,
		MaxBytes:          o.MaxBytes,
		Cookie: session.Cookie{
			Name:         cmp.Or(o.Name, defaultName),
			MaxAge:       o.Cookie.MaxAge,
			Path:         o.Cookie.Path,
			Domain:       o.Cookie.Domain,
			SameSite:     sameSite,
			Partitioned:  o.Cookie.Partitioned,
			Priority:     strings.ToLower(o.Cookie.Priority),
			Insecure:     !o.Cookie.Secure,
			ScriptAccess: o.Cookie.ScriptAccess,
		},
	}, nil
}

const (
	defaultName = "connect.sid"
	defaultTTL  = 24 * time.Hour
)

func sameSiteOption(s string) (http.SameSite, error) {
	switch strings.ToLower(s) {
	case "":
		return http.SameSiteDefaultMode, nil
	case "strict":
		return http.SameSiteStrictMode, nil
	case "lax":
		return http.SameSiteLaxMode, nil
	case "none":
		return http.SameSiteNoneMode, nil
	}
	return 0, fmt.Errorf("Cookie.SameSite is %q; use strict, lax, none or nothing", s)
}

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

var _ fmt.Formatter = Options{}
