package portmap

import (
	"encoding/binary"
	"net/netip"
	"time"

	"github.com/bodkin-net/bodkin/internal/machine/nat/ip"
)

// Result codes of NAT-PMP (RFC 6886 section 3.5).
const (
	pmpSuccess = iota
	pmpBadVersion
	pmpNotAuthorized
	pmpNetworkFailure
	pmpNoResources
	pmpBadOpcode
)

const (
	isAnswer    = 0x80 // in the opcode of both protocols
	pmpAddress  = 0
	pmpMapUDP   = 1
	pmpMapTCP   = 2
	pmpMapLen   = 12
	pmpMinimum  = 2 // bytes; also of PCP
	pmpHeadLen  = 8 // of an answer
	versionPMP  = 0
	versionPCP  = 2
	pmpMinLease = time.Second
)

// control handles a NAT-PMP or PCP request. What neither a server of the one
// nor of the other is asked goes unanswered.
func (m *Machine) control(from, to netip.AddrPort, b []byte) {
	if len(b) < pmpMinimum || b[1]&isAnswer != 0 || !m.cfg.NATPMP && !m.cfg.PCP {
		return
	}
	var answer []byte
	switch {
	case m.cfg.NATPMP && (b[0] == versionPMP || !m.cfg.PCP):
		answer = m.natpmp(from.Addr(), b)
	default:
		answer = m.pcp(from.Addr(), b)
	}
	if answer != nil {
		m.answer(from, to.Port(), answer)
	}
}

// natpmp answers a NAT-PMP request; nil is no answer.
func (m *Machine) natpmp(client netip.Addr, b []byte) []byte {
	op := b[1]
	switch {
	case b[0] != versionPMP:
		return m.pmpHead(op, pmpBadVersion)
	case op == pmpAddress:
		return m.pmpAddress(client)
	case op > pmpMapTCP:
		return m.pmpHead(op, pmpBadOpcode)
	case len(b) < pmpMapLen:
		return nil
	}
	proto := ip.UDP
	if op == pmpMapTCP {
		proto = ip.TCP
	}
	internal := netip.AddrPortFrom(client, binary.BigEndian.Uint16(b[4:]))
	seconds := binary.BigEndian.Uint32(b[8:])

	var result, external uint16
	var lifetime time.Duration
	if seconds == 0 {
		result = m.pmpUnmap(proto, internal)
	} else {
		lifetime = m.lifetime(seconds, pmpMinLease)
		external, result = m.pmpMap(proto, internal, binary.BigEndian.Uint16(b[6:]), lifetime)
	}
	if result != pmpSuccess {
		external, lifetime = 0, 0
	}
	a := m.pmpHead(op, result)
	a = binary.BigEndian.AppendUint16(a, internal.Port())
	a = binary.BigEndian.AppendUint16(a, external)
	return binary.BigEndian.AppendUint32(a, uint32(lifetime/time.Second))
}

func (m *Machine) pmpHead(op byte, result uint16) []byte {
	a := make([]byte, 0, pmpHeadLen+8)
	a = append(a, versionPMP, isAnswer|op)
	a = binary.BigEndian.AppendUint16(a, result)
	return binary.BigEndian.AppendUint32(a, m.seconds())
}

func (m *Machine) pmpAddress(client netip.Addr) []byte {
	address, result := m.external(client), uint16(pmpSuccess)
	if !address.Is4() || m.cfg.Refuse == RefuseFailed {
		address, result = netip.IPv4Unspecified(), pmpNetworkFailure
	}
	return append(m.pmpHead(pmpAddress, result), address.AsSlice()...)
}

// pmpMap makes or renews a lease. A client that asks again gets the port that
// it has, whatever it asks for now (RFC 6886 section 3.3).
func (m *Machine) pmpMap(proto ip.Proto, internal netip.AddrPort, port uint16, lifetime time.Duration) (external, result uint16) {
	if internal.Port() == 0 {
		return 0, pmpNotAuthorized
	}
	l := m.find(by(NATPMP), inside(proto, internal))
	var r refusal
	if l != nil {
		r = m.renew(l, lifetime)
	} else {
		port, exact := m.present(proto, internal, port)
		want := Lease{By: NATPMP, Proto: proto, Internal: internal, Description: NATPMP.String(), Enabled: true}
		l, r = m.create(want, port, exact, lifetime)
	}
	switch r {
	case granted:
		return l.External.Port(), pmpSuccess
	case notAuthorized:
		return 0, pmpNotAuthorized
	case failed:
		return 0, pmpNetworkFailure
	default:
		return 0, pmpNoResources
	}
}

// present is the port that an internal endpoint already has by another
// protocol, or must have, and no other will do. Else it is the one that is
// wanted.
func (m *Machine) present(proto ip.Proto, internal netip.AddrPort, wanted uint16) (port uint16, exact bool) {
	if l := m.find(inside(proto, internal)); l != nil {
		return l.External.Port(), true
	}
	if m.cfg.SamePort {
		return internal.Port(), true
	}
	return wanted, false
}

// pmpUnmap ends a lease, or, for port 0, all of the client's (RFC 6886 section
// 3.4). Those that another protocol made are not NAT-PMP's to end.
func (m *Machine) pmpUnmap(proto ip.Proto, internal netip.AddrPort) (result uint16) {
	mine := func(l *Lease) bool {
		return l.Proto == proto && l.Internal.Addr() == internal.Addr() && (internal.Port() == 0 || l.Internal == internal)
	}
	if m.find(mine) != nil && m.find(mine, by(NATPMP)) == nil {
		return pmpNotAuthorized
	}
	for {
		l := m.find(mine, by(NATPMP))
		if l == nil {
			return pmpSuccess
		}
		m.close(l, Unmapped)
	}
}

func by(p Protocol) func(*Lease) bool {
	return func(l *Lease) bool { return l.By == p }
}

// announceAddress tells all hosts the external address, or that mappings may
// have been lost.
func (m *Machine) announceAddress() {
	from := netip.AddrPortFrom(m.cfg.Addr, Port)
	to := netip.AddrPortFrom(allHosts, announcePort)
	if m.cfg.NATPMP && m.external(m.cfg.Addr).IsValid() {
		m.send(m.now, Out{from, to, m.pmpAddress(m.cfg.Addr)})
	}
	if m.cfg.PCP {
		m.send(m.now, Out{from, to, m.pcpHead(pcpAnnounce, pcpSuccess, 0)})
	}
}
