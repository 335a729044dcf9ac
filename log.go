package session

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"

	"github.com/seed-4f96e14b/session/internal/wire"
)

// log writes a line that no request can cause again and again.
func (m *Manager) log(ctx context.Context, level slog.Level, text string, attrs ...slog.Attr) {
	logger := m.options.Logger
	if logger == nil {
		logger = slog.Default()
	}
	logger.LogAttrs(ctx, level, text, attrs...)
}

// A logLine is a line that a request has to log.
type logLine struct {
	level slog.Level
	text  string
	err   error // nil if it is about none
	attrs []slog.Attr
	more  int // as many more like it
}

// A lineKind is what lines have in common if one of them in a minute is enough.
type lineKind struct {
	level   slog.Level
	text    string
	err     error // the first of clientErrors that it is, or nil
	pattern string
}

// clientErrors are the errors that a client can cause. Each makes a kind of line of its own. Some of
// them are also an ErrUnavailable.
var clientErrors = []error{
	ErrTooLarge, ErrEncode, ErrRenewed, ErrHeaderSent, ErrClosed, ErrUnreadable, ErrFull, wire.ErrContended, wire.ErrNewerFormat,
}

// kindOf returns the kind of a line, and reports whether clients can cause it. They cannot cause a
// store to fail.
func kindOf(line logLine, pattern string) (kind lineKind, byClients bool) {
	kind = lineKind{level: line.level, text: line.text, pattern: pattern}
	for _, err := range clientErrors {
		if errors.Is(line.err, err) {
			kind.err = err
			return kind, true
		}
	}
	return kind, !errors.Is(line.err, ErrUnavailable)
}

// logLine writes a line of a request. If clients can cause it, and there was one of its kind within
// the last minute, the line is only counted.
func (m *Manager) logLine(ctx context.Context, pattern string, line logLine) {
	kind, byClients := kindOf(line, pattern)
	if byClients && !m.lines.admit(kind, line.more, func(more int) { m.logMore(kind, more) }) {
		return
	}
	var attrs []slog.Attr
	if line.err != nil {
		attrs = append(attrs, slog.Any("err", line.err))
	}
	m.log(ctx, line.level, line.text, appendPattern(append(attrs, line.attrs...), pattern)...)
}

// logMore writes one line for the lines of a kind that were only counted.
func (m *Manager) logMore(kind lineKind, more int) {
	attrs := []slog.Attr{slog.Int("more", more)}
	if kind.err != nil {
		attrs = append(attrs, slog.Any("err", kind.err))
	}
	m.log(context.Background(), kind.level, kind.text, appendPattern(attrs, kind.pattern)...)
}

// appendPattern adds the pattern of the handler. It does not add the path, which may hold secrets.
func appendPattern(attrs []slog.Attr, pattern string) []slog.Attr {
	if pattern == "" {
		return attrs
	}
	return append(attrs, slog.String("pattern", pattern))
}

// LogLines let one line of each kind through in a minute, and count the rest. The zero value is
// ready for use, by many goroutines at once.
type logLines struct {
	mu    sync.Mutex
	kinds map[lineKind]*logMinute
	keys  map[[2]string]struct{} // of which a value of another type was logged, with that type
}

// A logMinute begins with a line that was let through.
type logMinute struct {
	ends    time.Time
	leftOut int
}

const (
	logInterval  = time.Minute
	maxLineKinds = 1000 // a router may make a pattern of each path; the rest is of no pattern
)

// admit reports whether a line is the first of its kind within a minute. Otherwise it counts the
// line, and also the further ones that the line stands for. When the minute is over, it calls tell
// with the count, which begins the next minute.
func (l *logLines) admit(kind lineKind, further int, tell func(more int)) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := time.Now()
	if len(l.kinds) >= maxLineKinds && l.kinds[kind] == nil {
		l.forget(now)
	}
	if len(l.kinds) >= maxLineKinds && l.kinds[kind] == nil {
		kind.pattern = ""
	}
	minute := l.kinds[kind]
	isFirst := minute == nil || !now.Before(minute.ends)
	if isFirst {
		if l.kinds == nil {
			l.kinds = make(map[lineKind]*logMinute)
		}
		minute = &logMinute{ends: now.Add(logInterval)}
		l.kinds[kind] = minute
	} else {
		further++
	}
	if further > 0 && minute.leftOut == 0 {
		time.AfterFunc(minute.ends.Sub(now), func() { l.count(minute, tell) })
	}
	minute.leftOut += further
	return isFirst
}

// isNew reports whether nothing was logged yet about the key with that type.
func (l *logLines) isNew(key, typ string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	name := [2]string{key, typ}
	if _, known := l.keys[name]; known || len(l.keys) >= maxLineKinds {
		return false
	}
	if l.keys == nil {
		l.keys = make(map[[2]string]struct{})
	}
	l.keys[name] = struct{}{}
	return true
}

// count tells how many lines a minute has left out. That is the one line of the next minute.
func (l *logLines) count(minute *logMinute, tell func(more int)) {
	l.mu.Lock()
	more := minute.leftOut
	minute.leftOut, minute.ends = 0, time.Now().Add(logInterval)
	l.mu.Unlock()
	tell(more)
}

// forget makes room by dropping the kinds whose minute is over.
func (l *logLines) forget(now time.Time) {
	for kind, minute := range l.kinds {
		if !now.Before(minute.ends) && minute.leftOut == 0 {
			delete(l.kinds, kind)
		}
	}
}
