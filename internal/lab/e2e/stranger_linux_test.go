package e2e

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"net"
	"net/netip"
	"sync/atomic"
	"testing"
	"time"

	"github.com/bodkin-net/bodkin/internal/lab/scenario"
	"github.com/bodkin-net/bodkin/internal/wire/stun"
)

// TestStranger: on the private address that b has in his home, a's home has
// somebody else, who answers everything.
func TestStranger(t *testing.T) {
	t.Parallel()
	w := newWorld(t, scenario.SameAddresses(scenario.PortRestricted, scenario.PortRestricted))
	private := w.lab.Host("stranger").Addr(true)
	answered := babble(t, w, "stranger")

	b := w.listen("b")
	a := w.connect("a", "b")
	talk(t, a, b, "is it you")
	a.awaitPath("direct", 0, patience)
	// The stranger goes on answering while the direct path is watched.
	for range 10 {
		talk(t, a, b, "still you")
		talk(t, b, a, "still me")
		<-time.After(200 * time.Millisecond)
	}
	a.stdin.Close()
	b.stdin.Close()
	a.mustExit(patience)
	b.mustExit(patience)

	if answered.Load() == 0 {
		t.Error("nobody asked the stranger: the test tests nothing")
	}
	t.Logf("the stranger answered %d packets", answered.Load())
	for _, p := range []*process{a, b} {
		for _, path := range p.paths() {
			if path.Remote.Addr() == private {
				t.Errorf("%s: a path to %v", p.name, path.Remote)
			}
		}
	}
	checkOutcome(t, a, scenario.Outcome{Kind: "direct", Transport: "udp", Technique: "udp-punch", To: scenario.GatewayBAddr})
}

// babble answers whatever UDP comes to the host, on any port: the same packet
// back, and for a STUN request a success whose integrity is made up.
func babble(t *testing.T, w *world, host string) *atomic.Int64 {
	t.Helper()
	var raw *net.IPConn
	err := w.lab.Host(host).Do(func() (err error) {
		raw, err = net.ListenIP("ip4:udp", &net.IPAddr{IP: net.IPv4zero})
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	var answered atomic.Int64
	done := make(chan struct{})
	go func() {
		defer close(done)
		b := make([]byte, 1<<16)
		for {
			n, from, err := raw.ReadFromIP(b)
			if err != nil {
				return
			}
			if n < 8 {
				continue
			}
			answered.Add(1)
			src, dst, payload := binary.BigEndian.Uint16(b), binary.BigEndian.Uint16(b[2:]), b[8:n]
			at, _ := netip.AddrFromSlice(from.IP.To4())
			for _, answer := range [][]byte{payload, bogus(payload, netip.AddrPortFrom(at, src))} {
				if answer == nil {
					continue
				}
				raw.WriteToIP(datagram(dst, src, answer), from)
			}
		}
	}()
	t.Cleanup(func() {
		raw.Close()
		<-done
	})
	return &answered
}

// datagram is a UDP header, without a checksum, and the payload.
func datagram(src, dst uint16, payload []byte) []byte {
	b := binary.BigEndian.AppendUint16(nil, src)
	b = binary.BigEndian.AppendUint16(b, dst)
	b = binary.BigEndian.AppendUint16(b, uint16(8+len(payload)))
	b = binary.BigEndian.AppendUint16(b, 0)
	return append(b, payload...)
}

// bogus answers a Binding request as the peer would, with a key of its own.
func bogus(request []byte, mapped netip.AddrPort) []byte {
	m, err := stun.Parse(request)
	if err != nil || m.Type != stun.BindingRequest {
		return nil
	}
	answer := stun.Begin(nil, stun.BindingSuccess, m.ID)
	answer.AddMapped(mapped)
	answer.PadTo(m.Len())
	answer.AddIntegrity(hmac.New(sha256.New, []byte("a stranger's key")))
	answer.AddFingerprint()
	return answer.Bytes()
}
