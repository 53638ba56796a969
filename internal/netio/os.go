package netio

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"slices"
	"syscall"
)

var errTooLong = errors.New("packet too long")

// OS is the network of this machine.
type OS struct{}

// ListenUDP opens one socket for both IP versions, or for IPv4 alone where the
// system has no IPv6. Port 0 lets the system choose.
func (OS) ListenUDP(port uint16) (net.PacketConn, error) {
	addr := &net.UDPAddr{Port: int(port)}
	c, err := net.ListenUDP("udp", addr)
	if err != nil && !errors.Is(err, syscall.EADDRINUSE) {
		if c4, err4 := net.ListenUDP("udp4", addr); err4 == nil {
			return c4, nil
		}
	}
	if err != nil {
		return nil, err
	}
	return c, nil
}

// DialTCP connects from a local port that other sockets may be using too: to
// listen, to register, or to punch towards another endpoint. Multipath TCP is
// off, because middleboxes that know only TCP drop or mangle its options.
func (OS) DialTCP(ctx context.Context, port uint16, to netip.AddrPort) (net.Conn, error) {
	to = unmap(to)
	network, any := "tcp6", netip.IPv6Unspecified()
	if to.Addr().Is4() {
		network, any = "tcp4", netip.IPv4Unspecified()
	}
	d := net.Dialer{
		LocalAddr: net.TCPAddrFromAddrPort(netip.AddrPortFrom(any, port)),
		Control:   reusePort,
	}
	d.SetMultipathTCP(false)
	return d.DialContext(ctx, network, to.String())
}

// Addrs lists the addresses of the interfaces that are up, without loopback and
// link-local ones: those that another machine could reach this one at.
func (OS) Addrs() ([]netip.Addr, error) {
	ifs, err := net.Interfaces()
	if err != nil {
		return nil, err
	}
	var addrs []netip.Addr
	for _, i := range ifs {
		if i.Flags&net.FlagUp == 0 || i.Flags&net.FlagLoopback != 0 {
			continue
		}
		as, err := i.Addrs()
		if err != nil {
			continue // it went away meanwhile
		}
		for _, a := range as {
			n, ok := a.(*net.IPNet)
			if !ok {
				continue
			}
			if ip, ok := netip.AddrFromSlice(n.IP); ok && ip.Unmap().IsGlobalUnicast() {
				addrs = append(addrs, ip.Unmap())
			}
		}
	}
	slices.SortFunc(addrs, netip.Addr.Compare)
	return slices.Compact(addrs), nil
}

// LookupIP resolves a name, or parses an address.
func (OS) LookupIP(ctx context.Context, host string) ([]netip.Addr, error) {
	addrs, err := net.DefaultResolver.LookupNetIP(ctx, "ip", host)
	for i, a := range addrs {
		addrs[i] = a.Unmap()
	}
	return addrs, err
}
