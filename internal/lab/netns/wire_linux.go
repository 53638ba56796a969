package netns

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"runtime"
	"sync"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/bodkin-net/bodkin/internal/lab/scenario"
)

// wire carries the packets of every network of a lab, on one thread of its own:
// it reads the TUN devices, holds packets until they are due and writes them to
// the device of the next node. The kernel forwards inside that write.
type wire struct {
	epoll, wake int
	ports       []*wirePort
	start       time.Time
	done        chan struct{}

	mu       sync.Mutex // all below; the thread holds it while it is not waiting
	networks map[string]*network
	queue    queue
	rng      *rand.Rand
	cuts     []cut
	closed   bool
	spare    [2][]*packet // buffers for reuse, small and large
	scratch  []byte
}

type wirePort struct {
	*port
	fd       int
	network  *network
	up, down lane

	// The flow of the last packet: the next is likely of the same.
	flow  Flow
	count *Count
}

type network struct {
	*segment
	hops    int
	ports   []*wirePort
	flows   map[Flow]*Count
	capture *capture
}

type cut struct {
	a, b  netip.Addr
	proto Protocol
}

const (
	smallBuffer = 2048
	largeBuffer = vnetLen + 65536
	burst       = 64 // packets read from one device before the others have a turn

	// The runtime is not told of shorter waits: it would give the thread's turn
	// to another goroutine, and getting it back takes time. The garbage
	// collector is held up for no longer.
	shortWait = time.Millisecond
)

func newWire(p *plan, opt Options, fds map[*port]int) (*wire, error) {
	w := &wire{
		networks: map[string]*network{},
		rng:      rand.New(rand.NewPCG(opt.Seed, 0)),
		start:    time.Now(),
		scratch:  make([]byte, 0, largeBuffer),
		done:     make(chan struct{}),
	}
	var err error
	if w.epoll, err = unix.EpollCreate1(unix.EPOLL_CLOEXEC); err != nil {
		return nil, fmt.Errorf("netns: epoll: %w", err)
	}
	if w.wake, err = unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK); err != nil {
		unix.Close(w.epoll)
		return nil, fmt.Errorf("netns: eventfd: %w", err)
	}
	for _, s := range p.networks {
		n := &network{segment: s, flows: map[Flow]*Count{}}
		if s.name == scenario.Internet {
			n.hops = max(opt.Hops, 0)
			if opt.Hops == 0 {
				n.hops = 1
			}
		}
		for _, q := range s.ports {
			n.ports = append(n.ports, &wirePort{port: q, fd: fds[q], network: n, up: lane{link: q.Link}, down: lane{link: q.Link}})
		}
		w.ports = append(w.ports, n.ports...)
		w.networks[s.name] = n
	}
	watch := func(fd, index int) error {
		return unix.EpollCtl(w.epoll, unix.EPOLL_CTL_ADD, fd, &unix.EpollEvent{Events: unix.EPOLLIN, Fd: int32(index)})
	}
	err = watch(w.wake, -1)
	for i, q := range w.ports {
		if err == nil {
			err = watch(q.fd, i)
		}
	}
	if err != nil {
		unix.Close(w.epoll)
		unix.Close(w.wake)
		return nil, fmt.Errorf("netns: epoll: %w", err)
	}
	onThread(w.run)
	return w, nil
}

func (w *wire) now() int64 { return int64(time.Since(w.start)) }

// run is the wire's thread.
func (w *wire) run() {
	defer close(w.done)
	preferThread()
	spareProcessor(1)
	defer spareProcessor(-1)
	read := make([]byte, largeBuffer)
	events := make([]unix.EpollEvent, len(w.ports)+1)
	for {
		w.mu.Lock()
		if w.closed {
			w.mu.Unlock()
			return
		}
		w.deliver(w.now())
		wait := int64(-1)
		if due, ok := w.queue.next(); ok {
			wait = max(due-w.now(), 0)
		}
		w.mu.Unlock()

		n := epollWait(w.epoll, events, wait)

		w.mu.Lock()
		for _, ev := range events[:n] {
			if ev.Fd < 0 {
				continue // closed, or something new to wait for
			}
			w.drain(w.ports[ev.Fd], read)
			w.deliver(w.now())
		}
		w.mu.Unlock()
	}
}

// drain reads what a device has, but no more than a burst.
func (w *wire) drain(p *wirePort, buf []byte) {
	for range burst {
		n, _, errno := unix.RawSyscall(unix.SYS_READ, uintptr(p.fd), uintptr(unsafe.Pointer(&buf[0])), uintptr(len(buf)))
		if errno != 0 {
			return
		}
		w.receive(p, w.now(), buf[:n])
	}
}

// deliver writes what is due by now.
func (w *wire) deliver(now int64) {
	for {
		due, ok := w.queue.next()
		if !ok || due > now {
			return
		}
		_, p := w.queue.pop()
		if !p.down {
			p.down = true
			at, ok := p.to.down.admit(due, p.size, p.large, w.rng)
			if !ok {
				p.count.drop(p.n, p.size)
				w.recycle(p)
				continue
			}
			if at > now {
				w.queue.push(at, p)
				continue
			}
		}
		p.to.write(p.buf)
		w.recycle(p)
	}
}

func (p *wirePort) write(buf []byte) {
	unix.RawSyscall(unix.SYS_WRITE, uintptr(p.fd), uintptr(unsafe.Pointer(&buf[0])), uintptr(len(buf)))
}

// take is a packet with a copy of buf.
func (w *wire) take(buf []byte) *packet {
	class, size := 0, smallBuffer
	if len(buf) > smallBuffer {
		class, size = 1, largeBuffer
	}
	spare := w.spare[class]
	if len(spare) == 0 {
		return &packet{buf: append(make([]byte, 0, size), buf...)}
	}
	p := spare[len(spare)-1]
	w.spare[class] = spare[:len(spare)-1]
	*p = packet{buf: append(p.buf[:0], buf...)}
	return p
}

func (w *wire) recycle(p *packet) {
	class, limit := 0, 8192
	if cap(p.buf) > smallBuffer {
		class, limit = 1, 256
	}
	if len(w.spare[class]) < limit {
		w.spare[class] = append(w.spare[class], p)
	}
}

func (c *Count) drop(packets, bytes int) {
	c.DroppedPackets += uint64(packets)
	c.DroppedBytes += uint64(bytes)
}

// close ends the thread. The devices are the lab's to close.
func (w *wire) close() error {
	w.mu.Lock()
	w.closed = true
	w.mu.Unlock()
	unix.Write(w.wake, []byte{1, 0, 0, 0, 0, 0, 0, 0})
	<-w.done
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
