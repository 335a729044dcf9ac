package session

import (
	"bytes"
	"fmt"
	"log/slog"
	"reflect"

	"github.com/seed-4f96e14b/session/internal/wire"
)

// A Key names a session value of type T. Declare keys as constants:
//
//	const userIDKey session.Key[int64] = "userId"
//
// Each value is JSON by itself. It is encoded by encoding/json when it is set, and decoded when it
// is read. No type has to be registered. What encoding/json leaves out, such as unexported fields,
// is not stored. A value that Get returns belongs to the caller: to change the session, change the
// value and Set it.
type Key[T any] string

// Get returns the value, or the zero T if the session has none of type T.
func (k Key[T]) Get(s *Session) T {
	v, _ := k.Lookup(s)
	return v
}

// Lookup returns the value, and reports whether the session has one of type T. JSON null counts as
// absent. A stored value that does not decode as a T counts as absent too; it stays as it is, and
// is logged once.
func (k Key[T]) Lookup(s *Session) (T, bool) {
	return k.decode(s, s.get(string(k)))
}

// Has reports whether the session has a value of type T, as Lookup does.
func (k Key[T]) Has(s *Session) bool {
	_, ok := k.Lookup(s)
	return ok
}

// Set stores v. If JSON cannot hold v, or not give it back as it was, that is an [ErrEncode] of the
// session which names the key; see [Session.Err]. This concerns a NaN, text that is not UTF-8, a T
// that is an interface, and a T that is a struct without exported fields.
func (k Key[T]) Set(s *Session, v T) {
	value, err := k.encode(v)
	if err == nil {
		err = s.manager.codec.CheckKey(string(k))
	}
	c := change{Call: "Set", Key: string(k), Make: func(r *wire.Record) error {
		r.Set(string(k), value)
		return nil
	}}
	if err != nil {
		s.reject(c, err)
		return
	}
	s.change(c)
}

// Update replaces the value by f(value), or by f of the zero T if there is none. It holds under
// concurrency: if many requests increment a value at once, all increments are counted.
//
// For that, f may run several times, also while the response is being committed. It must use its
// argument only, and not the session, the request or the response. An absent map is nil, as
// everywhere in Go. A value that is not a T is replaced, and logged.
//
// Until the session is saved, Get returns what this request has made of the value. Another request
// may be saved before it. If the response depends on the result, such as the number of a ticket,
// call [Session.Save] first, and then Get.
func (k Key[T]) Update(s *Session, f func(T) T) {
	c := change{Call: "Update", Key: string(k), Make: func(r *wire.Record) error {
		v, _, _ := decodeJSON[T](r.Get(string(k)))
		value, err := k.encode(f(v))
		if err == nil {
			r.Set(string(k), value)
		}
		return err
	}}
	if err := s.manager.codec.CheckKey(string(k)); err != nil {
		s.reject(c, err)
		return
	}
	for range maxUpdates {
		old := s.get(string(k))
		v, _ := k.decode(s, old)
		value, err := k.encode(f(v))
		if err != nil {
			s.reject(c, err)
			return
		}
		if s.changeIf(c, old, value) {
			return
		}
	}
	s.reject(c, fmt.Errorf("session: Update of key %q: the value changed %d times while the function ran; does the function change it?", string(k), maxUpdates))
}

// maxUpdates bounds the attempts of an Update whose function changes its own key.
const maxUpdates = 10_000

// Pop returns what Lookup returns, and deletes the key. It is made for flash messages. It is not a
// lock: two requests at once may both get the value. A value that is not a T stays.
func (k Key[T]) Pop(s *Session) (T, bool) {
	for {
		value := s.get(string(k))
		v, ok := k.decode(s, value)
		if value != nil && !ok && !bytes.Equal(value, jsonNull) {
			return v, false
		}
		if s.changeIf(change{Call: "Pop", Key: string(k), Make: k.remove}, value, nil) {
			return v, ok
		}
	}
}

// Delete removes the value, if there is one.
func (k Key[T]) Delete(s *Session) {
	s.change(change{Call: "Delete", Key: string(k), Make: k.remove})
}

func (k Key[T]) remove(r *wire.Record) error {
	r.Set(string(k), nil)
	return nil
}

func (k Key[T]) encode(v T) ([]byte, error) {
	value, err := encodeJSON(v)
	if err != nil {
		return nil, fmt.Errorf("%w under key %q: %w", ErrEncode, string(k), err)
	}
	return value, nil
}

func (k Key[T]) decode(s *Session, value []byte) (T, bool) {
	v, ok, err := decodeJSON[T](value)
	if err != nil {
		k.logMismatch(s)
	}
	return v, ok
}

// logMismatch logs that the stored value is not a T. It leaves out the decoder's error, which may
// quote the value.
func (k Key[T]) logMismatch(s *Session) {
	typ := reflect.TypeFor[T]().String()
	if !s.manager.lines.isNew(string(k), typ) {
		return
	}
	attrs := appendPattern([]slog.Attr{slog.String("key", string(k)), slog.String("type", typ)}, s.inner.Pattern)
	s.manager.log(s.request.Context(), slog.LevelWarn, "session: a stored value is not of its key's type, and counts as absent; this is logged once for the key", attrs...)
}
