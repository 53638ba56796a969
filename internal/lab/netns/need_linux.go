package netns

import (
	"errors"
	"fmt"
	"net/netip"

	"golang.org/x/sys/unix"

	"github.com/bodkin-net/bodkin/internal/lab/scenario"
	"github.com/bodkin-net/bodkin/internal/machine/nat"
)

// probe tries every part that labs are made of, so that all that is missing is
// said at once.
func probe() error {
	var missing []error
	lack := func(what string, err error, hint string) {
		if err != nil {
			missing = append(missing, fmt.Errorf("%s: %w (%s)", what, err, hint))
		}
	}
	lack("TUN devices", openTUN(), "root, or a /dev/net/tun that users may open; modprobe tun")
	space, err := newNamespace()
	if err != nil {
		lack("network namespaces", err, "root, or: unshare --user --map-root-user --mount")
		return errors.Join(missing...)
	}
	defer space.close()
	try := func(what, hint string, f func() error) { lack(what, space.own(f), hint) }
	try("settings of a namespace", "a writable /proc/sys/net", func() error { return errors.Join(writeSysctls(baseSysctls), allowPing()) })
	if len(missing) == 0 {
		try("interfaces", "CAP_NET_ADMIN in the namespace's user namespace", probeDevices)
	}
	try("veth pairs and bridges, for gateways of the kernel without delays", "modprobe veth bridge", probeKernelWire)
	try("nftables and conntrack, for gateways of the kernel", "modprobe nf_tables nft_ct nf_conntrack_netlink", probeRules)
	return errors.Join(missing...)
}

func openTUN() error {
	fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err == nil {
		unix.Close(fd)
	}
	return err
}

func probeDevices() error {
	for _, owner := range []*node{{}, {machine: true}} {
		d, err := openDevice(&port{iface: HostInterface, owner: owner}, false)
		if err != nil {
			return err
		}
		unix.Close(d.fd)
	}
	return nil
}

func probeKernelWire() error {
	here, err := unix.Open("/proc/thread-self/ns/net", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(here)
	n := &node{}
	n.ports = []*port{{owner: n, iface: HostInterface}}
	return joinByBridges(&plan{networks: []*segment{{name: "probe", ports: n.ports}}}, map[*node]*namespace{n: {fd: here}})
}

// probeRules uses every kind of rule.
func probeRules() error {
	n := &node{
		gateway: &scenario.Gateway{NAT: nat.Behaviour{BlockUDP: true, Filtering: nat.AddressDependent, Hairpin: nat.HairpinExternalSource,
			Unsolicited: nat.Unsolicited{TCP: nat.Reset, Other: nat.Prohibited}}},
		ports: []*port{{}, {Port: scenario.Port{Addrs: []netip.Prefix{netip.MustParsePrefix("192.0.2.1/24")}}}},
	}
	if err := configureGateway(n); err != nil {
		return err
	}
	return forget()
}
