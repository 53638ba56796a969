package netns

import (
	"fmt"
	"net/netip"
	"slices"

	"github.com/bodkin-net/bodkin/internal/lab/scenario"
)

// SetLink changes the link of a port from now on; packets already on their way
// keep their time. The port is named like its host; a gateway's are named
// "NAME/inside", "NAME/outside" and "NAME/dmz". Hosts and gateways know the MTU
// of their links at once.
func (l *Lab) SetLink(name string, link scenario.Link) error {
	if err := scenario.CheckLink(link); err != nil {
		return fmt.Errorf("netns: %s: %w", name, err)
	}
	var done <-chan error
	err := l.onWire(func(w *wire) error {
		p := w.port(name)
		if p == nil {
			return fmt.Errorf("netns: no port %q", name)
		}
		was := p.deviceMTU()
		p.Link = link
		p.up.change(w.now(), link)
		p.down.change(w.now(), link)
		if p.deviceMTU() != was {
			done = w.resize(p)
		}
		if p.gateway != nil {
			return p.gateway.router.SetMTU(p.side, link.MTU)
		}
		return nil
	})
	if err != nil || done == nil {
		return err
	}
	if err := l.wire.await(done); err != nil {
		return fmt.Errorf("netns: %s: %w", name, err)
	}
	return nil
}

// Cut drops what goes between two addresses, both ways, wherever a network
// sees it. An invalid address is any.
func (l *Lab) Cut(a, b netip.Addr, p Protocol) error {
	return l.onWire(func(w *wire) error {
		w.cuts = append(w.cuts, CutStatus{A: a, B: b, Protocol: p})
		return nil
	})
}

// Restore takes back a Cut with the same arguments.
func (l *Lab) Restore(a, b netip.Addr, p Protocol) error {
	return l.onWire(func(w *wire) error {
		for i, c := range w.cuts {
			if c == (CutStatus{A: a, B: b, Protocol: p}) {
				w.cuts = append(w.cuts[:i], w.cuts[i+1:]...)
				return nil
			}
		}
		return fmt.Errorf("netns: %v and %v are not cut", a, b)
	})
}

// Counters is what the networks have carried so far.
func (l *Lab) Counters() (Counters, error) {
	c := Counters{}
	return c, l.onWire(func(w *wire) error {
		for _, n := range w.networks {
			for f, count := range n.flows {
				c[f] = *count
			}
		}
		return nil
	})
}

// Capture writes every packet that enters a network from now on, also those
// that it then loses, to a pcapng file, until Close.
func (l *Lab) Capture(network, path string) error {
	return l.onWire(func(w *wire) error {
		n := w.network(network)
		if n == nil {
			return fmt.Errorf("netns: no network %q", network)
		}
		if n.capture != nil {
			return fmt.Errorf("netns: network %q is captured already", network)
		}
		c, err := newCapture(path, n)
		n.capture = c
		return err
	})
}

// StopCapture ends a capture. The file is whole when it returns.
func (l *Lab) StopCapture(network string) error {
	var c *capture
	err := l.onWire(func(w *wire) error {
		n := w.network(network)
		if n == nil || n.capture == nil {
			return fmt.Errorf("netns: network %q is not captured", network)
		}
		c, n.capture = n.capture, nil
		return nil
	})
	if err != nil {
		return err
	}
	return c.close()
}

// RebootGateway makes a gateway forget every mapping.
func (l *Lab) RebootGateway(name string) error {
	return l.onGateway(name,
		func(w *wire, g *gateway) error {
			g.router.Reset(w.clock(w.now()))
			w.touch(&g.driven)
			return nil
		}, forget)
}

// BlockUDP makes a gateway drop all UDP from now on, or no longer.
func (l *Lab) BlockUDP(name string, on bool) error {
	return l.onGateway(name,
		func(_ *wire, g *gateway) error { g.blockUDP = on; return nil },
		func() error {
			err := blockUDP(on)
			if err == nil {
				l.hosts[name].node.udpBlocked.Store(on)
			}
			return err
		})
}

// onGateway changes a gateway of ours on the wire, or one of the kernel's in
// its namespace.
func (l *Lab) onGateway(name string, ours func(*wire, *gateway) error, kernels func() error) error {
	h := l.hosts[name]
	switch {
	case h == nil || h.node.gateway == nil:
		return fmt.Errorf("netns: no gateway %q", name)
	case !h.node.machine:
		return h.space.own(kernels)
	}
	return l.onWire(func(w *wire) error { return ours(w, w.gateway(name)) })
}

func (l *Lab) onWire(f func(*wire) error) error {
	if l.wire == nil {
		return errKernelWire
	}
	l.wire.mu.Lock()
	defer l.wire.mu.Unlock()
	if l.wire.closed {
		return errClosed
	}
	defer l.wire.poke()
	return f(l.wire)
}

// port, network and gateway are found by name; nil: there is none.
func (w *wire) port(name string) *wirePort {
	i := slices.IndexFunc(w.ports, func(p *wirePort) bool { return p.name() == name })
	if i < 0 {
		return nil
	}
	return w.ports[i]
}

func (w *wire) network(name string) *network {
	i := slices.IndexFunc(w.networks, func(n *network) bool { return n.name == name })
	if i < 0 {
		return nil
	}
	return w.networks[i]
}

func (w *wire) gateway(name string) *gateway {
	i := slices.IndexFunc(w.gateways, func(g *gateway) bool { return g.node.name == name })
	if i < 0 {
		return nil
	}
	return w.gateways[i]
}
