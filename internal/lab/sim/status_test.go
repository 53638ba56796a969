package sim

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/bodkin-net/bodkin/internal/lab/draw"
	"github.com/bodkin-net/bodkin/internal/lab/snapshot"
	"github.com/bodkin-net/bodkin/internal/machine/nat"
	"github.com/bodkin-net/bodkin/internal/machine/nat/ip"
)

// The status is the lab's of namespaces, so whatever draws that draws this.
func TestStatus(t *testing.T) {
	top := leasing(fullCone, nat.Behaviour{Hairpin: nat.HairpinExternalSource})
	top.Hosts[0].Firewall = &nat.Behaviour{Mode: nat.Firewall}
	inBubble(t, top, func(t *testing.T, n *Network) {
		configured(t, n)
		s, a := listenUDP(t, n.Host("s"), 1), listenUDP(t, n.Host("a"), 7)
		send(t, a, "192.0.2.1:1", "hello")
		expect(t, s, "hello", "203.0.113.50:7")
		n.Cut(Rule{A: addr("192.0.2.1"), Proto: ip.UDP})
		send(t, a, "192.0.2.1:1", "lost")
		expect(t, s, "", "")
		got := n.Status()

		host := got.Hosts[0]
		if host.Name != "a" || host.Lease == nil || host.Lease.Addr != ipv4(n, "a") || host.Firewall == nil || host.Firewall.Mappings != 1 ||
			host.Port.Addrs[0].String() != host.Lease.Addr.String()+"/24" || !host.Port.DHCP || host.Port.Sent.DroppedPackets != 0 {
			t.Errorf("host %+v", host)
		}
		if left := time.Until(host.Lease.Expires); left < 9*time.Minute || left > 10*time.Minute {
			t.Errorf("its lease is over in %v", left)
		}
		home, carrier := got.Gateways[0], got.Gateways[2]
		if len(home.Mappings) != 1 || home.Mappings[0].Internal.Addr() != host.Lease.Addr || len(home.Leases) != 2 || home.Leases[0].Host != "a" && home.Leases[1].Host != "a" {
			t.Errorf("home %+v", home)
		}
		if want := (snapshot.Count{Packets: 2, Bytes: 33 + 32, DroppedPackets: 1, DroppedBytes: 32}); carrier.Outside.Sent != want {
			t.Errorf("the carrier has sent %+v, want %+v", carrier.Outside.Sent, want)
		}
		if s := got.Hosts[3].Port; s.Received != (snapshot.Count{Packets: 1, Bytes: 33}) || s.Addrs[0].String() != "192.0.2.1/24" {
			t.Errorf("s %+v", s)
		}
		if len(got.Cuts) != 1 || got.Cuts[0] != (snapshot.Cut{A: addr("192.0.2.1"), Protocol: snapshot.UDP}) || len(got.Events) == 0 {
			t.Errorf("cuts %v, events %v", got.Cuts, got.Events)
		}
		var names []string
		for _, network := range got.Networks {
			names = append(names, fmt.Sprint(network.Name, network.Ports))
		}
		if want := []string{"home-a[ga/inside a b]", "isp[ga/outside gc/outside carrier/inside]", "home-c[gc/inside c]", "internet[carrier/outside s]"}; !slices.Equal(names, want) {
			t.Errorf("%q, want %q", names, want)
		}
		text := draw.Text(draw.Lab{Snapshot: got}, 100)
		for _, name := range []string{"carrier", "gc", "203.0.113.50", ipv4(n, "b").String()} {
			if !strings.Contains(text, name) {
				t.Errorf("%s is not in the drawing:\n%s", name, text)
			}
		}
	})
}
