package router

import (
	"fmt"
	"net/netip"
	"time"

	"github.com/bodkin-net/bodkin/internal/machine/dhcp"
	"github.com/bodkin-net/bodkin/internal/machine/nat"
	"github.com/bodkin-net/bodkin/internal/machine/portmap"
)

// EventKind is whose event it is.
type EventKind uint8

const (
	Leasing        EventKind = iota // of the DHCP server: DHCP
	PortMapping                     // PortMap
	OutsideAddress                  // Outside is another one than before
)

// Event is something to tell an operator.
type Event struct {
	Kind    EventKind
	DHCP    dhcp.Event
	PortMap portmap.Event
	Outside netip.Addr // invalid: there is none now
	Grant   dhcp.Grant // that Outside comes from, or came from; zero: not from DHCP
	Why     string     // there is none
}

func (e Event) String() string {
	switch e.Kind {
	case Leasing:
		return "dhcp: " + e.DHCP.String()
	case PortMapping:
		l := e.PortMap.Lease
		return fmt.Sprintf("port mapping %v: %v %v %v to %v", e.PortMap.Change, l.By, l.Proto, l.External, l.Internal)
	}
	if e.Outside.IsValid() {
		return fmt.Sprintf("outside address %v", e.Outside)
	}
	return "no outside address: " + e.Why
}

// maxEvents bounds those that nobody takes: the oldest are forgotten.
const maxEvents = 256

func (r *Router) say(e Event) {
	if len(r.events) == maxEvents {
		r.events = append(r.events[:0], r.events[1:]...)
	}
	r.events = append(r.events, e)
}

// Event takes the next event.
func (r *Router) Event() (Event, bool) {
	if len(r.events) > 0 {
		e := r.events[0]
		if r.events = r.events[1:]; len(r.events) == 0 {
			r.events = nil
		}
		return e, true
	}
	if r.server != nil {
		if e, ok := r.server.Event(); ok {
			return Event{Kind: Leasing, DHCP: e}, true
		}
	}
	if r.ports != nil {
		if e, ok := r.ports.Event(); ok {
			return Event{Kind: PortMapping, PortMap: e}, true
		}
	}
	return Event{}, false
}

// HTTP answers a request to UPnP's port of the router, which the driver has a
// socket for.
func (r *Router) HTTP(now time.Time, q portmap.HTTPRequest) portmap.Response {
	if r.ports == nil {
		return portmap.Response{Status: 404}
	}
	answer := r.ports.HTTP(now, q)
	r.busy = true
	return answer
}

// Mappings are those of the NAT. Of those that clients have asked for, their
// leases say until when: the NAT keeps them until it is told otherwise.
func (r *Router) Mappings(now time.Time) []nat.Mapping {
	leases := r.PortMappings(now) // first, for some may be over
	all := r.nat.Mappings(now)
	for i := range all {
		if m := &all[i]; m.Explicit && m.Until.IsZero() {
			m.Until = until(leases, m)
		}
	}
	return all
}

// until is when the last of the leases that share a mapping is over; zero if
// one never is.
func until(leases []portmap.Lease, m *nat.Mapping) (last time.Time) {
	for _, l := range leases {
		if !l.Open || l.Proto != m.Proto || l.External != m.External || l.Internal != m.Internal {
			continue
		}
		switch t := l.Closes(); {
		case t.IsZero():
			return t
		case t.After(last):
			last = t
		}
	}
	return last
}

// PortMappings are what clients were told that they have.
func (r *Router) PortMappings(now time.Time) []portmap.Lease {
	if r.ports == nil {
		return nil
	}
	return r.ports.Leases(now)
}
