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

// Host is a machine with one interface. Its methods are those that bodkin asks
// of a network, and ListenTCP.
type Host struct {
	n    *Network
	name string
	port *port
	rnd  *rand.Rand

	udp       map[uint16]*udpConn
	tcp       map[flow]*tcpConn
	listeners map[uint16]*listener
	packet    ip.Packet // the packet at hand
}

// flow is a TCP connection, seen from the host.
type flow struct{ local, remote netip.AddrPort }

func newHost(n *Network, name string) *Host {
	return &Host{
		n:         n,
		name:      name,
		rnd:       n.rand(name),
		udp:       make(map[uint16]*udpConn),
		tcp:       make(map[flow]*tcpConn),
		listeners: make(map[uint16]*listener),
	}
}

// Addrs are the host's addresses, IPv4 first.
func (h *Host) Addrs() ([]netip.Addr, error) {
	h.n.enter()
	defer h.n.leave()
	addrs := slices.Clone(h.port.addrs)
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
	for _, l := range h.listeners {
		l.close()
	}
	for _, c := range h.tcp {
		c.die(net.ErrClosed)
	}
}

// source is the address to send to dst from.
func (h *Host) source(dst netip.Addr) (netip.Addr, error) {
	if dst.IsLoopback() {
		return dst, nil
	}
	if a := h.port.addr(dst.Is4()); a.IsValid() {
		return a, nil
	}
	return netip.Addr{}, os.NewSyscallError("connect", syscall.ENETUNREACH)
}

func (h *Host) isMine(a netip.Addr) bool {
	return a.IsLoopback() || slices.Contains(h.port.addrs, a)
}

// output sends a packet that the host has built.
func (h *Host) output(pkt *buffer) {
	if _, dst := addresses(pkt.b); h.isMine(dst) {
		h.n.schedule(h.n.now, loopback{h}, pkt)
		return
	}
	h.port.send(pkt)
}

// loopback is the way from a host to itself.
type loopback struct{ h *Host }

func (l loopback) fire(pkt *buffer) { l.h.receive(l.h.port, pkt) }

func (h *Host) receive(from *port, pkt *buffer) {
	p := &h.packet
	if p.Decode(pkt.b) != nil || !p.ChecksumOK() {
		h.n.drop(from, pkt, "damaged")
		return
	}
	if !h.isMine(p.Dst.Addr()) {
		h.n.drop(from, pkt, "not for this host")
		return
	}
	h.n.trace(Delivered, from, pkt.b, "")
	switch {
	case p.Fragment:
	case p.Proto == ip.UDP:
		if c := h.udp[p.Dst.Port()]; c != nil {
			c.receive(p.Src, pkt)
			return
		}
		answer := h.n.take()
		answer.b = ip.AppendError(answer.b, p.Dst.Addr(), ip.PortUnreachable, pkt.b)
		h.outputAny(answer)
	case p.Proto == ip.TCP:
		h.receiveTCP(p)
	case p.Kind == ip.EchoRequest:
		h.answerEcho(p)
	case p.Kind == ip.Error:
		h.receiveError(p)
	}
	h.n.give(pkt)
}

func (h *Host) outputAny(pkt *buffer) {
	if len(pkt.b) == 0 {
		h.n.give(pkt)
		return
	}
	h.output(pkt)
}

func (h *Host) answerEcho(p *ip.Packet) {
	answer := h.n.take()
	b := p.Transport()
	seq := uint16(b[6])<<8 | uint16(b[7])
	answer.b = ip.AppendEcho(answer.b, p.Dst.Addr(), p.Src.Addr(), ip.DefaultTTL, ip.EchoReply, p.Src.Port(), seq, p.Payload())
	h.output(answer)
}

// receiveError: UDP sockets are not connected and never hear of errors.
func (h *Host) receiveError(p *ip.Packet) {
	var q ip.Packet
	cause, ok := p.Cause()
	if !ok || p.Quoted(&q) != nil || q.Proto != ip.TCP {
		return
	}
	if c := h.tcp[flow{q.Src, q.Dst}]; c != nil {
		c.unreachable(cause)
	}
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
