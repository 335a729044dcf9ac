package main

import (
	"encoding/json"
	"io"
)

// Show is a workload that is not measured: it answers the session's Values, for the tests.
const Show Workload = "show"

// connections are those that the load opens at once, and that a pool of a peer may keep.
const connections = 32

// Values are what a session holds; none of them if nobody has logged in.
type Values struct {
	UserID int64    `json:"userId"`
	Email  string   `json:"email"`
	Role   string   `json:"role"`
	Cart   []string `json:"cart"`
	Count  int      `json:"count,omitempty"`
}

// show is what every handler of Show ends with.
func show(w io.Writer, v Values) error { return json.NewEncoder(w).Encode(v) }

// untyped returns the values of a session that keeps them as any.
func untyped(get func(key string) any) (v Values) {
	v.UserID, _ = get("userId").(int64)
	v.Email, _ = get("email").(string)
	v.Role, _ = get("role").(string)
	v.Cart, _ = get("cart").([]string)
	v.Count, _ = get("count").(int)
	return v
}
