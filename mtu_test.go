package bodkin_test

import (
	"testing"

	"github.com/bodkin-net/bodkin"
	"github.com/bodkin-net/bodkin/internal/lab/scenario"
)

// On an access link that drops what is larger than 1,150 bytes without a word,
// registrations and small checks get through, and neither QUIC nor a full-size
// check does: no such path may be taken, and the stream relay carries.
func TestSmallPacketsOnly(t *testing.T) {
	top := scenario.TwoHomes(scenario.PortRestricted, scenario.PortRestricted)
	top.Gateways[0].Outside.Link.MTU = 1150
	pair(t, top, nil, func(t *testing.T, w *world, ca, cb *bodkin.Conn) {
		exchange(t, ca, cb, 100_000)
		exchange(t, cb, ca, 100_000)
		want := scenario.Outcome{Kind: "relay", Transport: "tcp", Technique: "relay", To: scenario.ServerAddr}
		checkOutcome(t, outcome(t, ca, want), want)
	})
}

// Two hosts without any IPv4.
func TestIPv6Only(t *testing.T) {
	top := scenario.DualStack(scenario.PortRestricted, scenario.PortRestricted)
	for i := range top.Hosts {
		top.Hosts[i].Port.Addrs = top.Hosts[i].Port.Addrs[1:]
	}
	for i := range top.Gateways {
		top.Gateways[i].Inside.Addrs = top.Gateways[i].Inside.Addrs[1:]
		top.Gateways[i].Outside.Addrs = top.Gateways[i].Outside.Addrs[1:]
	}
	server := func(c *bodkin.Config) { c.Server = testKey("server").ID().String() + "@[2001:db8::1]" }
	virtual(t, top, 1, func(t *testing.T, w *world) {
		a, b := w.node("a", server), w.node("b", server)
		defer a.Close()
		defer b.Close()
		ca, cb := connect(t, a, b)
		exchange(t, ca, cb, 100_000)
		want := scenario.Outcome{Kind: "direct", Transport: "udp", Technique: "udp-ipv6"}
		checkOutcome(t, outcome(t, ca, want), want)
		exchange(t, cb, ca, 100_000)
	})
}
