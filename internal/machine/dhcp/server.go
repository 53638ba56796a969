package dhcp

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/bodkin-net/bodkin/internal/machine/nat/ip"
)

const (
	defaultLease     = time.Hour
	defaultMaxLeases = 1 << 14

	offerAtLeast = time.Second      // an offer stands, whoever else needs the address
	offerFor     = 30 * time.Second // an offer stands if nobody else needs the address
	asideFor     = 10 * time.Minute // an address that somebody uses without asking
	probeFor     = 300 * time.Millisecond

	// perSender bounds the addresses that one hardware address asks for, in
	// the name of whomever, so that one host cannot take them all.
	perSender = 32
)

// ServerConfig is a server's pool and place.
type ServerConfig struct {
	Pool

	// Addr is the server's own address, with the length of its network's
	// prefix. Clients are told that it is their router, but for Routes.
	Addr   netip.Prefix
	Routes []Route
	// Fixed are addresses of hosts that never ask; they are not leased.
	Fixed []netip.Addr
	// MaxLeases bounds the addresses that are remembered; zero is 16,384.
	MaxLeases int
}

// Server leases the addresses of one network, of which it is the only server.
// It is not safe for concurrent use.
type Server struct {
	cfg    ServerConfig
	space  *space
	book   *book
	routes []Route // told with every lease; nil: none but the router

	barred    barred
	thefts    map[user]time.Time // when each was last seen
	exhausted bool               // and said so
	hoarded   time.Time          // when it was last said; zero: never
	sequence  uint16             // of pings

	out    [][]byte
	events []Event
}

// NewServer refuses what no server can be.
func NewServer(cfg ServerConfig) (*Server, error) {
	if cfg.Lease == 0 {
		cfg.Lease = defaultLease
	}
	if cfg.MaxLeases == 0 {
		cfg.MaxLeases = defaultMaxLeases
	}
	switch {
	case cfg.Lease < time.Second || cfg.Lease >= Forever || cfg.Lease%time.Second != 0:
		return nil, fmt.Errorf("dhcp: lease of %v: it must be whole seconds, and Automatic is for ever", cfg.Lease)
	case cfg.MTU != 0 && (cfg.MTU < 68 || cfg.MTU > 65535): // RFC 2132 section 5.1
		return nil, fmt.Errorf("dhcp: MTU %d", cfg.MTU)
	case cfg.MaxLeases < 0:
		return nil, errors.New("dhcp: negative limit")
	case len(cfg.DNS) > maxAddresses:
		return nil, fmt.Errorf("dhcp: more than %d DNS servers", maxAddresses)
	}
	for _, a := range cfg.DNS {
		if !a.Is4() || a.IsUnspecified() {
			return nil, fmt.Errorf("dhcp: DNS server %v has no IPv4 address", a)
		}
	}
	s := &Server{cfg: cfg, thefts: map[user]time.Time{}}
	var err error
	if s.space, err = newSpace(&cfg); err != nil {
		return nil, err
	}
	if s.routes, err = s.ways(); err != nil {
		return nil, err
	}
	s.book = newBook(s.space, cfg.MaxLeases)
	return s, nil
}

// ways are the routes to tell of. Who is told of any does not look at the router
// besides, which therefore is one of them (RFC 3442).
func (s *Server) ways() ([]Route, error) {
	if len(s.cfg.Routes) == 0 {
		return nil, nil
	}
	if len(s.cfg.Routes) >= MaxRoutes {
		return nil, fmt.Errorf("dhcp: %d routes, %d at most", len(s.cfg.Routes), MaxRoutes-1)
	}
	for _, r := range s.cfg.Routes {
		if !r.To.IsValid() || !r.To.Addr().Is4() || r.To.Bits() == 0 || r.To != r.To.Masked() || !s.space.usable(r.Via) {
			return nil, fmt.Errorf("dhcp: no route to %v by %v", r.To, r.Via)
		}
	}
	return append(slices.Clone(s.cfg.Routes), Route{netip.PrefixFrom(netip.IPv4Unspecified(), 0), s.space.own}), nil
}

// HandlePacket takes an IP packet that came from the network: a message to the
// server's port, or the answer to a ping. sender is the hardware address that
// it came from, zero where links have none.
func (s *Server) HandlePacket(now time.Time, sender MAC, pkt []byte) {
	s.HandleTimeout(now)
	var p ip.Packet
	if p.Decode(pkt) != nil || !p.Is4() || p.Fragment || !p.ChecksumOK() {
		return
	}
	switch {
	case p.Kind == ip.EchoReply:
		s.answered(now, p.Src.Addr(), sender)
	case p.Proto == ip.UDP && p.Dst.Port() == ServerPort && s.isOwn(p.Dst.Addr()):
		if m, err := parseMessage(p.Payload()); err == nil && !m.relay.IsValid() {
			s.handle(now, sender, m)
		}
	}
}

func (s *Server) isOwn(a netip.Addr) bool {
	return a == s.space.own || a == everyone || s.space.network.Contains(a) && number(a) == s.space.broadcast
}

// handle does what RFC 2131 section 4.3 says. BOOTP, which has no kind of
// message, gets no answer.
func (s *Server) handle(now time.Time, sender MAC, m *message) {
	switch m.kind {
	case discover:
		s.discover(now, sender, m)
	case request:
		s.request(now, sender, m)
	case decline:
		s.decline(now, sender, m)
	case release:
		s.release(now, sender, m)
	case inform:
		if s.space.usable(m.client) {
			answer := s.answer(m, ack)
			s.options(answer)
			s.send(answer)
		}
	}
}

// Poll takes the next packet to send. One to 255.255.255.255 is for everyone on
// the network.
func (s *Server) Poll() ([]byte, bool) { return dequeue(&s.out) }

// Event takes the next event.
func (s *Server) Event() (Event, bool) { return dequeue(&s.events) }

// NextTimeout is when HandleTimeout has something to do.
func (s *Server) NextTimeout() (time.Time, bool) {
	if t := s.book.timers; len(t) > 0 {
		return t[0].until, true
	}
	return time.Time{}, false
}

// HandleTimeout ends what is due.
func (s *Server) HandleTimeout(now time.Time) {
	for t := &s.book.timers; len(*t) > 0 && !(*t)[0].until.After(now); {
		switch r := (*t)[0]; r.state {
		case probing:
			s.offer(now, r, r.asked)
		case leased:
			s.say(Event{Kind: Expired, Addr: r.addr, Client: r.hw})
			s.vacate(now, r)
		default:
			s.vacate(now, r)
		}
	}
}

// vacate makes an address one that others may get, the last client before all
// others.
func (s *Server) vacate(now time.Time, r *record) {
	to := free
	if r.had {
		to = idle
	}
	s.book.move(now, r, to, time.Time{})
	s.exhausted = false
}

func (s *Server) say(e Event) { s.events = enqueue(s.events, e) }

// until is when a lease that is made now ends.
func until(now time.Time, d time.Duration) time.Time {
	if d == Forever {
		return time.Time{}
	}
	return now.Add(d)
}
