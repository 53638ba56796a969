package netns

import (
	"errors"
	"fmt"
	"net/netip"

	"golang.org/x/sys/unix"

	"github.com/bodkin-net/bodkin/internal/lab/scenario"
	"github.com/bodkin-net/bodkin/internal/machine/nat"
)

func probe() error {
	space, err := newNamespace()
	if errors.Is(err, unix.EPERM) {
		return fmt.Errorf("%w: the lab needs root, or: unshare --user --map-root-user", err)
	}
	if err != nil {
		return err
	}
	defer space.close()
	return space.own(func() error {
		if err := writeSysctls(baseSysctls); err != nil {
			return err
		}
		for _, iface := range []string{InsideInterface, OutsideInterface} {
			d, err := openDevice(&port{iface: iface, owner: &node{}}, false)
			if err != nil {
				return err
			}
			defer unix.Close(d.fd)
		}
		// A behaviour that uses every kind of rule.
		n := &node{
			gateway: &scenario.Gateway{NAT: nat.Behaviour{BlockUDP: true, Filtering: nat.AddressDependent, Hairpin: nat.HairpinExternalSource,
				Unsolicited: nat.Unsolicited{TCP: nat.Reset, Other: nat.Prohibited}}},
			ports: []*port{{}, {Port: scenario.Port{Addrs: []netip.Prefix{netip.MustParsePrefix("192.0.2.1/24")}}}},
		}
		if err := configureGateway(n); err != nil {
			return err
		}
		return forget()
	})
}
