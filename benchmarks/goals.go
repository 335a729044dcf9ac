package main

import "strings"

// A goal is a row of the table of goals.
type goal struct {
	name, want, got string
	met             bool
	noted           bool // no goal, but what is to be known beside one
}

func atMost(name string, got, most float64, unit string) goal {
	return goal{name: name, want: "≤ " + number(most) + unit, got: number(got) + unit, met: got <= most}
}

func atLeast(name string, got, least float64) goal {
	return goal{name: name, want: "≥ " + exact(least) + "x", got: times(got), met: got >= least}
}

// goals returns the table of what the project has set itself, as far as it was measured.
func goals(r Results) string {
	t := table{head: []string{"", "goal", "measured", ""}}
	var all []goal
	for _, part := range [][]goal{microGoals(r), commandGoals(r.Commands), httpGoals(r.HTTP), memoryGoals(r.Memory), expiryGoals(r.Expiry), parallelGoals(r.Parallel)} {
		all = append(all, part...)
	}
	for _, g := range all {
		mark := "✗"
		switch {
		case g.noted:
			mark = ""
		case g.met:
			mark = "✓"
		}
		t.add(g.name, g.want, g.got, mark)
	}
	text := ""
	if len(r.Micro) > 0 {
		text = "Times in memory are over the bare handler. Their goals were set on another machine, and are multiplied by " +
			commas(scale(r.Floor), 2) + ": the floor here over the floor there."
	}
	return t.under("Goals", text)
}

// scale returns how much slower this machine is than the one that the goals were set on.
func scale(floor []Sample) float64 {
	set := map[string]float64{"hmac": 165, "decode": 872, "context": 131} // ns, there
	sum, n := 0.0, 0.0
	for _, s := range floor {
		if there := set[strings.TrimPrefix(s.Name, "securecookie-")]; there > 0 && len(s.Rounds) > 0 {
			sum += median(s.Rounds) / there
			n++
		}
	}
	if n == 0 {
		return 1
	}
	return sum / n
}

func microGoals(r Results) (goals []goal) {
	find := func(peer string, work Workload) (m Micro, ok bool) {
		for _, m := range r.Micro {
			if m.Peer == peer && m.Work == work {
				return m, true
			}
		}
		return m, false
	}
	over := func(peer string, work Workload) (Micro, float64, bool) {
		m, ok := find(peer, work)
		bare, _ := find("bare", work)
		m.Allocs -= bare.Allocs
		return m, median(m.NS) - median(bare.NS), ok
	}
	for _, want := range []struct {
		work           Workload
		micros, allocs float64 // no goal for the allocations where 0
	}{
		{Untouched, 0.35, 3}, {Anonymous, 0.35, 3}, {Read, 1.5, 20}, {Sliding, 1.7, 0}, {Write, 3.5, 0}, {Equal, 1.8, 0}, {Login, 4.5, 0},
	} {
		m, ns, ok := over("session/memory", want.work)
		if !ok {
			continue
		}
		name := string(want.work) + " in memory"
		goals = append(goals, atMost(name, ns/1000, want.micros*scale(r.Floor), " µs"))
		if want.allocs > 0 {
			goals = append(goals, goal{name: name + ", allocations", want: "≤ " + exact(want.allocs), got: exact(m.Allocs), met: m.Allocs <= want.allocs})
		}
		if _, peer, ok := over("scs/memory", want.work); ok && want.work == Read {
			goals = append(goals, atLeast(name+", scs/memory takes", peer/ns, 11))
		}
	}
	return goals
}

func commandGoals(all []Commands) (goals []goal) {
	most := map[Workload]float64{Untouched: 0, Anonymous: 0, Read: 1, Sliding: 1, Write: 2, Equal: 1, Login: 1}
	for _, c := range all {
		if c.Peer == "session/redis" {
			goals = append(goals, goal{
				name: string(c.Work) + " on Redis, round trips", want: "≤ " + exact(most[c.Work]),
				got: exact(c.Turns), met: c.Turns <= most[c.Work],
			})
		}
	}
	return goals
}

func httpGoals(all []HTTP) (goals []goal) {
	const ours = "session/redis"
	for _, want := range []struct {
		peer, against string
		work          Workload
		times         float64
	}{
		{ours, rival, Untouched, 3},
		{ours, rival, Anonymous, 1.3},
		{ours, rival, Read, 2},
		{ours, "limit/redis", Read, 0.85},
		{ours + "-pipelined", rival, Read, 2.5}, // or by the option that does it:
		{ours + "-autopipe", rival, Read, 2.5},
		{ours + "-fullduplex", rival, Read, 2.5},
		{ours + "-cached", rival, Read, 4},
		{ours, rival, Sliding, 2.8},
		{ours, rival, Write, 2},
		{ours, rival, Equal, 2.5},
		{ours, rival, Login, 1.1},
	} {
		got, base := perSec(all, want.peer, want.work), perSec(all, want.against, want.work)
		if got > 0 && base > 0 {
			goals = append(goals, atLeast(string(want.work)+" over HTTP, "+want.peer+" against "+want.against, got/base, want.times))
		}
	}
	return goals
}

func memoryGoals(all []Footprint) (goals []goal) {
	for _, f := range all {
		if f.Peer == "session/memory" || f.Peer == "session/redis" {
			goals = append(goals, atMost("A session in "+f.Peer, f.Bytes, 400, " B"))
		}
	}
	return goals
}

func expiryGoals(all []Expiry) (goals []goal) {
	for _, e := range all {
		if e.Name != "quiet" {
			goals = append(goals, atMost("Reads, "+e.Name+", p99.9", e.P999, 5000, " µs"),
				goal{name: "Reads, " + e.Name + ", the slowest", got: number(e.Max) + " µs", noted: true})
		}
	}
	return goals
}

func parallelGoals(all []Parallel) (goals []goal) {
	for _, p := range all {
		if p.Peer == "session/memory" {
			goals = append(goals, atLeast("Reads with two CPUs", median(p.One)/median(p.Two), 1.6))
		}
	}
	return goals
}
