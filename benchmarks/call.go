package main

import (
	"net/http"
	"net/url"
	"strings"

	"github.com/valyala/fasthttp"
)

// A Caller calls the handler of one workload directly. It has one request and one response,
// which it uses again and again. It is for one goroutine.
type Caller interface {
	Call(cookie string) // "" for none
	Reply() Reply       // of the last call
}

// A Reply is what came of a request. Cookie is the one to send next, or "" if none was set.
type Reply struct {
	Status       int
	Cookie, Body string
}

// caller returns a Caller of the app's handler.
func (a App) caller(work Workload) Caller {
	if fast := a.Fast[work]; fast != nil {
		return newFastCaller(work, fast)
	}
	return newHTTPCaller(work, a.HTTP[work])
}

type httpCaller struct {
	handler  http.Handler
	template http.Request // some libraries change the request that they are given
	request  http.Request
	cookie   []string
	status   int
	header   http.Header
	body     []byte
}

func newHTTPCaller(work Workload, handler http.Handler) *httpCaller {
	return &httpCaller{
		handler: handler,
		template: http.Request{
			Method: http.MethodGet, URL: &url.URL{Path: "/" + string(work)}, Host: "localhost", RequestURI: "/" + string(work),
			Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1, Header: make(http.Header), RemoteAddr: "127.0.0.1:1234", Body: http.NoBody,
		},
		cookie: make([]string, 1),
		header: make(http.Header),
		status: http.StatusOK,
	}
}

func (c *httpCaller) Call(cookie string) {
	c.request = c.template
	if cookie == "" {
		delete(c.request.Header, "Cookie")
	} else {
		c.cookie[0] = cookie
		c.request.Header["Cookie"] = c.cookie
	}
	clear(c.header)
	c.status, c.body = http.StatusOK, c.body[:0]
	c.handler.ServeHTTP(c, &c.request)
}

func (c *httpCaller) Header() http.Header    { return c.header }
func (c *httpCaller) WriteHeader(status int) { c.status = status }

func (c *httpCaller) Write(p []byte) (int, error) {
	c.body = append(c.body, p...)
	return len(p), nil
}

func (c *httpCaller) WriteString(s string) (int, error) {
	c.body = append(c.body, s...)
	return len(s), nil
}

func (c *httpCaller) Reply() Reply {
	return Reply{c.status, nextCookie(c.header["Set-Cookie"]), string(c.body)}
}

type fastCaller struct {
	handler fasthttp.RequestHandler
	ctx     fasthttp.RequestCtx
}

func newFastCaller(work Workload, handler fasthttp.RequestHandler) *fastCaller {
	c := &fastCaller{handler: handler}
	c.ctx.Request.SetRequestURI("/" + string(work))
	c.ctx.Request.Header.SetHost("localhost")
	return c
}

func (c *fastCaller) Call(cookie string) {
	if cookie == "" {
		c.ctx.Request.Header.Del("Cookie")
	} else {
		c.ctx.Request.Header.Set("Cookie", cookie)
	}
	c.ctx.Response.Reset()
	c.ctx.ResetUserValues()
	c.handler(&c.ctx)
}

func (c *fastCaller) Reply() Reply {
	var lines []string
	for _, line := range c.ctx.Response.Header.Cookies() {
		lines = append(lines, string(line))
	}
	return Reply{c.ctx.Response.StatusCode(), nextCookie(lines), string(c.ctx.Response.Body())}
}

// nextCookie returns the name and the value of the last Set-Cookie.
func nextCookie(lines []string) string {
	if len(lines) == 0 {
		return ""
	}
	pair, _, _ := strings.Cut(lines[len(lines)-1], ";")
	return pair
}

// login makes a session for each of the cookies, and sets it.
func login(c Caller, cookies []string) {
	for i := range cookies {
		c.Call("")
		cookies[i] = c.Reply().Cookie
	}
}
