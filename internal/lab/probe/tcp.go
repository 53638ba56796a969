package probe

import (
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"sync"
	"syscall"
	"time"
)

// met is a host's port with what the servers have seen of it.
type met struct {
	port  uint16
	seen  []netip.AddrPort
	conns []net.Conn
	l     net.Listener // on the same port
}

func (m *met) close() {
	for _, c := range m.conns {
		abort(c)
	}
	if m.l != nil {
		m.l.Close()
	}
}

// abort ends a connection at once, so that its port is free.
func abort(c net.Conn) {
	if l, ok := c.(interface{ SetLinger(int) error }); ok {
		l.SetLinger(0)
	}
	c.Close()
}

// meet listens on a port and dials so many of the servers' ports from it, one
// after the other.
func (p *Prober) meet(home Home, h Host, times int) (m *met, err error) {
	m = &met{}
	if m.l, err = h.ListenTCP(0); err != nil {
		return nil, err
	}
	m.port = addrPort(m.l.Addr()).Port()
	defer p.turn(home)()
	for i := range times {
		ctx, cancel := context.WithTimeout(context.Background(), p.wait)
		near, far := p.servers[i/2].meet(ctx, h, m.port, i%2, home.External)
		cancel()
		if near == nil {
			break
		}
		m.conns = append(m.conns, near, far)
		m.seen = append(m.seen, addrPort(far.RemoteAddr()))
	}
	return m, nil
}

// seeTCP looks at how a home treats TCP.
func (p *Prober) seeTCP(h Home) (k Kind, err error) {
	m, err := p.meet(h, h.A, 4)
	if err != nil {
		return k, err
	}
	defer m.close()
	switch len(m.seen) {
	case 0:
		return Kind{Mapping: Blocked}, nil
	case 4:
		k.Mapping = mappingOf([4]netip.AddrPort(m.seen))
	default:
		return Kind{Mapping: UnknownMapping}, nil
	}
	externals, internals := m.seen, []uint16{m.port}
	if k.Mapping == Independent {
		externals = externals[:1]
		for range 2 {
			more, err := p.meet(h, h.A, 1)
			if err != nil {
				return k, err
			}
			defer more.close()
			if len(more.seen) == 1 {
				externals, internals = append(externals, more.seen[0]), append(internals, more.port)
			}
		}
	}
	k.Ports = portsOf(internals, externals)
	if k.Filtering, err = p.filtersTCP(h); err != nil {
		return k, err
	}
	if h.NAT.Mode == translate {
		if k.Hairpin, err = p.hairpinTCP(h); err != nil {
			return k, err
		}
	}
	if k.Mapping == ByAddressPort {
		if k.Mapping, err = p.again(h); err != nil {
			return k, err
		}
	}
	return k, nil
}

// again makes two connections between the same endpoints, one after the other.
func (p *Prober) again(h Home) (Mapping, error) {
	first, err := p.meet(h, h.A, 1)
	if err != nil || len(first.seen) == 0 {
		return UnknownMapping, err
	}
	defer first.close()
	abort(first.conns[0])
	time.Sleep(p.wait / 10) // the RST is on its way
	defer p.turn(h)()
	ctx, cancel := context.WithTimeout(context.Background(), p.wait)
	defer cancel()
	near, far := p.servers[0].meet(ctx, h.A, first.port, 0, h.External)
	if near == nil {
		return UnknownMapping, nil
	}
	first.conns = append(first.conns, near, far)
	if addrPort(far.RemoteAddr()) == first.seen[0] {
		return ByAddressPort, nil
	}
	return ByConnection, nil
}

// filtersTCP has strangers dial where the first server is connected to.
func (p *Prober) filtersTCP(h Home) (Filtering, error) {
	m, err := p.meet(h, h.A, 1)
	if err != nil {
		return "", err
	}
	defer m.close()
	if len(m.seen) == 0 {
		return "nobody", nil
	}
	for i, is := range []Filtering{Anyone, SameAddress} {
		ctx, cancel := context.WithTimeout(context.Background(), p.wait)
		c, err := p.servers[1-i].host.DialTCP(ctx, 0, m.seen[0])
		cancel()
		if err == nil {
			abort(c)
			return is, nil
		}
	}
	return SameEndpoint, nil
}

func (p *Prober) hairpinTCP(h Home) (Hairpin, error) {
	from, err := p.punchTCP(h, h.A, h, h.C)
	switch {
	case err != nil:
		return "", err
	case !from[0].IsValid() || !from[1].IsValid():
		return NoHairpin, nil
	case from[0].Addr() == h.External && from[1].Addr() == h.External:
		return FromExternal, nil
	}
	return FromInternal, nil
}

// punchTCP has two hosts dial where a server has seen each other, and accept,
// until they have one connection. It tells whom each sees at the other end.
func (p *Prober) punchTCP(homeA Home, a Host, homeB Home, b Host) (with [2]netip.AddrPort, err error) {
	homes, hosts := [2]Home{homeA, homeB}, [2]Host{a, b}
	var ends [2]*met
	for i := range ends {
		if ends[i], err = p.meet(homes[i], hosts[i], 1); err != nil {
			return with, err
		}
		defer ends[i].close()
		if len(ends[i].seen) == 0 {
			return with, nil
		}
	}
	ctx, cancel := context.WithTimeout(context.Background(), 2*p.wait)
	defer cancel()
	said := [2]token{newToken(), newToken()}
	var all sync.WaitGroup
	for i := range ends {
		all.Go(func() {
			with[i] = p.join(ctx, hosts[i], ends[i], ends[1-i].seen[0], said[i], said[1-i])
		})
	}
	all.Wait()
	return with, nil
}

// join is one end of punchTCP: it wants to hear the other's token.
func (p *Prober) join(ctx context.Context, h Host, m *met, to netip.AddrPort, mine, other token) netip.AddrPort {
	ctx, cancel := context.WithCancel(ctx)
	found := make(chan netip.AddrPort, 1)
	var all sync.WaitGroup
	try := func(c net.Conn) {
		defer c.Close()
		c.SetDeadline(time.Now().Add(p.wait))
		var got token
		if _, err := c.Write(mine[:]); err != nil {
			return
		}
		if _, err := io.ReadFull(c, got[:]); err != nil || got != other {
			return
		}
		// The other end has our token when it has closed its side too.
		if w, ok := c.(interface{ CloseWrite() error }); ok {
			w.CloseWrite()
		}
		io.Copy(io.Discard, c)
		select {
		case found <- addrPort(c.RemoteAddr()):
		default:
		}
	}
	all.Go(func() { // it ends when the listener is closed
		for {
			c, err := m.l.Accept()
			if err != nil {
				return
			}
			all.Go(func() { try(c) })
		}
	})
	all.Go(func() {
		for ctx.Err() == nil {
			c, err := h.DialTCP(ctx, m.port, to)
			if err == nil {
				try(c)
			}
			select {
			case <-time.After(5 * time.Millisecond):
			case <-ctx.Done():
			}
		}
	})
	var with netip.AddrPort
	select {
	case with = <-found:
	case <-ctx.Done():
	}
	cancel()
	m.l.Close()
	all.Wait()
	return with
}

// unsolicited dials a port of a home that nobody has.
func (p *Prober) unsolicited(h Home) Answer {
	const late = 8 * time.Second // RFC 5382 REQ-4 wants an answer after six
	ctx, cancel := context.WithTimeout(context.Background(), max(late, p.wait))
	defer cancel()
	start := time.Now()
	c, err := p.servers[0].host.DialTCP(ctx, 0, netip.AddrPortFrom(h.External, 61999))
	switch {
	case err == nil:
		abort(c)
		return Connected
	case errors.Is(err, syscall.EHOSTUNREACH) || errors.Is(err, syscall.EACCES):
		return Prohibited
	case !errors.Is(err, syscall.ECONNREFUSED):
		return Silence
	case time.Since(start) > 5*time.Second:
		return Late
	}
	return Refused
}
