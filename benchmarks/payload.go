package main

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

// secret signs the cookies of every peer that signs.
const secret = "a secret that is for the benchmarks alone"
