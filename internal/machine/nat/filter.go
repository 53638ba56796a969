package nat

import (
	"cmp"
	"fmt"
	"net/netip"

	"github.com/bodkin-net/bodkin/internal/machine/nat/ip"
)

// ruling is what the packet filter says.
type ruling uint8

const (
	undecided ruling = iota
	accepted         // also what the filtering policy would not let in
	discarded
	rejected
)

// rule asks the packet filter about the first packet of a session, or in mode
// Open about any packet. src and dst are its endpoints as seen inside.
func (g *Gateway) rule(from, to Side, p *ip.Packet, src, dst netip.AddrPort) ruling {
	for i := range g.rules {
		if r := &g.rules[i]; r.matches(from, to, p, src, dst) {
			return r.says
		}
	}
	return undecided
}

// compiledRule is a Rule that is quick to ask.
type compiledRule struct {
	says               ruling
	from, to           Sides
	proto              ip.Proto
	src, dst           []netip.Prefix
	srcPorts, dstPorts []PortRange
}

// RuleError is why there cannot be such a rule. Rule counts from zero.
type RuleError struct {
	Rule int
	What string
}

func (e *RuleError) Error() string { return fmt.Sprintf("nat: rule %d: %s", e.Rule+1, e.What) }

// asked reports whether rules are asked about what goes from a side to another:
// from a side to itself are hairpins, and nothing stands between the gateway and
// those that it serves.
func (m Mode) asked(from, to Side) bool {
	switch from {
	case Local:
		return to == Outside && m != Open
	case Outside:
		return to != Outside
	}
	return from != to || m != Open
}

// vain finds a side that a rule names though no rule is asked about what goes
// from there, or to there.
func (m Mode) vain(r *Rule) (from, to Sides, found bool) {
	const every = Sides(1<<sides - 1)
	var asked [2]Sides
	from, to = cmp.Or(r.From, every), cmp.Or(r.To, every)
	for a := range sides {
		for b := range sides {
			if from>>a&1 != 0 && to>>b&1 != 0 && m.asked(a, b) {
				asked[0] |= SidesOf(a)
				asked[1] |= SidesOf(b)
			}
		}
	}
	if idle := r.From &^ asked[0]; idle != 0 {
		return idle, r.To, true
	}
	if idle := r.To &^ asked[1]; idle != 0 {
		return r.From, idle, true
	}
	return 0, 0, false
}

// compileRules refuses rules that can match nothing, and sides that a rule
// names in vain.
func compileRules(mode Mode, rules []Rule) ([]compiledRule, error) {
	all := make([]compiledRule, 0, len(rules))
	for i, r := range rules {
		c := compiledRule{from: r.From, to: r.To, proto: r.Protocol}
		if c.from == 0 {
			c.from = 1<<sides - 1
		}
		if c.to == 0 {
			c.to = 1<<sides - 1
		}
		if from, to, found := mode.vain(&r); found {
			return nil, &RuleError{i, fmt.Sprintf("no rule is asked about what goes from %v to %v", from, to)}
		}
		switch r.Action {
		case Accept:
			c.says = accepted
		case Discard:
			c.says = discarded
		case Reject:
			c.says = rejected
		default:
			return nil, &RuleError{i, "unknown action"}
		}
		if r.Protocol > ip.ICMP {
			return nil, &RuleError{i, "unknown protocol"}
		}
		for _, l := range []struct {
			from []netip.Prefix
			to   *[]netip.Prefix
		}{{r.Src, &c.src}, {r.Dst, &c.dst}} {
			for _, p := range l.from {
				if !p.IsValid() {
					return nil, &RuleError{i, "invalid prefix"}
				}
				*l.to = append(*l.to, p.Masked())
			}
		}
		for _, l := range []struct {
			from []PortRange
			to   *[]PortRange
		}{{r.SrcPorts, &c.srcPorts}, {r.DstPorts, &c.dstPorts}} {
			for _, p := range l.from {
				if p == (PortRange{}) {
					p.Last = 65535
				}
				if p.First > p.Last {
					return nil, &RuleError{i, fmt.Sprintf("ports %d to %d", p.First, p.Last)}
				}
				*l.to = append(*l.to, p)
			}
			if len(l.from) > 0 && r.Protocol == ip.ICMP {
				return nil, &RuleError{i, "ICMP has no ports"}
			}
		}
		all = append(all, c)
	}
	return all, nil
}

func (r *compiledRule) matches(from, to Side, p *ip.Packet, src, dst netip.AddrPort) bool {
	if r.from>>from&1 == 0 || r.to>>to&1 == 0 || r.proto != ip.Other && r.proto != p.Proto {
		return false
	}
	if r.src != nil && !within(r.src, src.Addr()) || r.dst != nil && !within(r.dst, dst.Addr()) {
		return false
	}
	if r.srcPorts == nil && r.dstPorts == nil {
		return true
	}
	if p.Headless {
		// The first part is judged by its ports; without it later ones are
		// worth nothing.
		return r.says == accepted
	}
	return (p.Proto == ip.UDP || p.Proto == ip.TCP) && among(r.srcPorts, src.Port()) && among(r.dstPorts, dst.Port())
}

func among(ranges []PortRange, port uint16) bool {
	if ranges == nil {
		return true
	}
	for _, r := range ranges {
		if r.First <= port && port <= r.Last {
			return true
		}
	}
	return false
}
