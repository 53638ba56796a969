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
	// External are the gateway's outside addresses. The IPv4 ones are
	// translated to; IPv6 is only ever firewalled.
	External []netip.Addr
	// Rand decides about random ports, and seeds the tables.
	Rand rand.Source

	// MaxMappings bounds the table; zero is 65,536. Four times as many
	// sessions (remotes and TCP connections) are remembered.
	MaxMappings int
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
	translated  []uint8 // the IPv4 ones among cfg.External
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
	if len(cfg.External) >= identity {
		return nil, errors.New("nat: too many external addresses")
	}
	if cfg.Mapping > AddressAndPortDependent || cfg.Filtering > AddressAndPortDependent ||
		cfg.Allocation > Random || cfg.Hairpin > HairpinExternalSource {
		return nil, fmt.Errorf("nat: unknown behaviour %+v", cfg.Behaviour)
	}
	if cfg.UDPTimeout < 0 || cfg.MaxMappings < 0 {
		return nil, errors.New("nat: negative limit")
	}
	if cfg.UDPTimeout == 0 {
		cfg.UDPTimeout = defaultUDPTimeout
	}
	if cfg.MaxMappings == 0 {
		cfg.MaxMappings = defaultMaxMappings
	}
	cfg.Inside, cfg.External = slices.Clone(cfg.Inside), slices.Clone(cfg.External)

	g := &Gateway{cfg: cfg, rnd: rand.New(cfg.Rand)}
	for i, a := range cfg.External {
		if a.Is4() {
			g.translated = append(g.translated, uint8(i))
		}
	}
	for _, p := range cfg.Inside {
		if p.Addr().Is4() && len(g.translated) == 0 && !cfg.Open && !cfg.Firewall {
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
		classUDP:         {timeout: int64(g.cfg.UDPTimeout)},
		classICMP:        {timeout: int64(icmpTimeout)},
		classTransitory:  {timeout: int64(transitoryTimeout)},
		classEstablished: {timeout: int64(establishedTimeout)},
	}
	for proto := range g.pools {
		g.pools[proto] = make([]*pool, len(g.cfg.External))
	}
}

// Outbound handles a packet that came from inside. It is edited in place;
// bytes of pkt behind the IP packet are left alone.
func (g *Gateway) Outbound(now time.Time, pkt []byte) Verdict {
	g.advance(now)
	p := &g.packet
	v := verdict(Forward, g.check(p, pkt))
	if v.Action == Forward && !g.cfg.Open {
		v = g.outbound(p)
	}
	if v.Action != Drop {
		p.DecrementTTL()
	}
	return g.count(v)
}

// Inbound handles a packet that came from outside, like Outbound.
func (g *Gateway) Inbound(now time.Time, pkt []byte) Verdict {
	g.advance(now)
	p := &g.packet
	reason := g.check(p, pkt)
	if reason == None && !g.cfg.Open {
		if g.isInside(p.Src.Addr()) {
			reason = BadAddress
		} else {
			reason = g.inbound(p)
		}
	}
	if reason == None {
		p.DecrementTTL()
	}
	return g.count(verdict(Forward, reason))
}

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
	if g.cfg.Open {
		return None
	}
	if p.Fragment || p.Proto == ip.Other || p.Proto == ip.ICMP && p.Kind == ip.Plain {
		return Unsupported
	}
	return None
}

func (g *Gateway) outbound(p *ip.Packet) Verdict {
	if !g.isInside(p.Src.Addr()) || g.isInside(p.Dst.Addr()) {
		return verdict(Drop, BadAddress)
	}
	action := Forward
	if slices.Contains(g.cfg.External, p.Dst.Addr()) {
		if g.cfg.Hairpin == NoHairpin || !g.translates(p.Src.Addr()) {
			return verdict(Drop, NoHairpinning)
		}
		action = Return
	}
	internal := p.Src
	if p.Kind == ip.Error {
		if reason := g.outboundError(p); reason != None {
			return verdict(Drop, reason)
		}
	} else {
		ref, reason := g.open(p)
		if reason != None {
			return verdict(Drop, reason)
		}
		if m := &g.mappings[ref]; m.addr != identity {
			p.SetSrc(g.external(m))
		}
	}
	if action == Return {
		if reason := g.inbound(p); reason != None {
			return verdict(Drop, reason)
		}
		if g.cfg.Hairpin == HairpinInternalSource && p.Kind != ip.Error {
			p.SetSrc(internal)
		}
	}
	return verdict(action, None)
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
