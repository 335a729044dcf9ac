// Package expressjs reads and writes the sessions of an Express app, so that Go and
// Express share one login. The cookie, the Redis key, the JSON and the time to live
// are those of express-session with connect-redis.
//
//	sessions, err := expressjs.New(expressjs.Options{
//		Secrets: []string{os.Getenv("SESSION_SECRET")},
//		Rolling: true,
//		Cookie:  expressjs.Cookie{MaxAge: 7 * 24 * time.Hour, Secure: true, SameSite: "lax"},
//		Store:   expressjs.RedisStore{Client: redis.NewClient(redisOptions)},
//	})
//
// [Options] describe an existing app. So a zero value means what Express does when the option is
// left out, and not what is safest. Handlers use the [session.Manager] as any other: with typed
// keys, merged changes, final logouts and sticky errors.
//
// SEMANTICS.md beside this file lists every behaviour of express-session, and whether it is
// the same here.
//
// # What is promised when both sides write
//
// First, set resave: false in the Express app. With resave: true, which is Express's
// default, each of its requests saves the session as it was when the request began, even if it
// only reads. A request that runs beside a logout in Go then brings the session back, and one that
// runs beside a change in Go undoes the change. With resave: false, only a request that changes the
// session saves it, and connect-redis prolongs the session for the others.
//
// The promises of package session hold among requests that Go answers. Express saves by
// overwriting, which Go cannot prevent:
//
//   - Go makes its changes on what Express has saved since Go loaded the session, and
//     never brings back a session that Express has destroyed.
//
//   - An Express request that loaded the session before Go saved it, and saves it
//     afterwards, undoes Go's change, as it undoes another Express request's.
//
//   - An Express request that saves a session which Go has destroyed, regenerated or
//     renewed meanwhile brings it back, as it does after an Express logout.
//
//   - An Express request that loaded the session before Go renewed it, and destroys or
//     regenerates it afterwards, ends only what is under the old id, which is empty. The
//     session goes on under the new id.
//
//   - An Express request that only reads, with resave: false, resets the time to live to the
//     lifetime that it has loaded. If Go has changed the lifetime meanwhile, the change holds
//     from the next use on.
//
// Move routes that change the same values at the same time together. In a slow
// Express route that stays, call req.session.reload just before the change. It then
// changes what Go has saved, and fails if Go has ended the session. Wait for
// req.session.save before a response that sends the browser on, because Go may answer the next
// request.
//
// # What sharing costs
//
// Express has one id for everything. It is signed in the cookie, and it is the Redis key. So
// anybody who can read Redis and knows the secret has every session. [session.Session.ID] is
// Express's req.sessionID. It opens nothing without its signature. The log of this library has a
// digest of it instead.
//
// [session.Session.Renew] gives a session another id, and so moves it to another key. That
// takes three more calls of the store. Two keys stay behind for the session's lifetime and
// a day: an empty one, which Express does not take for a session, and one that leads Go from the
// old id to the new. Express does not follow it. To Express the old cookie is unknown at
// once, whatever the grace. So give a grace only if Go answers the requests beside a renewal.
//
// In Go, the old cookie opens the session for the grace, at the cost of two more calls. It does
// so for one renewal: if the session is renewed again within the grace, the cookie from before
// the first renewal is worthless from then on. However many renewals there were, a request with an
// old cookie makes four calls at most. A logout with an old cookie ends the session also after the
// grace, with two calls for each renewal since.
//
// While a session moves, saves of other requests wait, for a quarter of a second at most. If a
// process dies during a renewal, the session is whole, under the old id or the
// new one. A copy of it may be left until its time to live ends, under an id that
// is in no cookie. The same happens if Redis makes a call after it was given up.
// [session.Manager.All] lists such a copy as a session.
//
// Every record that Go writes has one member more, "_goSession": when the session began and
// when it was used, the last saves by Go, the number of renewals without grace, its first id, and
// the renewal that is under way. Express keeps this member and does not look at it.
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

// Options are those that the Express app gives to express-session. SEMANTICS.md says why the
// others are not supported: genid (ids of any form are read), proxy and secure: 'auto' (Secure
// works behind a proxy that ends TLS), unset, and cookie as a function (use several managers).
type Options struct {
	_ [0]func() // no unkeyed literals

	// Secrets is secret: the first signs, and all verify. The app's secrets may be weaker
	// than those that package session accepts; the log then says so.
	Secrets []string `json:"-"`

	// Name is name, the cookie's name. Empty means connect.sid.
	Name string

	// Cookie is cookie. It is for new sessions. As in Express, a session that exists keeps the
	// attributes in its record.
	Cookie Cookie

	// Store is store: new RedisStore({...}).
	Store RedisStore

	// Resave is resave. Express's own default is true, and it warns that this is deprecated.
	Resave bool

	// SaveUninitialized is saveUninitialized. Express's own default is true, and it warns that
	// this is deprecated.
	SaveUninitialized bool

	// Rolling is rolling. Go sends the cookie again when the deadline moves, once in a
	// twentieth of the lifetime. Express sends it with every response.
	Rolling bool

	// MaxBytes is the size of the largest record that Go writes, as in [session.Options].
	// Express has no such limit. Zero means [session.DefaultMaxBytes]. A session that
	// Express has made larger can be read. It can be changed as long as its values do not
	// grow; a change that makes them grow is a [session.ErrTooLarge].
	MaxBytes int
}

// Cookie is the cookie option of express-session. Its zero value sends
//
//	connect.sid=s%3A...; Path=/; HttpOnly
type Cookie struct {
	_ [0]func()

	// MaxAge is maxAge, in whole seconds: Express's 60000 is time.Minute. Zero means until
	// the browser closes. It may be over 400 days, although browsers end a cookie then. The
	// option expires is not supported; Express turns it into a maxAge.
	MaxAge time.Duration

	// Path and Domain are path and domain. An empty Path means "/".
	Path, Domain string

	// Secure is secure. Unlike Express, Go also sends a secure cookie over what looks like
	// plain HTTP, because a proxy may have ended the TLS. If there is none, browsers drop the
	// cookie, and the log says so. An app with secure: 'auto' sets Secure, unless it
	// serves no TLS.
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
// disableTTL is not supported: every key that Go writes has a time to live. Keys without
// one are read. A large TTL comes close to disableTTL.
type RedisStore struct {
	_ [0]func()

	// Client is a client of go-redis v9 that sends everything to the primary, as in
	// [session.RedisStore].
	Client session.RedisClient

	// Prefix is prefix. Empty means "sess:".
	Prefix string

	// NoPrefix is prefix: ''.
	NoPrefix bool

	// TTL is ttl as a number: for how long a session without MaxAge lives without being used, in
	// whole seconds. Zero means a day.
	TTL time.Duration

	// TTLFunc is ttl as a function. It gets the values of a session without "cookie",
	// and returns for how long Redis is to keep the session if it is not used, whatever its
	// MaxAge. It may be called at any time from any goroutine, also while the session is
	// locked. So it must use only the map, and not change it.
	TTLFunc func(values map[string]json.RawMessage) time.Duration

	// DisableTouch is disableTouch: a request that only reads its session does not prolong it.
	DisableTouch bool
}

// New returns a Manager for the sessions of an Express app. The error lists everything
// that is wrong with the options. New(o) is session.New of o.Session().
func New(options Options) (*session.Manager, error) {
	o, err := options.Session()
	if err != nil {
		return nil, err
	}
	return session.New(o)
}

// Session returns the options for [session.New] that make a Manager for the sessions
// of an Express app. A program can add what Express has no option for: a
// StoreTimeout, an ErrorHandler, a Logger, an AbsoluteTimeout. The sessions have no absolute
// timeout by default, because Express has none: if Go ends a session by one, it goes on in
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

// Format implements [fmt.Formatter], so that the secrets are not printed. Package fmt does not call
// it for Options in an unexported field of a struct, nor for the verbs %w and %p, which do not fit;
// go vet finds those.
func (o Options) Format(f fmt.State, _ rune) {
	type options Options // without this method
	shown := options(o)
	shown.Secrets = slices.Repeat([]string{"[redacted]"}, len(o.Secrets))
	// The verb is always %v. One that does not fit a pointer would print what it points to.
	fmt.Fprintf(f, fmt.FormatString(f, 'v'), shown)
}

var _ fmt.Formatter = Options{}
