package main

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"
)

// Settings are those of a run.
type Settings struct {
	Command string // that was typed
	Parts   []string
	Rounds  int
	Seconds float64        // of wrk, for each workload of each peer in each round
	Micro   time.Duration  // for each benchmark in each round
	Peers   *regexp.Regexp // those to measure
	Quick   bool           // everything once, and of a hundredth of the size
	Draw    bool           // measure nothing
	Out     string
}

// parse sets the settings from the arguments of the program.
func (s *Settings) parse(args []string) {
	flags := flag.NewFlagSet("benchmarks", flag.ExitOnError)
	var parts, peers string
	flags.StringVar(&parts, "parts", strings.Join(allParts(), ","), "the parts to measure; what others have measured before is kept")
	flags.StringVar(&peers, "peers", "", "a regular expression of the peers to measure")
	flags.IntVar(&s.Rounds, "rounds", 6, "how often to measure, one peer after the other")
	flags.Float64Var(&s.Seconds, "seconds", 3, "of wrk, for each workload of each peer in each round")
	flags.BoolVar(&s.Quick, "quick", false, "everything once, for a moment: to see that it works, and not for the figures")
	flags.BoolVar(&s.Draw, "draw", false, "measure nothing; write the report and the charts of results.json again")
	flags.StringVar(&s.Out, "out", ".", "the folder with results.json, where the report and the charts go too")
	flags.Parse(args)

	s.Micro = 300 * time.Millisecond
	if s.Quick {
		s.Rounds, s.Seconds, s.Micro = 1, 0.2, 5*time.Millisecond
	}
	s.Parts = strings.Split(parts, ",")
	for _, name := range s.Parts {
		if !slices.Contains(allParts(), name) {
			fmt.Fprintf(os.Stderr, "there is no part %q; the parts are %s\n", name, strings.Join(allParts(), ","))
			os.Exit(2)
		}
	}
	var err error
	if s.Peers, err = regexp.Compile(peers); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(2)
	}
}

// peers returns those to measure of the kinds.
func (s Settings) peers(kinds ...Kind) (chosen []Peer) {
	for _, peer := range peers {
		if peer.Skipped == "" && slices.Contains(kinds, peer.Kind) && s.Peers.MatchString(peer.Name) {
			chosen = append(chosen, peer)
		}
	}
	return chosen
}

// size returns n, or a hundredth of it for a quick run.
func (s Settings) size(n int) int {
	if s.Quick {
		return max(n/100, 1)
	}
	return n
}

// say tells what is being measured.
func (s Settings) say(format string, args ...any) {
	fmt.Fprintf(os.Stderr, time.Now().Format(time.TimeOnly)+" "+format+"\n", args...)
}

func (s Settings) file(name string) string { return filepath.Join(s.Out, name) }

func allParts() (names []string) {
	for _, part := range parts {
		names = append(names, part.name)
	}
	return names
}
