package main

import (
	"os"
	"os/exec"
	"regexp"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"
	"time"
)

// thisMachine describes what is being measured with.
func thisMachine(s Settings) Machine {
	cpu, _ := os.ReadFile("/proc/cpuinfo")
	linux, _ := os.ReadFile("/proc/sys/kernel/osrelease")
	return Machine{
		Date:    time.Now().Format(time.DateOnly),
		Command: s.Command,
		CPU:     first(`(?m)^model name\s*: (.*)$`, cpu),
		Cores:   runtime.NumCPU(),
		Go:      strings.TrimPrefix(runtime.Version(), "go"),
		Node:    version("node", "--version"),
		Redis:   version("redis-server", "--version"),
		Wrk:     version("wrk", "-v"),
		Linux:   strings.TrimSpace(string(linux)),
		Modules: modules(),
	}
}

// version returns what a program says of itself, or "none".
func version(name string, args ...string) string {
	output, _ := exec.Command(name, args...).CombinedOutput() // wrk -v fails
	if v := first(`(\d+\.\d+[.\d]*)`, output); v != "" {
		return v
	}
	return "none"
}

func first(pattern string, text []byte) string {
	match := regexp.MustCompile(pattern).FindSubmatch(text)
	if match == nil {
		return ""
	}
	return string(match[1])
}

// modules returns those of the peers, with their versions.
func modules() (list []string) {
	measured := []string{
		"github.com/alexedwards/scs/v2", "github.com/alexedwards/scs/goredisstore",
		"github.com/gorilla/sessions", "github.com/gorilla/securecookie", "github.com/boj/redistore", "github.com/quasoft/memstore",
		"github.com/gin-contrib/sessions", "github.com/gin-gonic/gin",
		"github.com/gofiber/fiber/v3", "github.com/gofiber/storage/redis/v3", "github.com/redis/go-redis/v9",
	}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return nil
	}
	for _, dep := range info.Deps {
		if slices.Contains(measured, dep.Path) {
			list = append(list, strings.TrimPrefix(dep.Path, "github.com/")+" "+dep.Version)
		}
	}
	return list
}
