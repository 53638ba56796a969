package netns

import (
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/bodkin-net/bodkin/internal/lab/scenario"
	"github.com/bodkin-net/bodkin/internal/machine/nat"
)

// TestMove takes a host from one home to the other and to the internet, and
// back.
func TestMove(t *testing.T) { over(t, testMove) }

func testMove(t *testing.T, opt Options) {
	l := newLab(t, twoNATs(linux, linux, scenario.Link{}), opt)
	s, b := udp(t, l.Host("s"), 3478), udp(t, l.Host("b"), 5000)
	try := func(network string, addr string, seenAs string) {
		t.Helper()
		if err := l.Move("a", network, []netip.Prefix{netip.MustParsePrefix(addr)}); err != nil {
			t.Fatal(err)
		}
		a := udp(t, l.Host("a"), 4000)
		defer a.Close()
		if from := mapped(a, s, ip(sAddr)); from.Addr() != ip(seenAs) {
			t.Errorf("on %s, a is seen as %v", network, from)
		}
		if network == "lan-b" {
			b.send(netip.AddrPortFrom(ip(addr), 4000), "neighbour")
			a.mustReceive("neighbour")
		}
		h := l.Status().Hosts[0]
		if h.Port.Network != network || h.Port.Addrs[0].String() != addr || l.Host("a").Addr(true) != ip(addr) {
			t.Errorf("the status says %+v", h.Port)
		}
	}
	mapped(b, s, ip(sAddr)) // so that it knows its neighbours already
	try("lan-b", "192.168.2.77/24", gbOut)
	try("lan-b", "192.168.2.78/24", gbOut)
	try(scenario.Internet, "203.0.113.50/24", "203.0.113.50/24")
	try("lan-a", aIn, gaOut)
	for _, bad := range []struct{ host, network, addrs, want string }{
		{"ga", "lan-b", "192.168.2.77/24", "no such host"},
		{"nobody", "lan-b", "192.168.2.77/24", "no such host"},
		{"a", "nowhere", "192.168.2.77/24", `no network "nowhere"`},
		{"a", "lan-b", "192.168.1.77/24", `not in 192.168.2.0/24, which network "lan-b" is`},
		{"a", "lan-b", "192.168.2.77/16", `not in 192.168.2.0/24`},
		{"a", "lan-b", "2001:db8::7/64", `another family than network "lan-b"`},
		{"a", "lan-b", "192.168.2.0/24", "the whole network"},
		{"a", "lan-b", "192.168.2.255/24", "broadcast"},
		{"a", scenario.Internet, "::ffff:1.2.3.4/120", "not an address"},
		{"a", scenario.Internet, "198.18.255.254/24", "the routers of the internet"},
		{"a", "lan-b", "192.168.2.77/24 192.168.2.77/24", "there twice"},
		{"a", "lan-b", bIn, "192.168.2.2 is taken by b"},
		{"a", "lan-b", gbIn, "192.168.2.1 is taken by gb/inside"},
		{"a", scenario.Internet, gaOut, "203.0.113.1 is taken by ga/outside"},
		{"a", scenario.Internet, "192.168.2.77/28", `overlaps 192.168.2.0/24, which is network "lan-b" behind gb`},
		{"a", "lan-b", "", "nobody on network"},
	} {
		var addrs []netip.Prefix
		for _, a := range strings.Fields(bad.addrs) {
			addrs = append(addrs, netip.MustParsePrefix(a))
		}
		for _, move := range []func(string, string, []netip.Prefix) error{l.CheckMove, l.Move} {
			if err := move(bad.host, bad.network, addrs); err == nil || !strings.Contains(err.Error(), bad.want) {
				t.Errorf("%v: %v", bad, err)
			}
		}
	}
	if h := l.Status().Hosts[0]; h.Port.Network != "lan-a" || h.Port.Addrs[0].String() != aIn {
		t.Errorf("refused, but a is %+v", h.Port)
	}
	if err := l.CheckMove("a", "lan-a", []netip.Prefix{netip.MustParsePrefix(aIn)}); err != nil {
		t.Errorf("its own address: %v", err)
	}
}

// TestMoveBesideTwin: who had the address in the other network keeps it when a
// host comes that had the same one in its own.
func TestMoveBesideTwin(t *testing.T) {
	t.Parallel()
	top := twoNATs(linux, linux, scenario.Link{})
	top.Hosts[1].Port, top.Gateways[1].Inside = on("lan-b", scenario.Link{}, aIn), on("lan-b", scenario.Link{}, gaIn)
	l := newLab(t, top, Options{})
	if err := l.Move("a", "lan-b", []netip.Prefix{netip.MustParsePrefix("192.168.1.77/24")}); err != nil {
		t.Fatal(err)
	}
	g, b := udp(t, l.Host("gb"), 4000), udp(t, l.Host("b"), 4000)
	g.send(netip.AddrPortFrom(ip(aIn), 4000), "from the gateway, which asks nobody by ARP")
	b.mustReceive("from the gateway, which asks nobody by ARP")
}

// TestLentAddress: a host's lease is its own also while it is elsewhere.
func TestLentAddress(t *testing.T) {
	t.Parallel()
	l := newLab(t, leased(scenario.Link{}), Options{})
	addrs := l.Host("a").Addrs()
	if err := l.Move("a", scenario.Internet, []netip.Prefix{netip.MustParsePrefix(xAddr)}); err != nil {
		t.Fatal(err)
	}
	if err := l.Move("c", "home", addrs); err == nil || !strings.HasSuffix(err.Error(), addrs[0].Addr().String()+" is lent to a") {
		t.Errorf("%v", err)
	}
	if err := l.Move("a", "home", addrs); err != nil {
		t.Error(err)
	}
}

// TestNextAddress: a gateway gets another address as long as there is one; in
// the smallest networks too.
func TestNextAddress(t *testing.T) {
	t.Parallel()
	none := scenario.Link{}
	for _, tt := range []struct{ has, taken, want string }{
		{"203.0.113.1/30", "203.0.113.9/30", "203.0.113.2"},
		{"203.0.113.2/30", "203.0.113.9/30", "203.0.113.1"},
		{"203.0.113.1/30", "203.0.113.2/30", ""},
		{"203.0.113.0/31", "203.0.113.9/30", "203.0.113.1"},
		{"203.0.113.1/31", "203.0.113.9/30", "203.0.113.0"},
		{"203.0.113.0/31", "203.0.113.1/31", ""},
		{"203.0.113.1/32", "203.0.113.9/30", ""},
		{"2001:db8::1/64", "203.0.113.9/30", ""},
	} {
		l := newLab(t, scenario.Topology{
			Hosts: []scenario.Host{{Name: "s", Port: on(scenario.Internet, none, tt.taken)}},
			Gateways: []scenario.Gateway{{Name: "g", NAT: nat.Behaviour{Mode: nat.Firewall}, Inside: on("lan", none, gaIn),
				Outside: on(scenario.Internet, none, tt.has)}},
		}, Options{})
		check, err := l.CheckNewLease("g"), l.NewLease("g")
		if (check == nil) != (tt.want != "") || (err == nil) != (check == nil) {
			t.Errorf("%+v: %v, %v", tt, check, err)
		}
		if err == nil {
			await(t, tt.want, func() bool { return l.Host("g").Addr(true).String() == tt.want })
		}
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	}
}

// TestTwoAddresses: a port may have several of a family.
func TestTwoAddresses(t *testing.T) {
	t.Parallel()
	none := scenario.Link{}
	l := newLab(t, scenario.Topology{Hosts: []scenario.Host{
		{Name: "a", Port: on(scenario.Internet, none, "203.0.113.1/24", "198.51.100.1/24", "2001:db8::1/64", "2001:db8::2/64")},
		{Name: "b", Port: on(scenario.Internet, none, "203.0.113.2/24", "2001:db8::3/64")},
	}}, Options{UserWire: true})
	a, b := udp(t, l.Host("a"), 1), udp(t, l.Host("b"), 1)
	for _, p := range l.Host("a").Addrs() {
		b.send(netip.AddrPortFrom(p.Addr(), 1), p.String())
		from := a.mustReceive(p.String())
		a.send(from, "back")
		b.mustReceive("back")
	}
}

// TestNeighbours: who has an address is known without anybody being told.
func TestNeighbours(t *testing.T) {
	t.Parallel()
	none := scenario.Link{}
	top := twoNATs(linux, linux, none)
	top.Hosts = append(top.Hosts, scenario.Host{Name: "c", Port: on("lan-a", none, "192.168.1.3/24")})
	l := newLab(t, top, Options{})
	a, c := udp(t, l.Host("a"), 4000), udp(t, l.Host("c"), 4000)
	// An address that a program gave itself.
	extra := netip.MustParsePrefix("192.168.1.99/24")
	err := l.Host("c").Do(func() error {
		eth0, err := netlink.LinkByName(HostInterface)
		if err != nil {
			return err
		}
		return addAddress(eth0, extra)
	})
	if err != nil {
		t.Fatal(err)
	}
	a.send(netip.AddrPortFrom(extra.Addr(), 4000), "found")
	c.mustReceive("found")
	// The hardware addresses are those of the topology.
	want := map[string]string{}
	for addr, port := range map[string]string{extra.Addr().String(): "c", "192.168.1.1": "ga/inside"} {
		hw := scenario.HardwareAddr(port)
		want[addr] = string(hw[:])
	}
	a.send(netip.AddrPortFrom(ip(sAddr), 9), "by the gateway")
	await(t, "known to the kernel", func() bool {
		err := l.Host("a").Do(func() error {
			list, err := netlink.NeighList(0, netlink.FAMILY_V4)
			for _, n := range list {
				if hw := want[n.IP.String()]; hw != "" && hw == string(n.HardwareAddr) {
					delete(want, n.IP.String())
				}
			}
			return err
		})
		return err == nil && len(want) == 0
	})
}

// TestMulticast: broadcast and multicast reach every port of a network, and no
// other; none on the internet, which is a router.
func TestMulticast(t *testing.T) {
	t.Parallel()
	none := scenario.Link{}
	top := twoNATs(linux, linux, none)
	top.Hosts = append(top.Hosts, scenario.Host{Name: "c", Port: on("lan-a", none, "192.168.1.3/24")},
		scenario.Host{Name: "d", Port: on("lan-a", none, "192.168.1.4/24")},
		scenario.Host{Name: "far", Port: on(scenario.Internet, none, "203.0.113.77/24")})
	l := newLab(t, top, Options{})
	sockets := map[string]socket{}
	for _, name := range []string{"a", "b", "c", "d", "s", "far"} {
		sockets[name] = udp(t, l.Host(name), 4000)
		if err := joinGroup(sockets[name], "239.1.2.3"); err != nil {
			t.Fatal(err)
		}
	}
	for _, to := range []string{"239.1.2.3", "255.255.255.255", "192.168.1.255"} {
		sockets["a"].send(netip.AddrPortFrom(netip.MustParseAddr(to), 4000), to)
		for _, name := range []string{"c", "d"} {
			if from := sockets[name].mustReceive(to); from.Addr() != ip(aIn) {
				t.Errorf("from %v", from)
			}
		}
	}
	sockets["b"].mustNotReceive()

	for _, to := range []string{"239.1.2.3", "255.255.255.255", "203.0.113.255"} {
		sockets["s"].send(netip.AddrPortFrom(netip.MustParseAddr(to), 4000), to)
	}
	sockets["s"].send(netip.MustParseAddrPort("203.0.113.77:4000"), "to one")
	sockets["far"].mustReceive("to one")
	for _, h := range l.Status().Hosts {
		if got := h.Port.Sent; h.Name == "s" && got.DroppedPackets < 3 {
			t.Errorf("s has sent %+v", got)
		}
	}
}

func TestStatus(t *testing.T) {
	t.Parallel()
	l := newLab(t, twoNATs(nat.Behaviour{Filtering: apd, Ports: nat.Ports{Allocation: nat.Random}}, linux, scenario.Link{}), Options{})
	a, s := udp(t, l.Host("a"), 4000), udp(t, l.Host("s"), 3478)
	aOut := mapped(a, s, ip(sAddr))
	if err := l.Cut(ip(gaOut), netip.Addr{}, TCP); err != nil {
		t.Fatal(err)
	}
	if err := l.Capture("lan-a", filepath.Join(t.TempDir(), "a.pcapng")); err != nil {
		t.Fatal(err)
	}
	st := l.Status()
	ga := st.Gateways[0]
	if ga.Name != "ga" || ga.Kernel || len(ga.Mappings) != 1 || ga.Mappings[0].External != aOut || ga.Stats.Forwarded != 1 {
		t.Errorf("gateway %+v", ga)
	}
	if c := st.Hosts[0].Port; c.Sent != (Count{Packets: 1, Bytes: 31}) || c.Received != (Count{}) || c.Interface != HostInterface {
		t.Errorf("port %+v", c)
	}
	if !slices.Equal(st.Cuts, []CutStatus{{A: ip(gaOut), Protocol: TCP}}) {
		t.Errorf("cuts %+v", st.Cuts)
	}
	for _, n := range st.Networks {
		if n.Name == "lan-a" && (!slices.Equal(n.Ports, []string{"ga/inside", "a"}) || !strings.HasSuffix(n.Capture, "a.pcapng")) {
			t.Errorf("network %+v", n)
		}
	}
}

func TestStopCapture(t *testing.T) {
	t.Parallel()
	l := newLab(t, twoHosts(scenario.Link{}), Options{UserWire: true})
	a, b := udp(t, l.Host("a"), 1), udp(t, l.Host("b"), 1)
	to := netip.AddrPortFrom(l.Host("b").Addr(true), 1)
	for _, word := range []string{"first", "second"} {
		path := filepath.Join(t.TempDir(), word)
		if err := l.Capture(scenario.Internet, path); err != nil {
			t.Fatal(err)
		}
		a.send(to, word)
		b.mustReceive(word)
		if err := l.StopCapture(scenario.Internet); err != nil {
			t.Fatal(err)
		}
		a.send(to, "unseen")
		b.mustReceive("unseen")
		data, err := os.ReadFile(path)
		if err != nil || !strings.Contains(string(data), word) || strings.Contains(string(data), "unseen") {
			t.Errorf("%v %q", err, data)
		}
	}
	if err := l.StopCapture(scenario.Internet); err == nil {
		t.Error("stopped twice")
	}
	if err := l.StopCapture("nowhere"); err == nil {
		t.Error("stopped nowhere")
	}
}

// TestDuplicateAddress: the kernel's duplicate address detection (RFC 4862
// section 5.4) notices what another host has, and what a gateway of ours has,
// and takes what is free.
func TestDuplicateAddress(t *testing.T) {
	t.Parallel()
	none := scenario.Link{}
	l := newLab(t, scenario.Topology{
		Hosts: []scenario.Host{
			{Name: "a", Port: on("lan", none, "2001:db8:a::2/64")},
			{Name: "b", Port: on("lan", none, "2001:db8:a::3/64")},
		},
		Gateways: []scenario.Gateway{{Name: "g", Inside: on("lan", none, "2001:db8:a::1/64"), Outside: on(scenario.Internet, none, "2001:db8::1/64")}},
	}, Options{})
	for addr, taken := range map[string]bool{"2001:db8:a::2/64": true, "2001:db8:a::1/64": true, "2001:db8:a::4/64": false} {
		err := l.Host("b").Do(func() error {
			if err := writeSysctls([]sysctl{{"net/ipv6/conf/eth0/accept_dad", "1"}, {"net/ipv6/conf/eth0/dad_transmits", "1"}}); err != nil {
				return err
			}
			eth0, err := netlink.LinkByName(HostInterface)
			if err != nil {
				return err
			}
			return netlink.AddrAdd(eth0, &netlink.Addr{IPNet: ipNet(netip.MustParsePrefix(addr))})
		})
		if err != nil {
			t.Fatal(err)
		}
		var flags int
		await(t, addr+" settled", func() bool {
			l.Host("b").Do(func() error {
				eth0, err := netlink.LinkByName(HostInterface)
				if err != nil {
					return err
				}
				list, err := netlink.AddrList(eth0, netlink.FAMILY_V6)
				for _, a := range list {
					if prefixOf(a.IPNet).String() == addr {
						flags = a.Flags
					}
				}
				return err
			})
			return flags&unix.IFA_F_DADFAILED != 0 || flags&unix.IFA_F_TENTATIVE == 0
		})
		if failed := flags&unix.IFA_F_DADFAILED != 0; failed != taken {
			t.Errorf("%s is taken: %v, want %v", addr, failed, taken)
		}
	}
}
