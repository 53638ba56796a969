package router

import (
	"errors"
	"net/netip"
	"time"

	"github.com/bodkin-net/bodkin/internal/machine/nat"
	"github.com/bodkin-net/bodkin/internal/machine/nat/ip"
	"github.com/bodkin-net/bodkin/internal/machine/portmap"
)

// setOwn changes the gateway's outside addresses, once it can do that.
func (r *Router) setOwn(now time.Time, own []netip.Addr) error {
	if g, ok := any(r.nat).(interface {
		SetOwn(time.Time, nat.Side, []netip.Addr) error
	}); ok {
		return g.SetOwn(now, nat.Outside, own)
	}
	return errors.New("router: the gateway cannot change its addresses")
}

// mapper opens ports, once the gateway can do that.
type mapper struct{ nat *nat.Gateway }

func (m mapper) External(netip.Addr) netip.Addr { return netip.Addr{} }
func (m mapper) Map(time.Time, portmap.Request) (netip.AddrPort, error) {
	return netip.AddrPort{}, errors.New("router: the gateway cannot open ports")
}
func (m mapper) Unmap(time.Time, ip.Proto, netip.AddrPort) {}
