// Package router is the box that people buy, as a pure state machine: a
// gateway, a DHCP server for its inside, a DHCP client on its outside, and the
// port mapping protocols, in one. The simulator and the lab drive it.
package router

import (
	"time"

	"github.com/bodkin-net/bodkin/internal/machine/nat"
)

// MAC is the hardware address of a network interface.
type MAC [6]byte

// Config is a router's behaviour and addresses.
type Config struct {
	NAT nat.Config
}

// Router is the machine. It is not safe for concurrent use.
type Router struct {
	nat *nat.Gateway
}

// New refuses what no router can be.
func New(now time.Time, cfg Config) (*Router, error) {
	g, err := nat.New(cfg.NAT)
	if err != nil {
		return nil, err
	}
	return &Router{nat: g}, nil
}

// Handle handles an IP packet that came in from a side. link is the hardware
// address of its sender, zero where links have none. The packet is edited in
// place. A verdict of Forward to Local is for the router's own IP stack, which
// the driver has: sockets for UPnP and proxies. What that stack sends comes in
// from Local.
func (r *Router) Handle(now time.Time, from nat.Side, link MAC, pkt []byte, off nat.Offload) nat.Verdict {
	return r.nat.Handle(now, from, pkt, off)
}

// Poll takes the next packet that the router sends of its own accord. One to
// the IPv4 broadcast address is for everyone on that side.
func (r *Router) Poll() (nat.Out, bool) { return r.nat.Poll() }

// HandleTimeout does what is due. NextTimeout is when.
func (r *Router) HandleTimeout(now time.Time)    { r.nat.HandleTimeout(now) }
func (r *Router) NextTimeout() (time.Time, bool) { return r.nat.NextTimeout() }

// Reset forgets what a reboot forgets: mappings, but not leases.
func (r *Router) Reset(now time.Time) { r.nat.Reset() }

// NAT is for looking at; it must not be driven past the router.
func (r *Router) NAT() *nat.Gateway { return r.nat }
