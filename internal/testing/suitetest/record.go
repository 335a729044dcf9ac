package suitetest

import (
	"context"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"reflect"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
)

// A Record holds the texts that tests have shown, and what none of them may have in it.
// Its zero value is empty. It is safe for concurrent use.
type Record struct {
	off     bool
	mu      sync.Mutex
	texts   map[string]string // and the test that showed it first
	cookies map[string]struct{}
	keys    map[string]struct{}
	counts  map[any]int // of what isFew was asked for
}

// Logger returns a logger that also writes down what the test logs through it, on every
// level. The one given may be nil.
func (r *Record) Logger(t testing.TB, logger *slog.Logger) *slog.Logger {
	next := slog.DiscardHandler
	if logger != nil {
		next = logger.Handler()
	}
	if r.off {
		return slog.New(next)
	}
	name := t.Name()
	own := slog.NewTextHandler(&page{r, name}, &slog.HandlerOptions{
		Level: slog.LevelDebug,
		ReplaceAttr: func(groups []string, a slog.Attr) slog.Attr { // so that equal lines are one
			if len(groups) == 0 && a.Key == slog.TimeKey {
				return slog.Attr{}
			}
			return a
		},
	})
	return slog.New(both{r, name, own, next})
}

// A page is where a test's logger writes.
type page struct {
	record *Record
	test   string
}

func (p *page) Write(line []byte) (int, error) {
	p.record.write(func() string { return p.test }, string(line))
	return len(line), nil
}

// both writes to two handlers. Own takes every level, and of each message few.
type both struct {
	record    *Record
	test      string
	own, next slog.Handler
}

func (b both) Enabled(context.Context, slog.Level) bool { return true }

func (b both) Handle(ctx context.Context, line slog.Record) error {
	if b.record.isFew([2]string{b.test, line.Message}) {
		_ = b.own.Handle(ctx, line) // writes to memory
	}
	if !b.next.Enabled(ctx, line.Level) {
		return nil
	}
	return b.next.Handle(ctx, line)
}

func (b both) WithAttrs(attrs []slog.Attr) slog.Handler {
	return both{b.record, b.test, b.own.WithAttrs(attrs), b.next.WithAttrs(attrs)}
}

func (b both) WithGroup(name string) slog.Handler {
	return both{b.record, b.test, b.own.WithGroup(name), b.next.WithGroup(name)}
}

// Show prints the values in every way that a log might. What is no error and not of the
// library is left out: it is not ours to print, and may be in use.
func (r *Record) Show(values ...any) {
	if r.off {
		return
	}
	for _, v := range values {
		if err, isError := v.(error); isError && r.knows(err.Error()) || !isError && (!isOurs(v) || !r.isFew(reflect.TypeOf(v))) {
			continue
		}
		for _, verb := range []string{"%v", "%+v", "%#v", "%s"} {
			r.write(runningTest, withoutAddresses(fmt.Sprintf(verb, v)))
		}
	}
}

// few is how many values of one type, and lines of one message, are looked at for all:
// a run may have a million.
const few = 1000

// isFew reports whether there were few like it, and counts it.
func (r *Record) isFew(kind any) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.counts == nil {
		r.counts = make(map[any]int)
	}
	r.counts[kind]++
	return r.counts[kind] <= few
}

func (r *Record) knows(text string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	_, ok := r.texts[text]
	return ok
}

func isOurs(v any) bool {
	t := reflect.TypeOf(v)
	if t != nil && t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	return t != nil && slices.Contains(library, t.PkgPath()+".")
}

// withoutAddresses makes what differs in addresses only equal.
func withoutAddresses(text string) string {
	parts := strings.Split(text, "0x")
	for i := 1; i < len(parts); i++ {
		rest := strings.TrimLeft(parts[i], "0123456789abcdef")
		if digits := len(parts[i]) - len(rest); digits >= 8 && digits <= 16 { // bytes have fewer, and secrets more
			parts[i] = rest
		}
	}
	return strings.Join(parts, "0x")
}

// runningTest returns the function of the test whose code runs.
func runningTest() string {
	var callers [64]uintptr
	frames := runtime.CallersFrames(callers[:runtime.Callers(1, callers[:])])
	for {
		frame, more := frames.Next()
		_, name, _ := strings.Cut(frame.Function, "_test.")
		for _, prefix := range []string{"Test", "Fuzz", "Benchmark", "Example"} {
			if strings.HasPrefix(name, prefix) {
				name, _, _ = strings.Cut(name, ".")
				return name
			}
		}
		if !more {
			return "a test"
		}
	}
}

func (r *Record) write(test func() string, text string) {
	if r.off {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if _, known := r.texts[text]; known {
		return
	}
	if r.texts == nil {
		r.texts = make(map[string]string)
	}
	r.texts[text] = test()
}

// Cookies says what a client sends or gets.
func (r *Record) Cookies(cookies []*http.Cookie) {
	for _, c := range cookies {
		r.add(&r.cookies, c.Value)
	}
}

// Key says what cookies are signed with.
func (r *Record) Key(keys ...string) {
	for _, key := range keys {
		r.add(&r.keys, key)
	}
}

// longest is as much of a secret as is looked for.
const longest = 512

func (r *Record) add(set *map[string]struct{}, secret string) {
	if r.off || len(secret) < shortest {
		return
	}
	secret = secret[:min(len(secret), longest)]
	r.mu.Lock()
	defer r.mu.Unlock()
	if *set == nil {
		*set = make(map[string]struct{})
	}
	(*set)[secret] = struct{}{}
}

// Leaks returns a line for each text that gives away a cookie, an id or a key, whole or
// in part, as it is or in another encoding.
func (r *Record) Leaks() (leaks []string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	index := newIndex()
	for text := range r.texts {
		index.add(text)
	}
	var needles, some []needle
	keep := func() { // of each secret at once: a run may have a hundred thousand
		for _, n := range some {
			if index.mayHave(n.text) {
				needles = append(needles, n)
			}
		}
	}
	for value := range r.cookies {
		some = appendCookie(some[:0], value)
		keep()
	}
	for key := range r.keys {
		some = appendEncoded(some[:0], "a signing key", []byte(key))
		keep()
	}
	slices.SortFunc(needles, func(a, b needle) int { return len(b.text) - len(a.text) })
	for text, test := range r.texts {
		if what, masked := mask(text, needles); what != "" {
			leaks = append(leaks, fmt.Sprintf("%s: %s is in %q", test, what, masked))
		}
	}
	slices.Sort(leaks)
	return leaks
}

// mask returns what a text gives away, "" for nothing, and the text without it.
func mask(text string, needles []needle) (what, masked string) {
	var secret []bool // by byte of the text: needles overlap
	for _, n := range needles {
		for at := 0; ; at++ {
			i := strings.Index(text[at:], n.text)
			if i < 0 {
				break
			}
			if secret == nil {
				what, secret = n.what, make([]bool, len(text)) // the longest comes first
			}
			at += i
			for k := range n.text {
				secret[at+k] = true
			}
		}
	}
	var b strings.Builder
	for i := range secret {
		switch {
		case !secret[i]:
			b.WriteByte(text[i])
		case i == 0 || !secret[i-1]:
			b.WriteString("********")
		}
	}
	return what, b.String()
}

// An index knows which runs of eight bytes are in the texts, and says of a few others that
// they are too: cookies are many, and nearly none of them is anywhere.
type index []uint64

const indexBits = 26

func newIndex() index { return make(index, 1<<(indexBits-6)) }

func place(eight string) (word uint64, bit uint64) {
	const spread = 0x9E3779B97F4A7C15 // 2^64 over the golden ratio
	h := binary.LittleEndian.Uint64([]byte(eight)) * spread >> (64 - indexBits)
	return h >> 6, 1 << (h & 63)
}

func (x index) add(text string) {
	for i := 8; i <= len(text); i++ {
		word, bit := place(text[i-8 : i])
		x[word] |= bit
	}
}

func (x index) mayHave(text string) bool {
	for _, eight := range []string{text[:8], text[len(text)-8:]} {
		if word, bit := place(eight); x[word]&bit == 0 {
			return false
		}
	}
	return true
}

// A needle is what no text may have in it.
type needle struct{ what, text string }

const (
	// shortest is what is too long to be in a text by chance.
	shortest = 12
	// pieceSize is how much of a secret gives it away.
	pieceSize = 16
)

// appendSecret appends a secret and its pieces, the last of which may overlap the one before.
func appendSecret(needles []needle, what, secret string) []needle {
	if len(secret) < shortest {
		return needles
	}
	if len(secret) > pieceSize && isRandom(secret) {
		needles = append(needles, needle{what, secret})
	}
	for i := 0; i < len(secret); i += pieceSize {
		i = max(min(i, len(secret)-pieceSize), 0)
		piece := secret[i:min(i+pieceSize, len(secret))]
		if isRandom(piece) {
			needles = append(needles, needle{what, piece})
		}
	}
	return needles
}

// isRandom reports whether a text cannot be in another by chance, as AAAA can.
func isRandom(text string) bool {
	var seen [256]bool
	different := 0
	for _, b := range []byte(text) {
		if !seen[b] {
			seen[b] = true
			different++
		}
	}
	return different > 4
}

// appendEncoded appends a secret as it is and in the encodings that a print may give it.
func appendEncoded(needles []needle, what string, secret []byte) []needle {
	if len(secret) < shortest {
		return needles
	}
	for _, text := range []string{
		string(secret),
		hex.EncodeToString(secret),
		strings.ToUpper(hex.EncodeToString(secret)),
		base64.RawStdEncoding.EncodeToString(secret),
		base64.RawURLEncoding.EncodeToString(secret),
	} {
		needles = appendSecret(needles, what, text)
	}
	// These take up to seven characters for a byte. A piece of the text would be as little
	// as three bytes, which some of a hundred thousand secrets share with any text.
	quote := func(s string) string { return strings.Trim(strconv.Quote(s), `"`) }
	for i := 0; i < len(secret); i += shortest {
		i = min(i, len(secret)-shortest)
		piece := secret[i : i+shortest]
		if !isRandom(string(piece)) {
			continue
		}
		for _, text := range []string{
			quote(string(piece)),
			quote(quote(string(piece))), // in the line of a logger, which quotes too
			strings.Trim(fmt.Sprint(piece), "[]"),
			strings.TrimSuffix(strings.TrimPrefix(fmt.Sprintf("%#v", piece), "[]byte{"), "}"),
		} {
			needles = append(needles, needle{what, text})
		}
	}
	return needles
}

// appendCookie appends a cookie's value, and the secrets that are signed in it: the second
// half of the id of this library, of which the first is no secret, and an id of Express.
func appendCookie(needles []needle, value string) []needle {
	needles = appendSecret(needles, "a cookie", value)
	decoded, err := url.PathUnescape(value)
	if err != nil {
		return needles
	}
	if signed, ok := strings.CutPrefix(decoded, "s:"); ok {
		sid := signed[:max(strings.LastIndexByte(signed, '.'), 0)]
		needles = appendSecret(needles, "a cookie", signed)
		needles = appendEncoded(needles, "an id of Express", []byte(sid))
		if b, err := base64.RawURLEncoding.DecodeString(sid); err == nil {
			needles = appendEncoded(needles, "an id of Express", b)
		}
		return needles
	}
	if inner, err := base64.URLEncoding.DecodeString(value); err == nil { // time|id|mac
		if parts := strings.SplitN(string(inner), "|", 3); len(parts) == 3 {
			if id, err := base64.URLEncoding.DecodeString(parts[1]); err == nil && len(id) == 32 {
				needles = appendEncoded(needles, "the secret in a cookie", id[16:])
				needles = appendSecret(needles, "the secret in a cookie", parts[1][22:])
			}
		}
	}
	return needles
}
