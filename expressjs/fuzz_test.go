package expressjs_test

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/seed-4f96e14b/session"
)

// Whatever a Cookie header holds, only an id that carries its signature is looked up.
func FuzzCookie(f *testing.F) {
	for _, seed := range []string{
		"", testCookie, strings.ToLower(testCookie), testCookie + "%3D", strings.Replace(testCookie, "%3A", ":", 1),
		strings.ReplaceAll(testCookie, "%", "%25"), "connect.sid=\"" + testCookie[12:] + "\"", "connect.sid=s%3A." + testCookie[48:],
		"connect.sid=s%3A%ff.x; " + testCookie, "connect.sid=%; connect.sid=s%3A%00.%00", "connect.sid=s:a.b.c; a=b",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, header string) {
		store := newRedisMap()
		m, _ := newShared(t, store, nil)
		response := ask(m, header, func(s *session.Session) { s.Touch() })
		if response.StatusCode != http.StatusOK || len(response.Cookies()) > 0 {
			t.Errorf("status %d, cookies %q", response.StatusCode, response.Cookies())
		}
		signed := false
		for _, c := range (&http.Request{Header: http.Header{"Cookie": {header}}}).CookiesNamed("connect.sid") {
			value, err := url.PathUnescape(c.Value)
			if err != nil {
				value = c.Value
			}
			signed = signed || isSigned(value)
		}
		if store.gets > 0 && !signed {
			t.Errorf("an unsigned id was looked up")
		}
	})
}

func isSigned(value string) bool {
	dot := strings.LastIndexByte(value, '.')
	if dot < 3 {
		return false
	}
	mac := hmac.New(sha256.New, []byte(testSecret))
	mac.Write([]byte(value[2:dot]))
	return value == "s:"+value[2:dot]+"."+base64.RawStdEncoding.EncodeToString(mac.Sum(nil))
}

// Whatever Redis holds, the answer is 200; what is no session stays as it is, and of what is
// one a save keeps every member byte for byte, and leaves a record that Express can read.
func FuzzRecord(f *testing.F) {
	for _, v := range readVectors(f).Foreign {
		f.Add([]byte(v.RedisValue))
	}
	f.Add([]byte(`{"cookie":{"originalMaxAge":1e999},"\ud800":1,"\ud800":2,"a":1,"a":[1 , 2]}`))
	f.Add([]byte(`{"cookie":{"expires":"x","path":"\n"},"_goSession":{"renewal":{"from":"a","to":"b"}}}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		store := withRecord(string(data))
		m, _ := newShared(t, store, nil)
		found := false
		response := ask(m, testCookie, func(s *session.Session) {
			found = s.ID() == testSid
			nKey.Set(s, 1)
			session.Key[time.Time]("t").Get(s)
		})
		if response.StatusCode != http.StatusOK {
			t.Errorf("status %d", response.StatusCode)
		}
		if !found {
			if store.record() != string(data) {
				t.Errorf("what could not be read was changed to %q", store.record())
			}
			return
		}
		var before, after, cookieBefore, cookieAfter map[string]json.RawMessage
		if json.Unmarshal(data, &before) != nil || json.Unmarshal(before["cookie"], &cookieBefore) != nil {
			t.Fatalf("took %q for a session", data)
		}
		if err := json.Unmarshal([]byte(store.record()), &after); err != nil {
			t.Fatalf("saved %q: %v", store.record(), err)
		}
		if err := json.Unmarshal(after["cookie"], &cookieAfter); err != nil {
			t.Fatalf("saved %q: %v", store.record(), err)
		}
		same := func(before, after map[string]json.RawMessage, but ...string) {
			for _, name := range but {
				delete(before, name)
			}
			for name, value := range before {
				if !bytes.Equal(value, after[name]) {
					t.Errorf("%q became %q", value, after[name])
				}
			}
		}
		same(before, after, "cookie", "_goSession", "n")
		same(cookieBefore, cookieAfter, "originalMaxAge", "expires")
		var cookie struct {
			OriginalMaxAge any
			Expires        any
		}
		if err := json.Unmarshal(after["cookie"], &cookie); err != nil {
			t.Fatal(err)
		}
		switch maxAge := cookie.OriginalMaxAge.(type) {
		case nil, bool:
		case float64:
			if _, err := time.Parse(time.RFC3339, cookie.Expires.(string)); err != nil || maxAge < 1 {
				t.Errorf("saved the cookie %s", after["cookie"])
			}
		default:
			t.Errorf("saved the cookie %s", after["cookie"])
		}
	})
}
