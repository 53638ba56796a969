package netns

import (
	"encoding/binary"
	"fmt"
	"unsafe"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// deviceQueue is how many packets wait for this process.
const deviceQueue = 4096

// device is a TAP device, whose packets are Ethernet frames, or the TUN device
// of a gateway's own stack. Packets on its descriptor have a virtio header in
// front, and may be as large as the kernel's segmentation offload makes them.
type device struct {
	fd      int
	tun     bool
	joins   bool // takes several datagrams as one, and passes none of them on
	joined  [joinedFlows]joined
	flows   int       // of joined, in use
	port    *wirePort // of a TAP
	gateway *gateway  // of a TUN
}

// openDevice makes a device in the namespace of the calling thread.
func openDevice(q *port, plain bool) (*device, error) {
	d := &device{tun: q.owner.machine}
	mode := unix.IFF_TAP
	if d.tun {
		mode = unix.IFF_TUN
	}
	fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, fmt.Errorf("netns: /dev/net/tun: %w", err)
	}
	d.fd = fd
	if err := d.setUp(q, mode, plain); err != nil {
		unix.Close(fd)
		return nil, err
	}
	return d, nil
}

func (d *device) setUp(q *port, mode int, plain bool) error {
	fail := func(what string, err error) error {
		return fmt.Errorf("netns: interface %s: %s: %w", q.iface, what, err)
	}
	req, err := unix.NewIfreq(q.iface)
	if err != nil {
		return fail("name", err)
	}
	req.SetUint16(uint16(mode | unix.IFF_NO_PI | unix.IFF_VNET_HDR))
	if err := unix.IoctlIfreq(d.fd, unix.TUNSETIFF, req); err != nil {
		return fail("create", err)
	}
	if err := d.offload(plain); err != nil {
		return fail("offload", err)
	}
	// A kernel that forwards decides about what was joined as about one packet.
	d.joins = d.joins && (q.owner.gateway == nil || q.owner.machine)
	l, err := netlink.LinkByName(q.iface)
	if err != nil {
		return fail("find", err)
	}
	if !d.tun {
		hw := q.hardware()
		if err := netlink.LinkSetHardwareAddr(l, hw[:]); err != nil {
			return fail("hardware address", err)
		}
	} else if err := netlink.LinkSetMulticastOff(l); err != nil {
		return fail("multicast off", err)
	}
	if err := netlink.LinkSetTxQLen(l, deviceQueue); err != nil {
		return fail("queue", err)
	}
	// What the queue does is the wire's to do.
	none := &netlink.GenericQdisc{QdiscAttrs: netlink.QdiscAttrs{LinkIndex: l.Attrs().Index, Parent: netlink.HANDLE_ROOT}, QdiscType: "noqueue"}
	if err := netlink.QdiscReplace(none); err != nil {
		return fail("no queue", err)
	}
	if err := netlink.LinkSetMTU(l, q.linkMTU()); err != nil {
		return fail("MTU", err)
	}
	return nil
}

// close leaves the interface to the end of its namespace, which takes all of
// them at once; here each would take its time.
func (d *device) close() {
	unix.IoctlSetInt(d.fd, unix.TUNSETPERSIST, 1)
	unix.Close(d.fd)
}

// offload tells the kernel what it may leave to this process.
func (d *device) offload(plain bool) error {
	if plain {
		return unix.IoctlSetInt(d.fd, unix.TUNSETOFFLOAD, 0)
	}
	offload := unix.TUN_F_CSUM | unix.TUN_F_TSO4 | unix.TUN_F_TSO6
	if unix.IoctlSetInt(d.fd, unix.TUNSETOFFLOAD, offload|unix.TUN_F_USO4|unix.TUN_F_USO6) == nil {
		d.joins = true
		return nil
	}
	// Before Linux 6.2 there is no UDP segmentation here.
	return unix.IoctlSetInt(d.fd, unix.TUNSETOFFLOAD, offload)
}

// read reads a packet into buf and brings its headers to their places.
func (d *device) read(buf []byte) (n int, ok bool) {
	at := 0
	if d.tun {
		at = etherLen
	}
	got, _, errno := unix.RawSyscall(unix.SYS_READ, uintptr(d.fd), uintptr(unsafe.Pointer(&buf[at])), uintptr(len(buf)-at))
	if errno != 0 || at+int(got) < room {
		return 0, false
	}
	if d.tun {
		copy(buf[:vnetLen], buf[etherLen:room])
		clear(buf[vnetLen:room])
	} else {
		shift(buf, -etherLen)
	}
	return at + int(got), true
}

// write gives the kernel a packet now.
func (d *device) write(buf []byte) {
	if d.tun {
		copy(buf[etherLen:room], buf[:vnetLen])
		d.writeRaw(buf[etherLen:])
		return
	}
	shift(buf, etherLen)
	d.writeRaw(buf)
	shift(buf, -etherLen)
}

// writeRaw leaves the virtio header as it is. What the kernel does not take is
// lost, as on any cable.
func (d *device) writeRaw(buf []byte) {
	unix.RawSyscall(unix.SYS_WRITE, uintptr(d.fd), uintptr(unsafe.Pointer(&buf[0])), uintptr(len(buf)))
}

// shift moves where the lengths in a virtio header count from.
func shift(buf []byte, by int) {
	move := func(b []byte) {
		binary.NativeEndian.PutUint16(b, binary.NativeEndian.Uint16(b)+uint16(by))
	}
	if buf[0]&vnetNeedsChecksum != 0 {
		move(buf[6:])
	}
	if buf[1] != gsoNone {
		move(buf[2:])
	}
}
