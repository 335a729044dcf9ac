package session_test

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"testing/synctest"
	"time"

	"github.com/seed-4f96e14b/session"
)

// A history is what one run does. Its text form is what a failure prints.
//
// The options are letters: r rolling, s resave, m max age, u save uninitialized, x expressjs;
// p all tabs are served by one process, q the first two are, and otherwise each has its own;
// a cookies arrive in a step of their own, so that a newer one may overtake an older one.
//
// An entry of the schedule is the number of the tab that goes on, or
//
//   - 30m: so much time passes;
//   - rotate: the secrets are rotated;
//   - restart: every process starts anew, for the next requests;
//   - crowd: so many others save the browser's session once that its record has forgotten
//     who saved it before;
//   - late: the write that was given up is applied, if it still can be.
type history struct {
	options  string
	setup    string     // a request made before the tabs begin
	tabs     [][]string // each tab's requests, each a list of actions
	schedule []string
	lost     int // the reply of this write is lost, and the client sends it again; 0 for none
	failed   int // this write is applied, and the client sees an error
	late     int // this write is given up, and the client sees an error; it is applied later, or never
}

func (h *history) has(option rune) bool { return strings.ContainsRune(h.options, option) }

func (h history) String() string {
	var tabs []string
	for _, requests := range h.tabs {
		tabs = append(tabs, strings.Join(requests, ";"))
	}
	return fmt.Sprintf("options=%s setup=%s tabs=%s schedule=%s lost=%d failed=%d late=%d",
		h.options, h.setup, strings.Join(tabs, "|"), strings.Join(h.schedule, ","), h.lost, h.failed, h.late)
}

func parseHistory(text string) (h history, err error) {
	for _, field := range strings.Fields(text) {
		name, value, _ := strings.Cut(field, "=")
		switch name {
		case "options":
			h.options = value
		case "setup":
			h.setup = value
		case "tabs":
			for tab := range strings.SplitSeq(value, "|") {
				var requests []string
				if tab != "" {
					requests = strings.Split(tab, ";")
				}
				h.tabs = append(h.tabs, requests)
			}
		case "schedule":
			h.schedule = strings.Split(value, ",")
		case "lost":
			h.lost, err = strconv.Atoi(value)
		case "failed":
			h.failed, err = strconv.Atoi(value)
		case "late":
			h.late, err = strconv.Atoi(value)
		default:
			err = fmt.Errorf("no such field: %q", name)
		}
		if err != nil {
			return h, err
		}
	}
	return h, nil
}

// One tab has the floor at a time: its handler and its calls of the store run, and nothing
// else does that looks at the world. It gives the floor up where it stops, which is before
// each call of the store. Where it waits for another tab's save the scheduler takes the
// floor, and the tab asks for it when it goes on.
type tabState int

const (
	isIdle      tabState = iota // its next request is not sent
	isMoving                    // it has the floor, or goes on without
	isStopped                   // it asks for the floor
	isReturning                 // it asks for the floor, to run its handler on after it has waited
	isWaiting                   // for another tab, or for time to pass
	isAnswered                  // the response is on its way to the browser
)

// back is where a tab stops that has waited, when it is about to run the handler again.
const back = "back"

// stop asks for the floor, and waits until it gets it.
func (t *tab) stop(event string) {
	if t.alone {
		return
	}
	t.event <- event
	<-t.resume
}

// call runs a call of the library that may wait for another tab.
func (t *tab) call(f func()) {
	f()
	if t.blocked.Load() {
		t.stop(back)
	}
}

// A step is a line of what explain prints.
type step struct{ who, did string }

// maxSteps is more than any history takes that comes to an end.
const maxSteps = 1000

func (w *world) log(who, did string) {
	w.steps = append(w.steps, step{who, did})
	if len(w.steps) > maxSteps {
		panic("the history does not end: " + w.history.String())
	}
}

var tabNames = []string{"tab 0", "tab 1", "tab 2"}

func (t *tab) log(did string) { t.world.log(tabNames[t.number], did) }

// begin makes the setup's request, and then the tabs.
func (w *world) begin() {
	h := w.history
	if h.setup != "" {
		lost, failed, late := h.lost, h.failed, h.late
		h.lost, h.failed, h.late = 0, 0, 0
		w.addTab([]string{h.setup}, w.newProcess())
		for w.canGo(0) {
			w.goOn(0)
		}
		w.tabs, w.steps, w.processes, w.writes = nil, nil, nil, 0
		h.lost, h.failed, h.late = lost, failed, late
	}
	for n, requests := range h.tabs {
		shares := n > 0 && h.has('p') || n == 1 && h.has('q')
		if !shares {
			w.newProcess()
		}
		w.addTab(requests, w.processes[len(w.processes)-1])
	}
}

func (w *world) newProcess() *process {
	p := &process{world: w}
	w.processes = append(w.processes, p)
	return p
}

func (w *world) addTab(requests []string, p *process) {
	w.tabs = append(w.tabs, &tab{world: w, process: p, number: len(w.tabs), requests: requests, event: make(chan string), resume: make(chan struct{})})
}

// canGo reports whether a tab has a step to take that is its own.
func (w *world) canGo(n int) bool {
	if n < 0 || n >= len(w.tabs) {
		return false
	}
	switch t := w.tabs[n]; t.state {
	case isIdle:
		return len(t.requests) > 0
	case isStopped, isAnswered:
		return true
	}
	return false
}

// do runs an entry of the schedule. What cannot happen now does not.
func (w *world) do(entry string) {
	if n, err := strconv.Atoi(entry); err == nil {
		if w.canGo(n) {
			w.goOn(n)
		}
		return
	}
	switch entry {
	case "":
	case "rotate":
		w.rotated = true
		w.log("the secrets", "are rotated")
	case "restart":
		for _, p := range w.processes {
			p.managers = [2]*session.Manager{}
		}
		w.log("the processes", "start anew")
	case "crowd":
		w.visitInCrowd()
	case "late":
		if w.late != nil {
			w.applyLate()
		}
	default:
		d, err := time.ParseDuration(entry)
		if err != nil {
			panic("no such entry of a schedule: " + entry)
		}
		w.pass(d)
	}
}

// pass lets time pass, which may free a tab that waits.
func (w *world) pass(d time.Duration) {
	for _, t := range w.tabs {
		t.request.wait(t.state == isWaiting)
	}
	time.Sleep(d)
	if d > modelGrace*2 {
		w.slept = true
	}
	w.log(d.String(), "pass")
	w.settle()
}

func (r *modelRequest) wait(waits bool) {
	if r != nil && waits {
		r.waited = true
	}
}

// goOn lets a tab go on to its next call of the store, or to its end.
func (w *world) goOn(n int) {
	t := w.tabs[n]
	switch t.state {
	case isIdle:
		script := t.requests[0]
		t.requests = t.requests[1:]
		t.log("sends " + script)
		t.prepare()
		t.state = isMoving
		go func() {
			t.send(script)
			t.event <- "answered"
		}()
	case isStopped:
		t.giveFloor()
	case isAnswered:
		t.arrive()
		return
	}
	w.settle()
}

func (t *tab) giveFloor() {
	t.state = isMoving
	t.blocked.Store(false)
	t.resume <- struct{}{}
}

// A tab that pauses between two attempts to save does so for pause at the most.
const pause = 10 * time.Millisecond

// settle waits until each tab is stopped, done, or waits for another.
func (w *world) settle() {
	for paused := false; ; {
		if w.virtual {
			synctest.Wait()
		}
		silent := 0
		for _, t := range w.tabs {
			if (t.state == isMoving || t.state == isWaiting) && !w.listen(t) {
				silent++
			}
		}
		if i := slices.IndexFunc(w.tabs, func(t *tab) bool { return t.state == isReturning }); i >= 0 {
			w.tabs[i].giveFloor()
			paused = false
			continue
		}
		if silent == 0 {
			return
		}
		if paused {
			break
		}
		time.Sleep(pause)
		paused = true
	}
	for _, t := range w.tabs {
		if t.state == isMoving {
			t.state = isWaiting
			t.blocked.Store(true)
			t.log("waits")
		}
	}
}

// listen reports whether the tab has stopped.
func (w *world) listen(t *tab) bool {
	var event string
	if w.virtual {
		select {
		case event = <-t.event:
		default:
			return false
		}
	} else { // no tab waits for another
		event = <-t.event
	}
	switch event {
	case "answered":
		t.answer()
	case back:
		t.state = isReturning
	default:
		t.state = isStopped
		t.log(event)
	}
	return true
}

// prepare notes what a tab knows when it sends a request.
func (t *tab) prepare() {
	w := t.world
	t.request = &modelRequest{presented: w.jar, cookie: w.cookie(w.jar)}
	t.request.self = t.request
	t.handler = t.process.manager().Handler(app)
}

// send makes a request.
func (t *tab) send(script string) {
	r := t.request
	v := &visitor{server: t.handler, jar: make(map[string]string)}
	if r.presented != "" {
		v.jar["sid"] = r.presented
	}
	r.response = v.send(http.MethodGet, use(func(s *session.Session) {
		for action := range strings.SplitSeq(script, ",") {
			t.act(s, action)
		}
	}), func(request *http.Request) {
		*request = *request.WithContext(context.WithValue(request.Context(), tabKey{}, t))
	})
}

// answer checks the response that a tab has got. Its cookie arrives now or in a step of its own.
func (t *tab) answer() {
	r, w := t.request, t.world
	w.answers++
	r.answered = w.answers
	t.blocked.Store(false)
	t.log(statusText(r.response.StatusCode))
	t.check()
	t.state = isAnswered
	if len(r.response.Cookies()) == 0 || !w.history.has('a') {
		t.arrive()
	}
}

func statusText(status int) string {
	if status == http.StatusOK {
		return "done 200" // without Sprint, for most
	}
	return fmt.Sprint("done ", status)
}

// arrive puts the cookie of a response into the jar.
func (t *tab) arrive() {
	w, r := t.world, t.request
	t.state = isIdle
	cookies := r.response.Cookies()
	if len(cookies) == 0 {
		return
	}
	if w.history.has('a') {
		t.log("its cookie arrives")
	}
	w.mixedUp = r.answered < w.newest
	w.newest = max(w.newest, r.answered)
	for _, c := range cookies {
		if w.jar = c.Value; c.MaxAge < 0 {
			w.jar = ""
		}
	}
}

// crowdSize is more writers than a record remembers.
const crowdSize = 17

// visitInCrowd lets each of a crowd increment the counter of the session that the browser's
// cookie opens, if it does. Nothing stops them.
func (w *world) visitInCrowd() {
	w.log("a crowd", "saves the session")
	for i := range crowdSize {
		if i == len(w.crowd) {
			w.crowd = append(w.crowd, &process{world: w})
		}
		t := &tab{world: w, process: w.crowd[i], alone: true, number: -1}
		t.prepare()
		t.send("visit")
		w.answers++
		t.request.answered = w.answers
		t.check()
	}
	for _, t := range w.tabs {
		if t.request != nil {
			t.request.crowded = true
		}
	}
}

// finish lets all tabs come to their end, and checks what is left.
func (w *world) finish() error {
	for {
		switch n := slices.IndexFunc(w.tabs, func(t *tab) bool { return w.canGo(t.number) }); {
		case n >= 0:
			w.goOn(n)
		case w.late != nil:
			w.applyLate()
		case w.anyWaits():
			if w.free(); w.anyWaits() {
				return w.failure
			}
		default:
			w.checkEnd()
			return w.failure
		}
	}
}

func (w *world) anyWaits() bool {
	return slices.ContainsFunc(w.tabs, func(t *tab) bool { return t.state == isWaiting })
}

// free lets the time pass for which a call of the store may take, because nobody else can
// go on. Those who have waited all that time for nothing have no reason for an error.
func (w *world) free() {
	time.Sleep(2 * modelTimeout)
	w.slept = true
	w.log("nobody", "can go on, and all time passes")
	w.settle()
	for _, t := range w.tabs {
		if t.state == isWaiting {
			t.fail("waits for ever")
		}
	}
}
