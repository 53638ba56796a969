package netns

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"slices"

	"github.com/bodkin-net/bodkin/internal/lab/service"
	"github.com/bodkin-net/bodkin/internal/machine/nat"
	"github.com/bodkin-net/bodkin/internal/machine/portmap"
)

// serve runs what gateways of ours offer themselves, UPnP's HTTP and proxies,
// on sockets in their namespaces.
func (l *Lab) serve() error {
	for _, g := range l.wire.gateways {
		if !service.Needed(g.node.gateway) {
			continue
		}
		s, err := service.Start(service.Config{
			Gateway: g.node.gateway, Inside: first(g.sides[nat.Inside].Addrs, true), Stack: service.Within(l.hosts[g.node.name].space.do),
			Router: asked{l.wire, g}, Lookup: l.lookup, IsOwn: asked{l.wire, g}.isOwn,
		})
		if err != nil {
			return fmt.Errorf("netns: gateway %s: %w", g.node.name, err)
		}
		l.running = append(l.running, s)
	}
	return nil
}

// lookup knows the names of the topology.
func (l *Lab) lookup(_ context.Context, name string) ([]netip.Addr, error) {
	h := l.hosts[name]
	if h == nil {
		return nil, &net.DNSError{Err: "no such host", Name: name, IsNotFound: true}
	}
	return plain(h.Addrs()), nil
}

// asked is a gateway's router, for those who run beside the wire.
type asked struct {
	w *wire
	g *gateway
}

func (a asked) HTTP(r portmap.HTTPRequest) portmap.Response {
	w := a.w
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.closed {
		return portmap.Response{Status: 503}
	}
	defer w.poke()
	now := w.now()
	answer := a.g.router.HTTP(w.clock(now), r)
	w.poll(a.g, now)
	return answer
}

func (a asked) Intended(seen netip.AddrPort) (remote netip.AddrPort, ok bool) {
	a.w.mu.Lock()
	defer a.w.mu.Unlock()
	_, remote, ok = a.g.router.Intended(a.w.clock(a.w.now()), seen)
	return remote, ok
}

func (a asked) isOwn(addr netip.Addr) bool {
	a.w.mu.Lock()
	defer a.w.mu.Unlock()
	return slices.ContainsFunc(a.g.sides[:], func(p *wirePort) bool {
		return p != nil && (p.broadcasts(addr) || // the gateway is among everyone
			slices.ContainsFunc(p.Addrs, func(own netip.Prefix) bool { return own.Addr() == addr }))
	})
}
