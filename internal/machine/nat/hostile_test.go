package nat

import (
	"bytes"
	"net/netip"
	"testing"

	"github.com/bodkin-net/bodkin/internal/machine/nat/ip"
)

// Nobody speaks in the gateway's name, to its stack, to the world or, as if it
// were hairpinned, to a host.
func TestOwnAddressIsNobodysSource(t *testing.T) {
	hairpins := Behaviour{Hairpin: HairpinExternalSource, Filtering: AddressAndPortDependent}
	at := func(port uint16) netip.AddrPort { return netip.AddrPortFrom(ours, port) }
	other := netip.AddrPortFrom(x.Addr(), 7001)
	// Without static pairs there is a short way.
	g := newZones(t, hairpins)
	for _, g := range []*bench{newBenchOf(t, Config{Behaviour: hairpins}), g} {
		g.becomes(Inside, x, y1, forward(Outside), at(5000), y1)
		g.becomes(Inside, other, y1, forward(Outside), at(7001), y1)
		g.becomes(Inside, x, at(7001), drop(Filtered), at(5000), other)
		g.becomes(Inside, other, at(5000), forward(Inside), at(7001), x) // x has sent there
		for _, port := range []uint16{7001, 6666} {
			g.becomes(Outside, at(port), at(5000), drop(BadAddress), at(port), x)
		}
	}
	g.becomes(Outside, public, at(5000), drop(BadAddress), public, x)
	for _, dst := range []netip.AddrPort{y1, ownIn, at(5000)} {
		g.becomes(Inside, ownIn, dst, drop(BadAddress), ownIn, dst)
	}
	g.becomes(DMZ, ownDMZ, y1, drop(BadAddress), ownDMZ, y1)
	// It itself does.
	g.becomes(Local, ownIn, x, forward(Inside), ownIn, x)
}

// RFC 1812 section 5.2.2: a router does not guess at what a bit that fell over
// in an IPv4 header has been, with or without options, whether there is a
// mapping or not.
func TestWrongHeaderChecksum(t *testing.T) {
	g := newBench(t, Behaviour{})
	at := g.leaves(x, y1)
	options := ip.AppendUDP(nil, x, y1, 64, make([]byte, 8))
	options = append(options[:20:20], append([]byte{1, 1, 1, 0}, options[20:]...)...)
	options[0], options[3] = 0x46, byte(len(options))
	sum(options)
	for _, c := range []struct {
		from Side
		raw  []byte
	}{
		{Inside, udpPacket(x, y1)}, {Inside, udpPacket(x2, y1)}, {Outside, udpPacket(y1, at)}, {Inside, options},
		{Inside, tcpPacket(x, y1, syn)}, {Inside, ip.AppendEcho(nil, x.Addr(), y1.Addr(), 64, ip.EchoRequest, 1, 1, nil)},
	} {
		for bit := range int(c.raw[0]&15) * 32 {
			raw := bytes.Clone(c.raw)
			raw[bit/8] ^= 1 << (bit % 8)
			if v := g.Handle(g.now, c.from, raw, Offload{}); v.Action != Drop {
				t.Errorf("from %v, bit %d of %x: %+v", c.from, bit, c.raw, v)
			}
		}
		if v := g.Handle(g.now, c.from, bytes.Clone(c.raw), Offload{}); v.Action != Forward {
			t.Errorf("from %v, %x: %+v", c.from, c.raw, v)
		}
	}
}

// A flood from strangers that is answered leaves the inside its errors: without
// "packet too big" a path is a black hole.
func TestFloodDoesNotSilenceTheInside(t *testing.T) {
	g := newSides(t, Config{Behaviour: Behaviour{Unsolicited: Unsolicited{TCP: Reset, Other: Unreachable}}, MTU: [Local]int{Outside: 1400}})
	answered := 0
	for i := range 10 * answersAtOnce {
		g.Handle(g.now, Outside, udpPacket(y1, netip.AddrPortFrom(ours, uint16(10000+i))), Offload{})
		for _, ok := g.Poll(); ok; _, ok = g.Poll() {
			answered++
		}
	}
	if answered != answersAtOnce {
		t.Errorf("%d answers to a flood", answered)
	}
	if v := g.Handle(g.now, Inside, ip.AppendUDP(nil, x, y1, 64, make([]byte, 1400)), Offload{}); v != drop(TooBig) {
		t.Fatalf("%+v", v)
	}
	if p := g.said(Inside); p.MTU() != 1400 {
		t.Errorf("told of an MTU of %d", p.MTU())
	}
}

// Guests are sessions of strangers, of which there is a bound; hosts go on.
func TestFloodOfGuests(t *testing.T) {
	g := newBenchOf(t, Config{Behaviour: Behaviour{Mapping: AddressAndPortDependent, Ports: Ports{Allocation: Random}}, MaxMappings: 100})
	at := g.leaves(x, y1)
	for i := range 5000 {
		stranger := netip.AddrPortFrom(netip.AddrFrom4([4]byte{203, 0, byte(i >> 8), byte(i)}), 4000)
		g.Handle(g.now, Outside, udpPacket(stranger, at), Offload{})
	}
	if s := g.Stats(); s.Sessions > 2*100 || len(g.guests) > s.Sessions {
		t.Errorf("%d sessions, %d guests", s.Sessions, len(g.guests))
	}
	if got := g.leaves(x2, y1); !got.IsValid() {
		t.Error("another host gets no mapping")
	}
	if got := g.leaves(x, z1); !got.IsValid() {
		t.Error("the host reaches nobody else")
	}
}
