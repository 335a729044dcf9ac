package session_test

import (
	"flag"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/seed-4f96e14b/session"
	"github.com/seed-4f96e14b/session/internal/testing/redistest"
)

var (
	modelAll       = flag.Bool("model.all", false, "every pair of requests in the exhaustive search, and more lost replies")
	modelReplies   = flag.Int("model.replies", 3, "with -model.all, each of so many replies is lost in turn, and each of so many writes comes late")
	modelHistories = flag.Int("model.histories", 2_000, "random histories of three tabs, on the memory store; a tenth of that on Redis, a fiftieth on a Cluster")
	modelSeed      = flag.Uint64("model.seed", 1, "seed of the random histories")
	modelReplay    = flag.String("model.replay", "", "a history to run again, as a failure prints it")
)

// runHistory runs a history in a bubble, and returns what went wrong.
func runHistory(t testing.TB, h history) (*world, error) {
	w := newWorld(t, new(session.MemoryStore), &h)
	w.virtual = true
	return w, w.run()
}

// run runs a history that has its schedule.
func (w *world) run() error {
	w.begin()
	for _, entry := range w.history.schedule {
		w.do(entry)
	}
	return w.finish()
}

// explain returns a failure as a list of steps, and how to run it again.
func explain(w *world, h history, err error) string {
	var steps []string
	for _, s := range w.steps {
		steps = append(steps, s.who+" "+s.did)
	}
	return fmt.Sprintf("%v\n%s\nagain: go test -run 'TestModel$' -model.replay '%s' .", err, strings.Join(steps, "\n"), h)
}

// TestModel runs one history, which a failure of the others has printed.
func TestModel(t *testing.T) {
	if *modelReplay == "" {
		return
	}
	h, err := parseHistory(*modelReplay)
	if err != nil {
		t.Fatal(err)
	}
	inBubble(t, func(t *testing.T) {
		w, err := runHistory(t, h)
		t.Log(explain(w, h, err))
		if err != nil {
			t.Fail()
		}
	})
}

// TestModelFound runs histories that the search has found, each of which was a bug once.
func TestModelFound(t *testing.T) {
	for _, text := range []string{
		// A request helped another to move the session to its next key, after the session had ended there.
		"options=x setup=login,name,update tabs=|renew;regenerate|set;renew;save schedule=2,2,2,2,2,2 lost=0 failed=0",
		// A renewal took the announcement of another for its own, and sent the old cookie.
		"options=x setup=login,name,update tabs=|renew|delete;save;renew schedule=2,2,2,2,2,2,2,2,2,1,1,1,2 lost=0 failed=3",
		// A pointer was led to the renewal that had lost, because it looked as if nobody had changed it.
		"options=x setup=login,name,update tabs=|delete;renew;set|renew schedule=2,1,2,2,1,1,1,1,2,2,1,1,1,1,1,1,2,2,2,2,2,2,2,2,2,2 lost=0 failed=5",
		// The record forgot a save whose reply was lost, and the increment was made twice.
		"options= setup=login,name,update tabs=update|get schedule=0,0,0,crowd,0 lost=1 failed=0 late=0",
		"options=p setup=login,name,update tabs=update|update schedule=0,0,0,1,1,crowd,0,0,1,1 lost=1 failed=0 late=0",
		"options=x setup=login,name,update tabs=update|get schedule=0,0,0,crowd,0 lost=1 failed=0 late=0",
		// A response had the cookie of a renewal that Save stored, although the session had ended since.
		"options= setup=login,name,update tabs=renew|regenerate|set;renew,save schedule=0,2,0,0,2,2,2,2,2 lost=0 failed=3 late=0",
		"options= setup=login,name,update tabs=|renew,save|login schedule=1,1,2,1,2,1,2 lost=0 failed=3 late=0",
		"options= setup=login,name,update tabs=destroy||rotate30,save schedule=2,2,2 lost=0 failed=0 late=2",
		"options=p setup=update,maxage tabs=renew|save,set| schedule=1,1,1,59m lost=0 failed=0 late=0",
		// With resave, a request that changed nothing failed because its cookie had lost its worth.
		"options=s setup=login,name,update tabs=|set;get|renew schedule=1,1,1,1,1,2,2,2 lost=0 failed=0 late=0",
		// A write that only said that the session was used came after the header, and its cookie before a renewal.
		"options= setup=update,maxage tabs=renew||update schedule=2,2,61m,2 lost=0 failed=0 late=0",
		// A save that was never sent, because the session's time seemed over, was taken for one that many had followed.
		"options= setup=login,name,update tabs=maxage|name,pause| schedule=1,0,0,1,0,61m,crowd lost=0 failed=0 late=0",
		// The pointer ended before the session to which it led.
		"options=x setup=login,name,update tabs=|renew|reload;set schedule=1,1,2,2,1,2,2,1,59m,2,1,1,30m lost=0 failed=0",
	} {
		h, err := parseHistory(text)
		if err != nil {
			t.Fatal(err)
		}
		inBubble(t, func(t *testing.T) {
			if w, err := runHistory(t, h); err != nil {
				t.Error(explain(w, h, err))
			}
		})
	}
}

// modelRequests are requests of up to four calls of the store.
var modelRequests = []string{
	"none", "get", "touch", "set", "name", "same", "update", "pop", "delete", "relogin", "maxage", "browser",
	"login", "destroy", "regenerate", "renew", "renew,set", "update,save,update", "set,reload,update", "renew,save,name",
	"renew,save,pause", "login,save,pause", "update,save,pause", "renew,reload,set", "login,save,set", "set,destroy", "destroy,login", "save,renew", "update,save,destroy",
	"rotate30", "rotate30,set", "rotate30,save,pause", "destroy,set", "destroy,save,update",
}

// TestModelExhaustive runs every interleaving of every two of these requests, with and
// without the loss of each reply and the delay of each write, from an anonymous browser and
// one that is logged in: all with -model.all, else a choice.
func TestModelExhaustive(t *testing.T) {
	requests, settings, replies := modelRequests, []string{"", "p", "m", "rma", "pa", "s", "xm"}, *modelReplies
	if !*modelAll {
		replies = 1
		requests, settings = []string{"get", "update", "login", "destroy", "renew,set", "update,save,pause,update", "renew,save,pause", "set,reload,update"}, []string{"", "p", "rma", "xm"}
	}
	faults := []history{{}}
	for n := range replies {
		faults = append(faults, history{lost: n + 1}, history{late: n + 1})
	}
	for _, options := range settings {
		for _, fault := range faults {
			searchPairs(t, options, fault, requests)
		}
	}
	requests = []string{"get", "update", "renew,set", "rotate30", "rotate30,set", "login", "destroy"}
	for _, options := range []string{"p", "r"} {
		searchPairs(t, options, history{}, requests, "31s")
	}
	requests = []string{"update", "update,save,update", "renew,set", "login", "destroy"}
	for _, options := range []string{"", "p"} {
		searchPairs(t, options, history{}, requests, "restart")
		searchPairs(t, options, history{}, requests, "crowd")
		searchPairs(t, options, history{lost: 1}, requests, "crowd")
		searchPairs(t, options, history{late: 1}, requests, "crowd")
	}
}

// searchPairs runs every interleaving of every two of the requests. Each of once is an entry
// of the schedule that comes once in each, at any time.
func searchPairs(t *testing.T, options string, fault history, requests []string, once ...string) {
	for _, setup := range []string{"login,name,update", ""} {
		t.Run(fmt.Sprintf("options %q, setup %q, lost reply %d, late write %d, once %q", options, setup, fault.lost, fault.late, once), func(t *testing.T) {
			t.Parallel()
			runs := 0
			for i, a := range requests {
				for _, b := range requests[i:] {
					h := fault
					h.options, h.setup, h.tabs = options, setup, [][]string{{a}, {b}}
					inBubble(t, func(t *testing.T) { runs += everyInterleaving(t, h, once...) })
					if t.Failed() {
						return
					}
				}
			}
			t.Logf("%d histories", runs)
		})
	}
}

// everyInterleaving searches the tree of schedules, depth first.
func everyInterleaving(t *testing.T, h history, once ...string) (runs int) {
	// Where a renewal has steps of its own, and where writes come late or cookies arrive in
	// either order, the tree is too large to be searched as a whole: there what can go on is
	// stopped for another a few times at most. Few stops show most races (as CHESS found);
	// the random histories do the rest.
	stops := math.MaxInt
	switch {
	case h.has('x'):
		stops = 2 - min(h.lost+h.late, 1)
	case h.late > 0 || h.has('a') || len(once) > 0:
		stops = 2
		if *modelAll && h.late == 0 {
			stops = 3
		}
	}
	var path []int // which of those that can go on does, at each step
	for {
		runs++
		p := &explorer{path: path, stops: stops, once: once}
		if w, err := p.run(t, h); err != nil {
			t.Error(explain(w, *w.history, err))
			return runs
		}
		for len(path) < len(p.choices) {
			path = append(path, 0)
		}
		path = path[:len(p.choices)]
		for len(path) > 0 && path[len(path)-1] >= p.choices[len(path)-1]-1 {
			path = path[:len(path)-1]
		}
		if len(path) == 0 {
			return runs
		}
		path[len(path)-1]++
	}
}

// An explorer runs a history whose schedule is given by the choices at each step. A tab that
// can go on gives way to another at most stops times.
type explorer struct {
	path    []int
	stops   int
	once    []string
	choices []int        // how many there were at each step
	delayed map[int]bool // tabs whose cookie may as well arrive later, at the next step that it matters for
}

func (e *explorer) run(t *testing.T, h history) (*world, error) {
	w := newWorld(t, new(session.MemoryStore), &h)
	w.virtual = true
	w.begin()
	e.once = slices.Clone(e.once)
	e.delayed = make(map[int]bool)
	last := ""
	for {
		able := e.able(w)
		if len(able) == 0 {
			return w, w.finish()
		}
		if slices.Contains(able, last) && e.stops == 0 {
			able = []string{last}
		}
		entry := able[0]
		if i := len(e.choices); i < len(e.path) {
			entry = able[min(e.path[i], len(able)-1)]
		}
		e.choices = append(e.choices, len(able))
		if entry != last && slices.Contains(able, last) {
			e.stops--
		}
		last = entry
		h.schedule = append(h.schedule, entry)
		e.once = slices.DeleteFunc(e.once, func(o string) bool { return o == entry })
		e.do(w, entry)
	}
}

// able lists the entries that the schedule may go on with.
func (e *explorer) able(w *world) (able []string) {
	for _, t := range w.tabs {
		if w.canGo(t.number) && !e.delayed[t.number] {
			able = append(able, strconv.Itoa(t.number))
		}
	}
	if len(able) == 0 && len(e.delayed) > 0 {
		clear(e.delayed)
		return e.able(w)
	}
	if l := w.late; l != nil && l.isTooLate(w.store) {
		w.late = nil
	} else if l != nil && len(able) > 0 && w.touched == l.key { // else it was as good before the last step, or finish applies it
		able = append(able, "late")
	}
	if w.touched != "" {
		able = append(able, e.once...)
	}
	return able
}

// do runs an entry. When the cookie of a response arrives matters only for what is sent and
// what else arrives: who passes it over once does so until then.
func (e *explorer) do(w *world, entry string) {
	n, err := strconv.Atoi(entry)
	w.touched = ""
	matters := err == nil && (w.tabs[n].state == isIdle || w.tabs[n].state == isAnswered)
	for _, t := range w.tabs {
		if t.state == isAnswered && entry != strconv.Itoa(t.number) {
			e.delayed[t.number] = true
		}
	}
	w.do(entry)
	if matters {
		clear(e.delayed)
	}
}

// TestModelRandom runs random histories of three tabs, with time that passes, secrets
// that are rotated, and a reply that is lost or fails, or a write that comes late.
func TestModelRandom(t *testing.T) {
	const bubble, parts = 100, 4 // histories in one bubble, and parts that run at once
	for part := range parts {
		t.Run(fmt.Sprintf("part %d", part), func(t *testing.T) {
			t.Parallel()
			for first := part * bubble; first < *modelHistories && !t.Failed(); first += parts * bubble {
				synctest.Test(t, func(t *testing.T) {
					for i := first; i < first+bubble; i++ {
						h := randomHistory(rand.New(rand.NewPCG(*modelSeed, uint64(i))), true)
						if w, err := runHistory(t, h); err != nil {
							t.Error(explain(shortest(t, h, w, err)))
							return
						}
					}
				})
			}
		})
	}
}

// TestModelOnRedis runs such histories, without the passing of time, on a real Redis
// and on a real Redis Cluster. There each tab has a process of its own: outside of a bubble
// nobody can tell whether a tab waits for another.
func TestModelOnRedis(t *testing.T) {
	onRedis := func(t *testing.T, client session.RedisClient, n int) {
		for i := range n {
			h := randomHistory(rand.New(rand.NewPCG(*modelSeed+1, uint64(i))), false)
			store := &session.RedisStore{Client: client, Prefix: fmt.Sprintf("sess:%d:", i)}
			w := newWorld(t, store, &h)
			if err := w.run(); err != nil {
				t.Fatal(explain(w, h, err))
			}
			if err := store.Clear(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
	}
	t.Run("server", func(t *testing.T) { onRedis(t, redistest.Client(t, redistest.ListRights), *modelHistories/10) })
	t.Run("cluster", func(t *testing.T) { onRedis(t, redistest.Cluster(t).Client(t), *modelHistories/50) })
}

var modelActions = []string{
	"none", "get", "touch", "set", "set", "name", "same", "update", "update", "pop", "delete", "relogin", "renew", "renew", "rotate30", "rotate30",
	"regenerate", "login", "destroy", "maxage", "browser", "save", "save", "reload", "pause",
}

func randomHistory(rng *rand.Rand, virtual bool) history {
	pick := func(from []string) string { return from[rng.IntN(len(from))] }
	h := history{setup: pick([]string{"", "login,name,update", "login,name,update", "update,maxage"})}
	for _, letter := range "rsmuxa" {
		if rng.IntN(3) == 0 {
			h.options += string(letter)
		}
	}
	if virtual {
		h.options += pick([]string{"", "", "p", "q"})
	}
	faults := []string{"rotate", "restart"}
	switch rng.IntN(5) {
	case 0:
		h.lost = 1 + rng.IntN(6)
	case 1:
		h.failed = 1 + rng.IntN(6)
	case 2:
		h.late = 1 + rng.IntN(6)
		faults = append(faults, "late", "late", "late")
	}
	if virtual {
		faults = append(faults, "crowd")
	}
	times := virtual && h.lost+h.failed+h.late == 0 // a session that expires before its lost reply is looked for begins anew
	for range 3 {
		var requests []string
		for range 1 + rng.IntN(3) {
			var actions []string
			for range 1 + rng.IntN(4) {
				actions = append(actions, pick(modelActions))
			}
			requests = append(requests, strings.Join(actions, ","))
		}
		h.tabs = append(h.tabs, requests)
	}
	for range 20 + rng.IntN(40) {
		switch n := rng.IntN(60); {
		case n <= 1:
			h.schedule = append(h.schedule, pick(faults))
		case n <= 4 && times:
			h.schedule = append(h.schedule, pick([]string{"20s", "31s", "5m", "30m", "59m", "61m", "4h"}))
		default:
			h.schedule = append(h.schedule, strconv.Itoa(rng.IntN(3)))
		}
	}
	return h
}

// shortest leaves out of a failing history what it can, and it still fails.
func shortest(t *testing.T, h history, w *world, err error) (*world, history, error) {
	try := func(shorter history) bool {
		w2, err2 := runHistory(t, shorter)
		if err2 != nil {
			w, h, err = w2, shorter, err2
		}
		return err2 != nil
	}
	for again := true; again; {
		again = false
		for _, shorter := range shorterHistories(h) {
			if try(shorter) {
				again = true
				break
			}
		}
	}
	return w, h, err
}

func shorterHistories(h history) (all []history) {
	with := func(change func(h *history)) {
		shorter := h
		shorter.schedule = slices.Clone(h.schedule)
		shorter.tabs = nil
		for _, requests := range h.tabs {
			shorter.tabs = append(shorter.tabs, slices.Clone(requests))
		}
		change(&shorter)
		all = append(all, shorter)
	}
	for i, requests := range h.tabs {
		for j, request := range requests {
			with(func(h *history) { h.tabs[i] = slices.Delete(h.tabs[i], j, j+1) })
			if actions := strings.Split(request, ","); len(actions) > 1 {
				for k := range actions {
					with(func(h *history) { h.tabs[i][j] = strings.Join(slices.Delete(slices.Clone(actions), k, k+1), ",") })
				}
			}
		}
	}
	for i := range h.schedule {
		with(func(h *history) { h.schedule = slices.Delete(h.schedule, i, i+1) })
	}
	for i := range h.options {
		with(func(h *history) { h.options = h.options[:i] + h.options[i+1:] })
	}
	if h.lost+h.failed+h.late != 0 {
		with(func(h *history) { h.lost, h.failed, h.late = 0, 0, 0 })
	}
	return all
}
