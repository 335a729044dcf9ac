package suitetest

import (
	"runtime"
	"slices"
	"strings"
	"time"
)

const module = "github.com/seed-4f96e14b/session"

// library are the packages whose goroutines have to end.
var library = []string{module + ".", module + "/expressjs.", module + "/internal/wire."}

// Goroutines returns the stacks of the library's goroutines that are still there after
// the time: calls that it has abandoned need some to end.
func Goroutines(wait time.Duration) []string {
	for end := time.Now().Add(wait); ; time.Sleep(10 * time.Millisecond) {
		left := slices.DeleteFunc(stacks(), func(stack string) bool { return !ofLibrary(stack) })
		if len(left) == 0 || time.Now().After(end) {
			return left
		}
	}
}

func stacks() []string {
	for size := 1 << 20; ; size *= 2 {
		b := make([]byte, size)
		if n := runtime.Stack(b, true); n < size {
			return strings.Split(strings.TrimSpace(string(b[:n])), "\n\n")
		}
	}
}

// ofLibrary reports whether a function of the library runs, or has started the goroutine.
func ofLibrary(stack string) bool {
	for line := range strings.Lines(stack) {
		function := strings.TrimPrefix(line, "created by ")
		if slices.ContainsFunc(library, func(prefix string) bool { return strings.HasPrefix(function, prefix) }) {
			return true
		}
	}
	return false
}
