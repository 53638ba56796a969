package nat

import (
	"fmt"
	"net/netip"
	"testing"
	"time"

	"github.com/bodkin-net/bodkin/internal/machine/nat/ip"
)

// laxities are gateways that let strangers in to the mapping of another.
func laxities() map[string]Behaviour {
	all := map[string]Behaviour{}
	for _, mapping := range []Dependence{AddressDependent, AddressAndPortDependent, PerConnection} {
		all[fmt.Sprint(mapping)] = Behaviour{Mapping: mapping, Ports: Ports{Allocation: Random}}
		all[fmt.Sprint(mapping, ", by a rule")] = Behaviour{
			Mapping: mapping, Filtering: AddressAndPortDependent, Ports: Ports{Allocation: Random},
			Rules: []Rule{{Action: Accept, From: SidesOf(Outside)}},
		}
	}
	return all
}

// What is said to a stranger that was let in comes from where it was let in,
// and nobody else's mapping changes.
func TestGuestIsAnsweredFromWhereItCame(t *testing.T) {
	for name, b := range laxities() {
		t.Run(name, func(t *testing.T) {
			g := newBench(t, b)
			mine := g.leaves(x, y1)
			if got := g.enters(z1, mine); got != x {
				t.Fatalf("the stranger came to %v", got)
			}
			if got := g.leaves(x, z1); got != mine {
				t.Errorf("the stranger came to %v, and was answered from %v", mine, got)
			}
			if got := g.leaves(x, y1); got != mine {
				t.Errorf("the first remote is sent to from %v, no longer from %v", got, mine)
			}
			// An error about the answer gets back to who sent that.
			answer := udpPacket(x, z1)
			g.Handle(g.now, Inside, answer, Offload{})
			e := ip.AppendError(nil, z1.Addr(), ip.PortUnreachable, answer)
			if v := g.Handle(g.now, Outside, e, Offload{}); v != forward(Inside) {
				t.Errorf("an error about the answer: %+v", v)
			}
			// The guest goes when nothing is said for long enough, and is then
			// as any other remote.
			g.now = g.now.Add(6 * time.Minute)
			if s := g.Stats(); s.Mappings+s.Sessions != 0 {
				g.HandleTimeout(g.now)
				if s = g.Stats(); s.Mappings+s.Sessions != 0 || len(g.guests) != 0 {
					t.Errorf("left: %+v and %d guests", s, len(g.guests))
				}
			}
		})
	}
}

func TestGuestConnects(t *testing.T) {
	for name, b := range laxities() {
		t.Run(name, func(t *testing.T) {
			g := newBench(t, b)
			send := func(from Side, src, dst netip.AddrPort, flags uint8, seq uint32) (netip.AddrPort, netip.AddrPort) {
				t.Helper()
				src, dst, v := g.goes(from, ip.AppendTCP(nil, src, dst, 64, &ip.Segment{Flags: flags, Seq: seq}))
				if v.Action != Forward {
					t.Fatalf("flags %x: %+v", flags, v)
				}
				return src, dst
			}
			mine, _ := send(Inside, x, y1, ip.SYN, 100)
			if _, dst := send(Outside, z1, mine, ip.SYN, 500); dst != x {
				t.Fatalf("the stranger came to %v", dst)
			}
			if src, _ := send(Inside, x, z1, ip.SYN|ip.ACK, 900); src != mine {
				t.Errorf("the stranger came to %v, and was answered from %v", mine, src)
			}
			send(Outside, z1, mine, ip.ACK, 501)
			if src, _ := send(Inside, x, y1, ip.ACK, 101); src != mine {
				t.Errorf("the first connection goes on from %v, not %v", src, mine)
			}
			// When that is over, a connection that begins inside is as any other.
			send(Outside, z1, mine, ip.FIN|ip.ACK, 501)
			send(Inside, x, z1, ip.FIN|ip.ACK, 901)
			if src, _ := send(Inside, x, z1, ip.SYN, 2000); src == mine {
				t.Errorf("a connection of the host's own leaves at %v, the mapping for another", src)
			}
			if src, _ := send(Inside, x, y1, ip.ACK, 101); src != mine {
				t.Errorf("the first connection goes on from %v, not %v", src, mine)
			}
		})
	}
}

// A remote that answers a host is not led elsewhere by a packet that says to be
// from it; one that has not answered may have been waiting at the other end.
func TestGuestDoesNotTakeOver(t *testing.T) {
	for name, b := range laxities() {
		if b.Mapping == PerConnection { // which is AddressAndPortDependent for UDP
			continue
		}
		t.Run(name, func(t *testing.T) {
			g := newBench(t, b)
			toY, toZ := g.leaves(x, y1), g.leaves(x, z1)
			g.enters(z1, toZ)
			if got := g.enters(z1, toY); got != x {
				t.Fatalf("came to %v", got)
			}
			if got := g.leaves(x, z1); got != toZ {
				t.Errorf("who answered at %v is sent to from %v", toZ, got)
			}
			other := netip.AddrPortFrom(x.Addr(), 6000)
			toY, toZ = g.leaves(other, y1), g.leaves(other, z1)
			g.enters(z1, toY)
			if got := g.leaves(other, z1); got != toY {
				t.Errorf("who never answered, and came to %v, is sent to from %v", toY, got)
			}
			g.enters(z1, toZ)
			if got := g.leaves(other, z1); got != toY {
				t.Errorf("once answered from %v, it is sent to from %v", toY, got)
			}
		})
	}
}
