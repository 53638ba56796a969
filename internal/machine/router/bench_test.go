package router

import (
	"testing"

	"github.com/bodkin-net/bodkin/internal/machine/nat"
	"github.com/bodkin-net/bodkin/internal/machine/portmap"
)

// Everything that a router may have, as the bench of what it adds.
func fullRouter(b testing.TB) *line {
	cfg := homeConfig(portmap.Behaviour{NATPMP: true, PCP: true, UPnP: true})
	cfg.DHCP = pool()
	r, err := New(epoch, cfg)
	if err != nil {
		b.Fatal(err)
	}
	l := newLine(new(testing.T), portmap.Behaviour{})
	l.home = r
	l.settle()
	if _, ok := r.Outside(); !ok {
		b.Fatal("no address")
	}
	return l
}

// BenchmarkRouter is a packet out and one in, through a gateway alone and
// through all that can stand around it.
func BenchmarkRouter(b *testing.B) {
	l := fullRouter(b)
	r := l.home
	public := l.leaves(host)
	out, in := udp(host, remote), udp(remote, public)
	buf := make([]byte, 0, 2048)
	b.Run("gateway", func(b *testing.B) {
		g := r.NAT()
		for b.Loop() {
			g.Handle(epoch, nat.Inside, append(buf[:0], out...), nat.Offload{})
			g.Poll()
			g.Handle(epoch, nat.Outside, append(buf[:0], in...), nat.Offload{})
			g.Poll()
		}
	})
	b.Run("router", func(b *testing.B) {
		for b.Loop() {
			if v := r.Handle(epoch, nat.Inside, mac(50), append(buf[:0], out...), nat.Offload{}); v.Action != nat.Forward {
				b.Fatalf("%+v", v)
			}
			r.Poll()
			if v := r.Handle(epoch, nat.Outside, mac(1), append(buf[:0], in...), nat.Offload{}); v.Action != nat.Forward {
				b.Fatalf("%+v", v)
			}
			r.Poll()
		}
	})
}

// BenchmarkLook is what a packet costs in all that stands around the gateway,
// which is quick with it: it is too short.
func BenchmarkLook(b *testing.B) {
	l := fullRouter(b)
	out := udp(host, remote)[:24]
	for _, c := range []struct {
		name string
		from nat.Side
		link MAC
	}{{"inside", nat.Inside, mac(50)}, {"outside", nat.Outside, mac(1)}} {
		b.Run(c.name, func(b *testing.B) {
			for b.Loop() {
				l.home.Handle(epoch, c.from, c.link, out, nat.Offload{})
			}
		})
		b.Run(c.name+" gateway", func(b *testing.B) {
			for b.Loop() {
				l.home.NAT().Handle(epoch, c.from, out, nat.Offload{})
			}
		})
	}
}

func TestNoAllocationPerPacket(t *testing.T) {
	l := fullRouter(t)
	public := l.leaves(host)
	out, in := udp(host, remote), udp(remote, public)
	buf := make([]byte, 0, 2048)
	if n := testing.AllocsPerRun(100, func() {
		l.home.Handle(epoch, nat.Inside, mac(50), append(buf[:0], out...), nat.Offload{})
		l.home.Handle(epoch, nat.Outside, mac(1), append(buf[:0], in...), nat.Offload{})
		l.home.Poll()
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
