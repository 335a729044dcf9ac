//lint:file-ignore ST1005 a finding begins with the name of the method

package storetest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
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

// The sentences of the contract.
const (
	ruleLoad       = "Load returns the record under key, or an error that is ErrNotFound."
	ruleCreate     = "Create saves a record under a key that is not in use, for the time ttl."
	ruleCreateUsed = "If the key is in use Create changes nothing and returns ErrConflict."
	ruleSwap       = "CompareAndSwap replaces the record under key by data, for the time ttl, if it is old."
	ruleSwapOther  = "If it is not old, or is gone, CompareAndSwap changes nothing and returns ErrConflict."
	ruleDelete     = "Delete removes the record under key. It is no error if there is none."
	ruleBeing      = "Only Create brings a record into being."
	ruleAtomic     = "Each method is atomic: of two calls at once, one is first."
	ruleExpired    = "A record whose ttl has run out is not there, for any method."
	ruleErrors     = "ErrNotFound and ErrConflict say what the store knows; whatever it does not know is another error."
	ruleAlias      = "The bytes handed in are not kept, and those handed out are the caller's own."
	ruleContext    = "A call that gets a cancelled or expired context does nothing."
	ruleKeys       = "Keys are compared byte by byte; any string is a key."
	ruleData       = "Data may be empty, and of any bytes."
	ruleTTL        = "A ttl that is not positive is an error that changes nothing. A positive one may be rounded up by a second at most."
	ruleConcurrent = "All methods are safe for concurrent use."
	ruleList       = "Keys goes through the keys of all live records; no key comes twice."
	ruleLen        = "Len returns the number of live records."
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
	{"load returns no data with ErrNotFound", ruleLoad, func(ctx context.Context, s session.Store) error {
		data, err := s.Load(ctx, "k")
		if len(data) > 0 {
			return fmt.Errorf("Load of an unknown key: %d bytes with the error %v", len(data), err)
		}
		return nil
	}},
	{"load after create", ruleLoad, func(ctx context.Context, s session.Store) error {
		return first(create(ctx, s, "k", "v"), holds(ctx, s, "k", "v"))
	}},
	{"load twice", ruleLoad, func(ctx context.Context, s session.Store) error {
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
		return first(create(ctx, s, "k", "v"), s.Delete(ctx, "k"), create(ctx, s, "k", "w"), holds(ctx, s, "k", "w"))
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
		return first(create(ctx, s, "k", "v"), swap(ctx, s, "k", "v", "v"), holds(ctx, s, "k", "v"))
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
		for _, old := range []string{"abcdefgX", "Xbcdefgh", "abcdXfgh", "ABCDEFGH"} { // of the same length
			if err := s.CompareAndSwap(ctx, "k", []byte(old), []byte("w"), long); !errors.Is(err, session.ErrConflict) {
				return fmt.Errorf("CompareAndSwap of %q where %q is: error %v, want ErrConflict", old, "abcdefgh", err)
			}
		}
		return holds(ctx, s, "k", "abcdefgh")
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
		return first(create(ctx, s, "k", "v"), s.Delete(ctx, "k"),
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
		return first(create(ctx, s, "k", "v"), s.Delete(ctx, "k"), create(ctx, s, "k", "w"),
			conflict("CompareAndSwap of a record that was deleted and created anew", s.CompareAndSwap(ctx, "k", []byte("v"), []byte("x"), long)), holds(ctx, s, "k", "w"))
	}},
}

var deleteCases = []testCase{
	{"delete", ruleDelete, func(ctx context.Context, s session.Store) error {
		return first(create(ctx, s, "k", "v"), s.Delete(ctx, "k"), absent(ctx, s, "k"))
	}},
	{"delete of an unknown key", ruleDelete, func(ctx context.Context, s session.Store) error {
		if err := s.Delete(ctx, "k"); err != nil {
			return fmt.Errorf("Delete of an unknown key: error %v", err)
		}
		return nil
	}},
	{"delete twice", ruleDelete, func(ctx context.Context, s session.Store) error {
		return first(create(ctx, s, "k", "v"), s.Delete(ctx, "k"), s.Delete(ctx, "k"), absent(ctx, s, "k"))
	}},
	{"delete leaves other keys alone", ruleDelete, func(ctx context.Context, s session.Store) error {
		return first(create(ctx, s, "k", "v"), create(ctx, s, "kk", "w"), create(ctx, s, "", "x"), s.Delete(ctx, "k"),
			holds(ctx, s, "kk", "w"), holds(ctx, s, "", "x"))
	}},
	{"delete after swap", ruleDelete, func(ctx context.Context, s session.Store) error {
		return first(create(ctx, s, "k", "v"), swap(ctx, s, "k", "v", "w"), s.Delete(ctx, "k"), absent(ctx, s, "k"))
	}},
	{"delete creates nothing", ruleBeing, func(ctx context.Context, s session.Store) error {
		return first(s.Delete(ctx, "k"), absent(ctx, s, "k"), create(ctx, s, "k", "v"))
	}},
}

var expiryCases = []testCase{
	{"a record lives as long as its ttl", ruleCreate, func(ctx context.Context, s session.Store) error {
		start := time.Now()
		if err := s.Create(ctx, "k", []byte("v"), short); err != nil {
			return fmt.Errorf("Create: %w", err)
		}
		time.Sleep(short - 300*time.Millisecond)
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
		if err := first(s.Delete(ctx, "k"), create(ctx, s, "k", "w")); err != nil {
			return err
		}
		time.Sleep(short + slack)
		return holds(ctx, s, "k", "w")
	}},
	{"the shortest ttl", ruleTTL, func(ctx context.Context, s session.Store) error {
		if err := s.Create(ctx, "k", []byte("v"), 1); err != nil {
			return fmt.Errorf("Create with a ttl of 1 ns: error %w, want it rounded up", err)
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
		err := first(create(ctx, s, "other", "x"))
		for i, ttl := range []time.Duration{10 * 365 * 24 * time.Hour, math.MaxInt64} {
			key := fmt.Sprint(i)
			if err := s.Create(ctx, key, []byte("v"), ttl); err != nil {
				return fmt.Errorf("Create with a ttl of %v: error %w", ttl, err)
			}
			if err := s.CompareAndSwap(ctx, key, []byte("v"), []byte("w"), ttl); err != nil {
				return fmt.Errorf("CompareAndSwap with a ttl of %v: error %w", ttl, err)
			}
			err = first(err, holds(ctx, s, key, "w"))
		}
		return err
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
		data, err := s.Load(ctx, "k")
		if err != nil {
			return fmt.Errorf("Load: %w", err)
		}
		data[0] = 'X'
		return holds(ctx, s, "k", "v")
	}},
	{"appending to what load hands out", ruleAlias, func(ctx context.Context, s session.Store) error {
		if err := first(create(ctx, s, "k", "v"), create(ctx, s, "l", "w")); err != nil {
			return err
		}
		data, err := s.Load(ctx, "k")
		if err != nil {
			return fmt.Errorf("Load: %w", err)
		}
		_ = append(data, "XXXXXXXX"...)
		return first(holds(ctx, s, "k", "v"), holds(ctx, s, "l", "w"))
	}},
	{"two loads do not share bytes", ruleAlias, func(ctx context.Context, s session.Store) error {
		if err := create(ctx, s, "k", "v"); err != nil {
			return err
		}
		a, errA := s.Load(ctx, "k")
		b, errB := s.Load(ctx, "k")
		if err := first(errA, errB); err != nil {
			return fmt.Errorf("Load: %w", err)
		}
		a[0] = 'X'
		if string(b) != "v" {
			return errors.New("two Loads returned the same bytes")
		}
		return nil
	}},
}

var contextCases = []testCase{
	{"cancelled context", ruleContext, func(ctx context.Context, s session.Store) error {
		cancelled, cancel := context.WithCancel(ctx)
		cancel()
		return nothingDone(ctx, cancelled, s)
	}},
	{"expired context", ruleContext, func(ctx context.Context, s session.Store) error {
		expired, cancel := context.WithDeadline(ctx, time.Now().Add(-time.Second))
		defer cancel()
		return nothingDone(ctx, expired, s)
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

// nothingDone calls all methods with a dead context.
func nothingDone(ctx, dead context.Context, s session.Store) error {
	if err := create(ctx, s, "k", "v"); err != nil {
		return err
	}
	if _, err := s.Load(dead, "k"); err == nil {
		return errors.New("Load: no error")
	}
	if err := s.Create(dead, "new", []byte("v"), long); err == nil {
		return errors.New("Create: no error")
	}
	if err := s.CompareAndSwap(dead, "k", []byte("v"), []byte("w"), long); err == nil {
		return errors.New("CompareAndSwap: no error")
	}
	if err := s.Delete(dead, "k"); err == nil {
		return errors.New("Delete: no error")
	}
	return first(holds(ctx, s, "k", "v"), absent(ctx, s, "new"))
}

var keyAndDataCases = []testCase{
	{"hostile keys", ruleKeys, func(ctx context.Context, s session.Store) error {
		keys := []string{"", " ", "a", "A", "a ", " a", "*", "?", "[a]", "{a}", "{b}a", "a:b", "sess:", "../a", "a/b", "a\x00", "\x00", "a\r\nDEL b",
			"%00", "'", `"`, `\`, "\xff\xfe", "é", "e\u0301", strings.Repeat("k", 10_000)}
		for i, key := range keys {
			if err := create(ctx, s, key, fmt.Sprint(i)); err != nil {
				return err
			}
		}
		for i, key := range keys {
			if err := first(holds(ctx, s, key, fmt.Sprint(i)), swap(ctx, s, key, fmt.Sprint(i), "w"), holds(ctx, s, key, "w"), s.Delete(ctx, key), absent(ctx, s, key)); err != nil {
				return err
			}
		}
		return nil
	}},
	{"empty data", ruleData, func(ctx context.Context, s session.Store) error {
		return first(create(ctx, s, "k", ""), holds(ctx, s, "k", ""), swap(ctx, s, "k", "", "v"), holds(ctx, s, "k", "v"), swap(ctx, s, "k", "v", ""), holds(ctx, s, "k", ""))
	}},
	{"nil data", ruleData, func(ctx context.Context, s session.Store) error {
		if err := s.Create(ctx, "k", nil, long); err != nil {
			return fmt.Errorf("Create: %w", err)
		}
		if err := conflict("Create on a key with empty data", s.Create(ctx, "k", []byte("w"), long)); err != nil {
			return err
		}
		return holds(ctx, s, "k", "")
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

const crowd = 16

var concurrencyCases = []testCase{
	{"one of many creates wins", ruleAtomic, func(ctx context.Context, s session.Store) error {
		for round := range 10 {
			key := fmt.Sprint(round)
			var won atomic.Int32
			err := together(func(i int) error {
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
			err := together(func(i int) error {
				err := s.CompareAndSwap(ctx, key, []byte("v"), fmt.Append(nil, i), long)
				if err == nil {
					won.Add(1)
					return nil
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
		err := together(func(int) error {
			for range each {
				for {
					old, err := s.Load(ctx, "k")
					if err != nil {
						return fmt.Errorf("Load: %w", err)
					}
					var n int
					fmt.Sscan(string(old), &n)
					if err = s.CompareAndSwap(ctx, "k", old, fmt.Append(nil, n+1), long); err == nil {
						break
					} else if !errors.Is(err, session.ErrConflict) {
						return fmt.Errorf("CompareAndSwap: %w", err)
					}
				}
			}
			return nil
		})
		return first(err, holds(ctx, s, "k", fmt.Sprint(crowd*each)))
	}},
	{"delete against swaps", ruleBeing, func(ctx context.Context, s session.Store) error {
		for round := range 20 {
			key := fmt.Sprint(round)
			if err := create(ctx, s, key, "v"); err != nil {
				return err
			}
			err := together(func(i int) error {
				if i == 0 {
					return s.Delete(ctx, key)
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
	{"many keys at once", ruleConcurrent, func(ctx context.Context, s session.Store) error {
		return together(func(i int) error {
			for n := range 20 {
				key := fmt.Sprintf("%d-%d", i, n)
				if err := first(create(ctx, s, key, "v"), holds(ctx, s, key, "v"), swap(ctx, s, key, "v", "w"), holds(ctx, s, key, "w"), s.Delete(ctx, key), absent(ctx, s, key)); err != nil {
					return err
				}
			}
			return nil
		})
	}},
}

var capabilityCases = []testCase{
	{"keys of all records", ruleList, listing(func(ctx context.Context, s session.KeyLister) error {
		want := []string{"", "a", "b:c", "{d}"}
		for _, key := range want {
			if err := create(ctx, s, key, "v"); err != nil {
				return err
			}
		}
		return lists(ctx, s, want)
	})},
	{"keys of deleted and expired records", ruleList, listing(func(ctx context.Context, s session.KeyLister) error {
		if err := first(create(ctx, s, "stays", "v"), create(ctx, s, "deleted", "v"), s.Delete(ctx, "deleted"), s.Create(ctx, "expired", []byte("v"), short)); err != nil {
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
		for key, err := range s.Keys(ctx) {
			if err != nil {
				return err
			}
			return s.Delete(ctx, key) // a break, and a call from within the loop
		}
		return errors.New("Keys yields nothing")
	})},
	{"keys with a cancelled context", ruleContext, listing(func(ctx context.Context, s session.KeyLister) error {
		if err := create(ctx, s, "a", "v"); err != nil {
			return err
		}
		cancelled, cancel := context.WithCancel(ctx)
		cancel()
		for _, err := range s.Keys(cancelled) {
			if err == nil {
				return errors.New("Keys yields a key")
			}
			return nil
		}
		return errors.New("Keys ends without an error")
	})},
	{"len", ruleLen, func(ctx context.Context, store session.Store) error {
		s, ok := store.(session.Counter)
		if !ok {
			return nil
		}
		expect := func(want int) error {
			n, err := s.Len(ctx)
			if n != want || err != nil {
				return fmt.Errorf("Len: %d and error %v, want %d", n, err, want)
			}
			return nil
		}
		if err := first(expect(0), create(ctx, s, "a", "v"), create(ctx, s, "b", "v"), expect(2), s.Delete(ctx, "a"), expect(1),
			swap(ctx, s, "b", "v", "w"), expect(1), s.Create(ctx, "c", []byte("v"), short), expect(2)); err != nil {
			return err
		}
		time.Sleep(short + slack)
		return expect(1)
	}},
	{"clear", ruleClear, func(ctx context.Context, store session.Store) error {
		s, ok := store.(session.Clearer)
		if !ok {
			return nil
		}
		return first(s.Clear(ctx), create(ctx, s, "a", "v"), create(ctx, s, "b", "v"), s.Clear(ctx), absent(ctx, s, "a"), absent(ctx, s, "b"),
			create(ctx, s, "a", "w"), holds(ctx, s, "a", "w"))
	}},
}

func listing(check func(ctx context.Context, s session.KeyLister) error) func(context.Context, session.Store) error {
	return func(ctx context.Context, s session.Store) error {
		if lister, ok := s.(session.KeyLister); ok {
			return check(ctx, lister)
		}
		return nil
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
	if !slices.Equal(got, want) {
		return fmt.Errorf("Keys: %d keys %.100q, want %d keys %.100q", len(got), got, len(want), want)
	}
	return nil
}

// together runs f in a crowd of goroutines, and returns one of the errors.
func together(f func(i int) error) error {
	var wg sync.WaitGroup
	errs := make([]error, crowd)
	for i := range crowd {
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

func holds(ctx context.Context, s session.Store, key, want string) error {
	data, err := s.Load(ctx, key)
	if err != nil {
		return fmt.Errorf("Load of %.20q: error %w", key, err)
	}
	if string(data) != want {
		return fmt.Errorf("Load of %.20q: %d bytes %.20q, want %d bytes %.20q", key, len(data), data, len(want), want)
	}
	return nil
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
