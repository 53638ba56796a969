package netns

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"

	"golang.org/x/sys/unix"

	build "github.com/bodkin-net/bodkin/internal/machine/nat/ip"
)

// TestJoin hands a device datagrams of several flows and reads what it was
// given, cut up again: every flow's packets in order, none missing, none
// changed, in fewer writes.
func TestJoin(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	for _, v4 := range []bool{true, false} {
		fd, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer unix.Close(fd[0])
		defer unix.Close(fd[1])
		d, other := &device{fd: fd[0], joins: true}, &device{fd: fd[1]}
		w := &wire{}
		sent, got := map[string][]string{}, map[string][]string{}
		writes, packets := 0, 0
		read := func() {
			w.flush()
			buf := make([]byte, largeBuffer)
			for {
				n, ok := other.read(buf)
				if !ok {
					return
				}
				v, ok := parse(buf[:n])
				if !ok {
					t.Fatalf("not understood: %x", buf[:n])
				}
				writes++
				take := func(segment []byte) {
					p := new(build.Packet)
					ip := finished(segment)
					if err := p.Decode(ip); err != nil || !p.ChecksumOK() {
						t.Fatalf("%v, checksum %v: %x", err, p.ChecksumOK(), ip)
					}
					packets++
					flow := fmt.Sprint(p.Src, p.Dst, p.TTL)
					got[flow] = append(got[flow], string(p.Payload()))
				}
				if v.gsoSize == 0 {
					take(v.buf)
				} else {
					v.segments(make([]byte, 0, largeBuffer), take)
				}
			}
		}
		for i := range 5000 {
			src, dst := "192.0.2.1", "192.0.2.2"
			if !v4 {
				src, dst = "2001:db8::1", "2001:db8::2"
			}
			from := netip.AddrPortFrom(netip.MustParseAddr(src), uint16(rng.IntN(10)*rng.IntN(2))+1)
			to := netip.AddrPortFrom(netip.MustParseAddr(dst), 53)
			payload := fmt.Appendf(nil, "%d", i)
			if rng.IntN(10) > 0 { // most are of one length
				payload = append(payload, make([]byte, 36-len(payload))...)
			} else {
				payload = append(payload, make([]byte, rng.IntN(1400))...)
			}
			ttl := uint8(64)
			if rng.IntN(20) == 0 {
				ttl = 63
			}
			buf := append(make([]byte, room), build.AppendUDP(nil, from, to, ttl, payload)...)
			setEther(buf, everyone, wireMAC, etherTypeOf(buf[room:]))
			if rng.IntN(20) > 0 { // as a kernel leaves it
				v, _ := parse(buf)
				buf[0] = vnetNeedsChecksum
				binary.NativeEndian.PutUint16(buf[6:], uint16(v.transit))
				binary.NativeEndian.PutUint16(buf[8:], udpChecksum)
				binary.BigEndian.PutUint16(v.ip[v.transit+udpChecksum:], fold(v.pseudoSum(len(v.ip)-v.transit)))
			}
			flow := fmt.Sprint(from, to, ttl)
			sent[flow] = append(sent[flow], string(payload))
			w.put(d, buf)
			if i%64 == 63 {
				read()
			}
		}
		read()
		if packets != 5000 || writes > packets*2/3 {
			t.Errorf("%d packets in %d writes", packets, writes)
		}
		for flow, want := range sent {
			if !slices.Equal(got[flow], want) {
				t.Errorf("%s: %d packets of %d, or in another order", flow, len(got[flow]), len(want))
			}
		}
	}
}
