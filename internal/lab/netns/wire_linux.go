package netns

import (
	"errors"
	"math"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/bodkin-net/bodkin/internal/lab/scenario"
)

// wire carries the packets of every network of a lab, on one thread of its own:
// it reads the devices, runs the gateways that are ours, holds packets until
// they are due and writes them to the device of the next node. The kernel
// forwards inside that write.
type wire struct {
	epoll, wake int
	devices     []*device
	start       time.Time
	done        chan struct{}
	errands     *errands
	settled     chan struct{} // closed when as many ports with DHCP have had an address as can

	mu        sync.Mutex // all below; the thread holds it while it is not waiting
	plan      *plan
	spaces    map[*node]*namespace
	ports     []*wirePort
	networks  []*network
	gateways  []*gateway
	machines  []*driven
	unsettled map[*wirePort]bool           // who has had none
	short     map[string]scenario.Shortage // by network
	stale     []*driven                    // whose next timeout must be asked for again
	waiting   []*device                    // for flush
	queue     queue
	rng       *rand.Rand
	cuts      []CutStatus
	events    []Event
	depth     int // of gateways that a packet is in
	closed    bool
	spare     [2][]*packet // buffers for reuse, small and large
	scratch   []byte
}

// driven is a machine that the wire calls when its time has come.
type driven struct {
	next  func() (time.Time, bool)
	ring  func(now int64)
	due   int64
	stale bool
}

const (
	smallBuffer = 2048
	largeBuffer = room + 65536
	burst       = 64 // packets read from one device before the others have a turn
	never       = math.MaxInt64

	// The runtime is not told of shorter waits: it would give the thread's turn
	// to another goroutine, and getting it back takes time. The garbage
	// collector is held up for no longer.
	shortWait = time.Millisecond
)

func (w *wire) now() int64 { return int64(time.Since(w.start)) }

// clock is a moment of the wire's time for the machines.
func (w *wire) clock(now int64) time.Time { return w.start.Add(time.Duration(now)) }

// run is the wire's thread.
func (w *wire) run() {
	defer close(w.done)
	preferThread()
	spareProcessor(1)
	defer spareProcessor(-1)
	read := make([]byte, largeBuffer)
	events := make([]unix.EpollEvent, len(w.devices)+1)
	var pace pace
	w.begin()
	for {
		w.mu.Lock()
		if w.closed {
			w.mu.Unlock()
			return
		}
		wait := w.deliver(w.now())
		w.flush()
		w.mu.Unlock()

		pace.rest(wait)
		n := epollWait(w.epoll, events, wait)

		w.mu.Lock()
		packets, behind := 0, false
		for _, ev := range events[:n] {
			if ev.Fd < 0 {
				w.awake()
				continue
			}
			n := w.drain(w.devices[ev.Fd], read)
			packets, behind = packets+n, behind || n == burst
			w.deliver(w.now())
		}
		pace.took(packets, behind, w.now())
		w.mu.Unlock()
	}
}

// begin lets the machines say what they have to say at first.
func (w *wire) begin() {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, d := range w.machines {
		d.ring(w.now())
	}
}

// poke makes the thread look at what has changed.
func (w *wire) poke() { unix.Write(w.wake, []byte{1, 0, 0, 0, 0, 0, 0, 0}) }

func (w *wire) awake() {
	var count [8]byte
	unix.Read(w.wake, count[:])
}

// drain reads what a device has, but no more than a burst.
func (w *wire) drain(d *device, buf []byte) (packets int) {
	for range burst {
		n, ok := d.read(buf)
		if !ok {
			break
		}
		w.receive(d, w.now(), buf[:n])
		packets++
	}
	return packets
}

// deliver does what is due by now, and says how long there is nothing more to
// do; a negative time is for ever.
func (w *wire) deliver(now int64) (wait int64) {
	for {
		due, ok := w.queue.next()
		if !ok || due > now {
			break
		}
		_, p := w.queue.pop()
		switch {
		case p.on != p.to.network: // which has moved
			p.miss()
		case p.down:
			w.arrive(&p.transit, now, p.buf)
		default:
			w.admitDown(due, now, p.buf, p.transit)
		}
		w.recycle(p)
	}
	next := w.ring(now)
	if due, ok := w.queue.next(); ok {
		next = min(next, due)
	}
	if next == never {
		return -1
	}
	return max(next-w.now(), 0)
}

// touch notes that a machine was used, and may have another next timeout.
func (w *wire) touch(d *driven) {
	if !d.stale {
		d.stale = true
		w.stale = append(w.stale, d)
	}
}

// dismiss ends what touch and ring do for a machine.
func (w *wire) dismiss(d *driven) {
	same := func(x *driven) bool { return x == d }
	w.machines = slices.DeleteFunc(w.machines, same)
	w.stale = slices.DeleteFunc(w.stale, same)
}

// ring tells machines that their time has come, and returns the next one's.
func (w *wire) ring(now int64) int64 {
	w.askAgain()
	for _, d := range w.machines {
		if d.due <= now {
			d.ring(now)
			w.touch(d)
		}
	}
	w.askAgain()
	next := int64(never)
	for _, d := range w.machines {
		next = min(next, d.due)
	}
	return next
}

// askAgain asks those that were used for their next timeout.
func (w *wire) askAgain() {
	for _, d := range w.stale {
		d.stale, d.due = false, never
		if at, ok := d.next(); ok {
			d.due = int64(at.Sub(w.start))
		}
	}
	w.stale = w.stale[:0]
}

// close ends the thread. The devices are the lab's to close.
func (w *wire) close() error {
	w.mu.Lock()
	w.closed = true
	w.mu.Unlock()
	w.poke()
	<-w.done
	w.errands.close()
	unix.Close(w.epoll)
	unix.Close(w.wake)
	var err error
	for _, n := range w.networks {
		if n.capture != nil {
			err = errors.Join(err, n.capture.close())
		}
	}
	return err
}
