package session

import (
	"bytes"
	"encoding"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"unicode/utf8"
)

var jsonNull = []byte("null")

// encodeJSON returns v as encoding/json writes it, without escaping HTML. That is how
// JSON.stringify writes it, so equal values are equal bytes here and in Express. A value that would
// be read back as another one is an error.
func encodeJSON[T any](v T) ([]byte, error) {
	if err := checkType(reflect.TypeFor[T]()); err != nil {
		return nil, err
	}
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(&v); err != nil { // the address, so that a MarshalJSON of *T is found
		return nil, err
	}
	value := bytes.TrimSuffix(b.Bytes(), []byte("\n"))
	// encoding/json writes values that are nested deeper than it reads. Such a value is long. In
	// a record of Express, it would make the whole record unreadable.
	if len(value) > 2*maxDepth && !json.Valid(slices.Concat([]byte("["), value, []byte("]"))) {
		return nil, fmt.Errorf("nested more than %d deep", maxDepth)
	}
	// encoding/json writes the escape \ufffd for bytes that are not UTF-8. It does not escape
	// a U+FFFD that stands in the text itself.
	if !utf8.Valid(value) || bytes.Contains(value, []byte(`\ufffd`)) && !hasValidText(reflect.ValueOf(&v)) {
		return nil, errors.New("text that is not valid UTF-8, which JSON cannot hold; use []byte, which becomes base64")
	}
	return value, nil
}

// checkType returns an error for a type that encoding/json writes and cannot read back.
func checkType(t reflect.Type) error {
	for range maxTypeDepth { // a type may be a slice of itself
		switch t.Kind() {
		case reflect.Interface:
			return fmt.Errorf("the type %v is an interface, and what is in it cannot be read back; use the type itself, or json.RawMessage", t)
		case reflect.Pointer, reflect.Slice, reflect.Array:
			if encodesItself(t) || t.Elem().Kind() == reflect.Interface && t.Kind() != reflect.Pointer {
				return nil
			}
			t = t.Elem()
		case reflect.Struct:
			if t.NumField() > 0 && !encodesItself(t) && !hasFields(t, maxTypeDepth) {
				return fmt.Errorf("the type %v has no exported field, and JSON holds no others", t)
			}
			return nil
		default:
			return nil
		}
	}
	return nil
}

// maxTypeDepth bounds how deep checkType looks into a type. A type may contain itself.
const maxTypeDepth = 16

var (
	jsonMarshaler = reflect.TypeFor[json.Marshaler]()
	textMarshaler = reflect.TypeFor[encoding.TextMarshaler]()
)

// encodesItself reports whether t has a MarshalJSON or MarshalText method.
func encodesItself(t reflect.Type) bool {
	p := reflect.PointerTo(t)
	return p.Implements(jsonMarshaler) || p.Implements(textMarshaler)
}

// hasFields reports whether encoding/json sees a field in t, or in the structs embedded in it, down
// to that depth.
func hasFields(t reflect.Type, depth int) bool {
	for i := range t.NumField() {
		f := t.Field(i)
		inner := f.Type
		if f.Anonymous && inner.Kind() == reflect.Pointer {
			inner = inner.Elem()
		}
		if f.Tag.Get("json") != "-" && (f.IsExported() || f.Anonymous && inner.Kind() == reflect.Struct && depth > 0 && hasFields(inner, depth-1)) {
			return true
		}
	}
	return false
}

// hasValidText reports whether all text in v that encoding/json writes is UTF-8.
func hasValidText(v reflect.Value) bool {
	if !v.IsValid() {
		return true
	}
	if encodesItself(v.Type()) {
		text, ok := textOf(v)
		return !ok || utf8.ValidString(text)
	}
	switch v.Kind() {
	case reflect.String:
		return utf8.ValidString(v.String())
	case reflect.Pointer, reflect.Interface:
		return hasValidText(v.Elem())
	case reflect.Slice, reflect.Array:
		for i := range v.Len() {
			if !hasValidText(v.Index(i)) {
				return false
			}
		}
	case reflect.Map:
		for key, value := range v.Seq2() {
			if !hasValidText(key) || !hasValidText(value) {
				return false
			}
		}
	case reflect.Struct:
		for i := range v.NumField() {
			f := v.Type().Field(i)
			if (f.IsExported() || f.Anonymous) && f.Tag.Get("json") != "-" && !hasValidText(v.Field(i)) {
				return false
			}
		}
	}
	return true
}

// textOf returns the text that encoding/json gets from v's MarshalText method. It reports false if
// v has a MarshalJSON method, whose JSON encoding/json takes as it is.
func textOf(v reflect.Value) (string, bool) {
	if v.CanAddr() {
		v = v.Addr()
	}
	if !v.CanInterface() || v.Type().Implements(jsonMarshaler) {
		return "", false
	}
	m, ok := v.Interface().(encoding.TextMarshaler)
	if !ok || v.Kind() == reflect.Pointer && v.IsNil() {
		return "", false
	}
	text, err := m.MarshalText()
	return string(text), err == nil
}

// maxDepth is how deep a value may be nested. It is one less than encoding/json reads, because a
// record of Express is an object around its values.
const maxDepth = 9999

// decodeJSON decodes what encodeJSON or another program has written, and reports whether there is a
// value.
func decodeJSON[T any](value []byte) (T, bool, error) {
	if value == nil || bytes.Equal(value, jsonNull) {
		return *new(T), false, nil
	}
	v := new(T)
	// An UnmarshalJSON may keep or change its argument, and the bytes may belong to the
	// store. So it gets a copy.
	if err := json.Unmarshal(bytes.Clone(value), v); err != nil {
		return *new(T), false, err
	}
	return *v, true, nil
}
