package netns

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"time"

	"golang.org/x/sys/unix"

	"github.com/bodkin-net/bodkin/internal/lab/scenario"
)

// newWire joins the devices of a plan, and starts to carry.
func newWire(p *plan, opt Options, spaces map[*node]*namespace, devices map[*port]*device) (*wire, error) {
	w := blankWire(p, opt, spaces)
	if err := w.build(p, opt, devices); err != nil {
		return nil, err
	}
	w.checkSettled()
	var err error
	if w.epoll, err = unix.EpollCreate1(unix.EPOLL_CLOEXEC); err != nil {
		return nil, fmt.Errorf("netns: epoll: %w", err)
	}
	if w.wake, err = unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK); err != nil {
		unix.Close(w.epoll)
		return nil, fmt.Errorf("netns: eventfd: %w", err)
	}
	watch := func(fd, index int) error {
		return unix.EpollCtl(w.epoll, unix.EPOLL_CTL_ADD, fd, &unix.EpollEvent{Events: unix.EPOLLIN, Fd: int32(index)})
	}
	err = watch(w.wake, -1)
	for i, d := range w.devices {
		if err == nil {
			err = watch(d.fd, i)
		}
	}
	if err != nil {
		unix.Close(w.epoll)
		unix.Close(w.wake)
		return nil, fmt.Errorf("netns: epoll: %w", err)
	}
	w.errands = newErrands()
	onThread(w.run)
	return w, nil
}

func blankWire(p *plan, opt Options, spaces map[*node]*namespace) *wire {
	return &wire{
		plan:      p,
		spaces:    spaces,
		unsettled: map[*wirePort]bool{},
		short:     p.short,
		settled:   make(chan struct{}),
		rng:       rand.New(rand.NewPCG(opt.Seed, 0)),
		start:     time.Now(),
		scratch:   make([]byte, 0, largeBuffer),
		done:      make(chan struct{}),
	}
}

// build makes networks, ports and gateways of a plan.
func (w *wire) build(p *plan, opt Options, devices map[*port]*device) error {
	at := map[*port]*wirePort{}
	for _, s := range p.networks {
		n := &network{name: s.name, stations: map[netip.Addr]station{}, byMAC: map[mac]*wirePort{}, onLink: s.onLink, flows: map[Flow]*Count{}}
		if s.name == scenario.Internet {
			n.hops = max(opt.Hops, 0)
			if opt.Hops == 0 {
				n.hops = 1
			}
		}
		for _, q := range s.ports {
			wp := &wirePort{port: q, hw: q.hardware(), up: lane{link: q.Link}, down: lane{link: q.Link}}
			at[q] = wp
			n.attach(wp)
		}
		for a, q := range s.byAddr {
			n.give(at[q], a)
		}
		w.networks = append(w.networks, n)
	}
	for i, s := range p.networks {
		for _, b := range s.behind {
			w.networks[i].behind = append(w.networks[i].behind, way{b.prefix, at[b.port]})
		}
		w.networks[i].upstream = at[s.upstream]
	}
	for _, n := range p.nodes {
		for _, q := range n.ports {
			w.ports = append(w.ports, at[q])
			d := devices[q]
			w.devices = append(w.devices, d)
			if !n.machine {
				at[q].device, d.port = d, at[q]
			}
			if q.DHCP && !q.left {
				w.unsettled[at[q]] = true
			}
			if n.firewall != nil {
				if err := w.addFirewall(at[q], opt.Seed); err != nil {
					return err
				}
			}
		}
		if n.machine {
			if err := w.addGateway(p, n, opt, at, devices); err != nil {
				return err
			}
		}
	}
	for p := range w.unsettled {
		if p.gateway == nil {
			if err := w.addClient(p, opt.Seed); err != nil {
				return err
			}
		}
	}
	return nil
}
