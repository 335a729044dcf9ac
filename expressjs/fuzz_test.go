package expressjs_test

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"log/slog"
	"maps"
	"math"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/redis/go-redis/v9"
	"github.com/seed-4f96e14b/session"
	"github.com/seed-4f96e14b/session/expressjs"
)

// Whatever a Cookie header holds, and whatever id carries a good signature at its end, the
// answer is 200 and sets no cookie. An id is looked up exactly if a cookie of the name carries
// its signature, and is the first that does. If a part of a signed cookie is replaced, that
// is only so if it comes to the same text.
func FuzzCookie(f *testing.F) {
	for _, seed := range []string{
		"", testCookie, strings.ToLower(testCookie), testCookie + "%3D", strings.Replace(testCookie, "%3A", ":", 1),
		strings.ReplaceAll(testCookie, "%", "%25"), "connect.sid=\"" + testCookie[12:] + "\"", "connect.sid=s%3A." + testCookie[48:],
		"connect.sid=s%3A%ff.x; " + testCookie, "connect.sid=%; connect.sid=s%3A%00.%00", "connect.sid=s:a.b.c; a=b",
		strings.Repeat("connect.sid=;", 7) + testCookie, strings.Repeat("connect.sid=;", 8) + testCookie, testCookie + "%0a",
	} {
		f.Add(seed, "", uint8(0), uint8(0), "")
	}
	for _, sid := range []string{
		testSid, ".", "a.b", "x", "s:" + testSid, "\x00\xff", "\u20ac", "a b;c,d\"e\\", "%41", "../x", testSid + ":renewed", strings.Repeat("x", 4010), strings.Repeat("x", 4096),
	} {
		f.Add("a=b; ", sid, uint8(0), uint8(0), "")
	}
	f.Add("", testSid, uint8(20), uint8(1), "x")
	f.Add("", testSid, uint8(0), uint8(4), "s:")
	f.Add("", testSid, uint8(4), uint8(1), "%4c")
	f.Add(testCookie+"; ", "x", uint8(0), uint8(0), "x; connect.sid=")
	f.Fuzz(func(t *testing.T, header, sid string, from, size uint8, text string) {
		store := newRedisMap()
		if sid != "" {
			store.keys["sess:"+sid] = redisValue{`{"cookie":{},"n":1}`, time.Hour}
			value := url.PathEscape(signed(sid))
			start := min(int(from), len(value))
			header += "connect.sid=" + value[:start] + text + value[min(start+int(size), len(value)):]
		}
		looksUp(t, store, header)
	})
}

// looksUp checks what a request with the header finds in a store.
func looksUp(t *testing.T, store *redisMap, header string) {
	wantID := ""
	named := (&http.Request{Header: http.Header{"Cookie": {withoutSpace(header)}}}).CookiesNamed("connect.sid")
	for _, c := range named {
		value, err := url.PathUnescape(c.Value)
		if err != nil || !utf8.ValidString(value) { // decodeURIComponent throws, and Express takes it as it is
			value = c.Value
		}
		if wantID == "" && len(c.Value) <= 4096 && isSigned(value) {
			wantID = value[2:strings.LastIndexByte(value, '.')]
		}
	}
	_, want := store.keys["sess:"+wantID]
	m, _ := newShared(t, store, nil)
	found := false
	response := ask(m, header, func(s *session.Session) { found = nKey.Has(s) && s.ID() == wantID })
	if response.StatusCode != http.StatusOK || len(response.Cookies()) > 0 {
		t.Errorf("status %d, cookies %q", response.StatusCode, response.Cookies())
	}
	if store.gets > 0 != (wantID != "") || found != (want && wantID != "") {
		t.Errorf("%d calls, found %v; want the id %q", store.gets, found, wantID)
	}
}

// withoutSpace returns a Cookie header without the space around names and values, which Node
// drops and net/http takes for a part of the value.
func withoutSpace(header string) string {
	pairs := strings.Split(header, ";")
	for i, pair := range pairs {
		name, value, _ := strings.Cut(pair, "=")
		pairs[i] = strings.Trim(name, " \t\r\n") + "=" + strings.Trim(value, " \t\r\n")
	}
	return strings.Join(pairs, ";")
}

func isSigned(value string) bool {
	dot := strings.LastIndexByte(value, '.')
	return dot > 2 && value == signed(value[2:dot])
}

// signed returns the cookie's value for an id, not encoded.
func signed(sid string) string {
	mac := hmac.New(sha256.New, []byte(testSecret))
	mac.Write([]byte(sid))
	return "s:" + sid + "." + base64.RawStdEncoding.EncodeToString(mac.Sum(nil))
}

// readable reports whether Go and Express take a text for a session.
func readable(text string) bool {
	var all, cookie map[string]json.RawMessage
	if json.Unmarshal([]byte(text), &all) != nil || json.Unmarshal(all["cookie"], &cookie) != nil || cookie == nil {
		return false
	}
	var maxAge float64
	value, ok := cookie["originalMaxAge"]
	return !ok || string(value) == "false" || json.Unmarshal(value, &maxAge) == nil
}

// Whatever Redis holds, the answer is 200. What is no session stays as it is. Of what is one,
// a save and a renewal keep every member byte for byte, and its lifetime, and leave a record
// that Express and Go can read; a renewal leaves nothing under the old id.
func FuzzRecord(f *testing.F) {
	for _, v := range readVectors(f).Foreign {
		f.Add([]byte(v.RedisValue), false)
	}
	f.Add([]byte(`{"cookie":{"originalMaxAge":1e999},"\ud800":1,"\ud800":2,"a":1,"a":[1 , 2]}`), false)
	f.Add([]byte(`{"cookie":{},"\ud800":1,"\ud800":2,"a":1,"a":[1 , 2]}`), false)
	f.Add([]byte(`{"cookie":{"expires":"x","path":"\n"},"_goSession":{"renewal":{"to":"b"}}}`), false)
	for _, record := range expressRecords {
		f.Add([]byte(record), false)
		f.Add([]byte(record), true)
	}
	f.Fuzz(func(t *testing.T, data []byte, renew bool) {
		if len(data) < 16<<10 {
			at(t, frozen, func(t *testing.T) { saves(t, data, renew) })
		}
	})
}

// saves checks what a save makes of a record.
func saves(t *testing.T, data []byte, renew bool) {
	r := newRig(t, string(data))
	found, n := false, 0
	status := r.get(func(s *session.Session) {
		found = s.ID() == testSid
		nKey.Update(s, next) // which is a change, whatever is there
		n = nKey.Get(s)
		session.Key[time.Time]("t").Get(s)
		if renew {
			s.Renew(0)
		}
	}).StatusCode
	if want := readable(string(data)); status != http.StatusOK || found != want {
		t.Fatalf("status %d, found %v, want %v", status, found, want)
	}
	if !found {
		if r.record() != string(data) {
			t.Errorf("what could not be read was changed to %q", r.record())
		}
		return
	}
	if renew && (r.cookie == testCookie || r.record() != "") {
		t.Errorf("the renewal sent %s, and left %q under the old id", r.cookie, r.record())
	}
	r.sessions(t)
	saved := r.current()
	before, after := membersOf(t, string(data)), membersOf(t, saved)
	keepsMembers(t, before, after, "cookie", "_goSession", "n")
	cookieBefore, cookieAfter := membersOf(t, before.value("cookie")), membersOf(t, after.value("cookie"))
	keepsMembers(t, cookieBefore, cookieAfter, "originalMaxAge", "expires")

	maxAge, expires := cookieAfter.value("originalMaxAge"), cookieAfter.value("expires")
	var was, is float64
	if json.Unmarshal([]byte(maxAge), &is) != nil || maxAge == "null" {
		if (maxAge != "null" && maxAge != "false") || expires != maxAge {
			t.Errorf("saved the cookie %s", after.value("cookie"))
		}
	} else {
		json.Unmarshal([]byte(cookieBefore.value("originalMaxAge")), &was)
		const longest = math.MaxInt64 / int64(time.Millisecond) / 2 // 146 years, which leave room to count in
		if want := min(max(math.Trunc(was), 1), float64(longest)); is != want {
			t.Errorf("originalMaxAge %v became %v, want %v", was, is, want)
		}
		want := frozen.Add(time.Duration(is) * time.Millisecond).Format(`"2006-01-02T15:04:05.000Z"`)
		if expires != want {
			t.Errorf("expires is %s, want %s", expires, want)
		}
	}
	if got, ok := nOf(r.manager, r.cookie); got != n || !ok {
		t.Errorf("after the save n is %d, %v, want %d", got, ok, n)
	}
}

// A memberList is a JSON object as it stands there: each member is a name, its text, and
// the text of the value.
type memberList [][3]string

func membersOf(t *testing.T, text string) (all memberList) {
	t.Helper()
	d := json.NewDecoder(strings.NewReader(text))
	if token, err := d.Token(); err != nil || token != json.Delim('{') {
		t.Fatalf("%q is no object", text)
	}
	for d.More() {
		start := d.InputOffset()
		name, _ := d.Token()
		rawName := strings.TrimLeft(text[start:d.InputOffset()], ", \t\r\n")
		var value json.RawMessage
		if err := d.Decode(&value); err != nil {
			t.Fatalf("%q: %v", text, err)
		}
		all = append(all, [3]string{name.(string), rawName, string(value)})
	}
	return all
}

// value returns the text of the last of a name, as Express takes it.
func (l memberList) value(name string) string {
	for _, m := range slices.Backward(l) {
		if m[0] == name {
			return m[2]
		}
	}
	return ""
}

// keepsMembers checks that all members but some are there, and each name once, except those that
// Go's strings cannot tell apart.
func keepsMembers(t *testing.T, before, after memberList, but ...string) {
	t.Helper()
	seen := make(map[string]bool)
	for _, m := range after {
		if seen[m[0]] && !strings.ContainsRune(m[0], utf8.RuneError) {
			t.Errorf("%q is there twice", m[0])
		}
		seen[m[0]] = true
	}
	for _, m := range before {
		switch {
		case slices.Contains(but, m[0]):
		case strings.ContainsRune(m[0], utf8.RuneError):
			if !slices.Contains(after, m) {
				t.Errorf("%q is not kept", m)
			}
		case before.value(m[0]) != after.value(m[0]):
			t.Errorf("%s: %q became %q", m[0], before.value(m[0]), after.value(m[0]))
		}
	}
}

func nOf(m *session.Manager, cookie string) (n int, ok bool) {
	ask(m, cookie, func(s *session.Session) { n, ok = nKey.Lookup(s) })
	return n, ok
}

// expressRecords are those that the targets begin with.
var expressRecords = []string{
	`{"cookie":{"originalMaxAge":60000,"expires":"2026-01-01T00:01:00.000Z","httpOnly":true,"path":"/"},"userId":"u1","n":1,"list":["a"]}`,
	`{"cookie":` + plainCookie + `,"n":2,"userId":"u2","_goSession":{"created":1767225600000,"used":1767225600000,"kept":1767312000000,"saves":"AAAAAAAAAAAAAAAAAAAAAQAAAAAAAAAB"}}`,
	`{"cookie":{},"n":"no number","list":{"a":1},"userId":null}`,
	`{"cookie":{"originalMaxAge":false,"expires":false,"sameSite":"none","secure":true},"n": 3 ,"\ud800":1}`,
	`{"cookie":{"originalMaxAge":1},"n":4,"n":5,"cookie":{"path":"/a"}}`,
	`{"cookie":{},"_goSession":{"created":-1,"saves":["x",1],"renewal":{"to":"next","at":1767225600000,"grace":0}},"n":6}`,
	`{"cookie":{},"_goSession":{"created":1,"saves":"","renewal":{"to":"` + testSid + `","grace":1}},"n":7}`,
	`{"cookie":{"originalMaxAge":"60000"}}`, `{"cookie":null}`, `{"cookie":{}`, `null`, ``, `[]`, "\xf5\x01",
}

// What Go sets, Go reads back equal, in the same request and in the next, and so does
// whoever parses the text in Redis. A name that Express drops or JSON cannot hold is an
// error, and stores nothing.
func FuzzRoundTrip(f *testing.F) {
	f.Add("key", "text", int64(1), 1.5, []byte("bytes"), []byte(`{"a": [1, null, "<\u2028>"]}`))
	f.Add("", "", int64(math.MinInt64), 0.0, []byte(nil), []byte(`null`))
	f.Add("\"\u2028<\x00", "\xff\u2028<>&\x00", int64(1<<62), 5e-324, []byte{0, 255}, []byte("\"\xff\""))
	f.Add("\xff", "\xed\xa0\x80", int64(-1), math.Inf(1), []byte{}, []byte(`{"a":1,"a":2}`))
	f.Add("\ufffd", "x", int64(0), math.Copysign(0, -1), []byte{}, []byte(` -0.0e-0 `))
	for _, name := range []string{"cookie", "_goSession", "req", "id", "__proto__", "toString", "Cookie", "to_string"} {
		f.Add(name, "x", int64(0), 1e21, []byte{1}, []byte(`1e999`))
	}
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
		at(t, frozen, func(t *testing.T) {
			const before = `{"cookie":{},"n":1}`
			store := withRecord(before)
			m, _ := newShared(t, store, nil)
			stores := fraction-fraction == 0 && utf8.ValidString(text) && utf8.Valid(in.Document) && !slices.Contains(dropped, key) && utf8.ValidString(key) && !strings.ContainsRune(key, utf8.RuneError)
			status := ask(m, testCookie, func(s *session.Session) {
				if k.Set(s, in); stores {
					check(k.Lookup(s))
				}
			}).StatusCode
			if !stores {
				if status != http.StatusInternalServerError || store.record() != before {
					t.Errorf("status %d, left %s", status, store.record())
				}
				return
			}
			var all map[string]json.RawMessage
			var out values
			err := json.Unmarshal([]byte(store.record()), &all)
			check(out, errors.Join(err, json.Unmarshal(all[key], &out)) == nil)
			ask(m, testCookie, func(s *session.Session) { check(k.Lookup(s)) })
		})
	})
}

// dropped are the names that Express drops when it reads a record.
var dropped = []string{
	"cookie", "_goSession", "req", "id", "touch", "resetMaxAge", "save", "reload", "destroy", "regenerate",
	"constructor", "toString", "toLocaleString", "valueOf", "hasOwnProperty", "isPrototypeOf", "propertyIsEnumerable",
	"__proto__", "__defineGetter__", "__defineSetter__", "__lookupGetter__", "__lookupSetter__",
}

// A rig has a Redis with a record of the fuzzer, and the cookie for it. After some writes,
// and before the next, it does something once.
type rig struct {
	*redisMap
	manager *session.Manager
	cookie  string
	writes  int
	meddle  func()
	errs    []error // of requests that failed
}

func newRig(t *testing.T, record string) *rig {
	t.Helper()
	return rigOn(t, withRecord(record))
}

// rigOn is a process of its own on a Redis that is there.
func rigOn(t *testing.T, store *redisMap) *rig {
	t.Helper()
	r := &rig{redisMap: store, cookie: testCookie}
	options, err := expressjs.Options{Secrets: []string{testSecret}, Store: expressjs.RedisStore{Client: r}}.Session()
	if err != nil {
		t.Fatal(err)
	}
	options.Logger = slog.New(slog.DiscardHandler)
	options.ErrorHandler = func(_ http.ResponseWriter, _ *http.Request, err error) { r.errs = append(r.errs, err) }
	if r.manager, err = session.New(options); err != nil {
		t.Fatal(err)
	}
	return r
}

func (r *rig) write() {
	if r.writes--; r.writes < 0 && r.meddle != nil {
		meddle := r.meddle
		r.meddle = nil
		meddle()
	}
}

func (r *rig) SetNX(ctx context.Context, key string, value any, ttl time.Duration) *redis.BoolCmd {
	r.write()
	return r.redisMap.SetNX(ctx, key, value, ttl)
}

func (r *rig) EvalSha(ctx context.Context, sha string, keys []string, args ...any) *redis.Cmd {
	r.write()
	return r.redisMap.EvalSha(ctx, sha, keys, args...)
}

func (r *rig) Del(ctx context.Context, keys ...string) *redis.IntCmd {
	r.write()
	return r.redisMap.Del(ctx, keys...)
}

// get is a request of a browser, which keeps the cookie.
func (r *rig) get(do func(*session.Session)) *http.Response {
	response := ask(r.manager, r.cookie, do)
	for _, c := range response.Cookies() {
		if r.cookie = ""; c.MaxAge >= 0 {
			r.cookie = c.Name + "=" + c.Value
		}
	}
	return response
}

// sessions counts the sessions of the store, without those that the fuzzer has put there.
// Each must be one to Express and Go, and each pointer one to Express.
func (r *rig) sessions(t *testing.T, foreign ...string) (n int) {
	t.Helper()
	for key, value := range r.keys {
		if value.text == "" || slices.Contains(foreign, value.text) {
			continue
		}
		if !readable(value.text) {
			t.Errorf("Redis has %s", value.text)
		}
		if strings.HasSuffix(key, ":renewed") {
			continue
		}
		n++
		if _, err := r.manager.Load(t.Context(), strings.TrimPrefix(key, "sess:")); err != nil {
			t.Errorf("Redis has %s: %v", value.text, err)
		}
	}
	return n
}

// current returns the record of the session, wherever renewals have moved it.
func (r *rig) current() string {
	text := r.record()
	for sid := testSid; text == "" && sid != ""; text = r.keys["sess:"+sid].text {
		var pointer struct {
			Own struct{ To string } `json:"_goSession"`
		}
		json.Unmarshal([]byte(r.keys["sess:"+sid+":renewed"].text), &pointer)
		sid = pointer.Own.To
	}
	return text
}

// outcome returns what Redis holds of the session, without times and the library's
// bookkeeping, or "" if there is none.
func (r *rig) outcome() string {
	text := r.current()
	if !readable(text) {
		return ""
	}
	var all, cookie map[string]json.RawMessage
	json.Unmarshal([]byte(text), &all)
	json.Unmarshal(all["cookie"], &cookie)
	maps.DeleteFunc(all, func(name string, _ json.RawMessage) bool { return name == "cookie" || name == "_goSession" })
	delete(cookie, "expires")
	left, _ := json.Marshal([]any{all, cookie})
	return string(left)
}

// Any calls on any record. Before one of the writes, any other record takes its place,
// unless that is empty, and then any calls are made by a request to another process. All fail
// only where the other has renewed the session without a grace, or where a renewal that is
// under way finds no session any more, and leave what can be read; a Regenerate works, and leaves no more sessions than there are
// browsers. If both records are sessions, the second comes before the first write, and the
// calls alone change more than a look at the session may, and none fails, the outcome is that of the
// calls on the second record alone.
func FuzzReplay(f *testing.F) {
	for i, script := range [][]byte{{2, 1}, {1, 4}, {14, 9}, {4, 7, 2}, {1, 5, 7, 6, 5}, {6}, {1, 8, 2}, {3, 7}, {7, 1, 2}, {13, 15}, {4, 7, 4}, {15, 4, 10}, {2, 16}} {
		for j := range 4 {
			f.Add(expressRecords[j], expressRecords[(i+j)%len(expressRecords)], script, []byte{}, uint8(0))
			f.Add(expressRecords[(i+j)%len(expressRecords)], expressRecords[j], script, []byte{}, uint8(0))
			f.Add(expressRecords[j], "", script, []byte{2, 4}, uint8(i))
		}
	}
	for writes := range uint8(6) {
		for _, other := range [][]byte{{}, {4}, {6}, {2}, {5}, {16}} {
			f.Add(expressRecords[0], "", []byte{2, 4}, other, writes)
			f.Add(expressRecords[0], "", []byte{2, 16}, other, writes)
			f.Add(expressRecords[0], expressRecords[1], []byte{2, 4}, other, writes)
		}
		f.Add(expressRecords[0], "no record", []byte{2, 4}, []byte{}, writes)
	}
	f.Fuzz(func(t *testing.T, first, second string, script, other []byte, writes uint8) {
		if len(first)+len(second) > 8<<10 || len(script)+len(other) > 20 {
			return
		}
		at(t, frozen, func(t *testing.T) {
			r := newRig(t, first)
			another := rigOn(t, r.redisMap)
			r.writes = int(writes % 12)
			late, plain := r.writes > 0, r.writes == 0 && len(other) == 0
			r.meddle = func() {
				if second != "" || plain {
					r.keys["sess:"+testSid] = redisValue{second, time.Hour}
				}
				another.get(calls(other))
			}
			r.get(calls(script))
			r.meddle = nil
			for _, err := range r.errs {
				if !errors.Is(err, session.ErrRenewed) && !(late && errors.Is(err, session.ErrUnreadable)) {
					t.Errorf("error %v", err)
				}
			}
			r.sessions(t, first, second)
			got := r.outcome()

			named, most := r.cookie == testCookie, 1
			r.regenerates(t)
			if named && r.record() != "" {
				t.Errorf("Regenerate left under the old key %q", r.record())
			}
			if len(other) > 0 {
				another.regenerates(t)
				most = 2
			}
			// Where another record comes in the midst of a request, it is a session of its own.
			if n := r.sessions(t, first, second); n != most && (plain || second == "") {
				t.Errorf("Regenerate left %d sessions", n)
			}

			touched, a, b := newRig(t, first), newRig(t, first), newRig(t, second)
			unchanged := []string{a.outcome()}
			touched.get(func(s *session.Session) { s.Touch() })
			unchanged = append(unchanged, touched.outcome())
			a.get(calls(script))
			b.get(calls(script))
			pops := slices.ContainsFunc(script, func(call byte) bool { return int(call)%len(allCalls) == 3 }) // which deletes what it has seen
			renewed := len(r.errs) > 0                                                                        // the second counts other renewals without a grace than the first
			if plain && !renewed && readable(first) && readable(second) && !pops && !slices.Contains(unchanged, a.outcome()) && got != b.outcome() {
				t.Errorf("the calls left %s, want %s", got, b.outcome())
			}
		})
	})
}

func (r *rig) regenerates(t *testing.T) {
	t.Helper()
	status := r.get(func(s *session.Session) { s.Regenerate(); nKey.Set(s, 100) }).StatusCode
	if n, _ := nOf(r.manager, r.cookie); status != http.StatusOK || n != 100 {
		t.Errorf("Regenerate: status %d, n %d", status, n)
	}
}

// calls makes a call of the session for each byte.
func calls(script []byte) func(*session.Session) {
	return func(s *session.Session) {
		for _, b := range script {
			allCalls[int(b)%len(allCalls)](s)
		}
	}
}

var allCalls = []func(s *session.Session){
	func(s *session.Session) { userKey.Get(s) },
	func(s *session.Session) { userKey.Set(s, "y") },
	func(s *session.Session) { nKey.Update(s, next) },
	func(s *session.Session) { userKey.Pop(s) },
	renewNow,
	func(s *session.Session) { s.Regenerate() },
	func(s *session.Session) { s.Destroy() },
	func(s *session.Session) { s.Save() },
	func(s *session.Session) { s.Reload() },
	func(s *session.Session) { s.SetMaxAge(time.Hour) },
	func(s *session.Session) { s.SetMaxAge(0) },
	func(s *session.Session) { s.Touch() },
	func(s *session.Session) { s.ID(); s.Keys(); s.Created(); s.Expires() },
	func(s *session.Session) { nKey.Delete(s) },
	func(s *session.Session) { listKey.Update(s, func(all []string) []string { return append(all, "b") }) },
	func(s *session.Session) { s.SetMaxAge(90 * time.Minute); s.Renew(30 * time.Second) },
	renewGrace,
}
