package netns

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"sync"

	"github.com/vishvananda/netlink"
)

// errands are run one after the other, beside the wire's thread, which has no
// time for them.
type errands struct {
	mu    sync.Mutex
	more  sync.Cond
	list  []func()
	ended bool
	done  chan struct{}
}

func newErrands() *errands {
	e := &errands{done: make(chan struct{})}
	e.more.L = &e.mu
	go e.run()
	return e
}

func (e *errands) add(f func()) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.list = append(e.list, f)
	e.more.Signal()
}

func (e *errands) run() {
	defer close(e.done)
	e.mu.Lock()
	defer e.mu.Unlock()
	for {
		for len(e.list) == 0 && !e.ended {
			e.more.Wait()
		}
		if e.ended {
			return
		}
		f := e.list[0]
		e.list = e.list[1:]
		e.mu.Unlock()
		f()
		e.mu.Lock()
	}
}

// close waits for the errand that is being run, and drops the rest.
func (e *errands) close() {
	e.mu.Lock()
	e.ended = true
	e.more.Signal()
	e.mu.Unlock()
	<-e.done
}

// setup is what the kernel of a port's owner is to have beside its addresses.
type setup struct {
	pull   bool // and put in again: the cable
	mtu    int
	routes []route
}

// configure has the kernel of a port's owner do as the wire does. The channel
// says when it has.
func (w *wire) configure(p *wirePort, s setup) <-chan error {
	addrs, done := slices.Clone(p.Addrs), make(chan error, 1)
	w.errands.add(func() {
		err := w.spaces[p.owner].own(func() error { return s.apply(p, addrs) })
		w.mu.Lock()
		defer w.mu.Unlock()
		if err != nil && !w.closed {
			w.note(p.name(), fmt.Sprintf("cannot be configured: %v", err))
		}
		if p.ready = addrs; len(addrs) > 0 {
			w.settle(p)
		}
		done <- err
	})
	return done
}

func (s setup) apply(p *wirePort, addrs []netip.Prefix) error {
	if s.pull {
		if err := pullCable(p.device); err != nil {
			return err
		}
	}
	if err := setMTU(p.iface, s.mtu); err != nil {
		return err
	}
	return readdress(p.iface, addrs, s.routes)
}

// resize has the kernel of a port's owner take the MTU that its device has now.
// The channel says when it has.
func (w *wire) resize(p *wirePort) <-chan error {
	mtu, done := p.deviceMTU(), make(chan error, 1)
	w.errands.add(func() { done <- w.spaces[p.owner].own(func() error { return setMTU(p.iface, mtu) }) })
	return done
}

// await waits for an errand. It must not hold the lock of the wire.
func (w *wire) await(done <-chan error) error {
	select {
	case err := <-done:
		return err
	case <-w.done: // after which errands are dropped
		return errClosed
	}
}

// linkMTU is what the owner's kernel takes for the MTU: that of the link, which
// drops what is larger and says nothing.
func (p *port) linkMTU() int { return p.fitMTU(cmp.Or(p.Link.MTU, defaultMTU)) }

// deviceMTU is that, or what DHCP has told of if it is less.
func (p *wirePort) deviceMTU() int {
	if p.client != nil {
		if g, ok := p.client.Grant(); ok && g.MTU > 0 {
			return p.fitMTU(min(g.MTU, p.linkMTU()))
		}
	}
	return p.linkMTU()
}

// fitMTU makes an MTU one that a device can have. With less than its least, IPv6
// would end on it.
func (p *port) fitMTU(mtu int) int {
	if p.addr(false).IsValid() {
		mtu = max(mtu, leastMTU6)
	}
	return min(mtu, largestMTU)
}

const (
	leastMTU6  = 1280             // RFC 8200 section 5
	largestMTU = 65535 - etherLen // of a TAP device
)

// settle notes that a port that waited for DHCP has its address.
func (w *wire) settle(p *wirePort) {
	delete(w.unsettled, p)
	w.checkSettled()
}

// checkSettled is when nobody who waits can get an address any more.
func (w *wire) checkSettled() {
	waiting := map[string]int{}
	for p := range w.unsettled {
		waiting[p.Network]++
	}
	for network, n := range waiting {
		if s := w.short[network]; n > s.Wanted-s.Lends {
			return
		}
	}
	select {
	case <-w.settled:
	default:
		close(w.settled)
	}
}

// warnings say who has no address, and why.
func (w *wire) warnings() (all []string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, p := range w.ports {
		if !w.unsettled[p] {
			continue
		}
		why := "gateway " + p.network.upstream.owner.name + " has not answered"
		if s, short := w.short[p.Network]; short {
			why = fmt.Sprintf("gateway %s has none left (%v)", s.Gateway, s)
		}
		all = append(all, fmt.Sprintf("%s has no address: %s", p.name(), why))
	}
	return all
}

func setMTU(iface string, mtu int) error {
	l, err := netlink.LinkByName(iface)
	if err == nil && l.Attrs().MTU != mtu {
		err = netlink.LinkSetMTU(l, mtu)
	}
	if err != nil {
		return fmt.Errorf("interface %s: MTU %d: %w", iface, mtu, err)
	}
	return nil
}
