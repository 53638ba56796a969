package sim

import (
	"context"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"slices"
	"syscall"

	"github.com/bodkin-net/bodkin/internal/machine/nat/ip"
)

// Host is an IP stack with sockets: a machine with one interface, or what runs
// on a gateway itself. Its methods are those that bodkin asks of a network, and
// what tests need besides.
type Host struct {
	n    *Network
	name string
	at   attachment
	port *port // where what it gets is traced
	rnd  *rand.Rand

	udp       map[netip.AddrPort]*udpConn // by local endpoint, unspecified for all addresses
	connected map[flow]*udpConn
	udpPorts  map[uint16]int // sockets on a port
	tcp       map[flow]*tcpConn
	listeners map[uint16]*listener
	pings     map[uint16]*ping

	packet  ip.Packet // the packet at hand
	ttl     uint8     // of the packet at hand
	nextID  uint32    // of packets that are cut
	partial partials
	paths   pathMTUs
}

// attachment is where a host's packets leave, and what it is called there.
type attachment interface {
	addresses() []netip.Addr
	source(dst netip.Addr) netip.Addr // invalid: no way
	mtu(dst netip.Addr) int
	transmit(pkt *buffer)
}

// flow is a connection, seen from the host.
type flow struct{ local, remote netip.AddrPort }

func newHost(n *Network, name string) *Host {
	return &Host{
		n:         n,
		name:      name,
		rnd:       n.rand(name),
		udp:       make(map[netip.AddrPort]*udpConn),
		connected: make(map[flow]*udpConn),
		udpPorts:  make(map[uint16]int),
		tcp:       make(map[flow]*tcpConn),
		listeners: make(map[uint16]*listener),
		pings:     make(map[uint16]*ping),
	}
}

// Name is the host's in the topology.
func (h *Host) Name() string { return h.name }

// Addrs are the host's addresses, IPv4 first.
func (h *Host) Addrs() ([]netip.Addr, error) {
	h.n.enter()
	defer h.n.leave()
	addrs := slices.Clone(h.at.addresses())
	slices.SortFunc(addrs, netip.Addr.Compare)
	return addrs, nil
}

// LookupIP knows literal addresses and the names of the topology's hosts.
func (h *Host) LookupIP(ctx context.Context, host string) ([]netip.Addr, error) {
	if err := ctx.Err(); err != nil {
		return nil, &net.DNSError{Err: err.Error(), Name: host, IsTimeout: err == context.DeadlineExceeded}
	}
	if a, err := netip.ParseAddr(host); err == nil {
		return []netip.Addr{a.Unmap()}, nil
	}
	if other := h.n.hosts[host]; other != nil {
		return other.Addrs()
	}
	return nil, &net.DNSError{Err: "no such host", Name: host, IsNotFound: true}
}

func (h *Host) close() {
	for _, c := range h.udp {
		c.close()
	}
	for _, c := range h.connected {
		c.close()
	}
	for _, l := range h.listeners {
		l.close()
	}
	for _, c := range h.tcp {
		c.die(net.ErrClosed)
	}
	for _, p := range h.pings {
		p.end(net.ErrClosed)
	}
}

// source is the address to send to dst from.
func (h *Host) source(dst netip.Addr) (netip.Addr, error) {
	if dst.IsLoopback() {
		return dst, nil
	}
	if a := h.at.source(dst); a.IsValid() {
		return a, nil
	}
	return netip.Addr{}, os.NewSyscallError("connect", syscall.ENETUNREACH)
}

func (h *Host) isMine(a netip.Addr) bool {
	return a.IsLoopback() || slices.Contains(h.at.addresses(), a)
}

// output sends a packet that the host has built. One from an address that the
// host has no more goes nowhere, as Linux has it.
func (h *Host) output(pkt *buffer) {
	src, dst := addresses(pkt.b)
	if h.isMine(src) && h.port.segment.forAll(dst) { // is for this host as well
		h.n.schedule(h.n.now, loopback{h}, h.n.duplicate(pkt))
	}
	switch {
	case !h.isMine(src):
		h.n.drop(h.port, pkt, "source address gone")
	case h.isMine(dst):
		h.n.schedule(h.n.now, loopback{h}, pkt)
	case len(pkt.b) > h.mtu(dst):
		h.sendFragments(pkt, h.mtu(dst))
	default:
		h.at.transmit(pkt)
	}
}

// outputAny sends a packet unless it is empty.
func (h *Host) outputAny(pkt *buffer) {
	if len(pkt.b) == 0 {
		h.n.give(pkt)
		return
	}
	h.output(pkt)
}

// loopback is the way from a host to itself.
type loopback struct{ h *Host }

func (l loopback) fire(pkt *buffer) { l.h.take(l.h.port, pkt) }

// receive: a packet has come from the network. One from an address of our own
// cannot be (Linux calls it martian).
func (h *Host) receive(from *port, pkt *buffer) {
	if src, _ := addresses(pkt.b); h.isMine(src) {
		h.n.drop(from, pkt, "from an address of our own")
		return
	}
	h.take(from, pkt)
}

func (h *Host) take(from *port, pkt *buffer) {
	p := &h.packet
	if p.Decode(pkt.b) != nil || !p.ChecksumOK() {
		h.n.drop(from, pkt, "damaged")
		return
	}
	dst := p.Dst.Addr()
	if !h.isMine(dst) {
		if from.segment.forAll(dst) && p.Proto == ip.UDP && !p.Fragment {
			h.receiveBroadcast(from, pkt)
			return
		}
		h.n.drop(from, pkt, "not for this host")
		return
	}
	h.n.trace(Delivered, from, pkt.b, "")
	if p.Fragment {
		if pkt = h.reassemble(pkt); pkt == nil {
			return
		}
		if p.Decode(pkt.b) != nil || !p.ChecksumOK() {
			h.n.drop(from, pkt, "damaged")
			return
		}
	}
	h.ttl = p.TTL
	switch {
	case p.Proto == ip.UDP:
		h.receiveUDP(p, pkt)
		return
	case p.Proto == ip.TCP:
		h.receiveTCP(p)
	case p.Kind == ip.EchoRequest:
		h.answerEcho(p)
	case p.Kind == ip.EchoReply:
		h.receiveEcho(p)
	case p.Kind == ip.Error:
		h.receiveError(p)
	}
	h.n.give(pkt)
}

// Ports for whoever asks for none, as Linux has them.
const (
	ephemeralFirst = 32768
	ephemeralCount = 60999 - ephemeralFirst + 1
)

// ephemeral finds a port that is not in use.
func (h *Host) ephemeral(used func(uint16) bool) (uint16, bool) {
	start := h.rnd.IntN(ephemeralCount)
	for i := range ephemeralCount {
		if port := uint16(ephemeralFirst + (start+i)%ephemeralCount); !used(port) {
			return port, true
		}
	}
	return 0, false
}
