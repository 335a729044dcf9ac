package main

import (
	"fmt"
	"os"
	"slices"
	"strings"
)

// measureMicro runs BenchmarkFloor and BenchmarkMicro of micro_test.go, in rounds.
func measureMicro(r *Results, s Settings) error {
	r.Floor, r.Micro = nil, nil
	return s.benchmarkRounds("micro", func(b benchmarks) error {
		floor, err := b.run("BenchmarkFloor", "1", s.Micro)
		if err != nil {
			return err
		}
		for _, line := range floor {
			r.Floor = addSample(r.Floor, line)
		}
		lines, err := b.runEach(s.peers(Memory, Cookie, None), "BenchmarkMicro", "1", s.Micro)
		for _, line := range lines {
			r.Micro = addMicro(r.Micro, line)
		}
		return err
	})
}

// benchmarkRounds calls round once for each.
func (s Settings) benchmarkRounds(part string, round func(benchmarks) error) error {
	dir, err := os.MkdirTemp("", "benchmarks")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	b, err := buildBenchmarks(dir)
	if err != nil {
		return err
	}
	for i := range s.Rounds {
		s.say("%s: round %d of %d", part, i+1, s.Rounds)
		if err := round(b); err != nil {
			return err
		}
	}
	return nil
}

func addSample(samples []Sample, line Benchmark) []Sample {
	i := slices.IndexFunc(samples, func(s Sample) bool { return s.Name == line.Name })
	if i < 0 {
		return append(samples, Sample{line.Name, []float64{line.NS}})
	}
	samples[i].Rounds = append(samples[i].Rounds, line.NS)
	return samples
}

func addMicro(results []Micro, line Benchmark) []Micro {
	slash := strings.LastIndex(line.Name, "/")
	peer, work := line.Name[:slash], Workload(line.Name[slash+1:])
	i := slices.IndexFunc(results, func(m Micro) bool { return m.Peer == peer && m.Work == work })
	if i < 0 {
		return append(results, Micro{peer, work, []float64{line.NS}, line.Bytes, line.Allocs})
	}
	results[i].NS = append(results[i].NS, line.NS)
	return results
}

// measureParallel runs BenchmarkParallel with one CPU and with two, in rounds.
func measureParallel(r *Results, s Settings) error {
	r.Parallel = nil
	return s.benchmarkRounds("parallel", func(b benchmarks) error {
		lines, err := b.runEach(s.peers(Memory, None), "BenchmarkParallel", "1,2", s.Micro, fmt.Sprintf("-sessions=%d", s.size(100_000)))
		for _, line := range lines {
			i := slices.IndexFunc(r.Parallel, func(p Parallel) bool { return p.Peer == line.Name })
			if i < 0 {
				i = len(r.Parallel)
				r.Parallel = append(r.Parallel, Parallel{Peer: line.Name})
			}
			if line.CPUs == 1 {
				r.Parallel[i].One = append(r.Parallel[i].One, line.NS)
			} else {
				r.Parallel[i].Two = append(r.Parallel[i].Two, line.NS)
			}
		}
		return err
	})
}
