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
	"slices"
	"sync"
	"time"

	"github.com/bodkin-net/bodkin/internal/lab/scenario"
	"github.com/bodkin-net/bodkin/internal/lab/snapshot"
)

// Options are what a topology does not say.
type Options struct {
	// Seed decides all that is random.
	Seed uint64
	// Hops is how many routers a packet crosses on the internet, each of which
	// takes one from its TTL and answers when that was the last. Zero is one;
	// a negative number is none.
	Hops int
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

	topology scenario.Topology
	short    []scenario.Shortage
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
	told     []Event

	readdressed sync.Cond // some host has other addresses
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
	n.readdressed.L = &n.mu
	n.mu.Lock()
	if err := n.build(t); err != nil {
		n.leave()
		n.Close()
		return nil, fmt.Errorf("sim: %w", err)
	}
	n.leave()
	return n, nil
}

// Host is nil when there is none of that name.
func (n *Network) Host(name string) *Host { return n.hosts[name] }

// Gateway is nil when there is none of that name.
func (n *Network) Gateway(name string) *Gateway { return n.gateways[name] }

// Close ends every socket. Nothing of the network runs any more when it
// returns.
func (n *Network) Close() error {
	n.enter()
	if !n.closed {
		for _, h := range n.hosts {
			h.close()
		}
		for _, g := range n.gateways {
			g.self.close()
		}
		n.closed = true
		if n.timer != nil && n.timer.Stop() {
			n.firing.Done()
		}
		n.events = nil
		n.readdressed.Broadcast()
	}
	n.mu.Unlock()
	n.firing.Wait()
	for _, g := range n.gateways {
		if g.services != nil {
			g.services.Close()
		}
	}
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

// Event is something that happened, in words.
type Event = snapshot.Event

const mostEvents = 1000

// note remembers an event, and forgets the oldest.
func (n *Network) note(name, text string) {
	if len(n.told) == mostEvents {
		n.told = append(n.told[:0], n.told[mostEvents/2:]...)
	}
	n.told = append(n.told, Event{Time: n.time(), Name: name, Text: text})
}

// Events are the last ones, oldest first: leases, conflicts, what gateways have
// noticed.
func (n *Network) Events() []Event {
	n.enter()
	defer n.leave()
	return slices.Clone(n.told)
}

func (n *Network) time() time.Time { return n.epoch.Add(time.Duration(n.now)) }
