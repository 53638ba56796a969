package proxy

import (
	"bytes"
	"io"
	"net"
	"net/netip"
	"sync"
)

const (
	maxDatagram = 64 << 10
	udpHead     = 3 // reserved(2) | fragment, before the address (RFC 1928 section 7)
)

// associate relays UDP for a client until its connection ends, or nothing has
// come for long. The datagrams are the client's if they come from its address;
// its port is the one that it named, or that of the first datagram.
// Names and fragments are not relayed.
func (s *Server) associate(c *conn, named string) {
	if s.cfg.ListenPacket == nil {
		reply(c, replyNoCommand, netip.AddrPort{})
		return
	}
	here := addrPort(c.LocalAddr()).Addr()
	in, err := s.cfg.ListenPacket(s.ctx, "udp", netip.AddrPortFrom(here, 0).String())
	if err != nil {
		reply(c, replyFailed, netip.AddrPort{})
		return
	}
	defer in.Close()
	out, err := s.cfg.ListenPacket(s.ctx, "udp", ":0")
	if err != nil {
		reply(c, replyFailed, netip.AddrPort{})
		return
	}
	defer out.Close()
	if !reply(c, replyDone, netip.AddrPortFrom(here, addrPort(in.LocalAddr()).Port())) {
		return
	}

	a := &association{with: c, in: in, out: out, client: netip.AddrPortFrom(addrPort(c.RemoteAddr()).Addr(), 0)}
	if e, err := netip.ParseAddrPort(named); err == nil {
		a.client = netip.AddrPortFrom(a.client.Addr(), e.Port())
	}
	var wg sync.WaitGroup
	wg.Go(func() { a.outward(); c.Close() })
	wg.Go(func() { a.inward(); c.Close() })
	io.Copy(io.Discard, c) // until it ends
	in.Close()
	out.Close()
	wg.Wait()
}

type association struct {
	with    *conn // ends with it
	in, out net.PacketConn

	mu     sync.Mutex
	client netip.AddrPort
}

// isClient says whether a datagram is the client's, and takes its port.
func (a *association) isClient(from netip.AddrPort) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.client.Port() == 0 && from.Addr() == a.client.Addr() {
		a.client = from
	}
	return from == a.client
}

// outward relays what the client sends.
func (a *association) outward() {
	buf, permitted := make([]byte, maxDatagram), a.with.s.cfg.Permitted
	for {
		n, from, err := a.in.ReadFrom(buf)
		if err != nil {
			return
		}
		if n <= udpHead || buf[2] != 0 || !a.isClient(addrPort(from)) {
			continue
		}
		a.with.heard()
		r := bytes.NewReader(buf[udpHead:n])
		to, err := readAddress(r)
		if err != nil {
			continue
		}
		e, err := netip.ParseAddrPort(to)
		if err != nil || e.Port() == 0 {
			continue
		}
		// An address that came as a name may be written in other ways than ours.
		e = netip.AddrPortFrom(e.Addr().Unmap().WithZone(""), e.Port())
		if permitted == nil || permitted(e.Addr()) {
			a.out.WriteTo(buf[n-r.Len():n], net.UDPAddrFromAddrPort(e))
		}
	}
}

// inward relays what comes for the client.
func (a *association) inward() {
	buf, packet := make([]byte, maxDatagram), make([]byte, 0, maxDatagram)
	for {
		n, from, err := a.out.ReadFrom(buf)
		if err != nil {
			return
		}
		a.mu.Lock()
		client := a.client
		a.mu.Unlock()
		if client.Port() == 0 {
			continue
		}
		packet = appendAddress(append(packet[:0], 0, 0, 0), addrPort(from))
		a.in.WriteTo(append(packet, buf[:n]...), net.UDPAddrFromAddrPort(client))
	}
}
