package nat

import (
	"bytes"
	"net/netip"
	"testing"
	"time"

	"github.com/bodkin-net/bodkin/internal/machine/nat/ip"
)

// Whatever comes, the gateway does not panic, does not write outside of the
// packet, and lets nothing out that was right and is wrong now.
func FuzzGateway(f *testing.F) {
	at := netip.AddrPortFrom(ours, 5000)
	for _, pkt := range [][]byte{
		udpPacket(x, y1), udpPacket(y1, at), udpPacket(x6, y6), tcpPacket(x, y1, ip.SYN), tcpPacket(x, at, ip.SYN),
		ip.AppendEcho(nil, x.Addr(), y1.Addr(), 64, ip.EchoRequest, 1, 1, nil),
		ip.AppendError(nil, z1.Addr(), ip.TimeExceeded, udpPacket(at, y1)),
		ip.AppendError(nil, x.Addr(), ip.PortUnreachable, udpPacket(y1, x)),
	} {
		for policy := range byte(9) {
			f.Add(policy, pkt)
		}
	}
	f.Fuzz(func(t *testing.T, policy byte, pkt []byte) {
		g := newBench(t, Behaviour{
			Mapping:   Dependence(policy % 3),
			Filtering: Dependence(policy / 3 % 3),
			Hairpin:   Hairpin(policy / 9 % 3),
			Mode:      Mode(policy >> 7), // Translate or Firewall
		})
		g.leaves(x, y1)
		g.leaves(x6, y6)
		pkt = bytes.Clone(pkt)
		mend(pkt)
		var p ip.Packet
		ok := p.Decode(pkt) == nil && p.ChecksumOK()
		for i, pass := range []func(time.Time, []byte) Verdict{g.Outbound, g.Inbound} {
			b := append(append([]byte(nil), pkt...), 0xaa)
			v := pass(g.now, b[:len(pkt)])
			if b[len(pkt)] != 0xaa {
				t.Fatal("wrote behind the packet")
			}
			if v.Action == Drop {
				continue
			}
			if err := p.Decode(b[:len(pkt)]); err != nil || ok && !p.ChecksumOK() {
				t.Fatalf("%s: let %x out, %v", [...]string{"outbound", "inbound"}[i], b, err)
			}
		}
	})
}
