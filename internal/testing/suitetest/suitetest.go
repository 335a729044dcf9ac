// Package suitetest checks a whole run of tests for what no single test should have to
// think of: that nothing shows a secret, and that no goroutine of the library is left.
package suitetest

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"log"
	"log/slog"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"
)

// all is what this run of tests has shown, and must not have.
var all Record

// Main runs the tests of a package, checks the run, and ends the program. What http's
// default client gets and the default logger writes, it sees; the rest it has to
// be told by [Logger], [Show], [Panics], [Cookies] and [Key].
func Main(m *testing.M) {
	flag.Parse()
	if f := flag.Lookup("test.fuzzworker"); f != nil && f.Value.String() == "true" {
		all.off = true // it runs until it is stopped, and would keep everything for nobody
		os.Exit(m.Run())
	}
	http.DefaultTransport = watched{http.DefaultTransport}
	log.SetOutput(io.MultiWriter(os.Stderr, &page{&all, "by the default logger"}))
	code := m.Run()
	leaks := all.Leaks()
	const most = 20 // one mistake may be in every line
	for _, leak := range leaks[:min(len(leaks), most)] {
		fmt.Fprintln(os.Stderr, "whole suite:", leak)
		code = 1
	}
	if left := Goroutines(5 * time.Second); len(left) > 0 {
		fmt.Fprintf(os.Stderr, "whole suite: goroutines of the library are left:\n\n%s\n", strings.Join(left, "\n\n"))
		code = 1
	}
	os.Exit(code)
}

// InItsOwnProcess runs the test once more in another process, which has to fail by what
// Main finds, with each text in what it writes. It reports whether this is that process.
func InItsOwnProcess(t *testing.T, want ...string) bool {
	t.Helper()
	const inside = "SUITETEST_INSIDE"
	if os.Getenv(inside) == t.Name() {
		return true
	}
	program, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	again := exec.Command(program, "-test.run=^"+t.Name()+"$", "-test.v")
	again.Env = append(os.Environ(), inside+"="+t.Name())
	out, err := again.CombinedOutput()
	if _, failed := errors.AsType[*exec.ExitError](err); !failed || !strings.Contains(string(out), "--- PASS: "+t.Name()) {
		t.Errorf("ended with the error %v; want a test that passes and a process that fails", err)
	}
	for _, text := range want {
		if !strings.Contains(string(out), text) {
			t.Errorf("no %q", text)
		}
	}
	if t.Failed() {
		t.Logf("it wrote:\n%s", out)
	}
	return false
}

// Logger returns a logger that also writes down what the test logs through it, on every
// level. The one given may be nil.
func Logger(t testing.TB, logger *slog.Logger) *slog.Logger { return all.Logger(t, logger) }

// Show prints errors, and values of the library, in every way that a log might.
func Show(values ...any) { all.Show(values...) }

// Panics looks at a panic that passes. It has to be deferred itself.
func Panics() {
	if p := recover(); p != nil {
		all.Show(fmt.Errorf("panic: %v", p))
		panic(p)
	}
}

// Cookies says what a client sends or gets.
func Cookies(cookies []*http.Cookie) { all.Cookies(cookies) }

// Key says what cookies are signed with.
func Key(keys ...string) { all.Key(keys...) }

// watched is a client's way to the server.
type watched struct{ http.RoundTripper }

func (w watched) RoundTrip(r *http.Request) (*http.Response, error) {
	Cookies(r.Cookies())
	response, err := w.RoundTripper.RoundTrip(r)
	if err == nil {
		Cookies(response.Cookies())
	}
	return response, err
}

// CloseIdleConnections is what an httptest.Server calls when it closes.
func (w watched) CloseIdleConnections() {
	if t, ok := w.RoundTripper.(interface{ CloseIdleConnections() }); ok {
		t.CloseIdleConnections()
	}
}
