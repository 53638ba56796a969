package netns

import (
	"encoding/binary"
	"net/netip"
)

// mac is a hardware address.
type mac = [6]byte

const (
	typeIPv4 = 0x0800
	typeARP  = 0x0806
	typeIPv6 = 0x86dd
)

var (
	everyone = mac{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}
	// wireMAC is who answers for the routers of the internet, and for all that
	// is beyond them.
	wireMAC = mac{0x02, 'b', 'o', 'd', 'k', 'i'}
)

// The Ethernet header in a buffer.
func setEther(buf []byte, dst, src mac, kind uint16) {
	copy(buf[vnetLen:], dst[:])
	copy(buf[vnetLen+6:], src[:])
	binary.BigEndian.PutUint16(buf[vnetLen+12:], kind)
}

func etherDst(buf []byte) mac     { return mac(buf[vnetLen:]) }
func etherSrc(buf []byte) mac     { return mac(buf[vnetLen+6:]) }
func etherType(buf []byte) uint16 { return binary.BigEndian.Uint16(buf[vnetLen+12:]) }

func isGroup(m mac) bool { return m[0]&1 != 0 }

// etherTypeOf is that of an IP packet.
func etherTypeOf(ip []byte) uint16 {
	if ip[0]>>4 == 4 {
		return typeIPv4
	}
	return typeIPv6
}

// groupMAC is where packets to a broadcast or multicast address are sent (RFC
// 1112 section 6.4, RFC 2464 section 7).
func groupMAC(a netip.Addr) mac {
	switch {
	case !a.IsMulticast():
		return everyone
	case a.Is4():
		b := a.As4()
		return mac{0x01, 0x00, 0x5e, b[1] & 0x7f, b[2], b[3]}
	}
	b := a.As16()
	return mac{0x33, 0x33, b[12], b[13], b[14], b[15]}
}

var limitedBroadcast = netip.AddrFrom4([4]byte{255, 255, 255, 255})

func isEveryone(a netip.Addr) bool { return a.IsMulticast() || a == limitedBroadcast }

// arp is a message of RFC 826 for IPv4 on Ethernet.
type arp struct {
	reply          bool
	senderHW       mac
	sender, target netip.Addr
}

const arpLen = 28

func parseARP(buf []byte) (a arp, ok bool) {
	if len(buf) < room+arpLen {
		return a, false
	}
	b := buf[room:]
	op := binary.BigEndian.Uint16(b[6:])
	if binary.BigEndian.Uint64(b)>>16 != 0x0001_0800_0604 || op != 1 && op != 2 {
		return a, false
	}
	return arp{
		reply:    op == 2,
		senderHW: mac(b[8:]),
		sender:   netip.AddrFrom4([4]byte(b[14:])),
		target:   netip.AddrFrom4([4]byte(b[24:])),
	}, true
}

// isProbe tells a question whether somebody has an address, or the news that the
// sender has it (RFC 5227 section 1.1), from one that wants to send there.
func (a arp) isProbe() bool { return a.sender.IsUnspecified() || a.sender == a.target }

// appendARP appends a message in a frame, with room in front.
func appendARP(b []byte, dst mac, reply bool, senderHW mac, sender netip.Addr, targetHW mac, target netip.Addr) []byte {
	var frame [room + arpLen]byte
	setEther(frame[:], dst, senderHW, typeARP)
	p := frame[room:]
	binary.BigEndian.PutUint64(p, 0x0001_0800_0604_0001)
	if reply {
		p[7] = 2
	}
	copy(p[8:], senderHW[:])
	copy(p[14:], sender.AsSlice())
	copy(p[18:], targetHW[:])
	copy(p[24:], target.AsSlice())
	return append(b, frame[:]...)
}

// Neighbour discovery, RFC 4861 section 4.
const (
	neighbourSolicitation  = 135
	neighbourAdvertisement = 136
	targetOption           = 2
	neighbourHops          = 255
)

var allNodes = netip.MustParseAddr("ff02::1")

// solicited is the address that a neighbour solicitation asks for.
func (v *view) solicited() (target netip.Addr, ok bool) {
	if v.proto != ICMPv6 || v.transit != 40 || len(v.ip) < 64 || v.ip[40] != neighbourSolicitation || v.ip[7] != neighbourHops {
		return target, false
	}
	return netip.AddrFrom16([16]byte(v.ip[48:])), true
}

// managesLinks says that a packet is of what IPv6 has in the place of ARP and
// IGMP: neighbour discovery and multicast listener discovery.
func (v *view) managesLinks() bool {
	return v.proto == ICMPv6 && len(v.ip) > v.transit && v.ip[v.transit] >= 130
}

// appendAdvertisement appends the answer to a solicitation, with room in front.
// One who asks without an address is told as everyone is (section 7.2.4).
func appendAdvertisement(b []byte, target netip.Addr, hw mac, to netip.Addr, toHW mac) []byte {
	const solicited, override = 0x40, 0x20
	flags := byte(solicited | override)
	if to.IsUnspecified() {
		to, toHW, flags = allNodes, groupMAC(allNodes), override
	}
	var frame [room + 72]byte
	setEther(frame[:], toHW, hw, typeIPv6)
	p := frame[room:]
	p[0], p[5], p[6], p[7] = 0x60, 32, byte(ICMPv6), neighbourHops
	copy(p[8:], target.AsSlice())
	copy(p[24:], to.AsSlice())
	p[40], p[44] = neighbourAdvertisement, flags
	copy(p[48:], target.AsSlice())
	p[64], p[65] = targetOption, 1
	copy(p[66:], hw[:])
	v := view{ip: p, proto: ICMPv6}
	binary.BigEndian.PutUint16(p[42:], ^fold(v.pseudoSum(32)+addSum(0, p[40:])))
	return append(b, frame[:]...)
}

// linkLocal is the address that an interface makes for itself (RFC 4291
// appendix A).
func linkLocal(hw mac) netip.Addr {
	return netip.AddrFrom16([16]byte{0xfe, 0x80, 8: hw[0] ^ 2, hw[1], hw[2], 0xff, 0xfe, hw[3], hw[4], hw[5]})
}
