package netns

import (
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// pace keeps the thread from being woken for every packet of a stream: that
// costs more than all that is done to the packet. After a series of wake-ups
// that come fast and bring little it rests for a moment, so that packets
// gather. When few come of it, as when one side waits for the answer of the
// other, it does not try again for a while.
type pace struct {
	last    int64 // when it was woken last
	fast    int   // wake-ups in a row that came fast and brought little
	rests   bool
	behind  bool // the last wake-up left packets for the next
	patient int  // how many of these before it rests: more after each failure
}

const (
	restTime  = 80 * time.Microsecond
	fastWake  = 60 * time.Microsecond
	gathered  = 4 // packets that make a rest worth it
	leastFast = 16
	mostFast  = 4096
)

// took notes what a wake-up has brought, and that it has left some behind.
func (p *pace) took(packets int, behind bool, now int64) {
	gap := now - p.last
	p.last, p.behind = now, behind
	switch {
	case p.rests && packets < gathered:
		p.rests, p.fast = false, 0
		p.patient = min(2*p.patient, mostFast)
	case p.rests:
		p.patient = leastFast
	case packets == 0 || gap > int64(fastWake):
		p.fast = 0
	default:
		p.fast++
		p.patient = max(p.patient, leastFast)
		p.rests = p.fast >= p.patient
	}
}

// rest waits, but not beyond the time that something is due in.
func (p *pace) rest(due int64) {
	if !p.rests || p.behind || due >= 0 && due < int64(restTime) {
		return
	}
	ts := unix.NsecToTimespec(int64(restTime))
	unix.RawSyscall6(unix.SYS_CLOCK_NANOSLEEP, unix.CLOCK_MONOTONIC, 0, uintptr(unsafe.Pointer(&ts)), 0, 0, 0)
}
