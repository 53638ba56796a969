package dhcp

import (
	"net/netip"
	"time"

	"github.com/bodkin-net/bodkin/internal/machine/nat/ip"
)

// everyone is the address of all hosts of a network.
var everyone = netip.AddrFrom4([4]byte{255, 255, 255, 255})

// answer begins a reply (RFC 2131 table 3; the client identifier comes back as
// RFC 6842 asks).
func (s *Server) answer(m *message, k kind) *message {
	return &message{
		reply: true, kind: k, xid: m.xid, broadcast: m.broadcast, hw: m.hw, id: m.id, client: m.client,
		server: s.space.own,
	}
}

// options are what every host of the network is to know.
func (s *Server) options(m *message) {
	m.bits = s.space.network.Bits()
	m.routers = []netip.Addr{s.space.own}
	m.dns = s.cfg.DNS
	m.routes = s.routes
	m.mtu = uint16(s.cfg.MTU)
}

// term is how long the client gets an address: as long as the pool says, or as
// short as the client asks.
func (s *Server) term(m *message) time.Duration {
	d := s.cfg.Lease
	if s.cfg.Automatic {
		d = Forever
	}
	if m.lease != 0 {
		d = min(d, m.lease)
	}
	return d
}

// lend fills in an address and its term, T1 and T2 (RFC 2131 section 4.4.5).
func (s *Server) lend(answer *message, a netip.Addr, d time.Duration) {
	answer.yours, answer.lease = a, d
	if t1, t2 := renewals(d); d != Forever && t1 > 0 && t2 > t1 {
		answer.t1, answer.t2 = t1, t2
	}
	s.options(answer)
}

// renewals are when a client should renew and rebind, in the seconds that a
// message can tell.
func renewals(d time.Duration) (t1, t2 time.Duration) {
	return (d / 2).Truncate(time.Second), (d / 8 * 7).Truncate(time.Second)
}

// offer answers a DISCOVER with the address of r.
func (s *Server) offer(now time.Time, r *record, m *message) {
	if r.state != leased {
		s.book.move(now, r, offered, now.Add(offerFor))
	}
	answer := s.answer(m, offer)
	answer.client = netip.Addr{}
	s.lend(answer, r.addr, s.term(m))
	s.send(answer)
}

// grant makes a lease, or makes it longer, and says so to the client.
func (s *Server) grant(now time.Time, a netip.Addr, sender MAC, m *message) {
	d, what := s.term(m), Leased
	if r := s.book.byAddr[a]; r != nil && r.state == leased {
		what = Renewed
	}
	r := s.book.give(now, a, s.key(m), m.hw, sender, leased, until(now, d))
	s.barred.drop(r.key)
	answer := s.answer(m, ack)
	s.lend(answer, a, d)
	s.send(answer)
	s.say(Event{Kind: what, Addr: a, Client: m.hw, Until: r.until})
}

// refuse tells everyone that this client may not have the address.
func (s *Server) refuse(a netip.Addr, m *message, why string) {
	answer := s.answer(m, nak)
	answer.client, answer.broadcast, answer.text = netip.Addr{}, true, why
	s.send(answer)
	s.say(Event{Kind: Refused, Addr: a, Client: m.hw})
}

// send addresses an answer (RFC 2131 section 4.1). A client without an address
// is answered by broadcast whether it asked for that or not, since an IP packet
// alone cannot be sent to a hardware address.
func (s *Server) send(answer *message) {
	to := everyone
	if answer.client.IsValid() {
		to = answer.client
	}
	s.out = enqueue(s.out, ip.AppendUDP(nil,
		netip.AddrPortFrom(s.space.own, ServerPort), netip.AddrPortFrom(to, ClientPort), ip.DefaultTTL, answer.bytes()))
}

// ping asks whether somebody is at the address.
func (s *Server) ping(a netip.Addr) {
	s.sequence++
	s.out = enqueue(s.out, ip.AppendEcho(nil, s.space.own, a, ip.DefaultTTL, ip.EchoRequest, ServerPort, s.sequence, []byte("are you there?")))
}
