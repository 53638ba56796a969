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
	longest            = 100 * 365 * 24 * time.Hour // as good as for ever
)

// Gateway is the machine. It is not safe for concurrent use.
type Gateway struct {
	cfg                  Config
	rnd                  *rand.Rand
	seeds                hasher
	udpPolicy, tcpPolicy Policy // UDP's is ICMP's too
	timeouts             [classes]int64
	refreshOut           bool // UDP
	refreshIn            bool
	fine                 bool // rules want to see the first packet of each session
	exact                [ip.ICMP + 1]bool
	within               portRange
	maxSessions          int

	zones     []zone
	zones6    []zone6
	roles     roles
	roles4    roles4
	mtus      [sides]int
	fast      bool // express may be tried
	externals []external
	dynamic   []uint8              // the live ones among externals that are not static
	fixed     map[netip.Addr]uint8 // externals by internal address: static pairs

	now   int64
	freed int64 // while something ends that was due before now: when
	wheel wheel

	mappings   slab[mapping, *mapping]
	sessions   slab[session, *session] // but for those in mappings
	firsts     int                     // how many sessions are in mappings
	byInternal index
	byShared   index // of mappings whose external port others may have too
	bySession  index
	hosts      hosts
	six        addresses6
	held       resting
	pacing     int                     // how many of these are hosts
	owners     map[ownedPort]portOwner // for SymmetricOnConflict
	grants     map[uint32]*grant       // by mapping
	wides      int                     // mappings that Map made or adopted
	seconds    []uint32                // those of them that are not the first of their internal endpoint
	symmetrics int
	guested    bool // there may be guests
	guests     map[guest]uint32

	packet           ip.Packet      // the packet at hand
	offload          Offload        // of the packet at hand
	dst              role           // of its destination
	cameFrom, cameTo netip.AddrPort // its endpoints when it came
	cameSeq, cameAck uint32         // and its numbers, where tracks are kept
	cameSize         int            // and its size
	replaced         bool           // packet is another one than was given
	quoted           ip.Packet      // the packet that it quotes
	segment          segment        // the TCP segment in it
	queue            []Out          // for Poll
	sink             uint64         // what Expect has read, or it would not be
	stats            Stats

	rules     []compiledRule
	content   contentFilter
	tracking  bool // follow keeps tracks
	tracks    tracks
	alg       algScratch
	answers   [sides]allowance
	late      lateAnswers
	soon      int64 // when overdue has something to do
	cut       [sides]cutPackets
	numbers   [256]uint16 // the last ones given to packets, by destination
	released  [][]byte    // parts that go with the packet at hand
	releasing cutPacket   // and what they are parts of
}

// New refuses what no gateway can be.
func New(cfg Config) (*Gateway, error) {
	if cfg.Rand == nil {
		return nil, errors.New("nat: no source of randomness")
	}
	if cfg.MaxMappings == 0 {
		cfg.MaxMappings = defaultMaxMappings
	}
	if cfg.MaxMappings < 0 || cfg.MaxMappings > maxMappings {
		return nil, fmt.Errorf("nat: %d mappings are no bound", cfg.MaxMappings)
	}
	if cfg.Ports.Delta == 0 {
		cfg.Ports.Delta = 1
	}
	g := &Gateway{cfg: cfg, rnd: rand.New(cfg.Rand)}
	var err error
	if g.rules, err = compileRules(cfg.Mode, cfg.Rules); err != nil {
		return nil, err
	}
	if g.content, err = compileContent(cfg.Content); err != nil {
		return nil, err
	}
	g.tracking = cfg.TCP.CheckWindow || cfg.TCP.RewriteSequence || cfg.ALG || g.content.active()
	g.within = portRange{1024, 65535}
	if cfg.Ports.First != 0 {
		g.within.first = cfg.Ports.First
	}
	if cfg.Ports.Last != 0 {
		g.within.last = cfg.Ports.Last
	}
	g.udpPolicy = Policy{Mapping: cfg.Mapping, Filtering: cfg.Filtering, Hairpin: cfg.Hairpin}
	g.tcpPolicy = g.udpPolicy
	if cfg.TCPPolicy != nil {
		g.tcpPolicy = *cfg.TCPPolicy
	}
	if err := g.check(); err != nil {
		return nil, err
	}
	g.timeouts = timeouts(&cfg.Timers)
	g.refreshOut = cfg.Timers.UDPRefresh != RefreshInbound
	g.refreshIn = cfg.Timers.UDPRefresh != RefreshOutbound
	g.fine = len(cfg.Rules) > 0
	g.guested = g.invites()
	g.exact = [...]bool{ip.Other: g.fine, ip.UDP: g.fine || g.lax(&g.udpPolicy), ip.TCP: true, ip.ICMP: g.fine}
	g.maxSessions = sessionsPerMapping * cfg.MaxMappings
	for i := range g.seeds {
		g.seeds[i] = g.rnd.Uint64() | 1
	}
	g.cfg.Inside, g.cfg.DMZ, g.cfg.Static = slices.Clone(cfg.Inside), slices.Clone(cfg.DMZ), slices.Clone(cfg.Static)
	for i := range g.cfg.Own {
		g.cfg.Own[i] = slices.Clone(cfg.Own[i])
	}
	g.zonesNow()
	for side := range sides {
		g.mtus[side] = g.mtu(side)
	}
	if err := g.statics(); err != nil {
		return nil, err
	}
	if err := g.claim(); err != nil {
		return nil, err
	}
	for _, p := range cfg.Inside {
		if p.Addr().Is4() && len(g.externals) == 0 && cfg.Mode == Translate {
			return nil, fmt.Errorf("nat: no external IPv4 address to translate %v to", p)
		}
	}
	g.fast = g.hasExpress()
	g.Reset()
	return g, nil
}

// Reset forgets every mapping, as a reboot does.
func (g *Gateway) Reset() {
	g.wheel.reset(g.now)
	g.mappings, g.sessions, g.firsts = slab[mapping, *mapping]{}, slab[session, *session]{}, 0
	g.byInternal.reset()
	g.byShared.reset()
	g.bySession.reset()
	g.hosts, g.six = hosts{}, addresses6{}
	g.hosts.index.reset()
	g.six.index.reset()
	g.seconds = nil
	g.owners, g.grants = make(map[ownedPort]portOwner), make(map[uint32]*grant)
	g.wides, g.symmetrics, g.guests = 0, 0, nil
	for i := range g.externals {
		e := &g.externals[i]
		if e.blocks = nil; g.cfg.Ports.HoldDown == 0 {
			e.pools = [4]*pool{}
		}
	}
	g.restAll()
	g.queue = nil
	g.tracks, g.late, g.cut = tracks{}, lateAnswers{}, [sides]cutPackets{}
	g.soon = never
	for i := range g.numbers {
		g.numbers[i] = uint16(g.rnd.Uint32())
	}
}

// Handle handles a packet that came in from a side. It is edited in place;
// bytes of pkt behind the IP packet are left alone.
func (g *Gateway) Handle(now time.Time, from Side, pkt []byte, off Offload) Verdict {
	g.advance(now)
	if g.fast && off == (Offload{}) {
		if v, done := g.express(from, pkt); done {
			return g.count(from, v)
		}
	}
	if off.Segment > 0 && g.cfg.ALG {
		return g.handleSegments(from, pkt, off)
	}
	v := g.handle(from, pkt, off)
	g.release(from)
	return g.count(from, v)
}

func (g *Gateway) handle(from Side, pkt []byte, off Offload) Verdict {
	p := &g.packet
	if p.Decode(pkt) != nil || !p.HeaderOK() || (p.Proto == ip.UDP || p.Proto == ip.TCP) && !p.Headless && (p.Src.Port() == 0 || p.Dst.Port() == 0) {
		return drop(Malformed)
	}
	p.Partial = off.PartialSum
	g.offload, g.replaced = off, false
	g.cameFrom, g.cameTo, g.cameSize = p.Src, p.Dst, len(p.Data)
	if g.tracking && p.Proto == ip.TCP && !p.Headless {
		g.cameSeq, g.cameAck = p.Seq(), p.Ack()
	}
	return g.depart(from, g.route(from, p), p)
}
