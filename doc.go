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
// are all kept, however many requests make them at once. If two requests [Key.Set]
// one key, the later save wins.
//
// What the client saw is saved: a response leaves only after the changes of its handler
// are stored, or after its session has ended. If they cannot be stored, the response is an
// error instead.
//
// # The way of a request
//
// A session is loaded when the handler first reads or changes it. If the request's method is
// not safe (RFC 9110 §9.2.1), the session is loaded before the handler runs, so that the
// handler never takes an outage of the store for "not logged in". A request without a cookie,
// or with a forged one, makes no call of the store.
//
// A session is saved once, before the first byte of the response leaves. It is saved only if
// its values or its lifetime have changed, or if its deadline is due to move. If another
// request has saved it meanwhile, this request's changes are made again on the newer values.
// Each change is made once: if the library cannot tell whether a save was made, the response
// is a 503. Changes after the first byte are saved when the handler returns.
//
// # Errors
//
// Errors are sticky, as in bufio.Writer. Handlers read and write without checking, and an
// error turns the response into a 503 or a 500, unless the handler itself has answered 500 or
// above. [Session.Err] returns the error to a handler that wants to know.
// [Session.Destroy], [Session.Save] and [Session.Reload] call the store at once, and return
// their error as well.
//
// # Login and logout
//
// Call [Session.Regenerate] at login: the visitor gets a new session under a new cookie, and a
// cookie that an attacker has planted is worthless. Call [Session.Destroy] at logout; a value
// that is set afterwards begins a new session. [Session.Renew] replaces the cookie within one
// login. Give it a grace of 0 where rights grow or a credential changes. Give it 30 seconds in
// a rotation, so that the requests under way stay logged in.
//
// # Lifetimes
//
// A session ends when it has not been used for its lifetime
// ([Options.IdleTimeout], [Cookie].MaxAge or [Session.SetMaxAge]), and in any case
// [Options.AbsoluteTimeout] after it began. Reading a session is use. That use is written
// once in a twentieth of the lifetime, so that most reads write nothing. The record says
// when the session was used; the options of the program that reads it say when it ends.
//
// # Responses
//
// A response with a Set-Cookie has Cache-Control: no-store. A response whose handler has
// looked at the session has Vary: Cookie. A request that does not touch its session gets
// neither, unless the options send a cookie with it. If the handler looks for the first time
// after the first byte, it is too late for Vary. If it then writes on, that is logged, and the
// response is cut off if its Cache-Control lets shared caches keep it.
package session

// Where a change belongs, from the top of a request to its end:
//
//	options.go, cookie.go          what can be configured; New checks and compiles it
//	manager.go                     New, From, and sessions from outside of a request
//	middleware.go                  Handler, and the ResponseWriter that saves before the first byte
//	session.go, key.go, json.go    what a handler calls: Session and Key
//	state.go                       what a session knows, and its lock
//	load.go                        what the request brought, and the session that it opens
//	commit.go                      what is saved, and when
//	reply.go                       what cookie is sent, and what else the response says
//	log.go, errors.go              what is logged, and what went wrong
//	store.go, store_*.go           the contract of a store, and its two implementations
//	internal/records               one record in a store: loaded, created, replaced under conflict
//	internal/native, expressjs     how cookies and records look, byte by byte
//	internal/wire                  what these two have in common: types and interfaces
