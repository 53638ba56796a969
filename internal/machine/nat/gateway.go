package nat

import (
	"errors"
	"fmt"
	"math"
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

	udpPolicy, tcpPolicy Policy // UDP's is ICMP's too

	packet           ip.Packet      // the packet at hand
	offload          Offload        // of the packet at hand
	cameFrom, cameTo netip.AddrPort // its endpoints when it came
	replaced         bool           // packet is another one than was given
	quoted           ip.Packet      // the packet that it quotes
	segment          segment        // the TCP segment in it
	queue            []Out          // for Poll
	stats            Stats

	rules     []compiledRule
	content   contentFilter
	tracking  bool // follow keeps tracks
	tracks    tracks
	alg       algScratch
	answers   allowance
	late      lateAnswers
	soon      int64 // when overdue has something to do
	cut       [sides]cutPackets
	released  [][]byte  // parts that go with the packet at hand
	releasing cutPacket // and what they are parts of
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
	var err error
	if g.rules, err = compileRules(cfg.Rules); err != nil {
		return nil, err
	}
	if g.content, err = compileContent(cfg.Content); err != nil {
		return nil, err
	}
	g.tracking = cfg.TCP.CheckWindow || cfg.TCP.RewriteSequence || cfg.ALG || g.content.active()
	g.udpPolicy = Policy{Mapping: cfg.Mapping, Filtering: cfg.Filtering, Hairpin: cfg.Hairpin}
	g.tcpPolicy = g.udpPolicy
	if cfg.TCPPolicy != nil {
		g.tcpPolicy = *cfg.TCPPolicy
	}
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
	g.queue = nil
	g.tracks, g.late, g.cut = tracks{}, lateAnswers{}, [sides]cutPackets{}
	g.soon = math.MaxInt64
	for proto := range g.pools {
		g.pools[proto] = make([]*pool, len(g.cfg.Own[Outside]))
	}
}

// Handle handles a packet that came in from a side. It is edited in place;
// bytes of pkt behind the IP packet are left alone.
func (g *Gateway) Handle(now time.Time, from Side, pkt []byte, off Offload) Verdict {
	g.advance(now)
	if g.now >= g.soon {
		g.overdue()
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
	if p.Decode(pkt) != nil || (p.Proto == ip.UDP || p.Proto == ip.TCP) && !p.Headless && (p.Src.Port() == 0 || p.Dst.Port() == 0) {
		return drop(Malformed)
	}
	p.Partial = off.PartialSum
	g.offload, g.replaced = off, false
	g.cameFrom, g.cameTo = p.Src, p.Dst
	return g.depart(from, g.route(from, p), p)
}
