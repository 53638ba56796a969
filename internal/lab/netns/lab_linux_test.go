package netns

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/bodkin-net/bodkin/internal/lab/scenario"
	"github.com/bodkin-net/bodkin/internal/machine/nat"
)

// The addresses of the tests: a and b behind gateways ga and gb, the server s
// on the internet.
const (
	aIn, gaIn, gaOut = "192.168.1.2/24", "192.168.1.1/24", "203.0.113.1/24"
	bIn, gbIn, gbOut = "192.168.2.2/24", "192.168.2.1/24", "203.0.113.2/24"
	sAddr            = "203.0.113.9/24"
	xAddr            = "203.0.113.10/24" // of a stranger
)

var linux = nat.Behaviour{Filtering: nat.AddressAndPortDependent}

func on(network string, link scenario.Link, addrs ...string) scenario.Port {
	p := scenario.Port{Network: network, Link: link}
	for _, a := range addrs {
		p.Addrs = append(p.Addrs, netip.MustParsePrefix(a))
	}
	return p
}

func ip(prefix string) netip.Addr { return netip.MustParsePrefix(prefix).Addr() }

// twoNATs has a link at each of the gateways' outsides and at the server.
func twoNATs(a, b nat.Behaviour, link scenario.Link) scenario.Topology {
	none := scenario.Link{}
	return scenario.Topology{
		Hosts: []scenario.Host{
			{Name: "a", Port: on("lan-a", none, aIn)},
			{Name: "b", Port: on("lan-b", none, bIn)},
			{Name: "s", Port: on(scenario.Internet, link, sAddr)},
		},
		Gateways: []scenario.Gateway{
			{Name: "ga", Inside: on("lan-a", none, gaIn), Outside: on(scenario.Internet, link, gaOut), NAT: a},
			{Name: "gb", Inside: on("lan-b", none, gbIn), Outside: on(scenario.Internet, link, gbOut), NAT: b},
		},
	}
}

func newLab(t testing.TB, top scenario.Topology, opt Options) *Lab {
	t.Helper()
	Need(t)
	l, err := New(top, opt)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	})
	return l
}

// over runs a test with gateways of ours and with those of the kernel, both on
// the user wire.
func over(t *testing.T, f func(t *testing.T, opt Options)) {
	for name, opt := range map[string]Options{"ours": {}, "nftables": {Kernel: true, UserWire: true}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f(t, opt)
		})
	}
}

// socket is a UDP socket of a host.
type socket struct {
	*net.UDPConn
	t testing.TB
}

func udp(t testing.TB, h *Host, port uint16) socket {
	t.Helper()
	var c *net.UDPConn
	err := h.Do(func() (err error) {
		c, err = net.ListenUDP("udp", &net.UDPAddr{Port: int(port)})
		if err != nil {
			return err
		}
		// A busy machine reads late; what waits is not lost.
		raw, err := c.SyscallConn()
		if err != nil {
			return err
		}
		raw.Control(func(fd uintptr) { unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 16<<20) })
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return socket{c, t}
}

func (s socket) send(to netip.AddrPort, b string) {
	s.t.Helper()
	if _, err := s.WriteToUDPAddrPort([]byte(b), to); err != nil {
		s.t.Fatal(err)
	}
}

// receive is the next datagram that comes within d.
func (s socket) receive(d time.Duration) (string, netip.AddrPort, bool) {
	s.t.Helper()
	s.SetReadDeadline(time.Now().Add(d))
	var b [2048]byte
	n, from, err := s.ReadFromUDPAddrPort(b[:])
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return "", netip.AddrPort{}, false
	}
	if err != nil {
		s.t.Fatal(err)
	}
	return string(b[:n]), netip.AddrPortFrom(from.Addr().Unmap(), from.Port()), true
}

func (s socket) mustReceive(want string) netip.AddrPort {
	s.t.Helper()
	got, from, ok := s.receive(20 * time.Second)
	if !ok || got != want {
		s.t.Fatalf("received %q (%v), want %q", got, ok, want)
	}
	return from
}

func (s socket) mustNotReceive() {
	s.t.Helper()
	if got, from, ok := s.receive(300 * time.Millisecond); ok {
		s.t.Fatalf("received %q from %v, want nothing", got, from)
	}
}

// mapped is the external endpoint that a server sees.
func mapped(s, server socket, serverAddr netip.Addr) netip.AddrPort {
	s.t.Helper()
	s.send(netip.AddrPortFrom(serverAddr, server.port()), "who")
	return server.mustReceive("who")
}

func (s socket) port() uint16 { return uint16(s.LocalAddr().(*net.UDPAddr).Port) }

func TestRoundTrip(t *testing.T) {
	for name, opt := range map[string]Options{"ours": {}, "nftables": {Kernel: true}} {
		t.Run(name, func(t *testing.T) { testRoundTrip(t, opt) })
	}
}

func testRoundTrip(t *testing.T, opt Options) {
	l := newLab(t, twoNATs(linux, linux, scenario.Link{Delay: 20 * time.Millisecond}), opt)
	a, b := punched(t, l)
	// The least of several: the machine may be busy, but never early, and not so
	// busy each time as if a link delayed twice.
	var trips []time.Duration
	for i := range 20 {
		word := fmt.Sprint(i)
		start := time.Now()
		a.send(a.peer, word)
		b.mustReceive(word)
		b.send(b.peer, word)
		a.mustReceive(word)
		trips = append(trips, time.Since(start))
	}
	slices.Sort(trips)
	t.Logf("round trips: least %v, median %v, most %v", trips[0], trips[len(trips)/2], trips[len(trips)-1])
	if trips[0] < 80*time.Millisecond || trips[0] >= 160*time.Millisecond {
		t.Errorf("round trips %v, want 80 ms", trips)
	}
}

type end struct {
	socket
	peer netip.AddrPort
}

// punched makes a hole between a and b: peer is where the other one sends.
func punched(t testing.TB, l *Lab) (a, b end) {
	t.Helper()
	s := udp(t, l.Host("s"), 3478)
	a, b = end{socket: udp(t, l.Host("a"), 4000)}, end{socket: udp(t, l.Host("b"), 5000)}
	aOut, bOut := mapped(a.socket, s, ip(sAddr)), mapped(b.socket, s, ip(sAddr))
	a.peer, b.peer = bOut, aOut
	// Of two that are sent at once either may be the first on the wire.
	await(t, "a hole to a", func() bool {
		a.send(bOut, "open")
		b.send(aOut, "open")
		_, _, ok := a.receive(200 * time.Millisecond)
		return ok
	})
	for {
		if _, _, ok := a.receive(100 * time.Millisecond); !ok {
			break
		}
	}
	// The first packet of a met a closed gateway, or a link that delays it.
	for {
		if _, _, ok := b.receive(100 * time.Millisecond); !ok {
			break
		}
	}
	return a, b
}

// joinGroup lets a socket receive what is sent to a multicast address.
func joinGroup(s socket, group string) error {
	raw, err := s.SyscallConn()
	if err != nil {
		return err
	}
	raw.Control(func(fd uintptr) {
		err = unix.SetsockoptIPMreqn(int(fd), unix.IPPROTO_IP, unix.IP_ADD_MEMBERSHIP, &unix.IPMreqn{
			Multiaddr: netip.MustParseAddr(group).As4(), Ifindex: 2})
	})
	return err
}
