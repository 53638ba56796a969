package netns

import (
	"bytes"
	"encoding/binary"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/bodkin-net/bodkin/internal/lab/scenario"
	"github.com/bodkin-net/bodkin/internal/machine/dhcp"
	"github.com/bodkin-net/bodkin/internal/machine/nat"
	build "github.com/bodkin-net/bodkin/internal/machine/nat/ip"
)

// idle is a wire whose devices lead nowhere and whose thread does not run.
func idle(t testing.TB, top scenario.Topology) *wire {
	t.Helper()
	p, err := compile(top, Options{})
	if err != nil {
		t.Fatal(err)
	}
	devices := map[*port]*device{}
	for _, n := range p.nodes {
		for _, q := range n.ports {
			devices[q] = &device{fd: -1, tun: n.machine, joins: true}
		}
	}
	w := blankWire(p, Options{}, nil)
	w.errands = &errands{} // that nobody runs
	w.errands.more.L = &w.errands.mu
	if err := w.build(p, Options{}, devices); err != nil {
		t.Fatal(err)
	}
	return w
}

// frame is an IP packet as the device of a port reads it.
func frame(w *wire, from string, pkt []byte) []byte {
	buf := append(make([]byte, room), pkt...)
	setEther(buf, wireMAC, w.port(from).hw, etherTypeOf(pkt))
	return buf
}

// TestNoAllocation: a packet through a gateway costs no memory, whole or in
// segments, nor does one that waits on a link.
func TestNoAllocation(t *testing.T) {
	for name, link := range map[string]scenario.Link{"ideal": {}, "slow": {Delay: 1, Rate: 1e12}} {
		w := idle(t, twoNATs(linux, linux, link))
		small := frame(w, "a", build.AppendUDP(nil, netip.AddrPortFrom(ip(aIn), 1), netip.AddrPortFrom(ip(sAddr), 2), 64, make([]byte, 36)))
		buf := make([]byte, 0, largeBuffer)
		send := func() {
			buf = append(buf[:0], small...)
			now := w.now()
			w.receive(w.port("a").device, now, buf)
			w.deliver(now + 1e9)
			w.flush()
		}
		send()
		if n := testing.AllocsPerRun(1000, send); n > 0 {
			t.Errorf("%s: %v allocations", name, n)
		}
		if got := w.port("s").received; got.Packets < 1000 {
			t.Errorf("%s: %+v arrived", name, got)
		}
	}
}

// TestMovedAway: what is on its way to a host stays on the network that the host
// has left, whatever address the host has on the next one.
func TestMovedAway(t *testing.T) {
	for name, link := range map[string]scenario.Link{"delay": {Delay: time.Second}, "rate": {Rate: 8000}} {
		top := twoHosts(link)
		top.Hosts = append(top.Hosts, scenario.Host{Name: "c", Port: on("lan", scenario.Link{}, "10.1.0.2/24")})
		top.Gateways = []scenario.Gateway{{Name: "g", Inside: on("lan", scenario.Link{}, "10.1.0.1/24"), Outside: on(scenario.Internet, scenario.Link{}, "203.0.113.3/24")}}
		w := idle(t, top)
		next := overhear(t, w, "a")
		from, to := netip.MustParseAddrPort("203.0.113.2:1"), netip.MustParseAddrPort("203.0.113.1:2")
		w.receive(w.port("b").device, 0, frame(w, "b", build.AppendUDP(nil, from, to, 64, make([]byte, 72))))
		a := w.port("a")
		a.network.detach(a)
		w.network("lan").attach(a)
		w.deliver(1e10)
		want := Count{Packets: 1, Bytes: 100, DroppedPackets: 1, DroppedBytes: 100}
		if got := next(); got != nil || a.received != want || w.port("b").sent != want {
			t.Errorf("%s: got %x, received %+v, sent %+v", name, got, a.received, w.port("b").sent)
		}
	}
}

// TestFirewallKeepsParts: a host's firewall keeps parts of a packet until it
// knows what they are of, and then the first is the first.
func TestFirewallKeepsParts(t *testing.T) {
	top := twoHosts(scenario.Link{})
	top.Hosts[0].Firewall = &nat.Behaviour{Mode: nat.Firewall, Filtering: nat.AddressAndPortDependent}
	a, b := netip.MustParseAddrPort("203.0.113.1:1"), netip.MustParseAddrPort("203.0.113.2:2")
	w := idle(t, top)
	for _, way := range []struct {
		from, to string
		pkt      []byte
	}{
		{"a", "b", build.AppendUDP(nil, a, b, 64, make([]byte, 2000))},
		{"b", "a", build.AppendUDP(nil, b, a, 64, make([]byte, 2000))},
	} {
		next := overhear(t, w, way.to)
		var whole build.Packet
		if err := whole.Decode(way.pkt); err != nil {
			t.Fatal(err)
		}
		var parts [][]byte
		for at := 0; ; {
			var part []byte
			part, at = whole.AppendPart(nil, 800, at)
			if parts = append(parts, part); at == 0 {
				break
			}
		}
		for _, part := range slices.Backward(parts) {
			w.receive(w.port(way.from).device, 0, frame(w, way.from, part))
		}
		var offsets []int
		for got := next(); got != nil; got = next() {
			var p build.Packet
			if err := p.Decode(got); err != nil {
				t.Fatal(err)
			}
			_, at, _ := p.Part()
			offsets = append(offsets, at)
		}
		if len(offsets) != len(parts) || offsets[0] != 0 {
			t.Errorf("from %s: parts at %d", way.from, offsets)
		}
	}
}

// TestFirewallKnowsNoMTU: what is too large for a host is its link's affair,
// which may be a wide one.
func TestFirewallKnowsNoMTU(t *testing.T) {
	top := twoHosts(scenario.Link{MTU: 9000})
	top.Hosts[1].Port.Link.MTU = 9000
	top.Hosts[0].Firewall = &nat.Behaviour{Mode: nat.Firewall, Filtering: nat.AddressAndPortDependent}
	a, b := netip.MustParseAddrPort("203.0.113.1:1"), netip.MustParseAddrPort("203.0.113.2:2")
	w := idle(t, top)
	for _, way := range []struct {
		from, to string
		pkt      []byte
	}{
		{"a", "b", build.AppendUDP(nil, a, b, 64, make([]byte, 8900))},
		{"b", "a", build.AppendUDP(nil, b, a, 64, make([]byte, 8900))},
	} {
		next := overhear(t, w, way.to)
		w.receive(w.port(way.from).device, 0, frame(w, way.from, way.pkt))
		if got := next(); len(got) != len(way.pkt) {
			t.Errorf("from %s: of %d bytes %d arrive", way.from, len(way.pkt), len(got))
		}
	}
}

// TestManyFlows: who sends from ever other addresses is counted, in bounded
// memory.
func TestManyFlows(t *testing.T) {
	w := idle(t, twoHosts(scenario.Link{}))
	const more = 1000
	pkt := build.AppendUDP(nil, netip.MustParseAddrPort("192.0.2.1:1"), netip.MustParseAddrPort("203.0.113.2:2"), 64, nil)
	buf := make([]byte, room+len(pkt))
	for i := range uint32(maxFlows + more) {
		copy(buf, frame(w, "a", pkt))
		binary.BigEndian.PutUint32(buf[room+12:], 10<<24+i)
		sumHeaderIPv4(buf[room:])
		w.receive(w.port("a").device, 0, buf)
	}
	n := w.network(scenario.Internet)
	if len(n.flows) > maxFlows+1 {
		t.Errorf("%d flows", len(n.flows))
	}
	all := Counters{}
	for f, c := range n.flows {
		all[f] = *c
	}
	if got := all.Sum(Flow{Protocol: UDP}); got.Packets != maxFlows+more {
		t.Errorf("counted %+v", got)
	}
	if got := *n.flows[Flow{Network: n.name, Protocol: UDP}]; got.Packets != more {
		t.Errorf("the rest is %+v", got)
	}
}

// FuzzWire gives the wire whatever a device might read.
func FuzzWire(f *testing.F) {
	top := twoNATs(nat.Behaviour{Hairpin: nat.HairpinExternalSource}, linux, scenario.Link{})
	top.Gateways[0].DHCP = &dhcp.Pool{}
	top.Hosts[1].Firewall = &nat.Behaviour{Mode: nat.Firewall}
	top.Hosts = append(top.Hosts, scenario.Host{Name: "c", Port: scenario.Port{Network: "lan-a", DHCP: true}})
	seed := idle(f, top)
	a, s := netip.AddrPortFrom(ip(aIn), 4000), netip.AddrPortFrom(ip(sAddr), 3478)
	udp := build.AppendUDP(nil, a, s, 64, []byte("payload"))
	f.Add(uint8(0), frame(seed, "a", udp))
	f.Add(uint8(0), tcpBurst(f, 2500))
	f.Add(uint8(0), frame(seed, "a", build.AppendError(nil, s.Addr(), build.PortUnreachable, udp)))
	f.Add(uint8(1), frame(seed, "b", build.AppendUDP(nil, s, netip.AddrPortFrom(ip(gaOut), 4000), 1, nil)))
	f.Add(uint8(0), appendARP(nil, everyone, false, seed.port("a").hw, a.Addr(), mac{}, ip(gaIn)))
	f.Add(uint8(0), appendARP(nil, everyone, false, seed.port("a").hw, netip.IPv4Unspecified(), mac{}, ip(gaIn)))
	f.Add(uint8(0), appendAdvertisement(nil, netip.MustParseAddr("2001:db8::1"), seed.port("a").hw, allNodes, groupMAC(allNodes)))
	f.Fuzz(func(t *testing.T, from uint8, buf []byte) {
		if len(buf) < room || len(buf) > largeBuffer {
			return // no device reads that
		}
		w := idle(t, top)
		d := w.devices[int(from)%len(w.devices)]
		for range 3 { // the first may teach something
			read := append(make([]byte, 0, largeBuffer), bytes.Clone(buf)...)
			if v, ok := parse(read); ok && v.gsoSize > 0 && v.gsoSize < 100 {
				return // work that takes a fuzzer too long
			}
			w.receive(d, w.now(), read)
			w.deliver(w.now())
			w.flush()
		}
		w.deliver(never - 1)
	})
}

// BenchmarkCarry is what the wire and a gateway do to a packet, without a
// kernel.
func BenchmarkCarry(b *testing.B) {
	w := idle(b, twoNATs(linux, linux, scenario.Link{}))
	small := frame(w, "a", build.AppendUDP(nil, netip.AddrPortFrom(ip(aIn), 1), netip.AddrPortFrom(ip(sAddr), 2), 64, make([]byte, 36)))
	small[0], small[6], small[8] = vnetNeedsChecksum, 20, udpChecksum
	buf := make([]byte, 0, largeBuffer)
	d := w.port("a").device
	b.ReportAllocs()
	for b.Loop() {
		buf = append(buf[:0], small...)
		w.receive(d, w.now(), buf)
	}
}
