package nat

import (
	"fmt"
	"net/netip"
	"slices"

	"github.com/bodkin-net/bodkin/internal/machine/nat/ip"
)

// How the reference chooses external addresses and ports.

// shares reports whether ports of a protocol are overloaded.
func (r *reference) shares(proto ip.Proto) bool {
	return r.cfg.Ports.Overload && r.policy(proto).Mapping != EndpointIndependent
}

// alone reports whether a mapping has its port for itself.
func (r *reference) alone(m *refMapping) bool {
	return !r.shares(m.proto) || m.wide != 0 || m.side == Local
}

// free reports whether m could have an external endpoint.
func (r *reference) free(m *refMapping, external netip.AddrPort) bool {
	if external.Port() == 0 {
		return false
	}
	for _, o := range r.mappings {
		if o == m || o.proto != m.proto || !r.dynamic(o) || o.external != external {
			continue
		}
		if r.alone(o) || m.side == Local || !r.alone(m) && o.whom == m.whom {
			return false
		}
	}
	return !slices.ContainsFunc(r.resting, func(f refRest) bool { return f.proto == m.proto && f.external == external })
}

type refRange struct{ first, last int }

func (r *reference) within() refRange {
	w := refRange{1024, 65535}
	if r.cfg.Ports.First != 0 {
		w.first = int(r.cfg.Ports.First)
	}
	if r.cfg.Ports.Last != 0 {
		w.last = int(r.cfg.Ports.Last)
	}
	return w
}

// could reports whether a mapping with an allocation may get a port, at an
// address, of a range; last is what Sequential gave out before, 0 if that is
// not known. Port 0 stands for none.
func (r *reference) could(m *refMapping, how Allocation, addr netip.Addr, within refRange, block bool, last, port uint16) bool {
	internal := int(m.internal.Port())
	good := func(p int) bool {
		return r.free(m, netip.AddrPortFrom(addr, uint16(p))) && (!r.cfg.Ports.Parity || p%2 == internal%2)
	}
	var all []int
	if how <= PreserveRandom {
		if internal < 1024 && !block {
			within = refRange{1, 1023}
		}
		if (!block || within.first <= internal && internal <= within.last) && good(internal) {
			return int(port) == internal
		}
	}
	// upward goes round the range once.
	upward := func(from int) int {
		if from < within.first || from > within.last {
			from = within.first
		}
		for i := range within.last - within.first + 1 {
			if p := within.first + (from-within.first+i)%(within.last-within.first+1); good(p) {
				return p
			}
		}
		return 0
	}
	switch how {
	case Preserve:
		return port == 0
	case PreserveNext:
		return int(port) == upward(internal)
	case Sequential:
		if last == 0 {
			break
		}
		n := within.last - within.first + 1
		delta := r.cfg.Ports.Delta
		if delta == 0 {
			delta = 1
		}
		p := int(last)
		for range 256 {
			if p = within.first + ((p-within.first+delta)%n+n)%n; good(p) {
				return int(port) == p
			}
		}
		return int(port) == upward(p)
	}
	if port != 0 {
		return within.first <= int(port) && int(port) <= within.last && good(int(port))
	}
	for p := within.first; p <= within.last; p++ {
		if good(p) {
			all = append(all, p)
		}
	}
	return len(all) == 0
}

type refPool struct {
	proto ip.Proto
	addr  netip.Addr
}

// allocate gives a mapping that is in no list yet the external endpoint that
// the gateway gave it, if that is right. False: there is none left. want is
// what Map asks for.
func (r *reference) allocate(m *refMapping, want netip.AddrPort) (bool, error) {
	host, got := m.internal.Addr(), r.learn(m)
	dynamic := r.dynamicAddrs()
	p := &r.cfg.Ports
	how := p.Allocation
	if m.symmetric {
		how = Random
	}
	paired := r.cfg.Pooling == Paired || p.Block > 0
	switch {
	case m.side == Local:
		how, dynamic, paired = PreserveNext, []netip.Addr{host}, false
	case want.Addr().IsValid():
		dynamic, paired = []netip.Addr{want.Addr()}, false
	case paired && r.external[host].IsValid():
		dynamic = []netip.Addr{r.external[host]}
	}
	if want.Port() != 0 {
		if got.IsValid() {
			if got.Port() != want.Port() || !slices.Contains(dynamic, got.Addr()) || !r.free(m, got) {
				return false, fmt.Errorf("%v for the wish %v", got, want)
			}
			r.settle(m, got, paired, dynamic)
			return true, nil
		}
		for _, a := range dynamic {
			if !r.free(m, netip.AddrPortFrom(a, want.Port())) {
				return false, nil
			}
		}
		return false, fmt.Errorf("nothing for the wish %v", want)
	}
	blocks := paired && p.Block > 0
	if got.IsValid() {
		if !slices.Contains(dynamic, got.Addr()) {
			return false, fmt.Errorf("address of %v", got)
		}
		within := r.within()
		key := any(refPool{m.proto, got.Addr()})
		if blocks {
			within = r.blockAt(host, got)
			if !r.ownsBlock(host, got.Addr(), within) {
				return false, fmt.Errorf("%v is in another's block", got)
			}
			key = host
		}
		if !r.could(m, how, got.Addr(), within, blocks, r.last[key], got.Port()) {
			return false, fmt.Errorf("port of %v, last %d in %v", got, r.last[key], within)
		}
		if how == Sequential {
			r.last[key] = got.Port()
		}
		r.settle(m, got, paired, dynamic)
		return true, nil
	}
	// It got nothing. Was there nothing?
	some, every := len(dynamic) == 0, true
	for _, a := range dynamic {
		none := true
		if !blocks {
			none = r.could(m, how, a, r.within(), false, r.last[refPool{m.proto, a}], 0)
		} else {
			all := r.freeBlocks(host, a)
			none = len(all) == 0 || slices.ContainsFunc(all, func(b refRange) bool { return r.could(m, how, a, b, true, r.last[host], 0) })
		}
		some, every = some || none, every && none
	}
	if paired && !some || !paired && !every {
		return false, fmt.Errorf("nothing, but there are ports")
	}
	return false, nil
}

// settle notes where a mapping is, and whom its host is paired with.
func (r *reference) settle(m *refMapping, got netip.AddrPort, paired bool, dynamic []netip.Addr) {
	m.external = got
	if !paired || m.side == Local {
		return
	}
	host := m.internal.Addr()
	r.external[host] = got.Addr()
	if _, known := r.block[host]; r.cfg.Ports.Block > 0 && !known {
		r.block[host] = uint16(r.blockAt(host, got).first)
	}
}

// blockAt is the block of a host, as far as is known, or the one around a port.
func (r *reference) blockAt(host netip.Addr, port netip.AddrPort) refRange {
	n := r.cfg.Ports.Block
	first := r.within().first + (int(port.Port())-r.within().first)/n*n
	if b, known := r.block[host]; known {
		first = int(b)
	}
	return refRange{first, first + n - 1}
}

func (r *reference) ownsBlock(host, addr netip.Addr, block refRange) bool {
	for other, first := range r.block {
		if other != host && r.external[other] == addr && int(first) == block.first {
			return false
		}
	}
	return block.last <= r.within().last
}

// freeBlocks are those that a host could have.
func (r *reference) freeBlocks(host, addr netip.Addr) (all []refRange) {
	if b, known := r.block[host]; known {
		return []refRange{{int(b), int(b) + r.cfg.Ports.Block - 1}}
	}
	n := r.cfg.Ports.Block
	for first := r.within().first; first+n-1 <= r.within().last; first += n {
		if b := (refRange{first, first + n - 1}); r.ownsBlock(host, addr, b) {
			all = append(all, b)
		}
	}
	return all
}

func (r *reference) dynamicAddrs() (all []netip.Addr) {
	for _, a := range r.cfg.Own[Outside] {
		if _, static := r.staticAt(a); a.Is4() && !static {
			all = append(all, a)
		}
	}
	return all
}
