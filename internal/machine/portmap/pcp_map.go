package portmap

import (
	"encoding/binary"
	"net/netip"
	"slices"
	"time"
)

// pcpGranted is the answer to a request that l fulfils.
func (m *Machine) pcpGranted(op byte, r pcpRequest, l *Lease) []byte {
	size := pcpMapLen
	if op == pcpPeer {
		size = pcpPeerLen
	}
	a := m.pcpHead(op, pcpSuccess, m.remaining(l))
	a = append(a, r.body[:size]...)
	body := a[pcpHeadLen:]
	binary.BigEndian.PutUint16(body[18:], l.External.Port())
	put16(body[20:], m.external(l.Internal.Addr()))
	return append(a, r.opts.raw...)
}

// remaining is how many seconds l still has.
func (m *Machine) remaining(l *Lease) uint32 {
	if l.Expires.IsZero() {
		return 1<<32 - 1
	}
	return uint32(l.Expires.Sub(m.now) / time.Second)
}

// suits says whether an external endpoint is what r suggests.
func (m *Machine) suits(r pcpRequest, port uint16) bool {
	a := r.suggested.Addr()
	return (r.suggested.Port() == 0 || r.suggested.Port() == port) && (a.IsUnspecified() || a == m.external(r.internal.Addr()))
}

// low says whether it is the external port alone that a client may not have: not
// a matter of who asks, but one that does not change soon.
func (m *Machine) low(r pcpRequest, port uint16) bool {
	return m.cfg.NoLowPorts && port != 0 && port < 1024 && r.internal.Port() >= 1024
}

// pcpMap makes or renews a mapping (RFC 6887 section 11.3).
func (m *Machine) pcpMap(r pcpRequest) ([]byte, *pcpFault) {
	switch {
	case r.number == 0 || r.proto == 0:
		return nil, fault(pcpBadProtocol)
	case r.internal.Port() == 0: // all ports
		return nil, fault(pcpNotAuthorized)
	}
	lifetime := m.lifetime(r.seconds, pcpMinLease)
	l := m.find(by(PCP), mapping, inside(r.proto, r.internal))
	if l != nil && l.nonce != r.nonce {
		return nil, &pcpFault{pcpNotAuthorized, m.remaining(l)}
	}
	var have []Filter
	if l != nil {
		have = l.Remotes
	}
	remotes := addFilters(have, r.opts.filters)
	if len(remotes) > maxFilters {
		return nil, fault(pcpTooManyPeers)
	}
	if l != nil {
		if r.opts.preferFailure && !m.suits(r, l.External.Port()) {
			return nil, fault(pcpCannotProvide)
		}
		before := l.Remotes
		l.Remotes = remotes
		if refused := m.renew(l, lifetime); refused != granted {
			l.Remotes = before
			return nil, fault(faultOf[refused])
		}
		return m.pcpGranted(pcpMap, r, l), nil
	}
	port, exact := m.present(r.proto, r.internal, r.suggested.Port())
	if r.opts.preferFailure {
		if !m.suits(r, port) {
			return nil, fault(pcpCannotProvide)
		}
		exact = exact || port != 0
		if m.low(r, port) {
			return nil, &pcpFault{pcpCannotProvide, longError}
		}
	}
	l, refused := m.create(Lease{
		By: PCP, Proto: r.proto, Internal: r.internal, Remotes: remotes,
		Description: "PCP MAP", Enabled: true, nonce: r.nonce,
	}, port, exact, lifetime)
	if (refused == taken || refused == foreign) && !r.opts.preferFailure {
		refused = full
	}
	if refused != granted {
		return nil, fault(faultOf[refused])
	}
	return m.pcpGranted(pcpMap, r, l), nil
}

func mapping(l *Lease) bool { return !l.Peer.IsValid() }

// addFilters adds to the filters of a mapping what FILTER options say (RFC 6887
// section 13.3).
func addFilters(have, more []Filter) []Filter {
	for _, f := range more {
		switch {
		case !f.Prefix.IsValid():
			have = nil
		case !slices.Contains(have, f):
			have = append(have[:len(have):len(have)], f)
		}
	}
	return have
}

// pcpUnmap ends a mapping, or, for internal port 0, all of the client's of a
// protocol, or of all protocols, that have the nonce (RFC 6887 section 15).
func (m *Machine) pcpUnmap(r pcpRequest) ([]byte, *pcpFault) {
	if r.number != 0 && r.proto == 0 {
		return nil, fault(pcpBadProtocol)
	}
	mine := func(l *Lease) bool {
		return l.By == PCP && mapping(l) && l.Internal.Addr() == r.internal.Addr() && (r.number == 0 ||
			l.Proto == r.proto && (r.internal.Port() == 0 || l.Internal == r.internal))
	}
	known := func(l *Lease) bool { return l.nonce == r.nonce }
	for l := m.find(mine, known); l != nil; l = m.find(mine, known) {
		m.close(l, Unmapped)
	}
	if left := m.find(mine); left != nil {
		return nil, &pcpFault{pcpNotAuthorized, m.remaining(left)}
	}
	a := append(m.pcpHead(pcpMap, pcpSuccess, 0), r.body[:pcpMapLen]...)
	return append(a, r.opts.raw...), nil
}

// pcpPeer makes or prolongs a mapping towards one peer (RFC 6887 section 12.3).
// A mapping that MAP made serves it too. It never shortens or ends one.
func (m *Machine) pcpPeer(r pcpRequest) ([]byte, *pcpFault) {
	switch {
	case r.number == 0 || r.internal.Port() == 0 || r.peer.Port() == 0:
		return nil, fault(pcpMalformed)
	case r.proto == 0:
		return nil, fault(pcpBadProtocol)
	case !r.peer.Addr().Is4() || r.peer.Addr().IsUnspecified() || r.peer.Addr().IsMulticast():
		return nil, fault(pcpMalformed)
	}
	lifetime := m.lifetime(r.seconds, pcpMinLease)
	l := m.find(by(PCP), inside(r.proto, r.internal), func(l *Lease) bool { return l.Peer == r.peer })
	if l != nil {
		switch {
		case l.nonce != r.nonce:
			return nil, &pcpFault{pcpNotAuthorized, m.remaining(l)}
		case !m.suits(r, l.External.Port()):
			return nil, fault(pcpCannotProvide)
		}
		if refused := m.renew(l, max(lifetime, l.Expires.Sub(m.now))); refused != granted {
			return nil, fault(faultOf[refused])
		}
		return m.pcpGranted(pcpPeer, r, l), nil
	}
	port, exact := m.present(r.proto, r.internal, r.suggested.Port())
	if !m.suits(r, port) {
		return nil, fault(pcpCannotProvide)
	}
	if m.low(r, port) {
		return nil, &pcpFault{pcpCannotProvide, longError}
	}
	l, refused := m.create(Lease{
		By: PCP, Proto: r.proto, Internal: r.internal, Peer: r.peer,
		Remotes:     []Filter{{netip.PrefixFrom(r.peer.Addr(), 32), r.peer.Port()}},
		Description: "PCP PEER", Enabled: true, nonce: r.nonce,
	}, port, exact || port != 0, lifetime)
	if refused != granted {
		return nil, fault(faultOf[refused])
	}
	return m.pcpGranted(pcpPeer, r, l), nil
}
