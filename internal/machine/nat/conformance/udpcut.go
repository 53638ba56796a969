package conformance

import (
	"bytes"
	"encoding/binary"
	"net/netip"
	"slices"

	"github.com/bodkin-net/bodkin/internal/machine/nat"
	"github.com/bodkin-net/bodkin/internal/machine/nat/ip"
)

// RFC 4787 sections 10 and 11: packets that are too large, and their parts.

const narrowMTU = 1000

func narrow(c *nat.Config) { c.MTU[nat.Outside] = narrowMTU }

// large is more than narrowMTU, and every part of it looks different.
var large = bytes.Repeat([]byte("0123456789abcdefghijklmnopqrstuvwxyz."), 38)

func tooBig(t *trial) {
	b := t.bench(narrow)
	b.udpOut(x, y1)
	pkt := ip.AppendUDP(nil, x, y1, 64, large)
	sent := bytes.Clone(pkt)
	all := b.send(nat.Inside, pkt)
	d, ok := one(all)
	t.want(ok && d.to == nat.Inside && isICMP(d, 3, 4) && d.Dst.Addr() == addrX, "no ICMP error: fragmentation needed")
	t.want(binary.BigEndian.Uint16(d.Transport()[6:]) == narrowMTU, "the error does not name the MTU")
	q, ok := quote(d)
	t.want(ok && q.Src == x && q.Dst == y1 && bytes.HasPrefix(sent[28:], q.Payload()), "the error quotes another packet")
}

func cuts(t *trial) {
	b := t.bench(narrow)
	external := b.udpOut(x, y1)
	parts := b.send(nat.Inside, divisible(ip.AppendUDP(nil, x, y1, 64, large), 7))
	t.want(len(parts) > 1, "a packet that may be cut is not")
	end := 0
	for _, d := range parts {
		_, at, _ := d.Part()
		t.want(d.to == nat.Outside && len(d.Data) <= narrowMTU, "a part is too large too")
		t.want(at == end, "parts leave out of order")
		end = at + d.PartLen()
	}
	b.isWhole(parts, external, y1, large)
}

// isWhole: the parts are a UDP packet of these endpoints.
func (b *bench) isWhole(parts []delivery, src, dst netip.AddrPort, payload []byte) {
	pkt := whole(parts)
	b.want(pkt != nil, "parts of a packet do not get through")
	b.want(sums(pkt) == nil, "parts make a packet with a wrong checksum")
	var p ip.Packet
	b.want(p.Decode(pkt) == nil && p.Src == src && p.Dst == dst && bytes.Equal(p.Payload(), payload), "parts make another packet")
}

// orders are ways in which three parts come.
var orders = [][]int{{0, 1, 2}, {2, 1, 0}, {1, 0, 2}, {2, 0, 1}}

// parts sends a packet in parts, and returns what comes out at the other side.
func (b *bench) parts(from nat.Side, pkt []byte, order []int) (all []delivery) {
	parts := cut(pkt, 480)
	to := nat.Inside
	if from == nat.Inside {
		to = nat.Outside
	}
	for _, i := range order {
		for _, d := range b.send(from, slices.Clone(parts[i])) {
			if d.to == to {
				all = append(all, d)
			}
		}
	}
	return all
}

func partsInAnyOrder(t *trial) {
	b := t.bench(nil)
	external := b.udpOut(x, y1)
	for i, order := range orders {
		id := uint16(100 + i)
		in := b.parts(nat.Outside, divisible(ip.AppendUDP(nil, y1, external, 64, large), id), order)
		b.isWhole(in, y1, x, large)
		out := b.parts(nat.Inside, divisible(ip.AppendUDP(nil, x, y1, 64, large), id), order)
		b.isWhole(out, external, y1, large)
	}
}

func floodOfParts(t *trial) {
	b := t.bench(nil)
	external := b.udpOut(x, y1)
	last := cut(divisible(ip.AppendUDP(nil, z1, external, 64, large), 0), 480)[1]
	flood := func() {
		for i := range 20_000 {
			part := slices.Clone(last)
			binary.BigEndian.PutUint16(part[4:], uint16(i))
			part[15] = byte(i >> 16) // many sources
			part[14] = byte(i >> 8)
			b.send(nat.Outside, fixHeader(part))
		}
	}
	flood()
	t.want(b.udpIn(y1, external, x), "after a flood of parts, whole packets do not get through")
	in := b.parts(nat.Outside, divisible(ip.AppendUDP(nil, y1, external, 64, large), 9), orders[0])
	b.isWhole(in, y1, x, large)
	// In the middle of a packet.
	parts := cut(divisible(ip.AppendUDP(nil, y1, external, 64, large), 10), 480)
	in = b.send(nat.Outside, parts[0])
	flood()
	for _, part := range parts[1:] {
		in = append(in, b.send(nat.Outside, part)...)
	}
	b.isWhole(in, y1, x, large)
}
