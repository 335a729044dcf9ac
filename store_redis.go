package session

import (
	"context"
	"crypto/sha1"
	"encoding/hex"
	"errors"
	"fmt"
	"iter"
	"strings"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"
)

// A RedisStore keeps sessions in Redis 6.2 or newer, or in a server that speaks
// its protocol and runs Lua scripts. Every key has a time to live; one record is
// one string under one key, and each call is one command on that key, so that it
// works on a Cluster and behind Sentinel.
//
// Promises about sessions hold as far as Redis keeps what it acknowledged.
// Replication is asynchronous: a failover may lose the last writes, and with
// them a logout. [Options.AbsoluteTimeout] bounds what such a session is good for.
//
// A RedisStore is safe for concurrent use. Its fields must not be changed after
// the first use.
type RedisStore struct {
	// Client is any client of go-redis v9: [redis.NewClient],
	// [redis.NewFailoverClient] (Sentinel), [redis.NewClusterClient],
	// [redis.NewRing], or one that pipelines by itself or caches. It must read
	// from the primary. Whoever made it closes it. Nil is an error of [New].
	Client RedisClient

	// Prefix stands before each key. Empty means "sess:", as with connect-redis.
	// Two managers that share a Redis database each need their own, none of which
	// begins with another: Clear deletes every key that begins with the prefix.
	Prefix string
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
	if s.Prefix == "" {
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
	switch {
	case errors.Is(err, redis.Nil):
		return nil, ErrNotFound
	case redis.HasErrorPrefix(err, "WRONGTYPE"):
		return nil, fmt.Errorf("%w: the Redis key holds another type than a string", ErrUnreadable)
	case err != nil:
		return nil, err
	}
	return []byte(val), nil // not StringCmd.Bytes, which may alias a client-side cache
}

// Create implements [Store] with SET NX PX.
func (s *RedisStore) Create(ctx context.Context, key string, data []byte, ttl time.Duration) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if ttl <= 0 {
		return errTTL
	}
	created, err := s.Client.SetNX(ctx, s.key(key), data, wholeMilliseconds(ttl)).Result()
	if err != nil {
		return err
	}
	if !created {
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
	swapped, err := s.Client.EvalSha(ctx, swapScriptSHA, keys, args...).Int()
	if errors.Is(err, redis.ErrNoScript) || redis.HasErrorPrefix(err, "NOSCRIPT") {
		swapped, err = s.Client.Eval(ctx, swapScript, keys, args...).Int()
	}
	switch {
	case swapped == 0 && err == nil || redis.HasErrorPrefix(err, "WRONGTYPE"):
		return ErrConflict
	default:
		return err
	}
}

// Delete implements [Store] with DEL.
func (s *RedisStore) Delete(ctx context.Context, key string) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	return s.Client.Del(ctx, s.key(key)).Err()
}

const redisScanCount = 1000

// Keys implements [KeyLister] with SCAN on every primary. It returns
// [errors.ErrUnsupported] for a client that is none of [redis.Client],
// [redis.ClusterClient] and [redis.Ring].
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

// Len implements [Counter] with SCAN; see [RedisStore.Keys].
func (s *RedisStore) Len(ctx context.Context) (int, error) {
	n := 0
	for _, err := range s.Keys(ctx) {
		if err != nil {
			return 0, err
		}
		n++
	}
	return n, nil
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

// scan calls yield with each key below the prefix, on one node after the other,
// until it returns false.
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
func (s *RedisStore) nodes(ctx context.Context) ([]*redis.Client, error) {
	var mu sync.Mutex
	var nodes []*redis.Client
	add := func(_ context.Context, node *redis.Client) error {
		mu.Lock()
		defer mu.Unlock()
		nodes = append(nodes, node)
		return nil
	}
	switch c := s.Client.(type) {
	case *redis.Client:
		return []*redis.Client{c}, nil
	case *redis.ClusterClient:
		err := c.ForEachMaster(ctx, add)
		return nodes, err
	case *redis.Ring:
		err := c.ForEachShard(ctx, add) // passes over shards that are down
		if all := len(c.Options().Addrs); err == nil && len(nodes) < all {
			err = fmt.Errorf("%d of the ring's %d shards are down", all-len(nodes), all)
		}
		return nodes, err
	}
	return nil, fmt.Errorf("session: cannot list the keys of a %T: %w", s.Client, errors.ErrUnsupported)
}

var (
	_ KeyLister = (*RedisStore)(nil)
	_ Counter   = (*RedisStore)(nil)
	_ Clearer   = (*RedisStore)(nil)

	_ RedisClient = (*redis.Client)(nil)
	_ RedisClient = (*redis.ClusterClient)(nil)
	_ RedisClient = (*redis.Ring)(nil)
	_ RedisClient = (*redis.AutoPipeliner)(nil)
	_ RedisClient = (redis.UniversalClient)(nil)
)
