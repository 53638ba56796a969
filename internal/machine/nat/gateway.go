package nat

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"time"

	"github.com/bodkin-net/bodkin/internal/machine/nat/ip"
)

// Config is a gateway's behaviour and addresses.
type Config struct {
	Behaviour

	// Inside are the prefixes behind the gateway. Packets from other sources
	// do not get out (RFC 2827).
	Inside []netip.Prefix
	// DMZ are the prefixes of the demilitarised zone.
	DMZ []netip.Prefix
	// Own are the gateway's addresses on each side. The IPv4 ones outside are
	// translated to, so there may be several; IPv6 is only ever firewalled.
	Own [Local][]netip.Addr
	// Static pairs are translated one to one, whatever the port: Basic NAT
	// (RFC 2663 section 4.1.1).
	Static []Static
	// MTU of each side in bytes; zero is 1500.
	MTU [Local]int
	// Rand decides about random ports, and seeds the tables.
	Rand rand.Source

	// MaxMappings bounds the table; zero is 65,536. Four times as many
	// sessions (remotes and TCP connections) are remembered.
	MaxMappings int
}

// Static is a pair of addresses that stand for each other.
type Static struct {
	Internal netip.Addr `yaml:"internal"`
	External netip.Addr `yaml:"external"`
}

// Offload is what the device under a packet leaves to be done. The zero value
// is an ordinary packet.
type Offload struct {
	// PartialSum says that the transport checksum field holds the sum of the
	// pseudo-header alone.
	PartialSum bool
	// Segment is the payload bytes of each packet that this one is to be cut
	// into; zero is an uncut packet.
	Segment int
}

const (
	defaultMaxMappings = 1 << 16
	sessionsPerMapping = 4
)

// Gateway is the machine. It is not safe for concurrent use.
type Gateway struct {
	cfg         Config
	rnd         *rand.Rand
	seeds       hasher
	translated  []uint8 // the IPv4 ones among cfg.Own[Outside]
	maxSessions int
	now         int64

	mappings    []mapping // [0] is never used
	freeMapping uint32
	sessions    []session // [0] is never used
	freeSession uint32
	byInternal  index
	byExternal  index
	bySession   index
	lists       [classes]list
	pools       [ip.ICMP + 1][]*pool // by protocol and external address

	packet ip.Packet // the packet at hand
	quoted ip.Packet // the packet that it quotes
	stats  Stats
}

// New refuses what no gateway can be.
func New(cfg Config) (*Gateway, error) {
	if cfg.Rand == nil {
		return nil, errors.New("nat: no source of randomness")
	}
	if len(cfg.Own[Outside]) >= identity {
		return nil, errors.New("nat: too many external addresses")
	}
	if cfg.Mapping > AddressAndPortDependent || cfg.Filtering > AddressAndPortDependent ||
		cfg.Ports.Allocation > Random || cfg.Hairpin > HairpinExternalSource {
		return nil, fmt.Errorf("nat: unknown behaviour %+v", cfg.Behaviour)
	}
	if cfg.Timers.UDP < 0 || cfg.MaxMappings < 0 {
		return nil, errors.New("nat: negative limit")
	}
	if cfg.Timers.UDP == 0 {
		cfg.Timers.UDP = defaultUDPTimeout
	}
	if cfg.MaxMappings == 0 {
		cfg.MaxMappings = defaultMaxMappings
	}
	cfg.Inside, cfg.DMZ = slices.Clone(cfg.Inside), slices.Clone(cfg.DMZ)
	for i := range cfg.Own {
		cfg.Own[i] = slices.Clone(cfg.Own[i])
	}

	g := &Gateway{cfg: cfg, rnd: rand.New(cfg.Rand)}
	for i, a := range cfg.Own[Outside] {
		if a.Is4() {
			g.translated = append(g.translated, uint8(i))
		}
	}
	for _, p := range cfg.Inside {
		if p.Addr().Is4() && len(g.translated) == 0 && cfg.Mode == Translate {
			return nil, fmt.Errorf("nat: no external IPv4 address to translate %v to", p)
		}
	}
	for i := range g.seeds {
		g.seeds[i] = g.rnd.Uint64() | 1
	}
	g.maxSessions = sessionsPerMapping * cfg.MaxMappings
	g.Reset()
	return g, nil
}

// Reset forgets every mapping, as a reboot does.
func (g *Gateway) Reset() {
	g.mappings, g.freeMapping = make([]mapping, 1), 0
	g.sessions, g.freeSession = make([]session, 1), 0
	g.byInternal, g.byExternal, g.bySession = index{}, index{}, index{}
	g.lists = [classes]list{
		classUDP:         {timeout: int64(g.cfg.Timers.UDP)},
		classICMP:        {timeout: int64(icmpTimeout)},
		classTransitory:  {timeout: int64(transitoryTimeout)},
		classEstablished: {timeout: int64(establishedTimeout)},
	}
	for proto := range g.pools {
		g.pools[proto] = make([]*pool, len(g.cfg.Own[Outside]))
	}
}

// Handle handles a packet that came in from a side. It is edited in place;
// bytes of pkt behind the IP packet are left alone.
func (g *Gateway) Handle(now time.Time, from Side, pkt []byte, off Offload) Verdict {
	g.advance(now)
	p := &g.packet
	v := verdict(Inside, g.check(p, pkt))
	switch {
	case v.Action == Drop:
	case g.cfg.Mode == Open:
		if from == Inside {
			v.To = Outside
		}
	case from == Inside:
		v = g.outbound(p)
	case g.isInside(p.Src.Addr()):
		v = verdict(Inside, BadAddress)
	default:
		v = verdict(Inside, g.inbound(p))
	}
	if v.Action != Drop {
		p.DecrementTTL()
	}
	return g.count(from, v)
}

// Out is a packet that the gateway makes itself: an answer, or an ICMP error.
type Out struct {
	To     Side
	Packet []byte // valid until the next call into the gateway
}

// Poll takes the next packet that is due.
func (g *Gateway) Poll() (Out, bool) { return Out{}, false }

// check is what every gateway does first.
func (g *Gateway) check(p *ip.Packet, pkt []byte) Reason {
	if p.Decode(pkt) != nil {
		return Malformed
	}
	if g.cfg.BlockUDP && p.Proto == ip.UDP {
		return Blocked
	}
	if p.TTL <= 1 {
		return Expired
	}
	if (p.Proto == ip.UDP || p.Proto == ip.TCP) && !p.Fragment && (p.Src.Port() == 0 || p.Dst.Port() == 0) {
		return Malformed
	}
	if g.cfg.Mode == Open {
		return None
	}
	if p.Fragment || p.Proto == ip.Other || p.Proto == ip.ICMP && p.Kind == ip.Plain {
		return Unsupported
	}
	return None
}

func (g *Gateway) outbound(p *ip.Packet) Verdict {
	if !g.isInside(p.Src.Addr()) || g.isInside(p.Dst.Addr()) {
		return verdict(Outside, BadAddress)
	}
	to := Outside
	if slices.Contains(g.cfg.Own[Outside], p.Dst.Addr()) {
		if g.cfg.Hairpin == NoHairpin || !g.translates(p.Src.Addr()) {
			return verdict(to, NoHairpinning)
		}
		to = Inside
	}
	internal := p.Src
	if p.Kind == ip.Error {
		if reason := g.outboundError(p); reason != None {
			return verdict(to, reason)
		}
	} else {
		ref, reason := g.open(p)
		if reason != None {
			return verdict(to, reason)
		}
		if m := &g.mappings[ref]; m.addr != identity {
			p.SetSrc(g.external(m))
		}
	}
	if to == Inside {
		if reason := g.inbound(p); reason != None {
			return verdict(to, reason)
		}
		if g.cfg.Hairpin == HairpinInternalSource && p.Kind != ip.Error {
			p.SetSrc(internal)
		}
	}
	return verdict(to, None)
}

// open finds or makes the mapping for an outbound packet.
func (g *Gateway) open(p *ip.Packet) (uint32, Reason) {
	if p.Kind == ip.EchoReply {
		return 0, NoMapping
	}
	ref := g.mappingOf(p.Proto, p.Src, p.Dst)
	if p.Proto == ip.TCP && (ref == 0 || g.sessionOf(ref, p.Dst) == 0) &&
		p.TCPFlags()&(ip.SYN|ip.ACK|ip.RST) != ip.SYN {
		return 0, NoMapping
	}
	made := ref == 0
	if made {
		if ref = g.newMapping(p.Proto, p.Src, p.Dst); ref == 0 {
			return 0, TableFull
		}
	}
	if !g.permit(ref, p, p.Dst) {
		if made && g.mappings[ref].sessions == 0 {
			g.dropMapping(ref)
		}
		return 0, TableFull
	}
	return ref, None
}

// inbound translates p if the mapping at its destination admits its source.
func (g *Gateway) inbound(p *ip.Packet) Reason {
	if p.Kind == ip.Error {
		return g.inboundError(p)
	}
	if p.Kind == ip.EchoRequest {
		return Filtered
	}
	ref := g.mappingAt(p.Proto, p.Dst)
	if ref == 0 {
		return NoMapping
	}
	if reason := g.admit(ref, p, p.Src); reason != None {
		return reason
	}
	if m := &g.mappings[ref]; m.addr != identity {
		p.SetDst(m.internal)
	}
	return None
}

func (g *Gateway) isInside(a netip.Addr) bool {
	for _, p := range g.cfg.Inside {
		if p.Contains(a) {
			return true
		}
	}
	return false
}
