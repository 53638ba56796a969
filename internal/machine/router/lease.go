package router

import (
	"errors"
	"net/netip"
	"slices"
	"time"

	"github.com/bodkin-net/bodkin/internal/machine/dhcp"
	"github.com/bodkin-net/bodkin/internal/machine/nat"
)

// heed does what the DHCP client says.
func (r *Router) heed(now time.Time) {
	for e, ok := r.client.Event(); ok; e, ok = r.client.Event() {
		was := r.external
		switch e.Kind {
		case dhcp.GotAddress:
			r.external = e.Grant.Prefix.Addr()
		case dhcp.LostAddress:
			r.external = netip.Addr{}
		}
		if r.external == was {
			continue
		}
		r.moveOutside(now, e)
		if r.ports != nil {
			r.ports.AddressChanged(now)
		}
	}
}

// moveOutside takes the external address into use, or out of it. What was
// mapped to the old one is gone.
func (r *Router) moveOutside(now time.Time, e dhcp.ClientEvent) {
	own := slices.Clone(r.cfg.NAT.Own[nat.Outside])
	if r.external.IsValid() {
		own = append([]netip.Addr{r.external}, own...)
	}
	if err := r.nat.SetOwn(now, nat.Outside, own); err != nil {
		r.external, e.Why = netip.Addr{}, err.Error()
	}
	r.say(Event{Kind: OutsideAddress, Outside: r.external, Grant: e.Grant, Why: e.Why})
	r.busy = true
}

// SetOutside gives the router other addresses outside, where they do not come
// from DHCP. Mappings of those that it no longer has are gone.
func (r *Router) SetOutside(now time.Time, addrs []netip.Addr) error {
	if r.cfg.OutsideDHCP {
		return errors.New("router: the outside address comes from DHCP")
	}
	if err := r.nat.SetOwn(now, nat.Outside, addrs); err != nil {
		return err
	}
	if r.ports != nil {
		r.ports.AddressChanged(now)
	}
	r.busy = true
	r.cfg.NAT.Own[nat.Outside] = slices.Clone(addrs)
	e := Event{Kind: OutsideAddress}
	if i := slices.IndexFunc(addrs, netip.Addr.Is4); i >= 0 {
		e.Outside = addrs[i]
	}
	r.say(e)
	return nil
}

// Outside is the lease of the external address, if it comes from DHCP and is
// there.
func (r *Router) Outside() (g dhcp.Grant, ok bool) {
	if r.client == nil || !r.external.IsValid() {
		return g, false
	}
	return r.client.Grant()
}

// Renumber has the router ask at once whether its external address is still
// right, as when a plug was pulled and put in again: if the server has
// forgotten it, or this is another network, it gets another one.
func (r *Router) Renumber(now time.Time) error {
	if r.client == nil {
		return errors.New("router: the outside address does not come from DHCP")
	}
	r.client.Reboot(now)
	r.heed(now)
	r.busy = true
	return nil
}

// SetMTU changes the MTU of a side, zero being 1500 again.
func (r *Router) SetMTU(side nat.Side, mtu int) error { return r.nat.SetMTU(side, mtu) }

// Forget ends the lease of a host inside. Its next renewal is refused, and it
// gets another address.
func (r *Router) Forget(now time.Time, host MAC) {
	if r.server != nil {
		r.server.Forget(now, host)
	}
}

// Heard tells the router that a neighbour on a side said, as by ARP, that an
// IPv4 address is its own.
func (r *Router) Heard(now time.Time, from nat.Side, source [4]byte, link MAC) {
	if from == nat.Inside && r.server != nil {
		r.server.Seen(now, source, link)
	}
}

// Leases are the DHCP server's, to be kept in a file with dhcp.AppendLeases.
func (r *Router) Leases() []dhcp.Lease {
	if r.server == nil {
		return nil
	}
	return r.server.Leases()
}

// Restore takes over leases from before the router was made. It returns how
// many its configuration rules out.
func (r *Router) Restore(now time.Time, leases []dhcp.Lease) (left int) {
	if r.server == nil {
		return len(leases)
	}
	return r.server.Restore(now, leases)
}

// Reset is a reboot: mappings and port mappings are gone, leases are not. The
// external address from DHCP is asked for anew.
func (r *Router) Reset(now time.Time) {
	r.nat.HandleTimeout(now) // from when on its ports rest
	r.nat.Reset()
	if r.server != nil {
		r.server.Reset(now)
	}
	if r.client != nil {
		g, _ := r.client.Grant()
		// It has a hardware address and randomness as before.
		r.client, _ = r.newClient(now, g.Prefix.Addr())
		if r.external.IsValid() {
			r.external = netip.Addr{}
			r.moveOutside(now, dhcp.ClientEvent{Grant: g, Why: "rebooted"})
		}
	}
	if r.ports != nil {
		r.ports.Reset(now)
	}
	if r.proxy != nil {
		r.proxy.Reset()
	}
	r.busy = true
}
