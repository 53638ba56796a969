package nat

import (
	"encoding/binary"

	"github.com/bodkin-net/bodkin/internal/machine/nat/ip"
)

// Most packets are whole IPv4 ones of UDP, or of a TCP connection that is
// open, and have a session. For them express does what Handle does, and
// nothing else: what it does not know it leaves untouched, for the other way.

// header is what express reads of a packet.
type header struct {
	proto    ip.Proto
	src, dst endpoint
	sum      int // where the transport checksum is
}

const expressHeader = 20

// read reports whether the packet is one for express.
func (h *header) read(b []byte) bool {
	if len(b) < 28 || b[0] != 0x45 || b[8] <= 1 || binary.BigEndian.Uint16(b[6:])&^0x4000 != 0 {
		return false
	}
	n := int(binary.BigEndian.Uint16(b[2:]))
	if n < 28 || n > len(b) || !soundHeader((*[expressHeader]byte)(b)) {
		return false
	}
	ports := binary.BigEndian.Uint32(b[20:])
	switch b[9] {
	case 17:
		if l := int(binary.BigEndian.Uint16(b[24:])); l < 8 || l > n-expressHeader {
			return false
		}
		h.proto, h.sum = ip.UDP, 26
	case 6:
		if n < 40 {
			return false
		}
		if l := int(b[32]>>4) * 4; l < 20 || l > n-expressHeader {
			return false
		}
		h.proto, h.sum = ip.TCP, 36
		if b[33]&(ip.SYN|ip.FIN|ip.RST|ip.ACK) != ip.ACK {
			return false
		}
	default:
		return false
	}
	h.src = at4(binary.BigEndian.Uint32(b[12:]), uint16(ports>>16))
	h.dst = at4(binary.BigEndian.Uint32(b[16:]), uint16(ports))
	return ports>>16 != 0 && ports&0xffff != 0
}

// soundHeader verifies the checksum of an IPv4 header without options (RFC 1812
// section 5.2.2).
func soundHeader(b *[expressHeader]byte) bool {
	sum := uint64(binary.BigEndian.Uint32(b[0:])) + uint64(binary.BigEndian.Uint32(b[4:])) + uint64(binary.BigEndian.Uint32(b[8:])) +
		uint64(binary.BigEndian.Uint32(b[12:])) + uint64(binary.BigEndian.Uint32(b[16:]))
	sum = sum>>32 + sum&0xffffffff
	sum = sum>>16 + sum&0xffff
	return sum>>16+sum&0xffff == 0xffff
}

// hasExpress reports whether there is nothing in the behaviour that express
// would have to know.
func (g *Gateway) hasExpress() bool {
	return g.cfg.Mode == Translate && !g.cfg.BlockUDP && !g.cfg.KeepTTL && !g.tracking && len(g.fixed) == 0 &&
		g.cfg.Timers.UDPUnanswered == 0 && len(g.cfg.Untranslated) == 0 && !g.guested
}

// express reports false when it has done nothing.
func (g *Gateway) express(from Side, b []byte) (Verdict, bool) {
	var h header
	if !h.read(b) {
		return Verdict{}, false
	}
	var at uint32
	var d direction
	remote := h.dst
	side := Outside
	switch from {
	case Inside:
		if b[6]&0x40 == 0 || // it may be cut, so it needs a number of ours
			g.side4(h.src) != Inside || g.side4(h.dst) != Outside || g.roles4.of(h.dst) != identity || g.symmetrics > 0 {
			return Verdict{}, false
		}
		key := keyOf(h.proto, Outside, h.src)
		if g.wides > 0 && g.mappingOf(key|keyForMap, 0) != 0 {
			return Verdict{}, false
		}
		at = g.mappingOf(key, g.policy(h.proto).Mapping.depends(h.dst))
	case Outside:
		addr := g.roles4.of(h.dst)
		if addr >= mine || g.side4(h.src) != Outside || martian4(b[12]) || g.roles4.of(h.src) != identity {
			return Verdict{}, false
		}
		d, remote = inbound, h.src
		at = g.holder(h.proto, addr, h.dst.port(), h.src)
	}
	if at == 0 {
		return Verdict{}, false
	}
	m := g.mapping(at)
	if d == inbound {
		side = m.side
	}
	ref := g.sessionOf(at, m, g.scope(m, remote))
	if ref == 0 || m.addr == identity || side == Local || int(binary.BigEndian.Uint16(b[2:])) > g.mtus[side] {
		return Verdict{}, false
	}
	if h.proto == ip.TCP {
		s := g.session(ref)
		if s.class != classEstablished || s.tcp&reset != 0 {
			return Verdict{}, false
		}
		g.touch(ref, classEstablished)
	} else if d == outbound && g.refreshOut || d == inbound && g.refreshIn {
		if g.shared(m) {
			ref = at | inMapping
		}
		g.touch(ref, classUDP)
	}
	if d == outbound {
		h.rewrite(b, 12, 20, g.externals[m.addr].packed|endpoint(m.port))
	} else {
		h.rewrite(b, 16, 22, m.internal())
	}
	return forward(side), true
}

// rewrite puts an endpoint in the place of another, takes a hop off, and
// brings the checksums up to date (RFC 1624).
func (h *header) rewrite(b []byte, addr, port int, to endpoint) {
	old, now := binary.BigEndian.Uint32(b[addr:]), to.number()
	change := changed(old>>16, now>>16) + changed(old&0xffff, now&0xffff)
	binary.BigEndian.PutUint32(b[addr:], now)
	hop := uint32(binary.BigEndian.Uint16(b[8:]))
	b[8]--
	adjust(b[10:], change+changed(hop, hop-0x100))
	change += changed(uint32(binary.BigEndian.Uint16(b[port:])), uint32(to.port()))
	binary.BigEndian.PutUint16(b[port:], to.port())
	sum := b[h.sum : h.sum+2]
	if h.proto == ip.UDP && sum[0]|sum[1] == 0 { // it has none
		return
	}
	adjust(sum, change)
	if h.proto == ip.UDP && sum[0]|sum[1] == 0 {
		sum[0], sum[1] = 0xff, 0xff
	}
}

// changed is what a sum changes by when one 16-bit word becomes another.
func changed(old, now uint32) uint32 { return ^old&0xffff + now }

func adjust(sum []byte, change uint32) {
	s := uint32(^binary.BigEndian.Uint16(sum)) + change
	s = s>>16 + s&0xffff
	s = s>>16 + s&0xffff
	binary.BigEndian.PutUint16(sum, ^uint16(s))
}
