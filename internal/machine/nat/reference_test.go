package nat

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/bodkin-net/bodkin/internal/machine/nat/ip"
)

// reference is the gateway again, as slow and plain as possible: it keeps the
// whole history of every mapping and looks through all of it for each packet.
type reference struct {
	b        Behaviour
	mappings []*refMapping
	last     map[ip.Proto]uint16 // Sequential
}

type refMapping struct {
	proto              ip.Proto
	internal, external netip.AddrPort
	remote             netip.AddrPort // of the packet that made it
	udp                []refSent
	tcp                []*refConn
}

type refSent struct {
	to netip.AddrPort
	at time.Time
}

type refConn struct {
	remote  netip.AddrPort
	history []refSegment
}

type refSegment struct {
	out   bool
	flags uint8
	at    time.Time
}

func agree(d Dependence, a, b netip.AddrPort) bool {
	return d == EndpointIndependent || d == AddressDependent && a.Addr() == b.Addr() || a == b
}

// alive replays a connection and says whether it is still remembered.
func (c *refConn) alive(now time.Time) bool {
	established := false
	var syn, fin [2]bool
	dead := false
	var until time.Time
	for _, s := range c.history {
		i := 0
		if s.out {
			i = 1
		}
		switch {
		case s.flags&ip.RST != 0:
			dead = true
		case s.flags&(ip.SYN|ip.ACK) == ip.SYN && (dead || fin[0] && fin[1]):
			syn, fin, dead, established = [2]bool{}, [2]bool{}, false, false
			syn[i] = true
		case s.flags&ip.SYN != 0:
			syn[i] = true
		default:
			dead = false // that RST was not the end
			if syn[0] && syn[1] {
				established = true
			}
			if s.flags&ip.FIN != 0 {
				fin[i] = true
			}
		}
		timeout := 4 * time.Minute
		if established && !dead && !(fin[0] && fin[1]) {
			timeout = 124 * time.Minute
		}
		// An RST of ours keeps nothing alive.
		if end := s.at.Add(timeout); s.flags&ip.RST == 0 || !s.out || end.Before(until) {
			until = end
		}
	}
	return now.Before(until)
}

func (r *reference) timeout() time.Duration {
	if r.b.Timers.UDP == 0 {
		return 5 * time.Minute
	}
	return r.b.Timers.UDP
}

// forget drops what nothing remembers.
func (r *reference) forget(now time.Time) {
	r.mappings = slices.DeleteFunc(r.mappings, func(m *refMapping) bool {
		m.udp = slices.DeleteFunc(m.udp, func(s refSent) bool { return !now.Before(s.at.Add(r.timeout())) })
		m.tcp = slices.DeleteFunc(m.tcp, func(c *refConn) bool { return !c.alive(now) })
		return len(m.udp)+len(m.tcp) == 0
	})
}

func (r *reference) taken(proto ip.Proto, port uint16) bool {
	return slices.ContainsFunc(r.mappings, func(m *refMapping) bool { return m.proto == proto && m.external == netip.AddrPortFrom(ours, port) })
}

func (r *reference) translates(a netip.Addr) bool { return a.Is4() && r.b.Mode == Translate }

// out is the mapping for an outbound packet. A random port is learnt from the
// gateway's, which must have been free.
func (r *reference) out(now time.Time, proto ip.Proto, src, dst netip.AddrPort, flags uint8, learnt netip.AddrPort) (*refMapping, error) {
	var m *refMapping
	for _, c := range r.mappings {
		if c.proto == proto && c.internal == src && (!r.translates(src.Addr()) || agree(r.b.Mapping, c.remote, dst)) {
			m = c
		}
	}
	var conn *refConn
	if m != nil {
		for _, c := range m.tcp {
			if c.remote == dst {
				conn = c
			}
		}
	}
	if proto == ip.TCP && conn == nil && flags&(ip.SYN|ip.ACK|ip.RST) != ip.SYN {
		return nil, nil
	}
	if m == nil {
		m = &refMapping{proto: proto, internal: src, external: src, remote: dst}
		if r.translates(src.Addr()) {
			port := src.Port()
			switch {
			case r.b.Ports.Allocation == Random || r.b.Ports.Allocation == Sequential && r.last[proto] == 0:
				if port = learnt.Port(); r.taken(proto, port) || port < 1024 {
					return nil, fmt.Errorf("port %d was given out", port)
				}
			case r.b.Ports.Allocation == Sequential:
				port = r.last[proto] + 1
			}
			for port < 1024 || r.taken(proto, port) {
				port++
			}
			r.last[proto] = port
			m.external = netip.AddrPortFrom(ours, port)
		}
		r.mappings = append(r.mappings, m)
	}
	if proto == ip.UDP {
		m.udp = append(m.udp, refSent{dst, now})
		return m, nil
	}
	if conn == nil {
		conn = &refConn{remote: dst}
		m.tcp = append(m.tcp, conn)
	}
	conn.history = append(conn.history, refSegment{true, flags, now})
	return m, nil
}

// in is the mapping that lets an inbound packet in, if any.
func (r *reference) in(now time.Time, proto ip.Proto, src, dst netip.AddrPort, flags uint8) *refMapping {
	for _, m := range r.mappings {
		if m.proto != proto || m.external != dst {
			continue
		}
		if proto == ip.UDP {
			if slices.ContainsFunc(m.udp, func(s refSent) bool { return agree(r.b.Filtering, s.to, src) }) {
				return m
			}
			return nil
		}
		var conn *refConn
		invited := false
		for _, c := range m.tcp {
			if c.remote == src {
				conn = c
			}
			invited = invited || agree(r.b.Filtering, c.remote, src)
		}
		if conn == nil {
			if !invited || flags&(ip.SYN|ip.ACK|ip.RST) != ip.SYN {
				return nil
			}
			conn = &refConn{remote: src}
			m.tcp = append(m.tcp, conn)
		}
		conn.history = append(conn.history, refSegment{false, flags, now})
		return m
	}
	return nil
}

// The gateway agrees with the reference on every packet of long random walks,
// for each combination of policies.
func TestRandomWalkAgainstReference(t *testing.T) {
	seed := uint64(0)
	combinations(t, func(t *testing.T, b Behaviour) {
		for _, b.Ports.Allocation = range []Allocation{PreserveNext, Sequential, Random} {
			for _, b.Hairpin = range []Hairpin{NoHairpin, HairpinInternalSource, HairpinExternalSource} {
				for _, b.Mode = range []Mode{Translate, Firewall} {
					seed++
					if err := walk(t, b, seed, 500); err != nil {
						t.Fatalf("%+v, seed %d: %v", b, seed, err)
					}
				}
			}
		}
	})
}

func walk(t *testing.T, b Behaviour, seed uint64, steps int) error {
	b.Timers.UDP, b.Timers.PerSession = time.Minute, true
	g := newBench(t, b)
	ref := &reference{b: b, last: make(map[ip.Proto]uint16)}
	r := rand.New(rand.NewPCG(seed, seed))
	pick := func(all ...netip.AddrPort) netip.AddrPort { return all[r.IntN(len(all))] }
	gaps := []time.Duration{0, 0, 0, 0, time.Second, time.Second, 5 * time.Second, 5 * time.Second, 20 * time.Second, time.Minute, 2 * time.Minute}
	flagsOf := []uint8{ip.SYN, ip.SYN, ip.SYN | ip.ACK, ip.ACK, ip.ACK, ip.FIN | ip.ACK, ip.RST}

	for step := range steps {
		g.now = g.now.Add(gaps[r.IntN(len(gaps))])
		if r.IntN(100) == 0 {
			g.now = g.now.Add(2 * time.Hour)
		}
		ref.forget(g.now)
		proto := []ip.Proto{ip.UDP, ip.TCP}[r.IntN(2)]
		flags := flagsOf[r.IntN(len(flagsOf))]
		build := func(src, dst netip.AddrPort) []byte {
			if proto == ip.UDP {
				return udpPacket(src, dst)
			}
			return tcpPacket(src, dst, flags)
		}
		// An external endpoint that is, or is not, in use.
		external := netip.AddrPortFrom(ours, uint16(5000+r.IntN(4)))
		if len(ref.mappings) > 0 && r.IntN(5) > 0 {
			external = ref.mappings[r.IntN(len(ref.mappings))].external
		}
		src, dst := pick(x, x2, ep("10.0.0.1:5001")), pick(y1, y2, z1)
		if r.IntN(5) == 0 || external.Addr().Is6() {
			src, dst, external = x6, pick(y6, z6), x6
		}

		if r.IntN(2) == 0 { // inbound
			p, v := g.pass(g.Inbound, build(dst, external))
			if want := ref.in(g.now, proto, dst, external, flags); (want != nil) != (v.Action == Forward) || want != nil && p.Dst != want.internal {
				return fmt.Errorf("step %d: %v flags %#x in, %v > %v: %+v to %v, want %+v", step, proto, flags, dst, external, v, p.Dst, want)
			}
			continue
		}
		hairpin := r.IntN(4) == 0 && src.Addr().Is4()
		if hairpin {
			if dst = external; dst.Addr() != ours {
				continue
			}
		}
		p, v := g.pass(g.Outbound, build(src, dst))
		if hairpin && (b.Hairpin == NoHairpin || b.Mode == Firewall) {
			if v.Reason != NoHairpinning {
				return fmt.Errorf("step %d: hairpin: %+v", step, v)
			}
			continue
		}
		learnt := p.Src
		if (v.Action == Forward && v.To == Inside) && b.Hairpin == HairpinInternalSource || v.Action == Drop {
			for _, m := range g.Mappings(g.now) {
				if m.Proto == proto && m.Internal == src && (!ref.translates(src.Addr()) || (b.Mapping == EndpointIndependent && !m.Remote.IsValid() || b.Mapping != EndpointIndependent && agree(b.Mapping, m.Remote, dst))) {
					learnt = m.External
				}
			}
		}
		m, err := ref.out(g.now, proto, src, dst, flags, learnt)
		if err != nil {
			return fmt.Errorf("step %d: %w", step, err)
		}
		want := Verdict{Action: Drop}
		switch {
		case m == nil:
		case !hairpin:
			want = Verdict{Action: Forward, To: Outside}
			if p.Src != m.external {
				return fmt.Errorf("step %d: %v out, %v > %v: source %v, want %v", step, proto, src, dst, p.Src, m.external)
			}
		default:
			if to := ref.in(g.now, proto, m.external, dst, flags); to != nil {
				want = Verdict{Action: Forward, To: Inside}
				from := m.external
				if b.Hairpin == HairpinInternalSource {
					from = src
				}
				if (v.Action == Forward && v.To == Inside) && (p.Dst != to.internal || p.Src != from) {
					return fmt.Errorf("step %d: hairpin %v > %v became %v > %v", step, src, dst, p.Src, p.Dst)
				}
			}
		}
		if v.Action != want.Action || v.To != want.To {
			return fmt.Errorf("step %d: %v flags %#x out, %v > %v: %+v, want %+v", step, proto, flags, src, dst, v, want)
		}
		if got := g.Stats().Mappings; got != len(ref.mappings) {
			return fmt.Errorf("step %d: %d mappings, want %d", step, got, len(ref.mappings))
		}
	}
	return nil
}
