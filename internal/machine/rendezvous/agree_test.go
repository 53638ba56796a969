package rendezvous

import (
	"bytes"
	"fmt"
	"testing"
	"time"

	"github.com/bodkin-net/bodkin/internal/wire/relay"
	wire "github.com/bodkin-net/bodkin/internal/wire/rendezvous"
)

// apply sends a first REGISTER and does not agree on the key.
func (p *puppet) apply(now time.Time) []byte {
	p.t.Helper()
	p.s.begin(now)
	b := p.registerWith(p.s.cookie(p.s.base.Add(p.s.now).UnixMilli(), p.addr, p.id), p.next())
	p.s.HandlePacket(now, p.addr, b)
	if o, ok := p.s.Poll(); ok {
		p.t.Fatalf("answered %v before the key is known", wire.Type(o.Data[2]))
	}
	return b
}

// What leaves in one burst with a first REGISTER has its effect, in order, when
// the key is known: a CONNECT, and the packets through its relay.
func TestBehindFirstRegister(t *testing.T) {
	s := testServer(ServerConfig{})
	a, b := newPuppet(t, s, 1, udp("192.0.2.1:1")), newPuppet(t, s, 2, udp("192.0.2.2:2"))
	b.register(epoch)
	register := a.apply(epoch)
	s.HandlePacket(epoch, a.addr, a.connectTo(b, relayID, PacketRelay))
	packet := append(relay.AppendHeader(nil, relayID), "hello"...)
	for range 20 {
		if _, ok := s.RelayTarget(epoch, a.addr.Endpoint, packet); ok {
			t.Fatal("relayed before there is a relay")
		}
	}
	s.HandlePacket(epoch, a.addr, register) // again, while the first one waits
	if _, ok := s.RelayTarget(epoch, udp("192.0.2.1:2").Endpoint, packet); ok {
		t.Fatal("a stranger's packet is relayed")
	}
	agree(s, epoch)
	var said []string
	for o, ok := s.Poll(); ok; o, ok = s.Poll() {
		if bytes.Equal(o.Data, packet) {
			said = append(said, fmt.Sprint("packet to ", o.To.Endpoint))
			continue
		}
		said = append(said, fmt.Sprint(wire.Type(o.Data[2]), " to ", o.To.Endpoint))
	}
	want := []string{"REGISTERED to 192.0.2.1:1", "REQUEST to 192.0.2.2:2", "CONNECTED to 192.0.2.1:1"}
	for range behindPackets - 1 {
		want = append(want, "packet to 192.0.2.2:2")
	}
	if fmt.Sprint(said) != fmt.Sprint(want) {
		t.Errorf("said %v", said)
	}
	if st := s.Stats(); st.KeyAgreements != 2 || st.RelayedPackets != behindPackets-1 || s.candidates.behind != 0 || len(s.candidates.at) != 0 {
		t.Errorf("%+v, %d bytes left", st, s.candidates.behind)
	}
}

// A storm of strangers waits in a bounded place. Who is registered does not
// notice, and may move; strangers who come later are not even given a cookie.
func TestRegistrationStorm(t *testing.T) {
	fast := Rate{1e6, 1e6}
	s := testServer(ServerConfig{MaxAgreements: 100, PeersPerAddress: 1000, HelloRate: fast, RegisterRate: fast})
	in := newPuppet(t, s, 1, udp("192.0.2.1:1"))
	in.register(epoch)
	var storm []*puppet
	for n := range 300 {
		p := newPuppet(t, s, uint64(n+100), udp(fmt.Sprintf("198.18.0.1:%d", n+1)))
		p.apply(epoch)
		storm = append(storm, p)
		for range 2 * behindPackets {
			s.HandlePacket(epoch, p.addr, p.signal(relayID, make([]byte, 1000)))
		}
	}
	if l := &s.candidates; len(l.at) != 100 || len(l.asked) != 100 || l.behind > 100*behindBytes {
		t.Errorf("%d wait, %d to agree on, %d bytes", len(l.at), len(l.asked), l.behind)
	}
	hello := func(p *puppet) int {
		s.HandlePacket(epoch, p.addr, wire.Hello{Client: p.id}.Append(nil))
		n := 0
		for _, ok := s.Poll(); ok; _, ok = s.Poll() {
			n++
		}
		return n
	}
	moved := *in
	moved.addr = udp("192.0.2.1:2")
	if hello(storm[299]) != 0 || hello(&moved) != 1 {
		t.Error("cookies during the storm")
	}
	var taken []Agreement
	for a, ok := s.PollAgreement(); ok; a, ok = s.PollAgreement() {
		taken = append(taken, a)
	}
	if storm[200].apply(epoch); len(s.candidates.asked) != 0 {
		t.Error("more than the bound while all are being agreed on")
	}
	for _, a := range taken {
		a.Agree(s.cfg.Key)
		s.Agreed(epoch, a)
	}
	if st := s.Stats(); st.Peers != 101 || st.KeyAgreements != 101 || s.candidates.behind != 0 || s.candidates.polled != 0 {
		t.Errorf("%+v", st)
	}
	for _, ok := s.Poll(); ok; _, ok = s.Poll() {
	}
	storm[299].register(epoch)
}

// Strangers who close their connections before the key is known leave nothing,
// and are not more at a time than the bound.
func TestClosedBeforeAgreed(t *testing.T) {
	s := testServer(ServerConfig{MaxAgreements: 10})
	var taken []Agreement
	for n := range 30 {
		p := newPuppet(t, s, uint64(n+1), udp("192.0.2.1:1"))
		p.addr.Conn = uint64(n + 1)
		p.apply(epoch)
		if n%2 == 0 {
			if a, ok := s.PollAgreement(); ok {
				taken = append(taken, a)
			}
		}
		s.ConnClosed(epoch, p.addr.Conn)
	}
	if n := len(taken) + len(s.candidates.asked); n != 10 {
		t.Errorf("%d agreements at a time", n)
	}
	for _, a := range taken {
		a.Agree(s.cfg.Key)
		s.Agreed(epoch, a)
	}
	if _, ok := s.PollAgreement(); ok {
		t.Error("a key is to be agreed on with somebody who is gone")
	}
	if st := s.Stats(); st.Peers != 0 || len(s.candidates.at) != 0 || s.candidates.polled != 0 || len(s.conns) != 0 {
		t.Errorf("left: %+v", st)
	}
	newPuppet(t, s, 99, udp("192.0.2.1:1")).register(epoch)
}

// The last REGISTER of a candidate counts, so that its answer is the one that
// he waits for.
func TestCandidateRepeatsHimself(t *testing.T) {
	s := testServer(ServerConfig{})
	p := newPuppet(t, s, 1, udp("192.0.2.1:1"))
	p.apply(epoch)
	p.tx += 5
	p.apply(epoch)
	agree(s, epoch)
	o, ok := s.Poll()
	if m, err := wire.ParseRegistered(o.Data); !ok || err != nil || m.Tx != p.tx || s.Stats().KeyAgreements != 1 {
		t.Errorf("%+v, %v", m, err)
	}
}
