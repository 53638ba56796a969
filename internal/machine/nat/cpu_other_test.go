//go:build !linux

package nat

import "time"

func cpu() (since func() time.Duration, stop func()) {
	start := time.Now()
	return func() time.Duration { return time.Since(start) }, func() {}
}
