package main

import (
	"cmp"
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
)

// report returns the results as Markdown. Peers that did not run are left out, and so are parts.
func report(r Results) string {
	var parts []string
	for _, part := range []string{
		machine(r.Machine), goals(r), micro(r.Micro), floor(r.Floor), commands(r.Commands), overHTTP(r.HTTP),
		footprints(r.Memory), expiries(r.Expiry), parallel(r.Parallel), growth(r.Growth),
	} {
		if part != "" {
			parts = append(parts, part)
		}
	}
	return strings.Join(parts, "\n")
}

// insert returns the README with the report in place of what stood between the two markers.
func insert(readme, report string) (string, error) {
	const begin, end = "\n<!-- results -->\n", "\n<!-- /results -->\n"
	before, rest, begun := strings.Cut(readme, begin)
	_, after, ended := strings.Cut("\n"+rest, end)
	if !begun || !ended {
		return "", errors.New("the README has no lines <!-- results --> and <!-- /results -->")
	}
	return before + begin + "\n" + strings.TrimSpace(report) + "\n" + end + after, nil
}

func machine(m Machine) string {
	var with []string
	for _, v := range [][2]string{{"Go", m.Go}, {"Node", m.Node}, {"Redis", m.Redis}, {"wrk", m.Wrk}, {"Linux", m.Linux}} {
		if v[1] != "" {
			with = append(with, v[0]+" "+strings.TrimPrefix(v[1], "go"))
		}
	}
	if m.CPU == "" {
		return ""
	}
	text := fmt.Sprintf("Measured %s by `%s` on %s, %d cores, with %s.\n", m.Date, m.Command, m.CPU, m.Cores, strings.Join(with, ", "))
	if len(m.Modules) > 0 {
		text += "The peers: " + strings.Join(m.Modules, ", ") + ".\n"
	}
	return text
}

func micro(all []Micro) string {
	var g grid
	for _, m := range all {
		g.set(m.Peer, m.Work, fmt.Sprintf("%s, %s, %s", count(median(m.NS)), count(m.Bytes), exact(m.Allocs)))
	}
	if g.cells == nil {
		return ""
	}
	return heading("Handler called directly", fmt.Sprintf("ns, bytes and allocations for each request, one CPU, median of %s. "+
		"A peer without sessions shows what the harness costs.", rounds(all[0].NS))) + g.markdown("ns, B, allocs")
}

// rounds says how many there are.
func rounds(all []float64) string {
	if len(all) == 1 {
		return "one round"
	}
	return fmt.Sprintf("%d rounds", len(all))
}

func floor(all []Sample) string {
	t := table{head: []string{"", "ns", "±"}}
	for _, s := range all {
		t.add(s.Name, number(median(s.Rounds)), percent(spread(s.Rounds)))
	}
	return t.under("The floor", "What a request with a session takes apart, each alone.")
}

func commands(all []Commands) string {
	var sent, bytes grid
	for _, c := range all {
		if c.Turns == 0 {
			sent.set(c.Peer, c.Work, "0")
			continue
		}
		sent.set(c.Peer, c.Work, exact(c.Turns)+": "+c.Commands)
		bytes.set(c.Peer, c.Work, count(c.Out)+"/"+count(c.In))
	}
	if sent.cells == nil {
		return ""
	}
	text := heading("Redis commands", "Round trips for each request, and the commands in alphabetical order.") + sent.markdown("")
	if bytes.cells != nil {
		text += "\nBytes to Redis and from it:\n\n" + bytes.markdown("B out/in")
	}
	return text
}

// rival is the peer that goals and ratios over HTTP are against.
const rival = "scs/redis"

func overHTTP(all []HTTP) string {
	if len(all) == 0 {
		return ""
	}
	text := heading("HTTP", fmt.Sprintf("All on Redis, the server alone on one CPU, median of %s. CPU is that of the server for each request; "+
		"B is what a request allocates, and GC the share of the CPU that collects it, where the server is in Go.", rounds(all[0].PerSec)))
	for _, work := range Workloads {
		here := slices.DeleteFunc(slices.Clone(all), func(h HTTP) bool { return h.Work != work })
		slices.SortStableFunc(here, func(a, b HTTP) int { return cmp.Compare(median(b.PerSec), median(a.PerSec)) })
		t := table{head: []string{string(work), "req/s", "±", "p50 µs", "p99 µs", "CPU µs", "B", "GC"}}
		for _, h := range here {
			bytes, gc := "–", "–"
			if b := median(h.Bytes); b > 0 {
				bytes, gc = count(b), percent(median(h.GC))
			}
			t.add(h.Peer, count(median(h.PerSec)), percent(spread(h.PerSec)), number(median(h.P50)), number(median(h.P99)), number(median(h.CPU)), bytes, gc)
		}
		if len(here) > 0 {
			text += t.String() + "\n"
		}
	}
	var ratios grid
	for _, h := range all {
		if base := perSec(all, rival, h.Work); base > 0 {
			ratios.set(h.Peer, h.Work, times(median(h.PerSec)/base))
		}
	}
	if ratios.cells == nil {
		return strings.TrimSuffix(text, "\n")
	}
	return text + "Requests per second, as multiples of " + rival + ":\n\n" + ratios.markdown("")
}

// perSec returns the requests per second of a peer, or 0 if it did not run.
func perSec(all []HTTP, peer string, work Workload) float64 {
	for _, h := range all {
		if h.Peer == peer && h.Work == work {
			return median(h.PerSec)
		}
	}
	return 0
}

func footprints(all []Footprint) string {
	all = slices.SortedStableFunc(slices.Values(all), func(a, b Footprint) int { return cmp.Compare(a.Bytes, b.Bytes) })
	t := table{head: []string{"", "sessions", "B a session"}}
	for _, f := range all {
		t.add(f.Peer, exact(float64(f.Sessions)), count(f.Bytes))
	}
	return t.under("Memory", "Heap, or Redis's used_memory, that a session takes.")
}

func expiries(all []Expiry) string {
	t := table{head: []string{"", "reads", "p50 µs", "p99 µs", "p99.9 µs", "max µs"}}
	for _, e := range all {
		t.add(e.Name, exact(float64(e.Requests)), number(e.P50), number(e.P99), number(e.P999), number(e.Max))
	}
	return t.under("Expiry", "How long a read takes while a million sessions expire, and while none does.")
}

func parallel(all []Parallel) string {
	t := table{head: []string{"", "1 CPU, ns", "2 CPUs, ns", "speed-up"}}
	for _, p := range inOrder(all, func(p Parallel) string { return p.Peer }) {
		t.add(p.Peer, count(median(p.One)), count(median(p.Two)), times(median(p.One)/median(p.Two)))
	}
	return t.under("Parallel", "Reads of many sessions, ns for each request.")
}

func growth(all []Curve) string {
	if len(all) == 0 {
		return ""
	}
	text := heading("Growth", "How the cost of a request grows.")
	for i, title := range titles(all) {
		t := table{}
		for _, c := range all {
			if c.Title == title {
				t.join(c)
			}
		}
		if i > 0 {
			text += "\n"
		}
		text += "**" + title + "**\n\n" + t.String()
	}
	return text
}

// titles returns those of the curves, each once.
func titles(all []Curve) (titles []string) {
	for _, c := range all {
		if !slices.Contains(titles, c.Title) {
			titles = append(titles, c.Title)
		}
	}
	return titles
}

// join adds a column with the points of the curve. The rows are the places on its X axis.
func (t *table) join(c Curve) {
	if t.head == nil {
		t.head = []string{c.X}
	}
	name := c.Y
	if c.Name != "" {
		name = c.Name + ", " + c.Y
	}
	t.head = append(t.head, name)
	for _, p := range c.Points {
		i := slices.IndexFunc(t.rows, func(row []string) bool { return row[0] == exact(p.X) })
		if i < 0 {
			i = len(t.rows)
			t.rows = append(t.rows, []string{exact(p.X)})
		}
		for len(t.rows[i]) < len(t.head)-1 {
			t.rows[i] = append(t.rows[i], "–")
		}
		cell := number(p.Y)
		if p.Note != "" {
			cell += " (" + p.Note + ")"
		}
		t.rows[i] = append(t.rows[i], cell)
	}
}

// A table is one of Markdown: a column of names, and columns of numbers.
type table struct {
	head []string
	rows [][]string
}

func (t *table) add(row ...string) { t.rows = append(t.rows, row) }

func (t table) String() string {
	var b strings.Builder
	line := func(cells []string) {
		for i := range t.head {
			cell := "–"
			if i < len(cells) {
				cell = cells[i]
			}
			b.WriteString("| " + cell + " ")
		}
		b.WriteString("|\n")
	}
	line(t.head)
	b.WriteString("|---|" + strings.Repeat("--:|", len(t.head)-1) + "\n")
	for _, row := range t.rows {
		line(row)
	}
	return b.String()
}

// under returns the table below a heading, or nothing if it has no rows.
func (t table) under(title, text string) string {
	if len(t.rows) == 0 {
		return ""
	}
	return heading(title, text) + t.String()
}

func heading(title, text string) string {
	if text != "" {
		text += "\n\n"
	}
	return "### " + title + "\n\n" + text
}

// A grid is a table of peers and workloads.
type grid struct {
	peers []string
	cells map[string]map[Workload]string
}

func (g *grid) set(peer string, work Workload, cell string) {
	if g.cells == nil {
		g.cells = make(map[string]map[Workload]string)
	}
	if g.cells[peer] == nil {
		g.peers = append(g.peers, peer)
		g.cells[peer] = make(map[Workload]string)
	}
	g.cells[peer][work] = cell
}

// markdown leaves out the workloads that no peer has.
func (g *grid) markdown(corner string) string {
	t := table{head: []string{corner}}
	for _, work := range Workloads {
		if slices.ContainsFunc(g.peers, func(peer string) bool { return g.cells[peer][work] != "" }) {
			t.head = append(t.head, string(work))
		}
	}
	for _, peer := range inOrder(g.peers, func(peer string) string { return peer }) {
		row := []string{peer}
		for _, work := range t.head[1:] {
			row = append(row, cmp.Or(g.cells[peer][Workload(work)], "–"))
		}
		t.add(row...)
	}
	return t.String()
}

// inOrder returns this library first, the floors last, and the peers between them by name.
func inOrder[T any](all []T, peer func(T) string) []T {
	rank := func(v T) string {
		name := peer(v)
		switch library, _, _ := strings.Cut(name, "/"); library {
		case "session":
			return "0" + name
		case "bare", "limit":
			return "2" + name
		}
		return "1" + name
	}
	return slices.SortedStableFunc(slices.Values(all), func(a, b T) int { return strings.Compare(rank(a), rank(b)) })
}

// number returns three digits, or all of those before the point.
func number(v float64) string {
	switch {
	case math.Abs(v) < 9.995:
		return commas(v, 2)
	case math.Abs(v) < 99.95:
		return commas(v, 1)
	}
	return commas(v, 0)
}

// count returns a whole number.
func count(v float64) string { return commas(v, 0) }

// exact returns two digits behind the point where there are any.
func exact(v float64) string {
	s := commas(v, 2)
	return strings.TrimSuffix(strings.TrimRight(s, "0"), ".")
}

func times(v float64) string   { return commas(v, 2) + "x" }
func percent(v float64) string { return commas(100*v, 1) + " %" }

// commas separates the thousands.
func commas(v float64, digits int) string {
	s := strconv.FormatFloat(v, 'f', digits, 64)
	point := strings.IndexByte(s, '.')
	if point < 0 {
		point = len(s)
	}
	for i := point - 3; i > 0 && s[i-1] != '-'; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}
