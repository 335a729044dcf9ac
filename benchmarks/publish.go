package main

import (
	"fmt"
	"os"
	"strings"
)

// publish writes all that is made of the results, and prints the report.
func (r Results) publish(s Settings) error {
	text := report(r)
	fmt.Print(text)
	readme, err := os.ReadFile(s.file("README.md"))
	if os.IsNotExist(err) { // in a folder of the run's own
		readme, err = []byte("\n<!-- results -->\n<!-- /results -->\n"), nil
	}
	if err != nil {
		return err
	}
	inserted, err := insert(string(readme), text)
	if err != nil {
		return err
	}
	for name, content := range map[string][]byte{
		"README.md":        []byte(inserted),
		"results.txt":      []byte(r.lines()),
		"chart-light.svg":  barChart(r, false),
		"chart-dark.svg":   barChart(r, true),
		"growth-light.svg": growthChart(r, false),
		"growth-dark.svg":  growthChart(r, true),
	} {
		if err := os.WriteFile(s.file(name), content, 0o644); err != nil {
			return err
		}
	}
	return nil
}

// lines returns what was measured in rounds, as benchstat reads it.
func (r Results) lines() string {
	var b strings.Builder
	fmt.Fprintf(&b, "goos: linux\npkg: github.com/seed-4f96e14b/session/benchmarks\ncpu: %s\n", r.Machine.CPU)
	line := func(name string, values ...any) {
		fmt.Fprintf(&b, "Benchmark%s 1", name)
		for i := 0; i < len(values); i += 2 {
			fmt.Fprintf(&b, " %.6g %s", values[i], values[i+1])
		}
		b.WriteString("\n")
	}
	for _, s := range r.Floor {
		for _, ns := range s.Rounds {
			line("Floor/"+s.Name, ns, "ns/op")
		}
	}
	for _, m := range r.Micro {
		for _, ns := range m.NS {
			line("Micro/"+m.Peer+"/"+string(m.Work), ns, "ns/op", m.Bytes, "B/op", m.Allocs, "allocs/op")
		}
	}
	for _, h := range r.HTTP {
		for i := range h.PerSec {
			line("HTTP/"+h.Peer+"/"+string(h.Work), h.PerSec[i], "req/s", h.P50[i], "p50-µs", h.P99[i], "p99-µs", h.CPU[i], "cpu-µs/op")
		}
	}
	for _, p := range r.Parallel {
		for _, ns := range p.One {
			line("Parallel/"+p.Peer, ns, "ns/op")
		}
		for _, ns := range p.Two {
			line("Parallel/"+p.Peer+"-2", ns, "ns/op")
		}
	}
	return b.String()
}
