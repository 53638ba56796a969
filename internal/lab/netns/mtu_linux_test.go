package netns

import (
	"encoding/binary"
	"errors"
	"net/netip"
	"strings"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/bodkin-net/bodkin/internal/lab/scenario"
	build "github.com/bodkin-net/bodkin/internal/machine/nat/ip"
)

// TestMTU: a host knows the MTU of its link, at once when it changes. Who sends
// to it does not: a network tells nobody, as no switch does, nor a host that was
// given another MTU by hand.
func TestMTU(t *testing.T) {
	t.Parallel()
	l := newLab(t, twoHosts(scenario.Link{MTU: 1300}), Options{})
	a, b := udp(t, l.Host("a"), 1), udp(t, l.Host("b"), 1)
	to := netip.AddrPortFrom(l.Host("b").Addr(true), 1)
	largest := strings.Repeat("x", 1300-28)
	a.discover(unix.IP_PMTUDISC_DO)
	a.send(to, largest)
	b.mustReceive(largest)
	if _, err := a.WriteToUDPAddrPort([]byte(largest+"x"), to); !errors.Is(err, unix.EMSGSIZE) {
		t.Errorf("larger than its link: %v", err)
	}
	a.discover(unix.IP_PMTUDISC_DONT)
	a.send(to, largest+"x")
	b.mustReceive(largest + "x") // in parts

	b.send(netip.AddrPortFrom(l.Host("a").Addr(true), 1), largest+"xx")
	a.mustNotReceive()
	if err := l.Host("a").Do(func() error { return setMTU(HostInterface, 1500) }); err != nil {
		t.Fatal(err)
	}
	a.send(to, largest+"x")
	b.mustNotReceive()
	st := l.Status()
	atA, atB := st.Hosts[0].Port, st.Hosts[1].Port
	for _, c := range []struct {
		name          string
		packets, size uint64
		got           Count
	}{
		{"a sent", 1, 1301, atA.Sent}, {"b received", 0, 0, atB.Received},
		{"b sent", 1, 1302, atB.Sent}, {"a received", 1, 1302, atA.Received},
	} {
		if c.got.DroppedPackets != c.packets || c.got.DroppedBytes != c.size || c.got.Packets < c.packets {
			t.Errorf("%s: %+v, want %d packets of %d bytes lost", c.name, c.got, c.packets, c.size)
		}
	}

	for _, c := range []struct{ link, device int }{{9000, 9000}, {0, 1500}, {1400, 1400}, {600, 1280}, {65535, largestMTU}} {
		if err := l.SetLink("a", scenario.Link{MTU: c.link}); err != nil {
			t.Fatal(err)
		}
		if got := mtuOf(t, l.Host("a"), HostInterface); got != c.device {
			t.Errorf("on a link with an MTU of %d the device has %d, want %d", c.link, got, c.device)
		}
	}
	a.discover(unix.IP_PMTUDISC_DO)
	a.send(to, largest+"x")
	b.mustReceive(largest + "x")
	v6 := netip.AddrPortFrom(l.Host("b").Addr(false), 1)
	a.send(v6, "IPv6 is as it was")
	b.mustReceive("IPv6 is as it was")
}

// TestLeasedMTU: of the MTU of a link and the one that DHCP tells of, a host
// takes the smaller one.
func TestLeasedMTU(t *testing.T) {
	t.Parallel()
	top := leased(scenario.Link{MTU: 1450})
	top.Gateways[0].DHCP.MTU = 1400
	l := newLab(t, top, Options{})
	for _, c := range []struct{ link, device int }{{1450, 1400}, {1300, 1300}, {576, 576}, {0, 1400}} {
		if err := l.SetLink("a", scenario.Link{MTU: c.link}); err != nil {
			t.Fatal(err)
		}
		if got := mtuOf(t, l.Host("a"), HostInterface); got != c.device {
			t.Errorf("on a link with an MTU of %d the device has %d, want %d", c.link, got, c.device)
		}
	}
}

func mtuOf(t *testing.T, h *Host, iface string) (mtu int) {
	t.Helper()
	err := h.Do(func() error {
		l, err := netlink.LinkByName(iface)
		if err == nil {
			mtu = l.Attrs().MTU
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return mtu
}

// discover says how a socket finds path MTUs.
func (s socket) discover(how int) {
	s.t.Helper()
	raw, err := s.SyscallConn()
	if err != nil {
		s.t.Fatal(err)
	}
	raw.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), unix.IPPROTO_IP, unix.IP_MTU_DISCOVER, how) })
	if err != nil {
		s.t.Fatal(err)
	}
}

// TestSetLinkChangesTheMTU: a gateway, of ours or the kernel's, says which MTU
// its link has now, and the kernel of a host behind it believes that.
func TestSetLinkChangesTheMTU(t *testing.T) { over(t, testSetLinkChangesTheMTU) }

func testSetLinkChangesTheMTU(t *testing.T, opt Options) {
	link := scenario.Link{}
	l := newLab(t, twoNATs(linux, linux, link), opt)
	a, s := udp(t, l.Host("a"), 4000), udp(t, l.Host("s"), 3478)
	to, large := netip.AddrPortFrom(ip(sAddr), 3478), strings.Repeat("x", 1372)
	a.discover(unix.IP_PMTUDISC_DO)
	a.send(to, large)
	s.mustReceive(large)
	link.MTU = 1300
	if err := l.SetLink("ga/outside", link); err != nil {
		t.Fatal(err)
	}
	// The first is answered, which the socket is told with a later one.
	var err error
	for range 20 {
		if _, err = a.WriteToUDPAddrPort([]byte(large), to); err != nil {
			break
		}
		s.mustNotReceive()
	}
	if !errors.Is(err, unix.EMSGSIZE) {
		t.Fatalf("a packet larger than the path: %v", err)
	}
	a.discover(unix.IP_PMTUDISC_DONT)
	a.send(to, large)
	s.mustReceive(large)
}

// TestLastOfABurst: a link drops what of a burst is too large, and not what is
// behind it.
func TestLastOfABurst(t *testing.T) {
	for name, link := range map[string]scenario.Link{"ideal": {MTU: 1300}, "slow": {MTU: 1300, Delay: 1}} {
		w := idle(t, twoHosts(link))
		next := overhear(t, w, "a")
		b := w.port("b")
		burst := joined{}
		from, to := netip.MustParseAddrPort("203.0.113.2:1000"), netip.MustParseAddrPort("203.0.113.1:2000")
		for _, size := range []int{1400, 1400, 100} {
			buf := frame(w, "b", build.AppendUDP(nil, from, to, 64, make([]byte, size)))
			buf[0] = vnetNeedsChecksum
			binary.NativeEndian.PutUint16(buf[6:], 20)
			binary.NativeEndian.PutUint16(buf[8:], udpChecksum)
			if burst.packets == 0 {
				burst.begin(buf, 28)
			} else if !burst.add(buf) {
				t.Fatal("not joined")
			}
		}
		w.receive(b.device, 0, burst.packet())
		w.deliver(1e9)
		if want := (Count{Packets: 3, Bytes: 2984, DroppedPackets: 2, DroppedBytes: 2856}); b.sent != want || w.port("a").received != want {
			t.Errorf("%s: sent %+v, received %+v, want %+v", name, b.sent, w.port("a").received, want)
		}
		var p build.Packet
		if got := next(); len(got) != 128 || p.Decode(got) != nil || !p.ChecksumOK() {
			t.Errorf("%s: %x arrived", name, got)
		}
		if got := next(); got != nil {
			t.Errorf("%s: %x arrived too", name, got)
		}
	}
}

// TestNothingIsJoinedForAGateway: it would drop all of it for the size of one.
func TestNothingIsJoinedForAGateway(t *testing.T) {
	t.Parallel()
	l := newLab(t, twoNATs(linux, linux, scenario.Link{}), Options{Kernel: true, UserWire: true})
	for p, d := range l.devices {
		if p.owner.gateway != nil && d.joins {
			t.Errorf("packets to %s are joined", p.name())
		}
	}
}
