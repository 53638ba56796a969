package netns

import (
	"io"
	"net/netip"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/bodkin-net/bodkin/internal/lab/scenario"
)

// BenchmarkThroughput sends through two NATs, 40 ms apart on this process's
// wire, or on the kernel's.
func BenchmarkThroughput(b *testing.B) {
	far := scenario.Link{Delay: 20 * time.Millisecond}
	for _, wire := range []struct {
		name string
		link scenario.Link
	}{{"40ms", far}, {"kernel", scenario.Link{}}} {
		b.Run(wire.name+"/tcp", func(b *testing.B) {
			l := newLab(b, twoNATs(linux, linux, wire.link), Options{Kernel: true})
			benchmarkTCP(b, l)
		})
		// One datagram a call, and a burst of 1200 bytes each as QUIC sends.
		for _, udp := range []struct {
			name    string
			segment int
		}{{"udp", 0}, {"udp-gso", 1200}} {
			b.Run(wire.name+"/"+udp.name, func(b *testing.B) {
				l := newLab(b, twoNATs(linux, linux, wire.link), Options{Kernel: true})
				benchmarkUDP(b, l, udp.segment)
			})
		}
	}
}

func benchmarkTCP(b *testing.B, l *Lab) {
	c, s := connect(b, l.Host("a"), l.Host("s"), netip.AddrPortFrom(ip(sAddr), 80))
	const block = 1 << 20
	b.SetBytes(block)
	done := make(chan error, 1)
	go func() {
		_, err := io.CopyBuffer(struct{ io.Writer }{io.Discard}, s, make([]byte, block))
		done <- err
	}()
	buf := make([]byte, block)
	for b.Loop() {
		if _, err := c.Write(buf); err != nil {
			b.Fatal(err)
		}
	}
	if err := c.CloseWrite(); err != nil {
		b.Fatal(err)
	}
	if err := <-done; err != nil {
		b.Fatal(err)
	}
}

// benchmarkUDP offers what fits, as a window does: not more than 4 MB are on
// their way. What is lost is offered again after a while without arrivals.
func benchmarkUDP(b *testing.B, l *Lab, segment int) {
	x, y := punched(b, l)
	for _, s := range []socket{x.socket, y.socket} {
		raw, _ := s.SyscallConn()
		raw.Control(func(fd uintptr) {
			unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 8<<20)
			unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_SNDBUFFORCE, 8<<20)
			if segment > 0 {
				unix.SetsockoptInt(int(fd), unix.SOL_UDP, unix.UDP_SEGMENT, segment)
				unix.SetsockoptInt(int(fd), unix.SOL_UDP, unix.UDP_GRO, 1)
			}
		})
	}
	const datagram, window = 1200, 4 << 20
	size := datagram
	if segment > 0 {
		size = 50 * datagram
	}
	b.SetBytes(int64(size))
	var got atomic.Int64
	done := make(chan struct{})
	room := make(chan struct{}, 1)
	go func() {
		defer close(done)
		buf := make([]byte, 1<<16)
		for {
			n, _, err := y.ReadFromUDPAddrPort(buf)
			if err != nil {
				return
			}
			got.Add(int64(n))
			select {
			case room <- struct{}{}:
			default:
			}
		}
	}()
	buf := make([]byte, size)
	var sent, lost int64
	y.SetReadDeadline(time.Time{})
	for b.Loop() {
		for sent-lost-got.Load() >= window {
			select {
			case <-room:
			case <-time.After(200 * time.Millisecond):
				lost = sent - got.Load()
			}
		}
		x.send(x.peer, string(buf))
		sent += int64(size)
	}
	b.StopTimer()
	b.ReportMetric(float64(got.Load())*8/1e6/b.Elapsed().Seconds(), "Mbit/s")
	b.ReportMetric(100*float64(lost)/float64(sent), "%lost")
	y.Close()
	<-done
}
