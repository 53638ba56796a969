package nat

import (
	"net/netip"

	"github.com/bodkin-net/bodkin/internal/machine/nat/ip"
)

// ICMP errors are translated by the packet that they quote (RFC 5508 section
// 4). They neither refresh nor end a mapping (RFC 4787 REQ-12, RFC 5382
// REQ-10).

// inboundError: the quoted packet once left through a mapping of ours.
func (g *Gateway) inboundError(p *ip.Packet) Reason {
	q := &g.quoted
	if !p.ChecksumOK() || p.Quoted(q) != nil || q.Kind != ip.Plain && q.Kind != ip.EchoRequest {
		return Malformed
	}
	ref := g.mappingAt(q.Proto, q.Src)
	if ref == 0 || !g.quotable(ref, q.Proto, q.Dst) {
		return NoMapping
	}
	if m := g.mapping(ref); m.addr != identity {
		q.SetSrc(g.internal(m))
		p.SetDst(netip.AddrPortFrom(g.internal(m).Addr(), 0))
		p.ResetICMPChecksum()
	}
	return None
}

// outboundError: the quoted packet once came in through a mapping of ours.
func (g *Gateway) outboundError(p *ip.Packet) Reason {
	q := &g.quoted
	if !p.ChecksumOK() || p.Quoted(q) != nil || q.Kind != ip.Plain && q.Kind != ip.EchoReply {
		return Malformed
	}
	ref := g.mappingOf(q.Proto, q.Dst, q.Src)
	if ref == 0 || !g.quotable(ref, q.Proto, q.Src) {
		return NoMapping
	}
	if m := g.mapping(ref); m.addr != identity {
		external := g.external(m)
		q.SetDst(external)
		p.SetSrc(netip.AddrPortFrom(external.Addr(), 0))
		p.ResetICMPChecksum()
	}
	return None
}
