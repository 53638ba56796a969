package sim

import (
	"context"
	"net"
	"net/netip"

	"github.com/bodkin-net/bodkin/internal/lab/service"
	"github.com/bodkin-net/bodkin/internal/machine/nat"
	"github.com/bodkin-net/bodkin/internal/machine/portmap"
)

// serve runs what the gateway itself offers: UPnP's HTTP, and proxies.
func (g *Gateway) serve() (err error) {
	var inside netip.Addr
	for _, a := range g.ports[nat.Inside].addrs {
		if a.Is4() && !inside.IsValid() {
			inside = a
		}
	}
	g.services, err = service.Start(service.Config{
		Gateway: &g.data, Inside: inside, Stack: stack{g.self}, Router: asked{g}, Lookup: g.self.LookupIP,
		IsOwn: func(a netip.Addr) bool {
			g.n.enter()
			defer g.n.leave()
			return g.self.isMine(a)
		},
	})
	return err
}

// asked is the gateway's router, for those who run beside the network.
type asked struct{ g *Gateway }

func (a asked) HTTP(r portmap.HTTPRequest) portmap.Response {
	a.g.n.enter()
	defer a.g.n.leave()
	answer := a.g.router.HTTP(a.g.n.time(), r)
	a.g.drain()
	return answer
}

func (a asked) Intended(seen netip.AddrPort) (remote netip.AddrPort, ok bool) {
	a.g.n.enter()
	defer a.g.n.leave()
	_, remote, ok = a.g.router.Intended(a.g.n.time(), seen)
	return remote, ok
}

// stack is the gateway's host, for services.
type stack struct{ h *Host }

// Listen accepts on all addresses, of which the outside ones get nothing that
// nobody asked for. Services are started by who has entered the network.
func (s stack) Listen(_ context.Context, _, address string) (net.Listener, error) {
	at, err := netip.ParseAddrPort(address)
	if err != nil {
		return nil, err
	}
	return s.h.listen(at.Port())
}

func (s stack) ListenPacket(_ context.Context, _, address string) (net.PacketConn, error) {
	at, err := netip.ParseAddrPort(address)
	if err != nil {
		return s.h.ListenUDP(0) // ":0"
	}
	return s.h.ListenUDPAt(at)
}

func (s stack) DialContext(ctx context.Context, _, address string) (net.Conn, error) {
	to, err := netip.ParseAddrPort(address)
	if err != nil {
		return nil, err
	}
	return s.h.DialTCP(ctx, 0, to)
}
