package session

import (
	"cmp"
	"context"
	"crypto/sha1"
	"encoding/hex"
	"errors"
	"fmt"
	"iter"
	"reflect"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"
)

// A RedisStore keeps sessions in Redis 6.2 or newer, or in another server that speaks its
// protocol and runs Lua scripts. A record is one string under one key with a time to live, and
// each call is one command on that key. So the store works on a Cluster and behind Sentinel.
// docs/redis.md in the repository has an ACL user with the least rights, TLS, and the settings
// of the client.
//
// The promises about sessions hold as long as Redis keeps what it has acknowledged. A restart
// loses what is not on disk yet, which is up to an hour with Redis's default snapshots. A failover
// loses what is not replicated yet. If a logout is lost, it is undone. appendfsync always prevents
// the first, WaitReplicas the second, and [Options.AbsoluteTimeout] bounds how long such a session
// lives.
//
// A RedisStore is safe for concurrent use. Its fields must not be changed after
// the first use.
type RedisStore struct {
	// Client is a client of go-redis v9: [redis.NewClient], [redis.NewFailoverClient]
	// (Sentinel), [redis.NewClusterClient] or [redis.NewUniversalClient]. The program that
	// made it closes it. Nil is an error of [New].
	//
	// The client must ask the primary for everything, so that the next request sees a
	// logout. So New refuses a client that caches, one that reads from replicas, a
	// [redis.AutoPipeliner], which may cache, and a [redis.Ring], which asks another shard
	// when one is down. New cannot see ReplicaOnly of [redis.NewFailoverClient], with which
	// every write fails. New adds a hook to the client that sees when Redis refuses a
	// connection. A client of a type of your own gets no hook, and is used as it is.
	Client RedisClient

	// Prefix stands before each key. Empty means "sess:", as in connect-redis.
	// Two managers that share a Redis database need different prefixes, neither of which
	// begins with the other: Clear deletes every key that begins with the prefix.
	Prefix string

	// NoPrefix makes keys of the ids alone, as connect-redis does with an empty prefix.
	// Keys then goes through every key of the Redis database, and Clear deletes them all.
	NoPrefix bool

	// WaitReplicas is how many replicas must have a write before it counts as
	// done. A WAIT follows each write, on the same connection. If too few replicas have
	// acknowledged it when the time of the call is up, the call fails with
	// [ErrNotReplicated], although the primary has the write and may go on to
	// spread it. Zero waits for none. A negative number is an error of [New].
	//
	// A failover then loses no write, and so no logout, that the promoted replica has. If
	// WaitReplicas is the number of the primary's replicas, all of them have it. If it is
	// smaller, the promoted one probably has it, because Redis promotes the replica that is
	// ahead. This does not make Redis consistent: a write that failed may still be there later.
	// Nor does it help in a restart: a replica that restarts has what is on its disk, and if a
	// primary restarts before another is promoted, its replicas copy what is on its disk.
	//
	// Each write takes the way to the replicas and back in addition. While too few of them are
	// connected, every write fails. WaitReplicas needs a [redis.Client] or a
	// [redis.ClusterClient]: another client is an error of [New].
	WaitReplicas int
}

// Validate implements [Validator]. It refuses a store without a Client, a client with which a
// session that has ended might be seen again, and fields that contradict each other.
func (s *RedisStore) Validate() error {
	if s == nil {
		return errors.New("a nil *RedisStore; use &session.RedisStore{Client: redis.NewClient(...)}")
	}
	if isNil(s.Client) {
		return errors.New("a RedisStore without a Client; give it one, as redis.NewClient(...)")
	}
	var errs []error
	if s.NoPrefix && s.Prefix != "" {
		errs = append(errs, fmt.Errorf("a RedisStore with NoPrefix and the Prefix %q; leave out one of them", s.Prefix))
	}
	switch err := refusedClient(s.Client); {
	case err != nil:
		errs = append(errs, err)
	case s.WaitReplicas < 0:
		errs = append(errs, fmt.Errorf("a RedisStore with WaitReplicas %d; use 0 to wait for none", s.WaitReplicas))
	case s.WaitReplicas > 0 && !isGoRedis(s.Client):
		errs = append(errs, fmt.Errorf("a RedisStore with WaitReplicas, which a %T cannot do; use a redis.Client or ClusterClient", s.Client))
	}
	return errors.Join(errs...)
}

// refusedClient returns why a client of go-redis, or one that embeds it, cannot keep what a
// Store promises, or nil. It knows nothing about clients of other types.
func refusedClient(client RedisClient) error {
	switch c := client.(type) {
	case *redis.AutoPipeliner:
		return errors.New("a RedisStore with a redis.AutoPipeliner, which may answer from a cache; use the client that it was made of")
	case interface{ Options() *redis.RingOptions }:
		return errors.New("a RedisStore with a redis.Ring, which moves the keys of a shard that is down to another one, and undoes a logout when the shard is back; use redis.NewClient, NewFailoverClient or NewClusterClient")
	case interface{ Options() *redis.ClusterOptions }:
		if c.Options().ReadOnly { // RouteByLatency and RouteRandomly set it
			return errors.New("a RedisStore with a client that reads from replicas, which may not have heard of a logout; leave ReadOnly (or ReplicaOnly), RouteByLatency and RouteRandomly out of its options")
		}
	case interface{ Options() *redis.Options }:
		if o := c.Options(); o.ClientSideCacheConfig != nil || o.ClientSideCache != nil {
			return errors.New("a RedisStore with a client that caches, which may not have heard of a logout; leave ClientSideCacheConfig and ClientSideCache out of its options")
		}
	}
	return nil
}

// isNil reports whether the client is nil, or a nil pointer.
func isNil(client RedisClient) bool {
	v := reflect.ValueOf(client)
	return client == nil || v.Kind() == reflect.Pointer && v.IsNil()
}

// isGoRedis reports whether the client is of a type of go-redis.
func isGoRedis(client RedisClient) bool {
	switch client.(type) {
	case *redis.Client, *redis.ClusterClient:
		return true
	}
	return false
}

// RedisClient is what a [RedisStore] calls. Every client of go-redis v9 has it.
type RedisClient interface {
	Get(ctx context.Context, key string) *redis.StringCmd
	SetNX(ctx context.Context, key string, value any, expiration time.Duration) *redis.BoolCmd
	Del(ctx context.Context, keys ...string) *redis.IntCmd
	Eval(ctx context.Context, script string, keys []string, args ...any) *redis.Cmd
	EvalSha(ctx context.Context, sha1 string, keys []string, args ...any) *redis.Cmd
}

// swapScript sets KEYS[1] to ARGV[2] for ARGV[3] milliseconds if it is ARGV[1].
const swapScript = `if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3])
return 1`

var swapScriptSHA = func() string {
	sum := sha1.Sum([]byte(swapScript))
	return hex.EncodeToString(sum[:])
}()

func (s *RedisStore) key(key string) string { return s.prefix() + key }

func (s *RedisStore) prefix() string {
	if s.Prefix == "" && !s.NoPrefix {
		return "sess:"
	}
	return s.Prefix
}

// Load implements [Store] with GET.
func (s *RedisStore) Load(ctx context.Context, key string) ([]byte, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	val, err := s.Client.Get(ctx, s.key(key)).Result()
	s.lookAgain(ctx, err)
	switch {
	case errors.Is(err, redis.Nil):
		return nil, ErrNotFound
	case redis.HasErrorPrefix(err, "WRONGTYPE"):
		return nil, fmt.Errorf("%w: the Redis key holds another type than a string", ErrUnreadable)
	case err != nil:
		return nil, withoutArguments(err)
	}
	return []byte(val), nil // not StringCmd.Bytes, which may alias what the client keeps
}

// Create implements [Store] with SET NX PX.
func (s *RedisStore) Create(ctx context.Context, key string, data []byte, ttl time.Duration) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if ttl <= 0 {
		return errTTL
	}
	var created *redis.BoolCmd
	err := s.write(ctx, s.key(key), func(c RedisClient) redis.Cmder {
		created = c.SetNX(ctx, s.key(key), data, wholeMilliseconds(ttl))
		return created
	})
	if err != nil {
		return err
	}
	if !created.Val() {
		return ErrConflict
	}
	return nil
}

// CompareAndSwap implements [Store] with a Lua script, by EVALSHA, and by EVAL
// where the server does not have it yet.
func (s *RedisStore) CompareAndSwap(ctx context.Context, key string, old, data []byte, ttl time.Duration) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if ttl <= 0 {
		return errTTL
	}
	keys := []string{s.key(key)}
	args := []any{old, data, wholeMilliseconds(ttl).Milliseconds()}
	var swapped *redis.Cmd
	err := s.write(ctx, keys[0], func(c RedisClient) redis.Cmder {
		swapped = c.EvalSha(ctx, swapScriptSHA, keys, args...)
		return swapped
	})
	if errors.Is(err, redis.ErrNoScript) || redis.HasErrorPrefix(err, "NOSCRIPT") {
		err = s.write(ctx, keys[0], func(c RedisClient) redis.Cmder {
			swapped = c.Eval(ctx, swapScript, keys, args...)
			return swapped
		})
	}
	switch {
	case redis.HasErrorPrefix(err, "WRONGTYPE"):
		return ErrConflict
	case err != nil:
		return err
	}
	if n, err := swapped.Int(); n != 0 || err != nil {
		return err
	}
	return ErrConflict
}

// Delete implements [Store] with DEL.
func (s *RedisStore) Delete(ctx context.Context, key string) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	return s.write(ctx, s.key(key), func(c RedisClient) redis.Cmder { return c.Del(ctx, s.key(key)) })
}

// withoutArguments returns err without the arguments that Redis quotes when it does not know a
// command. They are the key, which is half a secret with package expressjs, and the record.
func withoutArguments(err error) error {
	if _, isReply := errors.AsType[redis.Error](err); isReply {
		if said, _, found := strings.Cut(err.Error(), ", with args beginning with"); found {
			return replyError(said)
		}
	}
	return err
}

// A replyError is a [redis.Error]. It does not wrap the original, which a program could find and
// log.
type replyError string

func (e replyError) Error() string { return string(e) }
func (replyError) RedisError()     {}

// write runs one command that writes to key. With WaitReplicas, it returns no error
// only if that many replicas have everything that the primary had written by then. That also
// holds for a command that changes nothing, such as a repeated DEL: an earlier
// write may have been made and not acknowledged.
func (s *RedisStore) write(ctx context.Context, key string, command func(RedisClient) redis.Cmder) error {
	if s.WaitReplicas <= 0 {
		err := command(s.Client).Err()
		s.lookAgain(ctx, err)
		return withoutArguments(err)
	}
	switch c := s.Client.(type) {
	case *redis.Client:
		return s.writeTo(ctx, c, false, command)
	case *redis.ClusterClient:
		return s.writeToCluster(ctx, c, key, command)
	}
	return fmt.Errorf("session: cannot wait for the replicas of a %T: %w", s.Client, errors.ErrUnsupported)
}

// writeToCluster runs the command, and then WAIT, on the primary that has the key.
func (s *RedisStore) writeToCluster(ctx context.Context, cluster *redis.ClusterClient, key string, command func(RedisClient) redis.Cmder) error {
	node, err := cluster.MasterForKey(ctx, key)
	if err != nil {
		return err
	}
	// The cluster's own pipeline would send the WAIT, which has no key, to any node.
	// One on a single node does not follow redirections, so that is done here.
	ask := false
	for redirections := 0; ; redirections++ {
		err := s.writeTo(ctx, node, ask, command)
		if err == nil {
			return nil
		}
		s.lookAgain(ctx, err)
		var addr string
		var moved bool
		if addr, ask = redis.IsAskError(err); !ask {
			addr, moved = redis.IsMovedError(err)
		}
		if !moved && !ask || redirections == cluster.Options().MaxRedirects {
			return err
		}
		var lookErr error
		if node, lookErr = masterAt(ctx, cluster, addr); lookErr != nil {
			return errors.Join(err, lookErr)
		}
	}
}

// lookAgain makes a cluster's client ask again which node has what, after an error that
// is not a reply: the node may have been replaced, and go-redis itself asks once a minute
// (https://github.com/redis/go-redis/issues/3979).
func (s *RedisStore) lookAgain(ctx context.Context, err error) {
	if _, isReply := errors.AsType[redis.Error](err); err == nil || isReply {
		return
	}
	if cluster, ok := s.Client.(*redis.ClusterClient); ok {
		cluster.ReloadState(ctx)
	}
}

// writeTo sends the command and WAIT in one pipeline, because WAIT is about what
// its own connection has written.
func (s *RedisStore) writeTo(ctx context.Context, node *redis.Client, asking bool, command func(RedisClient) redis.Cmder) error {
	timeout := waitTimeout(ctx)
	if limit := node.Options().ReadTimeout; limit > 0 && limit < timeout+waitSlack {
		node = node.WithTimeout(timeout + waitSlack)
	}
	var written redis.Cmder
	var wait *redis.Cmd
	_, err := node.Pipelined(ctx, func(pipe redis.Pipeliner) error {
		if asking {
			pipe.Do(ctx, "ASKING")
		}
		written = command(pipe)
		wait = pipe.Do(ctx, "WAIT", s.WaitReplicas, timeout.Milliseconds())
		return nil
	})
	if _, refused := errors.AsType[redis.Error](written.Err()); refused {
		return withoutArguments(written.Err())
	}
	n, waitErr := wait.Int()
	if err := cmp.Or(written.Err(), err, waitErr); err != nil {
		return fmt.Errorf("%w: %w", ErrNotReplicated, err)
	}
	if n < s.WaitReplicas {
		return fmt.Errorf("%w: %d, and WaitReplicas is %d", ErrNotReplicated, n, s.WaitReplicas)
	}
	return nil
}

// waitSlack is how much longer than its WAIT a connection is kept.
const waitSlack = time.Second

// waitTimeout returns the time that is left of ctx, rounded up. So the context has ended when a
// WAIT gives up, and the error says so.
func waitTimeout(ctx context.Context) time.Duration {
	deadline, ok := ctx.Deadline()
	if !ok {
		return DefaultStoreTimeout
	}
	return wholeMilliseconds(max(time.Until(deadline), 0) + time.Millisecond)
}

// masterAt returns the cluster's own client for the primary at addr. Listing the
// primaries makes the cluster's client read again which of them has what.
func masterAt(ctx context.Context, cluster *redis.ClusterClient, addr string) (*redis.Client, error) {
	var found atomic.Pointer[redis.Client]
	err := cluster.ForEachMaster(ctx, func(_ context.Context, node *redis.Client) error {
		if node.Options().Addr == addr {
			found.Store(node)
		}
		return nil
	})
	if node := found.Load(); node != nil || err != nil {
		return node, err
	}
	return nil, errors.New("session: the client of the cluster does not know that primary yet")
}

const redisScanCount = 1000

// Keys implements [KeyLister] with SCAN on every primary. It returns
// [errors.ErrUnsupported] for a client that is neither a [redis.Client] nor a
// [redis.ClusterClient].
func (s *RedisStore) Keys(ctx context.Context) iter.Seq2[string, error] {
	return func(yield func(string, error) bool) {
		seen := make(map[string]struct{}) // SCAN may return a key more than once
		err := s.scan(ctx, func(key string) bool {
			if _, dup := seen[key]; dup {
				return true
			}
			seen[key] = struct{}{}
			return yield(key, nil)
		})
		if err != nil {
			yield("", err)
		}
	}
}

// Clear implements [Clearer] with SCAN and a DEL for each key; see [RedisStore.Keys].
func (s *RedisStore) Clear(ctx context.Context) error {
	for key, err := range s.Keys(ctx) {
		if err != nil {
			return err
		}
		if err := s.Delete(ctx, key); err != nil {
			return err
		}
	}
	return nil
}

// scan calls yield with each key that has the prefix, on one node after the other,
// until yield returns false.
func (s *RedisStore) scan(ctx context.Context, yield func(string) bool) error {
	nodes, err := s.nodes(ctx)
	if err != nil {
		return err
	}
	pattern := globEscaper.Replace(s.prefix()) + "*"
	for _, node := range nodes {
		it := node.Scan(ctx, 0, pattern, redisScanCount).Iterator()
		for it.Next(ctx) {
			if !yield(strings.TrimPrefix(it.Val(), s.prefix())) {
				return nil
			}
		}
		if err := it.Err(); err != nil {
			return err
		}
	}
	return nil
}

var globEscaper = strings.NewReplacer(`\`, `\\`, `*`, `\*`, `?`, `\?`, `[`, `\[`, `]`, `\]`)

// nodes returns a client for each primary.
func (s *RedisStore) nodes(ctx context.Context) (nodes []*redis.Client, err error) {
	switch c := s.Client.(type) {
	case *redis.Client:
		return []*redis.Client{c}, nil
	case *redis.ClusterClient:
		var mu sync.Mutex
		err = c.ForEachMaster(ctx, func(_ context.Context, node *redis.Client) error {
			mu.Lock()
			defer mu.Unlock()
			nodes = append(nodes, node)
			return nil
		})
		return nodes, err
	}
	return nil, fmt.Errorf("session: cannot list the keys of a %T: %w", s.Client, errors.ErrUnsupported)
}

var (
	_ KeyLister = (*RedisStore)(nil)
	_ Clearer   = (*RedisStore)(nil)
	_ Validator = (*RedisStore)(nil)

	_ redis.Error = replyError("")

	_ RedisClient = (*redis.Client)(nil)
	_ RedisClient = (*redis.ClusterClient)(nil)
	_ RedisClient = (redis.UniversalClient)(nil)
)
