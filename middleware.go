package session

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net"
	"net/http"
)

// Handler returns next with sessions. It puts a [Session] into the context of each request, and
// saves it before the response leaves. Wrapping a handler twice with the same manager changes
// nothing.
//
// The ResponseWriter that next gets supports http.NewResponseController, and is an
// io.ReaderFrom, an io.StringWriter, an http.Flusher and an http.Hijacker. It saves the session
// before it flushes or hijacks. A handler that hijacks the connection writes the header itself,
// and must not forget the Set-Cookie in w.Header(). A handler that bypasses this ResponseWriter,
// and writes to the one around it, loses the cookie, and the error if the session cannot be saved.
//
// Middleware that may answer in place of next, such as [http.TimeoutHandler], belongs inside. If
// it is outside and drops a response, it drops the cookie of a new or renewed session too, and the
// session is saved all the same.
func (m *Manager) Handler(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		outer, _ := FromContext(r.Context())
		if s, ok := outer.of(m); ok && s.isOpen() {
			next.ServeHTTP(w, r)
			return
		}
		m.mustNotShareName(outer)
		var exchange struct { // in one piece of memory, because every request needs it
			session Session
			state   state
			writer  responseWriter
		}
		s, rw := &exchange.session, &exchange.writer
		s.state = &exchange.state
		s.manager, s.outer, s.request = m, outer, r
		s.inner = r.WithContext(context.WithValue(r.Context(), contextKey{}, s))
		rw.ResponseWriter, rw.session = w, s
		if header := w.Header(); len(header) > 0 {
			rw.before = header.Clone() // for a response that replaces the handler's
		}
		returned := false
		defer rw.end(&returned)
		// A handler that changes something must not take an outage for "not logged in".
		if m.loadsAlways() || !isSafe(r.Method) {
			if err := s.preload(); err != nil {
				rw.fail(err)
				return
			}
		}
		next.ServeHTTP(rw, s.inner)
		rw.finish()
		returned = true
	})
}

// mustNotShareName panics if a manager around m has the same cookie name.
func (m *Manager) mustNotShareName(outer *Session) {
	for s := outer; s != nil; s = s.outer {
		if s.manager.cookieName == m.cookieName && s.isOpen() {
			panic(fmt.Sprintf("session: two managers around one handler have the cookie name %q, and would take each other's cookies; use one Manager for both, or give one of them another Cookie.Name", m.cookieName))
		}
	}
}

func (s *Session) isOpen() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.reply.stage != closed
}

// preload loads the session before the handler runs.
func (s *Session) preload() error {
	s.mu.Lock()
	defer s.unlock()
	s.load()
	return s.err
}

// isSafe reports whether the method is a safe one of RFC 9110 §9.2.1.
func isSafe(method string) bool {
	switch method {
	case "", http.MethodGet, http.MethodHead, http.MethodOptions, http.MethodTrace:
		return true
	}
	return false
}

// A responseWriter commits the session before the first byte of the response leaves, whichever
// method sends it. Methods that send nothing, such as those for deadlines, are left to the
// ResponseWriter around it, by Unwrap.
type responseWriter struct {
	http.ResponseWriter
	session *Session
	before  http.Header // what other middleware had set when the handler began
	fate    fate
	err     error       // why the response is replaced or cut
	answer  http.Header // of the response that replaces the handler's
}

// A fate is what becomes of the handler's response.
type fate uint8

const (
	undecided  fate = iota // the session is not committed
	passes                 // the session is saved, and what the handler writes is sent
	apologizes             // the session could not be saved, and the handler itself answers with an error
	replaced               // the session could not be saved, and we have answered with an error
	hijacked               // the handler has the connection
	cut                    // the response must not look whole
)

// Unwrap is for http.ResponseController.
func (w *responseWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// Header returns the header of the response. After a failed save it returns one that is not sent.
func (w *responseWriter) Header() http.Header {
	if w.err != nil {
		return make(http.Header)
	}
	return w.ResponseWriter.Header()
}

// Format implements [fmt.Formatter]. No verb prints the session or the request.
func (w *responseWriter) Format(f fmt.State, _ rune) { fmt.Fprint(f, "session.responseWriter") }

// WriteHeader commits the session, but not for an informational status: that is sent before the
// response. 101 is the response.
func (w *responseWriter) WriteHeader(status int) {
	informational := status < 200 && status != http.StatusSwitchingProtocols
	if informational && w.err == nil || w.commit(status) == nil {
		w.ResponseWriter.WriteHeader(status)
	}
}

func (w *responseWriter) Write(b []byte) (int, error) {
	if err := w.commit(http.StatusOK); err != nil {
		return 0, err
	}
	return w.ResponseWriter.Write(b)
}

func (w *responseWriter) WriteString(s string) (int, error) {
	if err := w.commit(http.StatusOK); err != nil {
		return 0, err
	}
	return io.WriteString(w.ResponseWriter, s)
}

// ReadFrom lets io.Copy use sendfile where the server can.
func (w *responseWriter) ReadFrom(r io.Reader) (int64, error) {
	if err := w.commit(http.StatusOK); err != nil {
		return 0, err
	}
	n, err := io.Copy(w.ResponseWriter, r)
	if w.session.lookedLate.Load() { // r did
		if w.vary(); w.err != nil {
			return n, w.err
		}
	}
	return n, err
}

// FlushError is what http.ResponseController calls.
func (w *responseWriter) FlushError() error {
	if err := w.commit(http.StatusOK); err != nil {
		return err
	}
	return http.NewResponseController(w.ResponseWriter).Flush()
}

// Flush implements http.Flusher.
func (w *responseWriter) Flush() { _ = w.FlushError() }

// Hijack implements http.Hijacker.
func (w *responseWriter) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	if err := w.commit(http.StatusSwitchingProtocols); err != nil {
		return nil, nil, err
	}
	conn, rw, err := http.NewResponseController(w.ResponseWriter).Hijack()
	if err == nil {
		w.fate = hijacked
	}
	return conn, rw, err
}

// commit saves the session, once. If that fails it answers with an error, unless the handler is
// about to answer with one itself.
func (w *responseWriter) commit(status int) error {
	if w.fate != undecided {
		if w.fate == passes && w.session.lookedLate.Load() {
			w.vary()
		}
		return w.err
	}
	err := w.session.commit() // if it panics, the fate is undecided: somebody may recover, and answer
	switch {
	case err == nil:
		w.fate = passes
	case status < http.StatusInternalServerError:
		w.fail(err)
		return err
	default:
		w.fate = apologizes
		w.log("session: request failed; the handler has answered it with an error", err)
	}
	w.session.header(w.Header())
	return nil
}

// vary is called when the handler writes on after a first look that came too late for Vary:
// Cookie. It logs that, and cuts off a response that a shared cache may give to others.
func (w *responseWriter) vary() {
	w.session.lookedLate.Store(false)
	header := w.Header()
	if variesByCookie(header) {
		return
	}
	if !isForSharedCaches(header) {
		w.say(slog.LevelWarn, "session: the handler looked at its session only after the first byte, so the response has no Vary: Cookie; look before the first byte", nil)
		return
	}
	w.cutOff(fmt.Errorf("the handler looked at its session only after the first byte of a response that shared caches may give to others; look before, or send Cache-Control: private: %w", ErrHeaderSent))
}

// cutOff lets nothing more of the response leave.
func (w *responseWriter) cutOff(err error) {
	w.log("session: request failed after the header was sent; the response is cut off", err)
	if w.fate != hijacked {
		w.fate, w.err = cut, err
	}
}

// finish commits if the handler has written nothing, and saves what has changed after the first
// byte. If that fails, the response is cut off, so that the client does not take it for whole.
func (w *responseWriter) finish() {
	switch {
	case w.fate != undecided:
	case isWritten(w.ResponseWriter):
		w.fate = passes
		w.session.miss()
		w.say(slog.LevelError, "session: the response was written around the ResponseWriter of Manager.Handler, and has neither cookie nor Vary; pass that ResponseWriter on, not only the request", nil)
	default:
		w.commit(http.StatusOK)
	}
	if w.fate == replaced || w.fate == apologizes {
		return
	}
	if err := w.session.finish(); err != nil {
		w.cutOff(err)
	}
	if w.fate == cut { // net/http then closes the connection, or resets the stream
		panic(http.ErrAbortHandler)
	}
}

// end is deferred by Handler. It ends the session's request, also after a panic; what was not
// saved by then is dropped.
func (w *responseWriter) end(returned *bool) {
	s := w.session
	s.close()
	switch {
	case w.fate == undecided && !*returned:
		s.header(w.Header()) // somebody outside may recover, and answer: what was saved has its cookie
	case w.fate == replaced:
		w.restoreAnswer()
		// A handler may panic with ErrAbortHandler to abort its response. Ours is whole.
		if p := recover(); p != nil && p != http.ErrAbortHandler {
			panic(p)
		}
	}
	if s.request.MultipartForm == nil { // the server removes the files of this request, and not of inner
		s.request.MultipartForm = s.inner.MultipartForm
	}
}

// restoreAnswer drops what the handler has written into a header map that it kept after we
// answered. Somebody outside may send that map later: a buffer, an [http.TimeoutHandler], or the
// server as trailers.
func (w *responseWriter) restoreAnswer() {
	header := w.ResponseWriter.Header()
	clear(header)
	maps.Copy(header, w.answer)
}

// isWritten reports whether the header has left through w. Only some writers can tell, such as
// those of gin and negroni.
func isWritten(w http.ResponseWriter) bool {
	for {
		switch known := w.(type) {
		case interface{ Written() bool }:
			return known.Written()
		case interface{ Unwrap() http.ResponseWriter }:
			w = known.Unwrap()
		default:
			return false
		}
	}
}

// fail drops the handler's response, and answers with the error.
func (w *responseWriter) fail(err error) {
	w.fate, w.err = replaced, err
	w.log("session: request failed", err)
	// The handler's header would describe a response that is not sent. What stands outside, such
	// as a middleware that sets security headers, had set its own before.
	header := w.ResponseWriter.Header()
	clear(header)
	maps.Copy(header, w.before)
	w.session.header(header)
	header.Set("Cache-Control", "no-store")
	defer func() { w.answer = header.Clone() }()

	reply := &errorWriter{ResponseWriter: w.ResponseWriter, status: http.StatusInternalServerError}
	if errors.Is(err, ErrUnavailable) || errors.Is(err, ErrRenewed) {
		reply.status = http.StatusServiceUnavailable
	}
	defer reply.writeStatus() // also if the ErrorHandler panics
	if handler := w.session.manager.options.ErrorHandler; handler != nil {
		handler(reply, w.session.inner, err)
	} else {
		http.Error(reply, http.StatusText(reply.status), reply.status)
	}
}

func (w *responseWriter) log(text string, err error) { w.say(slog.LevelError, text, err) }

func (w *responseWriter) say(level slog.Level, text string, err error) {
	s := w.session
	s.mu.Lock()
	defer s.unlock()
	s.say(level, text, err, slog.String("method", s.inner.Method))
}

// An errorWriter is what the ErrorHandler writes to. It sends status if the ErrorHandler sends
// none.
type errorWriter struct {
	http.ResponseWriter
	status int
	sent   bool
}

func (w *errorWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }

func (w *errorWriter) WriteHeader(status int) {
	w.sent = w.sent || status >= 200
	w.ResponseWriter.WriteHeader(status)
}

func (w *errorWriter) Write(b []byte) (int, error) {
	w.writeStatus()
	return w.ResponseWriter.Write(b)
}

func (w *errorWriter) FlushError() error {
	w.writeStatus()
	return http.NewResponseController(w.ResponseWriter).Flush()
}

func (w *errorWriter) writeStatus() {
	if !w.sent {
		w.WriteHeader(w.status)
	}
}
