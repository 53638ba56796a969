package probe

import (
	"net"
	"net/netip"
	"sync"
	"time"
)

// seeUDP looks at how a home treats UDP.
func (p *Prober) seeUDP(h Home) (k Kind, err error) {
	pc, err := h.A.ListenUDP(0)
	if err != nil {
		return k, err
	}
	defer pc.Close()
	var seen [4]netip.AddrPort
	for i := range seen {
		if seen[i] = p.servers[i/2].see(pc, i%2, p.wait); !seen[i].IsValid() {
			if i == 0 {
				return Kind{Mapping: Blocked}, nil
			}
			return Kind{Mapping: UnknownMapping}, nil
		}
	}
	k.Mapping = mappingOf(seen)
	externals := seen[:]
	internals := []uint16{addrPort(pc.LocalAddr()).Port()}
	if k.Mapping == Independent { // one mapping says little about the choice of ports
		externals, internals = externals[:1], internals[:1]
		for range 2 {
			more, err := h.A.ListenUDP(0)
			if err != nil {
				return k, err
			}
			defer more.Close()
			externals = append(externals, p.servers[0].see(more, 0, p.wait))
			internals = append(internals, addrPort(more.LocalAddr()).Port())
		}
	}
	k.Ports = portsOf(internals, externals)
	if k.Filtering, err = p.filtersUDP(h); err != nil {
		return k, err
	}
	if h.NAT.Mode == translate {
		k.Hairpin, err = p.hairpinUDP(h)
	}
	return k, err
}

// mappingOf compares what two servers have seen at two ports each.
func mappingOf(seen [4]netip.AddrPort) Mapping {
	switch {
	case seen[0] == seen[1] && seen[0] == seen[2] && seen[0] == seen[3]:
		return Independent
	case seen[0] == seen[1] && seen[2] == seen[3]:
		return ByAddress
	case seen[0] != seen[1] && seen[2] != seen[3]:
		return ByAddressPort
	}
	return UnknownMapping
}

// portsOf compares external ports, in the order of their mappings, with the
// internal ones: one for each, or one for all.
func portsOf(internal []uint16, external []netip.AddrPort) Ports {
	kept, next := true, len(external) > 2
	for i, e := range external {
		kept = kept && e.Port() == internal[min(i, len(internal)-1)]
		if i > 1 {
			next = next && e.Port()-external[i-1].Port() == external[1].Port()-external[0].Port()
		}
	}
	switch {
	case kept:
		return Kept
	case next:
		return Next
	}
	return Other
}

// filtersUDP has strangers answer.
func (p *Prober) filtersUDP(h Home) (Filtering, error) {
	pc, err := h.A.ListenUDP(0)
	if err != nil {
		return "", err
	}
	defer pc.Close()
	at := p.servers[0].see(pc, 0, p.wait)
	from := func(pc net.PacketConn) token {
		t := newToken()
		for range tries {
			pc.WriteTo(t[:], net.UDPAddrFromAddrPort(at))
		}
		return t
	}
	peer, near, far := from(p.servers[0].udp[0]), from(p.servers[0].udp[1]), from(p.servers[1].udp[0])
	got := make(map[token]bool)
	listen(pc, p.wait, func(t token, _ netip.AddrPort) bool {
		got[t] = true
		return got[far]
	})
	switch {
	case got[far]:
		return Anyone, nil
	case got[near]:
		return SameAddress, nil
	case got[peer]:
		return SameEndpoint, nil
	}
	return "nobody", nil
}

// listen reads tokens until f is content or the time is over.
func listen(pc net.PacketConn, wait time.Duration, f func(t token, from netip.AddrPort) (enough bool)) {
	pc.SetReadDeadline(time.Now().Add(wait))
	defer pc.SetReadDeadline(time.Time{})
	b := make([]byte, 2048)
	for end := time.Now().Add(wait); time.Now().Before(end); {
		n, from, err := pc.ReadFrom(b)
		if err == nil && n == len(token{}) && f(token(b[:n]), addrPort(from)) {
			return
		}
	}
}

// clash has two hosts of one home use the same port towards different servers.
func (p *Prober) clash(h Home) (Clash, error) {
	if h.NAT.Mode != translate {
		return "", nil
	}
	a, err := h.A.ListenUDP(0)
	if err != nil {
		return "", err
	}
	defer a.Close()
	c, err := h.C.ListenUDP(addrPort(a.LocalAddr()).Port())
	if err != nil {
		return "", err
	}
	defer c.Close()
	first := p.servers[0].see(a, 0, p.wait)
	if !first.IsValid() {
		return "", nil
	}
	second := p.servers[1].see(c, 0, p.wait)
	switch {
	case !second.IsValid():
		return NoPort, nil
	case second.Port() == first.Port():
		return Shared, nil
	case second.Port() == first.Port()+1:
		return NextPort, nil
	}
	return AnyPort, nil
}

// hairpinUDP has two hosts of one home send to each other's external endpoint.
func (p *Prober) hairpinUDP(h Home) (Hairpin, error) {
	ends, err := p.punchUDP(h, h.A, h, h.C)
	switch {
	case err != nil:
		return "", err
	case !ends[0].IsValid() || !ends[1].IsValid():
		return NoHairpin, nil
	case ends[0].Addr() == h.C.Addr && ends[1].Addr() == h.A.Addr:
		return FromInternal, nil
	case ends[0].Addr() == h.External && ends[1].Addr() == h.External:
		return FromExternal, nil
	}
	return "mixed", nil
}

// punchUDP has two hosts send to where a server has seen each other, and to
// where they get something from. It tells where each got something from first.
func (p *Prober) punchUDP(homeA Home, a Host, homeB Home, b Host) (from [2]netip.AddrPort, err error) {
	var pc [2]net.PacketConn
	var seen [2]netip.AddrPort
	var said [2]token
	for i, h := range []Host{a, b} {
		if pc[i], err = h.ListenUDP(0); err != nil {
			return from, err
		}
		defer pc[i].Close()
		if seen[i] = p.servers[0].see(pc[i], 0, p.wait); !seen[i].IsValid() {
			return from, nil
		}
		said[i] = newToken()
	}
	var all sync.WaitGroup
	end := time.Now().Add(p.wait)
	for i := range pc {
		all.Go(func() {
			to := seen[1-i]
			for time.Now().Before(end) {
				pc[i].WriteTo(said[i][:], net.UDPAddrFromAddrPort(to))
				listen(pc[i], p.wait/10, func(t token, at netip.AddrPort) bool {
					if t != said[1-i] {
						return false
					}
					if !from[i].IsValid() {
						from[i] = at
					}
					to = at
					return false
				})
				if from[i].IsValid() && time.Until(end) > p.wait/4 {
					end := time.Now().Add(p.wait / 5) // what is still to be answered
					for time.Now().Before(end) {
						pc[i].WriteTo(said[i][:], net.UDPAddrFromAddrPort(to))
						time.Sleep(p.wait / 20)
					}
					return
				}
			}
		})
	}
	all.Wait()
	return from, nil
}
