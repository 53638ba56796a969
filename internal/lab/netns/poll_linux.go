package netns

import (
	"runtime"
	"sync"
	"unsafe"

	"golang.org/x/sys/unix"
)

// epollWait waits with the resolution of the kernel's timers; a negative wait
// is for ever.
func epollWait(epoll int, events []unix.EpollEvent, wait int64) int {
	var timeout *unix.Timespec
	if wait >= 0 {
		ts := unix.NsecToTimespec(wait)
		timeout = &ts
	}
	call := unix.Syscall6
	if wait >= 0 && wait < int64(shortWait) {
		call = unix.RawSyscall6
	}
	n, _, errno := call(unix.SYS_EPOLL_PWAIT2, uintptr(epoll), uintptr(unsafe.Pointer(&events[0])),
		uintptr(len(events)), uintptr(unsafe.Pointer(timeout)), 0, 0)
	if errno != 0 {
		return 0
	}
	return int(n)
}

// preferThread puts the calling thread before ordinary ones, if it may.
func preferThread() {
	unix.Prctl(unix.PR_SET_TIMERSLACK, 1, 0, 0, 0)
	unix.SchedSetAttr(0, &unix.SchedAttr{Size: unix.SizeofSchedAttr, Policy: unix.SCHED_RR, Priority: 1}, 0)
}

var processors sync.Mutex

// spareProcessor lets one more goroutine run at a time, so that the wire's need
// not wait for those of the programs under test.
func spareProcessor(n int) {
	processors.Lock()
	defer processors.Unlock()
	runtime.GOMAXPROCS(runtime.GOMAXPROCS(0) + n)
}
