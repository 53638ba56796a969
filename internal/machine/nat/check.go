package nat

import (
	"errors"
	"fmt"
	"time"
)

// maxMappings leaves numbers of sessions two bits for other purposes.
const maxMappings = 1 << 27

// check refuses behaviours that are none. What it lets pass means something in
// every combination.
func (g *Gateway) check() error {
	b := &g.cfg.Behaviour
	if b.Mode > Open || b.Pooling > Arbitrary || b.Ports.Allocation > Random ||
		b.Timers.UDPRefresh > RefreshBoth || b.Fragments > DropParts {
		return errors.New("nat: unknown behaviour")
	}
	for _, p := range []*Policy{&g.udpPolicy, &g.tcpPolicy} {
		if p.Filtering == PerConnection {
			return errors.New("nat: mapping can be per-connection, filtering cannot")
		}
		if p.Mapping > PerConnection || p.Filtering > AddressAndPortDependent || p.Hairpin > HairpinExternalSource {
			return fmt.Errorf("nat: unknown policy %+v", *p)
		}
		if b.Ports.Overload && p.Mapping != EndpointIndependent && min(p.Mapping, AddressAndPortDependent) > p.Filtering {
			return errors.New("nat: who shares a port is told by the remote: where ports are overloaded, filtering must depend on as much as mapping")
		}
	}
	if b.Ports.Overload && g.udpPolicy.Mapping == EndpointIndependent && g.tcpPolicy.Mapping == EndpointIndependent {
		return errors.New("nat: endpoint-independent mappings cannot share ports")
	}
	if b.Ports.Overload && b.SymmetricOnConflict {
		return errors.New("nat: ports that are shared are in no conflict")
	}
	if b.Ports.Overload && b.Ports.HoldDown > 0 {
		return errors.New("nat: ports that are shared cannot be held down")
	}
	n := g.within.size()
	switch {
	case n < 1:
		return fmt.Errorf("nat: no ports from %d to %d", g.within.first, g.within.last)
	case b.Ports.Block < 0 || b.Ports.Block > n:
		return fmt.Errorf("nat: no blocks of %d ports from %d to %d", b.Ports.Block, g.within.first, g.within.last)
	case b.Ports.Delta < -65535 || b.Ports.Delta > 65535:
		return fmt.Errorf("nat: delta %d is larger than any port", b.Ports.Delta)
	case b.Ports.PerHost < 0 || b.Ports.Rate < 0 || b.Ports.Held < 0:
		return errors.New("nat: negative limit")
	case b.Ports.HoldDown < 0 || b.Ports.HoldDown > longest:
		return fmt.Errorf("nat: no port rests %v", b.Ports.HoldDown)
	}
	for _, r := range b.Untranslated {
		switch {
		case b.Mode != Translate:
			return errors.New("nat: nothing is translated, so nothing is exempt")
		case !r.Prefix.IsValid() && r.Port == 0:
			return errors.New("nat: everything is exempt from translation")
		case r.Prefix.IsValid() && !r.Prefix.Addr().Is4():
			return fmt.Errorf("nat: %v is never translated", r.Prefix)
		}
	}
	if b.Mode == Open && b.Content.WebOnly {
		return errors.New("nat: only who remembers connections can tell what they carry")
	}
	for _, mtu := range g.cfg.MTU {
		if !soundMTU(mtu) {
			return fmt.Errorf("nat: MTU %d", mtu)
		}
	}
	u := &b.Unsolicited
	switch {
	case u.TCP > Prohibited || u.Other > Prohibited:
		return errors.New("nat: unknown answers to what is unsolicited")
	case u.After < 0 || u.After > longest:
		return fmt.Errorf("nat: no answer waits %v", u.After)
	}
	t := &b.Timers
	for _, d := range []time.Duration{t.UDP, t.UDPUnanswered, t.ICMP, t.Transitory, t.Established, t.AfterFIN, t.AfterRST} {
		if d < 0 || d > longest {
			return fmt.Errorf("nat: no timer runs %v", d)
		}
	}
	return nil
}
