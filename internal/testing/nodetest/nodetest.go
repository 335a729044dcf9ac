// Package nodetest gets the Node apps of tests ready to run.
package nodetest

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"sync"
	"testing"
)

// Install installs the packages that dir's package-lock.json names, unless they are
// there. Where Node or its packages are not to be had the test is skipped, but in CI it
// fails.
func Install(t testing.TB, dir string) {
	t.Helper()
	once, _ := installs.LoadOrStore(dir, sync.OnceValue(func() error { return install(dir) }))
	err := once.(func() error)()
	switch {
	case errors.Is(err, errNone) && os.Getenv("CI") == "":
		t.Skipf("%v: skipping what needs a real Express app", err)
	case err != nil:
		t.Fatalf("a real Express app: %v", err)
	}
}

var (
	installs sync.Map // of install, by folder
	errNone  = errors.New("no Express app to run")
)

func install(dir string) error {
	for _, name := range []string{"node", "npm"} {
		if _, err := exec.LookPath(name); err != nil {
			return fmt.Errorf("%w: %s is not installed (Debian: apt-get install nodejs npm)", errNone, name)
		}
	}
	lock, err := os.Stat(filepath.Join(dir, "package-lock.json"))
	if err != nil {
		return err
	}
	installed, err := os.Stat(filepath.Join(dir, "node_modules", ".package-lock.json")) // npm writes it last
	if err == nil && !installed.ModTime().Before(lock.ModTime()) {
		return nil
	}
	npm := exec.Command("npm", "ci", "--no-audit", "--no-fund", "--prefer-offline", "--fetch-retry-mintimeout=1000", "--fetch-retry-maxtimeout=5000")
	npm.Dir = dir
	output, err := npm.CombinedOutput()
	switch {
	case err == nil:
		return nil
	case noNetwork.Match(output):
		return fmt.Errorf("%w: npm ci gets no packages, there is no network", errNone)
	}
	return fmt.Errorf("npm ci: %w\n%s", err, output)
}

var noNetwork = regexp.MustCompile(`ENOTFOUND|EAI_AGAIN|ECONN|ENETUNREACH|EHOSTUNREACH|ETIMEDOUT|ENOTCACHED`)
