package nat

import (
	"bytes"
	"math/rand/v2"
	"net/netip"
	"reflect"
	"testing"
	"time"

	"github.com/bodkin-net/bodkin/internal/machine/nat/ip"
)

// Whatever a packet looks like, the short way does what the long one does, or
// leaves it alone.
func TestExpressIsTheLongWay(t *testing.T) {
	legs := 300
	if testing.Short() {
		legs = 30
	}
	for leg := range legs {
		r := rand.New(rand.NewPCG(7, uint64(leg)))
		b := anyBehaviour(r)
		b.Mode, b.KeepTTL, b.BlockUDP = Translate, r.IntN(10) == 0, r.IntN(10) == 0
		var both [2]*bench
		for i := range both {
			both[i] = newBenchOf(t, Config{Behaviour: b, MTU: [Local]int{Outside: 1400, Inside: 1000}})
		}
		both[1].fast = false
		if both[0].fast != (!b.KeepTTL && !b.BlockUDP && b.Timers.UDPUnanswered == 0 && !both[0].guested) {
			t.Fatalf("is there a short way? %t, %+v", both[0].fast, b)
		}
		var at []netip.AddrPort
		for range 200 {
			now := both[0].now.Add(time.Duration(r.Int64N(int64(10 * time.Second))))
			inner := netip.AddrPortFrom(pick(r, x, x2).Addr(), pick[uint16](r, 5000, 80))
			pkt := func(src, dst netip.AddrPort) []byte {
				payload := make([]byte, pick(r, 0, 1, 3, 900, 1380))
				if r.IntN(2) == 0 {
					return ip.AppendUDP(nil, src, dst, 64, payload)
				}
				return ip.AppendTCP(nil, src, dst, 64, &ip.Segment{Flags: pick[uint8](r, ip.SYN, ip.SYN|ip.ACK, ip.ACK, ip.ACK, ip.ACK, ip.FIN|ip.ACK, ip.RST), Payload: payload})
			}
			from, raw := Inside, pkt(inner, pick(r, y1, z1))
			if len(at) > 0 && r.IntN(2) == 0 {
				from, raw = Outside, pkt(pick(r, y1, z1), pick(r, at...))
			}
			switch r.IntN(8) {
			case 0: // anything in the headers is changed
				raw[r.IntN(min(len(raw), 40))] ^= 1 << r.IntN(8)
				sum(raw)
			case 1: // it may be cut
				raw[6] &^= 0x40
				sum(raw)
			case 2: // it is cut off
				raw = raw[:r.IntN(len(raw)+1)]
			case 3: // without a checksum
				if raw[9] == 17 {
					raw[26], raw[27] = 0, 0
				}
			case 4: // with something behind it
				raw = append(raw, 1, 2, 3)
			case 5: // a bit fell over on the way
				raw[r.IntN(min(len(raw), 40))] ^= 1 << r.IntN(8)
			}
			var out [2][]byte
			var v [2]Verdict
			for i, g := range both {
				g.now = now
				out[i] = bytes.Clone(raw)
				v[i] = g.Handle(now, from, out[i], Offload{})
				for p, ok := g.Poll(); ok; p, ok = g.Poll() {
					out[i] = append(out[i], p.Packet...)
				}
			}
			if v[0] != v[1] || !bytes.Equal(out[0], out[1]) {
				t.Fatalf("leg %d: %x from %v: %+v %x the short way, %+v %x the long one", leg, raw, from, v[0], out[0], v[1], out[1])
			}
			if v[0].Action == Forward && from == Inside {
				var p ip.Packet
				if p.Decode(out[0]) == nil && p.Src.Port() != 0 {
					at = append(at, p.Src)
				}
			}
		}
		if a, b := both[0].Mappings(both[0].now), both[1].Mappings(both[1].now); !reflect.DeepEqual(a, b) || both[0].Stats() != both[1].Stats() {
			t.Fatalf("leg %d: they remember\n%+v\n%+v", leg, a, b)
		}
	}
}
