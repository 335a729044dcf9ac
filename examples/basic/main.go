// Basic counts how often each visitor has been here.
package main

import (
	"fmt"
	"log"
	"net/http"

	"github.com/seed-4f96e14b/session"
)

const viewsKey session.Key[int] = "views"

func main() {
	sessions, err := session.New(session.Options{})
	if err != nil {
		log.Fatal(err)
	}
	log.Fatal(http.ListenAndServe("localhost:8080", sessions.Handler(http.HandlerFunc(home))))
}

func home(w http.ResponseWriter, r *http.Request) {
	s := session.From(r.Context())
	viewsKey.Update(s, func(n int) int { return n + 1 })
	fmt.Fprintf(w, "views: %d\n", viewsKey.Get(s))
}
