package session_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/seed-4f96e14b/session"
	"github.com/seed-4f96e14b/session/internal/testing/redistest"
)

// The configurations of a server's persistence.
var (
	// What Redis does unless it is told otherwise.
	snapshots = []string{"--appendonly", "no", "--save", "3600 1", "--save", "300 100", "--save", "60 10000"}
	everySec  = []string{"--appendonly", "yes", "--appendfsync", "everysec"}
	always    = []string{"--appendonly", "yes", "--appendfsync", "always"}
)

// What becomes of a logout when Redis is killed and started again, as docs/redis.md has it.
// Redis's default brings the session back; a log of its writes does not.
func TestLogoutBeforeARestart(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		config   []string
		snapshot bool   // between the login and the logout
		name     string // of the session that was logged out, after the restart
	}{
		"snapshots":                        {snapshots, true, "ada"},
		"appendfsync everysec":             {everySec, false, ""},
		"appendfsync always":               {always, false, ""},
		"snapshots and appendfsync always": {slices.Concat(snapshots, always), true, ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			server := redistest.NewProcess(t)
			server.Start(tt.config...)
			server.AwaitReady()
			admin := redistest.Admin(t, server.Addr)
			m := newManager(t, session.Options{Store: &session.RedisStore{Client: client(t, server.Addr)}, StoreTimeout: faultTimeout})
			v, other := newVisitor(m), newVisitor(m)
			check(t, "login", v.post(login("ada")).StatusCode, served)
			check(t, "another's login", other.post(login("bob")).StatusCode, served)
			if tt.snapshot {
				snapshot(t, admin)
			}
			ended := v.copy()
			check(t, "logout", v.post(logout).StatusCode, served)
			check(t, "name after the logout", nameOf(ended), "")
			// While an fsync is under way, Redis may leave a write in its buffer, and answer all the
			// same. With appendfsync always it never does.
			if name == "appendfsync everysec" {
				eventually(t, "the log is written", func() bool { return persistence(t, admin, "aof_buffer_length") == "0" })
			}
			server.Kill()
			server.Start(tt.config...)
			server.AwaitReady()
			eventually(t, "requests are served", func() bool { return other.get(look).StatusCode == served })
			check(t, "name in the session that was logged out", nameOf(ended), tt.name)
			check(t, "name in the other", nameOf(other), "bob") // the server has not just lost everything
		})
	}
}

// WaitReplicas is of use when a replica is promoted. A primary that comes back with an older
// state than its replicas has them take it over.
func TestWaitReplicasAndARestart(t *testing.T) {
	t.Parallel()
	server := redistest.NewProcess(t)
	config := slices.Concat([]string{redistest.WaitRights}, snapshots, []string{"--repl-diskless-sync-delay", "0"})
	server.Start(config...)
	server.AwaitReady()
	admin := redistest.Admin(t, server.Addr)
	replica := redistest.Admin(t, redistest.Start(t, "--replicaof", strings.Replace(server.Addr, ":", " ", 1)))
	inSync := func() bool {
		return strings.Contains(admin.Info(t.Context(), "replication").Val(), "state=online") &&
			strings.Contains(replica.Info(t.Context(), "replication").Val(), "master_link_status:up")
	}
	eventually(t, "the replica is up to date", inSync)

	v := newVisitor(newManager(t, session.Options{
		Store: &session.RedisStore{Client: client(t, server.Addr), WaitReplicas: 1}, StoreTimeout: 10 * time.Second,
	}))
	check(t, "login", v.post(login("ada")).StatusCode, served)
	snapshot(t, admin)
	ended := v.copy()
	check(t, "logout", v.post(logout).StatusCode, served)
	check(t, "sessions that the replica has", replica.DBSize(t.Context()).Val(), 0)
	server.Kill()
	server.Start(config...)
	server.AwaitReady()
	eventually(t, "the session that was logged out is back", func() bool { return nameOf(ended) == "ada" })
	eventually(t, "the replica has it too", func() bool { return inSync() && replica.DBSize(t.Context()).Val() == 1 })
}

// snapshot has the server take one, and waits until it is on disk.
func snapshot(t *testing.T, admin *redis.Client) {
	t.Helper()
	eventually(t, "no snapshot is under way", func() bool { return persistence(t, admin, "rdb_bgsave_in_progress") == "0" })
	if err := admin.BgSave(t.Context()).Err(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the snapshot is on disk", func() bool {
		return persistence(t, admin, "rdb_bgsave_in_progress") == "0" && persistence(t, admin, "rdb_changes_since_last_save") == "0"
	})
	check(t, "the snapshot", persistence(t, admin, "rdb_last_bgsave_status"), "ok")
}

// persistence returns what the server says of its persistence under the name.
func persistence(t *testing.T, admin *redis.Client, name string) string {
	t.Helper()
	_, after, found := strings.Cut(admin.Info(t.Context(), "persistence").Val(), "\r\n"+name+":")
	value, _, _ := strings.Cut(after, "\r\n")
	if !found {
		t.Fatalf("the server does not say %s", name)
	}
	return value
}
