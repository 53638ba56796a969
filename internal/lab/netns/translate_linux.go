package netns

import (
	"fmt"
	"net/netip"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"github.com/bodkin-net/bodkin/internal/machine/nat"
)

// Conntrack alone is a NAT that keeps ports and filters by address and port
// (masquerade), or one that draws a port for every destination (masquerade
// fully-random). Every other behaviour is made of maps that the rules fill
// while packets pass, and that forget after the UDP timeout:
//
//	forward  protocol . inside address . port [. remote address [. port]] -> external port
//	back     protocol . external port -> inside address . port
//	allow    protocol . external port . remote address
//
// Where nftables has no words, this differs from the gateway machine:
//   - masquerade gives two inside hosts the same external port towards different
//     remote endpoints (RFC 4787 calls that overloading);
//   - a port to be preserved that is taken is replaced by a random one, not by
//     the next, and four random ports that are taken leave it to masquerade;
//   - hairpinned packets are not filtered;
//   - what the maps know of TCP is forgotten after the UDP timeout, except for
//     connections, which conntrack keeps;
//   - NAT of ICMP queries is conntrack's, whatever the behaviour.
//
// Registers: 0 to 4 the key of forward; 5, 6 what back says; 8 to 10 the keys
// of back and allow, the external port being 9; 11 the external address.
type translator struct {
	*ruleset
	nat.Behaviour
	external             []byte
	forward, back, allow *nftables.Set
	post                 *nftables.Chain
}

const (
	firstPort = 1024 // of those that a NAT draws
	lastPort  = 65535
)

// conntrackAlone says whether masquerade is all that b asks for.
func conntrackAlone(b nat.Behaviour) bool {
	if isLinux(b) {
		return true
	}
	if b.Hairpin != nat.NoHairpin || b.Filtering != nat.AddressAndPortDependent {
		return false
	}
	return b.Mapping == nat.EndpointIndependent && b.Ports.Allocation == nat.PreserveNext ||
		b.Mapping == nat.AddressAndPortDependent && b.Ports.Allocation == nat.Random
}

// translate writes the table that translates IPv4.
func translate(b nat.Behaviour, external netip.Addr) error {
	r, err := newRuleset(nftables.TableFamilyIPv4, "translate")
	if err != nil {
		return fmt.Errorf("netns: nftables: %w", err)
	}
	t := &translator{ruleset: r, Behaviour: b, external: external.AsSlice()}
	t.post = t.chain("postrouting", nftables.ChainTypeNAT, nftables.ChainHookPostrouting, nftables.ChainPriorityNATSource, nftables.ChainPolicyAccept)
	if !conntrackAlone(b) {
		if err := t.maps(); err != nil {
			return fmt.Errorf("netns: nftables: %w", err)
		}
		t.refresh()
		t.inbound()
		t.outbound(oif(OutsideInterface))
		if b.Hairpin == nat.HairpinExternalSource {
			t.outbound(t.hairpinned())
		}
	}
	masq := &expr.Masq{}
	if b.Ports.Allocation == nat.Random && b.Mapping == nat.AddressAndPortDependent {
		masq.FullyRandom = true
	}
	t.rule(t.post, oif(OutsideInterface), statement{masq})
	if err := t.conn.Flush(); err != nil {
		return fmt.Errorf("netns: nftables: translate: %w", err)
	}
	return nil
}

func (t *translator) maps() error {
	var (
		proto = nftables.TypeInetProto
		addr  = nftables.TypeIPAddr
		port  = nftables.TypeInetService
		err   error
	)
	key := []nftables.SetDatatype{proto, addr, port}
	if t.Mapping != nat.EndpointIndependent {
		key = append(key, addr)
	}
	if t.Mapping == nat.AddressAndPortDependent {
		key = append(key, port)
	}
	timeout := udpTimeout(t.Behaviour)
	if t.forward, err = t.set(&nftables.Set{Name: "forward", Timeout: timeout}, key, port); err != nil {
		return err
	}
	if t.back, err = t.set(&nftables.Set{Name: "back", Timeout: timeout}, []nftables.SetDatatype{proto, port}, addr, port); err != nil {
		return err
	}
	if t.Filtering == nat.AddressDependent {
		t.allow, err = t.set(&nftables.Set{Name: "allow", Timeout: timeout}, []nftables.SetDatatype{proto, port, addr})
	}
	return err
}

func (t *translator) hairpinned() statement {
	return append(append(iif(InsideInterface), oif(InsideInterface)...), redirected()...)
}

// loadForwardKey fills registers 0 to 4 from a packet on its way out.
func (t *translator) loadForwardKey() statement {
	s := append(loadProtocol(0), loadAddr(1, true, false)...)
	s = append(s, loadPort(2, false)...)
	if t.Mapping != nat.EndpointIndependent {
		s = append(s, loadAddr(3, true, true)...)
	}
	if t.Mapping == nat.AddressAndPortDependent {
		s = append(s, loadPort(4, true)...)
	}
	return append(s, loadProtocol(8)...)
}

// remember keeps the way back of what the registers hold: a packet on its way
// out and its external port.
func (t *translator) remember() statement {
	s := updateTo(t.back, 8, 1)
	if t.allow != nil {
		s = append(s, loadAddr(10, true, true)...)
		s = append(s, update(t.allow, 8)...)
	}
	return s
}

// refresh makes mappings young again; the nat chains see only the first packet
// of a connection.
func (t *translator) refresh() {
	c := t.chain("refresh", nftables.ChainTypeFilter, nftables.ChainHookPostrouting, nftables.ChainPriorityMangle, nftables.ChainPolicyAccept)
	for _, p := range []Protocol{UDP, TCP} {
		out := []statement{oif(OutsideInterface)}
		if t.Hairpin == nat.HairpinExternalSource {
			out = append(out, t.hairpinned())
		}
		for _, direction := range out {
			t.rule(c, direction, protocol(p), t.loadForwardKey(), lookupTo(t.forward, 0, 9),
				updateTo(t.forward, 0, 9), t.remember())
		}
	}
}

// inbound lets in what the filtering policy allows, and turns hairpins around.
func (t *translator) inbound() {
	c := t.chain("prerouting", nftables.ChainTypeNAT, nftables.ChainHookPrerouting, nftables.ChainPriorityNATDest, nftables.ChainPolicyAccept)
	redirect := append(lookupTo(t.back, 8, 5), &expr.NAT{Type: expr.NATTypeDestNAT, Family: unix.NFPROTO_IPV4,
		RegAddrMin: reg(5), RegProtoMin: reg(6), Specified: true})
	for _, p := range []Protocol{UDP, TCP} {
		key := append(loadProtocol(8), loadPort(9, true)...)
		if t.Hairpin != nat.NoHairpin {
			t.rule(c, iif(InsideInterface), protocol(p), destination(t.external), key, redirect)
		}
		switch t.Filtering {
		case nat.EndpointIndependent:
			t.rule(c, iif(OutsideInterface), protocol(p), destination(t.external), key, redirect)
		case nat.AddressDependent:
			t.rule(c, iif(OutsideInterface), protocol(p), destination(t.external), key, loadAddr(10, true, false), lookup(t.allow, 8), redirect)
		}
	}
}

// outbound maps the first packet of a connection that leaves in a direction.
func (t *translator) outbound(direction statement) {
	translate := append(immediate(11, t.external), &expr.NAT{Type: expr.NATTypeSourceNAT, Family: unix.NFPROTO_IPV4,
		RegAddrMin: reg(11), RegProtoMin: reg(9), Specified: true})
	for _, p := range []Protocol{UDP, TCP} {
		t.rule(t.post, direction, protocol(p), t.loadForwardKey(), lookupTo(t.forward, 0, 9), t.remember(), translate)
		record := append(updateTo(t.forward, 0, 9), t.remember()...)
		draw := &expr.Numgen{Register: reg(9), Type: unix.NFT_NG_RANDOM, Modulus: lastPort - firstPort + 1, Offset: firstPort}
		switch t.Ports.Allocation {
		case nat.PreserveNext:
			t.rule(t.post, direction, protocol(p), t.loadForwardKey(), loadPort(9, false), absent(t.back, 8), record, translate)
		case nat.Sequential:
			draw.Type = unix.NFT_NG_INCREMENTAL
		}
		number := statement{draw, &expr.Byteorder{SourceRegister: reg(9), DestRegister: reg(9), Op: expr.ByteorderHton, Len: 4, Size: 2}}
		// A drawn port that is taken is drawn again, a few times.
		for range 4 {
			t.rule(t.post, direction, protocol(p), t.loadForwardKey(), number, absent(t.back, 8), record, translate)
		}
	}
}

// flushMaps forgets every mapping of the namespace of the calling thread.
func flushMaps() error {
	c, err := nftables.New()
	if err != nil {
		return fmt.Errorf("netns: nftables: %w", err)
	}
	tables, err := c.ListTables()
	if err != nil {
		return fmt.Errorf("netns: nftables: %w", err)
	}
	for _, t := range tables {
		sets, err := c.GetSets(t)
		if err != nil {
			return fmt.Errorf("netns: nftables: %w", err)
		}
		for _, s := range sets {
			c.FlushSet(s)
		}
	}
	if err := c.Flush(); err != nil {
		return fmt.Errorf("netns: nftables: flush maps: %w", err)
	}
	return nil
}
