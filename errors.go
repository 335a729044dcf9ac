package session

import (
	"errors"

	"github.com/seed-4f96e14b/session/internal/records"
	"github.com/seed-4f96e14b/session/internal/wire"
)

// The errors of a [Session]. Those of a [Store] are in store.go.
var (
	// ErrUnavailable is the error of a session that the store could not load or save: it has not
	// answered within StoreTimeout, it has refused, or it has a record of a newer version. The
	// response is a 503. The error does not say whether the session exists.
	ErrUnavailable = wire.ErrUnavailable

	// ErrTooLarge is the error of a session whose record would exceed
	// [Options.MaxBytes]. Nothing is saved, and the response is a 500.
	ErrTooLarge = wire.ErrTooLarge

	// ErrEncode is the error of a value that JSON cannot hold, or not give back as it
	// was. Nothing is saved, and the response is a 500.
	ErrEncode = errors.New("session: cannot encode value")

	// ErrRenewed is the error of a change to a session whose cookies another request has
	// just made worthless, by a [Session.Renew] without grace. Nothing more of the
	// request is saved, and the response is a 503. A client that got the new cookie
	// succeeds when it tries again.
	ErrRenewed = wire.ErrRenewed

	// ErrHeaderSent is the error of a change that needs a cookie, when the header of the
	// response has left without it. Nothing more of the request is saved.
	ErrHeaderSent = errors.New("session: needs a cookie, but the header is sent; do this before WriteHeader, Redirect or the first Write")

	// ErrClosed is the error of a change to a session after its request has ended, or
	// to one that [Manager.Load] or [Manager.All] returns.
	ErrClosed = errors.New("session: its request has ended, or it comes from Manager.Load or All, so it cannot change; copy what a goroutine needs before the handler returns, and end others with Manager.Destroy")
)

// A callError says which call of the handler an error is about.
type callError struct {
	call string
	err  error
}

func (e callError) Error() string { return e.err.Error() + ": " + e.call }
func (e callError) Unwrap() error { return e.err }

// about adds to the error of a save which call could not be saved: the last one.
func (s *Session) about(err error) error {
	_, isKnown := errors.AsType[callError](err)
	switch n := len(s.draft.changes); {
	case isKnown || !errors.Is(err, ErrRenewed) && !errors.Is(err, ErrHeaderSent):
	case n > 0:
		return callError{s.draft.changes[n-1].String(), err}
	case s.draft.renewal != nil:
		return callError{"Renew", err}
	}
	return err
}

// A change is a call of the handler.
type change = records.Change
