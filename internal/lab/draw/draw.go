// Package draw shows a lab: as text for a terminal, as an SVG for people, as
// JSON for programs. Its functions are pure.
package draw

import (
	"cmp"
	"fmt"
	"net/netip"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"

	"github.com/bodkin-net/bodkin/internal/lab/scenario"
	"github.com/bodkin-net/bodkin/internal/lab/snapshot"
	"github.com/bodkin-net/bodkin/internal/machine/nat"
)

// Lab is what there is to show.
type Lab struct {
	Name  string
	Title string // what the topology calls itself; may be empty
	snapshot.Snapshot
}

// network is a network with what stands on it.
type network struct {
	name     string
	captured bool
	hosts    []snapshot.Host
	gateways []snapshot.Gateway // whose outside is here
	prefixes []netip.Prefix
}

func (l Lab) network(name string) network {
	n := network{name: name}
	for _, s := range l.Networks {
		n.captured = n.captured || s.Name == name && s.Capture != ""
	}
	add := func(p snapshot.Port) bool {
		if p.Network != name {
			return false
		}
		for _, a := range p.Addrs {
			if m := a.Masked(); !slices.Contains(n.prefixes, m) {
				n.prefixes = append(n.prefixes, m)
			}
		}
		return true
	}
	for _, g := range l.Gateways {
		add(g.Inside)
		if g.DMZ != nil {
			add(*g.DMZ)
		}
		if add(g.Outside) {
			n.gateways = append(n.gateways, g)
		}
	}
	for _, h := range l.Hosts {
		if add(h.Port) {
			n.hosts = append(n.hosts, h)
		}
	}
	slices.SortFunc(n.prefixes, comparePrefixes)
	return n
}

func comparePrefixes(a, b netip.Prefix) int {
	return cmp.Or(a.Addr().Compare(b.Addr()), cmp.Compare(a.Bits(), b.Bits()))
}

// clean makes a text that came from elsewhere safe for a terminal.
func clean(s string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) {
			return r
		}
		return unicode.ReplacementChar
	}, s)
}

// linkWords says what a link does; nothing if it is ideal.
func linkWords(l scenario.Link) string {
	var parts []string
	add := func(yes bool, format string, args ...any) {
		if yes {
			parts = append(parts, fmt.Sprintf(format, args...))
		}
	}
	switch {
	case l.Jitter > 0:
		add(true, "%s+%s", span(l.Delay), span(l.Jitter))
	case l.Delay > 0:
		add(true, "%s", span(l.Delay))
	}
	add(l.Loss > 0, "loss %s", percent(l.Loss))
	add(l.Reorder > 0, "reorder %s", percent(l.Reorder))
	add(l.Repeat > 0, "duplicate %s", percent(l.Repeat))
	add(l.Rate > 0, "%sbit/s", metric(l.Rate))
	add(l.MTU > 0 && l.MTU != 1500, "MTU %d", l.MTU)
	return strings.Join(parts, ", ")
}

func percent(share float64) string { return fmt.Sprintf("%.4g%%", share*100) }

// metric is a number with at most three digits and a prefix.
func metric[N int | int64 | uint64](n N) string {
	const units = " kMGTPE"
	f, unit := float64(n), 0
	for f >= 999.5 && unit < len(units)-1 {
		f /= 1000
		unit++
	}
	switch {
	case unit == 0:
		return fmt.Sprintf("%d ", n)
	case f < 9.95:
		return strings.TrimSuffix(fmt.Sprintf("%.1f", f), ".0") + " " + units[unit:unit+1]
	}
	return fmt.Sprintf("%.0f %c", f, units[unit])
}

func traffic(c snapshot.Count) string {
	if c.Packets == 0 {
		return "0"
	}
	return fmt.Sprintf("%s/%sB", strings.ReplaceAll(metric(c.Packets), " ", ""), strings.ReplaceAll(metric(c.Bytes), " ", ""))
}

// lost are the packets to and from a port that did not arrive.
func lost(p snapshot.Port) uint64 { return p.Sent.DroppedPackets + p.Received.DroppedPackets }

// behaviour is the name of a preset, or what is most important.
func behaviour(g snapshot.Gateway) string {
	b := g.NAT
	for _, p := range nat.Presets() {
		if reflect.DeepEqual(p.Behaviour, b) {
			return p.Name
		}
	}
	switch b.Mode {
	case nat.Open:
		return "router"
	case nat.Firewall:
		return fmt.Sprintf("firewall, %v filtering", b.Filtering)
	}
	return fmt.Sprintf("NAT, %v mapping, %v filtering", b.Mapping, b.Filtering)
}

// dropped are the packets that a gateway did not let pass, by reason.
func dropped(s nat.Stats) (sum uint64, reasons []string) {
	for i, n := range s.Dropped {
		if n > 0 && nat.Reason(i) != nat.Kept {
			sum += n
			reasons = append(reasons, fmt.Sprintf("%s %d", nat.Reason(i), n))
		}
	}
	return sum, reasons
}

// mappings are those of a gateway in the order of their endpoints.
func mappings(g snapshot.Gateway) []nat.Mapping {
	all := slices.Clone(g.Mappings)
	slices.SortFunc(all, func(a, b nat.Mapping) int {
		return cmp.Or(cmp.Compare(a.Proto, b.Proto), a.Internal.Compare(b.Internal), a.External.Compare(b.External), a.Remote.Compare(b.Remote))
	})
	for i := range all {
		all[i].Sessions = slices.Clone(all[i].Sessions)
		slices.SortFunc(all[i].Sessions, func(a, b nat.Session) int { return cmp.Or(a.Remote.Compare(b.Remote), a.Expires.Compare(b.Expires)) })
	}
	return all
}

// remote is who may use a session.
func remote(a netip.AddrPort) string {
	switch {
	case !a.IsValid():
		return "anyone"
	case a.Port() == 0:
		return a.Addr().String() + ":*"
	}
	return a.String()
}

// admitted is who may come in by a mapping, and what is left of it: a row for
// each remote.
func admitted(now time.Time, m nat.Mapping) (rows [][2]string) {
	if m.Explicit {
		until := "for ever"
		if !m.Until.IsZero() {
			until = left(now, m.Until)
		}
		for _, who := range requested(m.Remotes) {
			rows = append(rows, [2]string{who + ", on request", until})
		}
	}
	for _, s := range m.Sessions {
		state := left(now, s.Expires)
		if s.Established {
			state = strings.TrimSpace(state + " established")
		}
		rows = append(rows, [2]string{remote(s.Remote), state})
	}
	return rows
}

// requested are those who may come in by a mapping that was asked for.
func requested(remotes []nat.Remotes) (all []string) {
	for _, r := range remotes {
		who, port := "any address", "*"
		if r.Prefix.IsValid() {
			if who = r.Prefix.String(); r.Prefix.IsSingleIP() {
				who = r.Prefix.Addr().String()
			}
		}
		if r.Port != 0 {
			port = strconv.Itoa(int(r.Port))
		}
		all = append(all, who+":"+port)
	}
	if len(all) == 0 {
		return []string{"anyone"}
	}
	return all
}

// left is how long something still lives.
func left(now, until time.Time) string {
	if until.IsZero() {
		return ""
	}
	d := until.Sub(now)
	switch {
	case d <= 0:
		return "0s"
	case d < 10*time.Second:
		return d.Round(100 * time.Millisecond).String()
	}
	return span(d.Round(time.Second))
}

// span is a time without the zeros that Duration.String writes behind it.
func span(d time.Duration) string {
	s := d.String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}

func count(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

// cutWords are the cuts, each once.
func (l Lab) cutWords() (all []string) {
	name := map[netip.Addr]string{}
	for _, h := range l.Hosts {
		for _, a := range h.Port.Addrs {
			name[a.Addr()] = h.Name
		}
	}
	for _, g := range l.Gateways {
		for _, a := range g.Outside.Addrs {
			name[a.Addr()] = g.Name
		}
	}
	end := func(a netip.Addr) string {
		switch {
		case !a.IsValid():
			return "everything"
		case name[a] != "":
			return fmt.Sprintf("%s (%v)", clean(name[a]), a)
		}
		return a.String()
	}
	for _, c := range l.Cuts {
		text := end(c.A) + " from " + end(c.B)
		if c.Protocol != snapshot.AnyProtocol {
			text += ", " + protocolName(c.Protocol) + " only"
		}
		all = append(all, text)
	}
	return all
}

func protocolName(p snapshot.Protocol) string {
	switch p {
	case snapshot.AnyProtocol:
		return ""
	case snapshot.ICMP:
		return "icmp"
	case snapshot.TCP:
		return "tcp"
	case snapshot.UDP:
		return "udp"
	case snapshot.ICMPv6:
		return "icmpv6"
	}
	return fmt.Sprintf("protocol %d", p)
}
