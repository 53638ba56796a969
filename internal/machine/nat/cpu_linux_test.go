package nat

import (
	"runtime"
	"time"

	"golang.org/x/sys/unix"
)

// cpu is a clock of the processor time that this thread has had, so that
// others on the machine count for less. stop ends the binding to the thread.
func cpu() (since func() time.Duration, stop func()) {
	runtime.LockOSThread()
	read := func() time.Duration {
		var ts unix.Timespec
		if unix.ClockGettime(unix.CLOCK_THREAD_CPUTIME_ID, &ts) != nil {
			return 0
		}
		return time.Duration(ts.Nano())
	}
	start := read()
	return func() time.Duration { return read() - start }, runtime.UnlockOSThread
}
