package session

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
)

var jsonNull = []byte("null")

// encodeJSON returns v as encoding/json writes it, but for the HTML escapes: as
// JSON.stringify, so that equal values are equal bytes.
func encodeJSON[T any](v T) ([]byte, error) {
	if value := encodePlain(v); value != nil {
		return value, nil
	}
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		return nil, err
	}
	value := bytes.TrimSuffix(b.Bytes(), []byte("\n"))
	// encoding/json writes values nested deeper than it reads, and a record of Express
	// that has one is lost as a whole. So deep a value is not short.
	if len(value) > 2*maxDepth && !json.Valid(slices.Concat([]byte("["), value, []byte("]"))) {
		return nil, fmt.Errorf("nested more than %d deep", maxDepth)
	}
	return value, nil
}

// maxDepth is one less than encoding/json reads, because a record of Express is an object
// around its values.
const maxDepth = 9999

// decodeJSON reads what encodeJSON or another program has written, and reports whether
// it is a value.
func decodeJSON[T any](value []byte) (v T, ok bool, err error) {
	if value == nil || bytes.Equal(value, jsonNull) {
		return v, false, nil
	}
	if v, ok := decodePlain[T](value); ok {
		return v, true, nil
	}
	return decodeAny[T](value)
}

func decodeAny[T any](value []byte) (v T, ok bool, err error) {
	// A copy, because an UnmarshalJSON may keep or change what it gets, and the bytes
	// may be those of the store.
	if err := json.Unmarshal(bytes.Clone(value), &v); err != nil {
		return *new(T), false, err
	}
	return v, true, nil
}

// encodePlain returns the JSON of numbers, truth values and ASCII without escapes, which
// most values are. Nil leaves v to encoding/json, with which it agrees to the byte.
func encodePlain[T any](v T) []byte {
	switch v := any(v).(type) {
	case int64:
		return strconv.AppendInt(nil, v, 10)
	case int:
		return strconv.AppendInt(nil, int64(v), 10)
	case bool:
		return strconv.AppendBool(nil, v)
	case string:
		if isPlain(v) {
			return slices.Concat([]byte{'"'}, []byte(v), []byte{'"'})
		}
	}
	return nil
}

// decodePlain is the other way.
func decodePlain[T any](value []byte) (v T, ok bool) {
	switch p := any(&v).(type) {
	case *int64:
		*p, ok = decodeInt(value)
	case *int:
		var n int64
		n, ok = decodeInt(value)
		*p = int(n)
		ok = ok && int64(*p) == n
	case *bool:
		*p = string(value) == "true"
		ok = *p || string(value) == "false"
	case *string:
		if n := len(value); n >= 2 && value[0] == '"' && value[n-1] == '"' && isPlain(value[1:n-1]) {
			*p, ok = string(value[1:n-1]), true
		}
	}
	return v, ok
}

// decodeInt reads a number that JSON writes without a point, an exponent or a zero before it.
func decodeInt(value []byte) (int64, bool) {
	if string(value) == "0" {
		return 0, true
	}
	digits := bytes.TrimPrefix(value, []byte("-"))
	if len(digits) == 0 || digits[0] < '1' || digits[0] > '9' {
		return 0, false
	}
	n, err := strconv.ParseInt(string(value), 10, 64)
	return n, err == nil
}

// isPlain reports whether JSON has the text as it is.
func isPlain[T string | []byte](text T) bool {
	for i := range len(text) {
		if b := text[i]; b < ' ' || b >= 0x7f || b == '"' || b == '\\' {
			return false
		}
	}
	return true
}
