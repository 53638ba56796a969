package sim

import (
	"bytes"
	"context"
	"errors"
	"net"
	"net/netip"
	"os"
	"slices"
	"syscall"
	"testing"
	"time"

	"github.com/bodkin-net/bodkin/internal/lab/scenario"
	"github.com/bodkin-net/bodkin/internal/machine/nat"
	"github.com/bodkin-net/bodkin/internal/machine/nat/ip"
)

func dialUDP(t *testing.T, h *Host, to string) net.Conn {
	t.Helper()
	c, err := h.DialUDP(0, end(to))
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// readFor reads with a deadline; nothing is "".
func readFor(t *testing.T, c net.Conn, d time.Duration) (string, error) {
	t.Helper()
	b := make([]byte, 70000)
	c.SetReadDeadline(time.Now().Add(d))
	n, err := c.Read(b)
	return string(b[:n]), err
}

// A connected socket hears of port unreachable, once, through a NAT too; an
// unconnected one never does.
func TestPortUnreachableIsToldToConnectedSockets(t *testing.T) {
	inBubble(t, behind(portRestricted, portRestricted), func(t *testing.T, n *Network) {
		for _, to := range []string{"192.0.2.1:9", "[2001:db8:1::1]:9"} {
			c := dialUDP(t, n.Host("a"), to)
			start := time.Now()
			c.Write([]byte("anybody there?"))
			if _, err := readFor(t, c, time.Second); !errors.Is(err, syscall.ECONNREFUSED) || time.Since(start) != 20*time.Millisecond {
				t.Errorf("%s: %v after %v", to, err, time.Since(start))
			}
			if _, err := readFor(t, c, time.Second); !errors.Is(err, os.ErrDeadlineExceeded) {
				t.Errorf("%s: told again: %v", to, err)
			}
			c.Write([]byte("really not?"))
			time.Sleep(time.Second)
			if _, err := c.Write([]byte("hello?")); !errors.Is(err, syscall.ECONNREFUSED) {
				t.Errorf("%s: a write: %v", to, err)
			}
			c.Close()
		}
	})
}

// A connected socket gets only what its peer sends, and another socket cannot
// have its port.
func TestConnectedUDP(t *testing.T) {
	inBubble(t, public(delay), func(t *testing.T, n *Network) {
		b := listenUDP(t, n.Host("b"), 9)
		c := dialUDP(t, n.Host("a"), "198.51.100.1:9")
		if _, err := n.Host("a").ListenUDP(uint16(c.LocalAddr().(*net.UDPAddr).Port)); !errors.Is(err, syscall.EADDRINUSE) {
			t.Error(err)
		}
		c.Write([]byte("hello"))
		_, from := receive(t, b)
		send(t, listenUDP(t, n.Host("b"), 10), from, "a stranger")
		send(t, b, from, "the peer")
		if msg, err := readFor(t, c, time.Second); msg != "the peer" || err != nil {
			t.Errorf("%q, %v", msg, err)
		}
		if c.RemoteAddr().String() != "198.51.100.1:9" || c.LocalAddr().(*net.UDPAddr).IP.String() != "192.0.2.1" {
			t.Errorf("%v to %v", c.LocalAddr(), c.RemoteAddr())
		}
	})
}

func TestSocketOnOneAddress(t *testing.T) {
	top := public(delay)
	top.Hosts[1].Port.Addrs = append(top.Hosts[1].Port.Addrs, netip.MustParsePrefix("198.51.100.2/24"))
	inBubble(t, top, func(t *testing.T, n *Network) {
		b, a := n.Host("b"), listenUDP(t, n.Host("a"), 7)
		one, err := b.ListenUDPAt(end("198.51.100.1:9"))
		if err != nil {
			t.Fatal(err)
		}
		two, err := b.ListenUDPAt(end("198.51.100.2:9"))
		if err != nil {
			t.Fatal(err)
		}
		for _, at := range []string{"198.51.100.1:9", "198.51.100.2:9"} {
			if _, err := b.ListenUDPAt(end(at)); !errors.Is(err, syscall.EADDRINUSE) {
				t.Errorf("%s again: %v", at, err)
			}
		}
		if _, err := b.ListenUDP(9); !errors.Is(err, syscall.EADDRINUSE) {
			t.Errorf("on all addresses: %v", err)
		}
		if _, err := b.ListenUDPAt(end("198.51.100.3:9")); !errors.Is(err, syscall.EADDRNOTAVAIL) {
			t.Errorf("on a foreign address: %v", err)
		}
		send(t, a, "198.51.100.2:9", "for two")
		expect(t, one, "", "")
		expect(t, two, "for two", "192.0.2.1:7")
		send(t, two, "192.0.2.1:7", "from two")
		expect(t, a, "from two", "198.51.100.2:9")
		if got, _ := b.Addrs(); len(got) != 3 {
			t.Errorf("%v", got)
		}
	})
}

// IP_MINTTL=2 keeps a connection with TTL 2 in SYN-SENT: the router that had to
// drop its SYN quotes it with TTL 1. Over IPv6 the error's own hop limit counts,
// so that 255 it must be.
func TestHeldSYN(t *testing.T) {
	for _, c := range []struct {
		to     string
		minTTL int
		held   bool
	}{{"203.0.113.1:2222", 0, false}, {"203.0.113.1:2222", 2, true}, {"[2001:db8:b::2]:2222", 2, false}, {"[2001:db8:b::2]:2222", 255, true}} {
		inBubble(t, behind(portRestricted, portRestricted), func(t *testing.T, n *Network) {
			a, b := n.Host("a"), n.Host("b")
			d, err := a.StartTCP(1111, end(c.to), TCPOptions{TTL: 2, MinTTL: c.minTTL})
			if err != nil {
				t.Fatal(err)
			}
			time.Sleep(100 * time.Millisecond)
			if err := d.Set(TCPOptions{}); err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithTimeout(context.Background(), 900*time.Millisecond)
			defer cancel()
			back := "198.51.100.1:1111"
			if !end(c.to).Addr().Is4() {
				back = "[2001:db8:a::2]:1111"
			}
			other, otherErr := b.DialTCP(ctx, 2222, end(back))
			got, err := d.Wait(ctx)
			if (err == nil) != c.held || (otherErr == nil) != c.held {
				t.Fatalf("%s, minimum %d: %v, %v", c.to, c.minTTL, err, otherErr)
			}
			if c.held {
				other.Write([]byte("through"))
				if msg, err := readFor(t, got, time.Second); msg != "through" {
					t.Errorf("%q, %v", msg, err)
				}
				got.Close()
				other.Close()
			}
		})
	}
}

// ICMP errors end no open connection, but say why it timed out.
func TestSoftError(t *testing.T) {
	inBubble(t, public(delay), func(t *testing.T, n *Network) {
		a, b := connected(t, n)
		n.Cut(Rule{})
		a.Write([]byte("x"))
		n.enter()
		ours := ip.AppendTCP(nil, a.flow.local, a.flow.remote, 64, &ip.Segment{Seq: a.snd.una, Flags: ip.ACK})
		n.Host("a").receive(n.Host("a").port, &buffer{b: ip.AppendError(nil, addr("192.0.2.254"), ip.HostUnreachable, ours)})
		n.leave()
		if _, err := a.Read(make([]byte, 1)); !errors.Is(err, syscall.EHOSTUNREACH) {
			t.Error(err)
		}
		a.Close()
		b.Close()
	})
}

// Datagrams larger than the MTU go in parts, whatever their order, and come out
// whole. Without one of them there is nothing.
func TestFragmentsBetweenHosts(t *testing.T) {
	link := scenario.Link{Delay: 5 * time.Millisecond, Jitter: 20 * time.Millisecond, Repeat: 0.3}
	inBubble(t, public(link), func(t *testing.T, n *Network) {
		for _, to := range []string{"198.51.100.1:9", "[2001:db8:2::1]:9"} {
			a := dialUDP(t, n.Host("a"), to)
			b := listenUDP(t, n.Host("b"), 9)
			for _, size := range []int{1452, 1453, 1472, 1473, 3000, 65507} {
				msg := bytes.Repeat([]byte{byte(size), byte(size >> 8), 3}, size)[:size]
				if _, err := a.Write(msg); err != nil {
					t.Fatal(err)
				}
				got := make([]byte, 70000)
				b.SetReadDeadline(time.Now().Add(time.Second))
				k, _, err := b.ReadFrom(got)
				if err != nil || !bytes.Equal(got[:k], msg) {
					t.Errorf("%s: %d bytes arrived of %d, %v", to, k, size, err)
				}
				for err == nil { // what arrived twice
					_, _, err = b.ReadFrom(got)
				}
			}
			a.Close()
			b.Close()
		}
	})
	inBubble(t, public(scenario.Link{Loss: 0.3}), func(t *testing.T, n *Network) {
		order, _ := sample(t, n, 300, 5000, time.Second) // (0.7*0.7)^4 = 6%
		if len(order) < 8 || len(order) > 30 {
			t.Errorf("%d of 300 arrived", len(order))
		}
	})
}

// The memory for parts is bounded, and is free again after half a minute. Each
// packet of the first 200 lacks its end.
func TestReassemblyIsBounded(t *testing.T) {
	inBubble(t, public(scenario.Link{}), func(t *testing.T, n *Network) {
		h := n.Host("b")
		whole := ip.AppendUDP(nil, end("192.0.2.1:7"), end("198.51.100.1:9"), 64, make([]byte, 2000))
		cut := func(times int, id uint32) {
			n.enter()
			defer n.leave()
			a := n.Host("a")
			a.nextID = id
			for range times {
				a.sendFragments(&buffer{b: slices.Clone(whole)}, 1500)
			}
		}
		first := func(id byte) {
			part := slices.Clone(whole[:20+1480])
			part[2], part[3], part[4], part[5], part[6], part[7] = 1500>>8, 1500&255, id, id, 0x20, 0
			sumHeader(part)
			n.enter()
			h.receive(h.port, &buffer{b: part, on: h.port.segment})
			n.leave()
		}
		for id := range 200 {
			first(byte(id))
		}
		n.enter()
		count, size := len(h.partial.m), h.partial.bytes
		n.leave()
		if count != reassemblyCount || size != reassemblyCount*1480 {
			t.Errorf("%d packets of %d bytes are kept", count, size)
		}
		b := listenUDP(t, h, 9)
		cut(1000, 40000)
		if msg, _ := receive(t, b); msg != "" {
			t.Errorf("%d bytes arrived", len(msg))
		}
		time.Sleep(reassemblyTime)
		cut(1, 50000)
		if msg, _ := receive(t, b); len(msg) != 2000 {
			t.Errorf("%d bytes after the time is over", len(msg))
		}
		n.enter()
		count, size = len(h.partial.m), h.partial.bytes
		n.leave()
		if count != 0 || size != 0 {
			t.Errorf("%d packets of %d bytes are still kept", count, size)
		}
	})
}

// Parts that overlap are thrown away with all that belongs to them (RFC 5722).
func TestOverlappingFragments(t *testing.T) {
	var p partial
	for _, c := range []struct {
		offset, size int
		more, ok     bool
	}{{0, 16, true, true}, {0, 16, true, true}, {32, 8, false, true}, {16, 8, true, true}, {16, 16, true, false}, {8, 8, true, false}, {40, 8, true, false}, {24, 4, false, false}} {
		if got := p.add(fragment{c.offset, make([]byte, c.size)}, c.more); got != c.ok {
			t.Errorf("%+v: %v", c, got)
		}
	}
}

// Broadcasts and multicasts reach every host of a network that listens, the
// sender too, and stay there: no gateway makes one of what it passes on.
func TestBroadcast(t *testing.T) {
	top := home(fullCone)
	top.Hosts = append(top.Hosts, scenario.Host{Name: "c", Port: at("home-a", delay, "10.0.0.4/24")})
	group := netip.MustParseAddr("239.255.255.250")
	inBubble(t, top, func(t *testing.T, n *Network) {
		a, b, c, s := listenUDP(t, n.Host("a"), 1), listenUDP(t, n.Host("b"), 1), listenUDP(t, n.Host("c"), 1), listenUDP(t, n.Host("s"), 1)
		c.(*udpConn).Join(group)
		a.(*udpConn).Join(group)
		for _, to := range []string{"255.255.255.255:1", "10.0.0.255:1", "239.255.255.250:1"} {
			send(t, a, to, to)
			expect(t, c, to, "10.0.0.2:1")
			if end(to).Addr() != group {
				expect(t, b, to, "10.0.0.2:1")
			}
			expect(t, a, to, "10.0.0.2:1")
			for _, nobody := range []net.PacketConn{a, b, s} {
				expect(t, nobody, "", "")
			}
		}
		send(t, s, "255.255.255.255:1", "all the world")
		expect(t, c, "", "")
	})
	inBubble(t, nested(fullCone, fullCone), func(t *testing.T, n *Network) {
		a := listenUDP(t, n.Host("a"), 7)
		send(t, a, "100.127.255.255:1", "everyone at the provider's")
		time.Sleep(time.Second)
		if got := n.Status().Gateways[2].Inside.Received; got.Packets != 0 {
			t.Errorf("a broadcast of another network's reached the carrier: %+v", got)
		}
	})
}

func TestRepeat(t *testing.T) {
	// 20% on each of two links: 0.64 once, 0.32 twice, 0.04 four times.
	inBubble(t, public(scenario.Link{Repeat: 0.2}), func(t *testing.T, n *Network) {
		order, _ := sample(t, n, 10000, 100, time.Millisecond)
		if len(order) < 14200 || len(order) > 14600 {
			t.Errorf("%d of 10000 arrived", len(order))
		}
		if !slices.IsSorted(order) {
			t.Error("out of order")
		}
	})
}

// Nobody on the own network has the address: after three seconds of asking for
// him the dial fails.
func TestNoNeighbour(t *testing.T) {
	inBubble(t, behind(fullCone, fullCone), func(t *testing.T, n *Network) {
		for _, to := range []string{"10.0.0.77:80", "[2001:db8:a::77]:80"} {
			start := time.Now()
			_, err := n.Host("a").DialTCP(context.Background(), 0, end(to))
			if !errors.Is(err, syscall.EHOSTUNREACH) || time.Since(start) != 3*time.Second {
				t.Errorf("%s: %v after %v", to, err, time.Since(start))
			}
		}
	})
}

// A packet from the network that claims to come from the host itself is
// dropped: that is what a hairpin with the internal source looks like to who
// sends to himself.
func TestMartian(t *testing.T) {
	for hairpin, from := range map[nat.Hairpin]string{nat.HairpinInternalSource: "", nat.HairpinExternalSource: "198.51.100.1:7"} {
		inBubble(t, home(nat.Behaviour{Hairpin: hairpin}), func(t *testing.T, n *Network) {
			a, s := listenUDP(t, n.Host("a"), 7), listenUDP(t, n.Host("s"), 1)
			send(t, a, "192.0.2.1:1", "")
			expect(t, s, "", "198.51.100.1:7")
			send(t, a, "198.51.100.1:7", "to myself")
			if _, got := receive(t, a); got != from {
				t.Errorf("hairpin %v: from %q, want %q", hairpin, got, from)
			}
		})
	}
}
