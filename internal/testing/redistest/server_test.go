package redistest

import (
	"context"
	"slices"
	"syscall"
	"testing"
	"time"
)

// What is looked for at the end of each test is found, in every database, and a server
// in whatever state is no obstacle.
func TestKeysWithoutTTLAreFound(t *testing.T) {
	s := launch(t, freePort, withoutDisk(Rights))
	expect := func(state string, want ...string) {
		t.Helper()
		if keys, err := s.immortals(); !slices.Equal(keys, want) || err != nil {
			t.Errorf("%s: %q and error %v, want %q", state, keys, err, want)
		}
	}
	ctx := t.Context()
	expect("empty")
	s.client.Set(ctx, "sess:a", "x", time.Hour)
	expect("with a key that expires")
	s.client.Set(ctx, "sess:b", "x", 0)
	other := s.open(1)
	defer other.Close()
	other.HSet(ctx, "c", "x", "y")
	expect("with two that do not", `"sess:b" of database 0`, `"c" of database 1`)
	s.client.FlushAll(ctx)

	do := func(args ...any) {
		t.Helper()
		must[any](t)(s.client.Do(ctx, args...).Result())
	}
	for state, change := range map[string][2]func(){
		"hung": {func() { s.process.Process.Signal(syscall.SIGSTOP) }, func() { s.process.Process.Signal(syscall.SIGCONT) }},
		"busy": {
			func() {
				do("CONFIG", "SET", "busy-reply-threshold", 1)
				go s.open(0).Eval(context.Background(), "while true do end", nil)
				eventually(t, "it is busy", func() bool { return s.client.Ping(ctx).Err() != nil })
			},
			func() { do("SCRIPT", "KILL") },
		},
		"closed to us": {func() { do("CONFIG", "SET", "requirepass", "x") }, func() { do("CONFIG", "SET", "requirepass", "") }},
	} {
		eventually(t, "the server answers", func() bool { return s.client.Ping(ctx).Err() == nil })
		change[0]()
		began := time.Now()
		if keys, err := s.immortals(); len(keys) > 0 || err == nil {
			t.Errorf("%s: %q and error %v", state, keys, err)
		}
		if took := time.Since(began); took > 30*time.Second {
			t.Errorf("%s: it took %v", state, took)
		}
		change[1]()
	}
	s.kill()
	expect("dead")
}
