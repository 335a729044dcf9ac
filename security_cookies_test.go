package session_test

import (
	"bytes"
	"context"
	"crypto/md5"
	cryptorand "crypto/rand"
	"crypto/sha1"
	"crypto/sha512"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"math"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gorilla/securecookie"
	"github.com/redis/go-redis/v9"
	"github.com/seed-4f96e14b/session"
)

// Rank 7. Whatever does not verify is as no cookie: the same response to the byte, no call
// of the store, no error. There is nothing to tell one reason from another by.
func TestSecurityBadCookiesAreAnonymous(t *testing.T) {
	sp := &spy{Store: new(session.MemoryStore)}
	var book logBook
	m := newManager(t, session.Options{Store: sp, Logger: book.logger()})
	v := newVisitor(m)
	v.get(setName("x"))
	good := v.jar[sid]
	id := idOf(t, good)
	sign := func(name, secret, id string, configure ...func(*securecookie.SecureCookie)) string {
		return sign(t, name, secret, id, configure...)
	}
	encrypted, err := securecookie.New([]byte(secretA), make([]byte, 32)).SetSerializer(securecookie.NopEncoder{}).Encode(sid, []byte(id))
	if err != nil {
		t.Fatal(err)
	}
	bad := map[string]string{
		"empty":               "",
		"bad base64":          strings.Repeat("!", len(good)),
		"bad MAC":             good[:len(good)-10] + "AAAAAAAAAA",
		"truncated":           good[:len(good)/2],
		"oversized":           strings.Repeat(good, 40),
		"unsigned":            base64.URLEncoding.EncodeToString([]byte(id)),
		"another name":        sign("sid", secretA, id),
		"another key":         sign(sid, secretB, id),
		"HMAC-SHA-1":          sign(sid, secretA, id, func(c *securecookie.SecureCookie) { c.HashFunc(sha1.New) }),
		"HMAC-MD5":            sign(sid, secretA, id, func(c *securecookie.SecureCookie) { c.HashFunc(md5.New) }),
		"HMAC-SHA-512":        sign(sid, secretA, id, func(c *securecookie.SecureCookie) { c.HashFunc(sha512.New) }),
		"encrypted":           encrypted,
		"an id that is short": sign(sid, secretA, id[:31]),
		"an id that is long":  sign(sid, secretA, id+"x"),
		"respelled":           respell(good),
		"quoted":              `"` + good + `"`,
	}
	for i := range good {
		b := []byte(good)
		b[i] ^= 0x04
		bad[fmt.Sprintf("byte %d", i)] = string(b)
	}
	replaced := v.copy()
	v.get(renew)
	good = v.jar[sid]
	former := newVisitor(m)
	former.get(setName("former"))
	dead := former.jar[sid]
	former.get(logout)
	respond := func(cookie string) string {
		sp.took()
		response := newVisitor(m).send(http.MethodPost, func(w http.ResponseWriter, r *http.Request) {
			s := session.From(r.Context())
			fmt.Fprint(w, nameKey.Get(s), s.Keys(), s.Err())
		}, with(cookie))
		body, _ := io.ReadAll(response.Body)
		return fmt.Sprint(summary(response), string(body))
	}
	want := respond("")
	for name, cookie := range bad {
		check(t, name, respond(cookie), want)
		check(t, name+": calls", sp.took(), "")
	}
	check(t, "log lines", len(counted(&book, "no good signature")), book.lines())
	check(t, "of a session that has ended", respond(dead), want)
	check(t, "that a renewal replaced", respond(replaced.jar[sid]), want)
	check(t, "the good one is better", strings.Contains(respond(good), "x[name]"), true)
	check(t, "signed by securecookie itself", strings.Contains(respond(sign(sid, secretA, idOf(t, good))), "x[name]"), true)
}

// Rank 9. Every Set-Cookie has all attributes of the options, also the second time round,
// and what browsers refuse is refused by New.
func TestSecurityCookieAttributes(t *testing.T) {
	for name, tt := range map[string]struct {
		cookie session.Cookie
		want   string // of every Set-Cookie, without the value and without when it ends
	}{
		"the zero value":         {session.Cookie{}, "__Host-sid; Path=/; HttpOnly; Secure; SameSite=Lax"},
		"strict":                 {session.Cookie{SameSite: http.SameSiteStrictMode}, "__Host-sid; Path=/; HttpOnly; Secure; SameSite=Strict"},
		"another site's frame":   {session.Cookie{SameSite: http.SameSiteNoneMode, Partitioned: true}, "__Host-sid; Path=/; HttpOnly; Secure; SameSite=None; Partitioned"},
		"subdomains":             {session.Cookie{Name: "__Secure-sid", Domain: "example.com"}, "__Secure-sid; Path=/; Domain=example.com; HttpOnly; Secure; SameSite=Lax"},
		"a path":                 {session.Cookie{Name: "__Secure-sid", Path: "/app"}, "__Secure-sid; Path=/app; HttpOnly; Secure; SameSite=Lax"},
		"the upgrade of __Host-": {session.Cookie{Name: "__Host-Http-sid"}, "__Host-Http-sid; Path=/; HttpOnly; Secure; SameSite=Lax"},
		"for scripts":            {session.Cookie{ScriptAccess: true}, "__Host-sid; Path=/; Secure; SameSite=Lax"},
		"in the clear":           {session.Cookie{Insecure: true}, "sid; Path=/; HttpOnly; SameSite=Lax"},
	} {
		tt.cookie.MaxAge = time.Hour
		m := newManager(t, session.Options{Cookie: tt.cookie})
		for range 2 {
			v := newVisitor(m)
			for _, step := range []struct {
				what string
				do   handler
			}{{"create", setName("x")}, {"change", setName("y")}, {"renew", renew}, {"regenerate", login("z")}, {"delete", logout}} {
				response := v.post(step.do)
				check(t, name+", "+step.what+": cookies", len(cookies(response)), 1)
				parts := slices.DeleteFunc(strings.Split(cookies(response)[0], "; "), func(part string) bool {
					return strings.HasPrefix(part, "Max-Age=") || strings.HasPrefix(part, "Expires=")
				})
				size := len(parts[0])
				cookieName, value, _ := strings.Cut(parts[0], "=")
				parts[0] = cookieName
				check(t, name+", "+step.what, strings.Join(parts, "; "), tt.want)
				check(t, name+", "+step.what+": no value", value == "", step.what == "delete")
				if size > 200 {
					t.Errorf("%s: %d bytes of 4096", name, size)
				}
			}
		}
	}
	for _, cookie := range []session.Cookie{
		{Name: "__Host-x", Domain: "example.com"}, {Name: "__Host-x", Path: "/app"}, {Name: "__Host-x", Insecure: true}, {Name: "__hOST-x", Insecure: true},
		{Name: "__Secure-x", Insecure: true}, {SameSite: http.SameSiteNoneMode, Insecure: true}, {Partitioned: true, Insecure: true},
		{Name: strings.Repeat("n", 4000)}, {Name: "a;b"}, {Name: "a\x00"}, {Name: "a,b"}, {Name: "é"}, {Path: "/\r\nSet-Cookie: a=b"}, {Domain: "a;b"}, {Domain: "[::1]"},
	} {
		if _, err := session.New(session.Options{Cookie: cookie}); err == nil {
			t.Errorf("New takes %+v", cookie)
		}
	}
}

// Rank 10. There is no default key, and New takes none that can be guessed.
func TestSecuritySecretsThatCanBeGuessed(t *testing.T) {
	store := &session.RedisStore{Client: redis.NewClient(&redis.Options{Addr: "127.0.0.1:1"})}
	readme, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	example := regexp.MustCompile(`SESSION_SECRET='([^']+)'`).FindSubmatch(readme)
	if example == nil {
		t.Fatal("the README has no example of a secret")
	}
	for name, secrets := range map[string][]string{
		"none": nil, "an empty list": {}, "an unset variable": {""}, "1 byte": {"k"}, "15 bytes": {secretA[:15]}, "16 bytes": {secretA[:16]}, "31 bytes": {secretA[:31]},
		"Express's example": {"keyboard cat"}, "gorilla's example": {"very-secret"}, "the README's": {string(example[1])},
		"zeros": {strings.Repeat("\x00", 64)}, "one letter": {strings.Repeat("a", 64)}, "a good one and a bad one": {secretA, "short"},
	} {
		if _, err := session.New(session.Options{Store: store, Secrets: secrets}); err == nil || !strings.Contains(err.Error(), "openssl rand") {
			t.Errorf("%s: error %v", name, err)
		}
	}
	if _, err := session.New(session.Options{Store: store, Secrets: []string{secretA[:32]}}); err != nil {
		t.Errorf("32 bytes: %v", err)
	}
	// In memory without a secret, every manager has a random one.
	memory := new(session.MemoryStore)
	v := newVisitor(newManager(t, session.Options{Store: memory, Secrets: []string{}}))
	v.get(setName("x"))
	check(t, "name", nameOf(v), "x")
	v.server = newManager(t, session.Options{Store: memory, Secrets: []string{}}).Handler(app)
	check(t, "name under another random secret", nameOf(v), "")
}

// Rank 11. A secret is replaced by a rolling deploy of two instances: nobody is logged out,
// nothing is a 500, and what is sent is signed by the new one.
func TestSecurityRotationLogsNobodyOut(t *testing.T) {
	store := new(session.MemoryStore)
	instance := func(secrets ...string) http.Handler {
		return newManager(t, session.Options{Store: store, Secrets: secrets, Cookie: session.Cookie{MaxAge: time.Hour}}).Handler(app)
	}
	v := newVisitor(newManager(t, session.Options{Store: store, Cookie: session.Cookie{MaxAge: time.Hour}}))
	v.get(setName("x"))
	for step, instances := range [][2]http.Handler{
		{instance(secretA), instance(secretA, secretB)},          // the new one verifies first,
		{instance(secretA, secretB), instance(secretB, secretA)}, // then signs,
		{instance(secretB, secretA), instance(secretB)},          // then is alone
	} {
		for i := range 6 {
			v.server = instances[i%2]
			response := v.post(count)
			check(t, fmt.Sprintf("step %d: status", step), response.StatusCode, http.StatusOK)
			check(t, fmt.Sprintf("step %d: name", step), nameOf(v), "x")
		}
	}
	check(t, "no change is lost", counterOf(v), 18)
	v.server = instance(secretA)
	response := v.post(look)
	check(t, "status where the new secret is unknown", response.StatusCode, http.StatusOK)
	check(t, "name where the new secret is unknown", nameOf(v), "")
}

// Rank 12. Ids have 256 random bits, also under load; a source of randomness that fails
// ends the program; and an id that is in use is not taken over.
func TestSecurityIDsAreRandom(t *testing.T) {
	if os.Getenv("SESSION_TEST_RANDOMNESS") != "" {
		cryptorand.Reader = io.LimitReader(strings.NewReader(strings.Repeat("r", 40)), 40) // one id, and part of a second
		m := newManager(t, session.Options{})
		for range 10 {
			newVisitor(m).get(setName("x"))
		}
		os.Exit(0)
	}
	const goroutines, each = 64, 256
	m := newManager(t, session.Options{})
	ids := make([][]string, goroutines)
	var wg sync.WaitGroup
	for i := range ids {
		wg.Go(func() {
			for range each {
				v := newVisitor(m)
				v.get(setName("x"))
				ids[i] = append(ids[i], idOf(t, v.jar[sid]))
			}
		})
	}
	wg.Wait()
	all := slices.Concat(ids...)
	seen := make(map[string]bool)
	var ones [256]int
	for _, id := range all {
		for _, half := range []string{id[:16], id[16:]} {
			if seen[half] {
				t.Fatal("a handle or a secret came twice")
			}
			seen[half] = true
		}
		for bit := range ones {
			ones[bit] += int(id[bit/8] >> (bit % 8) & 1)
		}
	}
	n := float64(len(all))
	for bit, count := range ones {
		if deviation := math.Abs(float64(count) - n/2); deviation > 6*math.Sqrt(n)/2 { // by chance in one of a million runs
			t.Errorf("bit %d is set in %d of %v ids", bit, count, n)
		}
	}
	if slices.IsSorted(all) {
		t.Error("the ids ascend")
	}

	cmd := exec.Command(os.Args[0], "-test.run=^TestSecurityIDsAreRandom$")
	cmd.Env = append(os.Environ(), "SESSION_TEST_RANDOMNESS=fails")
	if out, err := cmd.CombinedOutput(); err == nil || !bytes.Contains(out, []byte("failed to read random data")) {
		t.Errorf("a program without randomness goes on: %v, %s", err, out)
	}

	forEachStore(t, func(t *testing.T, store session.Store) {
		if err := store.Create(t.Context(), "key", []byte("first"), time.Minute); err != nil {
			t.Fatal(err)
		}
		if err := store.Create(t.Context(), "key", []byte("second"), time.Minute); !errors.Is(err, session.ErrConflict) {
			t.Errorf("error %v, want ErrConflict", err)
		}
		data, err := store.Load(t.Context(), "key")
		check(t, "record", fmt.Sprint(string(data), " ", err), "first <nil>")
	})
}

// Rank 17. Cookie headers as nobody should send them: which of them open the session "x",
// and what they cost.
func TestSecurityOddCookieHeaders(t *testing.T) {
	sp := &spy{Store: new(session.MemoryStore)}
	m := newManager(t, session.Options{Store: sp})
	v := newVisitor(m)
	v.get(setName("x"))
	good := v.jar[sid]
	bad := good[:len(good)-8] + "AAAAAAAA"
	own, ours, theirs := sid+"="+good, sid+"="+good, sid+"="+bad
	many := func(n int, cookie string, last ...string) string {
		return strings.Join(append(slices.Repeat([]string{cookie}, n), last...), "; ")
	}
	for name, tt := range map[string]struct {
		headers []string
		want    string
	}{
		"alone":                        {[]string{own}, "x"},
		"among others":                 {[]string{"a=b; " + own + "; c=d"}, "x"},
		"bad, good":                    {[]string{theirs + "; " + ours}, "x"},
		"good, bad":                    {[]string{ours + "; " + theirs}, "x"},
		"bad, good in two headers":     {[]string{theirs, ours}, "x"},
		"empty, good":                  {[]string{sid + "=; " + ours}, "x"},
		"without =, good":              {[]string{sid + "; " + ours}, "x"},
		"no space between":             {[]string{"a=b;" + own}, "x"},
		"spaces and tabs around":       {[]string{" \t " + sid + " =" + good + " "}, "x"},
		"after the old $Version":       {[]string{"$Version=1; " + own + "; $Path=/"}, "x"},
		"2,999 bad before it":          {[]string{many(2999, theirs, own)}, "x"},
		"the last of 3,000":            {[]string{many(2999, "a=b", own)}, "x"},
		"one of 3,001":                 {[]string{many(3000, "a=b", own)}, "x"}, // net/http would see none
		"the first of 3,001":           {[]string{own + "; " + many(3000, "a=b")}, "x"},
		"nameless":                     {[]string{"=" + own}, ""},
		"nameless, with a space":       {[]string{"= " + own}, ""},
		"lower case":                   {[]string{"__host-sid=" + good}, ""},
		"upper case":                   {[]string{"__HOST-SID=" + good}, ""},
		"percent-encoded":              {[]string{"%5F%5FHost-sid=" + good}, ""},
		"after a Unicode space":        {[]string{"\u2000" + own}, ""},
		"after a no-break space":       {[]string{"\u00a0" + own}, ""},
		"with a NUL":                   {[]string{sid + "\x00=" + good}, ""},
		"in quotes":                    {[]string{sid + `="` + good + `"`}, ""},
		"half a quote":                 {[]string{sid + `="` + good}, ""},
		"a list with commas":           {[]string{"a=b," + own}, ""},
		"in the quotes of another":     {[]string{`a="b; ` + own + `"`}, ""},
		"name and value percent-coded": {[]string{sid + "=" + strings.ReplaceAll(good, "=", "%3D")}, ""},
		"with a backslash":             {[]string{sid + `=\` + good}, ""},
	} {
		sp.took()
		response := newVisitor(m).send(http.MethodPost, use(func(s *session.Session) { check(t, name, nameKey.Get(s), tt.want) }), func(r *http.Request) {
			r.Header["Cookie"] = tt.headers
		})
		want := map[string]string{"x": "L", "": ""}[tt.want]
		check(t, name+": calls, and no cookie", took(sp, response), want)
		check(t, name+": status", response.StatusCode, http.StatusOK)
	}

	// One that a logout left behind, because its Domain or Path has changed since, does not
	// hide the good one. 2,999 of our name cost what Go's own parsing does, and a load.
	former := newVisitor(m)
	former.get(setName("former"))
	dead := sid + "=" + former.jar[sid]
	former.get(logout)
	sp.took()
	newVisitor(m).send(http.MethodGet, use(func(s *session.Session) { check(t, "after one that has ended", nameKey.Get(s), "x") }), func(r *http.Request) {
		r.Header.Set("Cookie", dead+"; "+own)
	})
	check(t, "calls for two good signatures", sp.took(), "L L")
	for name, cookie := range map[string]string{"good": own, "bad": theirs, "dead": dead} {
		r := newRequest("https://example.com/")
		r.Header.Set("Cookie", many(2999, cookie))
		r = r.WithContext(context.WithValue(r.Context(), handlerKey{}, handler(look)))
		sp.took()
		ours := allocated(func() { v.server.ServeHTTP(httptest.NewRecorder(), r) })
		if calls := sp.took(); strings.Count(calls, "L") > rounds || strings.ContainsAny(calls, "CSD") {
			t.Errorf("%s: calls %q in %d rounds", name, calls, rounds)
		}
		theirs := allocated(func() { r.CookiesNamed(sid) })
		if ours > theirs+64<<10 {
			t.Errorf("%s: %d bytes, and parsing alone takes %d", name, ours, theirs)
		}
	}
}

// rounds is how often allocated runs its function.
const rounds = 5

// allocated returns how many bytes f allocates, at the least: others allocate too.
func allocated(f func()) (least uint64) {
	least = math.MaxUint64
	for range rounds {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		f()
		runtime.ReadMemStats(&after)
		least = min(least, after.TotalAlloc-before.TotalAlloc)
	}
	return least
}
