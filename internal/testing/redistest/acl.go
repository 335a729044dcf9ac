package redistest

import (
	"context"
	"strings"
	"testing"

	"github.com/redis/go-redis/v9"
)

// The user that apps log in as.
const (
	User     = "sessions"
	Password = "only-the-tests-have-this-one"
)

// What that user may do: Rights always, the others where they are needed. docs/redis.md
// says the same.
const (
	Rights        = "~sess:* +get +set +del +eval +evalsha"
	ListRights    = "+scan"
	WaitRights    = "+wait"
	ClusterRights = "+cluster|slots +asking +command"
	SelectRights  = "+select"
	NameRights    = "+client|setname"
)

// SentinelRights is what the user may do on a Sentinel.
const SentinelRights = "resetchannels +sentinel|get-master-addr-by-name +sentinel|sentinels +subscribe +ping &+switch-master &+replica-reconf-done"

// Allow gives the user of a server at the address more rights, or, with a minus, fewer.
func Allow(t testing.TB, addr string, rights ...string) {
	t.Helper()
	args := []any{"ACL", "SETUSER", User}
	for _, right := range strings.Fields(strings.Join(rights, " ")) {
		args = append(args, right)
	}
	must[any](t)(Admin(t, addr).Do(context.Background(), args...).Result())
}

// Refused returns what the server at the address has refused the user since it was last
// asked: commands, keys and channels.
func Refused(t testing.TB, addr string) (objects []string) {
	t.Helper()
	admin, ctx := Admin(t, addr), context.Background()
	for _, entry := range must[[]*redis.ACLLogEntry](t)(admin.ACLLog(ctx, 1000).Result()) {
		if entry.Username == User {
			objects = append(objects, entry.Object)
		}
	}
	must[string](t)(admin.ACLLogReset(ctx).Result())
	return objects
}

// user returns the definition of the user, for a configuration.
func user(rights ...string) string {
	return User + " reset on >" + Password + " " + strings.Join(rights, " ")
}
