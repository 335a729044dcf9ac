package wire

import (
	"encoding/binary"
	"slices"
)

// A Writer is the name of a Manager that saves sessions. It is random, and new each time that the
// program starts.
type Writer [8]byte

// A Save is a writer's save of a session. A writer makes one save of a session at a time,
// and each has a larger number than the one before.
type Save struct {
	Writer Writer
	Number uint64
}

// Saves are the last save of each of the last writers, the latest first, as they stand in
// a record. Each has the number of saves that the session had had by then.
type Saves []byte

// SaveSize is how many bytes an element takes: the writer, the number, and the count.
const SaveSize = len(Writer{}) + 8 + 8

// maxWriters is how many writers a record remembers.
const maxWriters = 16

func cutSave(b []byte) (save Save, count uint64) {
	save.Writer = Writer(b[:8])
	save.Number = binary.BigEndian.Uint64(b[8:])
	return save, binary.BigEndian.Uint64(b[16:])
}

// IsValid reports whether these are saves that [Record.Stamp] can have noted.
func (all Saves) IsValid() bool {
	return len(all)%SaveSize == 0 && len(all) <= maxWriters*SaveSize
}

// Count returns how many saves the session has had.
func (all Saves) Count() (count uint64) {
	if len(all) >= SaveSize {
		_, count = cutSave(all)
	}
	return count
}

// Stamp notes in the record which save has made it.
func (r *Record) Stamp(save Save) {
	b := make([]byte, 0, min(len(r.Saves)+SaveSize, maxWriters*SaveSize))
	b = append(b, save.Writer[:]...)
	b = binary.BigEndian.AppendUint64(b, save.Number)
	b = binary.BigEndian.AppendUint64(b, r.Saves.Count()+1)
	for other := range slices.Chunk(r.Saves, SaveSize) {
		if len(b) < maxWriters*SaveSize && Writer(other[:8]) != save.Writer {
			b = append(b, other...)
		}
	}
	r.Saves = b
}

// An Outcome says what became of a save.
type Outcome uint8

const (
	NotMade    Outcome = iota
	Made               // also if others have saved since
	Untellable         // so many have saved since that the record would not show it
)

// Outcome returns what became of a save, if r is the record now. Based is how many saves the session
// had had in the record that the save was based on.
func (r *Record) Outcome(save Save, based uint64) Outcome {
	oldest := uint64(0)
	for b := range slices.Chunk(r.Saves, SaveSize) {
		last, count := cutSave(b)
		switch {
		case last.Writer != save.Writer:
			oldest = count
		case last.Number == save.Number:
			return Made
		case last.Number < save.Number:
			return NotMade
		default: // it has made another since, which is not to be
			return Untellable
		}
	}
	if len(r.Saves) == maxWriters*SaveSize && oldest > based {
		return Untellable
	}
	return NotMade
}
