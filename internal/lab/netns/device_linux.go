package netns

import (
	"fmt"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

const tunQueue = 4096 // packets that wait for this process

// openTUN makes a TUN device in the namespace of the calling thread. Packets on
// its descriptor have a virtio header in front, and may be as large as the
// kernel's segmentation offload makes them.
func openTUN(name string, mtu int) (int, error) {
	fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		return -1, fmt.Errorf("netns: /dev/net/tun: %w", err)
	}
	fail := func(what string, err error) (int, error) {
		unix.Close(fd)
		return -1, fmt.Errorf("netns: TUN %s: %s: %w", name, what, err)
	}
	req, err := unix.NewIfreq(name)
	if err != nil {
		return fail("name", err)
	}
	req.SetUint16(unix.IFF_TUN | unix.IFF_NO_PI | unix.IFF_VNET_HDR)
	if err := unix.IoctlIfreq(fd, unix.TUNSETIFF, req); err != nil {
		return fail("create", err)
	}
	offload := unix.TUN_F_CSUM | unix.TUN_F_TSO4 | unix.TUN_F_TSO6
	if err := unix.IoctlSetInt(fd, unix.TUNSETOFFLOAD, offload|unix.TUN_F_USO4|unix.TUN_F_USO6); err != nil {
		// Before Linux 6.2 there is no UDP segmentation here.
		if err := unix.IoctlSetInt(fd, unix.TUNSETOFFLOAD, offload); err != nil {
			return fail("offload", err)
		}
	}
	l, err := netlink.LinkByName(name)
	if err != nil {
		return fail("find", err)
	}
	if err := netlink.LinkSetTxQLen(l, tunQueue); err != nil {
		return fail("queue", err)
	}
	if err := netlink.LinkSetMTU(l, max(mtu, defaultMTU)); err != nil {
		return fail("MTU", err)
	}
	return fd, nil
}
