package dhcp

import (
	"cmp"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/bodkin-net/bodkin/internal/machine/nat/ip"
)

// network is a server and its clients, step by step: a wire that delays and
// loses, and a clock that jumps to what is next.
type network struct {
	t       *testing.T
	rnd     *rand.Rand
	now     time.Time
	server  *Server
	cfg     ServerConfig
	clients []*Client
	wire    []flight
	loss    float64
	order   int
	offline bool // the server

	acks, events int
}

type flight struct {
	at    time.Time
	order int
	from  *Client // nil: from the server
	pkt   []byte
}

func (n *network) put(from *Client, pkt []byte) {
	if n.rnd.Float64() < n.loss {
		return
	}
	n.order++
	n.wire = append(n.wire, flight{n.now.Add(time.Duration(1+n.rnd.IntN(20)) * time.Millisecond), n.order, from, pkt})
}

func (n *network) poll() {
	for _, c := range n.clients {
		for pkt, ok := c.Poll(); ok; pkt, ok = c.Poll() {
			n.put(c, pkt)
		}
		for e, ok := c.Event(); ok; e, ok = c.Event() {
			n.events++
			if e.Kind == GotAddress {
				n.server.Seen(n.now, e.Grant.Prefix.Addr().As4(), c.cfg.MAC)
			}
		}
	}
	for pkt, ok := n.server.Poll(); ok; pkt, ok = n.server.Poll() {
		n.put(nil, pkt)
	}
}

// step does what is next.
func (n *network) step() {
	n.poll()
	next := time.Time{}
	soonest := func(t time.Time, ok bool) {
		if ok && (next.IsZero() || t.Before(next)) {
			next = t
		}
	}
	for _, c := range n.clients {
		soonest(c.NextTimeout())
	}
	soonest(n.server.NextTimeout())
	slices.SortFunc(n.wire, func(a, b flight) int { return cmp.Or(a.at.Compare(b.at), a.order-b.order) })
	if len(n.wire) > 0 {
		soonest(n.wire[0].at, true)
	}
	if next.Before(n.now) {
		n.t.Fatalf("something was due %v ago", n.now.Sub(next))
	}
	n.now = next
	for _, c := range n.clients {
		c.HandleTimeout(n.now)
	}
	n.server.HandleTimeout(n.now)
	for len(n.wire) > 0 && !n.wire[0].at.After(n.now) {
		f := n.wire[0]
		n.wire = n.wire[1:]
		switch {
		case f.from == nil:
			for _, c := range n.clients {
				var p ip.Packet
				if g, ok := c.Grant(); p.Decode(f.pkt) == nil && (p.Dst.Addr() == everyone || ok && p.Dst.Addr() == g.Prefix.Addr()) && c.HandlePacket(n.now, f.pkt) {
					n.acks++
				}
			}
		case !n.offline:
			n.server.HandlePacket(n.now, f.from.cfg.MAC, f.pkt)
		}
	}
	n.check()
}

// check: no two clients have one address, and who has one has a lease of it.
func (n *network) check() {
	has := map[netip.Addr]MAC{}
	for _, c := range n.clients {
		g, ok := c.Grant()
		if !ok {
			continue
		}
		a := g.Prefix.Addr()
		if other, taken := has[a]; taken {
			n.t.Fatalf("%v: %v and %v both have %v", n.now, other, c.cfg.MAC, a)
		}
		has[a] = c.cfg.MAC
		if r := n.server.book.byAddr[a]; r == nil || r.state != leased || r.hw != c.cfg.MAC {
			n.t.Fatalf("%v: %v has %v without a lease: %+v", n.now, c.cfg.MAC, a, r)
		}
	}
}

func (n *network) run(d time.Duration) {
	for end := n.now.Add(d); n.now.Before(end); {
		n.step()
	}
}

func (n *network) bound() (count int) {
	for _, c := range n.clients {
		if _, ok := c.Grant(); ok {
			count++
		}
	}
	return count
}

// restart is a power cut: the server comes back with the text of its leases.
func (n *network) restart() {
	leases, err := ParseLeases(AppendLeases(nil, n.server.Leases()))
	if err != nil {
		n.t.Fatal(err)
	}
	if n.server, err = NewServer(n.cfg); err != nil {
		n.t.Fatal(err)
	}
	if left := n.server.Restore(n.now, leases); left != 0 {
		n.t.Errorf("%d leases left out", left)
	}
}

func newNetwork(t *testing.T, seed uint64, clients int, cfg ServerConfig) *network {
	n := &network{t: t, rnd: rand.New(rand.NewPCG(seed, 7)), now: epoch, cfg: cfg}
	var err error
	if n.server, err = NewServer(cfg); err != nil {
		t.Fatal(err)
	}
	for i := range clients {
		c, err := NewClient(n.now, ClientConfig{MAC: mac(i), Rand: rand.NewPCG(seed, uint64(100+i))})
		if err != nil {
			t.Fatal(err)
		}
		n.clients = append(n.clients, c)
	}
	return n
}

// Clients that come, go, crash and renew over a wire that loses a tenth, with a
// server that is now and then away or restarted: never two with one address,
// and all have one whenever it is quiet.
func TestServerAndClients(t *testing.T) {
	for seed := range uint64(5) {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			cfg := small(30)
			cfg.Lease = 2 * time.Minute
			cfg.Probe = seed == 4
			n := newNetwork(t, seed, 30, cfg)
			n.run(time.Minute)
			if n.bound() != 30 {
				t.Errorf("%d of 30 have an address", n.bound())
			}
			n.loss = 0.1
			for range 200 {
				n.run(time.Duration(n.rnd.Int64N(int64(30 * time.Second))))
				c := n.clients[n.rnd.IntN(30)]
				switch n.rnd.IntN(6) {
				case 0:
					c.Release(n.now)
				case 1:
					c.Reboot(n.now)
				case 2:
					n.restart()
				case 3:
					n.offline = !n.offline
				case 4:
					n.server.book.check(t)
				default:
					c.Start(n.now)
				}
			}
			n.loss, n.offline = 0, false
			for _, c := range n.clients {
				c.Start(n.now)
			}
			n.run(5 * time.Minute)
			if n.bound() != 30 {
				t.Errorf("%d of 30 have an address in the end", n.bound())
			}
			for e, ok := n.server.Event(); ok; e, ok = n.server.Event() {
				if e.Kind == Stolen {
					t.Errorf("%v is called a thief of %v", e.User, e.Addr)
				}
			}
		})
	}
}

// More clients than addresses: the addresses are all used, and when one is
// given back somebody else gets it.
func TestMoreClientsThanAddresses(t *testing.T) {
	n := newNetwork(t, 1, 12, small(10))
	n.run(3 * time.Minute)
	if n.bound() != 10 {
		t.Fatalf("%d of 10 addresses are used", n.bound())
	}
	n.clients[0].Release(n.now)
	n.run(3 * time.Minute)
	if n.bound() != 10 {
		t.Error("nobody got the address that was given back")
	}
}

// The same seed is the same run.
func TestRunsRepeat(t *testing.T) {
	run := func() string {
		n := newNetwork(t, 3, 20, small(15))
		n.loss = 0.2
		n.run(2 * time.Hour)
		return fmt.Sprint(n.now, n.acks, n.events, n.order, n.server.Leases())
	}
	if a, b := run(), run(); a != b {
		t.Errorf("%s\n%s", a, b)
	}
}
