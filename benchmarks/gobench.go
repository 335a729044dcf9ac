package main

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"time"

	"golang.org/x/perf/benchfmt"
)

// A Benchmark is the result of one of package testing.
type Benchmark struct {
	Name              string // after the first slash, without the number of CPUs
	CPUs              int
	NS, Bytes, Allocs float64 // per op
}

// benchmarks is this module's tests as a program.
type benchmarks struct{ path string }

// buildBenchmarks builds it in the folder.
func buildBenchmarks(dir string) (benchmarks, error) {
	path := filepath.Join(dir, "benchmarks.test")
	build := exec.Command("go", "test", "-c", "-o", path, ".")
	build.Stderr = os.Stderr
	return benchmarks{path}, build.Run()
}

// run runs the benchmarks of that name once each.
func (b benchmarks) run(name, cpus string, each time.Duration, args ...string) ([]Benchmark, error) {
	args = append([]string{"-test.run=^$", "-test.bench=^" + name + "$", "-test.cpu=" + cpus, "-test.benchtime=" + each.String(), "-test.timeout=0"}, args...)
	cmd := exec.Command(b.path, args...)
	cmd.Stderr = os.Stderr
	output, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("benchmark %s: %w\n%s", name, err, output)
	}
	return parseBenchmarks(output)
}

// runEach runs them once for each peer, in a process of its own: what one leaves in the
// heap would make others slower.
func (b benchmarks) runEach(peers []Peer, name, cpus string, each time.Duration, args ...string) (lines []Benchmark, err error) {
	for _, peer := range peers {
		of, err := b.run(name, cpus, each, append(args, "-peers=^"+regexp.QuoteMeta(peer.Name)+"$")...)
		if err != nil {
			return nil, err
		}
		lines = append(lines, of...)
	}
	return lines, nil
}

func parseBenchmarks(output []byte) (lines []Benchmark, err error) {
	for r := benchfmt.NewReader(bytes.NewReader(output), "go test"); r.Scan(); {
		result, ok := r.Result().(*benchfmt.Result)
		if !ok {
			continue
		}
		base, parts := result.Name.Parts()
		line := Benchmark{Name: strings.TrimPrefix(result.Name.String(), string(base)+"/"), CPUs: 1}
		if last := string(parts[len(parts)-1]); strings.HasPrefix(last, "-") {
			line.Name = strings.TrimSuffix(line.Name, last)
			line.CPUs, err = strconv.Atoi(last[1:])
		}
		line.NS = result.Values[0].OrigValue // package testing prints ns/op, which benchfmt turns into seconds
		line.Bytes, _ = result.Value("B/op")
		line.Allocs, _ = result.Value("allocs/op")
		lines = append(lines, line)
	}
	return lines, err
}
