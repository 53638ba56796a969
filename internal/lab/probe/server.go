package probe

import (
	"context"
	"crypto/rand"
	"errors"
	"net"
	"net/netip"
	"sync"
	"time"
)

// Ports of the servers. TCP's are those that careful offices let through.
var (
	UDPPorts = [2]uint16{3478, 3479}
	TCPPorts = [2]uint16{80, 443}
)

// token marks a datagram.
type token [16]byte

func newToken() (t token) {
	rand.Read(t[:])
	return t
}

// server is a host on the internet that tells where packets come from.
type server struct {
	host Host
	udp  [2]net.PacketConn
	tcp  [2]net.Listener
	done sync.WaitGroup

	mu     sync.Mutex
	tokens map[token]chan<- netip.AddrPort
	dials  map[netip.Addr]chan<- net.Conn // by where they come from
}

func newServer(h Host) (s *server, err error) {
	s = &server{host: h, tokens: make(map[token]chan<- netip.AddrPort), dials: make(map[netip.Addr]chan<- net.Conn)}
	for i := range s.udp {
		if s.udp[i], err = h.ListenUDP(UDPPorts[i]); err == nil {
			s.tcp[i], err = h.ListenTCP(TCPPorts[i])
		}
		if err != nil {
			s.close()
			return nil, err
		}
	}
	for i := range s.udp {
		s.done.Go(func() { s.read(s.udp[i]) })
		s.done.Go(func() { s.accept(s.tcp[i]) })
	}
	return s, nil
}

func (s *server) close() {
	for i := range s.udp {
		if s.udp[i] != nil {
			s.udp[i].Close()
		}
		if s.tcp[i] != nil {
			s.tcp[i].Close()
		}
	}
	s.done.Wait()
}

func (s *server) endpoint(ports [2]uint16, i int) netip.AddrPort {
	return netip.AddrPortFrom(s.host.Addr, ports[i])
}

func (s *server) read(pc net.PacketConn) {
	b := make([]byte, 2048)
	for {
		n, from, err := pc.ReadFrom(b)
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil || n != len(token{}) {
			continue
		}
		t := token(b[:n])
		s.mu.Lock()
		waiter := s.tokens[t]
		delete(s.tokens, t)
		s.mu.Unlock()
		if waiter != nil {
			waiter <- addrPort(from)
		}
	}
}

func (s *server) accept(l net.Listener) {
	for {
		c, err := l.Accept()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			continue
		}
		s.mu.Lock()
		waiter := s.dials[addrPort(c.RemoteAddr()).Addr()]
		s.mu.Unlock()
		if waiter == nil {
			c.Close()
			continue
		}
		waiter <- c
	}
}

func addrPort(a net.Addr) netip.AddrPort {
	switch a := a.(type) {
	case *net.UDPAddr:
		ap := a.AddrPort()
		return netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port())
	case *net.TCPAddr:
		ap := a.AddrPort()
		return netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port())
	}
	return netip.AddrPort{}
}

// tries is how often a datagram is sent before it counts as lost.
const tries = 3

// see sends datagrams from pc to one of the server's ports and says where the
// server saw them come from; invalid: it saw none.
func (s *server) see(pc net.PacketConn, i int, wait time.Duration) netip.AddrPort {
	t, seen := newToken(), make(chan netip.AddrPort, 1)
	s.mu.Lock()
	s.tokens[t] = seen
	s.mu.Unlock()
	defer func() {
		s.mu.Lock()
		delete(s.tokens, t)
		s.mu.Unlock()
	}()
	for range tries {
		pc.WriteTo(t[:], net.UDPAddrFromAddrPort(s.endpoint(UDPPorts, i)))
		select {
		case at := <-seen:
			return at
		case <-time.After(wait / tries):
		}
	}
	return netip.AddrPort{}
}

// meet dials one of the server's ports and returns both ends of the
// connection; nil when there is none. Only one connection is made at a time
// from an address.
func (s *server) meet(ctx context.Context, h Host, port uint16, i int, from netip.Addr) (near, far net.Conn) {
	got := make(chan net.Conn, 1)
	s.mu.Lock()
	s.dials[from] = got
	s.mu.Unlock()
	defer func() {
		s.mu.Lock()
		delete(s.dials, from)
		s.mu.Unlock()
		select {
		case c := <-got:
			c.Close()
		default:
		}
	}()
	near, err := h.DialTCP(ctx, port, s.endpoint(TCPPorts, i))
	if err != nil {
		return nil, nil
	}
	select {
	case far = <-got:
		return near, far
	case <-ctx.Done():
		near.Close()
		return nil, nil
	}
}
