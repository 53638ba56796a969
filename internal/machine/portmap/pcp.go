package portmap

import (
	"encoding/binary"
	"net/netip"
	"time"

	"github.com/bodkin-net/bodkin/internal/machine/nat/ip"
)

// Result codes of PCP (RFC 6887 section 7.4).
const (
	pcpSuccess = iota
	pcpBadVersion
	pcpNotAuthorized
	pcpMalformed
	pcpBadOpcode
	pcpBadOption
	pcpMalformedOption
	pcpNetworkFailure
	pcpNoResources
	pcpBadProtocol
	pcpQuota
	pcpCannotProvide
	pcpAddressMismatch
	pcpTooManyPeers
)

const (
	pcpAnnounce = 0
	pcpMap      = 1
	pcpPeer     = 2

	optThirdParty    = 1
	optPreferFailure = 2
	optFilter        = 3
	optOptional      = 128 // and above: may be ignored

	pcpHeadLen   = 24
	pcpMapLen    = 36
	pcpPeerLen   = 56
	pcpFilterLen = 20
	pcpMost      = 1100
	nonceLen     = 12
	addressLen   = 16

	protoTCP = 6
	protoUDP = 17

	pcpMinLease = 2 * time.Minute // RFC 6887 section 15
	maxFilters  = 8
)

// How long a client should believe an error (RFC 6887 section 7.4).
const (
	longError  = 30 * 60
	shortError = 30
)

// pcpFault is an error, and for how many seconds.
type pcpFault struct {
	result  byte
	seconds uint32
}

func fault(result byte) *pcpFault {
	switch result {
	case pcpNetworkFailure, pcpNoResources, pcpQuota, pcpCannotProvide:
		return &pcpFault{result, shortError}
	}
	return &pcpFault{result, longError}
}

var faultOf = map[refusal]byte{
	notAuthorized: pcpNotAuthorized, failed: pcpNetworkFailure, full: pcpNoResources,
	quota: pcpQuota, taken: pcpCannotProvide, foreign: pcpCannotProvide,
}

// pcp answers a request of any version that has its first two bytes.
func (m *Machine) pcp(client netip.Addr, b []byte) []byte {
	answer, f := m.pcpDo(client, b)
	if f == nil {
		return answer
	}
	// The request, turned into an answer (RFC 6887 section 8.2).
	echo := b[:min(len(b), pcpMost)]
	echo = append(make([]byte, 0, len(echo)+pcpHeadLen), echo...)
	for len(echo) < pcpHeadLen || len(echo)%4 != 0 {
		echo = append(echo, 0)
	}
	copy(echo, m.pcpHead(b[1], f.result, f.seconds))
	return echo
}

func (m *Machine) pcpHead(op, result byte, lifetime uint32) []byte {
	a := make([]byte, pcpHeadLen, pcpHeadLen+pcpPeerLen)
	a[0], a[1], a[3] = versionPCP, isAnswer|op, result
	binary.BigEndian.PutUint32(a[4:], lifetime)
	binary.BigEndian.PutUint32(a[8:], m.seconds())
	return a
}

func (m *Machine) pcpDo(client netip.Addr, b []byte) ([]byte, *pcpFault) {
	switch {
	case b[0] != versionPCP:
		return nil, fault(pcpBadVersion)
	case len(b) < pcpHeadLen || len(b) > pcpMost || len(b)%4 != 0:
		return nil, fault(pcpMalformed)
	case address16(b[8:]) != client:
		return nil, fault(pcpAddressMismatch)
	}
	body, size := b[pcpHeadLen:], 0
	switch b[1] {
	case pcpAnnounce:
	case pcpMap:
		size = pcpMapLen
	case pcpPeer:
		size = pcpPeerLen
	default:
		return nil, fault(pcpBadOpcode)
	}
	if len(body) < size {
		return nil, fault(pcpMalformed)
	}
	opts, f := parseOptions(b[1], client, b[1] == pcpMap && binary.BigEndian.Uint32(b[4:]) == 0, body[size:])
	if f != nil {
		return nil, f
	}
	if b[1] == pcpAnnounce {
		return m.pcpHead(pcpAnnounce, pcpSuccess, 0), nil
	}
	req := parseMap(client, binary.BigEndian.Uint32(b[4:]), body, opts)
	if b[1] == pcpPeer {
		req.peer = netip.AddrPortFrom(address16(body[40:]), binary.BigEndian.Uint16(body[36:]))
		return m.pcpPeer(req)
	}
	if req.seconds == 0 {
		return m.pcpUnmap(req)
	}
	return m.pcpMap(req)
}

// address16 reads an address of 16 bytes, which for IPv4 are IPv4-mapped.
func address16(b []byte) netip.Addr {
	return netip.AddrFrom16([16]byte(b[:16])).Unmap()
}

func put16(b []byte, a netip.Addr) {
	as := a.As16()
	copy(b, as[:])
}

// pcpOptions are the options of a request.
type pcpOptions struct {
	preferFailure bool
	filters       []Filter // invalid prefix: drop those before
	raw           []byte   // those that were heeded, for the answer
}

// parseOptions reads the options behind an opcode of a client's (RFC 6887
// section 7.3). One that makes no sense, as in a request that ends a mapping, is
// malformed (section 11.3).
func parseOptions(op byte, client netip.Addr, ends bool, b []byte) (o pcpOptions, f *pcpFault) {
	for len(b) > 0 {
		// The length of b is a multiple of four.
		code, size := b[0], int(binary.BigEndian.Uint16(b[2:]))
		whole := 4 + (size+3)&^3
		if whole > len(b) {
			return o, fault(pcpMalformedOption)
		}
		data := b[4 : 4+size]
		switch {
		case code == optPreferFailure && op == pcpPeer:
			return o, fault(pcpMalformed)
		case code == optPreferFailure && op == pcpMap:
			if size != 0 || o.preferFailure || ends {
				return o, fault(pcpMalformedOption)
			}
			o.preferFailure = true
		case code == optFilter && op == pcpMap:
			filter, ok := parseFilter(data)
			if !ok || ends {
				return o, fault(pcpMalformedOption)
			}
			o.filters = append(o.filters, filter)
		case code == optPreferFailure || code == optFilter:
			return o, fault(pcpMalformedOption)
		case code == optThirdParty && op != pcpAnnounce && size != addressLen:
			return o, fault(pcpMalformedOption)
		case code == optThirdParty && op != pcpAnnounce && address16(data) == client: // section 13.1
			return o, fault(pcpMalformed)
		case code < optOptional: // also THIRD_PARTY: nobody is trusted with it
			return o, fault(pcpBadOption)
		}
		if code < optOptional {
			o.raw = append(o.raw, b[:whole]...)
		}
		b = b[whole:]
	}
	return o, nil
}

// parseFilter reads FILTER: reserved | prefix length | remote port(2) | remote
// address(16). An IPv4 address is IPv4-mapped, and the length counts those 96
// bits too; length 0 drops all filters.
func parseFilter(b []byte) (Filter, bool) {
	if len(b) != pcpFilterLen {
		return Filter{}, false
	}
	bits, a := int(b[1]), address16(b[4:])
	if bits == 0 {
		return Filter{}, true
	}
	if !a.Is4() || bits < 96 || bits > 128 {
		return Filter{}, false
	}
	return Filter{netip.PrefixFrom(a, bits-96).Masked(), binary.BigEndian.Uint16(b[2:])}, true
}

// pcpRequest is what MAP and PEER ask for.
type pcpRequest struct {
	seconds   uint32
	nonce     [nonceLen]byte
	number    byte     // of the protocol
	proto     ip.Proto // ip.Other for one that is not translated
	internal  netip.AddrPort
	suggested netip.AddrPort // unspecified, or port 0: no matter
	peer      netip.AddrPort
	opts      pcpOptions
	body      []byte
}

func parseMap(client netip.Addr, seconds uint32, body []byte, opts pcpOptions) pcpRequest {
	r := pcpRequest{
		seconds:   seconds,
		nonce:     [nonceLen]byte(body),
		number:    body[12],
		internal:  netip.AddrPortFrom(client, binary.BigEndian.Uint16(body[16:])),
		suggested: netip.AddrPortFrom(address16(body[20:]), binary.BigEndian.Uint16(body[18:])),
		opts:      opts,
		body:      body,
	}
	switch r.number {
	case protoTCP:
		r.proto = ip.TCP
	case protoUDP:
		r.proto = ip.UDP
	}
	return r
}
