package dhcp

import (
	"fmt"
	"net"
	"net/netip"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"github.com/insomniacslk/dhcp/iana"
)

// kind is what a message is for: DISCOVER, OFFER and so on.
type kind = dhcpv4.MessageType

const (
	discover = dhcpv4.MessageTypeDiscover
	offer    = dhcpv4.MessageTypeOffer
	request  = dhcpv4.MessageTypeRequest
	decline  = dhcpv4.MessageTypeDecline
	ack      = dhcpv4.MessageTypeAck
	nak      = dhcpv4.MessageTypeNak
	release  = dhcpv4.MessageTypeRelease
	inform   = dhcpv4.MessageTypeInform
)

const (
	maxMessage   = 1472 // of UDP payload: none is fragmented
	maxClientID  = 255
	maxAddresses = 16 // in a list of servers

	// MaxRoutes is how many routes a message tells of: the longest fit.
	MaxRoutes = 100
)

// message is a DHCP message with those of its options that are used here. An
// address that is not told is invalid, never 0.0.0.0.
type message struct {
	reply     bool // from a server
	kind      kind
	xid       [4]byte
	secs      uint16
	broadcast bool
	client    netip.Addr // ciaddr: what the client has
	yours     netip.Addr // yiaddr: what the client gets
	relay     netip.Addr // giaddr
	hw        MAC

	id        string // client identifier; empty: none
	requested netip.Addr
	server    netip.Addr
	lease     time.Duration // zero: not told; Forever
	t1, t2    time.Duration
	bits      int // of the network's prefix, from its mask; zero: not told
	routers   []netip.Addr
	dns       []netip.Addr
	routes    []Route // RFC 3442; nil: not told
	mtu       uint16
	text      string
}

func parseMessage(b []byte) (*message, error) {
	if len(b) > maxMessage {
		return nil, errMessage
	}
	d, err := dhcpv4.FromBytes(b)
	if err != nil {
		return nil, fmt.Errorf("dhcp: %w", err)
	}
	if d.HWType != iana.HWTypeEthernet || len(d.ClientHWAddr) != len(MAC{}) {
		return nil, errMessage
	}
	m := &message{
		kind:      d.MessageType(),
		xid:       d.TransactionID,
		secs:      d.NumSeconds,
		broadcast: d.IsBroadcast(),
		client:    address(d.ClientIPAddr),
		yours:     address(d.YourIPAddr),
		relay:     address(d.GatewayIPAddr),
		hw:        MAC(d.ClientHWAddr),
		id:        string(d.Options.Get(dhcpv4.OptionClientIdentifier)),
		requested: address(d.RequestedIPAddress()),
		server:    address(d.ServerIdentifier()),
		lease:     d.IPAddressLeaseTime(0),
		t1:        d.IPAddressRenewalTime(0),
		t2:        d.IPAddressRebindingTime(0),
		routers:   addresses(d.Router()),
		dns:       addresses(d.DNS()),
		routes:    routes(d.ClasslessStaticRoute()),
		text:      d.Message(),
	}
	switch d.OpCode {
	case dhcpv4.OpcodeBootRequest:
	case dhcpv4.OpcodeBootReply:
		m.reply = true
	default:
		return nil, errMessage
	}
	if mask := d.SubnetMask(); mask != nil {
		m.bits, _ = mask.Size()
	}
	if mtu, err := dhcpv4.GetUint16(dhcpv4.OptionInterfaceMTU, d.Options); err == nil {
		m.mtu = mtu
	}
	// These decide what a message means, so one that cannot be read must not
	// look like one that is not there.
	torn := d.Options.Has(dhcpv4.OptionServerIdentifier) && d.ServerIdentifier() == nil ||
		d.Options.Has(dhcpv4.OptionRequestedIPAddress) && d.RequestedIPAddress() == nil
	if torn || !m.hw.single() || len(m.id) > maxClientID || m.reply != fromServer(m.kind) {
		return nil, errMessage
	}
	return m, nil
}

func fromServer(k kind) bool { return k == offer || k == ack || k == nak }

// bytes encodes what is told.
func (m *message) bytes() []byte {
	d := &dhcpv4.DHCPv4{
		OpCode:        dhcpv4.OpcodeBootRequest,
		HWType:        iana.HWTypeEthernet,
		TransactionID: m.xid,
		NumSeconds:    m.secs,
		ClientIPAddr:  netIP(m.client),
		YourIPAddr:    netIP(m.yours),
		GatewayIPAddr: netIP(m.relay),
		ClientHWAddr:  m.hw[:],
		Options:       dhcpv4.Options{},
	}
	if m.reply {
		d.OpCode = dhcpv4.OpcodeBootReply
	}
	if m.broadcast {
		d.SetBroadcast()
	}
	set := func(is bool, o dhcpv4.Option) {
		if is {
			d.Options.Update(o)
		}
	}
	set(true, dhcpv4.OptMessageType(m.kind))
	set(m.id != "", dhcpv4.OptClientIdentifier([]byte(m.id)))
	set(m.requested.IsValid(), dhcpv4.OptRequestedIPAddress(netIP(m.requested)))
	set(m.server.IsValid(), dhcpv4.OptServerIdentifier(netIP(m.server)))
	set(m.lease != 0, dhcpv4.OptIPAddressLeaseTime(m.lease))
	set(m.t1 != 0, dhcpv4.OptRenewTimeValue(m.t1))
	set(m.t2 != 0, dhcpv4.OptRebindingTimeValue(m.t2))
	set(m.bits != 0, dhcpv4.OptSubnetMask(net.CIDRMask(m.bits, 32)))
	set(m.routers != nil, dhcpv4.OptRouter(netIPs(m.routers)...))
	set(m.dns != nil, dhcpv4.OptDNS(netIPs(m.dns)...))
	set(m.routes != nil, dhcpv4.OptClasslessStaticRoute(classless(m.routes)...))
	set(m.mtu != 0, dhcpv4.OptGeneric(dhcpv4.OptionInterfaceMTU, []byte{byte(m.mtu >> 8), byte(m.mtu)}))
	set(m.text != "", dhcpv4.OptMessage(m.text))
	set(!m.reply && m.kind != decline && m.kind != release, dhcpv4.OptParameterRequestList(
		dhcpv4.OptionSubnetMask, dhcpv4.OptionClasslessStaticRoute, dhcpv4.OptionRouter, dhcpv4.OptionDomainNameServer, dhcpv4.OptionInterfaceMTU))
	return d.ToBytes()
}

// address is invalid for 0.0.0.0, which means none.
func address(b net.IP) netip.Addr {
	if a, ok := netip.AddrFromSlice(b); ok && a.Is4() && !a.IsUnspecified() {
		return a
	}
	return netip.Addr{}
}

func addresses(list []net.IP) (all []netip.Addr) {
	for _, b := range list[:min(len(list), maxAddresses)] {
		if a := address(b); a.IsValid() {
			all = append(all, a)
		}
	}
	return all
}

// routes clears what is behind the mask (RFC 3442 has clients do that).
func routes(list []*dhcpv4.Route) (all []Route) {
	for _, r := range list[:min(len(list), MaxRoutes)] {
		to, _ := netip.AddrFromSlice(r.Dest.IP)
		bits, _ := r.Dest.Mask.Size()
		all = append(all, Route{netip.PrefixFrom(to, bits).Masked(), address(r.Router)})
	}
	return all
}

func classless(list []Route) (all []*dhcpv4.Route) {
	for _, r := range list {
		via := netip.IPv4Unspecified() // on the network itself
		if r.Via.IsValid() {
			via = r.Via
		}
		all = append(all, &dhcpv4.Route{Dest: &net.IPNet{IP: netIP(r.To.Addr()), Mask: net.CIDRMask(r.To.Bits(), 32)}, Router: netIP(via)})
	}
	return all
}

func netIP(a netip.Addr) net.IP {
	if !a.Is4() {
		return nil
	}
	return a.AsSlice()
}

func netIPs(list []netip.Addr) (all []net.IP) {
	for _, a := range list {
		all = append(all, netIP(a))
	}
	return all
}
