// Package examples_test checks that the programs and what the README says of them agree.
package examples_test

import (
	"os"
	"strings"
	"testing"
)

func TestReadmeListingIsBasic(t *testing.T) {
	readme, err := os.ReadFile("../README.md")
	if err != nil {
		t.Fatal(err)
	}
	program, err := os.ReadFile("basic/main.go")
	if err != nil {
		t.Fatal(err)
	}
	_, listing, _ := strings.Cut(string(readme), "```go\n")
	listing, _, _ = strings.Cut(listing, "```")
	if listing != string(program) {
		t.Error("the first listing of README.md is not examples/basic/main.go")
	}
}
