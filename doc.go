// Package session keeps HTTP sessions for net/http: on the server, in memory or
// in Redis, under a signed cookie, with the semantics of Express's
// express-session and the types of Go.
//
// Wrap a handler once; then read and write values through typed keys. Nothing
// has to be saved, flushed or checked:
//
//	const viewsKey session.Key[int] = "views"
//
//	func main() {
//		sessions, err := session.New(session.Options{})
//		if err != nil {
//			log.Fatal(err)
//		}
//		log.Fatal(http.ListenAndServe("localhost:8080", sessions.Handler(http.HandlerFunc(home))))
//	}
//
//	func home(w http.ResponseWriter, r *http.Request) {
//		s := session.From(r.Context())
//		viewsKey.Update(s, func(n int) int { return n + 1 })
//		fmt.Fprintln(w, viewsKey.Get(s))
//	}
//
// # What it promises
//
// Logout is final: no interleaving of requests, retries and renewals brings an
// ended session back.
//
// No update is lost: changes to different keys, and every [Key.Update] of one key,
// are all kept however many requests make them at once. If two requests [Key.Set]
// one key, the later save wins.
//
// What the client saw is saved: a response leaves only after what its handler
// changed is stored, or its session has ended. If it cannot be stored, the response is an
// error instead.
//
// # The way of a request
//
// A session is loaded when the handler first touches it, or before the handler
// runs where the method is not safe (RFC 9110 §9.2.1), so that an outage of the
// store is never taken for "not logged in" where it matters. A missing or forged
// cookie costs no call of the store.
//
// It is saved once, before the first byte of the response leaves, and only if its
// values or its lifetime differ from those stored, or its deadline is due to move. If another request changed the session
// meanwhile, this request's calls are made again on what is there now, and each is made
// once: if it cannot be told whether a save was made, the response is a 503. A change
// after the first byte is saved when the handler returns.
//
// # Errors
//
// Errors are sticky, as in bufio.Writer: handlers read and write without
// checking, and what failed turns the response into a 503, or a 500, unless the
// handler itself answered 500 or above. [Session.Err] tells a handler that
// wants to know. [Session.Destroy], [Session.Save] and [Session.Reload] call the
// store at once, and return their error as well.
//
// # Login and logout
//
// Call [Session.Regenerate] at login: the visitor gets a new session, and a
// cookie that an attacker planted before is worth nothing. Call [Session.Destroy]
// at logout; what is set after it begins a new session. [Session.Renew] replaces the
// cookie within one login: with a grace of 0 where rights grow or a credential changes, and
// of 30 seconds in a rotation, so that the requests that are under way stay logged in.
//
// # Lifetimes
//
// A session ends when it has not been used for its lifetime
// ([Options.IdleTimeout], [Cookie].MaxAge or [Session.SetMaxAge]), and in any case
// [Options.AbsoluteTimeout] after it began. Reading a session is use. That is written
// once per twentieth of the lifetime, so that most reads write nothing. The record says
// when the session was used, and the options of who reads it say when it ends.
//
// # Responses
//
// With a Set-Cookie goes Cache-Control: no-store, and a response for which the
// session was looked at has Vary: Cookie. An untouched request gets neither, unless
// the options send a cookie with it. A handler that looks only after the first byte, and
// writes on, comes too late for Vary: that is logged, and the response is cut off if its
// Cache-Control lets shared caches keep it.
package session
