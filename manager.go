package session

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"log/slog"
	"net/http"
	"sync/atomic"
	"time"

	"github.com/seed-4f96e14b/session/internal/records"
	"github.com/seed-4f96e14b/session/internal/wire"
)

// A Manager gives the requests of one application their sessions. Several managers can work on
// one request if each has its own cookie name.
//
// It is safe for concurrent use, holds no connection, and needs no Close: the goroutines that call
// the store end by themselves, a second or two after the last call.
type Manager struct {
	options    Options // with defaults, without secrets
	cookieName string
	codec      wire.Codec
	records    *records.Keeper
	warned     atomic.Bool // of secure cookies over plain HTTP
	lines      logLines
}

// New returns a Manager. The error lists everything that is wrong with the options. New does not
// call the store, and copies what the caller could still change in the options.
func New(options Options) (*Manager, error) {
	options = options.withDefaults()
	if err := options.validate(); err != nil {
		return nil, fmt.Errorf("session: invalid options:\n%w", err)
	}
	template := options.Cookie.template()
	codec := options.WireFormat.NewCodec(wire.Settings{
		Secrets: options.keys(), Cookie: template, Priority: options.Cookie.Priority, MaxAge: options.Cookie.MaxAge,
	})
	settings := records.Settings{
		Codec: codec, Lifetimes: options.lifetimes(), MaxBytes: options.MaxBytes, Timeout: options.StoreTimeout,
	}
	if memory, ok := options.Store.(*MemoryStore); ok {
		settings.Store, settings.InProcess = lender{memory}, true
	} else {
		settings.Store = bounded(options.Store, options.StoreTimeout)
	}
	m := &Manager{options: options, cookieName: template.Name, codec: codec, records: records.New(settings)}
	if len(options.Secrets) == 0 {
		m.log(context.Background(), slog.LevelInfo, "session: no Secrets: signing with a random one, so cookies and sessions end with this process")
	}
	for _, weakness := range options.weakSecrets() {
		m.log(context.Background(), slog.LevelWarn, "session: weak secret: anybody who guesses it can sign cookies; put a better one first, here and in the other program, and remove this one when its sessions have ended", slog.Any("err", weakness))
	}
	m.options.Secrets = nil
	return m, nil
}

// From returns the session of this manager in the request that ctx belongs to, where handlers of
// several managers are nested. Without one, From panics.
func (m *Manager) From(ctx context.Context) *Session {
	innermost, _ := FromContext(ctx)
	s, ok := innermost.of(m)
	if !ok {
		panic(fmt.Sprintf("session: no session of the manager with the cookie %q in the context; wrap the handler with its Handler method, and pass the context of the request: r.Context()", m.cookieName))
	}
	return s
}

// of returns the session that belongs to m: s, or one of those around it.
func (s *Session) of(m *Manager) (*Session, bool) {
	for ; s != nil; s = s.outer {
		if s.manager == m {
			return s, true
		}
	}
	return nil, false
}

// loadsAlways reports whether the options need the session of every request.
func (m *Manager) loadsAlways() bool {
	return m.options.Rolling || m.options.Resave || m.options.SaveUninitialized
}

// All goes through the sessions of the store, in no order, as express-session's store.all does.
// They can be read, and not changed. Sessions that end meanwhile and unreadable records are left
// out. If the store fails, or has a record of a newer version, the sequence ends with an error. The
// error is [errors.ErrUnsupported] if the store is not a [KeyLister]. Every session costs a call of
// the store, so All is for administration.
func (m *Manager) All(ctx context.Context) iter.Seq2[*Session, error] {
	return func(yield func(*Session, error) bool) {
		lister, ok := m.options.Store.(KeyLister)
		if !ok {
			yield(nil, unsupported(m.options.Store, "list its sessions"))
			return
		}
		seen := make(map[string]bool) // a renewed session may be found under several keys
		// A session that moved to another key earlier is listed under that key.
		since := time.Now().Add(-wire.Overlap)
		for key, err := range lister.Keys(ctx) {
			if err != nil {
				yield(nil, wire.Unavailable("list", err))
				return
			}
			if !m.codec.IsHandle(key) { // of another manager, whose prefix begins with ours
				continue
			}
			s, err := m.loadSince(ctx, key, since)
			switch {
			case errors.Is(err, ErrNotFound) || errors.Is(err, ErrUnreadable):
				continue
			case err != nil:
				yield(nil, err)
				return
			case seen[s.stored.At]:
				continue
			}
			seen[s.stored.At] = true
			if !yield(s, nil) {
				return
			}
		}
	}
}

// Load returns a session by its [Session.ID], outside of a request of its own, as express-session's
// store.get does. It can be read, and not changed. Reading it does not count as use. The error is
// [ErrNotFound] if there is no such session, [ErrUnreadable] if the record under that key is not a
// session, and otherwise an [ErrUnavailable].
func (m *Manager) Load(ctx context.Context, id string) (*Session, error) {
	if !m.codec.IsHandle(id) {
		return nil, ErrNotFound
	}
	return m.loadSince(ctx, id, time.Time{})
}

// loadSince returns the session that has the id, or that had it before a renewal after that time.
func (m *Manager) loadSince(ctx context.Context, id string, since time.Time) (*Session, error) {
	bounded, cancel := m.records.Bound(ctx)
	defer cancel()
	st, err := m.records.Follow(bounded, id, since)
	if err != nil {
		return nil, err
	}
	request := (&http.Request{}).WithContext(ctx)
	s := &Session{&state{manager: m, request: request, inner: request, phase: found, id: wire.ID{Handle: st.At}}}
	s.reply.stage = closed
	s.show(st)
	return s, nil
}

// Len counts the sessions of the store, as express-session's store.length does. It counts the keys
// that belong to sessions, so a session counts for up to a minute after it has ended. With package
// expressjs, a session counts once more for each renewal. The error is [errors.ErrUnsupported] if
// the store is not a [KeyLister], and an [ErrUnavailable] if it fails.
func (m *Manager) Len(ctx context.Context) (int, error) {
	lister, ok := m.options.Store.(KeyLister)
	if !ok {
		return 0, unsupported(m.options.Store, "count its sessions")
	}
	n := 0
	for key, err := range lister.Keys(ctx) {
		if err != nil {
			return 0, wire.Unavailable("count", err)
		}
		if m.codec.IsHandle(key) { // else it is of another manager, whose prefix begins with ours
			n++
		}
	}
	return n, nil
}

// Destroy ends a session by its [Session.ID], outside of a request of its own, as express-session's
// store.destroy does. Use it to end a session on another device, or as an administrator. A request
// of that session that runs meanwhile saves nothing more. If there is no such session, that is not
// an error. The error is an [ErrUnavailable].
func (m *Manager) Destroy(ctx context.Context, id string) error {
	if !m.codec.IsHandle(id) { // it may be another program's key, or another manager's
		return nil
	}
	ctx, cancel := m.records.Bound(ctx)
	defer cancel()
	return m.records.Remove(ctx, id)
}

// Clear ends all sessions of the store, as express-session's store.clear does. With a [RedisStore]
// it deletes every key that begins with the prefix, also one that another program wrote. The error
// is [errors.ErrUnsupported] if the store is not a [Clearer].
func (m *Manager) Clear(ctx context.Context) error {
	clearer, ok := m.options.Store.(Clearer)
	if !ok {
		return unsupported(m.options.Store, "clear its sessions")
	}
	return clearer.Clear(ctx)
}

// unsupported is the error of a method that needs an optional capability of the store.
func unsupported(store Store, what string) error {
	return fmt.Errorf("session: a %T cannot %s: %w", store, what, errors.ErrUnsupported)
}

// Format implements [fmt.Formatter]. No verb prints the secrets that sign.
func (m *Manager) Format(f fmt.State, _ rune) {
	fmt.Fprintf(f, "session.Manager(%q)", m.cookieName)
}
