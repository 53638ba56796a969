package netns

import (
	"io"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/bodkin-net/bodkin/internal/lab/scenario"
	"github.com/bodkin-net/bodkin/internal/machine/nat"
)

// TestHostFirewall: a host lets in what it has asked for, and its rules hold.
func TestHostFirewall(t *testing.T) {
	t.Parallel()
	top := twoHosts(scenario.Link{})
	top.Hosts[0].Firewall = &nat.Behaviour{Mode: nat.Firewall, Filtering: apd, Unsolicited: nat.Unsolicited{TCP: nat.Reset}}
	l := newLab(t, top, Options{})
	for _, v4 := range []bool{true, false} {
		a, b := udp(t, l.Host("a"), 4000), udp(t, l.Host("b"), 5000)
		toA := netip.AddrPortFrom(l.Host("a").Addr(v4), 4000)
		b.send(toA, "unasked")
		a.mustNotReceive()
		a.send(netip.AddrPortFrom(l.Host("b").Addr(v4), 5000), "question")
		b.mustReceive("question")
		b.send(toA, "answer")
		a.mustReceive("answer")
		connect(t, l.Host("a"), l.Host("b"), netip.AddrPortFrom(l.Host("b").Addr(v4), 80))
		err := l.Host("b").Do(func() error {
			d := net.Dialer{Timeout: 2 * time.Second}
			_, err := d.Dial("tcp", netip.AddrPortFrom(l.Host("a").Addr(v4), 80).String())
			return err
		})
		if err == nil || !strings.Contains(err.Error(), "refused") {
			t.Errorf("dialled a host with a firewall: %v", err)
		}
		a.Close()
		b.Close()
	}
	// The hop that a gateway takes, a firewall does not.
	a, b := udp(t, l.Host("a"), 4000), udp(t, l.Host("b"), 5000)
	setTTL(t, a, 2) // one for the router of the internet
	a.send(netip.AddrPortFrom(l.Host("b").Addr(true), 5000), "near")
	b.mustReceive("near")
	if f := l.Status().Hosts[0].Firewall; f == nil || f.Dropped[nat.NoMapping]+f.Dropped[nat.Filtered] == 0 {
		t.Errorf("%+v", f)
	}
}

// TestBroadcastPassesAHostFirewall, to everyone and to the network's own
// address, and opens nothing.
func TestBroadcastPassesAHostFirewall(t *testing.T) {
	t.Parallel()
	top := twoNATs(linux, linux, scenario.Link{})
	top.Hosts = append(top.Hosts, scenario.Host{Name: "c", Port: on("lan-a", scenario.Link{}, "192.168.1.77/24"),
		Firewall: &nat.Behaviour{Mode: nat.Firewall, Filtering: apd}})
	l := newLab(t, top, Options{})
	a, c := udp(t, l.Host("a"), 4000), udp(t, l.Host("c"), 5000)
	raw, err := a.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	raw.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_BROADCAST, 1) })
	if err != nil {
		t.Fatal(err)
	}
	for _, to := range []string{"255.255.255.255", "192.168.1.255"} {
		a.send(netip.AddrPortFrom(netip.MustParseAddr(to), 5000), to)
		c.mustReceive(to)
	}
	a.send(netip.MustParseAddrPort("192.168.1.77:5000"), "unasked")
	c.mustNotReceive()
}

// TestUntranslated: whom a gateway does not translate to has a route back.
func TestUntranslated(t *testing.T) {
	t.Parallel()
	none := scenario.Link{}
	l := newLab(t, scenario.Topology{
		Hosts: []scenario.Host{
			{Name: "a", Port: on("lan", none, aIn)},
			{Name: "s", Port: on(scenario.Internet, none, sAddr)},
			{Name: "other", Port: on(scenario.Internet, none, "203.0.113.77/24")},
		},
		Gateways: []scenario.Gateway{{Name: "g", Inside: on("lan", none, gaIn), Outside: on(scenario.Internet, none, gaOut),
			NAT: nat.Behaviour{Untranslated: []nat.Remotes{{Prefix: netip.PrefixFrom(ip(sAddr), 32)}}}}},
	}, Options{})
	a, s, other := udp(t, l.Host("a"), 4000), udp(t, l.Host("s"), 3478), udp(t, l.Host("other"), 3478)
	for _, c := range []struct {
		to   socket
		at   netip.Addr
		seen netip.Addr
	}{{s, ip(sAddr), ip(aIn)}, {other, ip("203.0.113.77/24"), ip(gaOut)}} {
		a.send(netip.AddrPortFrom(c.at, 3478), "question")
		from := c.to.mustReceive("question")
		if from.Addr() != c.seen {
			t.Errorf("%v sees %v, want %v", c.at, from, c.seen)
		}
		c.to.send(from, "answer")
		a.mustReceive("answer")
	}
	other.send(netip.AddrPortFrom(ip(aIn), 4000), "unasked")
	a.mustNotReceive()
}

// TestZones: a gateway with a DMZ, several outside addresses, and a pair of
// addresses that stand for each other.
func TestZones(t *testing.T) {
	t.Parallel()
	none := scenario.Link{}
	dmz := on("dmz", none, "192.168.9.1/24")
	const paired, external = "192.168.1.3/24", "203.0.113.22/24"
	l := newLab(t, scenario.Topology{
		Hosts: []scenario.Host{
			{Name: "a", Port: on("lan", none, aIn)},
			{Name: "b", Port: on("lan", none, paired)},
			{Name: "web", Port: on("dmz", none, "192.168.9.2/24")},
			{Name: "s", Port: on(scenario.Internet, none, sAddr)},
		},
		Gateways: []scenario.Gateway{{Name: "g", NAT: linux, DMZ: &dmz,
			Inside: on("lan", none, gaIn), Outside: on(scenario.Internet, none, gaOut, "203.0.113.21/24"),
			Static: []nat.Static{{Internal: ip(paired), External: ip(external)}}}},
	}, Options{})
	a, b, web, s := udp(t, l.Host("a"), 4000), udp(t, l.Host("b"), 4001), udp(t, l.Host("web"), 4002), udp(t, l.Host("s"), 3478)

	toWeb := netip.AddrPortFrom(l.Host("web").Addr(true), 4002)
	a.send(toWeb, "from inside")
	if from := web.mustReceive("from inside"); from.Addr() != ip(aIn) {
		t.Errorf("inside is seen in the DMZ as %v", from)
	}
	web.send(netip.AddrPortFrom(ip(aIn), 4000), "answer")
	a.mustReceive("answer")
	web.send(netip.AddrPortFrom(ip(paired), 4001), "unasked")
	b.mustNotReceive()
	if from := mapped(web, s, ip(sAddr)); from.Addr() != ip(gaOut) && from.Addr() != netip.MustParseAddr("203.0.113.21") {
		t.Errorf("the DMZ is seen as %v", from)
	}
	if from := mapped(b, s, ip(sAddr)); from != netip.AddrPortFrom(ip(external), 4001) {
		t.Errorf("a paired host is seen as %v", from)
	}
	for _, side := range []string{InsideInterface, OutsideInterface, DMZInterface} {
		if _, err := addressOf(l.Host("g"), side); err != nil {
			t.Errorf("the gateway itself: %s: %v", side, err)
		}
	}
}

func addressOf(h *Host, iface string) (addrs []net.Addr, err error) {
	err = h.Do(func() error {
		i, err := net.InterfaceByName(iface)
		if err != nil {
			return err
		}
		addrs, err = i.Addrs()
		return err
	})
	return addrs, err
}

// TestSegmentsThroughGateway sends a stream and bursts of datagrams that no
// kernel has cut, through gateways whose outside links are smaller than what
// was agreed, so that they must be heard.
func TestSegmentsThroughGateway(t *testing.T) {
	t.Parallel()
	for _, plain := range []bool{false, true} {
		l := newLab(t, twoNATs(linux, linux, scenario.Link{MTU: 1400}), Options{Plain: plain})
		c, s := connect(t, l.Host("a"), l.Host("s"), netip.AddrPortFrom(ip(sAddr), 80))
		const n = 8 << 20
		go func() {
			c.Write(pattern(n))
			c.CloseWrite()
		}()
		s.SetReadDeadline(time.Now().Add(20 * time.Second))
		got, err := io.ReadAll(s)
		if err != nil || string(got) != string(pattern(n)) {
			t.Fatalf("%d of %d bytes, %v", len(got), n, err)
		}
		counters, err := l.Counters()
		if err != nil {
			t.Fatal(err)
		}
		if seen := counters.Sum(Flow{Network: scenario.Internet, Protocol: TCP, Src: ip(gaOut)}); seen.Packets < n/1400 || seen.DroppedPackets > 0 {
			t.Errorf("%+v", seen)
		}

		a, b := punched(t, l)
		raw, err := a.SyscallConn()
		if err != nil {
			t.Fatal(err)
		}
		raw.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), unix.SOL_UDP, unix.UDP_SEGMENT, 1000) })
		if err != nil {
			t.Fatal(err)
		}
		burst := string(pattern(10_500))
		a.send(a.peer, burst)
		for len(burst) > 0 {
			one := burst[:min(1000, len(burst))]
			b.mustReceive(one)
			burst = burst[len(one):]
		}
	}
}

// pattern is n bytes that do not look like others of their kind.
func pattern(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(i * 7 >> 3)
	}
	return b
}
