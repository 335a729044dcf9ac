package expressjs_test

import (
	"slices"
	"testing"
)

// A behaviour is a row of SEMANTICS.md, and shows it.
type behaviour struct {
	id   string
	show func(t *testing.T)
}

func behaviours() []behaviour {
	return slices.Concat(sessionBehaviours(), cookieBehaviours(), responseBehaviours(), redisBehaviours(), matrixBehaviours())
}

func TestBehaviour(t *testing.T) {
	for _, b := range behaviours() {
		t.Run(b.id, b.show)
	}
}
