package main

import (
	"encoding/json"
	"io"
	"net/http"
)

// What a login puts into a session: 213 bytes as JSON. Every peer stores these four values.
const (
	userID int64 = 42
	email        = "ada.lovelace@example.com"
	role         = "member"
)

var cart = []string{
	"item-100001", "item-100002", "item-100003", "item-100004", "item-100005",
	"item-100006", "item-100007", "item-100008", "item-100009", "item-100010",
}

// cookieLife is how long every peer's cookie lives, in seconds, and idle the lifetime that a
// read prolongs in the workload S.
const (
	cookieLife = 24 * 60 * 60
	idle       = 60 * 60
)

// connections are those that the load opens at once, and that a pool of a peer may keep.
const connections = 32

// secret signs the cookies of every peer that signs.
const secret = "a secret that is for the benchmarks alone"

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

// answer is what every other handler of net/http ends with.
func answer(w http.ResponseWriter, ok bool) {
	if !ok {
		w.WriteHeader(http.StatusInternalServerError)
	}
	io.WriteString(w, "ok\n")
}

// untyped returns the values of a session that keeps them as any.
func untyped(get func(key string) any) (v Values) {
	v.UserID, _ = get("userId").(int64)
	v.Email, _ = get("email").(string)
	v.Role, _ = get("role").(string)
	v.Cart, _ = get("cart").([]string)
	v.Count, _ = get("count").(int)
	return v
}
