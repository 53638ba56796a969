package nat

import (
	"bytes"
	"flag"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/bodkin-net/bodkin/internal/machine/nat/ip"
)

var walks = flag.Int("walks", 1, "random walks of a million steps against the reference")

// The gateway agrees with the reference on every packet, every change and all
// that is remembered, on long walks through behaviours, packets and time. What
// goes the short way through the gateway comes out as from the long one.
func TestRandomWalkAgainstReference(t *testing.T) {
	steps, each := 1_000_000, 2000
	if testing.Short() {
		steps = 100_000
	}
	for seed := range *walks {
		for leg := range steps / each {
			r := rand.New(rand.NewPCG(uint64(seed), uint64(leg)))
			w := newWalk(t, r)
			for step := range each {
				if err := w.step(); err != nil {
					t.Fatalf("seed %d, leg %d, step %d, at %v: %v\n%+v", seed, leg, step, w.now, err, w.ref.cfg.Behaviour)
				}
			}
			if left := w.end(); left != "" {
				t.Fatalf("seed %d, leg %d: left behind: %s\n%+v", seed, leg, left, w.ref.cfg.Behaviour)
			}
		}
	}
}

// walk is a gateway and its reference on their way.
type walk struct {
	r    *rand.Rand
	now  time.Time
	g    *Gateway
	slow *Gateway // the same, without the short way
	ref  *reference

	inside, dmz, outside []netip.Addr
	externals            []netip.Addr // all that there ever are
}

func pick[T any](r *rand.Rand, all ...T) T { return all[r.IntN(len(all))] }

func addrs(all ...string) (a []netip.Addr) {
	for _, s := range all {
		a = append(a, netip.MustParseAddr(s))
	}
	return a
}

func newWalk(t *testing.T, r *rand.Rand) *walk {
	w := &walk{
		r: r, now: time.Unix(1_000_000, 0),
		inside:    addrs("10.0.0.1", "10.0.0.2", "10.0.0.9", "2001:db8:1::1"),
		dmz:       addrs("172.16.0.1", "172.16.0.9", "2001:db8:d::1"),
		outside:   addrs("192.0.2.1", "192.0.2.9", "2001:db8:2::1", "2001:db8:3::1"),
		externals: addrs("198.51.100.1", "198.51.100.2", "198.51.100.3")[:1+r.IntN(3)],
	}
	cfg := Config{Behaviour: anyBehaviour(r), MaxMappings: pick(r, 6, 20, 1000)}
	cfg.Inside = []netip.Prefix{netip.MustParsePrefix("10.0.0.0/24"), netip.MustParsePrefix("2001:db8:1::/64")}
	cfg.DMZ = []netip.Prefix{netip.MustParsePrefix("172.16.0.0/24"), netip.MustParsePrefix("2001:db8:d::/64")}
	cfg.Own[Inside] = addrs("10.0.0.254")
	cfg.Own[DMZ] = addrs("172.16.0.254")
	cfg.Own[Outside] = append(slices.Clone(w.externals), netip.MustParseAddr("2001:db8:f::1"))
	if cfg.Mode == Translate && r.IntN(2) == 0 {
		cfg.Static = []Static{
			{netip.MustParseAddr("10.0.0.9"), netip.MustParseAddr("198.51.100.9")},
			{netip.MustParseAddr("172.16.0.9"), netip.MustParseAddr("198.51.100.8")},
		}
	}
	seed := r.Uint64()
	for _, g := range []**Gateway{&w.g, &w.slow} {
		cfg.Rand = rand.NewPCG(seed, 0)
		var err error
		if *g, err = New(cfg); err != nil {
			t.Fatalf("%v\n%+v", err, cfg.Behaviour)
		}
	}
	w.slow.fast = false
	w.ref = &reference{
		cfg: cfg, last: make(map[any]uint16), external: make(map[netip.Addr]netip.Addr), block: make(map[netip.Addr]uint16),
		guests: make(map[refGuest]*refSession),
		learn:  w.learn,
	}
	w.ref.cfg.Own[Outside] = slices.Clone(cfg.Own[Outside])
	return w
}

// anyBehaviour draws one that New takes.
func anyBehaviour(r *rand.Rand) Behaviour {
	b := Behaviour{
		Mapping:   Dependence(r.IntN(4)),
		Filtering: Dependence(r.IntN(3)),
		Hairpin:   Hairpin(r.IntN(3)),
		Pooling:   Pooling(r.IntN(2)),
		Timers:    Timers{UDP: time.Minute, UDPRefresh: Refresh(r.IntN(3)), PerSession: r.IntN(2) == 0},
	}
	if r.IntN(5) == 0 {
		b.Mode = Firewall
	}
	if r.IntN(3) == 0 {
		b.TCPPolicy = &Policy{Dependence(r.IntN(4)), Dependence(r.IntN(3)), Hairpin(r.IntN(3))}
	}
	switch r.IntN(4) {
	case 0: // of all lengths, for the timing wheel
		any := func() time.Duration { return 1 + time.Duration(r.Int64N(1<<(1+r.IntN(50)))) }
		b.Timers = Timers{UDP: any(), ICMP: any(), Transitory: any(), Established: any(), AfterFIN: any(), AfterRST: any(), PerSession: b.Timers.PerSession}
	case 1:
		b.Timers = Timers{UDP: 20 * time.Second, ICMP: 7 * time.Second, Transitory: 30 * time.Second,
			Established: 20 * time.Minute, AfterFIN: 10 * time.Second, AfterRST: 5 * time.Second, PerSession: b.Timers.PerSession}
	}
	if r.IntN(4) == 0 {
		b.Timers.UDPUnanswered = pick(r, time.Second, 15*time.Second, 10*time.Minute)
	}
	b.TCP.RSTCloses = r.IntN(4) == 0
	p := &b.Ports
	p.Allocation = Allocation(r.IntN(5))
	switch r.IntN(3) {
	case 0: // few ports, and a chance to see them all taken
		p.First = 5000
		p.Last = p.First + uint16(pick(r, 3, 7, 30))
	case 1:
		p.First = uint16(1024 + r.IntN(4000))
	}
	p.Delta = pick(r, 0, 1, 2, 3, -1, -2, 17)
	p.Parity = r.IntN(5) == 0
	if r.IntN(4) == 0 && p.Last != 0 {
		p.Block = pick(r, 1, 2, 4)
	}
	if r.IntN(4) == 0 {
		p.HoldDown = pick(r, time.Second, 2*time.Minute)
	}
	if r.IntN(4) == 0 {
		p.PerHost = pick(r, 1, 3, 6)
	}
	if r.IntN(8) == 0 {
		p.Rate = 1 << 30 // which binds nobody, but is kept account of
	}
	b.SymmetricOnConflict = r.IntN(4) == 0
	if r.IntN(3) == 0 {
		p.Overload, p.HoldDown, b.SymmetricOnConflict = true, 0, false
		strict := func(p *Policy) {
			p.Mapping = pick(r, AddressDependent, AddressAndPortDependent, PerConnection)
			p.Filtering = AddressAndPortDependent
			if p.Mapping == AddressDependent {
				p.Filtering = pick(r, AddressDependent, AddressAndPortDependent)
			}
		}
		all := Policy{Hairpin: b.Hairpin}
		strict(&all)
		b.Mapping, b.Filtering = all.Mapping, all.Filtering
		if b.TCPPolicy != nil && r.IntN(2) == 0 {
			strict(b.TCPPolicy)
		} else if b.TCPPolicy != nil {
			b.TCPPolicy.Mapping = EndpointIndependent
		}
	}
	if r.IntN(4) == 0 {
		b.Rules = []Rule{
			{Action: Discard, From: SidesOf(Inside), To: SidesOf(Outside), Protocol: ip.UDP, DstPorts: []PortRange{{2222, 2222}}},
			{Action: Accept, From: SidesOf(Outside), To: SidesOf(DMZ), DstPorts: []PortRange{{80, 80}}},
			{Action: Accept, From: SidesOf(DMZ), To: SidesOf(Inside), DstPorts: []PortRange{{1000, 5001}}},
			{Action: Reject, To: SidesOf(Inside), Src: []netip.Prefix{netip.MustParsePrefix("192.0.2.9/32")}, Protocol: ip.TCP},
			{Action: Discard, From: SidesOf(DMZ), To: SidesOf(Local)},
		}
	}
	return b
}

// learn finds a mapping in the gateway that the reference is about to make.
func (w *walk) learn(m *refMapping) netip.AddrPort {
	for _, c := range w.g.Mappings(w.now) {
		if c.Proto != m.proto || c.Side != m.side || c.Internal != m.internal || c.Remote != m.whom || c.Explicit != (m.wide != 0) ||
			!w.ref.isExternal(c.External.Addr()) {
			continue
		}
		if !slices.ContainsFunc(w.ref.mappings, func(o *refMapping) bool {
			return o.proto == c.Proto && o.internal == c.Internal && o.whom == c.Remote && o.external == c.External && o.side == c.Side
		}) {
			return c.External
		}
	}
	return netip.AddrPort{}
}

func (w *walk) step() error {
	gaps := []time.Duration{0, 0, 0, 0, 0, 1, time.Millisecond, time.Second, 5 * time.Second, 5 * time.Second, 20 * time.Second, time.Minute}
	switch w.r.IntN(20) {
	case 0:
		w.now = w.now.Add(time.Duration(w.r.Int64N(1 << (1 + w.r.IntN(45)))))
	case 1: // exactly when something ends, or just before
		if next, ok := w.g.NextTimeout(); ok && next.After(w.now) {
			w.now = next.Add(-time.Duration(w.r.IntN(2)))
		}
	default:
		w.now = w.now.Add(pick(w.r, gaps...))
	}
	if w.r.IntN(200) == 0 {
		w.now = w.now.Add(2 * time.Hour)
	}
	w.ref.forget(w.now)
	var err error
	switch n := w.r.IntN(200); {
	case n < 4:
		err = w.mapPort()
	case n < 6:
		err = w.unmapPort()
	case n == 6:
		w.setOwn()
	case n == 7:
		w.g.HandleTimeout(w.now)
		next, ok := w.g.NextTimeout()
		if end, ends := w.ref.next(); ok && !next.After(w.now) || ends && (!ok || next.After(end)) {
			err = fmt.Errorf("the next timeout is at %v, %v, but something ends at %v, %v", next, ok, end, ends)
		}
	default:
		err = w.packet()
	}
	if err != nil {
		return err
	}
	w.g.advance(w.now)
	if s := w.g.Stats(); s.Mappings != len(w.ref.mappings) || s.Sessions != w.ref.used() {
		return fmt.Errorf("%d mappings, %d sessions; want %d, %d: %v", s.Mappings, s.Sessions, len(w.ref.mappings), w.ref.used(), w.differ())
	}
	if w.r.IntN(50) == 0 {
		return w.differ()
	}
	return nil
}

// end says what is left of the gateway's memory when all has expired.
func (w *walk) end() string {
	g := w.g
	for _, m := range g.Mappings(w.now) {
		if m.Explicit {
			g.Unmap(w.now, m.Proto, m.External)
		}
	}
	g.HandleTimeout(w.now.Add(1000 * 24 * time.Hour))
	var left []string
	for what, n := range map[string]int{
		"mappings": g.mappings.used, "sessions": g.sessionsUsed(), "hosts": g.hosts.slab.used, "IPv6 addresses": g.six.slab.used,
		"listed": g.byInternal.used, "sharing": g.byShared.used, "listed sessions": g.bySession.used, "listed hosts": g.hosts.index.used,
		"explicit": g.wides, "grants": len(g.grants), "seconds": len(g.seconds), "symmetric": g.symmetrics,
		"owners": len(g.owners), "guests": len(g.guests), "resting": len(g.held),
	} {
		if n != 0 {
			left = append(left, fmt.Sprint(n, " ", what))
		}
	}
	for _, e := range g.externals {
		for _, p := range e.pools {
			if p != nil {
				p.eachTaken(func(port uint16) { left = append(left, fmt.Sprint("port ", port)) })
			}
		}
		if slices.ContainsFunc(e.blocks, func(word uint64) bool { return word != 0 }) {
			left = append(left, "blocks of ports")
		}
	}
	if at, ok := g.NextTimeout(); ok {
		left = append(left, fmt.Sprint("something at ", at))
	}
	slices.Sort(left)
	return strings.Join(left, ", ")
}

// differ compares all that is remembered.
func (w *walk) differ() error {
	var got []string
	for _, m := range w.g.Mappings(w.now) {
		got = append(got, line(m))
	}
	slices.Sort(got)
	want := w.ref.list()
	if slices.Equal(got, want) {
		return nil
	}
	s := "remembered:"
	for _, l := range got {
		if !slices.Contains(want, l) {
			s += "\n  got  " + l
		}
	}
	for _, l := range want {
		if !slices.Contains(got, l) {
			s += "\n  want " + l
		}
	}
	return fmt.Errorf("%s", s)
}

func (w *walk) port() uint16   { return pick[uint16](w.r, 5000, 5000, 5001, 80) }
func (w *walk) remote() uint16 { return pick[uint16](w.r, 1111, 2222) }

// known is an external endpoint that is in use, perhaps, of IPv4 or IPv6 hosts.
func (w *walk) known() netip.AddrPort {
	if n := len(w.ref.mappings); n > 0 && w.r.IntN(5) > 0 {
		if at := w.ref.mappings[w.r.IntN(n)].external; at.Port() != 0 {
			return at
		}
	}
	a := pick(w.r, append(append(slices.Clone(w.externals), w.dmz...), addrs("198.51.100.9", "198.51.100.8", "10.0.0.1", "2001:db8:1::1", "2001:db8:f::1")...)...)
	return netip.AddrPortFrom(a, pick[uint16](w.r, 5000, 5001, 5002, 80))
}

// packet sends one, and compares what becomes of it.
func (w *walk) packet() error {
	p := refPacket{
		from:  pick(w.r, Inside, Inside, Inside, Outside, Outside, Outside, DMZ, Local),
		proto: pick(w.r, ip.UDP, ip.TCP, ip.TCP, ip.ICMP),
		flags: pick[uint8](w.r, ip.SYN, ip.SYN, ip.SYN, ip.SYN|ip.ACK, ip.ACK, ip.ACK, ip.FIN|ip.ACK, ip.RST),
		seq:   pick[uint32](w.r, 1000, 1000, 2000),
		ttl:   64,
	}
	remote := func() netip.AddrPort { return netip.AddrPortFrom(pick(w.r, w.outside...), w.remote()) }
	switch p.from {
	case Inside:
		p.src = netip.AddrPortFrom(pick(w.r, w.inside...), w.port())
		p.dst = pick(w.r, remote(), remote(), remote(), w.known(), netip.AddrPortFrom(pick(w.r, w.dmz...), 80), netip.AddrPortFrom(netip.MustParseAddr("10.0.0.254"), 80))
	case DMZ:
		p.src = netip.AddrPortFrom(pick(w.r, w.dmz...), w.port())
		p.dst = pick(w.r, remote(), w.known(), netip.AddrPortFrom(pick(w.r, w.inside...), w.port()), netip.AddrPortFrom(netip.MustParseAddr("172.16.0.254"), 80))
	case Outside:
		p.src, p.dst = pick(w.r, remote(), remote(), remote(), remote(), remote(), remote(), remote(), w.known()), w.known()
	case Local:
		p.src = netip.AddrPortFrom(pick(w.r, w.ref.cfg.Own[Outside]...), w.port())
		p.dst = pick(w.r, remote(), remote(), netip.AddrPortFrom(pick(w.r, w.inside...), w.port()))
	}
	if p.src.Addr().Is4() != p.dst.Addr().Is4() {
		return nil
	}
	if w.r.IntN(16) == 0 {
		p.ttl = 1
	}
	buf := w.build(&p)
	copied := bytes.Clone(buf)
	if w.r.IntN(2) == 0 {
		w.g.Expect(p.from, buf)
	}
	v := w.g.Handle(w.now, p.from, buf, Offload{})
	if again := w.slow.Handle(w.now, p.from, copied, Offload{}); again != v || !bytes.Equal(buf, copied) {
		return fmt.Errorf("%+v: %+v %x the short way, %+v %x the long one", p, v, buf, again, copied)
	}
	for {
		a, ok := w.g.Poll()
		b, _ := w.slow.Poll()
		if a.To != b.To || !bytes.Equal(a.Packet, b.Packet) {
			return fmt.Errorf("%+v: the two gateways say %x and %x", p, a.Packet, b.Packet)
		}
		if !ok {
			break
		}
	}
	want, err := w.ref.handle(p)
	if err != nil {
		return fmt.Errorf("%+v: %+v: %w", p, v, err)
	}
	if v.Reason != want.reason || v.Action == Forward && v.To != want.to {
		return fmt.Errorf("%+v: %+v, want %+v", p, v, want)
	}
	if v.Action != Forward {
		return nil
	}
	var out ip.Packet
	if err := out.Decode(buf); err != nil || !out.ChecksumOK() {
		return fmt.Errorf("%+v became %x: %v", p, buf, err)
	}
	if out.Src != want.src || out.Dst != want.dst {
		return fmt.Errorf("%+v became %v > %v, want %v > %v", p, out.Src, out.Dst, want.src, want.dst)
	}
	return nil
}

// build makes the packet; an ICMP one has an identifier in the place of one of
// the ports.
func (w *walk) build(p *refPacket) []byte {
	switch p.proto {
	case ip.UDP:
		return ip.AppendUDP(nil, p.src, p.dst, p.ttl, []byte("x"))
	case ip.TCP:
		return ip.AppendTCP(nil, p.src, p.dst, p.ttl, &ip.Segment{Flags: p.flags, Seq: p.seq})
	}
	if p.kind = ip.EchoRequest; w.r.IntN(2) == 0 {
		p.kind = ip.EchoReply
		p.src = netip.AddrPortFrom(p.src.Addr(), 0)
		return ip.AppendEcho(nil, p.src.Addr(), p.dst.Addr(), p.ttl, p.kind, p.dst.Port(), 1, nil)
	}
	p.dst = netip.AddrPortFrom(p.dst.Addr(), 0)
	return ip.AppendEcho(nil, p.src.Addr(), p.dst.Addr(), p.ttl, p.kind, p.src.Port(), 1, nil)
}

func (w *walk) mapPort() error {
	want := Request{
		Proto:    pick(w.r, ip.UDP, ip.TCP),
		Internal: netip.AddrPortFrom(pick(w.r, append(slices.Clone(w.inside), w.dmz...)...), w.port()),
		Any:      w.r.IntN(2) == 0,
		Replace:  w.r.IntN(2) == 0,
		Lifetime: pick(w.r, 0, time.Second, time.Minute, time.Hour),
	}
	if w.r.IntN(2) == 0 && w.ref.cfg.Ports.Block == 0 {
		want.External = netip.AddrPortFrom(netip.Addr{}, pick[uint16](w.r, 5000, 5001, 7777))
	}
	if w.r.IntN(3) == 0 {
		want.Remotes = []Remotes{{netip.MustParsePrefix("192.0.2.1/32"), pick[uint16](w.r, 0, 1111)}}
	}
	w.g.HandleTimeout(w.now)
	counterpart := w.g.External(want.Internal.Addr())
	got, err := w.g.Map(w.now, want)
	w.slow.Map(w.now, want)
	m, ok, wrong := w.ref.mapPort(want, counterpart)
	if wrong != nil {
		return fmt.Errorf("map %+v: %v: %w", want, err, wrong)
	}
	if ok != (err == nil) {
		return fmt.Errorf("map %+v: %v, want %v", want, err, ok)
	}
	if ok && got.External != m.external {
		return fmt.Errorf("map %+v: %v, want %v", want, got.External, m.external)
	}
	return nil
}

func (w *walk) unmapPort() error {
	proto, at := pick(w.r, ip.UDP, ip.TCP), w.known()
	w.slow.Unmap(w.now, proto, at)
	if got, want := w.g.Unmap(w.now, proto, at), w.ref.unmap(proto, at); got != want {
		return fmt.Errorf("unmap %v %v: %v, want %v", proto, at, got, want)
	}
	return nil
}

// setOwn takes away an external address, or gives it back.
func (w *walk) setOwn() {
	own := []netip.Addr{netip.MustParseAddr("2001:db8:f::1")}
	for _, a := range w.externals {
		if w.r.IntN(3) > 0 {
			own = append(own, a)
		}
	}
	w.g.SetOwn(w.now, Outside, own)
	w.slow.SetOwn(w.now, Outside, own)
	w.ref.setOwn(own)
}
