package portmap

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"time"

	"github.com/bodkin-net/bodkin/internal/machine/nat/ip"
)

// Ports that clients know. HTTPPort is told by SSDP, so it is the default of
// Config.HTTPPort only.
const (
	Port         = 5351 // of NAT-PMP and PCP
	announcePort = 5350
	SSDPPort     = 1900
	HTTPPort     = 5000
)

// Multicast addresses: SSDP's, which clients search at, and that of all hosts.
var (
	SSDPGroup = netip.AddrFrom4([4]byte{239, 255, 255, 250})
	allHosts  = netip.AddrFrom4([4]byte{224, 0, 0, 1})
)

const (
	defaultMax = 1024
	maxPending = 256 // datagrams that wait for Poll
	maxEvents  = 256
)

// Mapper is the gateway that has the ports.
type Mapper interface {
	// Map opens an external port for an internal endpoint, or changes the
	// filters of what it opened before at that very port. It is open until
	// Unmap, or until the gateway forgets everything.
	Map(now time.Time, want Request) (external netip.AddrPort, err error)
	// Unmap closes what Map opened.
	Unmap(now time.Time, proto ip.Proto, external netip.AddrPort)
	// External is the address that an internal one gets outside; invalid while
	// there is none.
	External(internal netip.Addr) netip.Addr
}

// Request is what Map is to do.
type Request struct {
	Proto    ip.Proto // UDP or TCP
	Internal netip.AddrPort
	// External is the port to open; zero is any.
	External uint16
	// Replace takes the port from another one of the same host, if Map opened
	// it for that. What went through it ends.
	Replace bool
	// Remotes are who may come in; empty is everyone.
	Remotes []Filter
}

// Filter matches remote endpoints; port 0 is any.
type Filter struct {
	Prefix netip.Prefix
	Port   uint16
}

// ErrTaken is Map's answer to a port that something else has.
var ErrTaken = errors.New("portmap: the external port is taken")

// Config is a gateway's behaviour and addresses.
type Config struct {
	Behaviour

	// Addr is the gateway's own inside address, Inside what is behind it: IPv4
	// all of it.
	Addr   netip.Addr
	Inside []netip.Prefix
	// HTTPPort is where UPnP's HTTP requests go; zero is HTTPPort.
	HTTPPort uint16
	// Rate is the bits a second that UPnP tells of the uplink; zero is 1 Gbit/s.
	Rate int64
	// Rand decides about ports and makes up UPnP's device identifiers.
	Rand rand.Source
}

// Machine answers. It is not safe for concurrent use.
type Machine struct {
	cfg    Config
	mapper Mapper
	rnd    *rand.Rand
	uuids  [3]string // of the root device and those in it

	now    time.Time
	epoch  time.Time // since when nothing was forgotten
	leases []*Lease  // in the order of their making
	due    time.Time // when the first of them changes; zero: never
	out    []pending
	events []Event
	told   announcer // NAT-PMP and PCP
	alive  announcer // SSDP
}

// Out is a datagram to send to the inside.
type Out struct {
	From, To netip.AddrPort
	Payload  []byte
}

type pending struct {
	at time.Time
	Out
}

// New refuses what no gateway can be.
func New(now time.Time, cfg Config, mapper Mapper) (*Machine, error) {
	if err := cfg.Check(); err != nil {
		return nil, err
	}
	if cfg.Rand == nil || mapper == nil {
		return nil, errors.New("portmap: no source of randomness, or no mapper")
	}
	if !cfg.Addr.Is4() || len(cfg.Inside) == 0 {
		return nil, errors.New("portmap: the gateway needs an IPv4 address inside")
	}
	for _, p := range cfg.Inside {
		if !p.Addr().Is4() {
			return nil, fmt.Errorf("portmap: %v is not IPv4", p)
		}
	}
	cfg.Inside = slices.Clone(cfg.Inside)
	if cfg.IGD == 0 {
		cfg.IGD = 1
	}
	if cfg.Max == 0 {
		cfg.Max = defaultMax
	}
	if cfg.HTTPPort == 0 {
		cfg.HTTPPort = HTTPPort
	}
	if cfg.Rate == 0 {
		cfg.Rate = 1e9
	}
	m := &Machine{cfg: cfg, mapper: mapper, rnd: rand.New(cfg.Rand)}
	for i := range m.uuids {
		m.uuids[i] = newUUID(m.rnd)
	}
	m.Reset(now)
	return m, nil
}

// newUUID makes a random one (RFC 9562 section 5.4).
func newUUID(rnd *rand.Rand) string {
	high, low := rnd.Uint64(), rnd.Uint64()
	high = high&^0xf000 | 0x4000
	low = low&^(3<<62) | 2<<62
	return fmt.Sprintf("%08x-%04x-%04x-%04x-%012x", high>>32, high>>16&0xffff, high&0xffff, low>>48, low&0xffffffffffff)
}

// Reset forgets every lease, as a reboot does, and says so. The gateway has
// forgotten its mappings too.
func (m *Machine) Reset(now time.Time) {
	m.now, m.epoch = now, now
	m.leases, m.due, m.out = nil, time.Time{}, nil
	m.announce()
	m.alive.begin(m.cfg.UPnP, now)
	m.advance(now)
}

// AddressChanged is called when the gateway has another external address, or
// none any more, and has dropped the mappings of the old one. Leases move to
// the new address, as far as their ports are free there.
func (m *Machine) AddressChanged(now time.Time) {
	m.advance(now)
	m.epoch = now // RFC 6887 section 8.5
	for _, l := range m.leases {
		l.Open = false
	}
	for _, l := range slices.Clone(m.leases) {
		if !l.Enabled || !l.forgets.IsZero() && !l.forgets.After(now) {
			continue
		}
		if m.open(l, l.External.Port(), true) != granted {
			m.close(l, Dropped)
		}
	}
	m.reschedule()
	m.announce()
	m.advance(now)
}

// Datagram handles what came from the inside for the gateway, or for a
// multicast group, on Port or SSDPPort.
func (m *Machine) Datagram(now time.Time, from, to netip.AddrPort, payload []byte) {
	m.advance(now)
	if !m.isClient(from.Addr()) || from.Port() == 0 {
		return
	}
	own := to.Addr() == m.cfg.Addr
	switch {
	case own && to.Port() == Port:
		m.control(from, to, payload)
	case (own || to.Addr() == SSDPGroup) && to.Port() == SSDPPort && m.cfg.UPnP:
		m.search(from, to.Port(), payload)
	}
}

// isClient tells whether an address is that of a host inside.
func (m *Machine) isClient(a netip.Addr) bool {
	return a != m.cfg.Addr && slices.ContainsFunc(m.cfg.Inside, func(p netip.Prefix) bool {
		if p.IsSingleIP() || p.Bits() == 31 {
			return p.Contains(a)
		}
		return p.Contains(a) && a != p.Masked().Addr() && a != broadcast(p)
	})
}

func broadcast(p netip.Prefix) netip.Addr {
	b := p.Masked().Addr().As4()
	for i := p.Bits(); i < 32; i++ {
		b[i/8] |= 0x80 >> (i % 8)
	}
	return netip.AddrFrom4(b)
}

// answer sends a reply to a datagram that came to a port of the gateway's.
func (m *Machine) answer(to netip.AddrPort, port uint16, payload []byte) {
	if m.cfg.OddPort {
		port += 10000
	}
	m.send(m.now.Add(m.cfg.Delay), Out{netip.AddrPortFrom(m.cfg.Addr, port), to, payload})
}

func (m *Machine) send(at time.Time, o Out) {
	if len(m.out) < maxPending {
		m.out = append(m.out, pending{at, o})
	}
}

// Poll takes the next datagram that is due.
func (m *Machine) Poll() (Out, bool) {
	for i, p := range m.out {
		if !p.at.After(m.now) {
			m.out = slices.Delete(m.out, i, i+1)
			return p.Out, true
		}
	}
	return Out{}, false
}

// HandleTimeout does what is due.
func (m *Machine) HandleTimeout(now time.Time) { m.advance(now) }

// NextTimeout is when something is due.
func (m *Machine) NextTimeout() (next time.Time, ok bool) {
	earlier := func(t time.Time) {
		if !t.IsZero() && (!ok || t.Before(next)) {
			next, ok = t, true
		}
	}
	earlier(m.due)
	earlier(m.told.next)
	earlier(m.alive.next)
	for _, p := range m.out {
		earlier(p.at)
	}
	return next, ok
}

func (m *Machine) advance(now time.Time) {
	if now.After(m.now) {
		m.now = now
	}
	if !m.due.IsZero() && !m.due.After(m.now) {
		m.expire()
	}
	if m.told.isDue(m.now) {
		m.announceAddress()
		m.told.step(m.now, 10, 250*time.Millisecond, 0)
	}
	if m.alive.isDue(m.now) {
		m.notify()
		m.alive.step(m.now, 2, time.Second, notifyInterval)
	}
}

// announcer is a series of announcements.
type announcer struct {
	next time.Time // zero: none is due
	sent int
}

func (a *announcer) begin(wanted bool, now time.Time) {
	*a = announcer{}
	if wanted {
		a.next = now
	}
}

func (a *announcer) isDue(now time.Time) bool { return !a.next.IsZero() && !a.next.After(now) }

// step sets the time of the next one: count of them, the gaps between which
// double, and then one every interval, if there is one.
func (a *announcer) step(now time.Time, count int, gap, interval time.Duration) {
	a.sent++
	switch {
	case a.sent < count:
		a.next = now.Add(gap << (a.sent - 1))
	case interval > 0:
		a.next = now.Add(interval)
	default:
		a.next = time.Time{}
	}
}

// announce tells everyone of a new epoch: ten times, the gaps between which
// double from 250 ms (RFC 6886 section 3.2.1, RFC 6887 section 14.1.1).
func (m *Machine) announce() { m.told.begin(m.cfg.NATPMP || m.cfg.PCP, m.now) }

// seconds since the epoch began.
func (m *Machine) seconds() uint32 { return uint32(m.now.Sub(m.epoch) / time.Second) }

// external is the address that clients are told.
func (m *Machine) external(internal netip.Addr) netip.Addr {
	a := m.mapper.External(internal)
	switch {
	case !a.IsValid():
		return a
	case m.cfg.WrongAddress == PrivateAddress:
		return netip.AddrFrom4([4]byte{10, 0, 0, 1})
	case m.cfg.WrongAddress == ZeroAddress:
		return netip.IPv4Unspecified()
	}
	return a
}
