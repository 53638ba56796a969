package router

import (
	"testing"
	"time"

	"github.com/bodkin-net/bodkin/internal/machine/nat"
	"github.com/bodkin-net/bodkin/internal/machine/nat/ip"
	"github.com/bodkin-net/bodkin/internal/machine/portmap"
)

// Whatever comes, from wherever: no panic, nothing written behind the packet,
// and what the router sends is well-formed.
func FuzzRouter(f *testing.F) {
	l := newLine(new(testing.T), portmap.Behaviour{})
	ask, _ := l.home.Poll()
	f.Add(byte(1), byte(0), ask.Packet)
	f.Add(byte(0), byte(0), ask.Packet)
	for side := range byte(4) {
		f.Add(side, byte(1), udp(host, remote))
		f.Add(side, byte(0), ip.AppendUDP(nil, host, portAt(own, portmap.Port), 64, []byte{0, 1, 0, 0, 1, 2, 3, 4, 0, 0, 9, 9}))
		f.Add(side, byte(0), ip.AppendUDP(nil, host, portAt(portmap.SSDPGroup, portmap.SSDPPort), 64, []byte("M-SEARCH * HTTP/1.1\r\nMAN: \"ssdp:discover\"\r\nST: ssdp:all\r\n\r\n")))
		f.Add(side, byte(2), ip.AppendEcho(nil, addr("192.168.1.100"), own, 64, ip.EchoReply, 67, 1, nil))
	}
	f.Fuzz(func(t *testing.T, side, partial byte, pkt []byte) {
		r := fullRouter(t).home
		b := append(append([]byte(nil), pkt...), 0xaa)
		r.Handle(epoch, nat.Side(side%4), mac(50), b[:len(pkt):len(pkt)], nat.Offload{PartialSum: partial&1 != 0})
		if b[len(pkt)] != 0xaa {
			t.Fatal("wrote behind the packet")
		}
		r.HandleTimeout(epoch.Add(time.Second))
		for range 100 {
			out, ok := r.Poll()
			if !ok {
				return
			}
			var p ip.Packet
			if err := p.Decode(out.Packet); err != nil || !p.ChecksumOK() && partial&1 == 0 && side%4 != 3 {
				t.Fatalf("%x to %v: %v", out.Packet, out.To, err)
			}
		}
		t.Fatal("there is no end of packets")
	})
}
