package netns

import (
	"os"
	"sync"
)

// Required is the environment variable that, set to "required", turns a lab
// that cannot be built into a failure.
const Required = "BODKIN_LAB"

// Test is what Need wants of a *testing.T.
type Test interface {
	Helper()
	Skip(args ...any)
	Fatal(args ...any)
}

// Need skips a test where labs cannot be built, or fails it if they must be.
func Need(t Test) {
	t.Helper()
	err := Probe()
	switch {
	case err == nil:
	case os.Getenv(Required) == "required":
		t.Fatal(Required+"=required, but ", err)
	default:
		t.Skip(err)
	}
}

// Probe says what is missing here to build a lab, trying each part once.
func Probe() error { return probeOnce() }

var probeOnce = sync.OnceValue(probe)
