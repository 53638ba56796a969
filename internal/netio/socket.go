// Package netio is where packets meet the operating system: one UDP socket
// shared by everything that a peer says over UDP, and the few calls that differ
// between systems.
//
// The first byte of a datagram tells whose it is, in the manner of RFC 9443:
//
//	0x00-0x03  STUN                  -> Handler
//	0x04       rendezvous message    -> Handler
//	0x05       relayed packet        -> Relay(), the virtual packet connection
//	0x40-0xff  QUIC                  -> QUIC()
//	other      dropped
package netio

import (
	"errors"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"

	"github.com/bodkin-net/bodkin/internal/wire/relay"
)

// Handler gets the datagrams that are neither QUIC nor relayed.
type Handler interface {
	// HandlePacket is called from the goroutine that reads the socket, so it
	// must not block. b is valid during the call only.
	HandlePacket(from netip.AddrPort, b []byte)
}

const (
	firstRelayed = relay.First
	firstQUIC    = 0x40
)

// Socket shares one packet socket between QUIC, relayed packets, STUN and
// rendezvous messages.
//
// It has no goroutine of its own: whoever reads QUIC(), which is quic-go's
// transport, hands out all the rest on the way. That saves a queue and a wakeup
// for each QUIC packet, and means that nothing arrives before QUIC() is read.
type Socket struct {
	pc     net.PacketConn
	udp    *net.UDPConn // pc, when it is one
	quic   net.PacketConn
	relays *relayConn
	h      Handler
	close  func() error

	deaf    atomic.Bool // to QUIC
	dropped atomic.Uint64
}

// NewSocket takes over pc. A *net.UDPConn keeps its batched reading and
// segmentation offload; any other packet connection works, one packet a call.
func NewSocket(pc net.PacketConn, h Handler) *Socket {
	s := &Socket{pc: pc, h: h}
	s.udp, _ = pc.(*net.UDPConn)
	s.relays = newRelayConn(s)
	s.close = sync.OnceValue(func() error {
		s.relays.Close()
		return pc.Close()
	})
	if s.udp != nil {
		s.quic = newUDPConn(s)
	} else {
		s.quic = &plainConn{s: s}
	}
	return s
}

// QUIC is the connection to give to a quic.Transport; it must be read all the
// time. Closing it closes the socket.
func (s *Socket) QUIC() net.PacketConn { return s.quic }

// Relay is the virtual connection on which all relayed packets arrive and
// leave; its addresses are RelayAddr.
func (s *Socket) Relay() net.PacketConn { return s.relays }

// AddRelay makes packets of the relay id flow through server, until RemoveRelay
// was called as many times, and returns the address that stands for the peer at
// its other end.
func (s *Socket) AddRelay(id relay.ID, server netip.AddrPort) RelayAddr {
	return s.relays.add(id, unmap(server))
}

// TrustRelays lets the server bring packets of relays that were not added yet.
func (s *Socket) TrustRelays(server netip.AddrPort) {
	s.relays.mu.Lock()
	defer s.relays.mu.Unlock()
	s.relays.server = unmap(server)
}

// RelayServer is the server that a relay goes through; invalid when there is
// no such relay.
func (s *Socket) RelayServer(id [8]byte) netip.AddrPort { return s.relays.route(id) }

// RemoveRelay takes one AddRelay back. After the last the relay is forgotten.
func (s *Socket) RemoveRelay(id relay.ID) { s.relays.remove(id) }

// RefuseQUIC drops what comes for QUIC() from now on: nobody is to learn by
// asking what this socket is, nor to connect to it but through a relay.
func (s *Socket) RefuseQUIC() { s.deaf.Store(true) }

// LocalAddr is the address of the socket underneath.
func (s *Socket) LocalAddr() net.Addr { return s.pc.LocalAddr() }

// Dropped counts the datagrams that nobody wanted or had room for.
func (s *Socket) Dropped() uint64 { return s.dropped.Load() }

// Send sends one datagram as it is. Safe for concurrent use.
func (s *Socket) Send(to netip.AddrPort, b []byte) (err error) {
	to = unmap(to)
	if s.udp != nil {
		_, err = s.udp.WriteToUDPAddrPort(b, to)
	} else {
		_, err = s.pc.WriteTo(b, net.UDPAddrFromAddrPort(to))
	}
	return err
}

// Close closes the socket and with it QUIC() and Relay().
func (s *Socket) Close() error { return s.close() }

// keep delivers a datagram that is not QUIC's and tells whether it is.
func (s *Socket) keep(from net.Addr, b []byte) bool {
	if len(b) > 0 && b[0] >= firstQUIC && !s.deaf.Load() {
		return true
	}
	s.deliver(from, b)
	return false
}

func (s *Socket) deliver(addr net.Addr, b []byte) {
	from, ok := addrPort(addr)
	switch {
	case !ok || len(b) == 0 || b[0] > firstRelayed:
		s.dropped.Add(1)
	case b[0] == firstRelayed:
		if !s.relays.deliver(from, b) {
			s.dropped.Add(1)
		}
	default:
		s.h.HandlePacket(from, b)
	}
}

func addrPort(a net.Addr) (netip.AddrPort, bool) {
	switch a := a.(type) {
	case *net.UDPAddr:
		ap := unmap(a.AddrPort())
		return ap, ap.IsValid()
	case interface{ AddrPort() netip.AddrPort }:
		ap := unmap(a.AddrPort())
		return ap, ap.IsValid()
	}
	return netip.AddrPort{}, false
}

// unmap shows an IPv4 peer of a dual-stack socket as what it is.
func unmap(ap netip.AddrPort) netip.AddrPort {
	return netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port())
}

// lossy turns the errors that mean "this datagram went nowhere" into loss,
// which every protocol above copes with. quic-go would end the connection
// instead, and a change of network must not do that.
func lossy(err error) error {
	for _, lost := range lostErrors {
		if errors.Is(err, lost) {
			return nil
		}
	}
	return err
}
