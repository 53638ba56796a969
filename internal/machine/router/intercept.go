package router

import (
	"encoding/binary"
	"time"

	"github.com/bodkin-net/bodkin/internal/machine/dhcp"
	"github.com/bodkin-net/bodkin/internal/machine/nat"
	"github.com/bodkin-net/bodkin/internal/machine/nat/ip"
	"github.com/bodkin-net/bodkin/internal/machine/portmap"
)

const (
	ip4Header  = 20
	ip6Header  = 40
	protoUDP   = 17
	firstGroup = 224 // the first byte of IPv4 addresses that are no host's
	groupTTL   = 2   // of announcements (UPnP Device Architecture 1.1, section 1.2.2)
)

// takes hands an IPv4 packet to whom it is for; false: to the gateway. Nearly
// every packet is, so what rules the others out is looked at first.
func (r *Router) takes(now time.Time, from nat.Side, link MAC, pkt []byte, off nat.Offload) bool {
	switch from {
	case nat.Inside:
		if r.server != nil && link != (MAC{}) {
			r.server.Seen(now, [4]byte(pkt[12:16]), link)
		}
		// To the router, to a group or to everyone.
		return (pkt[16] >= firstGroup || [4]byte(pkt[16:20]) == r.inside) && r.fromInside(now, link, pkt, off)
	case nat.Outside:
		return r.client != nil && pkt[9] == protoUDP && r.fromOutside(now, pkt, off)
	}
	return false
}

// fromInside takes what is for the DHCP server or for port mapping.
func (r *Router) fromInside(now time.Time, link MAC, pkt []byte, off nat.Offload) bool {
	var p ip.Packet
	if !decode(&p, pkt, off) {
		return false
	}
	if p.Kind == ip.EchoReply && r.server != nil {
		r.server.HandlePacket(now, link, p.Data)
		r.busy = true
		return false // perhaps the router's own stack has asked
	}
	if p.Proto != ip.UDP {
		return false
	}
	switch p.Dst.Port() {
	case dhcp.ServerPort:
		if r.server != nil {
			r.server.HandlePacket(now, link, p.Data)
			return true
		}
	case portmap.Port, portmap.SSDPPort:
		if r.ports != nil && p.ChecksumOK() {
			r.ports.Datagram(now, p.Src, p.Dst, p.Payload())
			return true
		}
	}
	return false
}

// fromOutside takes what the DHCP client waits for. Anything else to its port
// is somebody else's, whose port the gateway has kept.
func (r *Router) fromOutside(now time.Time, pkt []byte, off nat.Offload) bool {
	header := int(pkt[0]&15) * 4
	if len(pkt) < header+4 || binary.BigEndian.Uint32(pkt[header:]) != dhcp.ServerPort<<16|dhcp.ClientPort {
		return false
	}
	var p ip.Packet
	if !decode(&p, pkt, off) || !r.client.HandlePacket(now, p.Data) {
		return false
	}
	r.heed(now)
	return true
}

// toMany tells whether a packet is for a group or for everyone. No such packet
// is carried from one side to another.
func toMany(pkt []byte) bool {
	if len(pkt) < ip4Header {
		return false
	}
	if pkt[0]>>4 == 4 {
		return pkt[16] >= firstGroup
	}
	return len(pkt) >= ip6Header && pkt[24] == 0xff
}

// decode reads a packet that is whole.
func decode(p *ip.Packet, pkt []byte, off nat.Offload) bool {
	if p.Decode(pkt) != nil || p.Fragment {
		return false
	}
	p.Partial = off.PartialSum
	p.FinishChecksum()
	return true
}
