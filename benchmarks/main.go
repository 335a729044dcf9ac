// Benchmarks measures this library beside its peers, and writes what it has measured: README.md,
// results.json, results.txt and the charts. README.md says how to use it.
package main

import (
	"fmt"
	"os"
	"slices"
	"strings"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// run runs the program, or one of the processes that it starts.
func run(args []string) error {
	if len(args) > 0 {
		switch args[0] {
		case "serve":
			return serve(args[1:])
		case "fill":
			return fill(args[1:])
		}
	}
	s := Settings{Command: strings.TrimSpace("go run . " + strings.Join(args, " "))}
	s.parse(args)
	results, err := readResults(s.file("results.json"))
	if err != nil {
		return err
	}
	if !s.Draw {
		if err := results.measure(s); err != nil {
			return err
		}
	}
	return results.publish(s)
}

// parts are what can be measured, in the order of the report.
var parts = []struct {
	name    string
	measure func(*Results, Settings) error
}{
	{"micro", measureMicro},
	{"commands", measureCommands},
	{"http", measureHTTP},
	{"memory", measureMemory},
	{"expiry", measureExpiry},
	{"parallel", measureParallel},
	{"growth", measureGrowth},
}

// measure measures the parts, and keeps what has been measured as soon as a part is done.
func (r *Results) measure(s Settings) error {
	for _, part := range parts {
		if !slices.Contains(s.Parts, part.name) {
			continue
		}
		if err := part.measure(r, s); err != nil {
			return fmt.Errorf("%s: %w", part.name, err)
		}
		r.Machine = thisMachine(s)
		if err := r.write(s.file("results.json")); err != nil {
			return err
		}
	}
	return nil
}
