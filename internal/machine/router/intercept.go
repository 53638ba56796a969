package router

import (
	"encoding/binary"
	"slices"
	"time"

	"github.com/bodkin-net/bodkin/internal/machine/dhcp"
	"github.com/bodkin-net/bodkin/internal/machine/nat"
	"github.com/bodkin-net/bodkin/internal/machine/nat/ip"
	"github.com/bodkin-net/bodkin/internal/machine/portmap"
)

const (
	ip4Header   = 20
	ip6Header   = 40
	protoUDP    = 17
	firstGroup  = 224  // the first byte of IPv4 addresses that are no host's
	firstGroup6 = 0xff // and of IPv6 groups
	groupTTL    = 2    // of announcements (UPnP Device Architecture 1.1, section 1.2.2)
)

// takes hands an IPv4 packet to the service that it is for; false: to the
// gateway. From inside it is one to the router, to a group or to everyone.
func (r *Router) takes(now time.Time, from nat.Side, link MAC, pkt []byte, off nat.Offload) bool {
	header := int(pkt[0]&15) * 4
	if len(pkt) < header+4 {
		return false
	}
	if from == nat.Outside {
		return binary.BigEndian.Uint32(pkt[header:]) == dhcp.ServerPort<<16|dhcp.ClientPort && r.answered(now, pkt, off)
	}
	var p ip.Packet
	if p.Decode(pkt) != nil || p.Fragment {
		return false
	}
	p.Partial = off.PartialSum
	switch {
	case p.Kind == ip.EchoReply && r.server != nil:
		r.server.HandlePacket(now, link, p.Data)
		r.busy = true
		return false // perhaps the router's own stack has asked
	case p.Proto != ip.UDP:
		return false
	case p.Dst.Port() == dhcp.ServerPort && r.server != nil:
		p.FinishChecksum()
		r.server.HandlePacket(now, link, p.Data)
		return true
	case (p.Dst.Port() == portmap.Port || p.Dst.Port() == portmap.SSDPPort) && r.ports != nil:
		p.FinishChecksum()
		if p.ChecksumOK() {
			r.ports.Datagram(now, p.Src, p.Dst, p.Payload())
		}
		return true
	}
	return false
}

// answered hands a packet to the DHCP client, if it waits for it. Anything else
// between these ports is somebody else's, whose port the gateway has kept.
func (r *Router) answered(now time.Time, pkt []byte, off nat.Offload) bool {
	var p ip.Packet
	if p.Decode(slices.Clone(pkt)) != nil || p.Fragment {
		return false
	}
	p.Partial = off.PartialSum
	p.FinishChecksum()
	if !r.client.HandlePacket(now, p.Data) {
		return false
	}
	r.heed(now)
	return true
}
