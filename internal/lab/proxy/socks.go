package proxy

import (
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"net/netip"
	"strconv"
	"syscall"
	"time"
)

// SOCKS5 (RFC 1928):
//
//	client   5 | count | methods         then   5 | command | 0 | address type | address | port(2)
//	server   5 | method                  then   5 | reply | 0 | address type | address | port(2)
//
// An address is 4 bytes (type 1), a length and a name (3), or 16 bytes (4).
const (
	socksVersion  = 5
	methodNone    = 0
	methodNothing = 0xff // acceptable

	commandConnect   = 1
	commandAssociate = 3

	typeIPv4 = 1
	typeName = 3
	typeIPv6 = 4
)

// Replies (RFC 1928 section 6).
const (
	replyDone byte = iota
	replyFailed
	replyForbidden
	replyNoNetwork
	replyNoHost
	replyRefused
	_ // TTL expired
	replyNoCommand
	replyNoAddressType
)

// socks serves one client.
func (s *Server) socks(c *conn) {
	defer c.Close()
	defer linger(c)
	c.SetDeadline(time.Now().Add(startTime))
	if !greet(c) {
		return
	}
	var head [3]byte
	if _, err := io.ReadFull(c, head[:]); err != nil || head[0] != socksVersion {
		return
	}
	to, err := readAddress(c)
	if err != nil {
		if errors.Is(err, errAddressType) {
			reply(c, replyNoAddressType, netip.AddrPort{})
		}
		return
	}
	c.SetDeadline(time.Time{})
	switch head[1] {
	case commandConnect:
		remote, err := s.dial(s.ctx, "tcp", to)
		if err != nil {
			reply(c, replyFor(err), netip.AddrPort{})
			return
		}
		if !reply(c, replyDone, addrPort(remote.LocalAddr())) {
			remote.Close()
			return
		}
		relay(c, remote)
	case commandAssociate:
		s.associate(c, to)
	default:
		reply(c, replyNoCommand, netip.AddrPort{})
	}
}

// greet agrees on no authentication.
func greet(c net.Conn) bool {
	var head [2]byte
	if _, err := io.ReadFull(c, head[:]); err != nil || head[0] != socksVersion {
		return false
	}
	methods := make([]byte, head[1])
	if _, err := io.ReadFull(c, methods); err != nil {
		return false
	}
	for _, m := range methods {
		if m == methodNone {
			_, err := c.Write([]byte{socksVersion, methodNone})
			return err == nil
		}
	}
	c.Write([]byte{socksVersion, methodNothing})
	return false
}

var errAddressType = errors.New("proxy: no such type of address")

// readAddress reads an address with its type and port.
func readAddress(r io.Reader) (string, error) {
	var kind [1]byte
	if _, err := io.ReadFull(r, kind[:]); err != nil {
		return "", err
	}
	size := map[byte]int{typeIPv4: 4, typeIPv6: 16}[kind[0]]
	if kind[0] == typeName {
		var length [1]byte
		if _, err := io.ReadFull(r, length[:]); err != nil {
			return "", err
		}
		size = int(length[0])
	}
	if size == 0 {
		return "", errAddressType
	}
	b := make([]byte, size+2)
	if _, err := io.ReadFull(r, b); err != nil {
		return "", err
	}
	host := string(b[:size])
	if kind[0] != typeName {
		a, _ := netip.AddrFromSlice(b[:size])
		host = a.Unmap().String()
	}
	return net.JoinHostPort(host, strconv.Itoa(int(binary.BigEndian.Uint16(b[size:])))), nil
}

func appendAddress(b []byte, e netip.AddrPort) []byte {
	a := e.Addr().Unmap()
	if !a.IsValid() {
		a = netip.IPv4Unspecified()
	}
	kind := byte(typeIPv4)
	if a.Is6() {
		kind = typeIPv6
	}
	b = append(append(b, kind), a.AsSlice()...)
	return binary.BigEndian.AppendUint16(b, e.Port())
}

func reply(c net.Conn, code byte, bound netip.AddrPort) bool {
	_, err := c.Write(appendAddress([]byte{socksVersion, code, 0}, bound))
	return err == nil
}

// replyFor is the reply to a connection that did not come about.
func replyFor(err error) byte {
	switch {
	case errors.Is(err, ErrForbidden):
		return replyForbidden
	case errors.Is(err, syscall.ECONNREFUSED):
		return replyRefused
	case errors.Is(err, syscall.ENETUNREACH):
		return replyNoNetwork
	case errors.Is(err, syscall.EHOSTUNREACH), errors.Is(err, context.DeadlineExceeded):
		return replyNoHost
	}
	return replyFailed
}
