// Package router is the box that people buy, as a pure state machine: a
// gateway, a DHCP server for its inside, a DHCP client on its outside, and the
// port mapping protocols, in one. The simulator and the lab drive it.
//
// What is for one of these is taken out before the gateway sees it:
//
//	from inside   UDP to port 67 of the router or of everyone       DHCP server
//	              answers to the server's pings                     DHCP server, and on
//	              UDP to port 5351 or 1900 of the router,
//	              UDP to port 1900 of 239.255.255.250               port mapping
//	from outside  answers to what the DHCP client has asked         DHCP client
package router

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"time"

	"github.com/bodkin-net/bodkin/internal/machine/dhcp"
	"github.com/bodkin-net/bodkin/internal/machine/nat"
	"github.com/bodkin-net/bodkin/internal/machine/nat/ip"
	"github.com/bodkin-net/bodkin/internal/machine/portmap"
	"github.com/bodkin-net/bodkin/internal/machine/redirect"
)

// MAC is the hardware address of a network interface.
type MAC = dhcp.MAC

// Config is a router's behaviour and addresses. NAT alone makes a gateway and
// nothing more.
type Config struct {
	NAT nat.Config

	// DHCP serves the inside network that the router's first IPv4 address
	// there is in. Fixed are the hosts on it that never ask, Routes lead to what
	// is behind other gateways there.
	DHCP   *dhcp.Pool
	Fixed  []netip.Addr
	Routes []dhcp.Route

	// OutsideDHCP asks outside for the external IPv4 address, of which
	// NAT.Own then has none, under OutsideMAC.
	OutsideDHCP bool
	OutsideMAC  MAC

	// PortMap is answered at the router's first IPv4 address inside.
	PortMap portmap.Behaviour

	// Redirect are the ports of TCP connections from inside to the outside
	// that end at RedirectTo, a port of the router's own stack: a transparent
	// proxy is there. IPv4 alone.
	Redirect   []uint16
	RedirectTo uint16
}

// Router is the machine. It is not safe for concurrent use.
type Router struct {
	cfg    Config
	nat    *nat.Gateway
	rnd    *rand.Rand
	inside [4]byte            // where the services are
	server *dhcp.Server       // nil: none
	client *dhcp.Client       // nil: none
	ports  *portmap.Machine   // nil: none
	proxy  *redirect.Redirect // nil: none

	external netip.Addr // from the lease; invalid: none now
	busy     bool       // something else than the gateway may have packets
	events   []Event
}

// New refuses what no router can be.
func New(now time.Time, cfg Config) (*Router, error) {
	if cfg.NAT.Rand == nil {
		return nil, errors.New("router: no source of randomness")
	}
	r := &Router{cfg: cfg, rnd: rand.New(cfg.NAT.Rand)}
	if err := r.gateway(now); err != nil {
		return nil, err
	}
	if err := r.services(now); err != nil {
		return nil, err
	}
	return r, nil
}

// gateway makes the gateway. One that waits for its lease has no external
// address yet.
func (r *Router) gateway(now time.Time) (err error) {
	own := &r.cfg.NAT.Own
	if r.cfg.OutsideDHCP && slices.ContainsFunc(own[nat.Outside], netip.Addr.Is4) {
		return fmt.Errorf("router: the outside has the addresses %v, and DHCP as well", own[nat.Outside])
	}
	if !r.cfg.OutsideDHCP {
		r.nat, err = nat.New(r.cfg.NAT)
		return err
	}
	later := r.cfg.NAT
	later.Own[nat.Outside] = append([]netip.Addr{unassigned}, own[nat.Outside]...)
	if r.nat, err = nat.New(later); err != nil {
		return err
	}
	return r.nat.SetOwn(now, nat.Outside, own[nat.Outside])
}

// unassigned is the address of nobody in particular (RFC 7600 section 4.8): the
// gateway is not made without one.
var unassigned = netip.AddrFrom4([4]byte{192, 0, 0, 8})

// services makes what stands around the gateway.
func (r *Router) services(now time.Time) (err error) {
	own, network := r.home()
	if r.cfg.DHCP != nil || r.cfg.PortMap.Serves() {
		if !network.IsValid() {
			return errors.New("router: DHCP and port mapping need an IPv4 address inside, in a prefix of the inside")
		}
		r.inside = own.As4()
	}
	if r.cfg.DHCP != nil {
		r.server, err = dhcp.NewServer(dhcp.ServerConfig{
			Pool:   *r.cfg.DHCP,
			Addr:   netip.PrefixFrom(own, network.Bits()),
			Fixed:  slices.Concat(r.cfg.Fixed, r.cfg.NAT.Own[nat.Inside]),
			Routes: r.cfg.Routes,
		})
		if err != nil {
			return err
		}
	}
	if r.cfg.OutsideDHCP {
		if r.client, err = r.newClient(now, netip.Addr{}); err != nil {
			return fmt.Errorf("router: outside: %w", err)
		}
	}
	if r.cfg.PortMap.Serves() {
		r.ports, err = portmap.New(now, portmap.Config{
			Behaviour: r.cfg.PortMap, Addr: own, Inside: slices.DeleteFunc(slices.Clone(r.cfg.NAT.Inside), isIPv6), Rand: r.source(),
		}, mapper{r.nat})
		if err != nil {
			return err
		}
	}
	if len(r.cfg.Redirect) > 0 {
		if r.proxy, err = r.newRedirect(); err != nil {
			return err
		}
	}
	r.busy = true
	return nil
}

// home is the router's first IPv4 address inside, and the network it is in.
func (r *Router) home() (own netip.Addr, network netip.Prefix) {
	for _, a := range r.cfg.NAT.Own[nat.Inside] {
		if !a.Is4() {
			continue
		}
		for _, p := range r.cfg.NAT.Inside {
			if p.Contains(a) && p.Bits() > network.Bits() {
				network = p
			}
		}
		return a, network
	}
	return own, network
}

func isIPv6(p netip.Prefix) bool { return !p.Addr().Is4() }

func (r *Router) source() rand.Source { return rand.NewPCG(r.rnd.Uint64(), r.rnd.Uint64()) }

func (r *Router) newClient(now time.Time, last netip.Addr) (*dhcp.Client, error) {
	return dhcp.NewClient(now, dhcp.ClientConfig{MAC: r.cfg.OutsideMAC, Last: last, Rand: r.source()})
}

// Handle handles an IP packet that came in from a side. link is the hardware
// address of its sender, zero where links have none. The packet is edited in
// place. A verdict of Forward to Local is for the router's own IP stack, which
// the driver has: sockets for UPnP and proxies. What that stack sends comes in
// from Local.
func (r *Router) Handle(now time.Time, from nat.Side, link MAC, pkt []byte, off nat.Offload) nat.Verdict {
	if len(pkt) >= ip4Header {
		toMany := false // for a group or for everyone: no such packet goes from one side to another
		if pkt[0]>>4 != 4 {
			toMany = len(pkt) >= ip6Header && pkt[24] == firstGroup6
		} else {
			if from == nat.Inside && r.server != nil && link != (MAC{}) {
				r.server.Seen(now, [4]byte(pkt[12:16]), link)
			}
			toMany = pkt[16] >= firstGroup
			if (from == nat.Inside && (toMany || [4]byte(pkt[16:20]) == r.inside) ||
				from == nat.Outside && pkt[9] == protoUDP && r.client != nil) && r.takes(now, from, link, pkt, off) {
				r.busy = true
				return nat.Verdict{Action: nat.Drop, Reason: nat.Kept}
			}
		}
		if toMany {
			return nat.Verdict{Action: nat.Drop, Reason: nat.BadAddress}
		}
	}
	if r.proxy != nil {
		return r.handleRedirected(now, from, pkt, off)
	}
	return r.nat.Handle(now, from, pkt, off)
}

// Poll takes the next packet that the router sends of its own accord. One to
// the IPv4 broadcast address, or to a group, is for everyone on that side.
func (r *Router) Poll() (nat.Out, bool) {
	if r.busy {
		if out, ok := r.pollServices(); ok {
			return out, true
		}
		r.busy = false
	}
	return r.nat.Poll()
}

func (r *Router) pollServices() (nat.Out, bool) {
	if r.server != nil {
		if pkt, ok := r.server.Poll(); ok {
			return nat.Out{To: nat.Inside, Packet: pkt}, true
		}
	}
	if r.client != nil {
		if pkt, ok := r.client.Poll(); ok {
			return nat.Out{To: nat.Outside, Packet: pkt}, true
		}
	}
	if r.ports != nil {
		if out, ok := r.ports.Poll(); ok {
			ttl := uint8(ip.DefaultTTL)
			if out.To.Addr().IsMulticast() {
				ttl = groupTTL
			}
			return nat.Out{To: nat.Inside, Packet: ip.AppendUDP(nil, out.From, out.To, ttl, out.Payload)}, true
		}
	}
	return nat.Out{}, false
}

// HandleTimeout does what is due.
func (r *Router) HandleTimeout(now time.Time) {
	r.nat.HandleTimeout(now)
	if r.server != nil {
		r.server.HandleTimeout(now)
	}
	if r.client != nil {
		r.client.HandleTimeout(now)
		r.heed(now)
	}
	if r.ports != nil {
		r.ports.HandleTimeout(now)
	}
	r.busy = true
}

// NextTimeout is when HandleTimeout has something to do.
func (r *Router) NextTimeout() (next time.Time, ok bool) {
	next, ok = r.nat.NextTimeout()
	sooner := func(t time.Time, is bool) {
		if is && (!ok || t.Before(next)) {
			next, ok = t, true
		}
	}
	if r.server != nil {
		sooner(r.server.NextTimeout())
	}
	if r.client != nil {
		sooner(r.client.NextTimeout())
	}
	if r.ports != nil {
		sooner(r.ports.NextTimeout())
	}
	return next, ok
}

// NAT is for looking at; it must not be driven past the router.
func (r *Router) NAT() *nat.Gateway { return r.nat }
