package netns

import (
	"fmt"
	"net/netip"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/bodkin-net/bodkin/internal/machine/nat"
)

const blockTable = "block"

// configureGateway writes the rules of a gateway into the namespace of the
// calling thread.
func configureGateway(n *node) error {
	b := n.gateway.NAT
	if err := writeSysctls(gatewaySysctls(b)); err != nil {
		return err
	}
	if b.BlockUDP {
		if err := blockUDP(true); err != nil {
			return err
		}
	}
	if b.Mode == nat.Open {
		return nil
	}
	external := n.outer().addr(true)
	if b.Mode == nat.Translate && external.IsValid() {
		if err := translate(b, external); err != nil {
			return err
		}
	}
	return filter(b, external)
}

// filter writes the table that decides what passes, for both families.
// Firewalled addresses are open to whom the filtering policy says: those of
// everyone, or of one remote address, that the inside has sent from or to.
func filter(b nat.Behaviour, external netip.Addr) error {
	r, err := newRuleset(nftables.TableFamilyINet, "filter")
	if err != nil {
		return fmt.Errorf("netns: nftables: %w", err)
	}
	var families []bool // is it IPv4?
	if b.Mode == nat.Firewall {
		families = append(families, true)
	}
	families = append(families, false)

	fwd := r.chain("forward", nftables.ChainTypeFilter, nftables.ChainHookForward, nftables.ChainPriorityFilter, nftables.ChainPolicyDrop)
	pinholes := map[bool]*nftables.Set{}
	if b.Filtering != nat.AddressAndPortDependent {
		for _, v4 := range families {
			s, err := r.pinholes(v4, b)
			if err != nil {
				return fmt.Errorf("netns: nftables: %w", err)
			}
			pinholes[v4] = s
			for _, p := range []Protocol{UDP, TCP} {
				r.rule(fwd, iif(InsideInterface), oif(OutsideInterface), ipVersion(v4), protocol(p), loadPinhole(v4, b, true), update(s, 0))
			}
		}
	}
	r.rule(fwd, state(ctInvalid), drop())
	r.rule(fwd, state(ctEstablished|ctRelated), accept())
	r.rule(fwd, iif(InsideInterface), accept())
	r.rule(fwd, iif(OutsideInterface), redirected(), accept())
	for _, v4 := range families {
		if s := pinholes[v4]; s != nil {
			for _, p := range []Protocol{UDP, TCP} {
				r.rule(fwd, iif(OutsideInterface), ipVersion(v4), protocol(p), loadPinhole(v4, b, false), lookup(s, 0), accept())
			}
		}
	}
	r.refuse(fwd, b.Unsolicited)

	in := r.chain("input", nftables.ChainTypeFilter, nftables.ChainHookInput, nftables.ChainPriorityFilter, nftables.ChainPolicyDrop)
	r.rule(in, iif("lo"), accept())
	r.rule(in, state(ctEstablished|ctRelated), accept())
	r.rule(in, protocol(ICMP), accept())
	r.rule(in, protocol(ICMPv6), accept())
	if external.IsValid() {
		// From inside to outside's address: a hairpin that is not made.
		r.rule(in, iif(InsideInterface), ipVersion(true), destination(external.AsSlice()), drop())
	}
	r.rule(in, iif(InsideInterface), accept())
	r.refuse(in, b.Unsolicited)
	if err := r.conn.Flush(); err != nil {
		return fmt.Errorf("netns: nftables: filter: %w", err)
	}
	return nil
}

func (r *ruleset) pinholes(v4 bool, b nat.Behaviour) (*nftables.Set, error) {
	name, addr := "pinholes6", nftables.TypeIP6Addr
	if v4 {
		name, addr = "pinholes4", nftables.TypeIPAddr
	}
	key := []nftables.SetDatatype{nftables.TypeInetProto, addr, nftables.TypeInetService}
	if b.Filtering == nat.AddressDependent {
		key = append(key, addr)
	}
	return r.set(&nftables.Set{Name: name, Timeout: udpTimeout(b)}, key)
}

// loadPinhole fills the registers from 0 with the key of a packet: protocol,
// inside address, inside port and, where it counts, remote address.
func loadPinhole(v4 bool, b nat.Behaviour, out bool) statement {
	words := uint32(4)
	if v4 {
		words = 1
	}
	s := append(loadProtocol(0), loadAddr(1, v4, !out)...)
	s = append(s, loadPort(1+words, !out)...)
	if b.Filtering == nat.AddressDependent {
		s = append(s, loadAddr(2+words, v4, out)...)
	}
	return s
}

// refuse ends a chain for what comes from outside. The policy is to drop.
func (r *ruleset) refuse(c *nftables.Chain, u nat.Unsolicited) {
	const (
		portUnreachable = 1 // of NFT_REJECT_ICMPX_UNREACH, for both families
		prohibited      = 3
	)
	answers := map[nat.Answer]*expr.Reject{
		nat.Reset:       {Type: unix.NFT_REJECT_TCP_RST},
		nat.Unreachable: {Type: unix.NFT_REJECT_ICMPX_UNREACH, Code: portUnreachable},
		nat.Prohibited:  {Type: unix.NFT_REJECT_ICMPX_UNREACH, Code: prohibited},
	}
	from := iif(OutsideInterface)
	if reject := answers[u.TCP]; reject != nil {
		r.rule(c, from, protocol(TCP), statement{reject})
	} else {
		r.rule(c, from, protocol(TCP), drop())
	}
	if reject := answers[u.Other]; reject != nil {
		r.rule(c, from, statement{reject})
	}
}

// blockUDP drops all UDP, or no longer, in the namespace of the calling thread.
func blockUDP(on bool) error {
	r, err := newRuleset(nftables.TableFamilyINet, blockTable)
	if err != nil {
		return fmt.Errorf("netns: nftables: %w", err)
	}
	if on {
		r.conn.FlushTable(r.table)
		c := r.chain("prerouting", nftables.ChainTypeFilter, nftables.ChainHookPrerouting, nftables.ChainPriorityRaw, nftables.ChainPolicyAccept)
		r.rule(c, protocol(UDP), drop())
	} else {
		r.conn.DelTable(r.table)
	}
	if err := r.conn.Flush(); err != nil {
		return fmt.Errorf("netns: nftables: block UDP: %w", err)
	}
	return nil
}

// forget empties conntrack and every map, as a reboot does.
func forget() error {
	if err := netlink.ConntrackTableFlush(netlink.ConntrackTable); err != nil {
		return fmt.Errorf("netns: flush conntrack: %w", err)
	}
	return flushMaps()
}
