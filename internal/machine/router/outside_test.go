package router

import (
	"math/rand/v2"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/bodkin-net/bodkin/internal/machine/dhcp"
	"github.com/bodkin-net/bodkin/internal/machine/nat"
	"github.com/bodkin-net/bodkin/internal/machine/nat/ip"
	"github.com/bodkin-net/bodkin/internal/machine/portmap"
)

var (
	access = netip.MustParsePrefix("100.64.0.0/24")
	host   = netip.MustParseAddrPort("192.168.1.50:5000")
)

// line is a home router that gets its external address from its provider's.
type line struct {
	t         *testing.T
	now       time.Time
	home, isp *Router
	cut       bool
}

func homeConfig(p portmap.Behaviour) Config {
	cfg := Config{NAT: natConfig(), OutsideDHCP: true, OutsideMAC: mac(100), PortMap: p}
	cfg.NAT.Own[nat.Outside] = nil
	return cfg
}

func newLine(t *testing.T, p portmap.Behaviour) *line {
	t.Helper()
	isp, err := New(epoch, Config{
		NAT: nat.Config{
			Inside: []netip.Prefix{access},
			Own:    [nat.Local][]netip.Addr{nat.Inside: {addr("100.64.0.1")}, nat.Outside: {external}},
			Rand:   rand.NewPCG(3, 4),
		},
		DHCP: &dhcp.Pool{First: addr("100.64.0.10"), Last: addr("100.64.0.19")},
	})
	if err != nil {
		t.Fatal(err)
	}
	r, err := New(epoch, homeConfig(p))
	if err != nil {
		t.Fatal(err)
	}
	return &line{t: t, now: epoch, home: r, isp: isp}
}

// settle carries what goes between the two, and returns what the home router
// has sent to its inside.
func (l *line) settle() (inside [][]byte) {
	for moved := true; moved; {
		moved = false
		for out, ok := l.home.Poll(); ok; out, ok = l.home.Poll() {
			moved = true
			switch {
			case out.To == nat.Inside:
				inside = append(inside, slices.Clone(out.Packet))
			case !l.cut:
				l.isp.Handle(l.now, nat.Inside, mac(100), slices.Clone(out.Packet), nat.Offload{})
			}
		}
		for out, ok := l.isp.Poll(); ok; out, ok = l.isp.Poll() {
			moved = true
			if !l.cut {
				l.home.Handle(l.now, nat.Outside, mac(1), slices.Clone(out.Packet), nat.Offload{})
			}
		}
	}
	return inside
}

func (l *line) pass(d time.Duration) {
	for end := l.now.Add(d); l.now.Before(end); {
		l.now = end
		for _, r := range []*Router{l.home, l.isp} {
			if at, ok := r.NextTimeout(); ok && at.Before(l.now) {
				l.now = at
			}
		}
		l.home.HandleTimeout(l.now)
		l.isp.HandleTimeout(l.now)
		l.settle()
	}
}

func (l *line) wantSaid(want ...string) {
	l.t.Helper()
	wantSaid(l.t, l.home, want)
}

// leaves is the source that a packet from a host inside has outside.
func (l *line) leaves(from netip.AddrPort) netip.AddrPort {
	l.t.Helper()
	pkt := udp(from, remote)
	if v := l.home.Handle(l.now, nat.Inside, mac(50), pkt, nat.Offload{}); v.Action != nat.Forward || v.To != nat.Outside {
		return netip.AddrPort{}
	}
	var p ip.Packet
	if err := p.Decode(pkt); err != nil || !p.ChecksumOK() {
		l.t.Fatalf("%x: %v", pkt, err)
	}
	return p.Src
}

// enters is where a packet from outside goes to.
func (l *line) enters(to netip.AddrPort) netip.AddrPort {
	l.t.Helper()
	pkt := udp(remote, to)
	if v := l.home.Handle(l.now, nat.Outside, mac(1), pkt, nat.Offload{}); v.Action != nat.Forward || v.To != nat.Inside {
		return netip.AddrPort{}
	}
	var p ip.Packet
	if err := p.Decode(pkt); err != nil || !p.ChecksumOK() {
		l.t.Fatalf("%x: %v", pkt, err)
	}
	return p.Dst
}

func TestOutsideAddressComesFromDHCP(t *testing.T) {
	l := newLine(t, portmap.Behaviour{})
	if got := l.leaves(host); got.IsValid() {
		t.Errorf("without an address, as %v", got)
	}
	if _, ok := l.home.Outside(); ok {
		t.Error("has a lease before it asked")
	}
	l.settle()
	if g, ok := l.home.Outside(); !ok || g.Prefix.String() != "100.64.0.10/24" || g.Router != addr("100.64.0.1") {
		t.Errorf("%+v %v", g, ok)
	}
	out := l.leaves(host)
	if out != netip.MustParseAddrPort("100.64.0.10:5000") {
		t.Errorf("leaves as %v", out)
	}
	if in := l.enters(out); in != host {
		t.Errorf("comes in to %v", in)
	}
	l.wantSaid("outside address 100.64.0.10")
	// It renews, and nobody inside notices.
	l.pass(20 * time.Hour)
	l.leaves(host)
	l.wantSaid()
	// The provider is away for longer than the lease.
	l.cut = true
	l.pass(2 * time.Hour)
	if got := l.leaves(host); got.IsValid() {
		t.Errorf("without a lease, as %v", got)
	}
	l.cut = false
	l.pass(2 * time.Minute)
	l.wantSaid("no outside address: its lease ended", "outside address 100.64.0.10")
	if out := l.leaves(host); out.Addr() != addr("100.64.0.10") {
		t.Errorf("leaves as %v", out)
	}
}

func TestNewLeaseDropsMappings(t *testing.T) {
	l := newLine(t, portmap.Behaviour{NATPMP: true})
	l.settle()
	out := l.leaves(host)
	// The same address again leaves everything as it is.
	if err := l.home.Renumber(l.now); err != nil {
		t.Fatal(err)
	}
	l.settle()
	if in := l.enters(out); in != host {
		t.Errorf("comes in to %v", in)
	}
	l.wantSaid("outside address 100.64.0.10")

	l.pmp(5351, 7000, 7000, 7200)
	said(l.home)
	l.isp.Forget(l.now, mac(100))
	if err := l.home.Renumber(l.now); err != nil {
		t.Fatal(err)
	}
	l.settle()
	l.wantSaid("no outside address: the server refuses it", "outside address 100.64.0.11",
		"port mapping dropped: NAT-PMP udp 100.64.0.10:7000 to 192.168.1.50:7000")
	if in := l.enters(out); in.IsValid() {
		t.Errorf("the old mapping leads to %v", in)
	}
	if out = l.leaves(host); out.Addr() != addr("100.64.0.11") || l.enters(out) != host {
		t.Errorf("leaves as %v", out)
	}
	w := newWorld(t, Config{NAT: natConfig()})
	if err := w.r.Renumber(w.now); err == nil {
		t.Error("a fixed address was renumbered")
	}
}

func TestFixedAddressIsChanged(t *testing.T) {
	w := newWorld(t, Config{NAT: natConfig()})
	w.in(nat.Inside, mac(50), udp(host, remote))
	next := addr("198.51.100.77")
	if err := w.r.SetOutside(w.now, []netip.Addr{next}); err != nil {
		t.Fatal(err)
	}
	if n := len(w.r.NAT().Mappings(w.now)); n != 0 {
		t.Errorf("%d mappings of the old address", n)
	}
	w.wantSaid("outside address 198.51.100.77")
	pkt := udp(host, remote)
	if v := w.in(nat.Inside, mac(50), pkt); v.Action != nat.Forward || netip.AddrFrom4([4]byte(pkt[12:16])) != next {
		t.Errorf("%+v %x", v, pkt)
	}
	l := newLine(t, portmap.Behaviour{})
	if err := l.home.SetOutside(l.now, []netip.Addr{next}); err == nil {
		t.Error("an address beside that from DHCP")
	}
}

// A reboot asks for the address that was there before, and gets it.
func TestResetAsksForTheSameAddress(t *testing.T) {
	l := newLine(t, portmap.Behaviour{NATPMP: true})
	l.settle()
	l.pmp(5351, 7000, 7000, 7200)
	out := l.leaves(host)
	said(l.home)
	l.home.Reset(l.now)
	if got := l.leaves(host); got.IsValid() {
		t.Errorf("leaves as %v at once", got)
	}
	l.settle()
	l.wantSaid("no outside address: rebooted", "outside address 100.64.0.10")
	if l.enters(out).IsValid() || l.enters(netip.MustParseAddrPort("100.64.0.10:7000")).IsValid() {
		t.Error("a mapping has survived the reboot")
	}
	if len(l.home.PortMappings(l.now)) != 0 {
		t.Error("a port mapping has survived the reboot")
	}
}

// What is not for the DHCP client is the hosts', also from and to its ports.
func TestOthersUseThePortsToo(t *testing.T) {
	l := newLine(t, portmap.Behaviour{})
	l.settle()
	from := netip.MustParseAddrPort("192.168.1.50:68")
	server := netip.MustParseAddrPort("203.0.113.9:67")
	pkt := udp(from, server)
	l.home.Handle(l.now, nat.Inside, mac(50), pkt, nat.Offload{})
	var p ip.Packet
	if err := p.Decode(pkt); err != nil || p.Src != netip.MustParseAddrPort("100.64.0.10:68") {
		t.Fatalf("%v %v", p.Src, err)
	}
	answer := udp(server, p.Src)
	if v := l.home.Handle(l.now, nat.Outside, mac(1), answer, nat.Offload{}); v.Action != nat.Forward || v.To != nat.Inside {
		t.Errorf("%+v", v)
	}
}

// pmp asks for a UDP port by NAT-PMP, and returns the answer's payload.
func (l *line) pmp(to, internal, wanted uint16, seconds uint16) []byte {
	return l.ask(netip.AddrPortFrom(own, to), []byte{0, 1, 0, 0,
		byte(internal >> 8), byte(internal), byte(wanted >> 8), byte(wanted), 0, 0, byte(seconds >> 8), byte(seconds)})
}

// ask sends a datagram from the host to the router, and returns the payload of
// what comes back for the host.
func (l *line) ask(to netip.AddrPort, payload []byte) []byte {
	l.t.Helper()
	l.settle()
	v := l.home.Handle(l.now, nat.Inside, mac(50), ip.AppendUDP(nil, host, to, 64, payload), nat.Offload{})
	for _, pkt := range l.settle() {
		var p ip.Packet
		if err := p.Decode(pkt); err != nil || !p.ChecksumOK() {
			l.t.Fatalf("%x: %v", pkt, err)
		}
		if p.Dst == host && v.Reason == nat.Kept {
			return p.Payload()
		}
	}
	return nil
}

func TestPortMapping(t *testing.T) {
	l := newLine(t, portmap.Behaviour{NATPMP: true, UPnP: true})
	l.settle()
	said(l.home)
	answer := l.pmp(5351, 7000, 8000, 1800)
	want := []byte{0, 129, 0, 0, 0, 0, 0, 0, 7000 >> 8, 7000 & 255, 8000 >> 8, 8000 & 255, 0, 0, 1800 >> 8, 1800 & 255}
	if !slices.Equal(answer, want) {
		t.Fatalf("% x\nwant % x", answer, want)
	}
	l.wantSaid("port mapping made: NAT-PMP udp 100.64.0.10:8000 to 192.168.1.50:7000")
	if in := l.enters(netip.MustParseAddrPort("100.64.0.10:8000")); in != netip.MustParseAddrPort("192.168.1.50:7000") {
		t.Errorf("leads to %v", in)
	}
	all := l.home.Mappings(l.now)
	if len(all) != 1 || !all[0].Explicit || !all[0].Until.Equal(l.now.Add(30*time.Minute)) {
		t.Errorf("%+v", all)
	}
	// It ends when it was said to, although it is in use.
	for range 29 {
		l.pass(time.Minute)
		if !l.enters(netip.MustParseAddrPort("100.64.0.10:8000")).IsValid() {
			t.Fatalf("gone at %v", l.now)
		}
	}
	l.pass(2 * time.Minute)
	if in := l.enters(netip.MustParseAddrPort("100.64.0.10:8000")); in.IsValid() {
		t.Errorf("leads to %v", in)
	}
	l.wantSaid("port mapping expired: NAT-PMP udp 100.64.0.10:8000 to 192.168.1.50:7000")

	// A device is found and described.
	search := []byte("M-SEARCH * HTTP/1.1\r\nHOST: 239.255.255.250:1900\r\nMAN: \"ssdp:discover\"\r\nMX: 1\r\n" +
		"ST: urn:schemas-upnp-org:device:InternetGatewayDevice:1\r\n\r\n")
	found := string(l.ask(netip.MustParseAddrPort("239.255.255.250:1900"), search))
	if !strings.Contains(found, "LOCATION: http://192.168.1.1:5000/rootDesc.xml") {
		t.Fatalf("%q", found)
	}
	page := l.home.HTTP(l.now, portmap.HTTPRequest{From: host, Method: "GET", Path: "/rootDesc.xml", Host: "192.168.1.1:5000"})
	if page.Status != 200 || !strings.Contains(string(page.Body), "InternetGatewayDevice:1") {
		t.Errorf("%+v", page)
	}
	// Not to those outside.
	v := l.home.Handle(l.now, nat.Outside, mac(1), ip.AppendUDP(nil, remote, netip.MustParseAddrPort("100.64.0.10:5351"), 64, []byte{0, 0}), nat.Offload{})
	if v.Action != nat.Drop || v.Reason == nat.Kept {
		t.Errorf("%+v", v)
	}
	// A router without it has no such port.
	w := newWorld(t, Config{NAT: natConfig()})
	if v := w.in(nat.Inside, mac(50), udp(host, netip.AddrPortFrom(own, 5351))); v.To != nat.Local || v.Action != nat.Forward {
		t.Errorf("%+v", v)
	}
	if page := w.r.HTTP(w.now, portmap.HTTPRequest{}); page.Status != 404 || w.r.PortMappings(w.now) != nil {
		t.Errorf("%+v", page)
	}
}

// A UPnP client that gives a port of its own to another of its programs gets
// what it wants, though the first one's sessions live (WANIPConnection:1
// section 2.4.16).
func TestUPnPOverwrites(t *testing.T) {
	for _, behaviour := range []nat.Behaviour{{}, {Ports: nat.Ports{HoldDown: 2 * time.Minute}}} {
		cfg := Config{NAT: natConfig(), PortMap: portmap.Behaviour{UPnP: true}}
		cfg.NAT.Behaviour = behaviour
		r, err := New(epoch, cfg)
		if err != nil {
			t.Fatal(err)
		}
		l := &line{t: t, now: epoch, home: r}
		page := string(r.HTTP(l.now, portmap.HTTPRequest{From: host, Method: "GET", Path: "/rootDesc.xml", Host: "192.168.1.1:5000"}).Body)
		const service = "urn:schemas-upnp-org:service:WANIPConnection:1"
		_, page, _ = strings.Cut(page, service)
		_, page, _ = strings.Cut(page, "<controlURL>")
		control, _, _ := strings.Cut(page, "</controlURL>")
		act := func(from netip.Addr, action, rest string) int {
			return r.HTTP(l.now, portmap.HTTPRequest{
				From: portAt(from, 50000), Method: "POST", Path: control, Host: "192.168.1.1:5000", SOAPAction: `"` + service + "#" + action + `"`,
				Body: []byte(`<?xml version="1.0"?><s:Envelope xmlns:s="http://schemas.xmlsoap.org/soap/envelope/"><s:Body><u:` + action + ` xmlns:u="` + service +
					`"><NewRemoteHost></NewRemoteHost><NewExternalPort>8000</NewExternalPort><NewProtocol>UDP</NewProtocol>` + rest + `</u:` + action + `></s:Body></s:Envelope>`),
			}).Status
		}
		add := func(from netip.Addr, port string) int {
			return act(from, "AddPortMapping", `<NewInternalPort>`+port+`</NewInternalPort><NewInternalClient>`+from.String()+`</NewInternalClient>`+
				`<NewEnabled>1</NewEnabled><NewPortMappingDescription></NewPortMappingDescription><NewLeaseDuration>0</NewLeaseDuration>`)
		}
		at := portAt(external, 8000)
		for i, port := range []uint16{7001, 7002} {
			if status := add(host.Addr(), strconv.Itoa(int(port))); status != 200 {
				t.Errorf("%+v: add %d: status %d", behaviour.Ports, port, status)
			}
			if in := l.enters(at); in != portAt(host.Addr(), port) {
				t.Errorf("%+v: mapping %d leads to %v", behaviour.Ports, i, in)
			}
		}
		if status := add(addr("192.168.1.51"), "7003"); status != 500 {
			t.Errorf("another client: status %d", status)
		}
		// Nor does what is left of a deleted one stand in the way.
		act(host.Addr(), "DeletePortMapping", "")
		if status := add(host.Addr(), "7004"); status != 200 || l.enters(at) != portAt(host.Addr(), 7004) {
			t.Errorf("%+v: after deletion: status %d, leads to %v", behaviour.Ports, status, l.enters(at))
		}
	}
}

func TestOutsideConfigIsChecked(t *testing.T) {
	for _, c := range []struct {
		name string
		edit func(*Config)
		want string
	}{
		{"an address beside DHCP", func(c *Config) { c.NAT.Own[nat.Outside] = []netip.Addr{external} }, "DHCP as well"},
		{"no hardware address", func(c *Config) { c.OutsideMAC = MAC{} }, "hardware address"},
		{"port mapping without an address", func(c *Config) { c.PortMap.PCP, c.NAT.Own[nat.Inside] = true, nil }, "IPv4 address inside"},
		{"an unknown device", func(c *Config) { c.PortMap = portmap.Behaviour{UPnP: true, IGD: 3} }, "IGD"},
	} {
		cfg := homeConfig(portmap.Behaviour{})
		c.edit(&cfg)
		if _, err := New(epoch, cfg); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", c.name, err, c.want)
		}
	}
	// IPv6 outside is no matter of DHCP.
	cfg := homeConfig(portmap.Behaviour{})
	cfg.NAT.Own[nat.Outside] = []netip.Addr{addr("2001:db8::1")}
	if _, err := New(epoch, cfg); err != nil {
		t.Error(err)
	}
}

func portAt(a netip.Addr, port uint16) netip.AddrPort { return netip.AddrPortFrom(a, port) }

// Of a mapping that was asked for, Mappings tells when it will be gone, not
// what its client believes.
func TestMappingsUntil(t *testing.T) {
	for _, tt := range []struct {
		behaviour portmap.Behaviour
		want      []time.Duration
	}{
		{portmap.Behaviour{NATPMP: true}, []time.Duration{10 * time.Minute}},
		{portmap.Behaviour{NATPMP: true, Forget: time.Minute}, []time.Duration{time.Minute}},
		{portmap.Behaviour{NATPMP: true, Forget: time.Hour}, []time.Duration{10 * time.Minute}},
		{portmap.Behaviour{NATPMP: true, Lie: true}, nil},
	} {
		l := newLine(t, tt.behaviour)
		l.settle()
		l.pmp(5351, 7000, 8000, 600)
		all := l.home.Mappings(l.now)
		if len(all) != len(tt.want) {
			t.Fatalf("%+v: %+v", tt.behaviour, all)
		}
		for i, d := range tt.want {
			if !all[i].Until.Equal(l.now.Add(d)) {
				t.Errorf("%+v: until %v, want %v more", tt.behaviour, all[i].Until, d)
			}
			l.pass(d)
		}
		if all := l.home.Mappings(l.now); len(all) != 0 {
			t.Errorf("%+v: still there: %+v", tt.behaviour, all)
		}
	}
}
