package redistest

import (
	"context"
	"strings"
	"testing"
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
	RingRights    = "+ping"
	ClusterRights = "+cluster|slots +asking +command"
)

// SentinelRights is what the user may do on a Sentinel.
const SentinelRights = "+sentinel|get-master-addr-by-name +sentinel|sentinels +subscribe +ping &+switch-master &+replica-reconf-done"

// Allow gives the user of a server at the address more rights, or, with a minus, fewer.
func Allow(t testing.TB, addr string, rights ...string) {
	t.Helper()
	args := []any{"ACL", "SETUSER", User}
	for _, right := range strings.Fields(strings.Join(rights, " ")) {
		args = append(args, right)
	}
	must[any](t)(Admin(t, addr).Do(context.Background(), args...).Result())
}

// user returns the definition of the user, for a configuration.
func user(rights ...string) string {
	return User + " reset on >" + Password + " " + strings.Join(rights, " ")
}
