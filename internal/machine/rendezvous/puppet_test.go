package rendezvous

import (
	"testing"
	"time"

	"github.com/bodkin-net/bodkin/internal/identity"
	"github.com/bodkin-net/bodkin/internal/wire/relay"
	wire "github.com/bodkin-net/bodkin/internal/wire/rendezvous"
)

// puppet is a client whose every message a test makes.
type puppet struct {
	t      *testing.T
	s      *Server
	key    identity.Key
	id     identity.ID
	addr   Addr
	mac    *wire.MAC
	k      wire.MACKey
	tx     uint64
	handle Handle
}

func newPuppet(t *testing.T, s *Server, n uint64, addr Addr) *puppet {
	t.Helper()
	key := identity.FromSeed(seed(n))
	shared, err := key.Shared(s.id)
	if err != nil {
		t.Fatal(err)
	}
	return &puppet{t: t, s: s, key: key, id: key.ID(), addr: addr, mac: wire.NewMAC(),
		k: wire.NewMACKey(shared, key.ID(), s.id), tx: 1000}
}

type sent struct {
	to Addr
	b  []byte
}

// ask hands b in, from the puppet's address, and returns all that is said.
func (p *puppet) ask(now time.Time, b []byte) []sent { return drain(p.s, now, p.addr, b) }

func drain(s *Server, now time.Time, from Addr, b []byte) (all []sent) {
	s.HandlePacket(now, from, b)
	agree(s, now)
	for o, ok := s.Poll(); ok; o, ok = s.Poll() {
		all = append(all, sent{o.To, append([]byte(nil), o.Data...)})
	}
	return all
}

// agree is the owner that agrees on keys at once.
func agree(s *Server, now time.Time) {
	for a, ok := s.PollAgreement(); ok; a, ok = s.PollAgreement() {
		a.Agree(s.cfg.Key)
		s.Agreed(now, a)
	}
}

func (p *puppet) seal(b []byte) []byte { return p.mac.Append(b, 0, &p.k) }

func (p *puppet) next() uint64 {
	p.tx++
	return p.tx
}

// only returns the one answer, of the type, to the puppet.
func (p *puppet) only(all []sent, t wire.Type) []byte {
	p.t.Helper()
	if len(all) != 1 || all[0].to != p.addr || wire.Type(all[0].b[2]) != t {
		p.t.Fatalf("%v instead of one %v", types(all), t)
	}
	return all[0].b
}

func types(all []sent) (l []wire.Type) {
	for _, s := range all {
		l = append(l, wire.Type(s.b[2]))
	}
	return l
}

func (p *puppet) cookie(now time.Time) wire.CookieBytes {
	p.t.Helper()
	m, err := wire.ParseCookie(p.only(p.ask(now, wire.Hello{Tx: 7, Client: p.id}.Append(nil)), wire.TypeCookie))
	if err != nil || m.Tx != 7 || m.Server != p.s.id {
		p.t.Fatalf("%+v, %v", m, err)
	}
	return m.Cookie
}

func (p *puppet) registerWith(c wire.CookieBytes, sequence uint64) []byte {
	return p.seal(wire.Register{Client: p.id, Cookie: c, Sequence: sequence}.Append(nil))
}

func (p *puppet) register(now time.Time) {
	p.t.Helper()
	b := p.registerWith(p.cookie(now), p.next())
	m, err := wire.ParseRegistered(p.only(p.ask(now, b), wire.TypeRegistered))
	if err != nil || m.Tx != p.tx {
		p.t.Fatalf("%+v, %v", m, err)
	}
	p.handle = m.Handle
}

// enrol registers without what a flood of HELLOs costs.
func (p *puppet) enrol(now time.Time) []sent {
	p.s.begin(now)
	return p.ask(now, p.registerWith(p.s.cookie(p.s.base.Add(p.s.now).UnixMilli(), p.addr, p.id), p.next()))
}

func (p *puppet) keepAlive() []byte {
	return p.seal(wire.KeepAlive{Tx: p.next(), Handle: p.handle}.Append(nil))
}

func (p *puppet) bye() []byte { return p.seal(wire.Bye{Tx: p.next(), Handle: p.handle}.Append(nil)) }

func (p *puppet) connectTo(target *puppet, id RelayID, kinds Kinds) []byte {
	return p.seal(wire.Connect{Tx: p.next(), Handle: p.handle, Target: target.id, Relay: id, Kinds: kinds}.Append(nil))
}

func (p *puppet) signal(id RelayID, b []byte) []byte {
	return p.seal(wire.Signal{Tx: p.next(), Handle: p.handle, Relay: id, Sealed: b}.Append(nil))
}

// connect returns the status.
func (p *puppet) connect(now time.Time, target *puppet, id RelayID, kinds Kinds) Status {
	p.t.Helper()
	for _, s := range p.ask(now, p.connectTo(target, id, kinds)) {
		if m, err := wire.ParseConnected(s.b); err == nil && s.to == p.addr {
			return m.Status
		}
	}
	p.t.Fatal("no CONNECTED")
	return 0
}

func (p *puppet) relay(now time.Time, id RelayID, n int) bool {
	_, ok := p.s.RelayTarget(now, p.addr.Endpoint, append(relay.AppendHeader(nil, id), make([]byte, n-relay.HeaderLen)...))
	return ok
}
