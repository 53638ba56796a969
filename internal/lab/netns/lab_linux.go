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
	"time"

	"golang.org/x/sys/unix"

	"github.com/bodkin-net/bodkin/internal/lab/scenario"
	"github.com/bodkin-net/bodkin/internal/lab/service"
)

// Lab is a topology that exists. Its methods may be called from any goroutine.
type Lab struct {
	plan    *plan
	hosts   map[string]*Host
	spaces  []*namespace
	devices map[*port]*device
	wire    *wire               // nil: the kernel's wire
	missing []string            // warnings
	running []*service.Services // of gateways
	close   func() error
}

// New builds a topology. An error that is errors.ErrUnsupported names what of
// it the kernel cannot do. It waits until the ports with DHCP have addresses,
// though not for ever: Warnings says which have none.
func New(t scenario.Topology, opt Options) (*Lab, error) {
	p, err := compile(t, opt)
	if err != nil {
		return nil, err
	}
	for _, n := range p.nodes {
		if n.gateway != nil && !n.machine {
			if f := cannot(n.gateway); f != nil {
				return nil, fmt.Errorf("netns: %w%w", f, quietUnsupported{})
			}
		}
	}
	l := &Lab{plan: p, hosts: map[string]*Host{}, devices: map[*port]*device{}}
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
			err := space.own(func() error {
				d, err := openDevice(q, opt.Plain)
				if err == nil {
					l.devices[q] = d
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
			if err := n.configure(); err != nil || n.gateway == nil || n.machine {
				return err
			}
			return configureGateway(n)
		})
		if err != nil {
			return fmt.Errorf("%s: %w", n.name, err)
		}
	}
	if l.plan.userWire {
		w, err := newWire(l.plan, opt, spaces, l.devices)
		if err != nil {
			return err
		}
		l.wire = w
		select {
		case <-w.settled:
		case <-time.After(patience):
		}
		l.missing = w.warnings()
		return l.serve()
	}
	return nil
}

func (l *Lab) namespace(more []sysctl) (*namespace, error) {
	space, err := newNamespace()
	if err != nil {
		return nil, err
	}
	l.spaces = append(l.spaces, space)
	return space, space.own(func() error {
		return errors.Join(writeSysctls(slices.Concat(baseSysctls, more)), allowPing())
	})
}

// Warnings say which ports had no address by DHCP when New had waited for them,
// and why.
func (l *Lab) Warnings() []string { return slices.Clone(l.missing) }

// Close kills what runs in the lab and removes everything.
func (l *Lab) Close() error { return l.close() }

func (l *Lab) tearDown() error {
	var err error
	for _, s := range l.running {
		err = errors.Join(err, s.Close())
	}
	err = errors.Join(err, killInside(l.spaces))
	if l.wire != nil {
		err = errors.Join(err, l.wire.close())
	}
	for _, d := range l.devices {
		d.close()
	}
	for _, s := range l.spaces {
		s.close()
	}
	return err
}

// Host is a host or gateway by its name; nil if the topology has none such.
func (l *Lab) Host(name string) *Host { return l.hosts[name] }

// Host is a namespace of the lab: a host or a gateway.
type Host struct {
	node  *node
	space *namespace
	lab   *Lab
}

// Name is its name in the topology.
func (h *Host) Name() string { return h.node.name }

// Addr is the host's first address of a family, the outside one of a gateway;
// invalid if it has none now.
func (h *Host) Addr(v4 bool) netip.Addr { return first(h.Addrs(), v4) }

// Addrs are the addresses that the host has from the topology or the lab, the
// outside ones of a gateway.
func (h *Host) Addrs() []netip.Prefix {
	if w := h.lab.wire; w != nil {
		w.mu.Lock()
		defer w.mu.Unlock()
	}
	return slices.Clone(h.node.outer().ready)
}

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
