package expressjs_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/seed-4f96e14b/session"
	"github.com/seed-4f96e14b/session/expressjs"
)

// However a client writes its Cookie header, both sides take it for the same.
func TestNodeCookieHeader(t *testing.T) {
	a := startApps(t, expressjs.Options{})
	v := a.visitor(t)
	v.post(a.express, "/login", ada)
	cookie := v.cookie()
	for header, known := range map[string]bool{
		"connect.sid=" + cookie:                                   true,
		"connect.sid= " + cookie:                                  true,
		"connect.sid=\t" + cookie:                                 true,
		"connect.sid \t=\t " + cookie:                             true,
		"a=b;connect.sid=\t " + cookie + " \t; c=d":               true,
		`connect.sid="` + cookie + `"`:                            true,
		`connect.sid= "` + cookie + `"`:                           true,
		`connect.sid=" ` + cookie + `"`:                           false,
		"connect.sid=" + strings.ReplaceAll(cookie, "s%3A", "s:"): true,
		"Connect.sid=" + cookie:                                   false,
		"connect.sid==" + cookie:                                  false,
		"connect.sid=" + cookie + "x":                             false,
	} {
		for _, side := range []side{a.express, a.golang} {
			request, err := http.NewRequest("GET", side.url+"/get/user", nil)
			if err != nil {
				t.Fatal(err)
			}
			request.Header.Set("Cookie", header)
			response, err := http.DefaultClient.Do(request)
			if err != nil {
				t.Fatal(err)
			}
			response.Body.Close()
			expect(t, fmt.Sprintf("%s knows %q", side.name, strings.ReplaceAll(header, cookie, "...")), response.ContentLength == int64(len(ada)), known)
		}
	}
}

// A lifetime longer than browsers keep a cookie is the same on both sides: in the cookie, in
// the record and in Redis.
func TestNodeLongMaxAge(t *testing.T) {
	const lifetime = 1000 * 24 * time.Hour
	a := startApps(t, expressjs.Options{Cookie: expressjs.Cookie{MaxAge: lifetime}})
	a.bothWays(t, func(t *testing.T, from, to side) {
		v := a.visitor(t)
		v.post(from, "/login", ada)
		for _, side := range []side{from, to} {
			v.post(side, "/set/theme", `"`+side.name+`"`)
			ends := map[string]time.Time{"JSON": a.expires(t, v.id()), "Redis": a.ends(t, v.id())}
			if v.setCookie != "" {
				ends["the cookie"] = cookieEnd(t, v.setCookie)
			}
			for what, end := range ends {
				if off := time.Until(end) - lifetime; off.Abs() > time.Minute {
					t.Errorf("after a save by %s the session ends %v off, says %s", side.name, off, what)
				}
			}
		}
	})
}

// For expires = false Express writes false, which Go reads and keeps; for a session that Go
// begins it writes null.
func TestNodeExpiresFalse(t *testing.T) {
	a := startApps(t, expressjs.Options{})
	ends := func(v *visitor) string {
		var cookie map[string]json.RawMessage
		if err := json.Unmarshal(a.record(t, v.id())["cookie"], &cookie); err != nil {
			t.Fatal(err)
		}
		return fmt.Sprintf("%s %s", cookie["expires"], cookie["originalMaxAge"])
	}
	v := a.visitor(t)
	v.post(a.express, "/cookie", `{"expires":false}`)
	expect(t, "by Express", ends(v), "false false")
	v.post(a.golang, "/set/theme", `"dark"`)
	expect(t, "by Express, saved by Go", ends(v), "false false")
	v = a.visitor(t)
	v.inGo(func(s *session.Session) { s.SetMaxAge(0); themeKey.Set(s, "dark") })
	expect(t, "by Go", ends(v), "null null")
}

// Express takes options that Go refuses, because browsers do not take what comes of them, or
// because they protect nothing.
func TestNodeTakesWhatGoRefuses(t *testing.T) {
	a := startApps(t, expressjs.Options{})
	for name, tt := range map[string]struct {
		change func(o *expressjs.Options, config map[string]any)
		why    string
	}{
		"a bar in the name": {func(o *expressjs.Options, config map[string]any) { o.Name, config["name"] = "a|b", "a|b" }, "Cookie.Name"},
		"a name of 5 kB": {func(o *expressjs.Options, config map[string]any) {
			o.Name = strings.Repeat("n", 5000)
			config["name"] = o.Name
		}, "Cookie.Name"},
		"an address as the domain": {func(o *expressjs.Options, config map[string]any) {
			o.Cookie.Domain = "127.0.0.1"
			config["cookie"].(map[string]any)["domain"] = o.Cookie.Domain
		}, "Cookie.Domain"},
		"an empty secret": {func(o *expressjs.Options, config map[string]any) {
			o.Secrets = []string{secretA, ""}
			config["secret"] = o.Secrets
		}, "Secrets[1]"},
		"a secret twice": {func(o *expressjs.Options, config map[string]any) {
			o.Secrets = []string{secretA, secretA}
			config["secret"] = o.Secrets
		}, "Secrets[1]"},
	} {
		t.Run(name, func(t *testing.T) {
			options := expressjs.Options{Secrets: []string{secretA}, Store: expressjs.RedisStore{Client: a.client}}
			config := nodeConfig(options, a.redis.Options().Addr)
			tt.change(&options, config["session"].(map[string]any))
			response, err := http.Post(startNode(t, config)+"/set/theme", "", strings.NewReader(`"dark"`))
			if err != nil {
				t.Fatal(err)
			}
			response.Body.Close()
			expect(t, "status of Express", response.StatusCode, http.StatusOK)
			expect(t, "cookies of Express", len(response.Header["Set-Cookie"]), 1)
			if _, err := expressjs.New(options); err == nil || !strings.Contains(err.Error(), tt.why) {
				t.Errorf("New: error %v, want one about %s", err, tt.why)
			}
		})
	}
}

// Express keeps the order in which values were set. Go sorts them, and puts its own member
// behind them; the cookie stays in front.
func TestNodeOrderOfKeys(t *testing.T) {
	a := startApps(t, expressjs.Options{})
	order := func(v *visitor) string {
		value, err := a.redis.Get(t.Context(), a.prefix()+v.id()).Result()
		if err != nil {
			t.Fatal(err)
		}
		d := json.NewDecoder(strings.NewReader(value))
		var names []string
		d.Token()
		for d.More() {
			name, _ := d.Token()
			names = append(names, name.(string))
			var skipped json.RawMessage
			d.Decode(&skipped)
		}
		return strings.Join(names, " ")
	}
	v := a.visitor(t)
	for _, name := range []string{"z", "a", "m"} {
		v.post(a.express, "/set/"+name, `1`)
	}
	expect(t, "by Express", order(v), "cookie z a m")
	v.post(a.golang, "/set/b", `1`)
	expect(t, "by Go", order(v), "cookie a b m z _goSession")
	v.post(a.express, "/set/c", `1`)
	expect(t, "by Express again", order(v), "cookie a b m z _goSession c")
}

// With resave, Express's default, a request that only reads saves the session that it has
// loaded: it brings back what Go has ended, and undoes what Go has changed. Without resave it
// does neither.
func TestNodeReaderAndResave(t *testing.T) {
	for _, resave := range []bool{true, false} {
		t.Run(fmt.Sprintf("resave %v", resave), func(t *testing.T) {
			a := startApps(t, expressjs.Options{Resave: resave})
			v := a.visitor(t)
			v.post(a.express, "/login", ada)
			v.slowOnExpress(func() { v.post(a.golang, "/set/theme", `"dark"`) }, "x?read", "")
			undone := v.get(a.golang, "/get/theme") == ""
			expect(t, "the change is undone", undone, resave)

			old := v.copy()
			v.slowOnExpress(func() { v.post(a.golang, "/logout", "") }, "x?read", "")
			expect(t, "the session is back", a.has(t, old.id()), resave)
		})
	}
}
