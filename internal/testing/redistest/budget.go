package redistest

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"

	"github.com/redis/go-redis/v9"
)

// Commands is a hook of a client that writes down what the client sends. It is safe for
// concurrent use.
type Commands struct {
	mu    sync.Mutex
	trips []string
}

// Took returns the commands since it was last asked: a word for each that was a round trip
// of its own, those of one pipeline in brackets. "0" is none. How a connection begins is
// left out.
func (c *Commands) Took() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	trips := strings.Join(c.trips, " ")
	c.trips = nil
	if trips == "" {
		return "0"
	}
	return trips
}

func (c *Commands) add(trip string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.trips = append(c.trips, trip)
}

// DialHook implements [redis.Hook].
func (c *Commands) DialHook(next redis.DialHook) redis.DialHook { return next }

// ProcessHook implements [redis.Hook].
func (c *Commands) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error {
		if !opens(cmd) {
			c.add(cmd.Name())
		}
		return next(ctx, cmd)
	}
}

// ProcessPipelineHook implements [redis.Hook].
func (c *Commands) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return func(ctx context.Context, cmds []redis.Cmder) error {
		var names []string
		for _, cmd := range cmds {
			names = append(names, cmd.Name())
		}
		if !opens(cmds[0]) {
			c.add(fmt.Sprint(names))
		}
		return next(ctx, cmds)
	}
}

// opens reports whether a command is one with which go-redis begins a connection.
func opens(cmd redis.Cmder) bool {
	return slices.Contains([]string{"hello", "auth", "select", "client"}, cmd.Name())
}

// OffBudget compares a table with what its requests cost, as [Commands.Took] has it, and
// returns where they differ. The first line of the table names the options, the first cell
// of each other line a request; an empty cell is as the first of its line. A column in
// parentheses is there for comparison, and not looked at.
func OffBudget(table string, cost func(request, option string) string) (findings []string) {
	lines := strings.Split(strings.TrimSpace(table), "\n")
	options := cells(lines[0])[1:]
	first := slices.IndexFunc(options, func(option string) bool { return !strings.HasPrefix(option, "(") })
	for _, line := range lines[1:] {
		request, costs := cells(line)[0], cells(line)[1:]
		for i, option := range options {
			if strings.HasPrefix(option, "(") {
				continue
			}
			want := costs[first]
			if i < len(costs) {
				want = cmp.Or(costs[i], want)
			}
			if got := cost(request, option); got != want {
				findings = append(findings, fmt.Sprintf("%s, with %s: %s; the budget is %s", request, option, got, want))
			}
		}
	}
	return findings
}

func cells(line string) []string {
	all := strings.Split(line, "|")
	for i := range all {
		all[i] = strings.TrimSpace(all[i])
	}
	return all
}
