package router

import (
	"errors"
	"net/netip"
	"time"

	"github.com/bodkin-net/bodkin/internal/machine/nat"
	"github.com/bodkin-net/bodkin/internal/machine/nat/ip"
	"github.com/bodkin-net/bodkin/internal/machine/portmap"
)

// mapper opens ports of the gateway for who answers port mapping.
type mapper struct{ nat *nat.Gateway }

func (m mapper) Map(now time.Time, want portmap.Request) (netip.AddrPort, error) {
	request := nat.Request{
		Proto: want.Proto, Internal: want.Internal, External: netip.AddrPortFrom(netip.Addr{}, want.External),
		Replace: want.Replace,
	}
	for _, f := range want.Remotes {
		request.Remotes = append(request.Remotes, nat.Remotes{Prefix: f.Prefix, Port: f.Port})
	}
	mapping, err := m.nat.Map(now, request)
	if errors.Is(err, nat.ErrTaken) {
		err = portmap.ErrTaken
	}
	return mapping.External, err
}

func (m mapper) Unmap(now time.Time, proto ip.Proto, external netip.AddrPort) {
	m.nat.Unmap(now, proto, external)
}

func (m mapper) External(internal netip.Addr) netip.Addr { return m.nat.External(internal) }
