package control

import (
	"errors"
	"io/fs"
	"os"

	"golang.org/x/sys/unix"

	"github.com/bodkin-net/bodkin/internal/lab/netns"
	"github.com/bodkin-net/bodkin/internal/lab/scenario"
)

// build makes the lab of a start.
func build(topology scenario.Topology) (*netns.Lab, error) {
	if err := tryTUN(); err != nil {
		return nil, err
	}
	// On the user wire links can be changed, and packets counted and captured.
	lab, err := netns.New(topology, netns.Options{UserWire: true})
	switch {
	case err == nil:
		return lab, nil
	case errors.Is(err, fs.ErrPermission) && os.Geteuid() == 0:
		return nil, failure(Privilege, "it needs root, or a user namespace with all capabilities", "%v", err)
	case errors.Is(err, errors.ErrUnsupported):
		return nil, failure(BadTopology, "", "%v", err)
	}
	return nil, err
}

// tryTUN says what is wrong with the device that every lab needs.
func tryTUN() error {
	const path = "/dev/net/tun"
	fd, err := unix.Open(path, unix.O_RDWR|unix.O_CLOEXEC, 0)
	switch {
	case err == nil:
		unix.Close(fd)
		return nil
	case errors.Is(err, fs.ErrPermission):
		return failure(Privilege, "run as root, or let users open it: chmod 666 "+path, "no permission to open %s", path)
	case errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENODEV) || errors.Is(err, unix.ENXIO):
		return failure(Privilege, "modprobe tun; in a container, give it the device: --device "+path, "there is no %s", path)
	}
	return &fs.PathError{Op: "open", Path: path, Err: err}
}

// describe lists what the lab is made of.
func describe(t scenario.Topology) Info {
	i := Info{Title: t.Name}
	networks := map[string]bool{}
	port := func(name, network string) {
		i.Ports = append(i.Ports, name)
		if !networks[network] {
			networks[network] = true
			i.Networks = append(i.Networks, network)
		}
	}
	for _, h := range t.Hosts {
		i.Hosts = append(i.Hosts, h.Name)
		port(h.Name, h.Port.Network)
	}
	for _, g := range t.Gateways {
		i.Gateways = append(i.Gateways, g.Name)
		port(g.Name+"/"+netns.InsideInterface, g.Inside.Network)
		port(g.Name+"/"+netns.OutsideInterface, g.Outside.Network)
		if g.DMZ != nil {
			port(g.Name+"/dmz", g.DMZ.Network)
		}
	}
	return i
}
