package rendezvous

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/bodkin-net/bodkin/internal/identity"
	wire "github.com/bodkin-net/bodkin/internal/wire/rendezvous"
)

// world steps clients and a server through virtual time. Every packet takes
// the same time, plus what the faults below add.
type world struct {
	t      *testing.T
	now    time.Time
	start  time.Time
	rand   *rand.Rand
	server *Server
	up     bool
	nodes  []*node
	queue  []packet
	serial int
	trace  []string

	delay     time.Duration
	jitter    time.Duration
	loss      float64
	duplicate float64
}

type node struct {
	*Client
	name   string
	key    identity.Key
	addr   Addr
	events []ClientEvent
	times  []time.Time
}

type packet struct {
	at     time.Time
	serial int
	to     *node // nil: the server
	addr   Addr  // of the client's end
	data   []byte
}

var epoch = time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)

func seed(n uint64) (s [32]byte) {
	binary.BigEndian.PutUint64(s[:], n)
	return s
}

func testServer(cfg ServerConfig) *Server {
	cfg.Key = identity.FromSeed(seed(1 << 32))
	if cfg.Secret == ([32]byte{}) {
		cfg.Secret = seed(99)
	}
	if cfg.MaxPeers == 0 {
		cfg.MaxPeers = 1 << 10
	}
	if cfg.MaxRelays == 0 {
		cfg.MaxRelays = 1 << 10
	}
	return NewServer(cfg)
}

func newWorld(t *testing.T, n uint64, cfg ServerConfig) *world {
	return &world{t: t, now: epoch, start: epoch, rand: rand.New(rand.NewPCG(n, 1)), server: testServer(cfg), up: true,
		delay: 10 * time.Millisecond}
}

func udp(text string) Addr { return Addr{Endpoint: netip.MustParseAddrPort(text)} }

func (w *world) node(name, at string) *node {
	key := identity.FromSeed(seed(uint64(len(w.nodes) + 1)))
	id := w.server.id
	n := &node{name: name, key: key, addr: udp(at), Client: NewClient(ClientConfig{
		Key: key, ServerID: &id, Rand: rand.NewPCG(w.rand.Uint64(), uint64(len(w.nodes))),
	})}
	w.nodes = append(w.nodes, n)
	return n
}

func (w *world) log(format string, args ...any) {
	w.trace = append(w.trace, fmt.Sprintf("%8.3fs ", w.now.Sub(w.start).Seconds())+fmt.Sprintf(format, args...))
}

func (w *world) put(p packet) {
	n := 1
	if w.rand.Float64() < w.duplicate {
		n = 2
	}
	for range n {
		if w.rand.Float64() < w.loss {
			continue
		}
		q := p
		q.data = bytes.Clone(p.data)
		q.at = w.now.Add(w.delay)
		if w.jitter > 0 {
			q.at = q.at.Add(time.Duration(w.rand.Int64N(int64(w.jitter))))
		}
		w.serial++
		q.serial = w.serial
		w.queue = append(w.queue, q)
	}
}

// flush takes what the machines have to say.
func (w *world) flush() {
	for _, n := range w.nodes {
		for b, ok := n.Poll(); ok; b, ok = n.Poll() {
			w.log("%s > %v", n.name, wire.Type(b[2]))
			w.put(packet{addr: n.addr, data: b})
		}
		for e, ok := n.Event(); ok; e, ok = n.Event() {
			n.events, n.times = append(n.events, e), append(n.times, w.now)
			w.log("%s ! %T", n.name, e)
		}
	}
	agree(w.server, w.now)
	for o, ok := w.server.Poll(); ok; o, ok = w.server.Poll() {
		for _, n := range w.nodes {
			if n.addr == o.To {
				w.log("S > %v to %s", wire.Type(o.Data[2]), n.name)
				w.put(packet{to: n, addr: o.To, data: o.Data})
			}
		}
	}
}

// run runs until done, or for d.
func (w *world) run(d time.Duration, done func() bool) bool {
	end := w.now.Add(d)
	for {
		w.flush()
		if done != nil && done() {
			return true
		}
		next := end
		timeout := func(t time.Time, ok bool) {
			if ok && t.Before(next) {
				next = t
			}
		}
		for _, n := range w.nodes {
			timeout(n.NextTimeout())
		}
		timeout(w.server.NextTimeout())
		slices.SortFunc(w.queue, func(a, b packet) int {
			return cmp.Or(a.at.Compare(b.at), cmp.Compare(a.serial, b.serial))
		})
		if len(w.queue) > 0 && !w.queue[0].at.After(next) {
			p := w.queue[0]
			w.queue = w.queue[1:]
			w.now = p.at
			w.deliver(p)
			continue
		}
		if next.Before(w.now) {
			next = w.now
		}
		if w.now = next; !next.Before(end) {
			return false
		}
		for _, n := range w.nodes {
			n.HandleTimeout(w.now)
		}
		w.server.HandleTimeout(w.now)
	}
}

func (w *world) deliver(p packet) {
	switch {
	case p.to == nil && w.up:
		w.server.HandlePacket(w.now, p.addr, p.data)
	case p.to != nil && p.to.addr == p.addr:
		p.to.HandlePacket(w.now, p.data)
	}
}

// restart is a new server with the same key, which knows nobody.
func (w *world) restart() {
	cfg := w.server.cfg
	cfg.Secret = seed(w.rand.Uint64())
	w.server = NewServer(cfg)
}

func last[E ClientEvent](n *node) (e E, ok bool) {
	for _, got := range slices.Backward(n.events) {
		if e, ok = got.(E); ok {
			return e, true
		}
	}
	return e, false
}

func count[E ClientEvent](n *node) (c int) {
	for _, got := range n.events {
		if _, ok := got.(E); ok {
			c++
		}
	}
	return c
}

func (n *node) registered() bool { return n.state == registered }

// ready registers all nodes.
func (w *world) ready() {
	w.t.Helper()
	for _, n := range w.nodes {
		n.Start(w.now)
	}
	if !w.run(time.Minute, func() bool {
		return !slices.ContainsFunc(w.nodes, func(n *node) bool { return !n.registered() })
	}) {
		w.t.Fatal("not all registered")
	}
}
