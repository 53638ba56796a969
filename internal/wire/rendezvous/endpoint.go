package rendezvous

import (
	"encoding/binary"
	"net/netip"
)

// EndpointLen is the length of an endpoint in a message.
const EndpointLen = 19

// AppendEndpoint appends ep in its 19-byte form. The zero AddrPort is "none",
// and so is everything that cannot be sent to: port 0, the unspecified address.
func AppendEndpoint(dst []byte, ep netip.AddrPort) []byte {
	var b [EndpointLen]byte
	a := ep.Addr().Unmap()
	if ep.Port() != 0 && a.IsValid() && !a.IsUnspecified() {
		binary.BigEndian.PutUint16(b[1:], ep.Port())
		if a.Is4() {
			b[0] = 4
			v := a.As4()
			copy(b[3:], v[:])
		} else {
			b[0] = 6
			v := a.As16()
			copy(b[3:], v[:])
		}
	}
	return append(dst, b[:]...)
}

// ParseEndpoint reads what AppendEndpoint writes, and only that.
func ParseEndpoint(b []byte) (netip.AddrPort, error) {
	if len(b) != EndpointLen {
		return netip.AddrPort{}, ErrMalformed
	}
	var a netip.Addr
	switch b[0] {
	case 0:
		if [EndpointLen]byte(b) != ([EndpointLen]byte{}) {
			return netip.AddrPort{}, ErrMalformed
		}
		return netip.AddrPort{}, nil
	case 4:
		a = netip.AddrFrom4([4]byte(b[3:7]))
		if [12]byte(b[7:]) != ([12]byte{}) {
			return netip.AddrPort{}, ErrMalformed
		}
	case 6:
		a = netip.AddrFrom16([16]byte(b[3:]))
	default:
		return netip.AddrPort{}, ErrMalformed
	}
	port := binary.BigEndian.Uint16(b[1:])
	if port == 0 || a.IsUnspecified() || a.Is4In6() {
		return netip.AddrPort{}, ErrMalformed
	}
	return netip.AddrPortFrom(a, port), nil
}
