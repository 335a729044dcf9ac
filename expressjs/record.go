package expressjs

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"net/http"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/seed-4f96e14b/session"
	"github.com/seed-4f96e14b/session/internal/wire"
)

// A record is a JSON object. It has "cookie" with the attributes and the lifetime, the values
// and, after the first save by Go, "_goSession". Go keeps what it does not change byte for byte,
// such as a number beyond 2^53, a lone surrogate, or an unknown attribute.

// A foreign is what a Record keeps beside its values.
type foreign struct {
	cookie  *cookieMember
	unnamed []member // those whose names a Go string cannot hold
	renewal *renewal // that is under way
}

// A cookieMember is the member "cookie".
type cookieMember struct {
	members []member
	attributes
}

const (
	originalMaxAge = "originalMaxAge" // milliseconds, or null
	expires        = "expires"        // a date, or null
)

// A bookkeeping is the member "_goSession": what a [wire.Record] has and Express does not know.
// Times are Unix milliseconds.
type bookkeeping struct {
	Created int64      `json:"created"`
	Used    int64      `json:"used"`
	Kept    int64      `json:"kept"`
	Resets  uint64     `json:"resets,omitempty"`
	Saves   wire.Saves `json:"saves"`
	Origin  string     `json:"origin,omitempty"` // the session's first key
	Renewal *renewal   `json:"renewal,omitempty"`
}

// A member is one of a JSON object, as it stands there.
type member struct {
	name           string
	rawName, value []byte
}

const ownMember = "_goSession"

// reserved are the names that Express drops when it reads a record: those of its methods, and
// those that every JavaScript object has.
var reserved = []string{
	"cookie", ownMember,
	"req", "id", "touch", "resetMaxAge", "save", "reload", "destroy", "regenerate",
	"constructor", "toString", "toLocaleString", "valueOf", "hasOwnProperty", "isPrototypeOf", "propertyIsEnumerable",
	"__proto__", "__defineGetter__", "__defineSetter__", "__lookupGetter__", "__lookupSetter__",
}

// CheckKey implements [wire.Records].
func (c *codec) CheckKey(key string) error {
	switch {
	case slices.Contains(reserved, key):
		return fmt.Errorf("expressjs: key %q is reserved by express-session, which drops it; use another name", key)
	case !isName([]byte(key)):
		return fmt.Errorf("expressjs: key %q is not valid UTF-8, which JSON needs", key)
	}
	return nil
}

// isName reports whether a name comes out of JSON as it went in.
func isName(key []byte) bool {
	return utf8.Valid(key) && !bytes.ContainsRune(key, utf8.RuneError)
}

// Begin implements [wire.Records].
func (c *codec) Begin(r *wire.Record, now time.Time) {
	r.Created, r.MaxAge = now.UnixMilli(), c.maxAge
}

// IsOver implements [wire.Records]. It is false: Express prolongs the time to live without changing
// the record, so "expires" may be out of date, and a record that is there is alive.
func (c *codec) IsOver(int64, time.Time) bool { return false }

// TTL implements [wire.Records]. It rounds up to whole seconds, as connect-redis does.
func (c *codec) TTL(left time.Duration) time.Duration {
	if left > math.MaxInt64-time.Second {
		return left
	}
	return max((left + time.Second - 1).Truncate(time.Second), time.Second)
}

// Lifetime implements [wire.Records]. TTLFunc decides, if the app has one.
func (c *codec) Lifetime(r *wire.Record, otherwise time.Duration) time.Duration {
	if c.ttl == nil {
		return otherwise
	}
	values := make(map[string]json.RawMessage, len(r.Values()))
	for _, v := range r.Values() {
		values[string(v.Key)] = slices.Clone(v.JSON)
	}
	return max(c.ttl(values), time.Second)
}

// cookieExpires returns when the cookie of a session that has a lifetime ends.
func (c *codec) cookieExpires(r *wire.Record) int64 {
	own, _ := r.MaxAge.Own()
	if c.ttl == nil {
		return r.Kept
	}
	return r.Kept + (own - c.Lifetime(r, own)).Milliseconds()
}

// cookieOf returns the member "cookie" of a record, or that of a session that begins.
func (c *codec) cookieOf(r *wire.Record) *cookieMember {
	if f, ok := r.Foreign.(*foreign); ok {
		return f.cookie
	}
	return c.fresh
}

// Decode implements [wire.Records]. It refuses what Express cannot read either: data that is not a
// JSON object with an object "cookie" in it.
func (c *codec) Decode(at string, data []byte) (wire.Record, error) {
	if len(data) == 0 || string(data) == "null" { // as Express sees them
		return wire.Record{}, session.ErrNotFound
	}
	f, values, ownData, err := decodeMembers(data)
	if err != nil {
		return wire.Record{}, unreadable("%w", err)
	}
	var own bookkeeping
	now := time.Now().UnixMilli()
	r := wire.Record{Created: now, Secret: wire.DigestOf(at), Foreign: f, Extra: own.decode(ownData)}
	r.SetValues(sorted(values))
	if r.MaxAge, err = decodeMaxAge(f.cookie.get(originalMaxAge)); err != nil {
		return wire.Record{}, unreadable("%w", err)
	}
	r.Used, r.Kept = max(own.Used, 0), max(own.Kept, 0)
	if lifetime, _ := r.MaxAge.Own(); lifetime > 0 && c.ttl == nil {
		if end := decodeDate(f.cookie.get(expires)); end != r.Kept { // Express has used it since
			r.Used, r.Kept = max(r.Used, end-lifetime.Milliseconds()), end
		}
	}
	if own.Created > 0 {
		r.Created = min(own.Created, now)
	}
	r.Resets, r.Saves, r.Origin = own.Resets, own.Saves, own.Origin
	f.renewal = own.Renewal
	return r, nil
}

// decodeMembers returns what a record has: the member "cookie", the values, and our own
// member, which is nil if there is none.
func decodeMembers(data []byte) (f *foreign, values []wire.Value, own []byte, err error) {
	f = &foreign{}
	var cookie []byte
	err = eachMember(data, func(rawName, value []byte) {
		switch name := decodeName(rawName); {
		case string(name) == "cookie":
			cookie = value
		case string(name) == ownMember:
			own = value
		case isName(name):
			values = append(values, wire.Value{Key: name, JSON: value})
		default:
			f.unnamed = append(f.unnamed, member{string(name), rawName, value})
		}
	})
	if err == nil && cookie == nil {
		err = errors.New("without a member cookie")
	}
	if err == nil {
		f.cookie, err = decodeCookie(cookie)
	}
	return f, values, own, err
}

func unreadable(format string, args ...any) error {
	return fmt.Errorf("%w: not a session of Express: %w", session.ErrUnreadable, fmt.Errorf(format, args...))
}

// decode takes what it can, because Express may have written anything in this member. It returns
// the members of it that it does not know, which a later version of this library has written.
func (b *bookkeeping) decode(data []byte) (extra []byte) {
	all, _ := members(data) // none if it is not an object
	for _, m := range all {
		known, ok := map[string]any{
			"created": &b.Created, "used": &b.Used, "kept": &b.Kept, "resets": &b.Resets,
			"saves": &b.Saves, "origin": &b.Origin, "renewal": &b.Renewal,
		}[m.name]
		if ok {
			_ = json.Unmarshal(m.value, known) // zero if it is of another type
		} else {
			extra = appendMember(append(extra, ','), m)
		}
	}
	if !b.Saves.IsValid() {
		b.Saves = nil
	}
	return extra
}

// sorted returns the values by key. If several have one key, the last counts.
func sorted(values []wire.Value) []wire.Value {
	slices.SortStableFunc(values, func(a, b wire.Value) int { return bytes.Compare(a.Key, b.Key) })
	n := 0
	for i, v := range values {
		if i+1 == len(values) || !bytes.Equal(v.Key, values[i+1].Key) {
			values[n] = v
			n++
		}
	}
	return values[:n]
}

// members returns the members of a JSON object in order. If several have one name, the last counts.
func members(data []byte) (all []member, err error) {
	index := make(map[string]int)
	err = eachMember(data, func(rawName, value []byte) {
		name := decodeName(rawName)
		m := member{string(name), rawName, value}
		if i, dup := index[m.name]; dup && isName(name) {
			all[i] = m
			return
		}
		index[m.name] = len(all)
		all = append(all, m)
	})
	return all, err
}

// eachMember goes through the members of a JSON object in order, each as it stands there. A session
// may have thousands, and most requests read one or two. So the object is checked once, and then
// only the ends of its members are looked for.
func eachMember(data []byte, visit func(rawName, value []byte)) error {
	if !json.Valid(data) {
		return errors.New("not JSON")
	}
	if data = skipSpace(data); data[0] != '{' {
		return errors.New("not a JSON object")
	}
	for data = skipSpace(data[1:]); data[0] != '}'; {
		if data[0] == ',' {
			data = skipSpace(data[1:])
		}
		rawName, rest := cutJSON(data)
		value, rest := cutJSON(skipSpace(skipSpace(rest)[1:])) // after the colon
		visit(rawName, value)
		data = skipSpace(rest)
	}
	return nil
}

func skipSpace(data []byte) []byte { return bytes.TrimLeft(data, " \t\r\n") }

// cutJSON returns the value that valid JSON begins with, and what follows it.
func cutJSON(data []byte) (value, rest []byte) {
	depth := 0
	for i := 0; i < len(data); i++ {
		switch data[i] {
		case '"':
			for i++; data[i] != '"'; i++ {
				if data[i] == '\\' {
					i++
				}
			}
		case '{', '[':
			depth++
			continue
		case '}', ']':
			depth--
		default:
			if depth > 0 {
				continue
			}
			for i+1 < len(data) && strings.IndexByte(",]} \t\r\n", data[i+1]) < 0 {
				i++
			}
		}
		if depth == 0 {
			return data[: i+1 : i+1], data[i+1:]
		}
	}
	return data, nil
}

// decodeName returns a member's name without its quotes. It does not copy a name without escapes.
func decodeName(raw []byte) []byte {
	if name := raw[1 : len(raw)-1 : len(raw)-1]; bytes.IndexByte(name, '\\') < 0 && utf8.Valid(name) {
		return name
	}
	var name string
	_ = json.Unmarshal(raw, &name) // which is valid
	return []byte(name)
}

// decodeCookie reads the member "cookie", in which Express may have written anything.
func decodeCookie(data []byte) (*cookieMember, error) {
	all, err := members(data)
	if err != nil {
		return nil, errors.New("the member cookie is not an object")
	}
	c := &cookieMember{members: all}
	text := func(name string) string {
		var s string
		_ = json.Unmarshal(c.get(name), &s) // else none
		return s
	}
	is := func(name, value string) bool { return string(c.get(name)) == value }
	c.httpOnly = !is("httpOnly", "false")
	c.secure = is("secure", "true") || text("secure") != "" // "auto", which a cookie function leaves as it is
	c.partitioned = is("partitioned", "true")
	c.path, c.domain = text("path"), text("domain")
	if check := (&http.Cookie{Name: "x", Path: c.path}); c.path == "" || check.Valid() != nil {
		c.path = "/"
	}
	if check := (&http.Cookie{Name: "x", Domain: c.domain}); check.Valid() != nil {
		c.domain = ""
	}
	switch p := strings.ToLower(text("priority")); p {
	case "low", "medium", "high":
		c.priority = p
	}
	c.sameSite = http.SameSiteDefaultMode
	if is("sameSite", "true") {
		c.sameSite = http.SameSiteStrictMode
	} else if mode, err := sameSiteOption(text("sameSite")); err == nil {
		c.sameSite = mode
	}
	return c, nil
}

// get returns the JSON of a member, or nil.
func (c *cookieMember) get(name string) []byte {
	for _, m := range c.members {
		if m.name == name {
			return m.value
		}
	}
	return nil
}

// decodeMaxAge reads milliseconds. A session that has none lives until the browser closes.
func decodeMaxAge(value []byte) (wire.MaxAge, error) {
	switch string(value) {
	case "", "null", "false":
		return wire.NewMaxAge(0), nil
	}
	var ms float64
	if err := json.Unmarshal(value, &ms); err != nil {
		return 0, errors.New("cookie.originalMaxAge is not a number")
	}
	const most = float64(math.MaxInt64 / int64(time.Millisecond) / 2)
	return wire.NewMaxAge(time.Duration(min(max(ms, 1), most)) * time.Millisecond), nil
}

// decodeDate returns Unix milliseconds. It returns 0 for what is not a date, so that the deadline is
// due to be written.
func decodeDate(value []byte) int64 {
	var date time.Time
	if json.Unmarshal(value, &date) == nil && string(value) != "null" {
		return max(date.UnixMilli(), 0)
	}
	var ms float64
	if json.Unmarshal(value, &ms) == nil {
		return int64(min(max(ms, 0), math.MaxInt64/2))
	}
	return 0
}

// jsonDate is the layout of JavaScript's Date.prototype.toJSON.
const jsonDate = "2006-01-02T15:04:05.000Z"

// Encode implements [wire.Records].
func (c *codec) Encode(r *wire.Record) []byte {
	cookie := c.cookieOf(r)
	own := bookkeeping{Created: r.Created, Used: r.Used, Kept: r.Kept, Resets: r.Resets, Saves: r.Saves, Origin: r.Origin}
	var unnamed []member
	if f, ok := r.Foreign.(*foreign); ok {
		unnamed, own.Renewal = f.unnamed, f.renewal
	}
	maxAge, date := []byte("null"), []byte("null")
	if lifetime, _ := r.MaxAge.Own(); lifetime > 0 {
		maxAge = encode(lifetime.Milliseconds())
		date = encode(time.UnixMilli(c.cookieExpires(r)).UTC().Format(jsonDate))
	} else if string(cookie.get(originalMaxAge)) == "false" { // as Express writes it for expires = false
		maxAge, date = []byte("false"), []byte("false")
	}

	b := append(make([]byte, 0, 256+r.Size()+8*len(r.Values())), `{"cookie":`...)
	b = cookie.append(b, maxAge, date)
	for _, v := range r.Values() {
		b = appendQuoted(append(b, ','), v.Key)
		b = append(append(b, ':'), v.JSON...)
	}
	for _, m := range unnamed {
		b = appendMember(append(b, ','), m)
	}
	b = append(b, `,"`+ownMember+`":`...)
	b = append(b, bytes.TrimSuffix(encode(own), []byte("}"))...)
	return append(append(b, r.Extra...), "}}"...)
}

// append appends the member with another lifetime. An attribute that is absent is written with the
// value that Express assumes for it.
func (c *cookieMember) append(b, maxAge, date []byte) []byte {
	all := slices.Clone(c.members)
	set := func(name string, value []byte, always bool) {
		i := slices.IndexFunc(all, func(m member) bool { return m.name == name })
		switch {
		case i < 0:
			all = append(all, member{name, quote(name), value})
		case always:
			all[i].value = value
		}
	}
	set(originalMaxAge, maxAge, true)
	set(expires, date, true)
	set("httpOnly", []byte("true"), false)
	set("path", []byte(`"/"`), false)
	b = append(b, '{')
	for i, m := range all {
		if i > 0 {
			b = append(b, ',')
		}
		b = appendMember(b, m)
	}
	return append(b, '}')
}

func appendMember(b []byte, m member) []byte {
	b = append(append(b, m.rawName...), ':')
	return append(b, m.value...)
}

// encode returns the JSON of a value that has one.
func encode(value any) []byte {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(value); err != nil {
		panic(fmt.Errorf("expressjs: %w", err))
	}
	return bytes.TrimSuffix(b.Bytes(), []byte("\n"))
}

func quote(name string) []byte { return encode(name) }

// appendQuoted appends what quote returns.
func appendQuoted(b, name []byte) []byte {
	for _, c := range name {
		if c < ' ' || c > '~' || c == '"' || c == '\\' {
			return append(b, quote(string(name))...)
		}
	}
	return append(append(append(b, '"'), name...), '"')
}
