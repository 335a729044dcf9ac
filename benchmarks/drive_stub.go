package main

import (
	"net/http"
	"net/http/httptest"
	"strings"

	"github.com/valyala/fasthttp"
)

func (a App) do(work Workload, cookie string) (status int, setCookie, body string) {
	if h := a.Fast[work]; h != nil {
		var ctx fasthttp.RequestCtx
		ctx.Init(new(fasthttp.Request), nil, nil)
		ctx.Request.Header.Set("Cookie", cookie)
		h(&ctx)
		c, _, _ := strings.Cut(string(ctx.Response.Header.Peek("Set-Cookie")), ";")
		return ctx.Response.StatusCode(), c, string(ctx.Response.Body())
	}
	r := httptest.NewRequest(http.MethodGet, "/", nil)
	if cookie != "" {
		r.Header.Set("Cookie", cookie)
	}
	w := httptest.NewRecorder()
	a.HTTP[work].ServeHTTP(w, r)
	c, _, _ := strings.Cut(w.Header().Get("Set-Cookie"), ";")
	return w.Code, c, w.Body.String()
}
