package session_test

import (
	"fmt"
	"testing"

	"github.com/seed-4f96e14b/session"
	"github.com/seed-4f96e14b/session/internal/testing/redistest"
	"github.com/seed-4f96e14b/session/storetest"
)

// Behind Sentinel the store is one like any other, and when the primary dies under load
// the clients get 503 until another has taken over, and then go on. Nobody is taken for
// logged out.
func TestSentinel(t *testing.T) {
	t.Parallel()
	for _, replicas := range []int{0, 1} {
		t.Run(fmt.Sprint("waiting for replicas: ", replicas), func(t *testing.T) {
			servers := redistest.Sentinel(t)
			client := servers.Client(t)
			t.Run("contract", func(t *testing.T) {
				n := 0
				storetest.Run(t, func(t *testing.T) session.Store {
					n++
					return &session.RedisStore{Client: client, Prefix: fmt.Sprintf("sess:test[%d]*:", n), WaitReplicas: replicas}
				})
			})
			if testing.Short() {
				return
			}
			if replicas == 0 {
				t.Run("the user needs its rights", func(t *testing.T) { sentinelUser(t, servers) })
			}
			t.Run("the primary dies", func(t *testing.T) {
				// Both replicas have the sessions, whichever of them is promoted.
				c := newCrowd(t, &session.RedisStore{Client: client, WaitReplicas: 2}, &session.RedisStore{Client: client, WaitReplicas: replicas})
				c.start()
				c.served(t)
				servers.KillPrimary(t)
				took := c.served(t)
				c.finish(t)
				t.Logf("all served again %v after the kill; %v", took, c)
			})
		})
	}
}
