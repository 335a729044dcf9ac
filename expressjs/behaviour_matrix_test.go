package expressjs_test

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/seed-4f96e14b/session"
	"github.com/seed-4f96e14b/session/expressjs"
)

// The matrices of what a handler does with a session. A cell has the calls of the store,
// L for Load, C Create, S CompareAndSwap and D Delete, and what becomes of the cookie: "old+60"
// is the session's, for 60 seconds more, "new" one for another id until the
// browser closes, and x one that deletes it. The columns express have
// the same of express-session, whose calls are G get, S set, T touch and D destroy.
//
// differs says why a row is not Express's. All rows of sessions that are there have in common
// that a touch is an S, and is due only when the deadline has a twentieth of the lifetime to move.

var (
	modify      = func(s *session.Session) { userKey.Set(s, "u2") }
	reload      = func(s *session.Session) { s.Reload() }
	save        = func(s *session.Session) { s.Save() }
	regenerate  = func(s *session.Session) { s.Regenerate() }
	destroy     = func(s *session.Session) { s.Destroy() }
	forLonger   = func(s *session.Session) { s.SetMaxAge(999 * time.Second) }
	untilClosed = func(s *session.Session) { s.SetMaxAge(0) }
)

const listKey session.Key[[]string] = "list"

func inOrder(steps ...func(*session.Session)) func(*session.Session) {
	return func(s *session.Session) {
		for _, step := range steps {
			step(s)
		}
	}
}

// handlerActions are the rows of both matrices, but for those that give req.session
// another value, which has no counterpart.
var handlerActions = map[string]func(*session.Session){
	"noop":                     doNothing,
	"read":                     readUser,
	"modify":                   modify,
	"assignSame":               func(s *session.Session) { old, ok := userKey.Lookup(s); assign(s, userKey, old, ok) },
	"assignAndRevert":          func(s *session.Session) { old, ok := userKey.Lookup(s); modify(s); assign(s, userKey, old, ok) },
	"mutateNested":             func(s *session.Session) { listKey.Set(s, append(listKey.Get(s), "b")) },
	"deleteKey":                func(s *session.Session) { nKey.Delete(s) },
	"reorderKeys":              func(s *session.Session) { n, ok := nKey.Pop(s); assign(s, nKey, n, ok) },
	"save":                     save,
	"modifySave":               inOrder(modify, save),
	"saveModify":               inOrder(save, modify),
	"modifySaveModify":         inOrder(modify, save, setUser("u3")),
	"destroy":                  destroy,
	"modifyDestroy":            inOrder(modify, destroy),
	"regenerate":               regenerate,
	"regenerateModify":         inOrder(regenerate, modify),
	"regenerateModifySave":     inOrder(regenerate, modify, save),
	"regenerateTwice":          inOrder(regenerate, regenerate),
	"regenerateDestroy":        inOrder(regenerate, destroy),
	"reload":                   reload,
	"modifyReload":             inOrder(modify, reload),
	"reloadModify":             inOrder(reload, modify),
	"reloadSave":               inOrder(reload, save),
	"touch":                    func(s *session.Session) { s.Touch() },
	"cookieMaxAge":             forLonger,
	"cookieMaxAgeModify":       inOrder(forLonger, modify),
	"cookieExpiresNull":        untilClosed,
	"cookieExpiresNullModify":  inOrder(untilClosed, modify),
	"cookieExpiresFalseModify": inOrder(untilClosed, modify),
}

// assign gives a key the value that was read; JavaScript's undefined is no value.
func assign[T any](s *session.Session, key session.Key[T], value T, ok bool) {
	if ok {
		key.Set(s, value)
	} else {
		key.Delete(s)
	}
}

// unsetActions are the rows of both matrices that stay out.
var unsetActions = []string{"setNull", "delete", "modifySetNull"}

const (
	lazy      = "an untouched session is not loaded"
	twenty    = "the deadline moves once per twentieth of the lifetime"
	ordered   = "the order of keys is no change"
	onceSaved = "a save moves the deadline, so no touch follows; it sends no cookie, and one that is due goes with another save, the response's"
	clears    = "Destroy deletes the browser's cookie too, and looks for the pointer of a renewal"
	swapped   = "the new session is saved before the old one is deleted, and the pointer of a renewal looked for"
	oneSave   = "as regenerate; one save is enough"
	oneOnly   = "what was never stored needs no delete"
	firstGet  = "the first load is the reload; " + twenty
	keeps     = "a changed lifetime is saved and sent, also if the data are the same"
	falsy     = "false and null are one thing: until the browser closes"
)

// foundRows are the matrix of a session that is in the store.
var foundRows = []struct {
	action, express string // calls, calls with resave; cookie, with rolling
	plain           string // maxAge of 60 s, deadline not due
	due             string // the same, deadline due
	resave          string // not due
	rolling         string // due
	browser         string // without maxAge, as Express has left it
	differs         string
}{
	{"noop", "G T, G S; -, old+60", "", "", "L S", "L S old+60", "", lazy},
	{"read", "G T, G S; -, old+60", "L", "L S", "L S", "L S old+60", "L S", twenty},
	{"modify", "G S, G S; old+60, old+60", "L S old+60", "L S old+60", "L S old+60", "L S old+60", "L S", ""},
	{"assignSame", "G T, G S; -, old+60", "L", "L S", "L S", "L S old+60", "L S", twenty},
	{"assignAndRevert", "G T, G S; -, old+60", "L", "L S", "L S", "L S old+60", "L S", twenty},
	{"mutateNested", "G S, G S; old+60, old+60", "L S old+60", "L S old+60", "L S old+60", "L S old+60", "L S", ""},
	{"deleteKey", "G S, G S; old+60, old+60", "L S old+60", "L S old+60", "L S old+60", "L S old+60", "L S", ""},
	{"reorderKeys", "G S, G S; old+60, old+60", "L", "L S", "L S", "L S old+60", "L S", ordered},
	{"save", "G S T, G S T; -, old+60", "L S", "L S", "L S", "L S S old+60", "L S", onceSaved},
	{"modifySave", "G S T, G S T; old+60, old+60", "L S", "L S S old+60", "L S", "L S S old+60", "L S", onceSaved},
	{"saveModify", "G S S, G S S; old+60, old+60", "L S S old+60", "L S S old+60", "L S S old+60", "L S S old+60", "L S S", ""},
	{"modifySaveModify", "G S S, G S S; old+60, old+60", "L S S old+60", "L S S old+60", "L S S old+60", "L S S old+60", "L S S", ""},
	{"destroy", "G D, G D; -, -", "D L x", "D L x", "L D L x", "L D L x", "D L x", clears},
	{"modifyDestroy", "G D, G D; -, -", "L D L x", "L D L x", "L D L x", "L D L x", "L D L x", clears},
	{"regenerate", "G D S, G D S; new+60, new+60", "C D L new+60", "C D L new+60", "L C D L new+60", "L C D L new+60", "C D L new", swapped},
	{"regenerateModify", "G D S, G D S; new+60, new+60", "C D L new+60", "C D L new+60", "L C D L new+60", "L C D L new+60", "C D L new", swapped},
	{"regenerateModifySave", "G D S S, G D S S; new+60, new+60", "C D L new+60", "C D L new+60", "L C D L new+60", "L C D L new+60", "C D L new", oneSave},
	{"regenerateTwice", "G D D S, G D D S; new+60, new+60", "C D L new+60", "C D L new+60", "L C D L new+60", "L C D L new+60", "C D L new", "as regenerate; " + oneOnly},
	{"regenerateDestroy", "G D D, G D D; -, -", "D L x", "D L x", "L D L x", "L D L x", "D L x", "as destroy; " + oneOnly},
	{"reload", "G G T, G G S; -, old+60", "L", "L S", "L L S", "L L S old+60", "L S", firstGet},
	{"modifyReload", "G G T, G G S; -, old+60", "L L", "L L S", "L L S", "L L S old+60", "L L S", twenty},
	{"reloadModify", "G G S, G G S; old+60, old+60", "L S old+60", "L S old+60", "L L S old+60", "L L S old+60", "L S", firstGet},
	{"reloadSave", "G G S T, G G S T; -, old+60", "L S", "L S", "L L S", "L L S S old+60", "L S", firstGet},
	{"touch", "G T, G S; -, old+60", "L", "L S", "L S", "L S old+60", "L S", twenty},
	{"cookieMaxAge", "G T, G S; -, old+999", "L S old+999", "L S old+999", "L S old+999", "L S old+999", "L S old+999", keeps},
	{"cookieMaxAgeModify", "G S, G S; old+999, old+999", "L S old+999", "L S old+999", "L S old+999", "L S old+999", "L S old+999", ""},
	{"cookieExpiresNull", "G T, G S; -, old", "L S old", "L S old", "L S old", "L S old", "L S", keeps},
	{"cookieExpiresNullModify", "G S, G S; -, old", "L S old", "L S old", "L S old", "L S old", "L S", keeps},
	{"cookieExpiresFalseModify", "G S, G S; old, old", "L S old", "L S old", "L S old", "L S old", "L S", falsy},
}

// newRows are the matrix of a session that is not in the store.
var newRows = []struct {
	action, express string // calls; cookie, for saveUninitialized 0 and 1
	none            string // without a cookie
	forged          string // with one that does not verify
	unknown         string // with a signed id that the store does not know
	all             string // saveUninitialized, without a cookie
	differs         string
}{
	{"noop", "-; - and S; new+60", "", "", "", "C new+60", ""},
	{"read", "-; - and S; new+60", "", "", "L", "C new+60", ""},
	{"modify", "S; new+60 and S; new+60", "C new+60", "C new+60", "L C new+60", "C new+60", ""},
	{"assignSame", "-; - and S; new+60", "", "", "L", "C new+60", ""},
	{"assignAndRevert", "-; - and S; new+60", "", "", "L", "C new+60", ""},
	{"mutateNested", "S; new+60 and S; new+60", "C new+60", "C new+60", "L C new+60", "C new+60", ""},
	{"deleteKey", "-; - and S; new+60", "", "", "L", "C new+60", ""},
	{"reorderKeys", "-; - and S; new+60", "", "", "L", "C new+60", ""},
	{"save", "S; - and S; new+60", "C new+60", "C new+60", "L C new+60", "C new+60", "what is stored gets its cookie"},
	{"modifySave", "S; new+60 and S; new+60", "C new+60", "C new+60", "L C new+60", "C new+60", ""},
	{"saveModify", "S S; new+60 and S S; new+60", "C S new+60", "C S new+60", "L C S new+60", "C S new+60", ""},
	{"modifySaveModify", "S S; new+60 and S S; new+60", "C S new+60", "C S new+60", "L C S new+60", "C S new+60", ""},
	{"destroy", "D; - and D; -", "", "x", "D L x", "", oneOnly + "; the browser's cookie is deleted"},
	{"modifyDestroy", "D; - and D; -", "", "x", "L D L x", "", oneOnly + "; the browser's cookie is deleted"},
	{"regenerate", "D S; new+60 and D S; new+60", "C new+60", "C new+60", "C D L new+60", "C new+60", oneOnly},
	{"regenerateModify", "D S; new+60 and D S; new+60", "C new+60", "C new+60", "C D L new+60", "C new+60", oneOnly},
	{"regenerateModifySave", "D S S; new+60 and D S S; new+60", "C new+60", "C new+60", "C D L new+60", "C new+60", oneOnly + "; one save is enough"},
	{"regenerateTwice", "D D S; new+60 and D D S; new+60", "C new+60", "C new+60", "C D L new+60", "C new+60", oneOnly},
	{"regenerateDestroy", "D D; - and D D; -", "", "x", "D L x", "", oneOnly},
	{"reload", "G; - and G S; new+60", "", "", "L", "C new+60", "an id that was just made is not asked for"},
	{"modifyReload", "G S; new+60 and G S; new+60", "", "", "L", "C new+60", "Reload drops what is not saved, also where nothing is"},
	{"reloadModify", "G S; new+60 and G S; new+60", "C new+60", "C new+60", "L C new+60", "C new+60", "an id that was just made is not asked for"},
	{"reloadSave", "G S; - and G S; new+60", "C new+60", "C new+60", "L C new+60", "C new+60", "as reload and save"},
	{"touch", "-; - and S; new+60", "", "", "L", "C new+60", ""},
	{"cookieMaxAge", "-; - and S; new+999", "", "", "L", "C new+999", ""},
	{"cookieMaxAgeModify", "S; new+999 and S; new+999", "C new+999", "C new+999", "L C new+999", "C new+999", ""},
	{"cookieExpiresNull", "-; - and S; new", "", "", "L", "C new", ""},
	{"cookieExpiresNullModify", "S; new and S; new", "C new", "C new", "L C new", "C new", ""},
	{"cookieExpiresFalseModify", "S; new and S; new", "C new", "C new", "L C new", "C new", falsy},
}

func matrixBehaviours() (all []behaviour) {
	minute := maxAge(time.Minute)
	for _, row := range foundRows {
		all = append(all, behaviour{"F-" + row.action, func(t *testing.T) {
			for _, column := range []struct {
				name         string
				maxAge, left time.Duration
				options      func(*expressjs.Options)
				want         string
			}{
				{"plain", time.Minute, time.Minute, minute, row.plain},
				{"due", time.Minute, 30 * time.Second, minute, row.due},
				{"resave", time.Minute, time.Minute, both(minute, resave), row.resave},
				{"rolling", time.Minute, 30 * time.Second, both(minute, rolling), row.rolling},
				{"browser", 0, 0, maxAge(0), row.browser},
			} {
				t.Run(column.name, timed(func(t *testing.T) {
					site := newSite(t, column.options)
					values := `,"userId":"u1","list":["a"],"n":1,"last":true`
					b := site.has(t, "found", expressRecord(column.maxAge, column.left, values), time.Hour)
					got := traced(t, site, b.get(handlerActions[row.action]), "found")
					if got != column.want {
						t.Errorf("got %q, want %q (express: %s)", got, column.want, row.express)
					}
				}))
			}
		}})
	}
	for _, row := range newRows {
		all = append(all, behaviour{"N-" + row.action, func(t *testing.T) {
			for _, column := range []struct {
				name, cookie string
				options      func(*expressjs.Options)
				want         string
			}{
				{"none", "", minute, row.none},
				{"unsigned", "unknown", minute, row.forged},
				{"tampered", strings.Replace(signature("unknown", siteSecret), "unknown", "unknowm", 1), minute, row.forged},
				{"unknown", signature("unknown", siteSecret), minute, row.unknown},
				{"saveUninitialized", "", both(minute, saveUninitialized), row.all},
				{"resave does not matter", "", both(minute, resave), row.none},
				{"rolling does not matter", "", both(minute, rolling), row.none},
			} {
				t.Run(column.name, timed(func(t *testing.T) {
					site := newSite(t, column.options)
					b := site.visitor()
					if column.cookie != "" {
						b.jar["connect.sid"] = column.cookie
					}
					got := traced(t, site, b.get(handlerActions[row.action]), "unknown")
					if got != column.want {
						t.Errorf("got %q, want %q (express: %s)", got, column.want, row.express)
					}
				}))
			}
		}})
	}
	return all
}

func both(a, b func(*expressjs.Options)) func(*expressjs.Options) {
	return func(o *expressjs.Options) { a(o); b(o) }
}

// traced returns the calls of the store, and what became of the cookie that had the id.
func traced(t *testing.T, s *site, response *http.Response, id string) string {
	t.Helper()
	cell := s.store.took()
	c := sent(t, response)
	switch {
	case c == nil:
	case c.MaxAge < 0:
		cell += " x"
	default:
		cell += " new"
		if sidIn(c.Value) == id {
			cell = strings.TrimSuffix(cell, "new") + "old"
		}
		if !c.Expires.IsZero() {
			cell += fmt.Sprintf("%+d", time.Until(c.Expires)/time.Second)
		}
	}
	return strings.TrimSpace(cell)
}

// Each row of the matrices is there, and says what SEMANTICS.md says of it.
func TestMatrixRows(t *testing.T) {
	verdicts := make(map[string]string)
	for _, row := range semantics(t) {
		verdicts[row.id] = row.verdict
	}
	seen := make(map[string]int)
	compare := func(id, differs string) {
		seen[id]++
		want := "different"
		if differs == "" {
			want = "same"
		}
		if verdicts[id] != want {
			t.Errorf("%s is %q in SEMANTICS.md, and the matrix says %q", id, verdicts[id], want)
		}
	}
	for _, row := range foundRows {
		compare("F-"+row.action, row.differs)
	}
	for _, row := range newRows {
		compare("N-"+row.action, row.differs)
	}
	for action := range handlerActions {
		if seen["F-"+action] != 1 || seen["N-"+action] != 1 {
			t.Errorf("%s is not once in each matrix", action)
		}
	}
	for _, action := range unsetActions {
		if slices.Contains([]int{seen["F-"+action], seen["N-"+action]}, 1) {
			t.Errorf("%s has a test", action)
		}
	}
}
