package session_test

import (
	"context"
	"errors"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/seed-4f96e14b/session"
	"github.com/seed-4f96e14b/session/internal/testing/redistest"
)

// The user that all tests on a real Redis log in as is the one of docs/redis.md.
func TestRedisUserIsDocumented(t *testing.T) {
	page, err := os.ReadFile("docs/redis.md")
	if err != nil {
		t.Fatal(err)
	}
	var lines []string
	for line := range strings.Lines(string(page)) {
		if strings.HasPrefix(line, "ACL SETUSER") {
			lines = append(lines, strings.TrimSpace(line))
		}
	}
	const user = "ACL SETUSER " + redistest.User + " reset on >PASSWORD "
	check(t, "the lines in docs/redis.md", lines, []string{user + redistest.Rights, user + redistest.SentinelRights})
	for _, rights := range []string{
		redistest.ListRights, redistest.WaitRights, redistest.ClusterRights, redistest.SelectRights, redistest.NameRights,
	} {
		if !strings.Contains(string(page), "`"+rights+"`") {
			t.Errorf("docs/redis.md does not have %s", rights)
		}
	}
}

// Without any of its rights the user is of no use, and the client is told so: 503, and
// one line in the log that has what Redis says, and no secret.
func TestRedisUserNeedsItsRights(t *testing.T) {
	client := redistest.Client(t)
	addr := client.Options().Addr
	var book logBook
	m := newManager(t, session.Options{Store: &session.RedisStore{Client: client}, Logger: book.logger()})
	for _, right := range strings.Fields(redistest.Rights) {
		t.Run("without "+right, func(t *testing.T) {
			v := newVisitor(m)
			check(t, "status with it", v.get(setName("x")).StatusCode, http.StatusOK)
			other := v.copy()
			if command, ok := strings.CutPrefix(right, "+"); ok {
				redistest.Allow(t, addr, "-"+command)
			} else {
				redistest.Allow(t, addr, "resetkeys")
			}
			redistest.Admin(t, addr).ScriptFlush(t.Context()) // so that EVAL is needed
			redistest.Refused(t, addr)
			lines := book.lines()

			var refused []string
			request := func(what string, response *http.Response) {
				if response.StatusCode != http.StatusOK {
					expectUnavailable(t, what, response)
					refused = append(refused, what)
				}
			}
			request("a read", v.get(use(func(s *session.Session) { nameKey.Get(s) })))
			request("a change", v.get(setName("y")))
			request("a new session", newVisitor(m).get(setName("z")))
			request("a logout", other.get(use(func(s *session.Session) { s.Destroy() })))
			if len(refused) == 0 || len(redistest.Refused(t, addr)) == 0 {
				t.Error("nothing is refused")
			}
			check(t, "log lines", book.lines()-lines, len(refused))
			redistest.Allow(t, addr, right)
			check(t, "status with it again", newVisitor(m).get(setName("x")).StatusCode, http.StatusOK)
		})
	}
	for _, secret := range []string{redistest.Password, secretA} {
		if strings.Contains(book.String(), secret) {
			t.Error("the log has a secret")
		}
	}
	for line := range strings.Lines(book.String()) {
		if !strings.Contains(line, "NOPERM") && !strings.Contains(line, "script") {
			t.Errorf("the log does not say why: %s", line)
		}
	}
}

// What is not needed always is needed where docs/redis.md says so, and suffices there.
func TestRedisUserNeedsMoreForMore(t *testing.T) {
	for right, use := range map[string]func(t *testing.T, options *redis.Options) error{
		redistest.ListRights: func(t *testing.T, options *redis.Options) error {
			client := redis.NewClient(options)
			defer client.Close()
			_, err := newManager(t, session.Options{Store: &session.RedisStore{Client: client}}).Len(t.Context())
			return err
		},
		redistest.WaitRights: func(t *testing.T, options *redis.Options) error {
			client := redis.NewClient(options)
			defer client.Close()
			ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
			defer cancel()
			err := (&session.RedisStore{Client: client, WaitReplicas: 1}).Delete(ctx, "a")
			if errors.Is(err, session.ErrNotReplicated) && !redis.HasErrorPrefix(err, "NOPERM") {
				return nil // it was allowed to wait
			}
			return err
		},
		redistest.SelectRights: func(t *testing.T, options *redis.Options) error {
			options.DB = 1
			client := redis.NewClient(options)
			defer client.Close()
			return (&session.RedisStore{Client: client}).Create(t.Context(), "c", []byte("x"), time.Hour)
		},
		redistest.NameRights: func(t *testing.T, options *redis.Options) error {
			options.ClientName = "app"
			client := redis.NewClient(options)
			defer client.Close()
			return (&session.RedisStore{Client: client}).Create(t.Context(), "d", []byte("x"), time.Hour)
		},
	} {
		t.Run(right, func(t *testing.T) {
			addr := redistest.Start(t)
			if err := use(t, redistest.Options(addr)); err == nil {
				t.Error("it works without")
			}
			if command := strings.TrimPrefix(right, "+"); !slices.Contains(redistest.Refused(t, addr), command) {
				t.Errorf("Redis has not refused %s", command)
			}
			redistest.Allow(t, addr, right)
			check(t, "error with it", use(t, redistest.Options(addr)), nil)
		})
	}
}

// Who has the user's password can do nothing but to sessions.
func TestRedisUserCanDoNothingElse(t *testing.T) {
	client := redistest.Client(t)
	admin := redistest.Admin(t, client.Options().Addr)
	admin.Set(t.Context(), "other", "not a session", time.Hour)
	admin.Set(t.Context(), "sess", "not one either", time.Hour)
	admin.Set(t.Context(), "sess:a", "x", time.Hour)
	for _, command := range []string{
		"GET other", "SET other x", "DEL other", "GET sess", "SET sess x", "DEL sess:a other",
		"EVAL return{redis.call('GET',KEYS[1])} 1 other", "EVAL return{redis.call('GET','other')} 0",
		"EVAL return{redis.call('FLUSHALL')} 0", "EVAL return{redis.call('KEYS','*')} 0",
		"FLUSHALL", "FLUSHDB", "KEYS *", "SCAN 0", "RANDOMKEY", "DBSIZE", "RENAME sess:a other", "COPY sess:a other", "SWAPDB 0 1", "SELECT 1",
		"CONFIG GET *", "CONFIG SET requirepass x", "ACL LIST", "ACL SETUSER " + redistest.User + " allcommands",
		"INFO", "MONITOR", "CLIENT LIST", "CLIENT KILL TYPE normal", "CLIENT PAUSE 1000",
		"SCRIPT FLUSH", "SCRIPT KILL", "SUBSCRIBE a", "PUBLISH a b",
		"SHUTDOWN", "SAVE", "BGSAVE", "REPLICAOF 127.0.0.1 1", "MODULE LIST", "MIGRATE 127.0.0.1 1 sess:a 0 1",
		"PERSIST sess:a", "EXPIRE sess:a 1",
	} {
		var args []any
		for _, arg := range strings.Fields(command) {
			args = append(args, arg)
		}
		err := client.Do(t.Context(), args...).Err()
		if refused := redistest.Refused(t, client.Options().Addr); err == nil || len(refused) == 0 {
			t.Errorf("%s: error %v, and Redis has refused %q", command, err, refused)
		}
	}
	check(t, "a key of somebody else", admin.Get(t.Context(), "other").Val(), "not a session")
}

// clusterUser checks the same for a Cluster, while a slot with sessions moves.
func clusterUser(t *testing.T, cluster *redistest.ClusterServers) {
	const key = "a"
	slot := cluster.SlotOf(t, "sess:"+key)
	for _, right := range strings.Fields(redistest.ClusterRights) {
		command := strings.TrimPrefix(right, "+")
		change := func(right string) {
			for _, addr := range cluster.Addrs() {
				redistest.Allow(t, addr, right)
			}
		}
		change("-" + command)
		store := &session.RedisStore{Client: cluster.Client(t)}
		ctx, stop := context.WithCancel(t.Context())
		var reader sync.WaitGroup
		reader.Go(func() {
			for ctx.Err() == nil {
				store.Load(ctx, key)
			}
		})
		primaries := cluster.Primaries(t)
		here := slices.Index(primaries, cluster.PrimaryOf(t, slot))
		cluster.MoveSlot(t, slot, primaries[(here+1)%len(primaries)], 50*time.Millisecond)
		stop()
		reader.Wait()
		var refused []string
		for _, addr := range cluster.Addrs() {
			refused = append(refused, redistest.Refused(t, addr)...)
		}
		if !slices.Contains(refused, command) {
			t.Errorf("without %s the nodes have refused %q", right, refused)
		}
		change(right)
	}
}

// sentinelUser checks the same for Sentinels.
func sentinelUser(t *testing.T, servers *redistest.SentinelServers) {
	for _, right := range strings.Fields(redistest.SentinelRights) {
		if right == "resetchannels" {
			continue
		}
		object := right[1:]
		change := func(rights ...string) {
			for _, addr := range servers.Sentinels() {
				redistest.Allow(t, addr, rights...)
			}
		}
		if right[0] == '&' {
			change(strings.ReplaceAll(redistest.SentinelRights, right, ""))
		} else {
			change("-" + object)
		}
		(&session.RedisStore{Client: servers.Client(t)}).Load(t.Context(), "a")
		var refused []string
		eventually(t, "the Sentinels have refused "+object, func() bool {
			for _, addr := range servers.Sentinels() {
				refused = append(refused, redistest.Refused(t, addr)...)
			}
			return slices.Contains(refused, object)
		})
		change(right)
	}
}
