package dhcp

import (
	"encoding/binary"
	"fmt"
	"net/netip"
)

// space is which addresses a server may lend to whom.
type space struct {
	network     netip.Prefix
	own         netip.Addr
	broadcast   uint32
	first, last uint32              // of the dynamic ones
	kept        map[netip.Addr]bool // never lent to just anyone: own, fixed and manual ones
	manual      map[MAC]netip.Addr
	owner       map[netip.Addr]MAC // manual, the other way round
}

func newSpace(cfg *ServerConfig) (*space, error) {
	net := cfg.Addr.Masked()
	if !net.IsValid() || !net.Addr().Is4() || net.Bits() > 30 || net.Bits() < 8 {
		return nil, fmt.Errorf("dhcp: %v is no address in an IPv4 network of /8 to /30", cfg.Addr)
	}
	s := &space{
		network:   net,
		own:       cfg.Addr.Addr(),
		broadcast: number(net.Addr()) + 1<<(32-net.Bits()) - 1,
		kept:      map[netip.Addr]bool{},
		manual:    map[MAC]netip.Addr{},
		owner:     map[netip.Addr]MAC{},
	}
	s.first, s.last = number(net.Addr())+1, s.broadcast-1
	if !s.usable(s.own) {
		return nil, fmt.Errorf("dhcp: %v is no host's address", cfg.Addr)
	}
	if cfg.First.IsValid() || cfg.Last.IsValid() {
		for _, a := range []netip.Addr{cfg.First, cfg.Last} {
			if !s.usable(a) {
				return nil, fmt.Errorf("dhcp: pool from %v to %v: %v is no host's address in %v", cfg.First, cfg.Last, a, net)
			}
		}
		if cfg.Last.Less(cfg.First) {
			return nil, fmt.Errorf("dhcp: the pool ends at %v, before its start %v", cfg.Last, cfg.First)
		}
		s.first, s.last = number(cfg.First), number(cfg.Last)
	}
	s.kept[s.own] = true
	for _, a := range cfg.Fixed {
		s.kept[a] = true
	}
	for name, a := range cfg.Manual {
		m, err := ParseMAC(name)
		switch {
		case err != nil:
			return nil, err
		case !s.usable(a):
			return nil, fmt.Errorf("dhcp: manual address of %v: %v is no host's address in %v", m, a, net)
		case a == s.own:
			return nil, fmt.Errorf("dhcp: manual address of %v: %v is the server's own", m, a)
		case s.owner[a] != MAC{}:
			return nil, fmt.Errorf("dhcp: manual address %v belongs to %v and to %v", a, min(m.String(), s.owner[a].String()), max(m.String(), s.owner[a].String()))
		case s.manual[m].IsValid():
			return nil, fmt.Errorf("dhcp: %v has two manual addresses", m)
		}
		s.manual[m], s.owner[a], s.kept[a] = a, m, true
	}
	return s, nil
}

// usable tells whether a host of the network may have the address at all.
func (s *space) usable(a netip.Addr) bool {
	if !a.Is4() || !s.network.Contains(a) {
		return false
	}
	return a != s.network.Addr() && number(a) != s.broadcast
}

// dynamic tells whether anyone may get the address.
func (s *space) dynamic(a netip.Addr) bool {
	return a.Is4() && number(a) >= s.first && number(a) <= s.last && !s.kept[a]
}

// lendable tells whether this client may get the address.
func (s *space) lendable(a netip.Addr, to MAC) bool {
	if own := s.manual[to]; own.IsValid() {
		return a == own
	}
	return s.dynamic(a)
}

// watched tells whether nobody may use the address without a lease.
func (s *space) watched(a netip.Addr) bool {
	return s.dynamic(a) || s.owner[a] != MAC{} || a == s.own
}

// size is how many dynamic addresses there are at most.
func (s *space) size() int { return int(s.last-s.first) + 1 }

// Lends is how many hosts without a manual address can have one at a time.
func (cfg ServerConfig) Lends() (int, error) {
	s, err := newSpace(&cfg)
	if err != nil {
		return 0, err
	}
	n := s.size()
	for a := range s.kept {
		if a.Is4() && number(a) >= s.first && number(a) <= s.last {
			n--
		}
	}
	return n, nil
}

func number(a netip.Addr) uint32 {
	b := a.As4()
	return binary.BigEndian.Uint32(b[:])
}

func addrOf(n uint32) netip.Addr {
	var b [4]byte
	binary.BigEndian.PutUint32(b[:], n)
	return netip.AddrFrom4(b)
}
