package netns

import (
	"fmt"

	"github.com/vishvananda/netlink"
)

// kernelWire joins the nodes by veth pairs whose other ends stand on bridges,
// one per network, in a namespace of their own.
func kernelWire(p *plan, hub *namespace, spaces map[*node]*namespace) error {
	return hub.own(func() error { return joinByBridges(p, spaces) })
}

// joinByBridges works in the namespace of the calling thread.
func joinByBridges(p *plan, spaces map[*node]*namespace) error {
	pair := 0
	for i, s := range p.networks {
		bridge := &netlink.Bridge{LinkAttrs: netlink.NewLinkAttrs()}
		bridge.Name = fmt.Sprintf("net%d", i)
		if err := netlink.LinkAdd(bridge); err != nil {
			return fmt.Errorf("netns: bridge for network %q: %w", s.name, err)
		}
		if err := setUp(bridge.Name); err != nil {
			return err
		}
		for _, q := range s.ports {
			veth := netlink.NewVeth(netlink.NewLinkAttrs())
			veth.Name = fmt.Sprintf("port%d", pair)
			veth.MasterIndex = bridge.Index
			veth.PeerName = q.iface
			hw := q.hardware()
			veth.PeerHardwareAddr = hw[:]
			veth.PeerNamespace = netlink.NsFd(spaces[q.owner].fd)
			pair++
			if err := netlink.LinkAdd(veth); err != nil {
				return fmt.Errorf("netns: veth for %s: %w", q.owner.name, err)
			}
			if err := setUp(veth.Name); err != nil {
				return err
			}
		}
	}
	return nil
}
