package e2e

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/bodkin-net/bodkin/internal/lab/netns"
	"github.com/bodkin-net/bodkin/internal/lab/probe"
	"github.com/bodkin-net/bodkin/internal/lab/scenario"
	"github.com/bodkin-net/bodkin/internal/machine/nat"
)

// kernelStack is the stack of a host of the lab, for the probes that the
// simulator's stacks have too.
type kernelStack struct{ h *netns.Host }

func within[T any](h *netns.Host, f func() (T, error)) (v T, err error) {
	e := h.Do(func() error { v, err = f(); return nil })
	return v, errors.Join(err, e)
}

func (k kernelStack) ListenUDP(port uint16) (net.PacketConn, error) {
	return within(k.h, func() (net.PacketConn, error) { return net.ListenUDP("udp4", &net.UDPAddr{Port: int(port)}) })
}

func (k kernelStack) ListenTCP(port uint16) (net.Listener, error) {
	c := net.ListenConfig{Control: share}
	c.SetMultipathTCP(false)
	return within(k.h, func() (net.Listener, error) {
		return c.Listen(context.Background(), "tcp4", netip.AddrPortFrom(netip.IPv4Unspecified(), port).String())
	})
}

func (k kernelStack) DialTCP(ctx context.Context, port uint16, to netip.AddrPort) (net.Conn, error) {
	d := net.Dialer{LocalAddr: &net.TCPAddr{Port: int(port)}, Control: share}
	d.SetMultipathTCP(false)
	return within(k.h, func() (net.Conn, error) { return d.DialContext(ctx, "tcp4", to.String()) })
}

// share lets several sockets have a port.
func share(_, _ string, c syscall.RawConn) (err error) {
	cerr := c.Control(func(fd uintptr) {
		err = errors.Join(unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_REUSEADDR, 1),
			unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_REUSEPORT, 1))
	})
	return errors.Join(cerr, err)
}

// implementations of gateways, beside the simulator's.
var implementations = []struct {
	name string
	opt  netns.Options
}{
	{probe.Ours, netns.Options{}},
	{probe.NFTables, netns.Options{Kernel: true}},
}

// probing builds a world of presets in the kernel, without those that the
// implementation has no words for. It has each twice if told so.
func probing(t *testing.T, presets []nat.Preset, twins bool, opt netns.Options) (*probe.Prober, []probe.Home) {
	t.Helper()
	var lab *netns.Lab
	var world []nat.Preset
	for lab == nil {
		if world = presets; twins {
			world = probe.Twins(presets)
		}
		var err error
		lab, err = netns.New(probe.World(world), opt)
		if fault, ok := errors.AsType[*scenario.Fault](err); ok && errors.Is(err, errors.ErrUnsupported) {
			t.Logf("left out: %v", err)
			n := len(presets)
			presets = slices.DeleteFunc(slices.Clone(presets), func(p nat.Preset) bool {
				return strings.HasPrefix(fault.Path, "gateways."+probe.Gateway(p)+".")
			})
			if len(presets) < n {
				continue
			}
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	t.Cleanup(func() {
		if err := lab.Close(); err != nil {
			t.Error(err)
		}
	})
	homes, servers := probe.Homes(world, func(name string) probe.Stack { return kernelStack{lab.Host(name)} })
	p, err := probe.New(servers, 3*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Close)
	return p, homes
}

// TestPresets: every preset looks as its data says, or has a quirk that
// docs/QUIRKS.md knows by name. It is the table of the simulator.
func TestPresets(t *testing.T) {
	t.Parallel()
	netns.Need(t)
	for _, impl := range implementations {
		t.Run(impl.name, func(t *testing.T) {
			t.Parallel()
			p, homes := probing(t, probe.Presets(), false, impl.opt)
			var all sync.WaitGroup
			for _, h := range homes {
				all.Go(func() {
					got, err := p.Look(h)
					if err != nil {
						t.Error(err)
					}
					if want := probe.ExpectAt(impl.name, h); got != want {
						t.Errorf("%s: %+v, want %+v", h.Name, got, want)
					}
				})
			}
			all.Wait()
		})
	}
}

// TestTraversal: every pair of nat's presets can make the holes that their data
// says.
func TestTraversal(t *testing.T) {
	t.Parallel()
	netns.Need(t)
	for _, impl := range implementations {
		t.Run(impl.name, func(t *testing.T) {
			t.Parallel()
			p, homes := probing(t, nat.Presets(), true, impl.opt)
			turns := make(chan struct{}, 32)
			var all sync.WaitGroup
			for a, b := range probe.Pairs(homes) {
				turns <- struct{}{}
				all.Go(func() {
					defer func() { <-turns }()
					got, err := p.Pair(a, b)
					if err != nil {
						t.Error(err)
					}
					if want := probe.ExpectPair(a.NAT, b.NAT); got != want {
						t.Errorf("%s, %s: %+v, want %+v", a.Name, b.Name, got, want)
					}
				})
			}
			all.Wait()
		})
	}
}
