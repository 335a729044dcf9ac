package session_test

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"html/template"
	"io"
	"log"
	"maps"
	"mime"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/seed-4f96e14b/session"
	"github.com/seed-4f96e14b/session/internal/testing/redistest"
)

// A shape is one way to write a response. The same shape also runs without a session, and
// what the client gets must be the same but for what the session adds.
type shape struct {
	request         func(r *http.Request) // a GET, if nil
	outside, inside func(http.Handler) http.Handler
	handle          func(w http.ResponseWriter, r *http.Request, use func()) // use does something with the session
	ends            ending
	leaves          bool // the client, when the handler has begun
	only1           bool // HTTP/2 has no such thing
}

// An ending is what becomes of a request.
type ending int

const (
	answered ending = iota // the client has the response that the handler wrote
	dropped                // the handler panicked before its first byte: nothing is saved
	cutOff                 // saved, and the response is not whole
	unseen                 // saved, and the client has no response, or another's
)

const text = "The quick brown fox jumps over the lazy dog.\n"

var shapes = map[string]shape{
	"nothing":       {handle: func(w http.ResponseWriter, r *http.Request, use func()) { use() }},
	"WriteHeader":   wrote(func(w http.ResponseWriter) { w.WriteHeader(http.StatusCreated) }),
	"Write":         wrote(func(w http.ResponseWriter) { w.Write([]byte(text)) }),
	"Write nothing": wrote(func(w http.ResponseWriter) { w.Write(nil) }),
	"Write much":    wrote(func(w http.ResponseWriter) { w.Write(bytes.Repeat([]byte(text), 3000)) }),
	"Write often": wrote(func(w http.ResponseWriter) {
		for range 3000 {
			w.Write([]byte(text))
		}
	}),
	"WriteString": wrote(func(w http.ResponseWriter) { io.WriteString(w, text) }),
	"Fprintf":     wrote(func(w http.ResponseWriter) { fmt.Fprintf(w, "<p>%s", text) }),
	"a template":  wrote(func(w http.ResponseWriter) { template.Must(template.New("").Parse("<p>{{.}}")).Execute(w, text) }),
	"JSON": wrote(func(w http.ResponseWriter) {
		w.Header().Set("Content-Type", "application/json")
		json.NewEncoder(w).Encode(text)
	}),
	"Content-Length": wrote(func(w http.ResponseWriter) {
		w.Header().Set("Content-Length", fmt.Sprint(len(text)))
		io.WriteString(w, text)
	}),
	"io.Copy":  wrote(func(w http.ResponseWriter) { io.Copy(w, strings.NewReader(text)) }),
	"ReadFrom": {only1: true, handle: before(func(w http.ResponseWriter, r *http.Request) { w.(io.ReaderFrom).ReadFrom(strings.NewReader(text)) })},
	"io.Copy of a file": {handle: func(w http.ResponseWriter, r *http.Request, use func()) {
		use()
		f, err := os.Open(file)
		if err != nil {
			panic(err)
		}
		defer f.Close()
		io.Copy(w, f)
	}},
	"ServeFile":                  {handle: before(func(w http.ResponseWriter, r *http.Request) { http.ServeFile(w, r, file) })},
	"FileServer":                 {request: path("/text.txt"), handle: fileServer},
	"FileServer, a directory":    {handle: fileServer},
	"FileServer, nothing there":  {request: path("/none.txt"), handle: fileServer},
	"ServeContent":               {handle: serveContent},
	"ServeContent, a range":      {request: header("Range", "bytes=4-8"), handle: serveContent},
	"ServeContent, two ranges":   {request: header("Range", "bytes=0-2,10-14"), handle: serveContent},
	"ServeContent, no such":      {request: header("Range", "bytes=4000-"), handle: serveContent},
	"ServeContent, not modified": {request: header("If-None-Match", `"v1"`), handle: serveContent},
	"ServeContent, HEAD":         {request: method("HEAD", ""), handle: serveContent},

	"Flush first": wrote(func(w http.ResponseWriter) {
		w.(http.Flusher).Flush()
		io.WriteString(w, text)
	}),
	"FlushError": wrote(func(w http.ResponseWriter) {
		http.NewResponseController(w).Flush()
		io.WriteString(w, text)
	}),
	"a stream": wrote(func(w http.ResponseWriter) {
		for range 3 {
			io.WriteString(w, text)
			http.NewResponseController(w).Flush()
		}
	}),
	"trailers": wrote(func(w http.ResponseWriter) {
		w.Header().Set("Trailer", "X-Sum")
		io.WriteString(w, text)
		w.Header().Set("X-Sum", "1")
		w.Header().Set(http.TrailerPrefix+"X-Late", "2")
	}),
	"103 before": {handle: func(w http.ResponseWriter, r *http.Request, use func()) {
		w.Header().Set("Link", "</a.css>; rel=preload")
		w.WriteHeader(http.StatusEarlyHints)
		use()
		io.WriteString(w, text)
	}},
	"102 and 103 after": wrote(func(w http.ResponseWriter) {
		w.WriteHeader(http.StatusProcessing)
		w.WriteHeader(http.StatusEarlyHints)
		w.WriteHeader(http.StatusOK)
	}),
	"100": {request: func(r *http.Request) {
		method("POST", text)(r)
		r.Header.Set("Expect", "100-continue")
	}, handle: func(w http.ResponseWriter, r *http.Request, use func()) {
		body, _ := io.ReadAll(r.Body)
		use()
		w.Write(body)
	}},
	"101 and Hijack": {only1: true, request: func(r *http.Request) {
		r.Header.Set("Connection", "Upgrade")
		r.Header.Set("Upgrade", "echo")
	}, handle: before(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Connection", "Upgrade")
		w.Header().Set("Upgrade", "echo")
		w.WriteHeader(http.StatusSwitchingProtocols)
		conn, _, err := http.NewResponseController(w).Hijack()
		if err != nil {
			return
		}
		io.WriteString(conn, text)
		conn.Close()
	})},
	"Hijack": {only1: true, handle: before(func(w http.ResponseWriter, r *http.Request) {
		conn, rw, err := w.(http.Hijacker).Hijack()
		if err != nil {
			return
		}
		defer conn.Close()
		rw.WriteString("HTTP/1.1 200 OK\r\nConnection: close\r\n")
		w.Header().Write(rw)
		rw.WriteString("\r\n" + text)
		rw.Flush()
	})},
	"204":              {handle: status(http.StatusNoContent)},
	"205":              {handle: status(http.StatusResetContent)},
	"304":              {handle: status(http.StatusNotModified)},
	"404":              {handle: before(http.NotFound)},
	"500":              {handle: status(http.StatusInternalServerError)},
	"HEAD":             {request: method("HEAD", ""), handle: echo},
	"OPTIONS":          {request: method("OPTIONS", ""), handle: status(http.StatusNoContent)},
	"POST":             {request: method("POST", text), handle: echo},
	"PUT":              {request: method("PUT", text), handle: status(http.StatusCreated)},
	"DELETE":           {request: method("DELETE", ""), handle: status(http.StatusNoContent)},
	"Redirect":         {handle: before(func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/next", http.StatusFound) })},
	"303 after a POST": {request: method("POST", text), handle: before(func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/next", http.StatusSeeOther) })},
	"308": {request: method("POST", text), handle: before(func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, "/next", http.StatusPermanentRedirect)
	})},
	"a body not read":    {request: method("POST", strings.Repeat(text, 100)), handle: before(func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, text) })},
	"another goroutine":  {handle: inAnotherGoroutine},
	"deadlines":          {handle: deadlines},
	"the write deadline": {handle: tooSlow, ends: cutOff},
	"full duplex":        {request: method("POST", strings.Repeat(text, 100)), handle: fullDuplex},
	"a recorder inside":  {inside: recorded, handle: echo},
	"a recorder outside": {outside: recorded, handle: echo},
	"a mux inside":       {inside: muxed, handle: echo},
	"a mux outside":      {outside: muxed, handle: echo},
	"with other headers": wrote(func(w http.ResponseWriter) {
		w.Header().Add("Set-Cookie", "mine=1")
		w.Header().Add("Set-Cookie", "mine2=2")
		w.Header().Set("Cache-Control", "private")
		w.Header()["x-lower"] = []string{"a", "b"}
		w.Header().Set("Vary", "Accept")
		w.Header()["Date"] = nil
		io.WriteString(w, text)
	}),
	"TimeoutHandler outside": {outside: timeout(time.Minute), handle: echo},
	"TimeoutHandler inside":  {inside: timeout(time.Minute), handle: echo},
	"TimeoutHandler outside, too late": {outside: timeout(10 * time.Millisecond), ends: unseen,
		handle: func(w http.ResponseWriter, r *http.Request, use func()) {
			<-r.Context().Done()
			use()
			io.WriteString(w, text)
		}},
	"TimeoutHandler inside, too late": {inside: timeout(10 * time.Millisecond),
		handle: func(w http.ResponseWriter, r *http.Request, use func()) {
			use()
			<-r.Context().Done()
			io.WriteString(w, text)
		}},
	"MaxBytesHandler outside":           {request: method("POST", text), outside: maxBytes(1000), handle: echo},
	"MaxBytesHandler inside":            {request: method("POST", text), inside: maxBytes(1000), handle: echo},
	"MaxBytesHandler outside, too much": {request: method("POST", text), outside: maxBytes(10), handle: echo},
	"MaxBytesHandler inside, too much":  {request: method("POST", text), inside: maxBytes(10), handle: echo},
	"gzip outside":                      {outside: zipped, handle: echo},
	"gzip inside":                       {inside: zipped, handle: echo},
	"gzip inside, a stream": {inside: zipped, handle: before(func(w http.ResponseWriter, r *http.Request) {
		io.WriteString(w, text)
		http.NewResponseController(w).Flush()
		io.WriteString(w, text)
	})},
	"CrossOriginProtection outside": {outside: http.NewCrossOriginProtection().Handler, request: method("POST", text), handle: echo},
	"ReverseProxy":                  {handle: before(proxy.ServeHTTP)},
	"ReverseProxy, a POST":          {request: method("POST", text), handle: before(proxy.ServeHTTP)},
	"ReverseProxy, a redirect":      {request: path("/redirect"), handle: before(proxy.ServeHTTP)},
	"ReverseProxy, nobody there":    {request: header("X-Backend", "none"), handle: before(proxy.ServeHTTP)},
	"panic before the first byte":   {handle: before(func(http.ResponseWriter, *http.Request) { panic("bug") }), ends: dropped},
	"abort before the first byte":   {handle: before(func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }), ends: dropped},
	"panic after the first byte": {ends: unseen, handle: before(func(w http.ResponseWriter, r *http.Request) {
		io.WriteString(w, text)
		panic("bug")
	})},
	"panic after Flush": {ends: cutOff, handle: before(func(w http.ResponseWriter, r *http.Request) {
		io.WriteString(w, text)
		http.NewResponseController(w).Flush()
		panic("bug")
	})},
	"abort after Flush": {ends: cutOff, handle: before(func(w http.ResponseWriter, r *http.Request) {
		http.NewResponseController(w).Flush()
		panic(http.ErrAbortHandler)
	})},
	"panic, recovered inside":  {inside: recovers, handle: before(func(http.ResponseWriter, *http.Request) { panic("bug") })},
	"panic, recovered outside": {outside: recovers, handle: before(func(http.ResponseWriter, *http.Request) { panic("bug") }), ends: dropped},
	"the client leaves": {leaves: true, ends: unseen, handle: func(w http.ResponseWriter, r *http.Request, use func()) {
		<-r.Context().Done()
		use()
		io.WriteString(w, text)
	}},
	"the client leaves after the first byte": {leaves: true, ends: unseen, handle: func(w http.ResponseWriter, r *http.Request, use func()) {
		use()
		io.WriteString(w, text)
		http.NewResponseController(w).Flush()
		<-r.Context().Done()
	}},
}

// wrote is a handler that uses the session and then writes.
func wrote(write func(w http.ResponseWriter)) shape {
	return shape{handle: before(func(w http.ResponseWriter, r *http.Request) { write(w) })}
}

func before(h http.HandlerFunc) func(http.ResponseWriter, *http.Request, func()) {
	return func(w http.ResponseWriter, r *http.Request, use func()) {
		use()
		h(w, r)
	}
}

func status(code int) func(http.ResponseWriter, *http.Request, func()) {
	return before(func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(code) })
}

func method(method, body string) func(*http.Request) {
	return func(r *http.Request) {
		r.Method = method
		if body != "" {
			r.Body, r.ContentLength = io.NopCloser(strings.NewReader(body)), int64(len(body))
		}
	}
}

func header(name, value string) func(*http.Request) {
	return func(r *http.Request) { r.Header.Set(name, value) }
}

func path(path string) func(*http.Request) {
	return func(r *http.Request) { r.URL.Path = path }
}

// file is one of the text, and proxy passes requests on to a server; see newBackend.
var (
	file  string
	proxy = &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) {
			target := *backend
			if r.In.Header.Get("X-Backend") == "none" {
				target.Host = "127.0.0.1:1"
			}
			r.SetURL(&target)
		},
		ErrorLog: log.New(io.Discard, "", 0),
	}
	backend *url.URL
)

// newBackend makes what the shapes need of the world.
func newBackend(t *testing.T) {
	file = filepath.Join(t.TempDir(), "text.txt")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/redirect" {
			http.Redirect(w, r, "/next", http.StatusFound)
			return
		}
		w.Header().Set("Link", "</a.css>; rel=preload")
		w.WriteHeader(http.StatusEarlyHints)
		w.Header().Set("Set-Cookie", "backend=1")
		w.Header().Set("ETag", `"b"`)
		body, _ := io.ReadAll(r.Body)
		io.WriteString(w, text)
		w.Write(body)
	}))
	t.Cleanup(server.Close)
	backend, _ = url.Parse(server.URL)
}

func echo(w http.ResponseWriter, r *http.Request, use func()) {
	use()
	body, err := io.ReadAll(r.Body)
	if err != nil {
		http.Error(w, err.Error(), http.StatusRequestEntityTooLarge)
		return
	}
	w.Header().Set("ETag", `"e"`)
	io.WriteString(w, text)
	w.Write(body)
}

func serveContent(w http.ResponseWriter, r *http.Request, use func()) {
	use()
	w.Header().Set("ETag", `"v1"`)
	http.ServeContent(w, r, "text.txt", time.Unix(1e9, 0), strings.NewReader(text))
}

func fileServer(w http.ResponseWriter, r *http.Request, use func()) {
	use()
	http.FileServer(http.Dir(filepath.Dir(file))).ServeHTTP(w, r)
}

func inAnotherGoroutine(w http.ResponseWriter, r *http.Request, use func()) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		echo(w, r, use)
	}()
	<-done
}

func deadlines(w http.ResponseWriter, r *http.Request, use func()) {
	c := http.NewResponseController(w)
	use()
	err := errors.Join(c.SetReadDeadline(time.Now().Add(time.Minute)), c.SetWriteDeadline(time.Now().Add(time.Minute)))
	fmt.Fprintln(w, err)
}

// tooSlow writes after its deadline.
func tooSlow(w http.ResponseWriter, r *http.Request, use func()) {
	use()
	c := http.NewResponseController(w)
	io.WriteString(w, text)
	c.Flush()
	c.SetWriteDeadline(time.Now().Add(-time.Second))
	time.Sleep(10 * time.Millisecond) // HTTP/2 resets the stream on another goroutine
	io.WriteString(w, strings.Repeat(text, 3000))
	c.Flush()
}

func fullDuplex(w http.ResponseWriter, r *http.Request, use func()) {
	use()
	c := http.NewResponseController(w)
	if err := c.EnableFullDuplex(); err != nil && r.ProtoMajor == 1 {
		http.Error(w, err.Error(), http.StatusNotImplemented)
		return
	}
	b := make([]byte, 512)
	for {
		n, err := r.Body.Read(b)
		w.Write(b[:n])
		c.Flush()
		if err != nil {
			return
		}
	}
}

func timeout(d time.Duration) func(http.Handler) http.Handler {
	return func(next http.Handler) http.Handler { return http.TimeoutHandler(next, d, "too late") }
}

func maxBytes(n int64) func(http.Handler) http.Handler {
	return func(next http.Handler) http.Handler { return http.MaxBytesHandler(next, n) }
}

func muxed(next http.Handler) http.Handler {
	mux := http.NewServeMux()
	mux.Handle("/", next)
	return mux
}

func recovers(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		defer func() {
			if recover() != nil {
				http.Error(w, "recovered", http.StatusInternalServerError)
			}
		}()
		next.ServeHTTP(w, r)
	})
}

// recorded is the middleware that logs the status: a ResponseWriter with Unwrap alone.
func recorded(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { next.ServeHTTP(&recorder{ResponseWriter: w}, r) })
}

type recorder struct {
	http.ResponseWriter
	status int
}

func (w *recorder) Unwrap() http.ResponseWriter { return w.ResponseWriter }

func (w *recorder) WriteHeader(status int) {
	w.status = status
	w.ResponseWriter.WriteHeader(status)
}

// zipped is the middleware that compresses.
func zipped(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		z := &zipper{ResponseWriter: w, gz: gzip.NewWriter(w)}
		next.ServeHTTP(z, r)
		if z.sent {
			z.gz.Close()
		}
	})
}

type zipper struct {
	http.ResponseWriter
	gz   *gzip.Writer
	sent bool
}

func (w *zipper) WriteHeader(status int) {
	if status >= 200 {
		w.sent = true
		w.Header().Set("Content-Encoding", "gzip")
		w.Header().Del("Content-Length")
	}
	w.ResponseWriter.WriteHeader(status)
}

func (w *zipper) Write(b []byte) (int, error) {
	if !w.sent {
		w.WriteHeader(http.StatusOK)
	}
	return w.gz.Write(b)
}

func (w *zipper) FlushError() error {
	return errors.Join(w.gz.Flush(), http.NewResponseController(w.ResponseWriter).Flush())
}

// A change is what a handler does with its session: of a visitor who has one with the name
// x, or has none.
type change struct {
	has     bool
	use     func(s *session.Session)
	cookies int    // in the response
	name    string // stored afterwards, of the one session that there is; none if empty
	kept    bool   // the cookie that the visitor had opens it
}

var changes = map[string]change{
	"new":         {has: false, use: func(s *session.Session) { nameKey.Set(s, "y") }, cookies: 1, name: "y"},
	"changed":     {has: true, use: func(s *session.Session) { nameKey.Set(s, "y") }, cookies: 0, name: "y", kept: true},
	"unchanged":   {has: true, use: func(s *session.Session) { nameKey.Get(s) }, cookies: 0, name: "x", kept: true},
	"renewed":     {has: true, use: func(s *session.Session) { s.Renew(0); nameKey.Set(s, "y") }, cookies: 1, name: "y"},
	"regenerated": {has: true, use: func(s *session.Session) { s.Regenerate(); nameKey.Set(s, "y") }, cookies: 1, name: "y"},
	"destroyed":   {has: true, use: func(s *session.Session) { s.Destroy() }, cookies: 1},
}

// A stage is a real server with the handler of the moment.
type stage struct {
	server  *httptest.Server
	handler atomic.Pointer[http.Handler]
	log     logBook
}

func newStage(t *testing.T, proto int) *stage {
	st := new(stage)
	st.server = httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		(*st.handler.Load()).ServeHTTP(w, r)
	}))
	st.server.Config.ErrorLog = log.New(&st.log, "", 0)
	if proto == 2 {
		st.server.EnableHTTP2 = true
		st.server.StartTLS()
	} else {
		st.server.Start()
	}
	t.Cleanup(st.server.Close)
	transport := st.server.Client().Transport.(*http.Transport)
	transport.DisableCompression = true
	transport.ExpectContinueTimeout = 5 * time.Second
	return st
}

// A seen is what a client saw.
type seen struct {
	proto, status   int
	header, trailer http.Header
	body            string
	err             error // in place of a response
	cut             bool  // the body is not whole
}

// request makes one request to the handler, behind what the shape has outside, and returns
// when the client has the response and the handler has ended.
func (st *stage) request(t *testing.T, sh shape, handler http.Handler, cookie string) seen {
	t.Helper()
	began, ended := make(chan struct{}), make(chan struct{})
	var whole http.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		close(began)
		defer close(ended)
		handler.ServeHTTP(w, r)
	})
	if sh.outside != nil {
		whole = sh.outside(whole)
	}
	st.handler.Store(&whole)
	ctx, leave := context.WithTimeout(t.Context(), 20*time.Second)
	defer leave()
	r, err := http.NewRequestWithContext(ctx, "GET", st.server.URL+"/", nil)
	if err != nil {
		t.Fatal(err)
	}
	if sh.request != nil {
		sh.request(r)
	}
	if cookie != "" {
		r.Header.Set("Cookie", "__Host-sid="+cookie)
	}
	if sh.leaves {
		go func() {
			<-began
			leave()
		}()
	}
	got := receive(st.server.Client().Transport.RoundTrip(r))
	select {
	case <-ended:
	case <-time.After(20 * time.Second):
		t.Fatal("the handler does not end")
	}
	return got
}

func receive(response *http.Response, err error) (got seen) {
	if err != nil {
		return seen{err: err}
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if response.Header.Get("Content-Encoding") == "gzip" && len(body) > 0 && err == nil {
		unzip, zipErr := gzip.NewReader(bytes.NewReader(body))
		if zipErr != nil {
			return seen{err: fmt.Errorf("the body %q is no gzip", body)}
		}
		body, err = io.ReadAll(unzip)
	}
	got = seen{proto: response.ProtoMajor, status: response.StatusCode, header: response.Header, trailer: response.Trailer, body: string(body), cut: err != nil}
	if _, params, _ := mime.ParseMediaType(got.header.Get("Content-Type")); params["boundary"] != "" { // a random one
		got.body = strings.ReplaceAll(got.body, params["boundary"], "boundary")
		got.header.Set("Content-Type", strings.ReplaceAll(got.header.Get("Content-Type"), params["boundary"], "boundary"))
	}
	return got
}

// ours takes the session's cookies and the other headers that it adds out of the
// response, and returns the cookies.
func (s *seen) ours(t *testing.T, want seen, looked bool) (ours []string) {
	t.Helper()
	if s.err != nil {
		return nil
	}
	s.header.Del("Date") // which may be a second later than the other's
	for _, line := range s.header.Values("Set-Cookie") {
		if strings.HasPrefix(line, "__Host-sid=") {
			ours = append(ours, line)
		}
	}
	restore := func(name string) {
		if lines, ok := want.header[name]; ok {
			s.header[name] = lines
		} else {
			delete(s.header, name)
		}
	}
	if len(ours) > 0 {
		s.header["Set-Cookie"] = slices.DeleteFunc(s.header["Set-Cookie"], func(line string) bool { return slices.Contains(ours, line) })
		if len(s.header["Set-Cookie"]) == 0 {
			delete(s.header, "Set-Cookie")
		}
		check(t, "Cache-Control with a cookie", s.header.Get("Cache-Control"), "no-store")
		restore("Cache-Control")
	}
	if looked {
		if n := strings.Count(strings.Join(s.header.Values("Vary"), ","), "Cookie"); n != 1 {
			t.Errorf("Vary is %q", s.header.Values("Vary"))
		}
		restore("Vary")
	}
	return ours
}

// expect compares what the client saw with what it should have.
func (s seen) expect(t *testing.T, want seen) {
	t.Helper()
	want.header = maps.Clone(want.header)
	want.header.Del("Date")
	if (s.err != nil) != (want.err != nil) || s.proto != want.proto || s.status != want.status || s.cut != want.cut {
		t.Errorf("HTTP/%d, status %d, cut off %v, error %v; want HTTP/%d, status %d, cut off %v, error %v",
			s.proto, s.status, s.cut, s.err, want.proto, want.status, want.cut, want.err)
	}
	if s.body != want.body && !want.cut {
		t.Errorf("body %.100q, want %.100q", s.body, want.body)
	}
	if !reflect.DeepEqual(s.header, want.header) || !reflect.DeepEqual(s.trailer, want.trailer) {
		t.Errorf("header %v, trailer %v\nwant   %v, trailer %v", s.header, s.trailer, want.header, want.trailer)
	}
}

// handler returns the handler of a shape, with what it has inside, and with sessions if m
// is not nil. When it runs it tells got its session.
func (sh shape) handler(m *session.Manager, use func(s *session.Session), got func(s *session.Session)) http.Handler {
	var h http.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if m == nil {
			sh.handle(w, r, func() {})
			return
		}
		s := session.From(r.Context())
		got(s)
		sh.handle(w, r, func() { use(s) })
	})
	if sh.inside != nil {
		h = sh.inside(h)
	}
	if m != nil {
		h = m.Handler(h)
	}
	return h
}

// eachResponse runs each shape with each change over HTTP/1.1 and HTTP/2.
func eachResponse(t *testing.T, test func(t *testing.T, st *stage, sh shape, c change)) {
	newBackend(t)
	for _, proto := range []int{1, 2} {
		st := newStage(t, proto)
		for shapeName, sh := range shapes {
			if sh.only1 && proto == 2 {
				continue
			}
			for changeName, c := range changes {
				t.Run(fmt.Sprintf("HTTP %d/%s/%s", proto, shapeName, changeName), func(t *testing.T) {
					test(t, st, sh, c)
					if strings.Contains(st.log.String(), "superfluous") {
						t.Fatalf("the server says: %s", st.log.String())
					}
				})
			}
		}
	}
}

// newCase returns a manager and its store, the cookie of the visitor, and a manager to
// look at the store with.
func newCase(t *testing.T, c change) (sp *spy, m *session.Manager, cookie string, admin *session.Manager) {
	store := new(session.MemoryStore)
	sp = &spy{Store: store}
	m = newManager(t, session.Options{Store: sp})
	admin = newManager(t, session.Options{Store: store})
	v := newVisitor(m)
	if c.has {
		v.get(setName("x"))
	}
	return sp, m, v.jar["__Host-sid"], admin
}

// expectStored checks that the store has the one session of that name, or none.
func expectStored(t *testing.T, m *session.Manager, want string) {
	t.Helper()
	var names []string
	for s, err := range m.All(t.Context()) {
		if err != nil {
			t.Fatal(err)
		}
		names = append(names, nameKey.Get(s))
	}
	if got := strings.Join(names, " and "); got != want {
		t.Errorf("stored %q, want %q", got, want)
	}
}

// nameUnder returns the name in the session that a cookie opens.
func nameUnder(m *session.Manager, cookie string) string {
	v := newVisitor(m)
	v.jar["__Host-sid"] = cookie
	return nameOf(v)
}

// Every way to write a response: the client gets what it gets without a session, with one
// cookie of the session or none, and what the handler did is stored.
func TestResponses(t *testing.T) {
	eachResponse(t, func(t *testing.T, st *stage, sh shape, c change) {
		want := st.request(t, sh, sh.handler(nil, nil, nil), "")
		_, m, cookie, admin := newCase(t, c)
		var s *session.Session
		got := st.request(t, sh, sh.handler(m, c.use, func(of *session.Session) { s = of }), cookie)

		// A goroutine of the handler that goes on after the request changes nothing.
		nameKey.Set(s, "late")
		s.Renew(0)
		if err := s.Save(); !errors.Is(err, session.ErrClosed) && s.Err() == nil {
			t.Errorf("a save after the request: %v", err)
		}

		var ours []string
		cookies := c.cookies
		if sh.ends == dropped && c.name != "" || sh.ends == unseen || got.err != nil {
			cookies = 0
		}
		if sh.leaves { // with whatever it has by then
			cookies = 0
		} else {
			ours = got.ours(t, want, sh.ends != unseen && got.err == nil)
			if len(ours) != cookies {
				t.Fatalf("cookies %q, want %d", ours, cookies)
			}
			got.expect(t, want)
		}

		switch {
		case sh.ends == dropped && c.name != "" && c.has:
			expectStored(t, admin, "x")
			check(t, "name under the cookie", nameUnder(m, cookie), "x")
			return
		case sh.ends == dropped:
			expectStored(t, admin, "")
			return
		}
		expectStored(t, admin, c.name)
		if cookies > 0 {
			sent, err := http.ParseSetCookie(ours[0])
			if err != nil {
				t.Fatal(err)
			}
			check(t, "deletion", sent.MaxAge < 0, c.name == "")
			check(t, "name under the new cookie", nameUnder(m, sent.Value), c.name)
		}
		if c.has && c.kept {
			check(t, "name under the cookie", nameUnder(m, cookie), c.name)
		} else if c.has {
			check(t, "name under the old cookie", nameUnder(m, cookie), "")
		}
	})
}

// Where the load or the save fails, nothing is left of what the handler wrote, and nothing is changed:
// the client sees what a handler would send that answers the error and does nothing else.
func TestResponsesWhenTheSaveFails(t *testing.T) {
	fails := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Cache-Control", "no-store")
		http.Error(w, "Service Unavailable", http.StatusServiceUnavailable)
	})
	eachResponse(t, func(t *testing.T, st *stage, sh shape, c change) {
		bare := sh
		bare.leaves = false
		want := st.request(t, bare, fails, "")
		own := st.request(t, sh, sh.handler(nil, nil, nil), "")
		if sh.ends == answered && own.status >= 500 || sh.ends == dropped {
			want = own // the handler's own error
		}
		sp, m, cookie, admin := newCase(t, c)
		loads := c.cookies == 0 && c.name == "x" // who changes nothing may fail to load
		sp.before = func(op, _ string) error {
			if (op == "L") == loads {
				return errDown
			}
			return nil
		}
		ran := false
		got := st.request(t, sh, sh.handler(m, c.use, func(*session.Session) { ran = true }), cookie)
		sp.works()
		ours := got.ours(t, want, sh.ends == answered && ran)
		if len(ours) > 0 {
			t.Errorf("cookies %q", ours)
		}
		if sh.ends == answered || sh.ends == dropped && own.err != nil {
			got.expect(t, want)
		} else if got.err == nil && got.status < 500 {
			t.Errorf("status %d", got.status)
		}
		if c.has {
			expectStored(t, admin, "x")
			check(t, "name under the cookie", nameUnder(m, cookie), "x")
		} else {
			expectStored(t, admin, "")
		}
	})
}

// A server that shuts down waits for a save that is slow, and the client gets its cookie.
func TestShutdownDuringASave(t *testing.T) {
	for _, proto := range []int{1, 2} {
		for name, c := range changes {
			t.Run(fmt.Sprintf("HTTP %d/%s", proto, name), func(t *testing.T) {
				st := newStage(t, proto)
				sp, m, cookie, admin := newCase(t, c)
				stopped := make(chan error, 1)
				first := once()
				sp.before = func(op, _ string) error {
					if first() {
						go func() { stopped <- st.server.Config.Shutdown(t.Context()) }()
						eventually(t, "the server is shutting down", func() bool {
							_, err := http.Get(st.server.URL)
							return err != nil
						})
					}
					return nil
				}
				sh := shapes["Write"]
				got := st.request(t, sh, sh.handler(m, c.use, func(*session.Session) {}), cookie)
				if got.err != nil || got.body != text || len(got.header.Values("Set-Cookie")) != c.cookies {
					t.Errorf("error %v, body %q, cookies %q", got.err, got.body, got.header.Values("Set-Cookie"))
				}
				if err := <-stopped; err != nil {
					t.Error(err)
				}
				expectStored(t, admin, c.name)
			})
		}
	}
}

// A client that follows the redirect the moment the header arrives sees what the handler
// has set, every time. Redis is the store, and the response goes on behind its header.
func TestFollowTheRedirect(t *testing.T) {
	const times = 10_000
	store := &session.RedisStore{Client: redistest.Client(t)}
	m := newManager(t, session.Options{Store: store})
	mux := http.NewServeMux()
	mux.HandleFunc("POST /add", func(w http.ResponseWriter, r *http.Request) {
		counterKey.Update(session.From(r.Context()), increment)
		w.Header().Set("Location", "/total")
		w.WriteHeader(http.StatusSeeOther)
		http.NewResponseController(w).Flush()
		io.WriteString(w, text)
	})
	mux.HandleFunc("GET /total", func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprint(w, counterKey.Get(session.From(r.Context())))
	})
	server := httptest.NewServer(m.Handler(mux))
	defer server.Close()
	var cookie string
	send := func(method, path string) *http.Response {
		r, _ := http.NewRequest(method, server.URL+path, nil)
		if cookie != "" {
			r.Header.Set("Cookie", cookie)
		}
		response, err := http.DefaultTransport.RoundTrip(r)
		if err != nil {
			t.Fatal(err)
		}
		for _, c := range response.Cookies() {
			cookie = c.Name + "=" + c.Value
		}
		return response
	}
	for n := 1; n <= times; n++ {
		added := send("POST", "/add")
		total := send("GET", added.Header.Get("Location"))
		body, _ := io.ReadAll(total.Body)
		total.Body.Close()
		io.Copy(io.Discard, added.Body)
		added.Body.Close()
		if string(body) != fmt.Sprint(n) {
			t.Fatalf("after %d additions the total is %s", n, body)
		}
	}
}
