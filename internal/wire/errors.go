package wire

import (
	"errors"
	"fmt"
)

// The errors that every room uses. Package session exports those that are also its users',
// and documents them there.
var (
	ErrNotFound      = errors.New("session: not found")
	ErrConflict      = errors.New("session: conflict")
	ErrUnreadable    = errors.New("session: unreadable record")
	ErrUnavailable   = errors.New("session: store unavailable")
	ErrNotReplicated = errors.New("session: not acknowledged by enough replicas")
	ErrTooLarge      = errors.New("session: too large")
	ErrRenewed       = errors.New("session: another request has replaced its cookie")

	// ErrReplaced is the error of Load for a handle whose secret has just lost its worth.
	ErrReplaced = errors.New("the cookie has just been replaced")

	// ErrNewerFormat is the error of Decode for a record that a later version of this
	// library has written.
	ErrNewerFormat = errors.New("record in a newer format than this version of the library knows")

	// ErrContended is the error of a save that other requests for the same session have
	// prevented.
	ErrContended = errors.New("too many requests change the session at once")
)

// Unavailable returns an [ErrUnavailable] that says what could not be done, and why.
func Unavailable(verb string, err error) error {
	return fmt.Errorf("%w: %s: %w", ErrUnavailable, verb, err)
}
