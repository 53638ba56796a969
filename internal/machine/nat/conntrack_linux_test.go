package nat_test

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/bodkin-net/bodkin/internal/lab/netns"
	"github.com/bodkin-net/bodkin/internal/machine/nat"
	"github.com/bodkin-net/bodkin/internal/machine/nat/ip"
)

// kernelGateway is a NAT of the kernel's in a namespace of its own: masquerade,
// and what is INVALID or NEW from outside is dropped. Packets go in and come
// out by TUN devices.
type kernelGateway struct {
	t       *testing.T
	devices [2]int // inside, outside
}

var deviceNames = [2]string{"inside0", "outside0"}

const (
	kernelInside  = "10.0.0.254/24"
	kernelOutside = "198.51.100.1/24"
)

// newKernelGateway leaves the calling thread in the namespace, so that the
// thread must end with the goroutine.
func newKernelGateway(t *testing.T) *kernelGateway {
	t.Helper()
	k := &kernelGateway{t: t}
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(unix.Unshare(unix.CLONE_NEWNET))
	// One processor, so that packets stay in order.
	var one unix.CPUSet
	must(unix.SchedGetaffinity(0, &one))
	for i := range 1024 {
		if one.IsSet(i) {
			one.Zero()
			one.Set(i)
			break
		}
	}
	must(unix.SchedSetaffinity(0, &one))
	for i, addr := range []string{kernelInside, kernelOutside} {
		fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
		must(err)
		t.Cleanup(func() { unix.Close(fd) })
		req, err := unix.NewIfreq(deviceNames[i])
		must(err)
		req.SetUint16(unix.IFF_TUN | unix.IFF_NO_PI)
		must(unix.IoctlIfreq(fd, unix.TUNSETIFF, req))
		k.devices[i] = fd
		link, err := netlink.LinkByName(deviceNames[i])
		must(err)
		a, err := netlink.ParseAddr(addr)
		must(err)
		must(netlink.AddrAdd(link, a))
		must(netlink.LinkSetUp(link))
		if i == 1 {
			must(netlink.RouteAdd(&netlink.Route{LinkIndex: link.Attrs().Index, Dst: &net.IPNet{IP: net.IPv4zero, Mask: net.CIDRMask(0, 32)}, Scope: netlink.SCOPE_LINK}))
		}
	}
	for name, value := range map[string]string{
		"ipv4/ip_forward": "1", "ipv4/conf/all/rp_filter": "0", "ipv6/conf/all/disable_ipv6": "1",
		"netfilter/nf_conntrack_tcp_loose": "1", "netfilter/nf_conntrack_tcp_be_liberal": "0",
	} {
		must(os.WriteFile("/proc/sys/net/"+name, []byte(value), 0))
	}
	must(k.rules())
	k.drain()
	return k
}

func (k *kernelGateway) rules() error {
	c, err := nftables.New()
	if err != nil {
		return err
	}
	name := func(key expr.MetaKey, dev string) []expr.Any {
		b := make([]byte, unix.IFNAMSIZ)
		copy(b, dev)
		return []expr.Any{&expr.Meta{Key: key, Register: 1}, &expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: b}}
	}
	state := func(bits uint32) []expr.Any {
		return []expr.Any{
			&expr.Ct{Key: expr.CtKeySTATE, Register: 1},
			&expr.Bitwise{SourceRegister: 1, DestRegister: 1, Len: 4, Mask: binaryutil.NativeEndian.PutUint32(bits), Xor: make([]byte, 4)},
			&expr.Cmp{Op: expr.CmpOpNeq, Register: 1, Data: make([]byte, 4)},
		}
	}
	verdict := func(v expr.VerdictKind) expr.Any { return &expr.Verdict{Kind: v} }
	drop, accept := nftables.ChainPolicyDrop, nftables.ChainPolicyAccept
	t := c.AddTable(&nftables.Table{Family: nftables.TableFamilyIPv4, Name: "gateway"})
	chain := func(n string, kind nftables.ChainType, h *nftables.ChainHook, p *nftables.ChainPriority, policy *nftables.ChainPolicy) *nftables.Chain {
		return c.AddChain(&nftables.Chain{Table: t, Name: n, Type: kind, Hooknum: h, Priority: p, Policy: policy})
	}
	rule := func(ch *nftables.Chain, e []expr.Any, last ...expr.Any) {
		c.AddRule(&nftables.Rule{Table: t, Chain: ch, Exprs: append(e, last...)})
	}
	post := chain("post", nftables.ChainTypeNAT, nftables.ChainHookPostrouting, nftables.ChainPriorityNATSource, &accept)
	rule(post, name(expr.MetaKeyOIFNAME, deviceNames[1]), &expr.Masq{})
	fwd := chain("forward", nftables.ChainTypeFilter, nftables.ChainHookForward, nftables.ChainPriorityFilter, &drop)
	rule(fwd, state(expr.CtStateBitINVALID), verdict(expr.VerdictDrop))
	rule(fwd, state(expr.CtStateBitESTABLISHED|expr.CtStateBitRELATED), verdict(expr.VerdictAccept))
	rule(fwd, name(expr.MetaKeyIIFNAME, deviceNames[0]), verdict(expr.VerdictAccept))
	chain("input", nftables.ChainTypeFilter, nftables.ChainHookInput, nftables.ChainPriorityFilter, &drop)
	chain("output", nftables.ChainTypeFilter, nftables.ChainHookOutput, nftables.ChainPriorityFilter, &drop)
	return c.Flush()
}

func (k *kernelGateway) drain() {
	b := make([]byte, 2048)
	for _, fd := range k.devices {
		for {
			if _, err := unix.Read(fd, b); err != nil {
				break
			}
		}
	}
}

// pass sends a packet through, and a marker behind it that always passes: what
// has not come out before that was dropped.
func (k *kernelGateway) pass(outward bool, pkt []byte) (out []byte) {
	k.t.Helper()
	in, from := 1, 0
	mark := ip.AppendUDP(nil, netip.MustParseAddrPort("10.0.0.1:7"), netip.MustParseAddrPort("192.0.2.7:7"), 64, []byte("mark"))
	if !outward {
		in, from = 0, 1
		mark = ip.AppendUDP(nil, netip.MustParseAddrPort("192.0.2.7:7"), netip.MustParseAddrPort("198.51.100.1:7"), 64, []byte("mark"))
	}
	for _, b := range [][]byte{pkt, mark} {
		if _, err := unix.Write(k.devices[from], b); err != nil {
			k.t.Fatal(err)
		}
	}
	b := make([]byte, 2048)
	for deadline := time.Now().Add(5 * time.Second); ; {
		n, err := unix.Read(k.devices[in], b)
		if err == unix.EAGAIN {
			if time.Now().After(deadline) {
				k.t.Fatal("the marker did not come out")
			}
			unix.Poll([]unix.PollFd{{Fd: int32(k.devices[in]), Events: unix.POLLIN}}, 100)
			continue
		}
		if err != nil {
			k.t.Fatal(err)
		}
		if bytes.HasSuffix(b[:n], []byte("mark")) {
			return out
		}
		out = bytes.Clone(b[:n])
	}
}

// The gateway and the kernel agree about every segment of long random walks.
func TestConntrackAgainstKernel(t *testing.T) {
	netns.Need(t)
	done := make(chan struct{})
	go func() { // the thread ends with it
		defer close(done)
		runtime.LockOSThread()
		k := newKernelGateway(t)
		// So that markers get in.
		k.pass(true, ip.AppendUDP(nil, netip.MustParseAddrPort("10.0.0.1:7"), netip.MustParseAddrPort("192.0.2.7:7"), 64, []byte("first")))
		for seed := range uint64(400) {
			walkWithKernel(k, seed)
			if t.Failed() {
				return
			}
		}
	}()
	<-done
}

// end is one end of a connection in a walk. Sane numbers get to deep states.
type end struct {
	isn, next uint32 // next to send
	scale     byte
	sack      bool
}

func walkWithKernel(k *kernelGateway, seed uint64) {
	r := rand.New(rand.NewPCG(seed, 13))
	g, err := nat.New(nat.Config{
		Behaviour: nat.Behaviour{
			Mapping: nat.AddressAndPortDependent, Filtering: nat.AddressAndPortDependent,
			TCP: nat.TCP{CheckWindow: true},
		},
		Inside: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/24")},
		Own:    [nat.Local][]netip.Addr{nat.Inside: {netip.MustParseAddr("10.0.0.254")}, nat.Outside: {netip.MustParseAddr("198.51.100.1")}},
		Rand:   rand.NewPCG(seed, 1),
	})
	if err != nil {
		k.t.Fatal(err)
	}
	port := uint16(10000 + seed)
	inner, outer := netip.AddrPortFrom(netip.MustParseAddr("10.0.0.1"), port), netip.AddrPortFrom(netip.MustParseAddr("198.51.100.1"), port)
	remote := netip.MustParseAddrPort("192.0.2.1:4711")
	ends := [2]end{}
	for i := range ends {
		ends[i] = end{isn: r.Uint32(), scale: byte(r.IntN(10)), sack: r.IntN(3) > 0}
		ends[i].next = ends[i].isn
	}
	now := time.Unix(1000, 0)
	var history strings.Builder
	for step := range 80 {
		from := r.IntN(2)
		me, you := &ends[from], &ends[1-from]
		seg := ip.Segment{Window: uint16(r.IntN(3) * r.IntN(30000))}
		kind := r.IntN(16) % 12
		if step < 4 && r.IntN(4) > 0 { // a handshake, mostly
			from = step % 2
			me, you = &ends[from], &ends[1-from]
			kind = []int{0, 1, 2, 2}[step]
			if seed%3 == 0 && step == 1 {
				kind = 0
			}
		}
		seg.Seq, seg.Ack = me.next, you.next
		data := 0
		switch kind {
		case 0:
			seg.Flags, seg.Ack, seg.Seq = ip.SYN, 0, me.isn
		case 1:
			seg.Flags, seg.Seq = ip.SYN|ip.ACK, me.isn
		case 2, 3, 4:
			seg.Flags = ip.ACK
		case 5, 6, 7, 8:
			seg.Flags, data = ip.ACK|ip.PSH, r.IntN(1200)
		case 9:
			seg.Flags = ip.FIN | ip.ACK
		case 10:
			seg.Flags = ip.RST
		case 11:
			seg.Flags = ip.RST | ip.ACK
		}
		if r.IntN(30) == 0 {
			seg.Flags = byte(r.IntN(64))
		}
		// Numbers that are a little, or very, wrong.
		off := func() uint32 {
			return []uint32{1, ^uint32(0), uint32(r.IntN(2000)), -uint32(r.IntN(2000)), uint32(r.IntN(200000)), -uint32(r.IntN(200000)), r.Uint32()}[r.IntN(7)]
		}
		if r.IntN(6) == 0 {
			seg.Seq += off()
		}
		if r.IntN(6) == 0 {
			seg.Ack += off()
		}
		if r.IntN(20) == 0 { // a new socket
			me.isn = r.Uint32()
			me.next = me.isn
		}
		if r.IntN(40) == 0 && seg.Flags&ip.RST != 0 {
			seg.Seq = 0
		}
		if seg.Flags&ip.SYN != 0 {
			if me.sack {
				seg.Options = append(seg.Options, 4, 2, 1, 1)
			}
			if r.IntN(4) > 0 {
				seg.Options = append(seg.Options, 3, 3, me.scale, 1)
			}
		} else if r.IntN(6) == 0 {
			left := you.next - uint32(r.IntN(100))
			right := you.next + uint32(r.IntN(3))*uint32(r.IntN(50))
			seg.Options = []byte{1, 1, 5, 10, byte(left >> 24), byte(left >> 16), byte(left >> 8), byte(left), byte(right >> 24), byte(right >> 16), byte(right >> 8), byte(right)}
		}
		seg.Payload = make([]byte, data)
		src, dst, side := inner, remote, nat.Inside
		if from == 1 {
			src, dst, side = remote, outer, nat.Outside
		}
		pkt := ip.AppendTCP(nil, src, dst, 64, &seg)
		theirs := k.pass(from == 0, pkt)
		v := g.Handle(now, side, pkt, nat.Offload{})
		ours := v.Action == nat.Forward
		fmt.Fprintf(&history, "%2d %s flags %#02x seq isn%+d ack %d+%d window %d options %x data %d: kernel %v, gateway %v %v\n", step, []string{"out", "in "}[from],
			seg.Flags, int32(seg.Seq-me.isn), you.isn, int32(seg.Ack-you.isn), seg.Window, seg.Options, data, theirs != nil, ours, v.Reason)
		if ours != (theirs != nil) {
			k.t.Errorf("seed %d:\n%s", seed, history.String())
			return
		}
		if ours {
			if len(theirs) != len(pkt) || !bytes.Equal(theirs[20:], pkt[20:]) {
				k.t.Errorf("seed %d, step %d: kernel made %x, gateway %x", seed, step, theirs, pkt)
				return
			}
			end := seg.Seq + uint32(data)
			if seg.Flags&ip.SYN != 0 {
				end++
			}
			if seg.Flags&ip.FIN != 0 {
				end++
			}
			if int32(end-me.next) > 0 || seg.Flags&ip.SYN != 0 {
				me.next = end
			}
		}
	}
}
