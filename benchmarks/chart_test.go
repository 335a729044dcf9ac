package main

import (
	"bytes"
	"encoding/xml"
	"io"
	"math"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// An element is one of an SVG, with the text in it.
type element struct {
	name, text string
	attr       map[string]string
}

// parse fails the test if the SVG is not well-formed.
func parse(t *testing.T, svg []byte) (all []element) {
	t.Helper()
	d := xml.NewDecoder(bytes.NewReader(svg))
	for {
		switch token, err := d.Token(); token := token.(type) {
		case xml.StartElement:
			e := element{name: token.Name.Local, attr: make(map[string]string)}
			for _, a := range token.Attr {
				e.attr[a.Name.Local] = a.Value
			}
			all = append(all, e)
		case xml.CharData:
			if len(all) > 0 {
				all[len(all)-1].text += strings.TrimSpace(string(token))
			}
		case nil:
			if err != io.EOF {
				t.Fatalf("%v in\n%s", err, svg)
			}
			return all
		}
	}
}

func (e element) number(t *testing.T, attr string) float64 {
	t.Helper()
	v, err := strconv.ParseFloat(e.attr[attr], 64)
	if err != nil {
		t.Fatalf("%s: %v", e.name, err)
	}
	return v
}

func named(all []element, name string) []element {
	return slices.DeleteFunc(slices.Clone(all), func(e element) bool { return e.name != name })
}

func says(all []element, text string) bool {
	return slices.ContainsFunc(all, func(e element) bool { return e.name == "text" && e.text == text })
}

func TestBarsAreInProportion(t *testing.T) {
	svg := parse(t, barChart(sampleRun(), false))
	bars := named(svg, "rect")
	want := []float64{50_000, 20_000, 6_000} // in R; gorilla, gin and fiber did not run, nor S and W
	if len(bars) != len(want) {
		t.Fatalf("%d bars, want %d", len(bars), len(want))
	}
	unit := bars[0].number(t, "width") / want[0]
	for i, bar := range bars {
		if got := bar.number(t, "width") / unit; math.Abs(got-want[i]) > 5 {
			t.Errorf("bar %d is as long as %.0f, want %.0f", i, got, want[i])
		}
		if right := bar.number(t, "x") + bar.number(t, "width"); right > chartWidth-100 {
			t.Errorf("bar %d leaves no room for its numbers", i)
		}
		if accent := bar.attr["class"] == "first"; accent != (i == 0) {
			t.Errorf("bar %d is %s", i, bar.attr["class"])
		}
	}
	for _, text := range []string{"session", "50,000", "2.50×", "scs", "express-session (Node)", "0.30×", "Read a value"} {
		if !says(svg, text) {
			t.Errorf("the chart does not say %q", text)
		}
	}
	for _, text := range []string{"Change a value", "fiber (fasthttp)"} {
		if says(svg, text) {
			t.Errorf("the chart says %q, which did not run", text)
		}
	}
}

func TestGrowth(t *testing.T) {
	r := Results{Growth: []Curve{
		{Title: "Reads <1> & more", X: "keys", Y: "ns", Name: "a<b", Points: []Point{{X: 1, Y: 10}, {X: 10, Y: 100}, {X: 100, Y: 1000}}},
		{Title: "Reads <1> & more", X: "keys", Y: "ns", Name: "near", Points: []Point{{X: 0, Y: 5}, {X: 100, Y: 999}}},
		{Title: "One point", X: "bytes", Y: "ns", Points: []Point{{X: 65536, Y: 100}}},
		{Title: "None", X: "bytes", Y: "ns"},
	}}
	svg := parse(t, growthChart(r, false))
	for _, text := range []string{"Reads <1> & more", "a<b", "keys", "ns", "One point", "64Ki", "None"} {
		if !says(svg, text) {
			t.Errorf("the chart does not say %q", text)
		}
	}
	points := named(svg, "circle")
	if len(points) != 5 {
		t.Fatalf("%d points, want 5: one at 0 has no logarithm", len(points))
	}
	for _, axis := range []string{"cx", "cy"} {
		first, second := points[1].number(t, axis)-points[0].number(t, axis), points[2].number(t, axis)-points[1].number(t, axis)
		if math.Abs(first-second) > 0.15 {
			t.Errorf("%s: one decade is %.1f, and another %.1f", axis, first, second)
		}
	}
	if class := points[3].attr["class"]; class != "second" {
		t.Errorf("a point of the second line is %q", class)
	}
	var names []float64
	for _, e := range svg {
		if e.text == "a<b" || e.text == "near" {
			names = append(names, e.number(t, "y"))
		}
	}
	if len(names) != 2 || math.Abs(names[0]-names[1]) < 12 {
		t.Errorf("the names of lines that end at one point are at %v", names)
	}
}

func TestCharts(t *testing.T) {
	for _, draw := range []func(Results, bool) []byte{barChart, growthChart} {
		light, dark := draw(sampleRun(), false), draw(sampleRun(), true)
		if bytes.Equal(light, dark) {
			t.Error("light and dark are the same")
		}
		if !bytes.Equal(light, draw(sampleRun(), false)) {
			t.Error("two drawings of the same results differ")
		}
		parse(t, draw(Results{}, false))
		svg := parse(t, light)
		if svg[0].attr["role"] != "img" || svg[1].name != "title" || svg[1].text == "" {
			t.Errorf("no title, or not an image: %v", svg[:2])
		}
		width, height := svg[0].number(t, "width"), svg[0].number(t, "height")
		for _, e := range named(svg, "text") {
			if x, y := e.number(t, "x"), e.number(t, "y"); x < 0 || x > width || y < 0 || y > height {
				t.Errorf("%q is at %.0f, %.0f, outside of the drawing", e.text, x, y)
			}
		}
	}
}

func TestTicks(t *testing.T) {
	for _, tc := range []struct {
		lo, hi float64
		want   []float64
	}{
		{15, 60, []float64{10, 20, 50, 100}},
		{10, 10, []float64{10, 20, 50, 100}},
		{0.2, 30, []float64{0.1, 1, 10, 100}},
		{1, 1e7, []float64{1, 1e2, 1e4, 1e6, 1e8}},
	} {
		if got := logTicks(tc.lo, tc.hi); !slices.Equal(got, tc.want) {
			t.Errorf("from %g to %g: %v, want %v", tc.lo, tc.hi, got, tc.want)
		}
	}
}
