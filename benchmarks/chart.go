package main

import (
	"bytes"
	"cmp"
	"encoding/xml"
	"fmt"
	"math"
	"slices"
	"strings"
)

// chartWidth is that of every chart, in pixels: what a README on GitHub has room for.
const chartWidth = 760

// barChart returns the chart of the project's README, an SVG: requests per second over HTTP.
// Bars and groups without data are left out.
func barChart(r Results, dark bool) []byte {
	const left, longest, high, step, end = 176, 416, 17, 24, 8
	most := 0.0
	for _, group := range barGroups {
		for _, bar := range barPeers {
			most = max(most, perSec(r.HTTP, bar.peer, group.work))
		}
	}
	var d drawing
	y := 20.0
	d.text(0, y, "big", "Requests per second, sessions on Redis")
	y += 20
	d.text(0, y, "dim", "One CPU for the server. Longer is better; × is against scs.")
	y += 12
	for _, group := range barGroups {
		base := perSec(r.HTTP, rival, group.work)
		named := false
		for _, bar := range barPeers {
			v := perSec(r.HTTP, bar.peer, group.work)
			if v <= 0 {
				continue
			}
			if !named {
				y += 24
				d.text(0, y, "bold", group.label)
				y += 10
				named = true
			}
			fill, face := "grey", ""
			if bar.peer == "session/redis" {
				fill, face = "first", "bold"
			}
			long := longest * v / most
			d.text(left-end, y+13, strings.TrimSpace(face+" end"), bar.label)
			d.add(`<rect class="%s" x="%d" y="%.1f" width="%.2f" height="%d" rx="2"/>`, fill, left, y, long, high)
			d.text(left+long+end, y+13, face, count(v))
			if base > 0 {
				d.text(chartWidth-4, y+13, strings.TrimSpace(face+" end"), strings.Replace(times(v/base), "x", "×", 1))
			}
			y += step
		}
	}
	return d.svg("HTTP requests per second with sessions on Redis, this library beside its peers", y, dark)
}

// What the bars are of.
var (
	barGroups = []struct {
		work  Workload
		label string
	}{
		{Read, "Read a value"},
		{Sliding, "Read a value, with a sliding lifetime"},
		{Write, "Change a value"},
	}
	barPeers = []struct{ peer, label string }{
		{"session/redis", "session"},
		{"scs/redis", "scs"},
		{"gorilla/redis", "gorilla/sessions"},
		{"gin/redis", "gin-contrib/sessions"},
		{"fiber/redis", "fiber (fasthttp)"},
		{"express/redis", "express-session (Node)"},
	}
)

// growthChart returns one panel for each title of the curves, two in a row, as an SVG.
func growthChart(r Results, dark bool) []byte {
	const wide, high, gap = 364, 244, 32
	var d drawing
	y := 0.0
	for i, title := range titles(r.Growth) {
		curves := slices.DeleteFunc(slices.Clone(r.Growth), func(c Curve) bool { return c.Title != title })
		d.panel(float64(i%2*(wide+gap)), float64(i/2*high), wide, curves)
		y = float64((i/2 + 1) * high)
	}
	return d.svg("How the cost of a request grows", y, dark)
}

// panel draws curves of one title, with logarithmic axes.
func (d *drawing) panel(x, y, wide float64, curves []Curve) {
	var xs, ys []float64
	longest := 0
	for _, c := range curves {
		longest = max(longest, len([]rune(c.Name)))
		for _, p := range c.Points {
			if p.X > 0 && p.Y > 0 { // a logarithm has no place for others
				xs, ys = append(xs, p.X), append(ys, p.Y)
			}
		}
	}
	d.text(x, y+16, "bold", curves[0].Title)
	if len(xs) == 0 {
		return
	}
	slices.Sort(xs)
	across := logAxis(xs[0], xs[len(xs)-1], x+44, x+wide-20-min(6.6*float64(longest), 120))
	marks := logTicks(slices.Min(ys), slices.Max(ys))
	up := logAxis(marks[0], marks[len(marks)-1], y+200, y+50)
	d.text(x, y+34, "dim", curves[0].Y)
	for _, v := range marks {
		d.add(`<path class="rule" d="M%.1f %.1fH%.1f"/>`, across.from, up.at(v), across.to)
		d.text(across.from-8, up.at(v)+4, "dim end", short(v))
	}
	last := math.Inf(-1)
	for _, v := range slices.Compact(xs) {
		if at := across.at(v); at-last >= 28 { // room for the one before
			d.text(at, up.from+16, "dim middle", short(v))
			last = at
		}
	}
	d.text((across.from+across.to)/2, up.from+32, "dim middle", curves[0].X)
	d.lines(curves, across, up)
}

// lines draws the curves and their names, which stand where the lines end, but not on each other.
func (d *drawing) lines(curves []Curve, across, up axis) {
	type name struct {
		text, class string
		y           float64
	}
	var names []name
	for i, c := range curves {
		line := lineClasses[i%len(lineClasses)]
		var path, points strings.Builder
		y := 0.0
		for _, p := range c.Points {
			if p.X <= 0 || p.Y <= 0 {
				continue
			}
			x := across.at(p.X)
			y = up.at(p.Y)
			fmt.Fprintf(&path, "%c%.1f %.1f", "ML"[min(path.Len(), 1)], x, y)
			fmt.Fprintf(&points, "<circle class=\"%s\" cx=\"%.1f\" cy=\"%.1f\" r=\"3\"/>\n", line, x, y)
		}
		if path.Len() > 0 {
			d.add(`<path class="line %s-line" d="%s"/>`, line, path.String())
			d.WriteString(points.String())
			names = append(names, name{c.Name, line, y})
		}
	}
	slices.SortStableFunc(names, func(a, b name) int { return cmp.Compare(a.y, b.y) })
	last := math.Inf(-1)
	for _, n := range names {
		last = max(n.y, last+14)
		d.text(across.to+9, last+4, n.class, n.text)
	}
}

// An axis places the values from lo to hi between two pixels, by their logarithm.
type axis struct{ lo, hi, from, to float64 }

func logAxis(lo, hi, from, to float64) axis {
	if lo == hi {
		lo, hi = lo/2, hi*2
	}
	return axis{lo, hi, from, to}
}

func (a axis) at(v float64) float64 {
	return a.from + (a.to-a.from)*math.Log(v/a.lo)/math.Log(a.hi/a.lo)
}

// logTicks returns powers of ten, or 1, 2 and 5 times those where that is too few, with lo and
// hi between the first and the last.
func logTicks(lo, hi float64) []float64 {
	first, last := math.Floor(math.Log10(lo)), math.Ceil(math.Log10(hi))
	last = max(last, first+1)
	step := math.Ceil((last - first) / 5) // five, at most
	last = first + math.Ceil((last-first)/step)*step
	var ticks []float64
	for e := first; e <= last; e += step {
		for _, times := range []float64{1, 2, 5} {
			if times == 1 || last-first == 1 && e < last {
				ticks = append(ticks, times*math.Pow10(int(e)))
			}
		}
	}
	return ticks
}

// short returns a number for an axis: 10k, and 64Ki for a power of two.
func short(v float64) string {
	half, _ := math.Frexp(v)
	switch {
	case half == 0.5 && v >= 1<<20:
		return exact(v/(1<<20)) + "Mi"
	case half == 0.5 && v >= 1<<10:
		return exact(v/(1<<10)) + "Ki"
	case v >= 1e6:
		return exact(v/1e6) + "M"
	case v >= 1e3:
		return exact(v/1e3) + "k"
	}
	return exact(v)
}

// A drawing is an SVG that is being drawn.
type drawing struct{ bytes.Buffer }

func (d *drawing) add(format string, args ...any) { fmt.Fprintf(d, format+"\n", args...) }

func (d *drawing) text(x, y float64, class, text string) {
	if class != "" {
		class = ` class="` + class + `"`
	}
	d.add(`<text%s x="%.1f" y="%.1f">%s</text>`, class, x, y, escape(text))
}

// svg returns the drawing in the colours of GitHub's light or dark pages, on which it has no
// background of its own.
func (d *drawing) svg(title string, height float64, dark bool) []byte {
	text, dim, grey, rule, lines := "#1f2328", "#59636e", "#8c959f", "#d1d9e0", []string{"#0969da", "#bc4c00", "#1a7f37", "#8250df", "#59636e"}
	if dark {
		text, dim, grey, rule, lines = "#f0f6fc", "#9198a1", "#656c76", "#3d444d", []string{"#4493f8", "#db6d28", "#3fb950", "#ab7df8", "#9198a1"}
	}
	var out drawing
	out.add(`<svg xmlns="http://www.w3.org/2000/svg" role="img" width="%d" height="%.0f" viewBox="0 0 %[1]d %.0[2]f">`, chartWidth, height)
	out.add(`<title>%s</title>`, escape(title))
	out.add(`<style>
text { font: 12px -apple-system, BlinkMacSystemFont, "Segoe UI", "Noto Sans", Helvetica, Arial, sans-serif; fill: %s }
.dim { font-size: 11px; fill: %s }
.bold { font-weight: 600 }
.big { font-size: 15px; font-weight: 600 }
.end { text-anchor: end }
.middle { text-anchor: middle }
.grey { fill: %s }
.rule { stroke: %s }
.line { fill: none; stroke-width: 2; stroke-linejoin: round }`, text, dim, grey, rule)
	for i, class := range lineClasses {
		out.add(".%s { fill: %s }\n.%[1]s-line { stroke: %[2]s }", class, lines[i])
	}
	out.add("</style>")
	out.Write(d.Bytes())
	out.add("</svg>")
	return out.Bytes()
}

// lineClasses are of the lines in a panel; the bars have the first one.
var lineClasses = []string{"first", "second", "third", "fourth", "fifth"}

func escape(text string) string {
	var b strings.Builder
	xml.EscapeText(&b, []byte(text)) // a Builder does not fail
	return b.String()
}
