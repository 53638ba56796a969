package nat

import (
	"net/netip"

	"github.com/bodkin-net/bodkin/internal/machine/nat/ip"
)

// ICMP errors are translated by the packet that they quote (RFC 5508 section
// 4). They neither refresh nor end a mapping (RFC 4787 REQ-12, RFC 5382
// REQ-10), unless the behaviour says ICMPCloses.

// quote decodes what an error quotes. RFC 5508 REQ-3: an error with a wrong
// checksum or with a quote whose IP header has one is dropped; the checksum of
// the quoted transport header is not looked at. It was sent by a host of ours,
// or came to one: but no host sends what of the echoes is not asked for.
func (g *Gateway) quote(p *ip.Packet, notBy ip.Kind) Reason {
	if g.cfg.ICMP.DropErrors {
		return Filtered
	}
	q := &g.quoted
	if p.Fragment || !p.ChecksumOK() || p.Quoted(q) != nil || !q.HeaderOK() ||
		q.Kind == ip.Error || q.Kind == notBy || q.Proto == ip.ICMP && q.Kind == ip.Plain {
		return Malformed
	}
	// Errors go to who sent what they are about (RFC 792). To another they would
	// pass where nothing else does, by quoting what somebody else has sent.
	if p.Dst.Addr() != q.Src.Addr() {
		return BadAddress
	}
	return None
}

// inboundError: the quoted packet once left through a mapping of ours. It goes
// to the side of that mapping.
func (g *Gateway) inboundError(from Side, p *ip.Packet) (Side, Reason) {
	if r := g.quote(p, ip.EchoReply); r != None {
		return Local, r
	}
	q := &g.quoted
	if !routable(p.Src.Addr()) {
		return Local, BadAddress
	}
	if q.Proto == ip.Other {
		return g.inboundBare(from, p)
	}
	ref, session := g.at(from, q.Proto, q.Src, q.Dst)
	if session == 0 {
		return Local, NoMapping
	}
	m := g.mapping(ref)
	g.unquote(outbound, session, p)
	if m.addr != identity {
		internal := g.internal(m)
		if !g.cfg.ICMP.KeepQuote {
			q.SetSrc(internal)
			p.ResetICMPChecksum()
		}
		p.SetDst(netip.AddrPortFrom(internal.Addr(), 0))
	}
	side := m.side
	if q.Proto == ip.TCP {
		g.session(session).tcp |= errored
		if cause, _ := p.Cause(); g.cfg.TCP.ICMPCloses && cause != ip.TooBig {
			g.dropSession(session)
		}
	}
	return side, None
}

// outboundError: the quoted packet once came in through a mapping of ours.
func (g *Gateway) outboundError(from, to Side, p *ip.Packet) Reason {
	if r := g.quote(p, ip.EchoRequest); r != None {
		return r
	}
	q := &g.quoted
	if q.Proto == ip.Other {
		return g.outboundBare(from, to, p)
	}
	ref, session := g.toRemote(from, to, q.Proto, q.Dst, q.Src)
	if session == 0 {
		return NoMapping
	}
	m := g.mapping(ref)
	if m.addr != identity && q.SourceRouted() {
		return Unsupported
	}
	g.unquote(inbound, session, p)
	if m.addr != identity {
		external := g.external(m)
		if !g.cfg.ICMP.KeepQuote {
			q.SetDst(external)
			p.ResetICMPChecksum()
		}
		g.speakFor(external.Addr(), p)
	}
	return None
}

// speakFor gives an error that leaves an external address. RFC 5508 REQ-5c: a
// host with one of its own has that, others the one that the error is about.
func (g *Gateway) speakFor(external netip.Addr, p *ip.Packet) {
	if i, static := g.fixed[p.Src.Addr()]; static {
		external = g.externals[i].addr
	}
	p.SetSrc(netip.AddrPortFrom(external, 0))
}

// inboundBare is inboundError for a protocol that is not followed: what bare lets
// out may come back as an error.
func (g *Gateway) inboundBare(from Side, p *ip.Packet) (Side, Reason) {
	q := &g.quoted
	to, internal, static := from, q.Src, false
	if i := g.dst.external; i != identity {
		if to, static = Outside, g.externals[i].static(); !static {
			return Local, NoMapping
		}
		internal = netip.AddrPortFrom(g.externals[i].inner, 0)
	} else if g.dst.side != Local || g.translates(q.Src.Addr()) && from == Outside {
		return Local, NoMapping
	}
	side := g.sideOf(internal.Addr())
	if side == Outside || side == from && !static {
		return Local, BadAddress
	}
	if r := g.bareRuled(side, to, internal, q.Dst, static); r != None || !static {
		return side, r
	}
	if !g.cfg.ICMP.KeepQuote {
		q.SetSrc(internal)
		p.ResetICMPChecksum()
	}
	p.SetDst(internal)
	return side, None
}

// outboundBare is outboundError likewise.
func (g *Gateway) outboundBare(from, to Side, p *ip.Packet) Reason {
	q := &g.quoted
	i, static := uint8(identity), false
	if to == Outside && g.translates(q.Dst.Addr()) {
		if i, static = g.fixed[q.Dst.Addr()]; !static {
			return NoMapping
		}
	}
	if r := g.bareRuled(to, from, q.Src, q.Dst, static); r != None || !static {
		return r
	}
	external := g.externals[i].addr
	if !g.cfg.ICMP.KeepQuote {
		q.SetDst(netip.AddrPortFrom(external, 0))
		p.ResetICMPChecksum()
	}
	g.speakFor(external, p)
	return None
}

// bareRuled asks the rules about the quoted packet, as bare did.
func (g *Gateway) bareRuled(from, to Side, src, dst netip.AddrPort, static bool) Reason {
	switch g.rule(from, to, &g.quoted, src, dst) {
	case accepted:
		return None
	case undecided:
		if static {
			return None
		}
		return NoMapping
	}
	return Ruled
}

// unquote gives the quoted segment the numbers back that it had when it came
// to the gateway, in direction d.
func (g *Gateway) unquote(d direction, session uint32, p *ip.Packet) {
	if g.quoted.Proto != ip.TCP || g.cfg.ICMP.KeepQuote {
		return
	}
	track := g.session(session).track
	if track == 0 {
		return
	}
	if n := g.tracks.numbering(track); !n.none() {
		n.quoted(d, &g.quoted)
		p.ResetICMPChecksum()
	}
}
