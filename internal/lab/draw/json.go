package draw

import (
	"encoding/json"
	"net/netip"
	"time"

	"github.com/bodkin-net/bodkin/internal/lab/scenario"
	"github.com/bodkin-net/bodkin/internal/lab/snapshot"
	"github.com/bodkin-net/bodkin/internal/machine/nat"
)

// The JSON form is for programs of others: fields may come, none changes its
// meaning or goes.

type jsonLab struct {
	Lab      string        `json:"lab"`
	Title    string        `json:"title,omitempty"`
	Time     time.Time     `json:"time"`
	Networks []jsonNetwork `json:"networks"`
	Hosts    []jsonHost    `json:"hosts"`
	Gateways []jsonGateway `json:"gateways"`
	Cuts     []jsonCut     `json:"cuts"`
	Events   []jsonEvent   `json:"events"`
}

type jsonNetwork struct {
	Name     string         `json:"name"`
	Prefixes []netip.Prefix `json:"prefixes"`
	Ports    []string       `json:"ports"`
	Captured bool           `json:"captured"`
}

type jsonHost struct {
	Name  string     `json:"name"`
	Port  jsonPort   `json:"port"`
	Lease *jsonLease `json:"lease,omitempty"`
}

type jsonPort struct {
	Name      string         `json:"name"`
	Network   string         `json:"network"`
	Interface string         `json:"interface"`
	Hardware  string         `json:"hardware"`
	Addresses []netip.Prefix `json:"addresses"`
	DHCP      bool           `json:"dhcp"`
	Link      jsonLink       `json:"link"`
	Sent      jsonCount      `json:"sent"`
	Received  jsonCount      `json:"received"`
}

type jsonLink struct {
	DelayMS   float64 `json:"delay_ms"`
	JitterMS  float64 `json:"jitter_ms"`
	Loss      float64 `json:"loss"`
	Reorder   float64 `json:"reorder"`
	Duplicate float64 `json:"duplicate"`
	Rate      int64   `json:"rate"` // bit/s; 0 is unlimited
	MTU       int     `json:"mtu"`
}

type jsonCount struct {
	Packets        uint64 `json:"packets"`
	Bytes          uint64 `json:"bytes"`
	DroppedPackets uint64 `json:"dropped_packets"`
	DroppedBytes   uint64 `json:"dropped_bytes"`
}

type jsonGateway struct {
	Name       string            `json:"name"`
	Kernel     bool              `json:"kernel"`
	Behaviour  string            `json:"behaviour"` // the name of a preset, or words
	Mode       nat.Mode          `json:"mode"`
	Mapping    nat.Dependence    `json:"mapping"`
	Filtering  nat.Dependence    `json:"filtering"`
	Hairpin    nat.Hairpin       `json:"hairpin"`
	UDPBlocked bool              `json:"udp_blocked"`
	Outside    jsonPort          `json:"outside"`
	Inside     jsonPort          `json:"inside"`
	DMZ        *jsonPort         `json:"dmz,omitempty"`
	Forwarded  uint64            `json:"forwarded"`
	Hairpinned uint64            `json:"hairpinned"`
	Dropped    map[string]uint64 `json:"dropped"`
	// The numbers of all, also of those that are not listed.
	MappingCount int           `json:"mapping_count"`
	SessionCount int           `json:"session_count"`
	Mappings     []jsonMapping `json:"mappings"`
	Leases       []jsonLease   `json:"leases"`
}

type jsonMapping struct {
	Protocol string          `json:"protocol"`
	Internal netip.AddrPort  `json:"internal"`
	External netip.AddrPort  `json:"external"`
	Remote   *netip.AddrPort `json:"remote,omitempty"` // that the mapping is for
	// Explicit mappings were asked for, by a port mapping protocol.
	Explicit bool          `json:"explicit"`
	Until    *time.Time    `json:"until,omitempty"`
	Admits   []jsonRemotes `json:"admits,omitempty"` // by an explicit mapping; none: anyone
	Sessions []jsonSession `json:"sessions"`
}

type jsonRemotes struct {
	Prefix *netip.Prefix `json:"prefix,omitempty"` // none: any address
	Port   uint16        `json:"port,omitempty"`   // none: any port
}

type jsonSession struct {
	Remote      *netip.AddrPort `json:"remote,omitempty"` // none: anyone; port 0: any port
	Expires     *time.Time      `json:"expires,omitempty"`
	Established bool            `json:"established"`
}

type jsonLease struct {
	Address  netip.Addr `json:"address"`
	Hardware string     `json:"hardware"`
	Port     string     `json:"port,omitempty"`
	Expires  *time.Time `json:"expires,omitempty"`
}

type jsonCut struct {
	A        *netip.Addr `json:"a"` // null: any
	B        *netip.Addr `json:"b"`
	Protocol string      `json:"protocol,omitempty"`
}

type jsonEvent struct {
	Time time.Time `json:"time"`
	Name string    `json:"name"`
	Text string    `json:"text"`
}

// MarshalJSON is what `bodkin lab status --json` prints.
func (l Lab) MarshalJSON() ([]byte, error) {
	j := jsonLab{Lab: l.Name, Title: l.Title, Time: l.Time,
		Networks: []jsonNetwork{}, Hosts: []jsonHost{}, Gateways: []jsonGateway{}, Cuts: []jsonCut{}, Events: []jsonEvent{}}
	for _, s := range l.Networks {
		n := l.network(s.Name)
		j.Networks = append(j.Networks, jsonNetwork{s.Name, some(n.prefixes), some(s.Ports), n.captured})
	}
	for _, h := range l.Hosts {
		host := jsonHost{Name: h.Name, Port: toPort(h.Port)}
		if h.Lease != nil {
			lease := toLease(*h.Lease)
			host.Lease = &lease
		}
		j.Hosts = append(j.Hosts, host)
	}
	for _, g := range l.Gateways {
		j.Gateways = append(j.Gateways, toGateway(g))
	}
	for _, c := range l.Cuts {
		j.Cuts = append(j.Cuts, jsonCut{validAddr(c.A), validAddr(c.B), protocolName(c.Protocol)})
	}
	for _, e := range l.Events {
		j.Events = append(j.Events, jsonEvent(e))
	}
	return json.Marshal(j)
}

func toGateway(g snapshot.Gateway) jsonGateway {
	j := jsonGateway{
		Name: g.Name, Kernel: g.Kernel, Behaviour: behaviour(g), UDPBlocked: g.UDPBlocked,
		Mode: g.NAT.Mode, Mapping: g.NAT.Mapping, Filtering: g.NAT.Filtering, Hairpin: g.NAT.Hairpin,
		Outside: toPort(g.Outside), Inside: toPort(g.Inside),
		Forwarded: g.Stats.Forwarded, Hairpinned: g.Stats.Hairpinned, Dropped: map[string]uint64{},
		MappingCount: g.Stats.Mappings, SessionCount: g.Stats.Sessions,
		Mappings: []jsonMapping{}, Leases: []jsonLease{},
	}
	if g.DMZ != nil {
		dmz := toPort(*g.DMZ)
		j.DMZ = &dmz
	}
	for i, n := range g.Stats.Dropped {
		if n > 0 && nat.Reason(i) != nat.Kept {
			j.Dropped[nat.Reason(i).String()] = n
		}
	}
	for _, m := range mappings(g) {
		out := jsonMapping{Protocol: m.Proto.String(), Internal: m.Internal, External: m.External, Remote: validEndpoint(m.Remote),
			Explicit: m.Explicit, Until: validTime(m.Until), Sessions: []jsonSession{}}
		for _, r := range m.Remotes {
			admitted := jsonRemotes{Port: r.Port}
			if r.Prefix.IsValid() {
				admitted.Prefix = &r.Prefix
			}
			out.Admits = append(out.Admits, admitted)
		}
		for _, s := range m.Sessions {
			out.Sessions = append(out.Sessions, jsonSession{validEndpoint(s.Remote), validTime(s.Expires), s.Established})
		}
		j.Mappings = append(j.Mappings, out)
	}
	for _, l := range g.Leases {
		j.Leases = append(j.Leases, toLease(l))
	}
	return j
}

func toPort(p snapshot.Port) jsonPort {
	return jsonPort{Name: p.Name, Network: p.Network, Interface: p.Interface, Hardware: hardware(p.Hardware),
		Addresses: some(p.Addrs), DHCP: p.DHCP, Link: toLink(p.Link), Sent: jsonCount(p.Sent), Received: jsonCount(p.Received)}
}

func toLink(l scenario.Link) jsonLink {
	ms := func(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }
	mtu := l.MTU
	if mtu == 0 {
		mtu = 1500
	}
	return jsonLink{ms(l.Delay), ms(l.Jitter), l.Loss, l.Reorder, l.Repeat, l.Rate, mtu}
}

func toLease(l snapshot.Lease) jsonLease {
	return jsonLease{l.Addr, hardware(l.Hardware), l.Host, validTime(l.Expires)}
}

// some is a list that is [] in JSON when it is empty, never null.
func some[T any](list []T) []T {
	if list == nil {
		return []T{}
	}
	return list
}

func validAddr(a netip.Addr) *netip.Addr {
	if !a.IsValid() {
		return nil
	}
	return &a
}

func validEndpoint(a netip.AddrPort) *netip.AddrPort {
	if !a.IsValid() {
		return nil
	}
	return &a
}

func validTime(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	return &t
}
