package redistest

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/redis/go-redis/v9"
)

// A SentinelServers is a primary with two replicas, and three Sentinels that watch it.
type SentinelServers struct {
	servers   []*server // of the data, the first primary first
	sentinels []*server
}

const sentinelName = "sessions"

// Sentinel runs a primary, two replicas and three Sentinels on free ports of 127.0.0.1,
// and returns when all know each other and the replicas have what the primary has. They
// end with the test. Without redis-server it does what [Start] does.
func Sentinel(t testing.TB) *SentinelServers {
	t.Helper()
	s := new(SentinelServers)
	for i := range 3 {
		var args []string
		if i > 0 {
			args = []string{"--replicaof", "127.0.0.1 " + s.servers[0].port}
		}
		s.servers = append(s.servers, launch(t, freePort, withoutDisk(Rights+" "+ListRights+" "+WaitRights, args...)))
	}
	eventually(t, "the replicas have everything", func() bool { return s.servers[0].inSync(2) })
	for range 3 {
		s.sentinels = append(s.sentinels, launchSentinel(t, s.servers[0].port))
	}
	for _, sentinel := range s.sentinels {
		eventually(t, "the Sentinels know each other", func() bool {
			ctx := context.Background()
			info := sentinel.client.Info(ctx, "sentinel").Val()
			agreed := sentinel.client.Do(ctx, "SENTINEL", "CKQUORUM", sentinelName).Err() == nil
			return agreed && strings.Contains(info, "status=ok") && strings.Contains(info, "slaves=2,sentinels=3")
		})
	}
	return s
}

// launchSentinel runs a Sentinel, which needs a configuration file that it can write to.
func launchSentinel(t testing.TB, primary string) *server {
	t.Helper()
	return launch(t, freePort, func(port, dir string) []string {
		file := filepath.Join(dir, "sentinel-"+port+".conf")
		config := fmt.Sprintf(`port %[1]s
bind 127.0.0.1
dir %[2]s
loglevel warning
sentinel monitor %[3]s 127.0.0.1 %[4]s 2
sentinel down-after-milliseconds %[3]s 1000
sentinel failover-timeout %[3]s 5000
user %[5]s
`, port, dir, sentinelName, primary, user(SentinelRights))
		if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
			t.Fatal(err)
		}
		return []string{file, "--sentinel"}
	})
}

// Client returns an app's client, which asks the Sentinels for the primary.
func (s *SentinelServers) Client(t testing.TB) *redis.Client {
	t.Helper()
	client := redis.NewFailoverClient(&redis.FailoverOptions{
		MasterName: sentinelName, Username: User, Password: Password,
		SentinelAddrs: s.Sentinels(), SentinelUsername: User, SentinelPassword: Password,
	})
	t.Cleanup(func() { client.Close() })
	return client
}

// Sentinels returns the addresses of the Sentinels.
func (s *SentinelServers) Sentinels() (addrs []string) {
	for _, sentinel := range s.sentinels {
		addrs = append(addrs, sentinel.addr)
	}
	return addrs
}

// KillPrimary ends the primary at once, as a crash of its machine does.
func (s *SentinelServers) KillPrimary(t testing.TB) {
	t.Helper()
	reply := s.sentinels[0].client.Do(context.Background(), "SENTINEL", "GET-MASTER-ADDR-BY-NAME", sentinelName)
	addr := must[[]string](t)(reply.StringSlice()) // host and port
	for _, server := range s.servers {
		if server.port == addr[1] {
			server.kill()
			return
		}
	}
	t.Fatalf("the Sentinels' primary %s is none of the servers", addr)
}
