package load

import (
	"container/heap"
	"context"
	"encoding/binary"
	"math/rand/v2"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/bodkin-net/bodkin/internal/identity"
	"github.com/bodkin-net/bodkin/internal/machine/rendezvous"
	"github.com/bodkin-net/bodkin/internal/wire/relay"
	wire "github.com/bodkin-net/bodkin/internal/wire/rendezvous"
)

// Config says what peers to make. All fields are required.
type Config struct {
	Server    netip.AddrPort
	ServerID  identity.ID
	Count     int
	PerSecond int // registrations begun
}

// Peers are registered peers, each with the product's own client machine. They
// accept every request by sending a packet through its relay.
type Peers struct {
	Socket *Socket
	cfg    Config
	stop   context.CancelFunc
	done   sync.WaitGroup

	// Relayed and Stray count the datagrams that came through a relay, and
	// those that came and are neither that nor rendezvous messages.
	Relayed, Stray atomic.Uint64

	mu            sync.Mutex
	clients       []*rendezvous.Client
	up            []bool
	registered    int
	registrations uint64
	due           timers
	out           []Datagram
	news          chan struct{} // closed and replaced when something below changed
	connected     map[rendezvous.RelayID]rendezvous.Status
}

// Key is the key of peer number i.
func Key(i int) identity.Key {
	var seed [32]byte
	copy(seed[:], "bodkin load")
	binary.BigEndian.PutUint64(seed[24:], uint64(i))
	return identity.FromSeed(seed)
}

// Start makes the peers and begins to register them.
func Start(cfg Config) (*Peers, error) {
	s, err := Open(cfg.Server)
	if err != nil {
		return nil, err
	}
	ctx, stop := context.WithCancel(context.Background())
	p := &Peers{
		Socket: s, cfg: cfg, stop: stop,
		clients: make([]*rendezvous.Client, cfg.Count), up: make([]bool, cfg.Count),
		news: make(chan struct{}), connected: make(map[rendezvous.RelayID]rendezvous.Status),
	}
	p.due.at = make([]time.Time, cfg.Count)
	p.due.place = make([]int, cfg.Count)
	for i := range p.due.place {
		p.due.place[i] = -1
	}
	p.done.Go(func() { p.begin(ctx) })
	p.done.Go(p.receive)
	p.done.Go(func() { p.runTimers(ctx) })
	return p, nil
}

// Close ends all peers, who do not say goodbye.
func (p *Peers) Close() {
	p.stop()
	p.Socket.Close()
	p.done.Wait()
}

// begin starts the clients at the configured pace.
func (p *Peers) begin(ctx context.Context) {
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	start := time.Now()
	for i := 0; i < p.cfg.Count; {
		target := min(p.cfg.Count, 1+int(time.Since(start).Seconds()*float64(p.cfg.PerSecond)))
		for ; i < target && ctx.Err() == nil; i++ {
			c := rendezvous.NewClient(rendezvous.ClientConfig{
				Key: Key(i), ServerID: &p.cfg.ServerID, Rand: rand.NewPCG(1, uint64(i)),
			})
			p.mu.Lock()
			p.clients[i] = c
			c.Start(time.Now())
			p.drain(i)
			p.flush()
			p.mu.Unlock()
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

func (p *Peers) receive() {
	for {
		in, err := p.Socket.Receive()
		if err != nil {
			return
		}
		now := time.Now()
		p.mu.Lock()
		for _, d := range in {
			switch {
			case len(d.B) == 0:
			case d.B[0] == relay.First:
				n := 1
				if d.Segment > 0 {
					n = (len(d.B) + d.Segment - 1) / d.Segment
				}
				p.Relayed.Add(uint64(n))
			case d.B[0] == wire.First && d.Peer >= 0 && d.Peer < len(p.clients) && p.clients[d.Peer] != nil:
				p.clients[d.Peer].HandlePacket(now, d.B)
				p.drain(d.Peer)
			default:
				p.Stray.Add(1)
			}
		}
		p.flush()
		p.mu.Unlock()
	}
}

// drain takes what client i wants. p.mu is held.
func (p *Peers) drain(i int) {
	c := p.clients[i]
	for b, ok := c.Poll(); ok; b, ok = c.Poll() {
		p.out = append(p.out, Datagram{Peer: i, B: b})
	}
	for e, ok := c.Event(); ok; e, ok = c.Event() {
		p.event(i, e)
	}
	at, ok := c.NextTimeout()
	p.due.set(i, at, ok)
}

func (p *Peers) event(i int, e rendezvous.ClientEvent) {
	switch e := e.(type) {
	case rendezvous.Registered:
		p.registrations++
		if !p.up[i] {
			p.up[i] = true
			p.registered++
		}
	case rendezvous.Lost:
		if p.up[i] {
			p.up[i] = false
			p.registered--
		}
	case rendezvous.Connected:
		p.connected[e.Relay] = e.Status
		p.clients[i].StopConnect(e.Relay)
	case rendezvous.Requested:
		p.out = append(p.out, Datagram{Peer: i, B: relay.AppendHeader(nil, e.Relay)})
	default:
		return
	}
	close(p.news)
	p.news = make(chan struct{})
}

// flush sends what drain gathered. p.mu is held.
func (p *Peers) flush() {
	p.Socket.Send(p.out) // what fails is lost, as on any network
	p.out = p.out[:0]
}

func (p *Peers) runTimers(ctx context.Context) {
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		for p.handleDue() {
		}
	}
}

// handleDue handles a batch of timeouts and tells whether there are more: what
// arrives is handled in between, however late everything is.
func (p *Peers) handleDue() (more bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	defer p.flush()
	now := time.Now()
	for range batch {
		i, ok := p.due.next(now)
		if !ok {
			return false
		}
		p.clients[i].HandleTimeout(now)
		p.drain(i)
	}
	return true
}

// Registered is how many peers are registered, and how often one has been.
func (p *Peers) Registered() (now int, ever uint64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.registered, p.registrations
}

// Wait waits until there have been so many registrations.
func (p *Peers) Wait(ctx context.Context, registrations uint64) error {
	return p.wait(ctx, func() bool { return p.registrations >= registrations })
}

// Connect makes a relay between two peers, and waits until both have it.
func (p *Peers) Connect(ctx context.Context, from, to int, id rendezvous.RelayID) (rendezvous.Status, error) {
	p.mu.Lock()
	before := p.Relayed.Load()
	p.clients[from].Connect(time.Now(), Key(to).ID(), id, rendezvous.PacketRelay, []byte("signal"))
	p.drain(from)
	p.flush()
	p.mu.Unlock()
	var status rendezvous.Status
	err := p.wait(ctx, func() bool {
		var ok bool
		status, ok = p.connected[id]
		return ok && (status != wire.StatusOK || p.Relayed.Load() > before)
	})
	return status, err
}

func (p *Peers) wait(ctx context.Context, done func() bool) error {
	for {
		p.mu.Lock()
		ok, news := done(), p.news
		p.mu.Unlock()
		if ok {
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-news:
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// timers is a heap of when each client is due.
type timers struct {
	at    []time.Time // by client
	place []int       // of each client in heap, -1: not there
	heap  []int
}

func (t *timers) set(i int, at time.Time, ok bool) {
	t.at[i] = at
	switch {
	case ok && t.place[i] < 0:
		heap.Push(t, i)
	case ok:
		heap.Fix(t, t.place[i])
	case t.place[i] >= 0:
		heap.Remove(t, t.place[i])
	}
}

// next takes out a client that is due.
func (t *timers) next(now time.Time) (int, bool) {
	if len(t.heap) == 0 || t.at[t.heap[0]].After(now) {
		return 0, false
	}
	return heap.Pop(t).(int), true
}

func (t *timers) Len() int           { return len(t.heap) }
func (t *timers) Less(a, b int) bool { return t.at[t.heap[a]].Before(t.at[t.heap[b]]) }
func (t *timers) Swap(a, b int) {
	t.heap[a], t.heap[b] = t.heap[b], t.heap[a]
	t.place[t.heap[a]], t.place[t.heap[b]] = a, b
}
func (t *timers) Push(x any) {
	t.place[x.(int)] = len(t.heap)
	t.heap = append(t.heap, x.(int))
}
func (t *timers) Pop() any {
	i := t.heap[len(t.heap)-1]
	t.heap = t.heap[:len(t.heap)-1]
	t.place[i] = -1
	return i
}
