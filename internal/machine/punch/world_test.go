package punch

import (
	"container/heap"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/bodkin-net/bodkin/internal/machine/nat"
	"github.com/bodkin-net/bodkin/internal/wire/signal"
	"github.com/bodkin-net/bodkin/internal/wire/stun"
)

// A world is networks, gateways and hosts in virtual time: just enough of a
// model to run two machines against each other.
type world struct {
	now    time.Time
	queue  flights
	seq    int
	rand   *rand.Rand
	hosts  []*host
	trace  []string
	server netip.AddrPort
}

var epoch = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

func newWorld(seed uint64) *world {
	return &world{now: epoch, rand: rand.New(rand.NewPCG(seed, 1)), server: ep("203.0.113.1:3478")}
}

type flight struct {
	at  time.Time
	seq int
	do  func()
}

type flights []flight

func (f flights) Len() int { return len(f) }
func (f flights) Less(i, j int) bool {
	return f[i].at.Before(f[j].at) || f[i].at.Equal(f[j].at) && f[i].seq < f[j].seq
}
func (f flights) Swap(i, j int) { f[i], f[j] = f[j], f[i] }
func (f *flights) Push(x any)   { *f = append(*f, x.(flight)) }
func (f *flights) Pop() any {
	x := (*f)[len(*f)-1]
	*f = (*f)[:len(*f)-1]
	return x
}

func (w *world) after(d time.Duration, do func()) {
	w.seq++
	heap.Push(&w.queue, flight{w.now.Add(d), w.seq, do})
}

// network is a broadcast domain, or the internet.
type network struct {
	w         *world
	delay     time.Duration
	jitter    time.Duration
	loss, dup float64
	mtu       int // of UDP payloads; 0 is unlimited
	up        *gateway
	down      []*gateway
	hosts     []*host
}

// gateway translates IPv4 and firewalls IPv6.
type gateway struct {
	b               nat.Behaviour
	addr            netip.Addr
	inside, outside *network
	out             map[[2]netip.AddrPort]netip.AddrPort
	in              map[netip.AddrPort]netip.AddrPort
	permitted       map[[2]netip.AddrPort]bool // external endpoint or IPv6 source, remote
	port            uint16
}

func (w *world) gateway(outside *network, addr string, b nat.Behaviour, delay time.Duration) *network {
	g := &gateway{
		b: b, addr: netip.MustParseAddr(addr), outside: outside, inside: &network{w: w, delay: delay},
		out:       map[[2]netip.AddrPort]netip.AddrPort{},
		in:        map[netip.AddrPort]netip.AddrPort{},
		permitted: map[[2]netip.AddrPort]bool{},
		port:      60000,
	}
	g.inside.up = g
	outside.down = append(outside.down, g)
	return g.inside
}

type host struct {
	name   string
	w      *world
	net    *network
	addrs  []netip.Addr
	port   uint16
	m      *Machine
	handle func(from netip.AddrPort, to netip.Addr, b []byte) // instead of m
	events []Event
	at     []time.Duration // of events, since epoch
	sent   map[netip.Addr]int
	tap    func(in bool, b []byte) // sees what leaves
}

func (w *world) host(n *network, name string, addrs ...string) *host {
	h := &host{name: name, w: w, net: n, port: 4000 + uint16(len(w.hosts)), sent: map[netip.Addr]int{}}
	for _, a := range addrs {
		h.addrs = append(h.addrs, netip.MustParseAddr(a))
	}
	n.hosts = append(n.hosts, h)
	w.hosts = append(w.hosts, h)
	return h
}

func (n *network) has(a netip.Addr) *host {
	for _, h := range n.hosts {
		for _, x := range h.addrs {
			if x == a {
				return h
			}
		}
	}
	return nil
}

// send carries a datagram over n.
func (n *network) send(from, to netip.AddrPort, b []byte) {
	w := n.w
	if n.mtu != 0 && len(b) > n.mtu {
		return
	}
	copies := 1
	if n.dup > 0 && w.rand.Float64() < n.dup {
		copies = 2
	}
	b = append([]byte(nil), b...)
	for range copies {
		if n.loss > 0 && w.rand.Float64() < n.loss {
			continue
		}
		d := n.delay
		if n.jitter > 0 {
			d += time.Duration(w.rand.Int64N(int64(n.jitter)))
		}
		w.after(d, func() { n.arrive(from, to, b) })
	}
}

func (n *network) arrive(from, to netip.AddrPort, b []byte) {
	if h := n.has(to.Addr()); h != nil {
		if h.handle != nil {
			h.handle(from, to.Addr(), b)
		} else if h.m != nil && to.Port() == h.port {
			if h.tap != nil {
				h.tap(true, b)
			}
			h.m.HandlePacket(n.w.now, from, b)
		}
		return
	}
	for _, g := range n.down {
		if g.addr == to.Addr() || to.Addr().Is6() && g.inside.has(to.Addr()) != nil {
			g.inbound(from, to, b)
			return
		}
	}
	if n.up != nil {
		n.up.outbound(from, to, b)
	}
}

func (g *gateway) outbound(from, to netip.AddrPort, b []byte) {
	if to.Addr().Is6() {
		g.permitted[[2]netip.AddrPort{from, to}] = true
		g.outside.send(from, to, b)
		return
	}
	ext := g.external(from, to)
	if to.Addr() != g.addr {
		g.outside.send(ext, to, b)
		return
	}
	switch g.b.Hairpin {
	case nat.HairpinExternalSource:
		g.inbound(ext, to, b)
	case nat.HairpinInternalSource:
		if dst, ok := g.in[to]; ok {
			g.inside.send(from, dst, b)
		}
	}
}

func depends(d nat.Dependence, remote netip.AddrPort) netip.AddrPort {
	switch d {
	case nat.AddressDependent:
		return netip.AddrPortFrom(remote.Addr(), 0)
	case nat.AddressAndPortDependent:
		return remote
	}
	return netip.AddrPort{}
}

func (g *gateway) external(from, to netip.AddrPort) netip.AddrPort {
	k := [2]netip.AddrPort{from, depends(g.b.Mapping, to)}
	ext, ok := g.out[k]
	if !ok {
		g.port++
		ext = netip.AddrPortFrom(g.addr, g.port)
		g.out[k], g.in[ext] = ext, from
	}
	g.permitted[[2]netip.AddrPort{ext, depends(g.b.Filtering, to)}] = true
	return ext
}

func (g *gateway) inbound(from, to netip.AddrPort, b []byte) {
	if to.Addr().Is6() {
		if g.permitted[[2]netip.AddrPort{to, from}] {
			g.inside.send(from, to, b)
		}
		return
	}
	dst, ok := g.in[to]
	if ok && g.permitted[[2]netip.AddrPort{to, depends(g.b.Filtering, from)}] {
		g.inside.send(from, dst, b)
	}
}

// mapped registers h at the server and returns its endpoint there.
func (h *host) mapped() netip.AddrPort {
	for _, a := range h.addrs {
		if !a.Is4() {
			continue
		}
		e := netip.AddrPortFrom(a, h.port)
		for n := h.net; n.up != nil; n = n.up.outside {
			e = n.up.external(e, h.w.server)
		}
		return e
	}
	return netip.AddrPort{}
}

func (h *host) candidates(reflexiveOnly bool) []signal.Candidate {
	var out []signal.Candidate
	if !reflexiveOnly {
		for _, a := range h.addrs {
			out = append(out, signal.Candidate{Kind: signal.Host, Transport: signal.UDP, Endpoint: netip.AddrPortFrom(a, h.port)})
		}
	}
	if m := h.mapped(); m.IsValid() && h.net.has(m.Addr()) == nil {
		out = append(out, signal.Candidate{Kind: signal.ServerReflexive, Transport: signal.UDP, Endpoint: m})
	}
	return out
}

func (h *host) sendRaw(to netip.AddrPort, b []byte) {
	for _, a := range h.addrs {
		if a.Is4() == to.Addr().Is4() {
			h.sent[to.Addr()]++
			h.net.send(netip.AddrPortFrom(a, h.port), to, b)
			return
		}
	}
}

func (h *host) since() time.Duration { return h.w.now.Sub(epoch) }

func (h *host) flush() {
	if h.m == nil {
		return
	}
	for s, ok := h.m.Poll(); ok; s, ok = h.m.Poll() {
		h.w.trace = append(h.w.trace, fmt.Sprintf("%6s %s > %-21v %s", h.since().Round(time.Millisecond/10), h.name, s.To, describe(s.Data)))
		if h.tap != nil {
			h.tap(false, s.Data)
		}
		h.sendRaw(s.To, s.Data)
	}
	for e, ok := h.m.Event(); ok; e, ok = h.m.Event() {
		h.events = append(h.events, e)
		h.at = append(h.at, h.since())
		h.w.trace = append(h.w.trace, fmt.Sprintf("%6s %s : %T %+v", h.since().Round(time.Millisecond/10), h.name, e, e))
	}
}

func describe(b []byte) string {
	m, err := stun.Parse(b)
	if err != nil {
		return "garbage"
	}
	s := "check"
	if m.Type == stun.BindingSuccess {
		s = "answer"
	}
	if len(b) >= FullSize {
		s = "full-size " + s
	}
	if m.Has(stun.UseCandidate) {
		s += ", nominating"
	}
	return s
}

// run lets time pass until the given moment after the epoch.
func (w *world) run(until time.Duration) {
	end := epoch.Add(until)
	for {
		for _, h := range w.hosts {
			h.flush()
		}
		next := end
		for _, h := range w.hosts {
			if h.m != nil {
				if t, _ := h.m.NextTimeout(); !t.IsZero() && t.Before(next) {
					next = t
				}
			}
		}
		if len(w.queue) > 0 && !w.queue[0].at.After(next) {
			f := heap.Pop(&w.queue).(flight)
			w.now = later(w.now, f.at)
			f.do()
			continue
		}
		if !next.Before(end) {
			w.now = end
			return
		}
		w.now = later(w.now, next)
		for _, h := range w.hosts {
			if h.m == nil {
				continue
			}
			if t, _ := h.m.NextTimeout(); !t.IsZero() && !t.After(w.now) {
				h.m.HandleTimeout(w.now)
				if u, why := h.m.NextTimeout(); !u.IsZero() && !u.After(w.now) {
					panic(fmt.Sprintf("%s: HandleTimeout left %q due", h.name, why))
				}
			}
		}
	}
}

var (
	attempt = [8]byte{1, 2, 3, 4, 5, 6, 7, 8}
	key     = [32]byte{42}
)

// begin gives h a machine that tries the candidates.
func (h *host) begin(offerer bool, remote []signal.Candidate) {
	seed := [32]byte{1, byte(h.port), byte(h.port >> 8), byte(h.w.rand.Uint32())}
	h.m = New(h.w.now, Config{
		Offerer: offerer, Attempt: attempt, Key: key, Remote: remote,
		Mapped: h.mapped(), Server: h.w.server, Local: h.addrs, Seed: seed,
	})
}

// path is the last nominated path, and when it came.
func (h *host) path() (p PathUp, at time.Duration, ok bool) {
	for i, e := range h.events {
		switch e := e.(type) {
		case PathUp:
			p, at, ok = e, h.at[i], true
		case PathDown, Failed:
			ok = false
		}
	}
	return p, at, ok
}

func (h *host) failed() (Failed, time.Duration, bool) {
	for i, e := range h.events {
		if f, ok := e.(Failed); ok {
			return f, h.at[i], true
		}
	}
	return Failed{}, 0, false
}

func (h *host) mustPath(t *testing.T, want Technique) (PathUp, time.Duration) {
	t.Helper()
	p, at, ok := h.path()
	if !ok || p.Technique != want {
		t.Fatalf("%s: path %v %+v, want %s\n%s", h.name, ok, p, want, strings.Join(h.w.trace, "\n"))
	}
	return p, at
}

func ep(s string) netip.AddrPort { return netip.MustParseAddrPort(s) }

var (
	portRestricted = nat.Behaviour{Filtering: nat.AddressAndPortDependent}
	symmetric      = nat.Behaviour{Mapping: nat.AddressAndPortDependent, Filtering: nat.AddressAndPortDependent}
)

const oneWay = 40 * time.Millisecond

// differentNATs is two hosts behind a NAT each.
func differentNATs(seed uint64, ba, bb nat.Behaviour) (w *world, inet *network, a, b *host) {
	w = newWorld(seed)
	inet = &network{w: w, delay: oneWay}
	a = w.host(w.gateway(inet, "198.51.100.1", ba, 0), "a", "10.0.0.2")
	b = w.host(w.gateway(inet, "198.51.100.2", bb, 0), "b", "10.1.0.2")
	return w, inet, a, b
}
