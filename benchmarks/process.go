package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"
)

// The CPUs of a measurement over HTTP: one for the server alone, one for what loads it and
// for Redis.
const (
	serverCPU = "0"
	loadCPU   = "1"
)

// command returns one that runs on the CPU alone, if there are two and cpu is not empty.
func command(cpu, name string, args ...string) *exec.Cmd {
	if cpu != "" && runtime.NumCPU() > 1 {
		args = append([]string{"-c", cpu, name}, args...)
		name = "taskset"
	}
	cmd := exec.Command(name, args...)
	cmd.Stderr = os.Stderr
	return cmd
}

// A Server is a peer in a process of its own.
type Server struct {
	Listening
	process *exec.Cmd
	stdin   io.Closer
}

// startServer starts this program as a server of the peer, or the peer's own in Node.
func startServer(cpu string, peer Peer, env Env) (*Server, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	cmd := command(cpu, self, "serve", "-peer", peer.Name, "-redis", env.Redis, "-sliding="+strconv.FormatBool(env.Sliding))
	if peer.Node != "" {
		if err := installNode(peer.Node); err != nil {
			return nil, err
		}
		args := []string{filepath.Join(peer.Node, "server.js"), "127.0.0.1:0", env.Redis}
		if env.Sliding {
			args = append(args, "sliding")
		}
		cmd = command(cpu, "node", args...)
	}
	s := &Server{process: cmd}
	if s.stdin, err = cmd.StdinPipe(); err != nil {
		return nil, err
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	line, err := bufio.NewReader(stdout).ReadBytes('\n')
	if err == nil {
		err = json.Unmarshal(line, &s.Listening)
	}
	if err != nil {
		s.Stop()
		return nil, fmt.Errorf("start %s: %w", peer.Name, err)
	}
	return s, nil
}

// Stop ends the process.
func (s *Server) Stop() {
	s.stdin.Close()
	s.process.Wait()
}

// CPU returns the time that the process has used.
func (s *Server) CPU() (time.Duration, error) {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", s.process.Process.Pid))
	if err != nil {
		return 0, err
	}
	_, after, _ := strings.Cut(string(stat), ") ") // the name before may have spaces
	fields := strings.Fields(after)
	const user, system, tick = 11, 12, time.Second / 100 // see proc(5)
	u, err := strconv.Atoi(fields[user])
	s2, err2 := strconv.Atoi(fields[system])
	return time.Duration(u+s2) * tick, errors.Join(err, err2)
}

// installNode installs the packages of the folder's package-lock.json, unless they are there.
func installNode(dir string) error {
	if _, err := os.Stat(filepath.Join(dir, "node_modules", ".package-lock.json")); err == nil { // npm writes it last
		return nil
	}
	npm := exec.Command("npm", "ci", "--no-audit", "--no-fund")
	npm.Dir = dir
	if output, err := npm.CombinedOutput(); err != nil {
		return fmt.Errorf("npm ci in %s: %w\n%s", dir, err, output)
	}
	return nil
}

// A RedisServer is a redis-server of our own, which keeps nothing on disk.
type RedisServer struct {
	Addr    string
	Client  *redis.Client
	process *exec.Cmd
}

func startRedis(cpu string) (*RedisServer, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	addr := l.Addr().String()
	l.Close()
	_, port, _ := net.SplitHostPort(addr)
	cmd := command(cpu, "redis-server", "--port", port, "--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--loglevel", "warning")
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	r := &RedisServer{addr, redis.NewClient(&redis.Options{Addr: addr}), cmd}
	for range 200 {
		if err = r.Client.Ping(context.Background()).Err(); err == nil {
			return r, nil
		}
		time.Sleep(25 * time.Millisecond)
	}
	r.Stop()
	return nil, fmt.Errorf("redis-server does not answer: %w", err)
}

// Stop ends the process.
func (r *RedisServer) Stop() {
	r.Client.Close()
	r.process.Process.Kill()
	r.process.Wait()
}
