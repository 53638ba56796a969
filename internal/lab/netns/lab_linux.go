package netns

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"slices"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/bodkin-net/bodkin/internal/lab/scenario"
)

// Lab is a topology that exists. Its methods may be called from any goroutine.
type Lab struct {
	plan   *plan
	hosts  map[string]*Host
	spaces []*namespace
	tuns   map[*port]int
	wire   *wire // nil: the kernel's wire
	close  func() error
}

// New builds a topology. An error that is errors.ErrUnsupported names what of
// it the kernel cannot do.
func New(t scenario.Topology, opt Options) (*Lab, error) {
	for _, g := range t.Gateways {
		if err := canDo(g.NAT); err != nil {
			return nil, fmt.Errorf("netns: gateway %s: %w", g.Name, err)
		}
	}
	p, err := compile(t, opt)
	if err != nil {
		return nil, err
	}
	l := &Lab{plan: p, hosts: map[string]*Host{}, tuns: map[*port]int{}}
	l.close = sync.OnceValue(l.tearDown)
	if err := l.build(opt); err != nil {
		return nil, errors.Join(err, l.Close())
	}
	return l, nil
}

func (l *Lab) build(opt Options) error {
	spaces := map[*node]*namespace{}
	for _, n := range l.plan.nodes {
		space, err := l.namespace(n.sysctls())
		if err != nil {
			return err
		}
		spaces[n] = space
		l.hosts[n.name] = &Host{node: n, space: space, lab: l}
		if !l.plan.userWire {
			continue
		}
		for _, q := range n.ports {
			err := space.own(func() (err error) {
				l.tuns[q], err = openTUN(q.iface, q.Link.MTU)
				if err != nil {
					delete(l.tuns, q)
				}
				return err
			})
			if err != nil {
				return fmt.Errorf("%s: %w", n.name, err)
			}
		}
	}
	if !l.plan.userWire {
		hub, err := l.namespace(nil)
		if err != nil {
			return err
		}
		if err := kernelWire(l.plan, hub, spaces); err != nil {
			return err
		}
	}
	for _, n := range l.plan.nodes {
		err := spaces[n].own(func() error {
			if err := n.configure(); err != nil || n.gateway == nil {
				return err
			}
			return configureGateway(n, opt.Unsolicited)
		})
		if err != nil {
			return fmt.Errorf("%s: %w", n.name, err)
		}
	}
	if l.plan.userWire {
		w, err := newWire(l.plan, opt, l.tuns)
		if err != nil {
			return err
		}
		l.wire = w
	}
	return nil
}

func (l *Lab) namespace(more []sysctl) (*namespace, error) {
	space, err := newNamespace()
	if err != nil {
		return nil, err
	}
	l.spaces = append(l.spaces, space)
	return space, space.own(func() error { return writeSysctls(slices.Concat(baseSysctls, more)) })
}

// Close kills what runs in the lab and removes everything.
func (l *Lab) Close() error { return l.close() }

func (l *Lab) tearDown() error {
	err := killInside(l.spaces)
	if l.wire != nil {
		err = errors.Join(err, l.wire.close())
	}
	for _, fd := range l.tuns {
		unix.Close(fd)
	}
	for _, s := range l.spaces {
		s.close()
	}
	return err
}

// Host is a host or gateway by its name; nil if the topology has none such.
func (l *Lab) Host(name string) *Host { return l.hosts[name] }

// SetLink changes the link of a port from now on; packets already on their way
// keep their time. The port is named like its host; a gateway's are named
// "NAME/inside" and "NAME/outside".
func (l *Lab) SetLink(name string, link scenario.Link) error {
	if err := checkLink(link); err != nil {
		return fmt.Errorf("netns: %s: %w", name, err)
	}
	return l.onWire(func(w *wire) error {
		for _, p := range w.ports {
			if p.name() == name {
				p.up.link, p.down.link = link, link
				return nil
			}
		}
		return fmt.Errorf("netns: no port %q", name)
	})
}

// Cut drops what goes between two addresses, both ways, wherever a network
// sees it. An invalid address is any.
func (l *Lab) Cut(a, b netip.Addr, p Protocol) error {
	return l.onWire(func(w *wire) error {
		w.cuts = append(w.cuts, cut{a, b, p})
		return nil
	})
}

// Restore takes back a Cut with the same arguments.
func (l *Lab) Restore(a, b netip.Addr, p Protocol) error {
	return l.onWire(func(w *wire) error {
		for i, c := range w.cuts {
			if c == (cut{a, b, p}) {
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
		n := w.networks[network]
		if n == nil {
			return fmt.Errorf("netns: no network %q", network)
		}
		if n.capture != nil {
			return fmt.Errorf("netns: network %q is captured already", network)
		}
		c, err := newCapture(path, n.segment)
		n.capture = c
		return err
	})
}

// StopCapture ends a capture. The file is whole when it returns.
func (l *Lab) StopCapture(network string) error {
	var c *capture
	err := l.onWire(func(w *wire) error {
		n := w.networks[network]
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

func (l *Lab) onWire(f func(*wire) error) error {
	if l.wire == nil {
		return errKernelWire
	}
	l.wire.mu.Lock()
	defer l.wire.mu.Unlock()
	if l.wire.closed {
		return errClosed
	}
	return f(l.wire)
}

// RebootGateway makes a gateway forget every mapping.
func (l *Lab) RebootGateway(name string) error {
	return l.onGateway(name, forget)
}

// BlockUDP makes a gateway drop all UDP from now on, or no longer.
func (l *Lab) BlockUDP(name string, on bool) error {
	return l.onGateway(name, func() error { return blockUDP(on) })
}

func (l *Lab) onGateway(name string, f func() error) error {
	h := l.hosts[name]
	if h == nil || h.node.gateway == nil {
		return fmt.Errorf("netns: no gateway %q", name)
	}
	return h.space.own(f)
}

// Host is a namespace of the lab: a host or a gateway.
type Host struct {
	node  *node
	space *namespace
	lab   *Lab
}

// Name is its name in the topology.
func (h *Host) Name() string { return h.node.name }

// Addr is the host's address of a family, the outside one of a gateway; invalid
// if it has none.
func (h *Host) Addr(v4 bool) netip.Addr { return h.node.ports[len(h.node.ports)-1].addr(v4) }

// NetNS is a new descriptor of the namespace, by which another process can
// enter it. The caller closes it.
func (h *Host) NetNS() (*os.File, error) {
	fd, err := unix.FcntlInt(uintptr(h.space.fd), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("netns: %s: %w", h.node.name, err)
	}
	return os.NewFile(uintptr(fd), "netns "+h.node.name), nil
}

// Do runs f on a thread in the namespace, to open sockets there; they can be
// used anywhere after. What f starts on other goroutines is not in the
// namespace, so addresses must be literal.
func (h *Host) Do(f func() error) error { return h.space.do(f) }

var errWrongPlace = errors.New("netns: a command of a host is started by Host.Start or Host.Run")

// Command is a program to be started in the namespace by Start or Run. The
// kernel kills it when the lab is closed or this process dies.
func (h *Host) Command(ctx context.Context, path string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, path, args...)
	if cmd.Err == nil {
		cmd.Err = errWrongPlace // exec.Cmd.Start alone would start it outside
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	return cmd
}

// Start starts cmd in the namespace. Wait for it with cmd.Wait.
func (h *Host) Start(cmd *exec.Cmd) error {
	if cmd.Err == errWrongPlace {
		cmd.Err = nil
	}
	return h.space.own(cmd.Start)
}

// Run starts cmd in the namespace and waits for it.
func (h *Host) Run(cmd *exec.Cmd) error {
	if err := h.Start(cmd); err != nil {
		return err
	}
	return cmd.Wait()
}
