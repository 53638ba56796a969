package sim

import (
	"context"
	"io"
	"testing"
	"time"

	"github.com/bodkin-net/bodkin/internal/lab/scenario"
	"github.com/bodkin-net/bodkin/internal/machine/nat"
)

// Without delays a packet is delivered while it is sent, so that nothing but
// the work is measured.
func instant(t scenario.Topology) scenario.Topology {
	for i := range t.Hosts {
		t.Hosts[i].Port.Link = scenario.Link{}
	}
	for i := range t.Gateways {
		t.Gateways[i].Inside.Link, t.Gateways[i].Outside.Link = scenario.Link{}, scenario.Link{}
	}
	return t
}

// patient gateways do not forget whoever only receives.
var patient = nat.Behaviour{Timers: nat.Timers{UDP: 1000 * time.Hour}}

// One operation is one datagram of 1,200 bytes from one host to the other and
// back, through two gateways: two packets, six hops.
func BenchmarkUDPPingPong(b *testing.B) {
	n, err := New(instant(behind(patient, patient)), Options{})
	if err != nil {
		b.Fatal(err)
	}
	defer n.Close()
	x, _ := n.Host("a").ListenUDP(1)
	y, _ := n.Host("b").ListenUDP(1)
	msg := make([]byte, 1200)
	y.WriteTo(msg, udp("198.51.100.1:1"))
	buf := make([]byte, 2048)
	to, back := udp("203.0.113.1:1"), udp("198.51.100.1:1")
	for range b.N {
		x.WriteTo(msg, to)
		y.ReadFrom(buf)
		y.WriteTo(msg, back)
		x.ReadFrom(buf)
	}
}

// A window of 32 datagrams, one way.
func BenchmarkUDPStream(b *testing.B) {
	n, err := New(instant(behind(patient, patient)), Options{})
	if err != nil {
		b.Fatal(err)
	}
	defer n.Close()
	x, _ := n.Host("a").ListenUDP(1)
	y, _ := n.Host("b").ListenUDP(1)
	msg := make([]byte, 1200)
	y.WriteTo(msg, udp("198.51.100.1:1"))
	buf := make([]byte, 2048)
	to := udp("203.0.113.1:1")
	b.SetBytes(1200)
	for i := 0; i < b.N; i += 32 {
		for range 32 {
			x.WriteTo(msg, to)
		}
		for range 32 {
			y.ReadFrom(buf)
		}
	}
}

func BenchmarkTCPTransfer(b *testing.B) {
	n, err := New(public(scenario.Link{}), Options{})
	if err != nil {
		b.Fatal(err)
	}
	defer n.Close()
	l, _ := n.Host("b").ListenTCP(1)
	c, err := n.Host("a").DialTCP(context.Background(), 0, end("198.51.100.1:1"))
	if err != nil {
		b.Fatal(err)
	}
	d, _ := l.Accept()
	const size = 100 << 10
	b.SetBytes(size)
	msg, buf := make([]byte, size), make([]byte, size)
	for range b.N {
		c.Write(msg)
		io.ReadFull(d, buf)
	}
}
