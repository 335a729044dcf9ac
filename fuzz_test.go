package session_test

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"errors"
	"io"
	"maps"
	"math"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/seed-4f96e14b/session"
)

// The session of these targets. Its id is the same in every process, and the time is
// that of a bubble, so that an input which is kept goes on meaning what it meant.
const (
	fuzzHandle = "aGFuZGxlLCAxNiBieXRlcw"
	fuzzID     = "handle, 16 bytes" + fuzzSecret
	fuzzSecret = "secret, 16 bytes"
)

// signed returns the value of a cookie of the name. The fields are what it signs: the
// time, "|", and the id in base64.
func signed(name, fields string) string {
	mac := hmac.New(sha256.New, []byte(secretA))
	io.WriteString(mac, name+"|"+fields)
	return base64.URLEncoding.EncodeToString(append([]byte(fields+"|"), mac.Sum(nil)...))
}

func fieldsOf(id string) string { return "1|" + base64.URLEncoding.EncodeToString([]byte(id)) }

// encoded returns a record as native.go describes it. The first of the secrets is the
// current one, and those that it replaced open the session for an hour more. Values are keys
// and JSON in turn.
func encoded(created, used time.Duration, secrets []string, values ...string) []byte {
	b := []byte{0xf5, 2}
	for _, after := range []time.Duration{created, used, used + session.DefaultIdleTimeout} {
		b = binary.AppendUvarint(b, uint64(bubbleStart.Add(after).UnixMilli()))
	}
	b = append(b, 0)
	for i, secret := range secrets {
		digest := sha256.Sum256([]byte(secret))
		b = append(b, digest[:16]...)
		if i > 0 {
			b = binary.BigEndian.AppendUint64(b, uint64(bubbleStart.Add(time.Hour).UnixMilli())<<1|1)
		}
		if i == 0 {
			b = append(b, byte(len(secrets)-1))
		}
	}
	b = append(b, 0, 0, 0, byte(len(values)/2)) // no resets, no saves, nothing of later versions
	for _, text := range values {
		b = append(binary.AppendUvarint(b, uint64(len(text))), text...)
	}
	return b
}

var bubbleStart = time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC)

// A parsed record is what parse reads, which is written apart from the library's Decode.
type parsed struct {
	created, used, maxAge, resets uint64
	secret                        string
	replaced                      []string // digest and time, as they stand there
	saves                         int
	extra                         string
	values                        map[string]string
}

func parse(data []byte) (p parsed, ok bool) {
	if !bytes.HasPrefix(data, []byte{0xf5, 2}) {
		return p, false
	}
	rest := bytes.NewReader(data[2:])
	failed := false
	number := func() uint64 {
		n, err := binary.ReadUvarint(rest)
		failed = failed || err != nil
		return n
	}
	text := func(n uint64) string {
		failed = failed || n > uint64(rest.Len())
		if failed {
			return ""
		}
		b := make([]byte, n)
		io.ReadFull(rest, b)
		return string(b)
	}
	date := func() uint64 {
		n := number()
		failed = failed || n > math.MaxInt64
		return n
	}
	p.created, p.used = date(), date()
	date() // until when the store keeps it
	p.maxAge = number()
	p.secret = text(16)
	for n := number(); n > 0 && !failed; n-- {
		p.replaced = append(p.replaced, text(24))
	}
	p.resets = number()
	for n := number(); n > 0 && !failed; n-- {
		text(24)
		p.saves++
	}
	p.extra = text(number())
	p.values = make(map[string]string)
	last := ""
	for n := number(); n > 0 && !failed; n-- {
		key := text(number())
		failed = failed || len(p.values) > 0 && key <= last
		last, p.values[key] = key, text(number())
	}
	return p, !failed && rest.Len() == 0 && p.maxAge <= math.MaxInt64/1_000_000_000+1
}

// opens reports whether a record is alive, and opens to the secret of these targets.
func (p *parsed) opens() bool { return p.isAlive() && (p.isCurrent() || p.remembered() == 1) }

// isWorthless reports whether a record is alive, and the secret has just lost its worth.
func (p *parsed) isWorthless() bool { return p.isAlive() && !p.isCurrent() && p.remembered() == 0 }

// remembered returns 1 if the secret was replaced and is in its grace, 0 if it has just lost
// its worth, and -1 if the record does not know it. The last that is remembered counts.
func (p *parsed) remembered() int {
	sum := sha256.Sum256([]byte(fuzzSecret))
	found := -1
	for _, old := range p.replaced {
		if n := binary.BigEndian.Uint64([]byte(old[16:])); old[:16] == string(sum[:16]) && n>>1 > uint64(time.Now().UnixMilli()) {
			found = int(n & 1)
		}
	}
	return found
}

func (p *parsed) isAlive() bool {
	now := uint64(time.Now().UnixMilli())
	idle := uint64(session.DefaultIdleTimeout.Milliseconds())
	if p.maxAge > 1 {
		idle = (p.maxAge - 1) * 1000
	}
	return min(p.used, now)+idle > now && min(p.created, now)+uint64(session.DefaultAbsoluteTimeout.Milliseconds()) > now
}

// isCurrent reports whether the secret of these targets is the one that a cookie is sent for.
func (p *parsed) isCurrent() bool {
	sum := sha256.Sum256([]byte(fuzzSecret))
	return p.secret == string(sum[:16])
}

// A rig has a store with a record of the fuzzer, and a visitor with the cookie for it.
type rig struct {
	*spy
	manager *session.Manager
	visitor *visitor
	errs    []error // of requests that failed
}

func newRig(t *testing.T, data []byte) *rig {
	r := &rig{spy: &spy{Store: new(session.MemoryStore)}}
	r.manager = newManager(t, session.Options{Store: r.spy, ErrorHandler: r.fails})
	r.visitor = newVisitor(r.manager)
	r.visitor.jar["__Host-sid"] = signed("__Host-sid", fieldsOf(fuzzID))
	r.put(t, data)
	return r
}

func (r *rig) fails(_ http.ResponseWriter, _ *http.Request, err error) { r.errs = append(r.errs, err) }

// put is another program, which does not ask the spy.
func (r *rig) put(t *testing.T, data []byte) {
	r.Store.Delete(t.Context(), fuzzHandle)
	if err := r.Store.Create(t.Context(), fuzzHandle, data, 1000*time.Hour); err != nil {
		t.Fatal(err)
	}
}

// record returns what the store has under the fuzzer's key, or nil.
func (r *rig) record(t *testing.T) []byte {
	data, err := r.Store.Load(t.Context(), fuzzHandle)
	if err != nil {
		return nil
	}
	return data
}

// sessions counts the records of the store, of which each must be readable, without those
// that the fuzzer has put there.
func (r *rig) sessions(t *testing.T, foreign ...[]byte) (n int) {
	for key := range r.Store.(*session.MemoryStore).Keys(t.Context()) {
		data, _ := r.Store.Load(t.Context(), key)
		if slices.ContainsFunc(foreign, func(b []byte) bool { return bytes.Equal(b, data) }) {
			continue
		}
		n++
		if _, ok := parse(data); !ok {
			t.Errorf("the store has %x", data)
		}
		if _, err := r.manager.Load(t.Context(), key); err != nil {
			t.Errorf("the store has %x: %v", data, err)
		}
	}
	return n
}

// ends checks that a fresh Regenerate works, and leaves nothing of the visitor's but its
// own session.
func (r *rig) ends(t *testing.T, foreign ...[]byte) {
	t.Helper()
	named := r.visitor.jar["__Host-sid"] == signed("__Host-sid", fieldsOf(fuzzID))
	status := r.visitor.get(use(func(s *session.Session) { s.Regenerate(); nameKey.Set(s, "end") })).StatusCode
	if name := nameOf(r.visitor); status != http.StatusOK || name != "end" {
		t.Errorf("Regenerate: status %d, name %q", status, name)
	}
	if n := r.sessions(t, foreign...); n != 1 || named && r.record(t) != nil {
		t.Errorf("Regenerate left %d sessions, and under the old key %x", n, r.record(t))
	}
}

// Whatever a Cookie header holds, the answer is 200 and sets no cookie, and the store is
// asked only for the good cookie, and only if that is spelt as it was sent.
func FuzzCookieHeader(f *testing.F) {
	good := signed("__Host-sid", fieldsOf(fuzzID))
	for _, seed := range []string{
		"", "__Host-sid=", "__Host-sid=" + good, "__Host-sid=" + good[:40], "__Host-sid=\"x\"; a=b", "__host-sid=" + good,
		"__Host-sid=\"" + good + "\"", "__Host-sid=AAAA; __Host-sid=BBBB; __Host-sid=" + good, "=;=;,", "__Host-sid=" + good + "=",
		"__Host-sid =" + good, "__Host-sid=" + respell(good), strings.Repeat("__Host-sid=x;", 7) + "__Host-sid=" + good,
		strings.Repeat("__Host-sid=x;", 8) + "__Host-sid=" + good, "a=\x00; __Host-sid=" + good + "\t;;",
		"__Host-sid= " + good, "__Host-sid\t=\t " + good + " ; a=b", "__Host-sid= \"" + good + "\"", "__Host-sid=\" " + good + "\"",
	} {
		f.Add(seed)
	}
	record := encoded(0, 0, []string{fuzzSecret}, "name", `"x"`)
	f.Fuzz(func(t *testing.T, header string) {
		inBubble(t, func(t *testing.T) {
			r := newRig(t, record)
			wantOps, wantName := "", ""
			if has(header, good) {
				wantOps, wantName = "L", "x"
			}
			name := ""
			response := r.visitor.send(http.MethodPost, use(func(s *session.Session) { name = nameKey.Get(s) }),
				func(r *http.Request) { r.Header.Set("Cookie", header) })
			if ops := r.took(); ops != wantOps || name != wantName {
				t.Errorf("calls %q, want %q; name %q, want %q", ops, wantOps, name, wantName)
			}
			if response.StatusCode != http.StatusOK || len(cookies(response)) > 0 || len(r.errs) > 0 {
				t.Errorf("status %d, header %q, errors %v", response.StatusCode, response.Header, r.errs)
			}
		})
	})
}

// has reports whether one of the cookies of our name has the value, not quoted, for net/http
// as it is without the space around names and values.
func has(header, value string) bool {
	pairs := strings.Split(header, ";")
	for i, pair := range pairs {
		name, value, _ := strings.Cut(pair, "=")
		pairs[i] = strings.Trim(name, " \t\r\n") + "=" + strings.Trim(value, " \t\r\n")
	}
	named := (&http.Request{Header: http.Header{"Cookie": {strings.Join(pairs, ";")}}}).CookiesNamed("__Host-sid")
	return slices.ContainsFunc(named, func(c *http.Cookie) bool { return c.Value == value && !c.Quoted })
}

// Whatever carries a good signature, by whoever has the key, the answer is 200 and sets no
// cookie, and the store is asked only for an id of the right size under our cookie's name.
// If a part of the cookie is replaced, it is asked only if that comes to the same text.
func FuzzSignedValue(f *testing.F) {
	for _, id := range []string{fuzzID, fuzzID[:31], fuzzID + "x", "", strings.Repeat("\x00", 32), strings.Repeat("|", 32)} {
		f.Add("__Host-sid", fieldsOf(id), uint8(0), uint8(0), "")
	}
	good := fieldsOf(fuzzID)
	for _, fields := range []string{
		"", "|", "1", "|" + good[2:], "-9223372036854775808" + good[1:], "9223372036854775808" + good[1:], "+01" + good[1:], "1e3" + good[1:],
		good + "|", "1|" + good, strings.TrimRight(good, "="), good[:5] + "\r\n" + good[5:], "1|+/" + good[4:], strings.Repeat("0", 40) + good,
		respell(good),
	} {
		f.Add("__Host-sid", fields, uint8(0), uint8(0), "")
	}
	value := signed("__Host-sid", good)
	last := len(strings.TrimRight(value, "=")) - 1
	f.Add("__Host-sid", good, uint8(last), uint8(1), respell(value)[last:last+1])
	f.Add("sid", good, uint8(0), uint8(0), "")
	f.Add("__Host-sid|1", good[2:], uint8(0), uint8(0), "")
	f.Add("__Host-sid", good, uint8(107), uint8(1), "")
	f.Add("__Host-sid", good, uint8(10), uint8(1), "A")
	f.Add("__Host-sid", good, uint8(0), uint8(0), "\"")
	f.Add("__Host-sid", good, uint8(108), uint8(0), "; __Host-sid=\"")
	f.Add("__Host-sid", good, uint8(108), uint8(0), "=")
	record := encoded(0, 0, []string{fuzzSecret}, "name", `"x"`)
	f.Fuzz(func(t *testing.T, name, fields string, from, size uint8, text string) {
		value := signed(name, fields)
		start := min(int(from), len(value))
		header := "__Host-sid=" + value[:start] + text + value[min(start+int(size), len(value)):]
		inBubble(t, func(t *testing.T) {
			r := newRig(t, record)
			var want []string
			id, ok := idIn(name, fields)
			if ok && len(value) <= 128 && has(header, value) {
				want = []string{base64.RawURLEncoding.EncodeToString([]byte(id[:16]))}
			}
			found := false
			response := r.visitor.send(http.MethodPost, use(func(s *session.Session) { found = nameKey.Has(s) }),
				func(r *http.Request) { r.Header.Set("Cookie", header) })
			if !slices.Equal(r.keys, want) || found != (want != nil && id == fuzzID) {
				t.Errorf("asked for %q, want %q; found %v", r.keys, want, found)
			}
			if response.StatusCode != http.StatusOK || len(cookies(response)) > 0 || len(r.errs) > 0 {
				t.Errorf("status %d, header %q, errors %v", response.StatusCode, response.Header, r.errs)
			}
		})
	})
}

// idIn returns the id in fields that are signed for the name, if securecookie takes them.
func idIn(name, fields string) (string, bool) {
	date, text, found := strings.Cut(fields, "|")
	_, err := strconv.ParseInt(date, 10, 64)
	if name != "__Host-sid" || !found || strings.Contains(text, "|") || err != nil {
		return "", false
	}
	id, err := base64.URLEncoding.DecodeString(text)
	return string(id), err == nil && len(id) == 32
}

// Whatever the store has, the answer is 200, or 503 if that is of a newer version, or if the
// cookie has just lost its worth, because the handler changes the session. A record
// that is alive and opens to the cookie's secret is found; a save keeps its values, its
// secrets and its lifetime, and what it leaves can be read. Anything else stays as it is.
func FuzzRecord(f *testing.F) {
	for _, record := range records() {
		f.Add(record)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		if len(data) > 4096 {
			return
		}
		inBubble(t, func(t *testing.T) {
			r := newRig(t, data)
			before, ok := parse(data)
			wantStatus := http.StatusOK
			if len(data) > 1 && data[0] == 0xf5 && data[1] > 2 || ok && before.isWorthless() {
				wantStatus = http.StatusServiceUnavailable
			}
			found := false
			status := r.visitor.get(use(func(s *session.Session) {
				found = s.ID() == fuzzHandle
				for _, name := range s.Keys() {
					if value, ok := session.Key[json.RawMessage](name).Lookup(s); ok && string(value) != strings.Trim(before.values[name], " \t\r\n") {
						t.Errorf("%q reads as %q, want %q", name, value, before.values[name])
					}
				}
				nameKey.Set(s, "y")
			})).StatusCode
			if want := ok && before.opens(); status != wantStatus || found != want {
				t.Fatalf("status %d, want %d; found %v, want %v", status, wantStatus, found, want)
			}
			r.sessions(t, data)
			if !found {
				if !bytes.Equal(r.record(t), data) {
					t.Errorf("what could not be read was changed to %x", r.record(t))
				}
				return
			}
			after, _ := parse(r.record(t))
			before.values["name"] = `"y"`
			if !bytes.Equal(r.record(t), data) { // saved, and a clock was wrong
				before.created = min(before.created, uint64(time.Now().UnixMilli()))
			}
			if !maps.Equal(after.values, before.values) || after.secret != before.secret || !slices.Equal(after.replaced, before.replaced) ||
				after.resets != before.resets || after.extra != before.extra || after.created != before.created || after.maxAge != before.maxAge {
				t.Errorf("saved %+v, want %+v", after, before)
			}
		})
	})
}

// records are those that the targets begin with.
func records() [][]byte {
	open := []string{fuzzSecret}
	good := encoded(0, 0, open, "counter", "1", "list", `["a"]`, "name", `"Ada"`)
	remembered := bytes.Clone(good)
	remembered[20] = 61 // its lifetime of its own, in seconds plus one
	return [][]byte{
		remembered, good, good[:len(good)/2], good[:len(good)-1], append(bytes.Clone(good), 0), append([]byte{0xf5, 0}, good[2:]...), {}, {0xf5}, {0xf5, 0}, {0xf5, 1}, {0xf5, 2}, {0xf5, 3}, {0xf5, 4, 1},
		[]byte(`{"cookie":{"path":"/"}}`),
		encoded(0, 0, open),
		encoded(0, 0, []string{"another"}, "name", `"Ada"`),
		encoded(0, 0, []string{"another", fuzzSecret, "third"}, "name", `"Bob"`),
		encoded(0, -session.DefaultIdleTimeout, open, "name", `"Ada"`),
		encoded(0, time.Millisecond-session.DefaultIdleTimeout, open, "name", `"Ada"`),
		encoded(-session.DefaultAbsoluteTimeout, 0, open, "name", `"Ada"`),
		encoded(time.Millisecond-session.DefaultAbsoluteTimeout, 0, open, "name", `"Ada"`),
		encoded(1000*time.Hour, 1000*time.Hour, open, "counter", `8`, "name", `7`),
		encoded(0, 0, open, "counter", `"no number"`, "list", `{"a":1}`, "name", `[`),
		encoded(0, 0, open, "", "", "a", "null", "counter", "9223372036854775807", "name", " \"x\" "),
		encoded(0, 0, open, "name", `"x"`, "name", `"y"`),
	}
}

// What Go sets, Go reads back equal, in the same request and in the next, under any key and
// also after another key has changed; the record has it as JSON, and after Delete not at
// all. What JSON cannot hold is an error, and stores nothing.
func FuzzRoundTrip(f *testing.F) {
	f.Add("key", "text", int64(1), 1.5, []byte("bytes"), []byte(`{"a": [1, null, "<\u2028>"]}`))
	f.Add("", "", int64(math.MinInt64), 0.0, []byte(nil), []byte(`null`))
	f.Add("name", "\xff\u2028<>&\x00", int64(1<<62), 5e-324, []byte{0, 255}, []byte("\"\xff\""))
	f.Add("\xff", "\xed\xa0\x80", int64(-1), math.Inf(1), []byte{}, []byte(`{"a":1,"a":2}`))
	f.Add("x", "", int64(0), math.Copysign(0, -1), []byte{}, []byte(` -0.0e-0 `))
	f.Fuzz(func(t *testing.T, key, text string, number int64, fraction float64, blob, document []byte) {
		if len(key)+len(text)+len(blob)+len(document) > 8<<10 {
			return
		}
		type values struct {
			Text     string
			Number   int64
			Fraction float64
			Blob     []byte
			Document json.RawMessage
		}
		k := session.Key[values](key)
		in := values{text, number, fraction, blob, nil}
		want := values{text, number, fraction, blob, json.RawMessage("null")}
		if compact := new(bytes.Buffer); json.Compact(compact, document) == nil {
			in.Document, want.Document = document, compact.Bytes()
		}
		check := func(out values, ok bool) {
			if !ok || out.Text != want.Text || out.Number != want.Number || out.Fraction != want.Fraction ||
				!bytes.Equal(out.Blob, want.Blob) || !bytes.Equal(out.Document, want.Document) {
				t.Errorf("got %+v, want %+v", out, want)
			}
		}
		inBubble(t, func(t *testing.T) {
			r := newRig(t, encoded(0, 0, []string{fuzzSecret}))
			encodes := fraction-fraction == 0 && utf8.ValidString(text) && utf8.Valid(in.Document) // neither NaN nor infinite
			status := r.visitor.get(use(func(s *session.Session) {
				k.Set(s, in)
				if encodes {
					check(k.Lookup(s))
				}
			})).StatusCode
			stored, _ := parse(r.record(t))
			if !encodes {
				if status != http.StatusInternalServerError || len(r.errs) != 1 || !errors.Is(r.errs[0], session.ErrEncode) || len(stored.values) > 0 {
					t.Errorf("status %d, errors %v, stored %q", status, r.errs, stored.values)
				}
				return
			}
			var out values
			check(out, json.Unmarshal([]byte(stored.values[key]), &out) == nil)
			r.visitor.get(use(func(s *session.Session) { check(k.Lookup(s)); session.Key[int](key+"2").Set(s, 1) }))
			r.visitor.get(use(func(s *session.Session) { check(k.Lookup(s)); k.Delete(s) }))
			if stored, _ = parse(r.record(t)); !maps.Equal(stored.values, map[string]string{key + "2": "1"}) {
				t.Errorf("after Delete there is %q", stored.values)
			}
		})
	})
}

// Any calls, in any order, in two requests at once, fail only where another request's Renew
// came first, and leave records that can be read and sessions that can be used.
func FuzzCalls(f *testing.F) {
	f.Add([]byte{0, 1, 2, 3}, []byte{4, 5, 6, 7})
	f.Add([]byte{8, 9, 10, 11, 12}, []byte{0, 6})
	f.Add([]byte{5}, []byte{6})
	f.Add([]byte{4, 7, 6, 5, 1}, []byte{4, 2})
	f.Add([]byte{1, 4}, []byte{2, 4, 7, 4})
	f.Fuzz(func(t *testing.T, a, b []byte) {
		if len(a)+len(b) > 50 {
			return
		}
		inBubble(t, func(t *testing.T) {
			r := newRig(t, records()[0])
			v := r.visitor
			other := v.elsewhere(newManager(t, session.Options{Store: r.spy, ErrorHandler: r.fails}))
			first := once()
			r.before = func(op, _ string) error {
				if op != "L" && first() {
					other.get(calls(b))
				}
				return nil
			}
			v.get(calls(a))
			r.works()
			r.failsOnlyWhereRenewed(t)
			r.sessions(t)
			for _, v := range []*visitor{v, other, newVisitor(r.manager)} {
				status := v.get(use(func(s *session.Session) { s.Regenerate(); nameKey.Set(s, "end") })).StatusCode
				if name := nameOf(v); status != http.StatusOK || name != "end" {
					t.Errorf("status %d, name %q", status, name)
				}
			}
		})
	})
}

func (r *rig) failsOnlyWhereRenewed(t *testing.T) {
	t.Helper()
	for _, err := range r.errs {
		if !errors.Is(err, session.ErrRenewed) {
			t.Errorf("error %v", err)
		}
	}
}

// Any calls on any record, made again on any other record that took its place at the moment
// of the first write. They fail only where the other record says that a Renew came
// first or that so many have saved it that nobody can tell, or is of a newer version, and
// leave records that can be read and one session after a Regenerate. If the cookie is
// current in both records, and the calls change something, the outcome is that of the
// calls on the second record alone.
func FuzzReplay(f *testing.F) {
	all := records()
	for i, script := range [][]byte{{2, 1}, {1, 4}, {14, 9}, {4, 7, 2}, {1, 5, 7, 6, 5}, {6}, {1, 8, 2}, {3, 7}, {7, 1, 2}, {13, 15}} {
		f.Add(all[0], all[(i+12)%len(all)], script)
		f.Add(all[(i+12)%len(all)], all[0], script)
		f.Add(all[i], all[len(all)-1-i], script)
	}
	f.Fuzz(func(t *testing.T, first, second, script []byte) {
		if len(first)+len(second) > 4096 || len(script) > 20 {
			return
		}
		inBubble(t, func(t *testing.T) {
			r := newRig(t, first)
			fresh := once()
			r.before = func(op, _ string) error {
				if op != "L" && fresh() {
					r.put(t, second)
				}
				return nil
			}
			r.visitor.get(calls(script))
			r.works()
			newer := slices.ContainsFunc([][]byte{first, second}, func(b []byte) bool { return len(b) > 1 && b[0] == 0xf5 && b[1] > 2 })
			p, _ := parse(second)
			r.errs = slices.DeleteFunc(r.errs, func(err error) bool { return (newer || p.saves >= 16) && errors.Is(err, session.ErrUnavailable) })
			r.failsOnlyWhereRenewed(t)
			r.sessions(t, first, second)
			got := r.outcome(t)
			r.ends(t, first, second)

			a, b := newRig(t, first), newRig(t, second)
			before, ok := a.outcome(t), a.opens(t) && b.opens(t) && followsOn(first, second)
			a.visitor.get(calls(script))
			b.visitor.get(calls(script))
			if ok && !slices.ContainsFunc(script, pops) && a.outcome(t) != before && got != b.outcome(t) {
				t.Errorf("the calls left %s, want %s", got, b.outcome(t))
			}
		})
	})
}

// followsOn reports whether what was begun on the first record can be saved on the second.
func followsOn(first, second []byte) bool {
	p, _ := parse(first)
	q, _ := parse(second)
	return p.isCurrent() && q.isCurrent() && p.resets == q.resets && q.saves < 16
}

func (r *rig) opens(t *testing.T) bool {
	p, ok := parse(r.record(t))
	return ok && p.opens()
}

// outcome returns what the record holds of the session, or "" if there is none.
func (r *rig) outcome(t *testing.T) string {
	p, ok := parse(r.record(t))
	if !ok {
		return ""
	}
	text, _ := json.Marshal(p.values)
	return strconv.FormatUint(p.maxAge, 10) + string(text)
}

// calls makes a call of the session for each byte.
func calls(script []byte) handler {
	return use(func(s *session.Session) {
		for _, b := range script {
			allCalls[int(b)%len(allCalls)](s)
		}
	})
}

var allCalls = []func(s *session.Session){
	func(s *session.Session) { nameKey.Get(s) },
	func(s *session.Session) { nameKey.Set(s, "y") },
	func(s *session.Session) { counterKey.Update(s, increment) },
	func(s *session.Session) { nameKey.Pop(s) },
	func(s *session.Session) { s.Renew(0) },
	func(s *session.Session) { s.Regenerate() },
	func(s *session.Session) { s.Destroy() },
	func(s *session.Session) { s.Save() },
	func(s *session.Session) { s.Reload() },
	func(s *session.Session) { s.SetMaxAge(time.Hour) },
	func(s *session.Session) { s.SetMaxAge(0) },
	func(s *session.Session) { s.Touch() },
	func(s *session.Session) { s.ID(); s.Keys(); s.Created(); s.Expires() },
	func(s *session.Session) { counterKey.Delete(s) },
	func(s *session.Session) {
		listKey.Update(s, func(all []string) []string { return append(all, "b") })
	},
	func(s *session.Session) { s.SetMaxAge(90 * time.Minute); s.Renew(30 * time.Second) },
}

// pops reports whether the call is Pop, which is no lock: it deletes what it has seen.
func pops(call byte) bool { return int(call)%len(allCalls) == 3 }
