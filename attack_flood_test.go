package bodkin_test

import (
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/bodkin-net/bodkin"
	"github.com/bodkin-net/bodkin/internal/lab/scenario"
	"github.com/bodkin-net/bodkin/internal/wire/relay"
	wire "github.com/bodkin-net/bodkin/internal/wire/rendezvous"
	"github.com/bodkin-net/bodkin/internal/wire/stun"
)

// noisy is a network whose UDP sockets hear, before each datagram, some that
// somebody has made up, with any source, and whose every so-manieth send fails
// as after an ICMP error.
type noisy struct {
	bodkin.Network
	each  int
	n     *atomic.Int64
	begun *atomic.Bool
	froms []netip.AddrPort
}

type noisyConn struct {
	net.PacketConn
	noisy
	mu   *sync.Mutex
	r    *rand.Rand
	next *pending
	seen *[]byte // the last real datagram
	sent *int
}

type pending struct {
	junk int // to come
	b    []byte
	from net.Addr
}

func (n noisy) ListenUDP(port uint16) (net.PacketConn, error) {
	pc, err := n.Network.ListenUDP(port)
	return noisyConn{pc, n, new(sync.Mutex), rand.New(rand.NewPCG(1, 2)), new(pending), new([]byte), new(int)}, err
}

func (c noisyConn) ReadFrom(b []byte) (int, net.Addr, error) {
	if c.next.b == nil {
		n, from, err := c.PacketConn.ReadFrom(b)
		if err != nil || !c.begun.Load() {
			return n, from, err
		}
		*c.next = pending{c.each, append([]byte{}, b[:n]...), from}
	}
	if c.next.junk == 0 {
		n := copy(b, c.next.b)
		*c.seen, c.next.b = c.next.b, nil
		return n, c.next.from, nil
	}
	c.next.junk--
	c.n.Add(1)
	from := net.Addr(udpAddr(c.froms[c.r.IntN(len(c.froms))]))
	if c.r.IntN(3) == 0 {
		from = c.next.from // whoever it is that talks to us
	}
	return copy(b, c.junk()), from, nil
}

// junk is noise, with the right beginning of something, or a datagram that was
// good, changed, cut or as it was.
func (c noisyConn) junk() []byte {
	b := make([]byte, 1+c.r.IntN(1400))
	for i := range b {
		b[i] = byte(c.r.Uint32())
	}
	kind := c.r.IntN(9)
	switch kind {
	case 0: // noise
	case 1:
		w := stun.Begin(nil, stun.BindingRequest, stun.TransactionID(append(b, make([]byte, 12)...)[:12]))
		w.Add(stun.Username, []byte("0123456789abcdef:o"))
		w.AddFingerprint()
		return w.Bytes()
	case 2:
		b[0] = byte(c.r.IntN(4))
	case 3:
		head := []byte{wire.First, 1, byte(c.r.IntN(24)), 0}
		return append(head, b...)
	case 4:
		var id relay.ID
		copy(id[:], b)
		return append(relay.AppendHeader(nil, id), b...)
	case 5: // long headers of QUIC 1, and short ones
		return append([]byte{0xc0 | b[0], 0, 0, 0, 1, 8}, b...)
	case 6:
		b[0] = 0x40 | b[0]&0x3f
	default:
		if len(*c.seen) == 0 {
			return b
		}
		b = append([]byte{}, *c.seen...)
		if kind == 7 {
			b[c.r.IntN(len(b))] ^= byte(1 + c.r.IntN(255))
			b = b[:1+c.r.IntN(len(b))]
		}
	}
	return b
}

func (c noisyConn) WriteTo(b []byte, to net.Addr) (int, error) {
	if c.begun.Load() {
		c.mu.Lock()
		*c.sent++
		n := *c.sent
		c.mu.Unlock()
		if n%50 == 0 {
			cause := []error{syscall.ECONNREFUSED, syscall.EHOSTUNREACH, syscall.ENETUNREACH, syscall.EPERM}
			return 0, &net.OpError{Op: "write", Net: "udp", Err: os.NewSyscallError("sendto", cause[n/50%len(cause)])}
		}
	}
	return c.PacketConn.WriteTo(b, to)
}

// What strangers and forgers inject during a transfer costs bytes, and nothing
// else: neither the path nor the data, and what was needed for it is given back.
func TestNoise(t *testing.T) {
	for name, relayOnly := range map[string]bool{"direct": false, "relay": true} {
		t.Run(name, func(t *testing.T) {
			virtual(t, scenario.TwoHomes(scenario.PortRestricted, scenario.PortRestricted), 1, func(t *testing.T, w *world) {
				synctest.Wait()
				base, heap := runtime.NumGoroutine(), heapNow()
				var begun atomic.Bool
				var injected atomic.Int64
				noise := func(c *bodkin.Config) {
					c.RelayOnly = relayOnly
					c.Network = noisy{Network: c.Network, each: 40, n: &injected, begun: &begun, froms: []netip.AddrPort{
						netip.AddrPortFrom(scenario.ServerAddr, 3478), netip.MustParseAddrPort("203.0.113.7:7"),
						netip.AddrPortFrom(scenario.GatewayBAddr, 40000)}}
				}
				a, b := w.node("a", noise), w.node("b", noise)
				ready(t, a, b)
				ca, cb := connect(t, a, b)
				want := bodkin.Direct
				if relayOnly {
					want = bodkin.Relay
				}
				waitPath(t, ca, want)
				begun.Store(true)
				for injected.Load() < 100_000 {
					exchange(t, ca, cb, 300_000)
					exchange(t, cb, ca, 300_000)
					time.Sleep(time.Second)
				}
				if p := ca.Path(); p.Kind != want {
					t.Errorf("path %v", p)
				}
				for _, n := range []*peer{a, b} {
					if l := len(n.events); l > 50 {
						t.Errorf("%d events", l)
					}
				}
				if err := ca.CloseWrite(); err != nil {
					t.Error(err)
				}
				if rest, err := io.ReadAll(cb); err != nil || len(rest) > 0 {
					t.Errorf("%d bytes more, %v", len(rest), err)
				}
				if n := runtime.NumGoroutine(); n > base+200 {
					t.Errorf("%d goroutines", n)
				}
				begun.Store(false)
				a.Close()
				b.Close()
				time.Sleep(time.Minute)
				synctest.Wait()
				if left := running("bodkin-net/bodkin.", "quic-go"); len(left) > 0 {
					t.Errorf("left behind: %s", left)
				}
				if h := heapNow(); h > heap+32<<20 {
					t.Errorf("the heap grew from %d to %d bytes", heap, h)
				}
				t.Logf("%d datagrams were injected", injected.Load())
			})
		})
	}
}

func heapNow() uint64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

// running are the goroutines with one of the words in their stacks, tests' apart.
func running(words ...string) (found []string) {
	b := make([]byte, 4<<20)
	b = b[:runtime.Stack(b, true)]
	for g := range strings.SplitSeq(string(b), "\n\n") {
		if slices.ContainsFunc(words, func(w string) bool { return strings.Contains(g, w) }) {
			found = append(found, g)
		}
	}
	return found
}
