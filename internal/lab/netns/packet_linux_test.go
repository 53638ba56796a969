package netns

import (
	"bytes"
	"encoding/binary"
	"testing"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"
)

// tcpBurst is a packet of n bytes of payload that stands for segments of 1000.
func tcpBurst(t testing.TB, n int) []byte {
	t.Helper()
	ip := &layers.IPv4{Version: 4, TTL: 3, Protocol: layers.IPProtocolTCP, Id: 7, SrcIP: routerIPv4.AsSlice(), DstIP: routerIPv4.Next().AsSlice()}
	tcp := &layers.TCP{SrcPort: 1, DstPort: 2, Seq: 1<<32 - 500, ACK: true, PSH: true, FIN: true}
	if err := tcp.SetNetworkLayerForChecksum(ip); err != nil {
		t.Fatal(err)
	}
	payload := bytes.Repeat([]byte("0123456789"), (n+9)/10)[:n]
	out := gopacket.NewSerializeBuffer()
	err := gopacket.SerializeLayers(out, gopacket.SerializeOptions{FixLengths: true, ComputeChecksums: true}, ip, tcp, gopacket.Payload(payload))
	if err != nil {
		t.Fatal(err)
	}
	header := []byte{vnetNeedsChecksum, gsoTCPv4}
	for _, n := range []uint16{40, 1000, 20, 16} {
		header = binary.NativeEndian.AppendUint16(header, n)
	}
	return append(append(header, make([]byte, etherLen)...), out.Bytes()...)
}

// finished is the IP packet in a buffer, as a cable carries it.
func finished(buf []byte) []byte {
	b := bytes.Clone(buf)
	finishChecksum(b)
	return b[room:]
}

func TestCutIntoSegments(t *testing.T) {
	v, ok := parse(tcpBurst(t, 2500))
	if !ok {
		t.Fatal("not understood")
	}
	if n, size := v.onWire(); n != 3 || size != 2500+3*40 || v.largest() != 1040 {
		t.Errorf("%d packets, %d bytes, largest %d", n, size, v.largest())
	}
	if !v.hop(2) || v.hop(1) {
		t.Error("a TTL of 3 is good for two hops and no more")
	}
	var payload []byte
	i := 0
	v.segments(make([]byte, 0, largeBuffer), func(segment []byte) {
		p := gopacket.NewPacket(finished(segment), layers.LayerTypeIPv4, gopacket.Default)
		tcp, ok := p.TransportLayer().(*layers.TCP)
		if !ok {
			t.Fatal(p.ErrorLayer())
		}
		ip := p.NetworkLayer().(*layers.IPv4)
		if err := tcp.SetNetworkLayerForChecksum(ip); err != nil {
			t.Fatal(err)
		}
		if err, bad := p.VerifyChecksums(); err != nil || len(bad) > 0 {
			t.Errorf("segment %d: checksums %v %v", i, err, bad)
		}
		last := i == 2
		if first := uint32(1<<32 - 500); tcp.Seq != first+uint32(i*1000) || ip.Id != 7+uint16(i) || ip.TTL != 1 || tcp.FIN != last || tcp.PSH != last {
			t.Errorf("segment %d: %+v %+v", i, ip, tcp)
		}
		payload = append(payload, tcp.Payload...)
		i++
	})
	if i != 3 || !bytes.Equal(payload, v.ip[40:]) {
		t.Errorf("%d segments, %d bytes", i, len(payload))
	}
}

func FuzzPacket(f *testing.F) {
	f.Add(tcpBurst(f, 2500))
	f.Add(append(make([]byte, room), 0x60, 0, 0, 0, 0, 8, 44, 1))
	f.Fuzz(func(t *testing.T, buf []byte) {
		v, ok := parse(bytes.Clone(buf))
		if !ok || len(buf) > largeBuffer || v.gsoSize > 0 && v.gsoSize < 100 {
			return // nonsense, or work that takes a fuzzer too long
		}
		packets, size := v.onWire()
		n, total := 0, 0
		if v.gsoSize > 0 {
			v.segments(nil, func(segment []byte) {
				n++
				total += len(finished(segment))
			})
			if n != packets || total != size {
				t.Fatalf("%d segments of %d bytes, announced %d of %d", n, total, packets, size)
			}
		}
		finishChecksum(v.buf)
		v.hop(1)
	})
}
