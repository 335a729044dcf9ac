package session

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"
)

var jsonNull = []byte("null")

// encodeJSON returns v as encoding/json writes it, but for the HTML escapes: as
// JSON.stringify, so that equal values are equal bytes.
func encodeJSON[T any](v T) ([]byte, error) {
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
func decodeJSON[T any](value []byte) (T, bool, error) {
	if value == nil || bytes.Equal(value, jsonNull) {
		return *new(T), false, nil
	}
	v := new(T)
	// A copy, because an UnmarshalJSON may keep or change what it gets, and the bytes
	// may be those of the store.
	if err := json.Unmarshal(bytes.Clone(value), v); err != nil {
		return *new(T), false, err
	}
	return *v, true, nil
}
