package netns

import (
	"encoding/binary"
	"net/netip"
	"testing"
)

// Forged sources make no counter each for ever, and no packet goes uncounted.
func TestFlowsAreBounded(t *testing.T) {
	n := &network{name: "home", flows: map[Flow]*Count{}}
	dst := netip.MustParseAddr("198.51.100.1")
	const sent = 3 * maxFlows
	for i := range uint32(sent) {
		var src [4]byte
		binary.BigEndian.PutUint32(src[:], i)
		n.flow(Flow{n.name, netip.AddrFrom4(src), dst, UDP}).Add(1, 100)
	}
	n.flow(Flow{n.name, dst, netip.AddrFrom4([4]byte{}), UDP}).Add(1, 100)
	if len(n.flows) > maxFlows+256 {
		t.Errorf("%d flows are remembered", len(n.flows))
	}
	all := Counters{}
	for f, c := range n.flows {
		all[f] = *c
	}
	if got := all.Sum(Flow{Network: "home", Protocol: UDP}); got.Packets != sent+1 {
		t.Errorf("%d packets counted, %d sent", got.Packets, sent+1)
	}
}
