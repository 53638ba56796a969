package netns

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"sync/atomic"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/bodkin-net/bodkin/internal/lab/scenario"
)

// The benchmarks of the gateway as a router: through one of ours, and beside it
// through the same wire without a gateway, with offloads and without. Load
// generator, kernel and wire share the machine's processors.

var ways = []struct {
	name    string
	gateway bool
	plain   bool
}{
	{"forward/offload", false, false},
	{"gateway/offload", true, false},
	{"forward/plain", false, true},
	{"gateway/plain", true, true},
}

// wayLab has a host a on the internet or behind a gateway, and s.
func wayLab(b *testing.B, gateway, plain bool) *Lab {
	none := scenario.Link{}
	top := scenario.Topology{Hosts: []scenario.Host{
		{Name: "s", Port: on(scenario.Internet, none, sAddr)},
		{Name: "a", Port: on(scenario.Internet, none, xAddr)},
	}}
	if gateway {
		top.Hosts[1].Port = on("lan-a", none, aIn)
		top.Gateways = []scenario.Gateway{{Name: "ga", NAT: linux, Inside: on("lan-a", none, gaIn), Outside: on(scenario.Internet, none, gaOut)}}
	}
	return newLab(b, top, Options{UserWire: true, Plain: plain})
}

// BenchmarkGatewayTCP sends 1 GB over a connection in each iteration.
func BenchmarkGatewayTCP(b *testing.B) {
	for _, way := range ways {
		b.Run(way.name, func(b *testing.B) {
			l := wayLab(b, way.gateway, way.plain)
			c, s := connect(b, l.Host("a"), l.Host("s"), netip.AddrPortFrom(ip(sAddr), 80))
			unpaced(b, c)
			const size, block = 1 << 30, 1 << 20
			b.SetBytes(size)
			done := make(chan error, 1)
			go func() { done <- drainConn(s) }()
			buf := make([]byte, block)
			work := processorTime(b)
			for b.Loop() {
				for range size / block {
					if _, err := c.Write(buf); err != nil {
						b.Fatal(err)
					}
				}
			}
			if err := c.CloseWrite(); err != nil {
				b.Fatal(err)
			}
			if err := <-done; err != nil {
				b.Fatal(err)
			}
			b.ReportMetric(float64(b.N)*size*8/1e9/b.Elapsed().Seconds(), "Gbit/s")
			b.ReportMetric(float64(processorTime(b)-work)/1e6/float64(b.N), "cpu-ms/GB")
		})
	}
}

// unpaced takes a congestion control without timers of its own, whatever the
// machine prefers.
func unpaced(b *testing.B, c *net.TCPConn) {
	raw, err := c.SyscallConn()
	if err != nil {
		b.Fatal(err)
	}
	raw.Control(func(fd uintptr) { err = unix.SetsockoptString(int(fd), unix.IPPROTO_TCP, unix.TCP_CONGESTION, "cubic") })
	if err != nil {
		b.Fatal(err)
	}
}

// processorTime is what this process has used, generator, kernel and wire in
// one. It says what is possible on a machine that does nothing else.
func processorTime(b *testing.B) time.Duration {
	var u unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

func drainConn(c net.Conn) error {
	_, err := io.CopyBuffer(struct{ io.Writer }{io.Discard}, struct{ io.Reader }{c}, make([]byte, 1<<20))
	return err
}

// BenchmarkGatewaySmallPackets sends datagrams of 64 bytes for a second in each
// iteration, as fast as one thread does: each in a call of its own, from one
// socket or from several in turn.
func BenchmarkGatewaySmallPackets(b *testing.B) {
	for _, way := range ways {
		for _, flows := range []int{1, 8} {
			b.Run(fmt.Sprintf("%s/%d", way.name, flows), func(b *testing.B) {
				benchmarkSmallPackets(b, wayLab(b, way.gateway, way.plain), flows)
			})
		}
	}
}

const smallPayload = 64 - 28 // the rest is headers

func benchmarkSmallPackets(b *testing.B, l *Lab, flows int) {
	s := udp(b, l.Host("s"), 5000)
	forceBuffer(b, s, unix.SO_RCVBUFFORCE, 32<<20)
	var from []int
	for range flows {
		a := connected(b, l.Host("a"), netip.AddrPortFrom(ip(sAddr), 5000))
		forceBuffer(b, a, unix.SO_SNDBUFFORCE, 1<<20)
		f, fd := blocking(b, a)
		defer f.Close()
		from = append(from, fd)
	}
	got := newCounter(b, s)
	sent, took, work := 0, time.Duration(0), processorTime(b)
	for b.Loop() {
		n, d := pour(b, from, time.Second)
		sent += n
		took += d
	}
	time.Sleep(200 * time.Millisecond) // what is on its way
	arrived := float64(got.stop())
	b.ReportMetric(arrived/took.Seconds(), "packets/s")
	b.ReportMetric(float64(processorTime(b)-work)/arrived, "cpu-ns/packet")
	b.ReportMetric(100*(1-arrived/float64(sent)), "%lost")
}

func connected(b *testing.B, h *Host, to netip.AddrPort) socket {
	var c *net.UDPConn
	err := h.Do(func() (err error) {
		c, err = net.DialUDP("udp4", nil, net.UDPAddrFromAddrPort(to))
		return err
	})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { c.Close() })
	return socket{c, b}
}

func forceBuffer(b *testing.B, s socket, option, size int) {
	raw, err := s.SyscallConn()
	if err != nil {
		b.Fatal(err)
	}
	raw.Control(func(fd uintptr) { unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, option, size) })
}

// blocking is a descriptor of a socket outside of the runtime's poller.
func blocking(b *testing.B, s socket) (*os.File, int) {
	f, err := s.File()
	if err != nil {
		b.Fatal(err)
	}
	fd := int(f.Fd()) // which makes it block
	return f, fd
}

// pour sends for so long, from each socket in turn.
func pour(b *testing.B, from []int, d time.Duration) (sent int, took time.Duration) {
	payload := make([]byte, smallPayload)
	start := time.Now()
	for ; took < d; took = time.Since(start) {
		for i := range 32 {
			if _, _, errno := unix.Syscall6(unix.SYS_SENDTO, uintptr(from[i%len(from)]), uintptr(unsafe.Pointer(&payload[0])), uintptr(len(payload)), 0, 0, 0); errno != 0 {
				b.Fatal(errno)
			}
			sent++
		}
	}
	return sent, took
}

// counter counts what a socket receives, which the kernel may hand it joined.
type counter struct {
	n    atomic.Int64
	f    *os.File
	fd   int
	done chan error
}

type message struct {
	header unix.Msghdr
	n      uint32
	_      [4]byte
}

func newCounter(b *testing.B, s socket) *counter {
	c := &counter{done: make(chan error, 1)}
	c.f, c.fd = blocking(b, s)
	if err := unix.SetsockoptInt(c.fd, unix.SOL_UDP, unix.UDP_GRO, 1); err != nil {
		b.Fatal(err)
	}
	go func() {
		const batch = 16
		buffers := make([][1 << 16]byte, batch)
		var vectors [batch]unix.Iovec
		var messages [batch]message
		for i := range messages {
			vectors[i] = unix.Iovec{Base: &buffers[i][0], Len: uint64(len(buffers[i]))}
			messages[i].header = unix.Msghdr{Iov: &vectors[i], Iovlen: 1}
		}
		for {
			n, _, errno := unix.Syscall6(unix.SYS_RECVMMSG, uintptr(c.fd), uintptr(unsafe.Pointer(&messages[0])), batch, unix.MSG_WAITFORONE, 0, 0)
			if errno != 0 || messages[0].n == 0 {
				c.done <- errno
				return
			}
			for _, m := range messages[:n] {
				c.n.Add(int64(m.n) / smallPayload)
			}
		}
	}()
	return c
}

func (c *counter) stop() int64 {
	if err := unix.Shutdown(c.fd, unix.SHUT_RDWR); err != nil && !errors.Is(err, unix.ENOTCONN) {
		panic(err)
	}
	<-c.done
	c.f.Close()
	return c.n.Load()
}
