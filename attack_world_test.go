package bodkin_test

import (
	"context"
	"crypto/rand"
	"net"
	"net/netip"
	"sync"
	"testing"
	"time"

	"github.com/bodkin-net/bodkin"
	"github.com/bodkin-net/bodkin/internal/identity"
	"github.com/bodkin-net/bodkin/internal/lab/scenario"
	"github.com/bodkin-net/bodkin/internal/link"
	"github.com/bodkin-net/bodkin/internal/machine/punch"
	"github.com/bodkin-net/bodkin/internal/machine/rendezvous"
	"github.com/bodkin-net/bodkin/internal/netio"
	"github.com/bodkin-net/bodkin/internal/wire/relay"
	wire "github.com/bodkin-net/bodkin/internal/wire/rendezvous"
	"github.com/bodkin-net/bodkin/internal/wire/signal"
)

var (
	rogueAddr  = netip.MustParseAddr("198.51.100.66")
	victimAddr = netip.MustParseAddr("198.51.100.99")
)

// hostile is two homes, a rogue and a victim.
func hostile() scenario.Topology {
	top := scenario.TwoHomes(scenario.PortRestricted, scenario.PortRestricted)
	for name, addr := range map[string]netip.Addr{"rogue": rogueAddr, "victim": victimAddr} {
		p := top.Hosts[0].Port
		p.Addrs = []netip.Prefix{netip.PrefixFrom(addr, 24)}
		top.Hosts = append(top.Hosts, scenario.Host{Name: name, Port: p})
	}
	return top
}

// rogue is a registered peer that can do whatever it likes. Its clock is the
// test's: nothing is repeated but keep-alives.
type rogue struct {
	t      *testing.T
	key    identity.Key
	socket *netio.Socket
	server netip.AddrPort
	proof  *link.Identity
	relay  *link.QUIC
	direct *link.QUIC

	mu     sync.Mutex
	client *rendezvous.Client
	once   sync.Once
	up     chan struct{} // closed when it is registered
	events []rendezvous.ClientEvent
	checks []*punch.Machine
	stop   chan struct{}
	done   chan struct{}
}

func (w *world) rogue(t *testing.T, name string) *rogue {
	t.Helper()
	pc, err := w.net.Host("rogue").ListenUDP(0)
	if err != nil {
		t.Fatal(err)
	}
	r := &rogue{t: t, key: testKey(name), server: netip.AddrPortFrom(scenario.ServerAddr, 3478),
		up: make(chan struct{}), stop: make(chan struct{}), done: make(chan struct{})}
	id := w.key.ID()
	r.client = rendezvous.NewClient(rendezvous.ClientConfig{Key: r.key, ServerID: &id})
	r.socket = netio.NewSocket(pc, r)
	r.socket.TrustRelays(r.server)
	if r.proof, err = link.NewIdentity(r.key); err != nil {
		t.Fatal(err)
	}
	if r.direct, err = r.proof.QUIC(r.socket.QUIC()); err != nil {
		t.Fatal(err)
	}
	if r.relay, err = r.proof.QUIC(r.socket.Relay()); err != nil {
		t.Fatal(err)
	}
	r.do(func(now time.Time) { r.client.Start(now) })
	go r.run()
	<-r.up
	return r
}

func (r *rogue) Close() {
	close(r.stop)
	<-r.done
	r.relay.Close()
	r.direct.Close()
	r.socket.Close()
}

func (r *rogue) run() {
	defer close(r.done)
	for {
		select {
		case <-time.After(5 * time.Millisecond):
		case <-r.stop:
			return
		}
		r.do(func(now time.Time) {
			if at, ok := r.client.NextTimeout(); ok && !at.After(now) {
				r.client.HandleTimeout(now)
			}
			for _, m := range r.checks {
				if at, _ := m.NextTimeout(); !at.IsZero() && !at.After(now) {
					m.HandleTimeout(now)
				}
			}
		})
	}
}

// do runs f with the machines and sends what they want sent.
func (r *rogue) do(f func(now time.Time)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	f(time.Now())
	for b, ok := r.client.Poll(); ok; b, ok = r.client.Poll() {
		r.socket.Send(r.server, b)
	}
	for e, ok := r.client.Event(); ok; e, ok = r.client.Event() {
		if _, ok := e.(rendezvous.Registered); ok {
			r.once.Do(func() { close(r.up) })
		}
		r.events = append(r.events, e)
	}
	for _, m := range r.checks {
		for s, ok := m.Poll(); ok; s, ok = m.Poll() {
			r.socket.Send(s.To, s.Data)
		}
		for _, ok := m.Event(); ok; _, ok = m.Event() {
		}
	}
}

func (r *rogue) HandlePacket(from netip.AddrPort, b []byte) {
	r.do(func(now time.Time) {
		if from == r.server {
			r.client.HandlePacket(now, b)
			return
		}
		for _, m := range r.checks {
			if m.HandlePacket(now, from, b) {
				return
			}
		}
	})
}

// offer is an offer of the rogue, with everything in it fresh.
func (r *rogue) offer(candidates ...netip.AddrPort) signal.Signal {
	s := signal.Signal{Type: signal.Offer}
	rand.Read(s.Attempt[:])
	rand.Read(s.Session[:])
	rand.Read(s.Key[:])
	for _, at := range candidates {
		s.Candidates = append(s.Candidates, signal.Candidate{Kind: signal.ServerReflexive, Transport: signal.UDP, Endpoint: at})
	}
	return s
}

// ask sends one CONNECT with the offer, and returns the relay it asked for.
func (r *rogue) ask(to bodkin.ID, s signal.Signal, kinds rendezvous.Kinds) (id rendezvous.RelayID) {
	r.t.Helper()
	sealed, err := signal.Seal(r.key, to, s)
	if err != nil {
		r.t.Fatal(err)
	}
	rand.Read(id[:])
	r.replay(to, id, sealed, kinds)
	return id
}

func (r *rogue) replay(to bodkin.ID, id rendezvous.RelayID, sealed []byte, kinds rendezvous.Kinds) {
	r.do(func(now time.Time) {
		r.client.Connect(now, to, id, kinds, sealed)
		r.client.StopConnect(id) // once is enough
	})
}

// answers are the signals that came for a relay.
func (r *rogue) answers(id rendezvous.RelayID) (all []signal.Signal) {
	r.t.Helper()
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, e := range r.events {
		if e, ok := e.(rendezvous.Signalled); ok && e.Relay == id {
			s, err := signal.Open(r.key, e.Sealed)
			if err != nil {
				r.t.Errorf("answer: %v", err)
			}
			all = append(all, s)
		}
	}
	return all
}

// dial makes a link over the relay.
func (r *rogue) dial(id rendezvous.RelayID, peer bodkin.ID) (link.Link, error) {
	to := r.socket.AddRelay(id, r.server)
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Second)
	defer cancel()
	return r.relay.Dial(ctx, to, peer)
}

// crooked is a server that knows its own key and keeps no rule.
type crooked struct {
	pc   net.PacketConn
	key  identity.Key
	mac  *wire.MAC
	done chan struct{}

	mu      sync.Mutex
	clients map[identity.ID]*crookedClient
	said    map[netip.AddrPort][][]byte // by the clients, registrations apart

	connect func(from identity.ID, m wire.Connect)
	signal  func(from identity.ID, m wire.Signal)
	relayed func(from netip.AddrPort, id relay.ID) netip.AddrPort
}

type crookedClient struct {
	at netip.AddrPort
	k  wire.MACKey
	tx uint64
}

// crook replaces the world's server.
func (w *world) crook(t *testing.T) *crooked {
	t.Helper()
	w.stop()
	s := &crooked{pc: w.udp(3478), key: w.key, mac: wire.NewMAC(), done: make(chan struct{}),
		clients: make(map[identity.ID]*crookedClient), said: make(map[netip.AddrPort][][]byte)}
	go s.run()
	return s
}

func (s *crooked) Close() {
	s.pc.Close()
	<-s.done
}

func (s *crooked) run() {
	defer close(s.done)
	b := make([]byte, 2000)
	for {
		n, addr, err := s.pc.ReadFrom(b)
		if err != nil {
			return
		}
		s.mu.Lock()
		s.handle(addr.(*net.UDPAddr).AddrPort(), append([]byte(nil), b[:n]...))
		s.mu.Unlock()
	}
}

func (s *crooked) handle(from netip.AddrPort, b []byte) {
	from = netip.AddrPortFrom(from.Addr().Unmap(), from.Port())
	if id, _, ok := relay.Parse(b); ok {
		s.said[from] = append(s.said[from], b)
		if s.relayed == nil {
			return
		}
		if to := s.relayed(from, id); to.IsValid() {
			s.pc.WriteTo(b, net.UDPAddrFromAddrPort(to))
		}
		return
	}
	var id identity.ID
	var c *crookedClient
	for i, o := range s.clients {
		if o.at == from {
			id, c = i, o
		}
	}
	switch t, tx, _ := wire.Header(b); t {
	case wire.TypeHello:
		s.pc.WriteTo(wire.Cookie{Tx: tx, Server: s.key.ID(), Mapped: from}.Append(nil), net.UDPAddrFromAddrPort(from))
	case wire.TypeRegister:
		m, err := wire.ParseRegister(b)
		if err != nil {
			return
		}
		shared, err := s.key.Shared(m.Client)
		if err != nil {
			return
		}
		s.clients[m.Client] = &crookedClient{at: from, k: wire.NewMACKey(shared, m.Client, s.key.ID()), tx: m.Sequence}
		s.tell(m.Client, wire.Registered{Tx: tx, Handle: wire.Handle(m.Client[:8]), Mapped: from, Lifetime: 60, KeepAlive: 15}.Append(nil))
	case wire.TypeKeepAlive:
		if c != nil {
			s.tell(id, wire.Alive{Tx: tx}.Append(nil))
		}
	case wire.TypeConnect:
		s.said[from] = append(s.said[from], b)
		if m, err := wire.ParseConnect(b); err == nil && c != nil && s.connect != nil {
			s.connect(id, m)
		}
	case wire.TypeSignal:
		s.said[from] = append(s.said[from], b)
		if m, err := wire.ParseSignal(b); err == nil && c != nil && s.signal != nil {
			s.signal(id, m)
		}
	}
}

// tell sends a message to a client, with a good MAC.
func (s *crooked) tell(to identity.ID, b []byte) {
	if c := s.clients[to]; c != nil {
		s.pc.WriteTo(s.mac.Append(b, 0, &c.k), net.UDPAddrFromAddrPort(c.at))
	}
}

func (s *crooked) next(to identity.ID) uint64 {
	c := s.clients[to]
	if c == nil {
		return 0
	}
	c.tx++
	return c.tx
}

func (s *crooked) at(id identity.ID) netip.AddrPort {
	if c := s.clients[id]; c != nil {
		return c.at
	}
	return netip.AddrPort{}
}

// tap is a network that lets a test see what a node sends over UDP.
type tap struct {
	bodkin.Network
	sent func(to netip.AddrPort, b []byte)
}

type tapConn struct {
	net.PacketConn
	sent func(to netip.AddrPort, b []byte)
}

func (n tap) ListenUDP(port uint16) (net.PacketConn, error) {
	pc, err := n.Network.ListenUDP(port)
	return tapConn{pc, n.sent}, err
}

func (c tapConn) WriteTo(b []byte, to net.Addr) (int, error) {
	at := to.(*net.UDPAddr).AddrPort()
	c.sent(netip.AddrPortFrom(at.Addr().Unmap(), at.Port()), b)
	return c.PacketConn.WriteTo(b, to)
}

func udpAddr(at netip.AddrPort) *net.UDPAddr { return net.UDPAddrFromAddrPort(at) }

// lossy is a network whose UDP sockets lose what lost says.
type lossy struct {
	bodkin.Network
	lost func(to netip.AddrPort, b []byte) bool
}

type lossyConn struct {
	net.PacketConn
	lost func(to netip.AddrPort, b []byte) bool
}

func (n lossy) ListenUDP(port uint16) (net.PacketConn, error) {
	pc, err := n.Network.ListenUDP(port)
	return lossyConn{pc, n.lost}, err
}

func (c lossyConn) WriteTo(b []byte, to net.Addr) (int, error) {
	at := to.(*net.UDPAddr).AddrPort()
	if c.lost(netip.AddrPortFrom(at.Addr().Unmap(), at.Port()), b) {
		return len(b), nil
	}
	return c.PacketConn.WriteTo(b, to)
}
