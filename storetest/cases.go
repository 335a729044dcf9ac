//lint:file-ignore ST1005 a finding begins with the name of the method

package storetest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/seed-4f96e14b/session"
)

const (
	long = time.Hour
	// short is a ttl to wait for. A store may round it up by a second at most.
	short = 1500 * time.Millisecond
	slack = time.Second
)

// The sentences of the contract, as they stand in the documentation of [session.Store]
// and of the optional capabilities.
const (
	ruleLoad       = "Load returns the record under key, or an error that is ErrNotFound."
	ruleCreate     = "Create saves a record under a key that is not in use, for the time ttl."
	ruleCreateUsed = ruleCreate + " If the key is in use it changes nothing and returns ErrConflict."
	ruleSwap       = "CompareAndSwap replaces the record under key by data, for the time ttl, if it is old."
	ruleSwapOther  = ruleSwap + " If it is not, or is gone, CompareAndSwap changes nothing and returns ErrConflict."
	ruleDelete     = "Delete removes the record under key. It is no error if there is none."
	ruleBeing      = "Only Create brings a record into being. CompareAndSwap never does, so a session that has ended stays ended."
	ruleAtomic     = "Each method is atomic: of two calls at once, one is first."
	ruleExpired    = "A record whose ttl has run out is not there, for any method."
	ruleErrors     = "ErrNotFound and ErrConflict say what the store knows. Whatever it does not know (no answer, a refusal, a time-out) is another error."
	ruleAlias      = "The bytes handed in are not kept, and those handed out are the caller's own: copy at the border."
	ruleContext    = "A call that gets a cancelled or expired context does nothing."
	ruleKeys       = "Keys are compared byte by byte; any string of up to 255 bytes is a key."
	ruleData       = "Data may be empty, and of any bytes."
	ruleTTL        = "A ttl that is not positive is an error that changes nothing. A positive one may be rounded up to the store's resolution, a second at most."
	ruleConcurrent = "All methods are safe for concurrent use."
	ruleList       = "Keys goes through the keys of all live records, in no order. A record that is created or deleted meanwhile may be among them or not. No key comes twice."
	ruleListError  = "An error is the last pair that the sequence yields."
	ruleValidate   = "Validate returns nil if the store can be used, and otherwise an error that names the remedy."
	ruleClear      = "Clear deletes all records that are there when it is called."
)

func cases() []testCase {
	return slices.Concat(loadCases, createCases, swapCases, deleteCases, expiryCases, aliasCases,
		contextCases, keyAndDataCases, concurrencyCases, capabilityCases)
}

var loadCases = []testCase{
	{"load of an unknown key", ruleLoad, func(ctx context.Context, s session.Store) error {
		return absent(ctx, s, "k")
	}},
	{"load after create", ruleLoad, func(ctx context.Context, s session.Store) error {
		return first(create(ctx, s, "k", "v"), holds(ctx, s, "k", "v"), holds(ctx, s, "k", "v"))
	}},
	{"load of another key", ruleLoad, func(ctx context.Context, s session.Store) error {
		return first(create(ctx, s, "k", "v"), create(ctx, s, "l", "w"), holds(ctx, s, "k", "v"), holds(ctx, s, "l", "w"), absent(ctx, s, "m"))
	}},
}

var createCases = []testCase{
	{"create on a taken key", ruleCreateUsed, func(ctx context.Context, s session.Store) error {
		return first(create(ctx, s, "k", "v"), conflict("Create on a taken key", s.Create(ctx, "k", []byte("w"), long)))
	}},
	{"create on a taken key changes nothing", ruleCreateUsed, func(ctx context.Context, s session.Store) error {
		if err := create(ctx, s, "k", "v"); err != nil {
			return err
		}
		_ = s.Create(ctx, "k", []byte("w"), long)
		return holds(ctx, s, "k", "v")
	}},
	{"create of the same bytes again", ruleCreateUsed, func(ctx context.Context, s session.Store) error {
		return first(create(ctx, s, "k", "v"), conflict("Create of what is there already", s.Create(ctx, "k", []byte("v"), long)))
	}},
	{"create on a taken key keeps its time", ruleCreateUsed, func(ctx context.Context, s session.Store) error {
		if err := s.Create(ctx, "k", []byte("v"), short); err != nil {
			return fmt.Errorf("Create: %w", err)
		}
		_ = s.Create(ctx, "k", []byte("w"), long)
		time.Sleep(short + slack)
		return absent(ctx, s, "k")
	}},
	{"create after delete", ruleCreate, func(ctx context.Context, s session.Store) error {
		return first(create(ctx, s, "k", "v"), remove(ctx, s, "k"), create(ctx, s, "k", "w"), holds(ctx, s, "k", "w"))
	}},
	{"create after expiry", ruleCreate, func(ctx context.Context, s session.Store) error {
		if err := s.Create(ctx, "k", []byte("v"), short); err != nil {
			return fmt.Errorf("Create: %w", err)
		}
		time.Sleep(short + slack)
		return first(create(ctx, s, "k", "w"), holds(ctx, s, "k", "w"))
	}},
	{"create after swap", ruleCreateUsed, func(ctx context.Context, s session.Store) error {
		return first(create(ctx, s, "k", "v"), swap(ctx, s, "k", "v", "w"), conflict("Create on a swapped key", s.Create(ctx, "k", []byte("x"), long)), holds(ctx, s, "k", "w"))
	}},
}

var swapCases = []testCase{
	{"swap", ruleSwap, func(ctx context.Context, s session.Store) error {
		return first(create(ctx, s, "k", "v"), swap(ctx, s, "k", "v", "w"), holds(ctx, s, "k", "w"))
	}},
	{"swap again and again", ruleSwap, func(ctx context.Context, s session.Store) error {
		err := create(ctx, s, "k", "0")
		for i := range 20 {
			err = first(err, swap(ctx, s, "k", fmt.Sprint(i), fmt.Sprint(i+1)))
		}
		return first(err, holds(ctx, s, "k", "20"))
	}},
	{"swap by the same bytes", ruleSwap, func(ctx context.Context, s session.Store) error {
		err := create(ctx, s, "k", "v")
		for range 50 { // some drivers count a row only if it changes, and the ttl's end does change now and then
			err = first(err, swap(ctx, s, "k", "v", "v"))
		}
		return first(err, holds(ctx, s, "k", "v"))
	}},
	{"swap leaves other keys alone", ruleSwap, func(ctx context.Context, s session.Store) error {
		return first(create(ctx, s, "k", "v"), create(ctx, s, "l", "v"), swap(ctx, s, "k", "v", "w"), holds(ctx, s, "l", "v"))
	}},
	{"swap of other bytes", ruleSwapOther, func(ctx context.Context, s session.Store) error {
		return first(create(ctx, s, "k", "v"), conflict("CompareAndSwap of bytes that are not there", s.CompareAndSwap(ctx, "k", []byte("x"), []byte("w"), long)))
	}},
	{"swap of other bytes changes nothing", ruleSwapOther, func(ctx context.Context, s session.Store) error {
		if err := create(ctx, s, "k", "v"); err != nil {
			return err
		}
		_ = s.CompareAndSwap(ctx, "k", []byte("x"), []byte("w"), long)
		return holds(ctx, s, "k", "v")
	}},
	{"swap of other bytes keeps the time", ruleSwapOther, func(ctx context.Context, s session.Store) error {
		if err := s.Create(ctx, "k", []byte("v"), short); err != nil {
			return fmt.Errorf("Create: %w", err)
		}
		_ = s.CompareAndSwap(ctx, "k", []byte("x"), []byte("w"), long)
		time.Sleep(short + slack)
		return absent(ctx, s, "k")
	}},
	{"swap compares all bytes", ruleSwapOther, func(ctx context.Context, s session.Store) error {
		if err := create(ctx, s, "k", "abcdefgh"); err != nil {
			return err
		}
		for _, old := range []string{"abcdefgX", "Xbcdefgh", "abcdXfgh"} { // of the same length
			if err := s.CompareAndSwap(ctx, "k", []byte(old), []byte("w"), long); !errors.Is(err, session.ErrConflict) {
				return fmt.Errorf("CompareAndSwap of %q where %q is: error %v, want ErrConflict", old, "abcdefgh", err)
			}
		}
		return holds(ctx, s, "k", "abcdefgh")
	}},
	{"swap compares upper and lower case", ruleSwapOther, func(ctx context.Context, s session.Store) error {
		return first(create(ctx, s, "k", "abcd"),
			conflict("CompareAndSwap of the same bytes in upper case", s.CompareAndSwap(ctx, "k", []byte("ABCD"), []byte("w"), long)), holds(ctx, s, "k", "abcd"))
	}},
	{"swap compares the length", ruleSwapOther, func(ctx context.Context, s session.Store) error {
		if err := create(ctx, s, "k", "abcd"); err != nil {
			return err
		}
		for _, old := range []string{"abc", "abcde", "abcd\x00", "", "abcd "} {
			if err := s.CompareAndSwap(ctx, "k", []byte(old), []byte("w"), long); !errors.Is(err, session.ErrConflict) {
				return fmt.Errorf("CompareAndSwap of %q where %q is: error %v, want ErrConflict", old, "abcd", err)
			}
		}
		return holds(ctx, s, "k", "abcd")
	}},
	{"swap compares late bytes of long records", ruleSwapOther, func(ctx context.Context, s session.Store) error {
		record := strings.Repeat("x", 100_000)
		return first(create(ctx, s, "k", record+"a"),
			conflict("CompareAndSwap of a record that differs in its last byte", s.CompareAndSwap(ctx, "k", []byte(record+"b"), []byte("w"), long)))
	}},
	{"swap of an earlier record", ruleSwapOther, func(ctx context.Context, s session.Store) error {
		return first(create(ctx, s, "k", "v"), swap(ctx, s, "k", "v", "w"),
			conflict("CompareAndSwap of what was there before", s.CompareAndSwap(ctx, "k", []byte("v"), []byte("x"), long)), holds(ctx, s, "k", "w"))
	}},
	{"swap of an unknown key", ruleSwapOther, func(ctx context.Context, s session.Store) error {
		return conflict("CompareAndSwap of an unknown key", s.CompareAndSwap(ctx, "k", []byte("v"), []byte("w"), long))
	}},
	{"swap never creates", ruleBeing, func(ctx context.Context, s session.Store) error {
		_ = s.CompareAndSwap(ctx, "k", []byte("v"), []byte("w"), long)
		return absent(ctx, s, "k")
	}},
	{"swap of nothing never creates", ruleBeing, func(ctx context.Context, s session.Store) error {
		for _, old := range [][]byte{nil, {}} {
			if err := conflict("CompareAndSwap of an unknown key and empty bytes", s.CompareAndSwap(ctx, "k", old, []byte("w"), long)); err != nil {
				return err
			}
		}
		return absent(ctx, s, "k")
	}},
	{"swap after delete", ruleBeing, func(ctx context.Context, s session.Store) error {
		return first(create(ctx, s, "k", "v"), remove(ctx, s, "k"),
			conflict("CompareAndSwap after Delete", s.CompareAndSwap(ctx, "k", []byte("v"), []byte("w"), long)), absent(ctx, s, "k"))
	}},
	{"swap after expiry", ruleExpired, func(ctx context.Context, s session.Store) error {
		if err := s.Create(ctx, "k", []byte("v"), short); err != nil {
			return fmt.Errorf("Create: %w", err)
		}
		time.Sleep(short + slack)
		return first(conflict("CompareAndSwap after expiry", s.CompareAndSwap(ctx, "k", []byte("v"), []byte("w"), long)), absent(ctx, s, "k"))
	}},
	{"swap after delete and create", ruleSwapOther, func(ctx context.Context, s session.Store) error {
		return first(create(ctx, s, "k", "v"), remove(ctx, s, "k"), create(ctx, s, "k", "w"),
			conflict("CompareAndSwap of a record that was deleted and created anew", s.CompareAndSwap(ctx, "k", []byte("v"), []byte("x"), long)), holds(ctx, s, "k", "w"))
	}},
}

var deleteCases = []testCase{
	{"delete", ruleDelete, func(ctx context.Context, s session.Store) error {
		return first(create(ctx, s, "k", "v"), remove(ctx, s, "k"), absent(ctx, s, "k"), remove(ctx, s, "k"), absent(ctx, s, "k"))
	}},
	{"delete of an unknown key", ruleDelete, func(ctx context.Context, s session.Store) error {
		return remove(ctx, s, "k")
	}},
	{"delete leaves other keys alone", ruleDelete, func(ctx context.Context, s session.Store) error {
		return first(create(ctx, s, "k", "v"), create(ctx, s, "kk", "w"), create(ctx, s, "", "x"), remove(ctx, s, "k"),
			holds(ctx, s, "kk", "w"), holds(ctx, s, "", "x"))
	}},
	{"delete after swap", ruleDelete, func(ctx context.Context, s session.Store) error {
		return first(create(ctx, s, "k", "v"), swap(ctx, s, "k", "v", "w"), remove(ctx, s, "k"), absent(ctx, s, "k"))
	}},
	{"delete creates nothing", ruleBeing, func(ctx context.Context, s session.Store) error {
		return first(remove(ctx, s, "k"), absent(ctx, s, "k"), create(ctx, s, "k", "v"))
	}},
}

var expiryCases = []testCase{
	{"a record lives as long as its ttl", ruleCreate, func(ctx context.Context, s session.Store) error {
		start := time.Now()
		if err := s.Create(ctx, "k", []byte("v"), short); err != nil {
			return fmt.Errorf("Create: %w", err)
		}
		time.Sleep(short - 10*time.Millisecond)
		err := holds(ctx, s, "k", "v")
		if time.Since(start) >= short {
			return nil // a slow machine, which shows nothing
		}
		return err
	}},
	{"and no longer", ruleExpired, func(ctx context.Context, s session.Store) error {
		if err := s.Create(ctx, "k", []byte("v"), short); err != nil {
			return fmt.Errorf("Create: %w", err)
		}
		time.Sleep(short + slack)
		return absent(ctx, s, "k")
	}},
	{"loading does not prolong a record", ruleExpired, func(ctx context.Context, s session.Store) error {
		if err := s.Create(ctx, "k", []byte("v"), short); err != nil {
			return fmt.Errorf("Create: %w", err)
		}
		for range 5 {
			time.Sleep((short + slack) / 5)
			_, _ = s.Load(ctx, "k")
		}
		return absent(ctx, s, "k")
	}},
	{"swap prolongs a record", ruleSwap, func(ctx context.Context, s session.Store) error {
		if err := s.Create(ctx, "k", []byte("v"), short); err != nil {
			return fmt.Errorf("Create: %w", err)
		}
		if err := swap(ctx, s, "k", "v", "w"); err != nil {
			return err
		}
		time.Sleep(short + slack)
		return holds(ctx, s, "k", "w")
	}},
	{"swap shortens a record", ruleSwap, func(ctx context.Context, s session.Store) error {
		if err := create(ctx, s, "k", "v"); err != nil {
			return err
		}
		if err := s.CompareAndSwap(ctx, "k", []byte("v"), []byte("w"), short); err != nil {
			return fmt.Errorf("CompareAndSwap: %w", err)
		}
		time.Sleep(short + slack)
		return absent(ctx, s, "k")
	}},
	{"a record does not inherit the time of the one before", ruleCreate, func(ctx context.Context, s session.Store) error {
		if err := s.Create(ctx, "k", []byte("v"), short); err != nil {
			return fmt.Errorf("Create: %w", err)
		}
		if err := first(remove(ctx, s, "k"), create(ctx, s, "k", "w")); err != nil {
			return err
		}
		time.Sleep(short + slack)
		return holds(ctx, s, "k", "w")
	}},
	{"the shortest ttl of create", ruleTTL, func(ctx context.Context, s session.Store) error {
		if err := s.Create(ctx, "k", []byte("v"), 1); err != nil {
			return fmt.Errorf("Create with a ttl of 1 ns: error %w, want it rounded up", err)
		}
		time.Sleep(slack + 100*time.Millisecond)
		return absent(ctx, s, "k")
	}},
	{"the shortest ttl of swap", ruleTTL, func(ctx context.Context, s session.Store) error {
		if err := create(ctx, s, "k", "v"); err != nil {
			return err
		}
		if err := s.CompareAndSwap(ctx, "k", []byte("v"), []byte("w"), 1); err != nil {
			return fmt.Errorf("CompareAndSwap with a ttl of 1 ns: error %w, want it rounded up", err)
		}
		time.Sleep(slack + 100*time.Millisecond)
		return absent(ctx, s, "k")
	}},
	{"zero and negative ttl of create", ruleTTL, func(ctx context.Context, s session.Store) error {
		for _, ttl := range []time.Duration{0, -1, -time.Hour, math.MinInt64} {
			if err := refused("Create", ttl, s.Create(ctx, "k", []byte("v"), ttl)); err != nil {
				return err
			}
			if err := absent(ctx, s, "k"); err != nil {
				return err
			}
		}
		return nil
	}},
	{"zero and negative ttl of swap", ruleTTL, func(ctx context.Context, s session.Store) error {
		if err := create(ctx, s, "k", "v"); err != nil {
			return err
		}
		for _, ttl := range []time.Duration{0, -1, -time.Hour, math.MinInt64} {
			if err := refused("CompareAndSwap", ttl, s.CompareAndSwap(ctx, "k", []byte("v"), []byte("w"), ttl)); err != nil {
				return err
			}
			if err := holds(ctx, s, "k", "v"); err != nil {
				return err
			}
		}
		return nil
	}},
	{"huge ttl", ruleTTL, func(ctx context.Context, s session.Store) error {
		for i, ttl := range []time.Duration{10 * 365 * 24 * time.Hour, math.MaxInt64} {
			key := fmt.Sprint(i)
			if err := s.Create(ctx, key, []byte("v"), ttl); err != nil {
				return fmt.Errorf("Create with a ttl of %v: error %w", ttl, err)
			}
			if err := s.CompareAndSwap(ctx, key, []byte("v"), []byte("w"), ttl); err != nil {
				return fmt.Errorf("CompareAndSwap with a ttl of %v: error %w", ttl, err)
			}
			if err := holds(ctx, s, key, "w"); err != nil {
				return err
			}
		}
		return nil
	}},
}

var aliasCases = []testCase{
	{"create copies the data", ruleAlias, func(ctx context.Context, s session.Store) error {
		data := []byte("v")
		if err := s.Create(ctx, "k", data, long); err != nil {
			return fmt.Errorf("Create: %w", err)
		}
		data[0] = 'X'
		return holds(ctx, s, "k", "v")
	}},
	{"swap copies the data", ruleAlias, func(ctx context.Context, s session.Store) error {
		if err := create(ctx, s, "k", "v"); err != nil {
			return err
		}
		data := []byte("w")
		if err := s.CompareAndSwap(ctx, "k", []byte("v"), data, long); err != nil {
			return fmt.Errorf("CompareAndSwap: %w", err)
		}
		data[0] = 'X'
		return holds(ctx, s, "k", "w")
	}},
	{"swap leaves its arguments alone", ruleAlias, func(ctx context.Context, s session.Store) error {
		if err := create(ctx, s, "k", "v"); err != nil {
			return err
		}
		old, data := []byte("v"), []byte("w")
		_ = s.CompareAndSwap(ctx, "k", old, data, long)
		if string(old) != "v" || string(data) != "w" {
			return errors.New("CompareAndSwap changed the caller's bytes")
		}
		return nil
	}},
	{"load hands out a copy", ruleAlias, func(ctx context.Context, s session.Store) error {
		if err := create(ctx, s, "k", "v"); err != nil {
			return err
		}
		data, err := load(ctx, s, "k", "v")
		if err != nil {
			return err
		}
		data[0] = 'X'
		return holds(ctx, s, "k", "v")
	}},
	{"appending to what load hands out", ruleAlias, func(ctx context.Context, s session.Store) error {
		if err := first(create(ctx, s, "k", "v"), create(ctx, s, "l", "w")); err != nil {
			return err
		}
		a, errA := load(ctx, s, "k", "v")
		b, errB := load(ctx, s, "l", "w")
		if err := first(errA, errB); err != nil {
			return err
		}
		_ = append(a, "overwritten"...)
		if string(b) != "w" {
			return errors.New("appending to what one Load returned changes what another did")
		}
		return first(holds(ctx, s, "k", "v"), holds(ctx, s, "l", "w"))
	}},
	{"two loads do not share bytes", ruleAlias, func(ctx context.Context, s session.Store) error {
		if err := create(ctx, s, "k", "v"); err != nil {
			return err
		}
		a, errA := load(ctx, s, "k", "v")
		b, errB := load(ctx, s, "k", "v")
		if err := first(errA, errB); err != nil {
			return err
		}
		a[0] = 'X'
		if string(b) != "v" {
			return errors.New("two Loads returned the same bytes")
		}
		return nil
	}},
}

var contextCases = []testCase{
	{"load with a dead context", ruleContext, func(ctx context.Context, s session.Store) error {
		if err := create(ctx, s, "k", "v"); err != nil {
			return err
		}
		return dead(ctx, func(ctx context.Context) error {
			_, err := s.Load(ctx, "k")
			return fails("Load", ctx, err)
		})
	}},
	{"create with a dead context", ruleContext, func(ctx context.Context, s session.Store) error {
		return first(dead(ctx, func(ctx context.Context) error {
			return fails("Create", ctx, s.Create(ctx, "k", []byte("v"), long))
		}), absent(ctx, s, "k"))
	}},
	{"swap with a dead context", ruleContext, func(ctx context.Context, s session.Store) error {
		return first(create(ctx, s, "k", "v"), dead(ctx, func(ctx context.Context) error {
			return fails("CompareAndSwap", ctx, s.CompareAndSwap(ctx, "k", []byte("v"), []byte("w"), long))
		}), holds(ctx, s, "k", "v"))
	}},
	{"delete with a dead context", ruleContext, func(ctx context.Context, s session.Store) error {
		return first(create(ctx, s, "k", "v"), dead(ctx, func(ctx context.Context) error {
			return fails("Delete", ctx, s.Delete(ctx, "k"))
		}), holds(ctx, s, "k", "v"))
	}},
	{"a failed call says neither not found nor conflict", ruleErrors, func(ctx context.Context, s session.Store) error {
		cancelled, cancel := context.WithCancel(ctx)
		cancel()
		_, err := s.Load(cancelled, "k")
		for method, err := range map[string]error{
			"Load":           err,
			"Create":         s.Create(cancelled, "k", []byte("v"), long),
			"CompareAndSwap": s.CompareAndSwap(cancelled, "k", []byte("v"), []byte("w"), long),
		} {
			if errors.Is(err, session.ErrNotFound) || errors.Is(err, session.ErrConflict) {
				return fmt.Errorf("%s with a cancelled context: error %v", method, err)
			}
		}
		return nil
	}},
}

// dead runs check with a cancelled context, and with an expired one.
func dead(ctx context.Context, check func(context.Context) error) error {
	cancelled, cancel := context.WithCancel(ctx)
	cancel()
	expired, cancel := context.WithDeadline(ctx, time.Now().Add(-time.Second))
	defer cancel()
	return first(check(cancelled), check(expired))
}

func fails(method string, ctx context.Context, err error) error {
	if err == nil {
		return fmt.Errorf("%s with a context that is dead (%v): no error", method, ctx.Err())
	}
	return nil
}

var keyAndDataCases = []testCase{
	{"keys that differ in little", ruleKeys, func(ctx context.Context, s session.Store) error {
		return apart(ctx, s, "a", "a ", " a", "a\t", "a\x00", "a\x00b", "aa", "/a", "a/", "./a", "b/../a", "a/b", "a//b", "a:b", "{a}", "{b}a",
			"%61", "+", "%20", "é", "e\u0301", "1", "01", "1.0")
	}},
	{"keys that differ in case", ruleKeys, func(ctx context.Context, s session.Store) error {
		long := randomKey(1)[:longestKey-1]
		return apart(ctx, s, "a", "A", "ab", "aB", "Ab", "AB", "é", "É", "ß", "ss", "SS", long+"a", long+"A", "a"+long, "A"+long)
	}},
	{"long keys", ruleKeys, func(ctx context.Context, s session.Store) error {
		long := randomKey(1)[:longestKey-1]
		keys := []string{long, long + "a", long + "b", long + " ", long + "\x00", long + "\x01", long + "\xff", long[1:], long[:191]}
		for i := range 10 {
			keys = append(keys, randomKey(2+i))
		}
		return apart(ctx, s, keys...)
	}},
	{"hostile keys", ruleKeys, func(ctx context.Context, s session.Store) error {
		return apart(ctx, s, "", " ", "*", "?", "[a]", "a", "sess:", "..", "../a", "/", "\x00", "a\r\nDEL b", "%00", "%s", "'", `"`, `\`, "\xff\xfe", "\x7f", "nil")
	}},
	{"empty data", ruleData, func(ctx context.Context, s session.Store) error {
		return first(create(ctx, s, "k", ""), holds(ctx, s, "k", ""), swap(ctx, s, "k", "", "v"), holds(ctx, s, "k", "v"), swap(ctx, s, "k", "v", ""), holds(ctx, s, "k", ""))
	}},
	{"nil data", ruleData, func(ctx context.Context, s session.Store) error {
		if err := s.Create(ctx, "k", nil, long); err != nil {
			return fmt.Errorf("Create: %w", err)
		}
		if err := s.CompareAndSwap(ctx, "k", nil, nil, long); err != nil {
			return fmt.Errorf("CompareAndSwap: %w", err)
		}
		return first(holds(ctx, s, "k", ""), conflict("Create on a key with empty data", s.Create(ctx, "k", []byte("w"), long)), holds(ctx, s, "k", ""))
	}},
	{"all bytes", ruleData, func(ctx context.Context, s session.Store) error {
		var b []byte
		for i := range 256 {
			b = append(b, byte(i))
		}
		return first(create(ctx, s, "k", string(b)), holds(ctx, s, "k", string(b)), swap(ctx, s, "k", string(b), string(b)+"\r\n"), holds(ctx, s, "k", string(b)+"\r\n"))
	}},
	{"no text, no number, no JSON", ruleData, func(ctx context.Context, s session.Store) error {
		for i, data := range []string{"\xff\xff", "007", "1e3", `{"a": 1}`, "nil", "\x00"} {
			key := fmt.Sprint(i)
			if err := first(create(ctx, s, key, data), holds(ctx, s, key, data)); err != nil {
				return err
			}
		}
		return nil
	}},
	{"1 MiB", ruleData, func(ctx context.Context, s session.Store) error {
		large := string(bytes.Repeat([]byte("0123456789abcdef"), 1<<16))
		return first(create(ctx, s, "k", large), holds(ctx, s, "k", large), swap(ctx, s, "k", large, large[1:]), holds(ctx, s, "k", large[1:]))
	}},
}

const longestKey = 255

// randomKey returns a key of the greatest length that does not compress, is not text, and
// is the same in each run. (A database that compresses its index accepts a
// repeated letter of any length, and refuses real keys.)
func randomKey(n int) string {
	key := make([]byte, longestKey)
	rand.NewChaCha8([32]byte{byte(n)}).Read(key)
	key[longestKey/2], key[longestKey/2+1] = 0, 0xff
	return string(key)
}

// apart uses all keys side by side.
func apart(ctx context.Context, s session.Store, keys ...string) error {
	for i, key := range keys {
		if err := create(ctx, s, key, fmt.Sprint(i)); err != nil {
			return fmt.Errorf("a key of %d bytes: %w", len(key), err)
		}
	}
	for i, key := range keys {
		if err := first(holds(ctx, s, key, fmt.Sprint(i)), swap(ctx, s, key, fmt.Sprint(i), "w"), holds(ctx, s, key, "w"), remove(ctx, s, key), absent(ctx, s, key)); err != nil {
			return fmt.Errorf("a key of %d bytes, beside others: %w", len(key), err)
		}
	}
	return nil
}

const crowd = 16

var concurrencyCases = []testCase{
	{"one of many creates wins", ruleAtomic, func(ctx context.Context, s session.Store) error {
		for round := range 10 {
			key := fmt.Sprint(round)
			var won atomic.Int32
			err := together(crowd, func(i int) error {
				err := s.Create(ctx, key, fmt.Append(nil, i), long)
				if err == nil {
					won.Add(1)
					return holds(ctx, s, key, fmt.Sprint(i))
				}
				return conflict("Create at once with others", err)
			})
			if err == nil && won.Load() != 1 {
				err = fmt.Errorf("%d of %d Creates at once of one key succeeded", won.Load(), crowd)
			}
			if err != nil {
				return err
			}
		}
		return nil
	}},
	{"one of many swaps wins", ruleAtomic, func(ctx context.Context, s session.Store) error {
		for round := range 10 {
			key := fmt.Sprint(round)
			if err := create(ctx, s, key, "v"); err != nil {
				return err
			}
			var won atomic.Int32
			err := together(crowd, func(i int) error {
				err := s.CompareAndSwap(ctx, key, []byte("v"), fmt.Append(nil, i), long)
				if err == nil {
					won.Add(1)
					return holds(ctx, s, key, fmt.Sprint(i))
				}
				return conflict("CompareAndSwap at once with others", err)
			})
			if err == nil && won.Load() != 1 {
				err = fmt.Errorf("%d of %d CompareAndSwaps at once of one record succeeded", won.Load(), crowd)
			}
			if err != nil {
				return err
			}
		}
		return nil
	}},
	{"a counter by swaps", ruleAtomic, func(ctx context.Context, s session.Store) error {
		if err := create(ctx, s, "k", "0"); err != nil {
			return err
		}
		const each = 10
		err := together(crowd, func(int) error {
			conflicts := 0
			for n := 0; n < each; {
				old, err := s.Load(ctx, "k")
				if err != nil {
					return fmt.Errorf("Load: %w", err)
				}
				var count int
				fmt.Sscan(string(old), &count)
				switch err := s.CompareAndSwap(ctx, "k", old, fmt.Append(nil, count+1), long); {
				case err == nil:
					n++
				case !errors.Is(err, session.ErrConflict):
					return fmt.Errorf("CompareAndSwap: %w", err)
				default:
					if conflicts++; conflicts > crowd*each { // each stands for another's success
						return errors.New("CompareAndSwap conflicts more often than it succeeds elsewhere")
					}
				}
			}
			return nil
		})
		return first(err, holds(ctx, s, "k", fmt.Sprint(crowd*each)))
	}},
	{"swaps race", ruleAtomic, func(ctx context.Context, s session.Store) error {
		if err := create(ctx, s, "k", "0"); err != nil {
			return err
		}
		over := ctx.Value(raceOver{}).(*atomic.Bool)
		swapped := int64(0)
		for round := 0; round == 0 || !over.Load(); round++ {
			n, err := race(ctx, s, "k", over)
			swapped += n
			if err := first(err, holds(ctx, s, "k", fmt.Sprint(swapped))); err != nil {
				return fmt.Errorf("after %d swaps of a counter: %w", swapped, err)
			}
		}
		return nil
	}},
	{"delete against swaps", ruleBeing, func(ctx context.Context, s session.Store) error {
		for round := range 20 {
			key := fmt.Sprint(round)
			if err := create(ctx, s, key, "v"); err != nil {
				return err
			}
			err := together(crowd, func(i int) error {
				if i == 0 {
					return remove(ctx, s, key)
				}
				old, err := s.Load(ctx, key)
				if err == nil {
					err = s.CompareAndSwap(ctx, key, old, fmt.Append(nil, i), long)
				}
				if errors.Is(err, session.ErrNotFound) || errors.Is(err, session.ErrConflict) {
					return nil
				}
				return err
			})
			if err := first(err, absent(ctx, s, key)); err != nil {
				return err
			}
		}
		return nil
	}},
	{"a write and its ttl are one", ruleAtomic, func(ctx context.Context, s session.Store) error {
		var created [crowd / 2]atomic.Bool
		err := together(crowd, func(i int) error {
			key, done := fmt.Sprint(i/2), &created[i/2]
			if i%2 == 0 {
				defer done.Store(true)
				if err := s.Create(ctx, key, []byte("v"), short); err != nil {
					return fmt.Errorf("Create: %w", err)
				}
				return nil
			}
			for { // as soon as the record is there
				last := done.Load()
				err := swap(ctx, s, key, "v", "w")
				if last || !errors.Is(err, session.ErrConflict) {
					return err
				}
				time.Sleep(time.Millisecond)
			}
		})
		if err != nil {
			return err
		}
		time.Sleep(short + slack)
		for i := range created {
			if err := holds(ctx, s, fmt.Sprint(i), "w"); err != nil {
				return fmt.Errorf("after a swap for %v, at once with a create for %v: %w", long, short, err)
			}
		}
		return nil
	}},
	{"many keys at once", ruleConcurrent, func(ctx context.Context, s session.Store) error {
		return together(crowd, func(i int) error {
			for n := range 20 {
				key := fmt.Sprintf("%d-%d", i, n)
				if err := first(create(ctx, s, key, "v"), holds(ctx, s, key, "v"), swap(ctx, s, key, "v", "w"), holds(ctx, s, key, "w"), remove(ctx, s, key), absent(ctx, s, key)); err != nil {
					return err
				}
			}
			return nil
		})
	}},
}

// raceOver is the key under which the context of a case has what ends the race: an
// [atomic.Bool]. It is set from outside, because in a bubble the time does not pass while
// a goroutine runs.
type raceOver struct{}

// race lets goroutines that start at the same moment count up the record under key, each
// a number of times or until the race is over. It returns how many swaps succeeded. A swap
// that is not atomic for a few nanoseconds loses one of them, but only if another goroutine
// happens to be at the same point on another processor. That takes many attempts.
func race(ctx context.Context, s session.Store, key string, over *atomic.Bool) (swapped int64, err error) {
	// As measured: with two, or with a crowd, a torn swap is found later.
	const racers, tries = 4, 200
	var ready, swaps atomic.Int64
	err = together(racers, func(int) error {
		for ready.Add(1); ready.Load() < racers; {
			runtime.Gosched()
		}
		for n := 0; n < tries && (n == 0 || !over.Load()); n++ {
			old, err := s.Load(ctx, key)
			if err != nil {
				return fmt.Errorf("Load: %w", err)
			}
			count, err := strconv.ParseInt(string(old), 10, 64)
			if err != nil {
				return fmt.Errorf("Load: %.20q, want a number", old)
			}
			switch err := s.CompareAndSwap(ctx, key, old, strconv.AppendInt(nil, count+1, 10), long); {
			case err == nil:
				swaps.Add(1)
			case !errors.Is(err, session.ErrConflict):
				return fmt.Errorf("CompareAndSwap: %w", err)
			}
		}
		return nil
	})
	return swaps.Load(), err
}

var capabilityCases = []testCase{
	{"keys of all records", ruleList, listing(func(ctx context.Context, s session.KeyLister) error {
		want := []string{"", "a", "b:c", "{d}", "\xff\x00", randomKey(1)}
		for _, key := range want {
			if err := create(ctx, s, key, "v"); err != nil {
				return err
			}
		}
		return lists(ctx, s, want)
	})},
	{"keys of deleted and expired records", ruleList, listing(func(ctx context.Context, s session.KeyLister) error {
		if err := first(create(ctx, s, "stays", "v"), create(ctx, s, "deleted", "v"), remove(ctx, s, "deleted"), s.Create(ctx, "expired", []byte("v"), short)); err != nil {
			return err
		}
		time.Sleep(short + slack)
		return lists(ctx, s, []string{"stays"})
	})},
	{"many keys, each once", ruleList, listing(func(ctx context.Context, s session.KeyLister) error {
		var want []string
		for i := range 1500 {
			key := fmt.Sprintf("%04d", i)
			want = append(want, key)
			if err := create(ctx, s, key, "v"); err != nil {
				return err
			}
		}
		return lists(ctx, s, want)
	})},
	{"keys, and away", ruleList, listing(func(ctx context.Context, s session.KeyLister) error {
		if err := first(create(ctx, s, "a", "v"), create(ctx, s, "b", "v")); err != nil {
			return err
		}
		calls := 0
		var err error
		s.Keys(ctx)(func(key string, keyErr error) bool {
			calls++
			err = first(err, keyErr, remove(ctx, s, key)) // a call from within the loop
			return false
		})
		if err == nil && calls != 1 {
			err = fmt.Errorf("Keys yields %d pairs to a loop that breaks at the first", calls)
		}
		return err
	})},
	{"keys with a cancelled context", ruleContext + " " + ruleListError, listing(func(ctx context.Context, s session.KeyLister) error {
		if err := first(create(ctx, s, "a", "v"), create(ctx, s, "b", "v")); err != nil {
			return err
		}
		cancelled, cancel := context.WithCancel(ctx)
		cancel()
		var failed error
		for key, err := range s.Keys(cancelled) {
			if failed != nil {
				return fmt.Errorf("Keys goes on after the error %v", failed)
			}
			if failed = err; err == nil {
				return fmt.Errorf("Keys yields the key %q", key)
			}
		}
		return fails("Keys", cancelled, failed)
	})},
	{"validate", ruleValidate, func(_ context.Context, store session.Store) error {
		s, ok := store.(session.Validator)
		if !ok {
			return lack("the store is no session.Validator")
		}
		if err := s.Validate(); err != nil {
			return fmt.Errorf("Validate of a store that is to be used: error %w", err)
		}
		return nil
	}},
	{"clear", ruleClear, func(ctx context.Context, store session.Store) error {
		s, ok := store.(session.Clearer)
		if !ok {
			return lack("the store is no session.Clearer")
		}
		err := s.Clear(ctx)
		if errors.Is(err, errors.ErrUnsupported) {
			return lack(fmt.Sprint("the store cannot clear: ", err))
		}
		return first(err, create(ctx, s, "a", "v"), create(ctx, s, "b", "v"), s.Clear(ctx), absent(ctx, s, "a"), absent(ctx, s, "b"),
			create(ctx, s, "a", "w"), holds(ctx, s, "a", "w"))
	}},
}

func listing(check func(ctx context.Context, s session.KeyLister) error) func(context.Context, session.Store) error {
	return func(ctx context.Context, s session.Store) error {
		lister, ok := s.(session.KeyLister)
		if !ok {
			return lack("the store is no session.KeyLister")
		}
		for _, err := range lister.Keys(ctx) { // of no record
			if errors.Is(err, errors.ErrUnsupported) {
				return lack(fmt.Sprint("the store cannot list its keys: ", err))
			}
		}
		return check(ctx, lister)
	}
}

func lists(ctx context.Context, s session.KeyLister, want []string) error {
	var got []string
	for key, err := range s.Keys(ctx) {
		if err != nil {
			return fmt.Errorf("Keys: %w", err)
		}
		got = append(got, key)
	}
	slices.Sort(got)
	slices.Sort(want)
	if !slices.Equal(got, want) {
		return fmt.Errorf("Keys: %d keys %.100q, want %d keys %.100q", len(got), got, len(want), want)
	}
	return nil
}

// together runs f in n goroutines, and returns one of the errors.
func together(n int, f func(i int) error) error {
	var wg sync.WaitGroup
	errs := make([]error, n)
	for i := range n {
		wg.Go(func() { errs[i] = f(i) })
	}
	wg.Wait()
	return first(errs...)
}

// first returns the first error.
func first(errs ...error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

func create(ctx context.Context, s session.Store, key, data string) error {
	if err := s.Create(ctx, key, []byte(data), long); err != nil {
		return fmt.Errorf("Create of %.20q: error %w", key, err)
	}
	return nil
}

func swap(ctx context.Context, s session.Store, key, old, data string) error {
	if err := s.CompareAndSwap(ctx, key, []byte(old), []byte(data), long); err != nil {
		return fmt.Errorf("CompareAndSwap of %.20q: error %w", key, err)
	}
	return nil
}

func remove(ctx context.Context, s session.Store, key string) error {
	if err := s.Delete(ctx, key); err != nil {
		return fmt.Errorf("Delete of %.20q: error %w", key, err)
	}
	return nil
}

func holds(ctx context.Context, s session.Store, key, want string) error {
	_, err := load(ctx, s, key, want)
	return err
}

func load(ctx context.Context, s session.Store, key, want string) ([]byte, error) {
	data, err := s.Load(ctx, key)
	if err != nil {
		return nil, fmt.Errorf("Load of %.20q: error %w", key, err)
	}
	if string(data) != want {
		return nil, fmt.Errorf("Load of %.20q: %d bytes %.20q, want %d bytes %.20q", key, len(data), data, len(want), want)
	}
	return data, nil
}

func absent(ctx context.Context, s session.Store, key string) error {
	data, err := s.Load(ctx, key)
	if !errors.Is(err, session.ErrNotFound) {
		return fmt.Errorf("Load of %.20q: %d bytes and error %v, want ErrNotFound", key, len(data), err)
	}
	return nil
}

func conflict(what string, err error) error {
	if !errors.Is(err, session.ErrConflict) {
		return fmt.Errorf("%s: error %v, want ErrConflict", what, err)
	}
	return nil
}

func refused(method string, ttl time.Duration, err error) error {
	if err == nil || errors.Is(err, session.ErrConflict) || errors.Is(err, session.ErrNotFound) {
		return fmt.Errorf("%s with a ttl of %v: error %v, want a refusal", method, ttl, err)
	}
	return nil
}
