package redistest

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
)

// A ClusterServers is a Redis Cluster of the test's own: three primaries, each with a
// replica.
type ClusterServers struct {
	nodes []*server
}

const (
	primaries = 3
	slots     = 16384
)

// Cluster runs a Redis Cluster on free ports of 127.0.0.1, with the arguments as
// configuration of each node, and returns when all of it is ready and each replica has
// what its primary has. It ends with the test. Without redis-server it does what
// [Start] does.
func Cluster(t testing.TB, args ...string) *ClusterServers {
	t.Helper()
	args = append([]string{"--cluster-enabled", "yes", "--cluster-node-timeout", "1500"}, args...)
	c := new(ClusterServers)
	for range 2 * primaries {
		c.nodes = append(c.nodes, launch(t, clusterPort, withoutDisk(Rights+" "+ListRights+" "+WaitRights+" "+ClusterRights, args...)))
	}
	c.join(t)
	return c
}

// join makes a cluster of the nodes, the first three of them primaries.
func (c *ClusterServers) join(t testing.TB) {
	t.Helper()
	ctx := context.Background()
	ids := make([]string, len(c.nodes))
	for i, node := range c.nodes {
		ids[i] = must[string](t)(node.client.ClusterMyID(ctx).Result())
		must[any](t)(node.client.Do(ctx, "CLUSTER", "SET-CONFIG-EPOCH", i+1).Result())
		if i < primaries {
			first, last := i*slots/primaries, (i+1)*slots/primaries-1
			must[string](t)(node.client.ClusterAddSlotsRange(ctx, first, last).Result())
		}
	}
	for _, node := range c.nodes {
		for _, other := range c.nodes {
			if node != other {
				must[string](t)(node.client.ClusterMeet(ctx, "127.0.0.1", other.port).Result())
			}
		}
	}
	c.eventually(t, "the nodes know each other", func(node *server) bool {
		list := node.client.ClusterNodes(ctx).Val()
		return strings.Count(list, " connected") == len(c.nodes) && !strings.Contains(list, "handshake")
	})
	for i, node := range c.nodes[primaries:] {
		must[string](t)(node.client.ClusterReplicate(ctx, ids[i]).Result())
	}
	c.await(t)
}

// await returns when the cluster is ready: each node knows for all slots a primary and
// a replica, and each replica has what its primary has.
func (c *ClusterServers) await(t testing.TB) {
	t.Helper()
	c.eventually(t, "the cluster is ready", func(node *server) bool {
		info := node.client.ClusterInfo(context.Background()).Val()
		if !strings.Contains(info, "cluster_state:ok") || !strings.Contains(info, "cluster_size:3") || !node.inSync(1) {
			return false
		}
		ranges, err := node.slots()
		return err == nil && len(ranges) > 0 && !slices.ContainsFunc(ranges, func(r redis.ClusterSlot) bool { return len(r.Nodes) != 2 })
	})
}

func (c *ClusterServers) eventually(t testing.TB, what string, ready func(*server) bool) {
	t.Helper()
	for _, node := range c.nodes {
		eventually(t, what, func() bool { return ready(node) })
	}
}

// Client returns an app's client for the cluster. It knows the addresses of all nodes.
func (c *ClusterServers) Client(t testing.TB) *redis.ClusterClient {
	t.Helper()
	// The rest as users leave it.
	client := redis.NewClusterClient(&redis.ClusterOptions{Addrs: c.Addrs(), Username: User, Password: Password})
	t.Cleanup(func() { client.Close() })
	return client
}

// Addrs returns the addresses of all nodes.
func (c *ClusterServers) Addrs() (addrs []string) {
	for _, node := range c.nodes {
		addrs = append(addrs, node.addr)
	}
	return addrs
}

// Primaries returns the addresses of the nodes that have slots, as a node that is
// alive sees it.
func (c *ClusterServers) Primaries(t testing.TB) (addrs []string) {
	t.Helper()
	for _, r := range c.slots(t) {
		if !slices.Contains(addrs, r.Nodes[0].Addr) {
			addrs = append(addrs, r.Nodes[0].Addr)
		}
	}
	return addrs
}

// SlotOf returns the slot that a key belongs to.
func (c *ClusterServers) SlotOf(t testing.TB, key string) int {
	t.Helper()
	return int(must[int64](t)(c.nodes[0].client.ClusterKeySlot(context.Background(), key).Result()))
}

// PrimaryOf returns the address of the node that has the slot.
func (c *ClusterServers) PrimaryOf(t testing.TB, slot int) string {
	t.Helper()
	for _, r := range c.slots(t) {
		if r.Start <= slot && slot <= r.End {
			return r.Nodes[0].Addr
		}
	}
	t.Fatalf("nobody has slot %d", slot)
	return ""
}

func (c *ClusterServers) slots(t testing.TB) []redis.ClusterSlot {
	t.Helper()
	for _, node := range c.nodes {
		if node.alive() {
			return must[[]redis.ClusterSlot](t)(node.slots())
		}
	}
	t.Fatal("no node is alive")
	return nil
}

// Kill ends a node at once, as a crash of its machine does.
func (c *ClusterServers) Kill(t testing.TB, addr string) {
	t.Helper()
	c.node(t, addr).kill()
}

// Restart starts a node that was killed. It comes back without data, and with what it
// knew of the cluster: a primary has to have been replaced before, or its data are lost.
func (c *ClusterServers) Restart(t testing.TB, addr string) {
	t.Helper()
	c.node(t, addr).restart(t)
}

// MoveSlot moves a slot with its keys to another primary, as a resharding does: the old
// one says ASK for what has left it, and, when all have, MOVED. The pause is for
// clients to see the states in between.
func (c *ClusterServers) MoveSlot(t testing.TB, slot int, to string, pause time.Duration) {
	t.Helper()
	ctx := context.Background()
	from, dest := c.node(t, c.PrimaryOf(t, slot)), c.node(t, to)
	if from == dest {
		return
	}
	fromID, destID := from.id(t), dest.id(t)
	set := func(node *server, args ...any) {
		t.Helper()
		must[any](t)(node.client.Do(ctx, append([]any{"CLUSTER", "SETSLOT", slot}, args...)...).Result())
	}
	set(dest, "IMPORTING", fromID)
	set(from, "MIGRATING", destID)
	time.Sleep(pause)
	for {
		keys := must[[]string](t)(from.client.ClusterGetKeysInSlot(ctx, slot, 100).Result())
		if len(keys) == 0 {
			break
		}
		args := []any{"MIGRATE", "127.0.0.1", dest.port, "", 0, 5000, "KEYS"}
		for _, key := range keys {
			args = append(args, key)
		}
		must[any](t)(from.client.Do(ctx, args...).Result())
	}
	time.Sleep(pause)
	// The new owner first: as long as the old one says ASK, all keys are found.
	set(dest, "NODE", destID)
	time.Sleep(pause)
	set(from, "NODE", destID)
	for _, addr := range c.Primaries(t) {
		set(c.node(t, addr), "NODE", destID)
	}
}

func (c *ClusterServers) node(t testing.TB, addr string) *server {
	t.Helper()
	for _, node := range c.nodes {
		if node.addr == addr {
			return node
		}
	}
	t.Fatalf("no node at %s", addr)
	return nil
}

// clusterPort returns a free port whose neighbour 10000 above, the cluster bus, is free
// too. Both are below the ports that Linux gives to outgoing connections.
func clusterPort(t testing.TB) string {
	t.Helper()
	const attempts = 100
	for range attempts {
		port := 10000 + rand.IntN(12000)
		if isFree(port) && isFree(port+10000) {
			return strconv.Itoa(port)
		}
	}
	t.Fatalf("no free ports in %d attempts", attempts)
	return ""
}

func isFree(port int) bool {
	l, err := net.Listen("tcp", fmt.Sprint("127.0.0.1:", port))
	if err != nil {
		return false
	}
	l.Close()
	return true
}
