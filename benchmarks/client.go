package main

import (
	"io"
	"net/http"
)

// A Client sends requests to a server, one after the other on one connection.
type Client struct {
	addr string
	http http.Client
}

func newClient(addr string) *Client {
	return &Client{addr, http.Client{Transport: new(http.Transport)}}
}

// Close closes the connection.
func (c *Client) Close() { c.http.CloseIdleConnections() }

// Do sends a request of the workload with the cookie, or none if it is "".
func (c *Client) Do(work Workload, cookie string) (Reply, error) {
	r, err := http.NewRequest(http.MethodGet, "http://"+c.addr+"/"+string(work), nil)
	if err != nil {
		return Reply{}, err
	}
	if cookie != "" {
		r.Header.Set("Cookie", cookie)
	}
	resp, err := c.http.Do(r)
	if err != nil {
		return Reply{}, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	return Reply{resp.StatusCode, nextCookie(resp.Header["Set-Cookie"]), string(body)}, err
}

// login makes sessions, and returns their cookies.
func (c *Client) login(sessions int) ([]string, error) {
	cookies := make([]string, sessions)
	for i := range cookies {
		reply, err := c.Do(Login, "")
		if err != nil {
			return nil, err
		}
		cookies[i] = reply.Cookie
	}
	return cookies, nil
}
