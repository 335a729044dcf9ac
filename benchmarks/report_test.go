package main

import (
	"strings"
	"testing"
)

// sampleRun is a run of a few parts: this library is fast but for W, and the machine half as fast
// as the one that the goals were set on.
func sampleRun() Results {
	return Results{
		Machine: Machine{Date: "2026-11-26", Command: "go run .", CPU: "Xeon", Cores: 2, Go: "go1.26.8", Redis: "7.0.15"},
		Floor:   []Sample{{"hmac", []float64{330}}, {"securecookie-decode", []float64{1744}}, {"context", []float64{262}}, {"securecookie-encode", []float64{2000}}},
		Micro: []Micro{
			{"scs/memory", Read, []float64{22_020}, 10_772, 245},
			{"bare", Read, []float64{20}, 0, 0},
			{"session/memory", Read, []float64{2_020, 9_000, 1_000}, 1_900, 18},
			{"session/memory", Write, []float64{7_200}, 3_600, 33},
		},
		Commands: []Commands{
			{Peer: "session/redis", Work: Read, Turns: 1, Commands: "GET", Out: 57, In: 1339},
			{Peer: "session/redis", Work: Equal, Turns: 2, Commands: "GET+SET", Out: 57, In: 339},
			{Peer: "session/redis", Work: Untouched},
		},
		HTTP: []HTTP{
			{Peer: "scs/redis", Work: Read, PerSec: []float64{20_000}, Bytes: []float64{11_000}, GC: []float64{.12}},
			{Peer: "session/redis", Work: Read, PerSec: []float64{49_000, 50_000, 52_500}, P50: []float64{601.4}, P99: []float64{1700}, CPU: []float64{19.52}, Bytes: []float64{2400}, GC: []float64{.031}},
			{Peer: "limit/redis", Work: Read, PerSec: []float64{60_000}},
			{Peer: "express/redis", Work: Read, PerSec: []float64{6_000}, P50: []float64{3700}, P99: []float64{25_000}, CPU: []float64{153}},
		},
		Memory:   []Footprint{{"scs/memory", 1_000_000, 677}, {"session/memory", 1_000_000, 367}},
		Expiry:   []Expiry{{Name: "quiet", P999: 110}, {Name: "expiring", Requests: 2_000_000, P50: 3, P99: 20, P999: 480, Max: 6_100}},
		Parallel: []Parallel{{"session/memory", []float64{1_800}, []float64{1_200}}},
		Growth: []Curve{
			{"Requests at once", "requests", "µs", "read", []Point{{X: 1, Y: 80}, {X: 256, Y: 2_700}}},
			{"Requests at once", "requests", "µs", "write", []Point{{X: 256, Y: 61_000, Note: "3 answered 503"}}},
		},
	}
}

func TestReport(t *testing.T) {
	got := report(sampleRun())
	for _, tc := range []struct{ says, line string }{
		{"where it was measured", "Measured 2026-11-26 by `go run .` on Xeon, 2 cores, with Go 1.26.8, Redis 7.0.15."},

		{"by how much the goals in memory are multiplied", "Their goals were set on another machine, and are multiplied by 2.00"},
		{"a goal met: the median, less the bare handler's", "| R in memory | ≤ 3.00 µs | 2.00 µs | ✓ |"},
		{"a goal missed", "| W in memory | ≤ 7.00 µs | 7.20 µs | ✗ |"},
		{"allocations, which no machine multiplies", "| R in memory, allocations | ≤ 20 | 18 | ✓ |"},
		{"a goal against a peer, the harness's cost off both", "| R in memory, scs/memory takes | ≥ 11x | 11.00x | ✓ |"},
		{"round trips", "| R on Redis, round trips | ≤ 1 | 1 | ✓ |"},
		{"a round trip too many", "| E on Redis, round trips | ≤ 1 | 2 | ✗ |"},
		{"a goal over HTTP", "| R over HTTP, session/redis against scs/redis | ≥ 2x | 2.50x | ✓ |"},
		{"how near the limit is", "| R over HTTP, session/redis against limit/redis | ≥ 0.85x | 0.83x | ✗ |"},
		{"bytes", "| A session in session/memory | ≤ 400 B | 367 B | ✓ |"},
		{"pauses", "| Reads, expiring, p99.9 | ≤ 5,000 µs | 480 µs | ✓ |"},
		{"what is no goal", "| Reads, expiring, the slowest |  | 6,100 µs |  |"},
		{"the speed-up", "| Reads with two CPUs | ≥ 1.6x | 1.50x | ✗ |"},

		{"only workloads that ran", "| ns, B, allocs | R | W |"},
		{"this library first", "| session/memory | 2,020, 1,900, 18 | 7,200, 3,600, 33 |\n| scs/memory | 22,020, 10,772, 245 | – |\n| bare |"},
		{"each part of the floor", "| securecookie-encode | 2,000 | 0.0 % |"},
		{"the commands", "| session/redis | 0 | 1: GET | 2: GET+SET |"},
		{"their bytes", "| session/redis | 57/1,339 | 57/339 |"},
		{"all about a server", "| session/redis | 50,000 | 5.0 % | 601 | 1,700 | 19.5 | 2,400 | 3.1 % |"},
		{"the fastest first", "| R | req/s | ± | p50 µs | p99 µs | CPU µs | B | GC |\n|---|--:|--:|--:|--:|--:|--:|--:|\n| limit/redis | 60,000 |"},
		{"what a server in Node cannot say", "| express/redis | 6,000 | 0.0 % | 3,700 | 25,000 | 153 | – | – |"},
		{"the latencies", "| expiring | 2,000,000 | 3.00 | 20.0 | 480 | 6,100 |"},
		{"ratios", "| express/redis | 0.30x |"},
		{"the smallest first", "| session/memory | 1,000,000 | 367 |\n| scs/memory | 1,000,000 | 677 |"},
		{"lines of a curve side by side, with their notes", "| requests | read, µs | write, µs |\n|---|--:|--:|\n| 1 | 80.0 | – |\n| 256 | 2,700 | 61,000 (3 answered 503) |"},
	} {
		if !strings.Contains(got, tc.line) {
			t.Errorf("%s: not in the report:\n%s", tc.says, tc.line)
		}
	}
	if t.Failed() {
		t.Log(got)
	}
}

func TestReportLeavesOutWhatDidNotRun(t *testing.T) {
	if got := report(Results{}); got != "" {
		t.Errorf("of nothing: %q", got)
	}
	r := sampleRun()
	r.Micro, r.Commands, r.HTTP, r.Expiry, r.Parallel, r.Growth = nil, nil, nil, nil, nil, nil
	got := report(r)
	for _, want := range []string{"### Goals\n\n|  | goal", "### The floor", "### Memory"} {
		if !strings.Contains(got, want) {
			t.Errorf("not in the report: %q", want)
		}
	}
	for _, part := range []string{"Handler called directly", "Redis commands", "HTTP", "Expiry", "Parallel", "Growth", "Times in memory"} {
		if strings.Contains(got, part) {
			t.Errorf("%s did not run, and is in the report", part)
		}
	}
}

func TestGoalsAreAsTheyWereSetWithoutAFloor(t *testing.T) {
	r := sampleRun()
	r.Floor = nil
	if got := report(r); !strings.Contains(got, "| R in memory | ≤ 1.50 µs | 2.00 µs | ✗ |") {
		t.Error(got)
	}
}

func TestNumbers(t *testing.T) {
	for _, tc := range []struct{ got, want string }{
		{number(0.349), "0.35"}, {number(9.994), "9.99"}, {number(9.996), "10.0"}, {number(99.96), "100"}, {number(1234567), "1,234,567"},
		{count(999.4), "999"}, {count(999.5), "1,000"}, {count(-123456), "-123,456"}, {count(-123), "-123"},
		{exact(1), "1"}, {exact(1.05), "1.05"}, {exact(1000), "1,000"}, {exact(1234.5), "1,234.5"}, {exact(0), "0"},
	} {
		if tc.got != tc.want {
			t.Errorf("got %s, want %s", tc.got, tc.want)
		}
	}
}

func TestInsert(t *testing.T) {
	const empty = "# Title\n\n`<!-- results -->` is a marker.\n\n<!-- results -->\n<!-- /results -->\n\nThe end.\n"
	first, err := insert(empty, "first\n")
	if err != nil {
		t.Fatal(err)
	}
	want := strings.Replace(empty, "-->\n<", "-->\n\nfirst\n\n<", 1)
	if first != want {
		t.Errorf("into nothing: got\n%s\nwant\n%s", first, want)
	}
	if second, _ := insert(first, "second"); second != strings.Replace(want, "first", "second", 1) {
		t.Errorf("in place of another: got\n%s", second)
	}
	for _, readme := range []string{"", "\n<!-- results -->\n", "\n<!-- /results -->\n", "\n<!-- /results -->\n<!-- results -->\n"} {
		if got, err := insert(readme, "report"); err == nil {
			t.Errorf("into %q: %q, want an error", readme, got)
		}
	}
}
