package nat

import (
	"testing"
	"time"

	"github.com/bodkin-net/bodkin/internal/machine/nat/ip"
)

// RFC 5382 REQ-2: all sequences, simultaneous open among them.
func TestRFC5382REQ2SimultaneousOpen(t *testing.T) {
	combinations(t, func(t *testing.T, b Behaviour) {
		g := newBench(t, b)
		at, ok := g.tcpOut(x, y1, ip.SYN)
		if !ok || !g.tcpIn(y1, at, ip.SYN) || !g.tcpIn(y1, at, ip.SYN|ip.ACK) {
			t.Fatal("SYN against SYN is filtered")
		}
		if got, ok := g.tcpOut(x, y1, ip.SYN|ip.ACK); !ok || got != at {
			t.Fatal("our SYN-ACK is filtered")
		}
	})
}

func TestTCPFiltering(t *testing.T) {
	combinations(t, func(t *testing.T, b Behaviour) {
		g := newBench(t, b)
		at, _ := g.tcpOut(x, y1, ip.SYN)
		if got := g.tcpIn(y2, at, ip.SYN); got != (b.Filtering <= AddressDependent) {
			t.Errorf("SYN from another port: %v", got)
		}
		if got := g.tcpIn(z1, at, ip.SYN); got != (b.Filtering == EndpointIndependent) {
			t.Errorf("SYN from another address: %v", got)
		}
		for _, flags := range []uint8{ip.ACK, ip.SYN | ip.ACK, ip.RST, ip.FIN | ip.ACK} {
			if g.tcpIn(ep("192.0.2.1:3333"), at, flags) {
				t.Errorf("flags %#x opened a connection", flags)
			}
		}
	})
}

// RFC 5382 REQ-5: an established connection may idle for 2 hours 4 minutes,
// one that opens or closes for 4 minutes. RFC 7857 section 2: so may one that
// was reset.
func TestRFC5382REQ5Timers(t *testing.T) {
	const short, long = 4 * time.Minute, 2*time.Hour + 4*time.Minute
	type step struct {
		out   bool
		flags uint8
	}
	handshake := []step{{true, ip.SYN}, {false, ip.SYN | ip.ACK}, {true, ip.ACK}}
	for _, c := range []struct {
		name  string
		steps []step
		want  time.Duration
	}{
		{"SYN", handshake[:1], short},
		{"SYN, SYN-ACK", handshake[:2], short},
		{"established", handshake, long},
		{"FIN out", append(handshake[:3:3], step{true, ip.FIN | ip.ACK}), long},
		{"FIN in", append(handshake[:3:3], step{false, ip.FIN | ip.ACK}), long},
		{"both FINs", append(handshake[:3:3], step{true, ip.FIN | ip.ACK}, step{false, ip.FIN | ip.ACK}), short},
		{"RST in", append(handshake[:3:3], step{false, ip.RST}), short},
		{"RST out", append(handshake[:3:3], step{true, ip.RST}), short},
		{"again after FINs", append(handshake[:3:3], step{true, ip.FIN | ip.ACK}, step{false, ip.FIN | ip.ACK},
			step{true, ip.SYN}, step{false, ip.SYN | ip.ACK}, step{true, ip.ACK}), long},
		{"simultaneous", []step{{true, ip.SYN}, {false, ip.SYN}, {true, ip.SYN | ip.ACK}, {false, ip.ACK}}, long},
		{"simultaneous, and no more", []step{{true, ip.SYN}, {false, ip.SYN}, {true, ip.SYN | ip.ACK}, {false, ip.SYN | ip.ACK}}, long},
		{"simultaneous, half", []step{{true, ip.SYN}, {false, ip.SYN}, {true, ip.SYN | ip.ACK}}, short},
		{"the other end alone", []step{{true, ip.SYN}, {false, ip.SYN | ip.ACK}, {false, ip.SYN | ip.ACK}, {false, ip.ACK}}, short},
	} {
		t.Run(c.name, func(t *testing.T) {
			combinations(t, func(t *testing.T, b Behaviour) {
				g := newBench(t, b)
				at := ep("198.51.100.1:5000")
				for _, s := range c.steps {
					g.now = g.now.Add(time.Second)
					ok := false
					if s.out {
						at, ok = g.tcpOut(x, y1, s.flags)
					} else {
						ok = g.tcpIn(y1, at, s.flags)
					}
					if !ok {
						t.Fatalf("%+v was dropped", s)
					}
				}
				g.now = g.now.Add(c.want - 1)
				if g.Stats().Mappings != 1 {
					t.Fatal("forgotten at once")
				}
				g.HandleTimeout(g.now)
				if g.Stats().Mappings != 1 {
					t.Error("forgotten too early")
				}
				g.now = g.now.Add(1)
				g.HandleTimeout(g.now)
				if s := g.Stats(); s.Mappings+s.Sessions != 0 {
					t.Error("remembered too long")
				}
			})
		})
	}
}

// Guha and Francis 2005: what a gateway lets in, and out, after a SYN went out.
func TestRefusals5382(t *testing.T) {
	router := ep("203.0.113.77:0").Addr()
	// In flags: a time exceeded for the SYN, or that it was too big.
	const icmp, tooBig = 0xff, 0xfe
	type step struct {
		out   bool
		flags uint8
		pass  bool
	}
	for _, c := range []struct {
		what  string
		tcp   TCP
		steps []step
	}{
		{"SYN, SYN", TCP{}, []step{{true, syn, true}, {false, syn, true}}},
		{"SYN, SYN, refused", TCP{RefuseSYN: true}, []step{{true, syn, true}, {false, syn, false}, {false, synAck, true}}},
		{"SYN, RST, SYN", TCP{}, []step{{true, syn, true}, {false, rst, true}, {false, syn, true}}},
		{"SYN, RST, SYN, refused", TCP{RefuseSYN: true}, []step{{true, syn, true}, {false, rst, true}, {false, syn, false}}},
		{"SYN, ICMP, SYN", TCP{}, []step{{true, syn, true}, {false, icmp, true}, {false, syn, true}}},
		{"SYN, ICMP, SYN-ACK", TCP{}, []step{{true, syn, true}, {false, icmp, true}, {false, synAck, true}}},
		{"SYN, ICMP, SYN-ACK, refused", TCP{RefuseSYNACK: true}, []step{{true, syn, true}, {false, icmp, true}, {false, synAck, false}}},
		{"SYN, SYN-ACK, not refused", TCP{RefuseSYNACK: true}, []step{{true, syn, true}, {false, synAck, true}}},
		{"SYN, ICMP, SYN, SYN-ACK, not refused", TCP{RefuseSYNACK: true}, []step{{true, syn, true}, {false, icmp, true}, {true, syn, true}, {false, synAck, true}}},
		{"an ICMP error later refuses nothing", TCP{RefuseSYNACK: true}, []step{{true, syn, true}, {false, synAck, true}, {true, ack, true}, {false, icmp, true}, {false, synAck, true}}},
		{"SYN, SYN-ACK out", TCP{}, []step{{true, syn, true}, {true, synAck, true}, {false, synAck, true}}},
		{"SYN, SYN-ACK out, refused", TCP{RefuseSYNACKOut: true}, []step{{true, syn, true}, {true, synAck, false}}},
		{"crossing SYNs, SYN-ACK out, not refused", TCP{RefuseSYNACKOut: true}, []step{{true, syn, true}, {false, syn, true}, {true, synAck, true}}},
		{"SYN, RST, SYN-ACK", TCP{}, []step{{true, syn, true}, {false, rst, true}, {false, synAck, true}}},
		{"SYN, RST that ends it, SYN-ACK", TCP{RSTCloses: true}, []step{{true, syn, true}, {false, rst, true}, {false, synAck, false}}},
		{"SYN, ICMP that ends it, SYN-ACK", TCP{ICMPCloses: true}, []step{{true, syn, true}, {false, icmp, true}, {false, synAck, false}}},
		{"SYN, packet too big, SYN-ACK", TCP{ICMPCloses: true}, []step{{true, syn, true}, {false, tooBig, true}, {false, synAck, true}}},
		{"an RST of ours ends nothing", TCP{RSTCloses: true}, []step{{true, syn, true}, {true, rst, true}, {false, synAck, true}}},
	} {
		t.Run(c.what, func(t *testing.T) {
			g := newBench(t, Behaviour{Filtering: AddressAndPortDependent, TCP: c.tcp})
			at := ep("198.51.100.1:5000")
			for i, s := range c.steps {
				var ok bool
				switch {
				case s.flags >= tooBig:
					cause := ip.TimeExceeded
					if s.flags == tooBig {
						cause = ip.TooBig
					}
					_, v := g.pass(g.Inbound, ip.AppendError(nil, router, cause, tcpPacket(at, y1, syn)))
					ok = v.Action == Forward
				case s.out:
					_, ok = g.tcpOut(x, y1, s.flags)
				default:
					ok = g.tcpIn(y1, at, s.flags)
				}
				if ok != s.pass {
					t.Errorf("step %d: passed %v", i, ok)
				}
			}
		})
	}
}

// RFC 7857 section 2.2: an RST may be forged, so a connection that goes on
// after it is remembered as before.
func TestRFC7857RSTDoesNotEnd(t *testing.T) {
	g := newBench(t, Behaviour{Filtering: AddressAndPortDependent})
	at, _ := g.tcpOut(x, y1, syn)
	g.tcpIn(y1, at, synAck)
	g.tcpOut(x, y1, ack)
	g.tcpIn(y1, at, rst)
	g.now = g.now.Add(3 * time.Minute)
	if !g.tcpIn(y1, at, ack) {
		t.Fatal("the connection is over")
	}
	g.now = g.now.Add(2 * time.Hour)
	if !g.tcpIn(y1, at, ack) {
		t.Error("it was remembered as one that was reset")
	}
}

// Each state has its time, and an RST of ours keeps none alive (RFC 7857
// section 7.1).
func TestTimersOfStates(t *testing.T) {
	timers := Timers{Transitory: 10 * time.Second, Established: 1000 * time.Second, AfterFIN: 30 * time.Second, AfterRST: 20 * time.Second}
	type step struct {
		out   bool
		flags uint8
	}
	whole := []step{{true, syn}, {false, synAck}, {true, ack}}
	for _, c := range []struct {
		what  string
		steps []step
		want  time.Duration // from the first step
	}{
		{"SYN", []step{{true, syn}}, 10 * time.Second},
		{"established", whole, 1002 * time.Second},
		{"half closed", append(whole[:3:3], step{true, finAck}), 1003 * time.Second},
		{"closed", append(whole[:3:3], step{true, finAck}, step{false, finAck}), 34 * time.Second},
		{"reset from outside", append(whole[:3:3], step{false, rst}), 23 * time.Second},
		{"reset from inside", append(whole[:3:3], step{true, rst}, step{true, rst}, step{true, rst}), 23 * time.Second},
		{"reset while opening", []step{{true, syn}, {true, rst}}, 10 * time.Second},
	} {
		g := newBench(t, Behaviour{Timers: timers})
		at := ep("198.51.100.1:5000")
		start := g.now
		for i, s := range c.steps {
			g.now = start.Add(time.Duration(i) * time.Second)
			if s.out {
				at, _ = g.tcpOut(x, y1, s.flags)
			} else {
				g.tcpIn(y1, at, s.flags)
			}
		}
		g.now = start.Add(c.want - 1)
		g.HandleTimeout(g.now)
		if g.Stats().Sessions != 1 {
			t.Errorf("%s: forgotten too early", c.what)
		}
		g.now = g.now.Add(1)
		g.HandleTimeout(g.now)
		if g.Stats().Sessions != 0 {
			t.Errorf("%s: remembered too long", c.what)
		}
	}
}
