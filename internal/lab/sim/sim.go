// Package sim builds a scenario's topology inside the process: links, gateways
// and hosts that exchange raw IP packets.
//
// All waiting goes through package time, so it runs in virtual time inside a
// testing/synctest bubble and in real time outside. There is no goroutine: one
// timer serves one queue of events, and whoever calls in does the work that is
// due.
package sim

import (
	"fmt"
	"hash/fnv"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/bodkin-net/bodkin/internal/lab/scenario"
)

// Options are what a topology does not say.
type Options struct {
	// Seed decides all that is random.
	Seed uint64
	// Trace, if set, is told of every packet. It is called with the network
	// locked: it must not call back, and must copy the payload to keep it.
	Trace func(TraceEvent)
}

// Network is a whole simulated topology. Everything in it is guarded by mu.
type Network struct {
	mu    sync.Mutex
	epoch time.Time
	now   int64 // since epoch
	opt   Options

	events   events
	seq      uint64
	happened uint64 // events so far
	timer    *time.Timer
	armed    int64 // when timer fires, never
	firing   sync.WaitGroup
	closed   bool

	segments map[string]*segment
	hosts    map[string]*Host
	gateways map[string]*Gateway
	ports    map[string]*port
	rules    []*rule
	spare    []*buffer
}

// New refuses a topology that cannot be built, and says why.
func New(t scenario.Topology, opt Options) (*Network, error) {
	n := &Network{
		epoch:    time.Now(),
		opt:      opt,
		armed:    never,
		segments: make(map[string]*segment),
		hosts:    make(map[string]*Host),
		gateways: make(map[string]*Gateway),
		ports:    make(map[string]*port),
	}
	if err := n.build(t); err != nil {
		return nil, fmt.Errorf("sim: %w", err)
	}
	return n, nil
}

// Host is nil when there is none of that name.
func (n *Network) Host(name string) *Host { return n.hosts[name] }

// Gateway is nil when there is none of that name.
func (n *Network) Gateway(name string) *Gateway { return n.gateways[name] }

// SetLink changes what happens to packets on a port from now on. The port is
// named like its host; a gateway's are named "NAME/inside" and "NAME/outside".
func (n *Network) SetLink(name string, l scenario.Link) error {
	if err := checkLink(l); err != nil {
		return fmt.Errorf("sim: %s: %w", name, err)
	}
	n.enter()
	defer n.leave()
	p := n.ports[name]
	if p == nil {
		return fmt.Errorf("sim: no port %q", name)
	}
	p.link = l
	return nil
}

// RebootGateway makes a gateway forget its mappings.
func (n *Network) RebootGateway(name string) error {
	n.enter()
	defer n.leave()
	g := n.gateways[name]
	if g == nil {
		return fmt.Errorf("sim: no gateway %q", name)
	}
	g.nat.Reset()
	return nil
}

// Close ends every socket. Nothing of the network runs any more when it
// returns.
func (n *Network) Close() error {
	n.enter()
	if !n.closed {
		for _, h := range n.hosts {
			h.close()
		}
		n.closed = true
		if n.timer != nil && n.timer.Stop() {
			n.firing.Done()
		}
		n.events = nil
	}
	n.mu.Unlock()
	n.firing.Wait()
	return nil
}

// rand is a source of randomness that depends on the seed and a name, and not
// on what else draws.
func (n *Network) rand(name string) *rand.Rand {
	return rand.New(rand.NewPCG(n.opt.Seed, hash(name)))
}

func hash(name string) uint64 {
	h := fnv.New64a()
	h.Write([]byte(name))
	return h.Sum64()
}

func (n *Network) time() time.Time { return n.epoch.Add(time.Duration(n.now)) }
