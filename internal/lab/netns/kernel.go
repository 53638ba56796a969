package netns

import (
	"fmt"
	"net/netip"
	"reflect"
	"strings"
	"time"

	"github.com/bodkin-net/bodkin/internal/lab/scenario"
	"github.com/bodkin-net/bodkin/internal/machine/nat"
)

// CheckKernel refuses, with a *scenario.Fault, a gateway that is to be the
// kernel's and does what nftables cannot.
func CheckKernel(t scenario.Topology) error {
	for i := range t.Gateways {
		if g := &t.Gateways[i]; g.Kernel {
			if f := cannot(g); f != nil {
				return f
			}
		}
	}
	return nil
}

// cannot says what of a gateway nftables has no words for here; nil: nothing.
func cannot(g *scenario.Gateway) *scenario.Fault {
	b := g.NAT
	fault := func(field, why string) *scenario.Fault {
		return &scenario.Fault{Path: "gateways." + g.Name + "." + field, What: "the kernel's nftables cannot do that" + why}
	}
	for _, t := range []struct {
		field string
		time.Duration
	}{{"udp", b.Timers.UDP}, {"udp-unanswered", b.Timers.UDPUnanswered}} {
		if t.Duration%time.Second != 0 {
			return fault("nat.timers."+t.field, fmt.Sprintf(": conntrack counts whole seconds, and %v is none", t.Duration))
		}
	}
	if field := wordless(b); field != "" && !isLinux(b) {
		return fault("nat."+field, "")
	}
	for _, f := range []struct {
		field string
		used  bool
	}{
		{"dmz", g.DMZ != nil},
		{"static", len(g.Static) > 0},
		{"dhcp", g.DHCP != nil},
		{"port-mapping", !reflect.ValueOf(g.PortMap).IsZero()},
		{"proxy", g.Proxy != (scenario.Proxy{})},
		{"max-mappings", g.MaxMappings != 0},
	} {
		if f.used {
			return fault(f.field, "")
		}
	}
	switch {
	case g.Outside.DHCP:
		return fault("outside", ": it gets no address by DHCP")
	case count(g.Outside.Addrs, true) > 1:
		return fault("outside.address", ": it translates to one address")
	}
	return nil
}

// isLinux says whether b is what Linux does by itself: the preset of that name,
// but for the timeouts that it can be told.
func isLinux(b nat.Behaviour) bool {
	linux, _ := nat.PresetByName("linux")
	linux.Timers.UDP, linux.Timers.UDPUnanswered, linux.Timers.Established = b.Timers.UDP, b.Timers.UDPUnanswered, b.Timers.Established
	return reflect.DeepEqual(b, linux)
}

// wordless is the first field of b that has no words in nftables; empty: there
// is none.
func wordless(b nat.Behaviour) string {
	switch {
	case b.Mapping > nat.AddressAndPortDependent:
		return "mapping"
	case b.Filtering > nat.AddressAndPortDependent:
		return "filtering"
	case b.Hairpin > nat.HairpinExternalSource:
		return "hairpin"
	case b.Unsolicited.Other == nat.Reset:
		return "unsolicited.other"
	}
	switch b.Ports.Allocation {
	case nat.PreserveNext, nat.Sequential, nat.Random:
	default:
		return "ports.allocation"
	}
	known := nat.Behaviour{
		Mode: b.Mode, Mapping: b.Mapping, Filtering: b.Filtering, Hairpin: b.Hairpin, BlockUDP: b.BlockUDP,
		Ports:       nat.Ports{Allocation: b.Ports.Allocation},
		Timers:      nat.Timers{UDP: b.Timers.UDP, UDPUnanswered: b.Timers.UDPUnanswered},
		Unsolicited: nat.Unsolicited{TCP: b.Unsolicited.TCP, Other: b.Unsolicited.Other},
	}
	return difference(reflect.ValueOf(b), reflect.ValueOf(known))
}

// difference is the first field, in the words of files, in which two structs of
// a type are not the same; empty: there is none.
func difference(a, b reflect.Value) string {
	for i := range a.NumField() {
		name, _, _ := strings.Cut(a.Type().Field(i).Tag.Get("yaml"), ",")
		a, b := a.Field(i), b.Field(i)
		if reflect.DeepEqual(a.Interface(), b.Interface()) {
			continue
		}
		if a.Kind() == reflect.Struct {
			return name + "." + difference(a, b)
		}
		return name
	}
	return ""
}

// count is how many addresses of a family there are.
func count(addrs []netip.Prefix, v4 bool) (n int) {
	for _, a := range addrs {
		if a.Addr().Is4() == v4 {
			n++
		}
	}
	return n
}
