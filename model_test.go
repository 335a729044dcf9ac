package session_test

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/seed-4f96e14b/session"
	"github.com/seed-4f96e14b/session/expressjs"
)

// The model test drives several tabs of one browser through the real middleware, and
// decides at every call of the store which tab goes on. What the store holds
// after each write is compared with a reference: a map for each session, on which the
// calls of each request are made in the order of the writes.
//
// What it checks:
//
//   - a write leaves exactly what the reference has: no change lost, none made twice,
//     no data of another session;
//   - what a request reads is what the store had when it loaded its session;
//   - what a request was told (a 200) is in the store, or its session has ended;
//   - every other answer has a reason (see reasons);
//   - what ended is never written again, and what it held is under no other id;
//   - a cookie that a response sends opens the session, and still does when all tabs are
//     done; one that was renewed, replaced or destroyed opens nothing;
//   - no session shows a mix of two logins, or lives past its absolute timeout;
//   - no record is written without a time to live;
//   - no request waits for ever.
//
// The option x runs all of it on the format of package expressjs, where a renewal moves the
// session to another key: then a session is known by its first key.
//
// model_schedule_test.go decides who goes on, and model_search_test.go which histories run.

const (
	modelIdle     = time.Hour
	modelAbsolute = 5 * time.Hour
	modelTimeout  = 1000 * time.Hour // of a call of the store
	modelGrace    = 30 * time.Second
	overlap       = time.Minute // how long after a renewal a request counts as one that overlapped it
)

// A world is one run of a history.
type world struct {
	history    *history
	virtual    bool // in a bubble, where time passes when all wait
	store      session.Store
	newManager func(secrets []string) *session.Manager
	reader     *session.Manager // reads, and changes nothing
	processes  []*process
	crowd      []*process
	rotated    bool // the secrets
	tabs       []*tab
	late       *lateCall // a write that was given up, and may still be applied
	touched    string    // the key of the last call of the store

	jar     string // the browser's cookie
	newest  int    // of the responses that have arrived
	mixedUp bool   // the cookie is an older response's, which arrived after a newer one's

	reference map[string]map[string]string // what each live session holds, by its first key
	first     map[string]string            // the key before, of one that a renewal has announced
	place     map[string]string            // where a session is that has moved, by its first key
	ended     map[string]bool              // first keys of sessions that were deleted
	moving    map[string]*modelRequest     // who was the last to announce a renewal of those that are about to move
	ending    map[string]bool              // of those that have moved, one place was deleted
	gone      map[string]bool              // a request was told that they are ended
	endedTags map[string]bool              // what identifies a login that has ended
	cookies   map[string]*issued           // what responses have sent, by the id in it
	slept     bool                         // so long that sessions may have ended

	writes  int
	answers int
	tag     int
	steps   []step
	failure error
}

func (w *world) fail(format string, args ...any) {
	if w.failure == nil {
		w.failure = fmt.Errorf(format, args...)
	}
}

// A process has its managers: one before the secrets are rotated, and one after.
type process struct {
	world    *world
	managers [2]*session.Manager
}

func (p *process) manager() *session.Manager {
	n, secrets := 0, []string{secretA}
	if p.world.rotated {
		n, secrets = 1, []string{secretB, secretA}
	}
	if p.managers[n] == nil {
		p.managers[n] = p.world.newManager(secrets)
	}
	return p.managers[n]
}

// An issued cookie is one that a response has sent.
type issued struct {
	value     string
	session   string // its first key
	replaced  bool
	until     time.Time     // once it is replaced it does not open the session after that
	surely    time.Time     // and does before that
	announced time.Time     // when a renewal began that has steps of its own
	cut       time.Time     // when its grace was ended, or it was replaced without one
	by        *modelRequest // the renewal that replaced it
	last      *modelRequest // the last renewal that did, or is about to
}

// isOver reports whether the cookie opens nothing any more.
func (c *issued) isOver() bool { return c.replaced && !time.Now().Before(c.until) }

// identityIn returns what names the session and its secret in a cookie, which may be signed
// with one secret or the other.
func identityIn(cookie string) string {
	if plain, err := url.QueryUnescape(cookie); err == nil && strings.HasPrefix(plain, "s:") { // Express's
		return plain[len("s:"):strings.LastIndexByte(plain, '.')]
	}
	const mac = 32
	signed, err := base64.URLEncoding.DecodeString(cookie)
	if err != nil || len(signed) < mac+1 {
		return cookie
	}
	_, id, _ := strings.Cut(string(signed[:len(signed)-mac-1]), "|")
	return id
}

// cookie returns what is known of a cookie, or nil.
func (w *world) cookie(value string) *issued {
	if value == "" {
		return nil
	}
	return w.cookies[identityIn(value)]
}

// A tab makes its requests one after the other. All tabs share the jar.
type tab struct {
	world    *world
	process  *process
	handler  http.Handler // of the process when the request was sent
	number   int
	alone    bool // one of the crowd: nothing stops it
	requests []string
	state    tabState
	blocked  atomic.Bool // it was seen waiting for another tab, and has not had the floor since
	event    chan string // where it stopped
	resume   chan struct{}
	request  *modelRequest
}

func (t *tab) fail(format string, args ...any) {
	t.world.fail("tab %d "+format, append([]any{t.number}, args...)...)
}

// A modelRequest is what a request has done so far.
type modelRequest struct {
	self      *modelRequest // also of a copy, for a late call
	presented string        // the cookie's value
	cookie    *issued       // the same, if a response has sent it
	opens     bool          // the cookie did when the request loaded its session
	inGrace   bool          // and had been replaced
	loaded    time.Time

	handle       string
	begins       bool              // its next Create makes the session that it is about
	seen         map[string]string // what the session held when the request loaded it
	base         map[string]string // what the session held when the request last agreed with the store
	pending      []edit            // what it has changed and not saved
	dropped      int               // how many times it has given up what was pending
	renewing     bool              // its next save gives the session a new secret
	grace        time.Duration     // and the one before that long to live
	renewed      bool              // that was saved
	needsCurrent bool              // it has called Renew(0), at any time
	changed      bool              // something, at any time
	replaced     bool              // regenerated or destroyed
	touched      bool
	told         bool // that its session has ended, by Reload
	expired      bool // its session's time was over when the request looked; a write under way may have moved that

	unsure  bool // a write of it was applied or not, and the store did not say
	refused bool // a write of it was refused, or applied and the client's second try was
	crowded bool // while it ran, more others have saved than a record remembers
	waited  bool // for another tab while time passed

	displaced bool // its renewal took so long that another has taken its place

	response *http.Response
	answered int // the how manieth answer
}

type edit = func(map[string]string)

// forget drops what is pending.
func (r *modelRequest) forget() {
	r.pending, r.dropped = nil, r.dropped+1
}

type tabKey struct{}

// A gate is a store that stops a tab before each call until it may go on.
type gate struct{ world *world }

func (g *gate) stop(ctx context.Context, op, key string) *tab {
	t, _ := ctx.Value(tabKey{}).(*tab)
	if t != nil {
		t.stop(op)
		g.world.touched = key
	}
	return t
}

func (g *gate) Load(ctx context.Context, key string) ([]byte, error) {
	t, w := g.stop(ctx, "L", key), g.world
	data, err := w.store.Load(ctx, key)
	if t != nil && !isPointer(key) {
		handle := w.session(key)
		if err == nil {
			t.request.looks(w, handle)
		}
		if w.slept && w.reference[handle] != nil {
			_, there := w.read(handle)
			t.request.expired = t.request.expired || !there
		}
	}
	return data, err
}

// looks notes what a request finds when it loads its session.
func (r *modelRequest) looks(w *world, handle string) {
	if r.loaded.IsZero() {
		r.loaded = time.Now()
	}
	if c := r.cookie; c != nil && !r.touched {
		r.opens, r.inGrace = !c.isOver(), c.replaced && !c.isOver()
	}
	r.seen = maps.Clone(w.reference[handle])
}

func (g *gate) Create(ctx context.Context, key string, data []byte, ttl time.Duration) error {
	return g.write(ctx, &write{op: "C", key: key, data: data, ttl: ttl})
}

func (g *gate) CompareAndSwap(ctx context.Context, key string, old, data []byte, ttl time.Duration) error {
	return g.write(ctx, &write{op: "S", key: key, old: old, data: data, ttl: ttl})
}

func (g *gate) Delete(ctx context.Context, key string) error {
	g.stop(ctx, "D", key)
	err := g.world.store.Delete(ctx, key)
	switch w, handle := g.world, g.world.session(key); {
	case isPointer(key):
	case w.isPlace(key):
		w.deleted(handle)
	default: // it has moved, and who deletes it follows it
		w.ending[handle] = true
	}
	return err
}

// A write is a call of the store.
type write struct {
	op, key   string
	old, data []byte
	ttl       time.Duration
	began     time.Time
}

func (c *write) do(ctx context.Context, store session.Store) error {
	if c.op == "C" {
		return store.Create(ctx, c.key, c.data, c.ttl)
	}
	return store.CompareAndSwap(ctx, c.key, c.old, c.data, c.ttl)
}

// copies and moves are steps of a renewal in the format of package expressjs.
func (w *world) copies(c *write) bool {
	_, announced := w.first[c.key]
	return c.op == "C" && announced
}

// renews reports whether the record has another secret, or in the format of package expressjs
// announces one.
func (c *write) renews() bool {
	before, _ := parse(c.old)
	after, _ := parse(c.data)
	return after.secret != before.secret || nextKey(c.data) != nextKey(c.old)
}

func (c *write) moves() bool { return c.op == "S" && len(c.data) == 0 }

// isInternal reports whether a write is none of the session itself.
func (w *world) isInternal(c *write) bool {
	return w.copies(c) || c.moves() || isPointer(c.key) || c.op == "S" && !w.isPlace(c.key)
}

// A lateCall is a write that was given up: who made it has seen an error, and the store may
// still hear of it.
type lateCall struct {
	write
	tab     *tab
	request *modelRequest
	then    modelRequest // what the request was when it made the call
}

// isTooLate reports whether the store will never make the call: no record comes twice.
func (l *lateCall) isTooLate(store session.Store) bool {
	now, err := store.Load(context.Background(), l.key)
	return l.op == "S" && (err != nil || !bytes.Equal(now, l.old))
}

func (g *gate) write(ctx context.Context, c *write) error {
	c.began = time.Now()
	t, w := g.stop(ctx, c.op, c.key), g.world
	if longest := modelAbsolute + time.Minute; c.ttl <= 0 || c.ttl > longest && !w.isInternal(c) {
		w.fail("a time to live of %v", c.ttl)
	}
	if t == nil {
		return c.do(ctx, w.store)
	}
	r := t.request
	if !t.alone && w.writes+1 == w.history.late && !w.copies(c) {
		w.writes++
		r.unsure = true
		w.late = &lateCall{*c, t, r, *r}
		w.late.old, w.late.data, w.late.then.pending = slices.Clone(c.old), slices.Clone(c.data), slices.Clone(r.pending)
		return errDown
	}
	err := c.do(ctx, w.store)
	r.refused = r.refused || errors.Is(err, session.ErrConflict)
	if err != nil {
		return err
	}
	w.applied(c, t, r)
	if t.alone {
		return nil
	}
	w.writes++
	switch w.writes {
	case w.history.lost:
		r.refused = true
		return session.ErrConflict
	case w.history.failed:
		r.unsure = true
		return errDown
	}
	return nil
}

// applyLate makes the call that was given up, now.
func (w *world) applyLate() {
	l := w.late
	w.late = nil
	w.touched = l.key
	if err := l.do(context.Background(), w.store); err != nil {
		w.log("the late write", fmt.Sprint("comes too late: ", err))
		return
	}
	w.log("the late write", "is applied")
	if l.op == "C" && w.ended[l.key] { // taken back, and nobody has its cookie
		delete(w.ended, l.key)
		for _, c := range w.cookies {
			if c.session == l.key {
				w.fail("tab %d brought a session back", l.tab.number)
			}
		}
	}
	made := len(l.then.pending)
	w.applied(&l.write, l.tab, &l.then)
	r := l.request
	if r.dropped != l.then.dropped {
		return // it has gone on to something else
	}
	r.handle, r.begins = l.then.handle, l.then.begins
	if made > len(l.then.pending) { // a second write of them would be wrong
		r.pending, r.base = r.pending[made:], l.then.base
	}
	if l.then.renewed {
		r.renewing, r.renewed = false, true
	}
}

// applied follows a write that the store has made, with the request's changes.
func (w *world) applied(c *write, t *tab, r *modelRequest) {
	internal := w.isInternal(c)
	if next := nextKey(c.data); next != "" && next != c.key {
		w.first[next] = w.session(c.key)
	}
	if c.moves() {
		handle := w.session(c.key)
		w.place[handle] = nextKey(c.old)
		for _, older := range w.cookies { // that has led here by one pointer, and not by two
			if older.session == handle && older.replaced {
				w.replace(older, r, c.began.Add(-r.grace))
				older.cut = time.Now()
			}
		}
		w.replace(w.cookies[c.key], r, c.began)
		if got, ok := w.read(handle); ok && !maps.Equal(got, w.reference[handle]) {
			t.fail("moved %v, want %v", got, w.reference[handle])
		}
	}
	if internal {
		return
	}
	handle := w.session(c.key)
	w.wroteSession(t, r, c.op, handle)
	if r.renewing && r.handle == handle {
		if old := r.cookie; old != nil && old.session == handle && old.replaced && old.last != r.self {
			r.renewing = false
			return // of two renewals the first counts
		}
		if !c.renews() {
			return // it only asks whether its cookie is still the right one
		}
		r.renewing, r.renewed = false, true
		if c.op == "S" && nextKey(c.data) == "" {
			w.wroteRenewal(r, handle, c.began)
		} else {
			w.announced(r, handle, c)
		}
	}
}

// announced follows the first step of a renewal that has several. The cookie is replaced when
// the session has moved.
func (w *world) announced(r *modelRequest, handle string, c *write) {
	if before := w.moving[handle]; before != nil && before != r.self {
		before.displaced = true
	}
	w.moving[handle] = r.self
	for key, old := range w.cookies {
		if old.session != handle {
			continue
		}
		if key == c.key && old.announced.IsZero() {
			old.announced = c.began
		}
		if r.grace == 0 {
			old.cut, old.last = time.Now(), r.self
		}
	}
}

// wroteSession makes the changes on the reference, and compares.
func (w *world) wroteSession(t *tab, r *modelRequest, op, handle string) {
	if w.ended[handle] {
		t.fail("wrote a session that has ended")
	}
	if !r.touched || r.begins && op == "C" { // resave, saveUninitialized or rolling write without the handler
		r.handle, r.begins = handle, false
	}
	if r.handle != handle {
		t.fail("wrote the session of another")
	}
	if op == "C" {
		w.reference[handle] = make(map[string]string)
	}
	got, ok := w.read(handle)
	if !ok && !w.slept { // its time may have passed while the write was under way
		t.fail("wrote a session that cannot be read")
	}
	before := w.reference[handle]
	want := maps.Clone(before)
	for _, change := range r.pending {
		change(want)
	}
	if ok && maps.Equal(got, before) && !maps.Equal(got, want) {
		want = before // it only asks whether its cookie is still the right one; what is pending is not saved
	} else {
		r.pending, r.base, r.expired = nil, maps.Clone(want), false
	}
	w.reference[handle] = want
	if ok && !maps.Equal(got, want) {
		t.fail("left %v in the store, want %v", got, want)
	}
	if w.endedTags[want["user"]] {
		t.fail("brought the login %s back", want["user"])
	}
}

// wroteRenewal follows a new secret under the same key.
func (w *world) wroteRenewal(r *modelRequest, handle string, began time.Time) {
	for _, c := range w.cookies {
		if c.session == handle && (!c.replaced || r.grace == 0) {
			w.replace(c, r, began)
		}
	}
}

// replace notes that a renewal has replaced a cookie. Its grace counts from when the call of
// the store began.
func (w *world) replace(c *issued, by *modelRequest, began time.Time) {
	if c == nil {
		return
	}
	grace := by.grace
	if !c.isOver() {
		c.surely, c.until = began.Add(grace), began.Add(grace)
		if early := c.announced.Add(grace); !c.announced.IsZero() && early.Before(c.surely) {
			c.surely = early
		}
	}
	if grace == 0 {
		c.cut = time.Now()
	}
	c.last = by.self
	if !c.replaced {
		c.replaced, c.by = true, by.self
	}
}

// nextKey returns where a renewal of package expressjs is about to move the record.
func nextKey(record []byte) string {
	if !bytesBegin(record, '{') {
		return "" // none of its format
	}
	var r struct {
		Own struct {
			Renewal struct{ To string }
		} `json:"_goSession"`
	}
	_ = json.Unmarshal(record, &r) // else none
	return r.Own.Renewal.To
}

func bytesBegin(b []byte, with byte) bool { return len(b) > 0 && b[0] == with }

func isPointer(key string) bool { return strings.HasSuffix(key, ":renewed") }

// session returns the first key of the session that is, was or will be under the key.
func (w *world) session(key string) string {
	for {
		before, ok := w.first[key]
		if !ok {
			return key
		}
		key = before
	}
}

// isPlace reports whether the session is under the key now.
func (w *world) isPlace(key string) bool { return w.placeOf(w.session(key)) == key }

func (w *world) placeOf(handle string) string {
	if place, ok := w.place[handle]; ok {
		return place
	}
	return handle
}

func (w *world) deleted(handle string) {
	w.ended[handle] = true
	if tag := w.reference[handle]["user"]; tag != "" {
		w.endedTags[tag] = true
	}
	delete(w.reference, handle)
}

// read returns what the store holds of a session.
func (w *world) read(handle string) (map[string]string, bool) {
	s, err := w.reader.Load(context.Background(), w.placeOf(handle))
	if err != nil {
		if !errors.Is(err, session.ErrNotFound) {
			w.fail("the reader: %v", err)
		}
		return nil, false
	}
	return valuesOf(s), s.ID() == w.placeOf(handle)
}

func valuesOf(s *session.Session) map[string]string {
	values := make(map[string]string)
	for _, key := range s.Keys() {
		values[key] = string(session.Key[json.RawMessage](key).Get(s))
	}
	return values
}

// opens reports whether a cookie opens the session.
func (w *world) opens(cookie, handle string) (ok bool) {
	v := newVisitor(w.reader)
	v.jar["sid"] = cookie
	response := v.get(use(func(s *session.Session) { ok = w.session(s.ID()) == handle }))
	if response.StatusCode != http.StatusOK {
		w.fail("the reader answers %d", response.StatusCode)
	}
	return ok
}

func newWorld(t testing.TB, store session.Store, h *history) *world {
	w := &world{
		store: store, history: h,
		reference: make(map[string]map[string]string),
		first:     make(map[string]string),
		place:     make(map[string]string),
		ended:     make(map[string]bool),
		moving:    make(map[string]*modelRequest),
		ending:    make(map[string]bool),
		gone:      make(map[string]bool),
		endedTags: make(map[string]bool),
		cookies:   make(map[string]*issued),
	}
	options := session.Options{
		Store:             &gate{w},
		Rolling:           h.has('r'),
		Resave:            h.has('s'),
		SaveUninitialized: h.has('u'),
		IdleTimeout:       modelIdle,
		AbsoluteTimeout:   modelAbsolute,
		StoreTimeout:      modelTimeout,
		Cookie:            session.Cookie{Name: "sid"},
	}
	if h.has('m') {
		options.Cookie.MaxAge = modelIdle
	}
	if h.has('x') {
		options.WireFormat = expressFormat
	}
	w.newManager = func(secrets []string) *session.Manager {
		own := options
		own.Secrets = secrets
		return newManager(t, own)
	}
	// A look moves no deadline.
	w.reader = newManager(t, session.Options{Store: store, DisableTouch: true, Secrets: []string{secretA, secretB}, Cookie: options.Cookie,
		IdleTimeout: modelIdle, AbsoluteTimeout: modelAbsolute, StoreTimeout: modelTimeout, WireFormat: options.WireFormat})
	return w
}

var expressFormat = func() session.WireFormat {
	options, err := expressjs.Options{}.Session()
	if err != nil {
		panic(err)
	}
	return options.WireFormat
}()

// agree notes what the session holds, when the request first looks or looks again.
func (t *tab) agree(s *session.Session) {
	r, w := t.request, t.world
	t.call(func() { r.handle = w.session(s.ID()) })
	r.base, r.touched = valuesOf(s), true
	if r.base["user"] != r.base["login"] {
		t.fail("sees a mix of two logins: %v", r.base)
	}
	if w.endedTags[r.base["user"]] && !w.ended[r.handle] {
		t.fail("sees the ended login %s", r.base["user"])
	}
	if c := r.cookie; c != nil && c.session == r.handle && !r.opens {
		t.fail("opens a session with a cookie that was replaced")
	}
	if c := r.cookie; c != nil && c.session == r.handle && !maps.Equal(r.base, r.seen) {
		t.fail("sees %v, and the store had %v", r.base, r.seen)
	}
	if c := r.cookie; c != nil && c.session != r.handle && r.opens && (!c.replaced || time.Now().Before(c.surely)) && w.reference[c.session] != nil && !w.slept {
		t.fail("is anonymous with a cookie that opened its session")
	}
	if age := time.Since(s.Created()); age >= modelAbsolute {
		t.fail("sees a session of the age %v", age)
	}
}

func (t *tab) act(s *session.Session, action string) {
	r, w := t.request, t.world
	if action == "none" {
		return
	}
	if action != "regenerate" && action != "destroy" && action != "login" && !r.touched {
		t.agree(s)
	}
	makes := func(c edit) { r.pending, r.changed = append(r.pending, c), true }
	set := func(key, value string) {
		session.Key[string](key).Set(s, value)
		encoded, _ := json.Marshal(value)
		makes(func(m map[string]string) { m[key] = string(encoded) })
	}
	fresh := func() string {
		w.tag++
		return fmt.Sprintf("t%d-%d", t.number, w.tag)
	}
	renews := func(grace time.Duration) {
		s.Renew(grace)
		if r.renewing {
			grace = min(grace, r.grace)
		}
		r.renewing, r.grace = true, grace
		r.needsCurrent = r.needsCurrent || grace == 0
	}
	begin := func() {
		t.call(s.Regenerate)
		r.forget()
		r.handle, r.base, r.touched = s.ID(), nil, true
		r.replaced, r.begins, r.renewing, r.renewed, r.told = true, false, false, false, false
	}
	update := func() {
		counterKey.Update(s, increment)
		makes(func(m map[string]string) {
			n, _ := strconv.Atoi(m["counter"])
			m["counter"] = strconv.Itoa(n + 1)
		})
	}
	switch action {
	case "pause": // so that others come between the calls of the store too
		t.stop("pause")
	case "get":
		nameKey.Get(s)
	case "touch":
		s.Touch()
	case "set":
		set("set "+fresh(), "x")
	case "name":
		set("name", fresh())
	case "same": // what the request has seen already
		var name string
		if json.Unmarshal([]byte(r.base["name"]), &name) == nil && len(r.pending) == 0 {
			set("name", name)
		}
	case "update":
		update()
	case "visit": // that of the crowd
		if w.reference[r.handle] != nil {
			update()
		}
	case "pop":
		session.Key[string]("name").Pop(s)
		makes(func(m map[string]string) { delete(m, "name") })
	case "delete":
		counterKey.Delete(s)
		makes(func(m map[string]string) { delete(m, "counter") })
	case "renew":
		renews(0)
	case "rotate30":
		renews(modelGrace)
	case "regenerate":
		begin()
	case "login", "relogin":
		if action == "login" {
			begin()
		}
		tag := fresh()
		set("user", tag)
		set("login", tag)
	case "destroy":
		var err error
		t.call(func() { err = s.Destroy() })
		if err != nil && !r.unsure {
			t.fail("Destroy: %v", err)
		}
		r.forget()
		r.handle, r.base, r.begins, r.replaced, r.touched, r.renewing = "", nil, true, true, true, false
	case "maxage":
		s.SetMaxAge(2 * modelIdle)
		r.changed = true
	case "browser":
		s.SetMaxAge(0)
		r.changed = true
	case "save":
		var err error
		t.call(func() { err = s.Save() })
		r.changed = true
		if err == nil && len(r.pending) > 0 {
			t.fail("Save did not save")
		} else if errors.Is(err, session.ErrNotFound) {
			t.checkDropped("Save")
			r.told = w.reference[r.handle] != nil
			r.forget()
			r.base = nil
		}
	case "reload":
		var err error
		t.call(func() { err = s.Reload() })
		r.changed = true
		if err == nil {
			r.forget()
			t.agree(s)
		} else if errors.Is(err, session.ErrNotFound) {
			if len(valuesOf(s)) > 0 {
				t.fail("an ended session is not empty after Reload")
			}
			r.told = w.reference[r.handle] != nil
			r.forget()
			r.base = nil
		}
	default:
		panic("no such action: " + action)
	}
}

// check compares an answer with what is in the store.
func (t *tab) check() {
	t.checkStatus()
	t.checkSent()
	t.checkPresented()
	w, r := t.world, t.request
	if r.response.StatusCode != http.StatusOK {
		return
	}
	if len(r.pending) > 0 {
		t.checkDropped("the answer")
	}
	if c := r.cookie; r.renewing && c != nil && c.session == r.handle && !c.replaced && w.reference[r.handle] != nil && !r.told && !w.slept {
		t.fail("was told by the answer that its session is renewed, and it is not")
	}
}

// reasons are those that a request may have to be answered 503. Then its changes are in the
// store once, or not at all.
var reasons = []struct {
	why string
	of  func(r *modelRequest) bool
}{
	{"nobody can tell whether its write was applied",
		func(r *modelRequest) bool { return r.unsure }},
	{"its write was refused, and so many others came that nobody can tell whether it was applied before",
		func(r *modelRequest) bool { return r.refused && r.crowded }},
	{"it waited for its turn while time passed",
		func(r *modelRequest) bool { return r.waited }},
	{"it changes a session of which its cookie was replaced without grace",
		func(r *modelRequest) bool {
			return (r.changed || r.renewing) && r.cookie != nil && !r.cookie.cut.IsZero() && r.loaded.Before(r.cookie.cut.Add(overlap))
		}},
	{"its renewal without grace took so long that another has taken its place",
		func(r *modelRequest) bool { return r.needsCurrent && r.displaced }},
	{"its renewal without grace came second",
		func(r *modelRequest) bool {
			return r.needsCurrent && r.cookie != nil && r.cookie.last != nil && r.cookie.last != r
		}},
}

// checkStatus looks for the reason of an error.
func (t *tab) checkStatus() {
	r := t.request
	switch status := r.response.StatusCode; status {
	case http.StatusOK:
		return
	case http.StatusServiceUnavailable:
		for _, reason := range reasons {
			if reason.of(r) {
				return
			}
		}
		fallthrough
	default:
		t.fail("was answered %d, for no reason", status)
	}
}

// checkSent looks at the cookies of the response: there is one at most, and it opens the
// session. Who came in a grace gets none, and so cannot overwrite the new one.
func (t *tab) checkSent() {
	w, r := t.world, t.request
	cookies := r.response.Cookies()
	if len(cookies) > 1 {
		t.fail("was sent %d cookies", len(cookies))
	}
	for _, c := range cookies {
		if c.MaxAge < 0 {
			continue
		}
		known := w.cookie(c.Value)
		if known == nil {
			known = new(issued)
			w.cookies[identityIn(c.Value)] = known
		}
		known.value, known.session = c.Value, r.handle
		if _, there := w.read(r.handle); !w.opens(c.Value, r.handle) && (there || !w.slept) {
			t.fail("was sent a cookie that does not open the session")
		}
		if r.inGrace && r.cookie.session == r.handle {
			t.fail("came in the grace of its cookie, and was sent one")
		}
	}
}

// checkPresented looks at the cookie that the request came with.
func (t *tab) checkPresented() {
	if r := t.request; r.cookie != nil && (r.renewed || r.replaced) && r.response.StatusCode == http.StatusOK {
		if r.replaced && t.world.opens(r.cookie.value, r.cookie.session) {
			t.fail("left the session open that it has replaced or destroyed")
		}
		t.world.checkCookie(r.cookie)
	}
}

// checkCookie checks that a cookie opens its session, until it is replaced and its grace is
// over, or the session has ended.
func (w *world) checkCookie(c *issued) {
	_, there := w.read(c.session)
	switch opens := w.opens(c.value, c.session); {
	case opens && w.ended[c.session]:
		w.fail("a cookie opens a session that has ended")
	case opens && c.isOver():
		w.fail("a cookie opens the session that was renewed")
	case !opens && there && !w.ending[c.session] && (!c.replaced || time.Now().Before(c.surely)):
		w.fail("a cookie opens nothing, and is current or in its grace")
	}
}

// checkDropped is called when changes are not in the store. That is right if they
// changed nothing, if the session has ended, or if the cookie was a dead one.
func (t *tab) checkDropped(what string) {
	w, r := t.world, t.request
	changesNothing := func(values map[string]string) bool {
		after := make(map[string]string)
		maps.Copy(after, values)
		for _, change := range r.pending {
			change(after)
		}
		return maps.Equal(after, values)
	}
	_, there := w.read(r.handle)
	switch {
	case changesNothing(r.base) || changesNothing(w.reference[r.handle]):
	case r.told || w.ended[r.handle] || r.expired || w.slept && !there: // by a renewal, a delete, or time
	case w.ending[r.handle]:
		w.gone[r.handle] = true
	default:
		t.fail("was told by %s that its changes are saved, and they are not", what)
	}
}

// checkEnd checks that nobody was logged out by a race, when all tabs are done: the browser's
// cookie opens its session, unless that has ended. No server can mend it where an older
// response arrived after a newer one, or where the response that had the new cookie was an
// error.
func (w *world) checkEnd() {
	if c := w.cookie(w.jar); c != nil && !w.ended[c.session] && !w.mixedUp && (c.by == nil || c.by.response.StatusCode == http.StatusOK) {
		if _, there := w.read(c.session); (there || !w.slept) && !w.opens(w.jar, c.session) {
			w.fail("the browser is left with a cookie that opens nothing, and its session is there")
		}
	}
	for handle := range w.gone {
		if !w.ended[handle] {
			w.fail("a request was told that its session has ended, and it has not")
		}
	}
	current := make(map[string]int)
	wait := time.Duration(0)
	for _, c := range w.cookies {
		w.checkCookie(c)
		if !c.replaced {
			current[c.session]++
		} else {
			wait = max(wait, time.Until(c.until))
		}
		if current[c.session] > 1 {
			w.fail("two secrets of one session are current")
		}
	}
	if wait > 0 && w.virtual {
		time.Sleep(wait)
		for _, c := range w.cookies {
			w.checkCookie(c)
		}
	}
}
