package wire

import (
	"crypto/subtle"
	"encoding/binary"
	"slices"
	"time"
)

// A ReplacedSecret was the session's secret before a renewal.
type ReplacedSecret struct {
	Digest Digest

	// Until is when the record forgets the secret, in Unix milliseconds. From then on, its
	// cookie is unknown.
	Until int64

	// Opens says that until then the secret opens the session as the current one does. If
	// it does not, the secret is remembered for requests that were under way when it became
	// worthless: to them, "not logged in" would be a wrong answer.
	Opens bool
}

// ReplacedSecrets are a list of [ReplacedSecret], the latest last, as it stands in a record.
type ReplacedSecrets []byte

// ReplacedSize is how many bytes an element takes: the digest, and then the time, with
// Opens in its lowest bit.
const ReplacedSize = len(Digest{}) + 8

// All returns the elements. It is nil for most records.
func (all ReplacedSecrets) All() (list []ReplacedSecret) {
	for b := range slices.Chunk(all, ReplacedSize) {
		n := binary.BigEndian.Uint64(b[len(Digest{}):])
		list = append(list, ReplacedSecret{Digest(b[:len(Digest{})]), int64(n >> 1), n&1 != 0})
	}
	return list
}

// NewReplacedSecrets returns the list of the elements.
func NewReplacedSecrets(list ...ReplacedSecret) (all ReplacedSecrets) {
	for _, r := range list {
		n := uint64(r.Until) << 1
		if r.Opens {
			n |= 1
		}
		all = binary.BigEndian.AppendUint64(append(all, r.Digest[:]...), n)
	}
	return all
}

// A Standing is what a secret is worth.
type Standing uint8

const (
	Unknown   Standing = iota // it is not the session's, or is no longer known
	Current                   // it opens the session
	InGrace                   // a renewal has replaced it, and it still opens the session
	Worthless                 // a renewal has just made it worthless
)

// Standing returns what the secret with the digest d is worth now. It takes as long for
// a secret that is nearly right as for any other.
func (r *Record) Standing(d Digest, now time.Time) Standing {
	standing := Unknown
	if subtle.ConstantTimeCompare(r.Secret[:], d[:]) == 1 {
		standing = Current
	}
	for _, replaced := range r.Replaced.All() {
		same := subtle.ConstantTimeCompare(replaced.Digest[:], d[:]) == 1
		if !same || standing == Current || now.UnixMilli() >= replaced.Until {
			continue
		}
		standing = Worthless
		if replaced.Opens {
			standing = InGrace
		}
	}
	return standing
}

// Overlap is for how long a worthless secret is remembered.
const Overlap = time.Minute

// maxReplaced bounds how many secrets that open it a record remembers, and how many that
// do not.
const maxReplaced = 64

// Renew makes next the session's secret. The one before opens the session for the time
// grace more. With a grace of 0, that one and all others become worthless at once. Renew
// reports whether it did this: if too many secrets open the record, it keeps the one that it has.
func (r *Record) Renew(next Digest, now time.Time, grace time.Duration) bool {
	replaced := slices.DeleteFunc(r.Replaced.All(), func(old ReplacedSecret) bool {
		return old.Until <= now.UnixMilli()
	})
	open := 0
	for _, old := range replaced {
		if old.Opens {
			open++
		}
	}
	switch {
	case grace == 0:
		until := now.Add(Overlap).UnixMilli()
		for i, old := range replaced {
			if old.Opens {
				replaced[i] = ReplacedSecret{old.Digest, until, false}
			}
		}
		replaced = append(replaced, ReplacedSecret{r.Secret, until, false})
		replaced = replaced[max(len(replaced)-maxReplaced, 0):]
		r.Resets++
	case open == maxReplaced:
		return false
	default:
		replaced = append(replaced, ReplacedSecret{r.Secret, now.Add(grace).UnixMilli(), true})
	}
	r.Replaced, r.Secret = NewReplacedSecrets(replaced...), next
	return true
}
