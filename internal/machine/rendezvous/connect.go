package rendezvous

import (
	wire "github.com/bodkin-net/bodkin/internal/wire/rendezvous"
)

func (s *Server) connect(from Addr, b []byte) bool {
	m, err := wire.ParseConnect(b)
	if err != nil {
		return false
	}
	i, p, ok := s.senderOrRecent(from, m.Handle, m.Tx, b)
	if !ok {
		return true
	}
	answer := wire.Connected{Tx: m.Tx, Relay: m.Relay}
	var target *peer
	if answer.Status, target = s.introduce(i, p, &m); answer.Status == wire.StatusOK {
		answer.Kinds = m.Kinds & p.can() & target.can()
		request := wire.Request{Relay: m.Relay, Requester: p.id, Kinds: answer.Kinds, Sealed: m.Sealed}
		if answer.Kinds&Direct != 0 {
			answer.Peer, request.Peer = target.addrPort(), p.addrPort()
		}
		target.tx++
		request.Tx = target.tx
		start := len(s.arena)
		s.arena = request.Append(s.arena)
		s.sendMAC(target, start)
	}
	start := len(s.arena)
	s.arena = answer.Append(s.arena)
	s.sendMAC(p, start)
	return true
}

// introduce decides on a CONNECT, and makes the relay that it asks for.
func (s *Server) introduce(i uint32, p *peer, m *wire.Connect) (Status, *peer) {
	if !s.connectLimit.take(&p.connects, s.ns(), 1) {
		return wire.StatusRateLimited, nil
	}
	found := s.byID(m.Target)
	j, target := found.i, found.p
	if target == nil || s.over(&target.timer) {
		return wire.StatusNotRegistered, nil
	}
	if i == j {
		return wire.StatusBadRelay, nil
	}
	r, again := s.relay(m.Relay)
	if again && r.party != [2]uint32{i, j} {
		return wire.StatusBadRelay, nil
	}
	pair := s.hash.words(s.hash.id((*[32]byte)(&p.id)), s.hash.id((*[32]byte)(&target.id)), 2, 0)
	if !s.pairs.take(pair, s.ns()) ||
		!s.requested.take(&target.requests, s.ns(), 1) {
		return wire.StatusRateLimited, nil
	}
	if again {
		r.kinds = m.Kinds
		return wire.StatusOK, target
	}
	if s.relays.full() || int(p.asked) >= s.cfg.RelaysPerKey {
		return wire.StatusFull, nil
	}
	s.beginRelay(m.Relay, m.Kinds, i, j)
	return wire.StatusOK, target
}

func (s *Server) signal(from Addr, b []byte) bool {
	m, err := wire.ParseSignal(b)
	if err != nil {
		return false
	}
	i, p, ok := s.senderOrRecent(from, m.Handle, m.Tx, b)
	if !ok {
		return true
	}
	if !s.signalLimit.take(&p.signals, s.ns(), 1) {
		s.drop(DropRate)
		return true
	}
	r, ok := s.relay(m.Relay)
	if !ok || !r.has(i) {
		s.drop(DropRelay)
		return true
	}
	side := r.side(i)
	if !s.used(r, side, len(m.Sealed)) {
		s.drop(DropBudget)
		return true
	}
	other := s.peers.at(r.party[1-side])
	if s.over(&other.timer) {
		s.drop(DropRelay)
		return true
	}
	other.tx++
	start := len(s.arena)
	s.arena = wire.Signalled{Tx: other.tx, Relay: m.Relay, Sealed: m.Sealed}.Append(s.arena)
	s.sendMAC(other, start)
	return true
}
