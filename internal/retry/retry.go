// Package retry spaces the attempts of requests that change one session at once.
package retry

import (
	"context"
	"math/rand/v2"
	"time"
)

// Pause waits a random time before the next attempt, longer after each, so that requests
// that collide come out of each other's step. The longest pause is eight milliseconds. After
// the first attempt it does not wait. The error is that of ctx.
func Pause(ctx context.Context, attempt int) error {
	if attempt == 1 {
		return ctx.Err()
	}
	timer := time.NewTimer(rand.N(time.Duration(min(attempt, 16)) * time.Millisecond / 2))
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
