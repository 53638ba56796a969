package router

import (
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/bodkin-net/bodkin/internal/machine/dhcp"
	"github.com/bodkin-net/bodkin/internal/machine/nat"
	"github.com/bodkin-net/bodkin/internal/machine/nat/ip"
	"github.com/bodkin-net/bodkin/internal/machine/portmap"
)

var (
	epoch    = time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)
	home     = netip.MustParsePrefix("192.168.1.0/24")
	own      = netip.MustParseAddr("192.168.1.1")
	external = netip.MustParseAddr("198.51.100.1")
	remote   = netip.MustParseAddrPort("203.0.113.9:4000")
)

func addr(s string) netip.Addr { return netip.MustParseAddr(s) }

func mac(n byte) MAC { return MAC{2, 0, 0, 0, 0, n} }

func natConfig() nat.Config {
	return nat.Config{
		Inside: []netip.Prefix{home},
		Own:    [nat.Local][]netip.Addr{nat.Inside: {own}, nat.Outside: {external}},
		Rand:   rand.NewPCG(1, 2),
	}
}

// world is a router and the hosts inside, each with a DHCP client.
type world struct {
	t     *testing.T
	now   time.Time
	r     *Router
	hosts []*dhcp.Client
	sent  []nat.Out // what was for nobody here
}

func newWorld(t *testing.T, cfg Config) *world {
	t.Helper()
	r, err := New(epoch, cfg)
	if err != nil {
		t.Fatal(err)
	}
	return &world{t: t, now: epoch, r: r}
}

func (w *world) host(n byte) *dhcp.Client {
	w.t.Helper()
	c, err := dhcp.NewClient(w.now, dhcp.ClientConfig{MAC: mac(n), Rand: rand.NewPCG(3, uint64(n))})
	if err != nil {
		w.t.Fatal(err)
	}
	w.hosts = append(w.hosts, c)
	return c
}

// settle carries packets to and fro until there are none.
func (w *world) settle() {
	for moved := true; moved; {
		moved = false
		for i, c := range w.hosts {
			for pkt, ok := c.Poll(); ok; pkt, ok = c.Poll() {
				moved = true
				w.in(nat.Inside, mac(byte(i+1)), pkt)
			}
		}
		for out, ok := w.r.Poll(); ok; out, ok = w.r.Poll() {
			moved = true
			taken := false
			if out.To == nat.Inside {
				for _, c := range w.hosts {
					taken = c.HandlePacket(w.now, slices.Clone(out.Packet)) || taken
				}
			}
			if !taken {
				w.sent = append(w.sent, nat.Out{To: out.To, Packet: slices.Clone(out.Packet)})
			}
		}
	}
}

func (w *world) in(from nat.Side, link MAC, pkt []byte) nat.Verdict {
	return w.r.Handle(w.now, from, link, pkt, nat.Offload{})
}

func (w *world) pass(d time.Duration) {
	w.now = w.now.Add(d)
	w.r.HandleTimeout(w.now)
	for _, c := range w.hosts {
		c.HandleTimeout(w.now)
	}
	w.settle()
}

func said(r *Router) (all []string) {
	for e, ok := r.Event(); ok; e, ok = r.Event() {
		all = append(all, e.String())
	}
	return all
}

func wantSaid(t testing.TB, r *Router, want []string) {
	t.Helper()
	if got := said(r); !slices.Equal(got, want) {
		t.Errorf("said:\n\t%s\nwant:\n\t%s", strings.Join(got, "\n\t"), strings.Join(want, "\n\t"))
	}
}

func (w *world) wantSaid(want ...string) {
	w.t.Helper()
	wantSaid(w.t, w.r, want)
}

func pool() *dhcp.Pool { return &dhcp.Pool{First: addr("192.168.1.100"), Last: addr("192.168.1.109")} }

func udp(src, dst netip.AddrPort) []byte { return ip.AppendUDP(nil, src, dst, 64, []byte("hello")) }

func TestHostsGetAddresses(t *testing.T) {
	w := newWorld(t, Config{NAT: natConfig(), DHCP: pool()})
	a, b := w.host(1), w.host(2)
	w.settle()
	ga, _ := a.Grant()
	gb, _ := b.Grant()
	if ga.Prefix.String() != "192.168.1.100/24" || gb.Prefix.String() != "192.168.1.101/24" || ga.Router != own {
		t.Fatalf("%+v %+v", ga, gb)
	}
	w.wantSaid(
		"dhcp: 192.168.1.100 leased by 02:00:00:00:00:01 until 2026-11-22 13:00:00",
		"dhcp: 192.168.1.101 leased by 02:00:00:00:00:02 until 2026-11-22 13:00:00")
	// They renew by themselves, by unicast to the router.
	w.pass(30 * time.Minute)
	if got := said(w.r); len(got) != 2 || !strings.Contains(got[0], "renewed") || len(w.sent) != 0 {
		t.Errorf("%q, %d packets left over", got, len(w.sent))
	}
	// And they get through.
	if v := w.in(nat.Inside, mac(1), udp(netip.AddrPortFrom(ga.Prefix.Addr(), 5000), remote)); v.Action != nat.Forward || v.To != nat.Outside {
		t.Errorf("%+v", v)
	}
	w.wantSaid()
}

// The router's other addresses are nobody else's.
func TestOwnAddressIsNotLent(t *testing.T) {
	cfg := Config{NAT: natConfig(), DHCP: pool()}
	cfg.NAT.Own[nat.Inside] = append(cfg.NAT.Own[nat.Inside], addr("192.168.1.100"))
	w := newWorld(t, cfg)
	a := w.host(1)
	w.settle()
	if g, ok := a.Grant(); !ok || g.Prefix.Addr() != addr("192.168.1.101") {
		t.Errorf("%+v %v", g, ok)
	}
}

func TestThiefIsNoticed(t *testing.T) {
	w := newWorld(t, Config{NAT: natConfig(), DHCP: pool(), Fixed: []netip.Addr{addr("192.168.1.105")}})
	w.host(1)
	w.settle()
	said(w.r)
	for _, c := range []struct {
		who  MAC
		from string
		want string
	}{
		{mac(1), "192.168.1.100", ""},
		{mac(2), "192.168.1.100", "dhcp: 192.168.1.100 stolen by 02:00:00:00:00:02 from 02:00:00:00:00:01"},
		{mac(2), "192.168.1.101", "dhcp: 192.168.1.101 stolen by 02:00:00:00:00:02: it is leased to nobody"},
		{mac(2), "192.168.1.105", ""},
		{mac(2), "192.168.1.50", ""},
		{MAC{}, "192.168.1.102", ""},
	} {
		for range 3 {
			// What he sends is let through all the same.
			if v := w.in(nat.Inside, c.who, udp(netip.AddrPortFrom(addr(c.from), 5000), remote)); v.Action != nat.Forward {
				t.Errorf("%+v", v)
			}
		}
		if c.want == "" {
			w.wantSaid()
		} else {
			w.wantSaid(c.want)
		}
	}
}

func TestLeasesSurviveReset(t *testing.T) {
	w := newWorld(t, Config{NAT: natConfig(), DHCP: pool()})
	a := w.host(1)
	w.settle()
	g, _ := a.Grant()
	w.in(nat.Inside, mac(1), udp(netip.AddrPortFrom(g.Prefix.Addr(), 5000), remote))
	if n := len(w.r.NAT().Mappings(w.now)); n != 1 {
		t.Fatalf("%d mappings", n)
	}
	said(w.r)
	w.r.Reset(w.now)
	if n := len(w.r.NAT().Mappings(w.now)); n != 0 {
		t.Errorf("%d mappings", n)
	}
	if got := w.r.Leases(); len(got) != 1 || got[0].Client != mac(1) {
		t.Errorf("%v", got)
	}
	w.pass(30 * time.Minute)
	w.wantSaid("dhcp: 192.168.1.100 renewed by 02:00:00:00:00:01 until 2026-11-22 13:30:00")

	// Forgotten by the operator, it gets another one.
	w.r.Forget(w.now, mac(1))
	w.pass(30 * time.Minute)
	if g, ok := a.Grant(); !ok || g.Prefix.Addr() != addr("192.168.1.101") {
		t.Errorf("%+v %v", g, ok)
	}
	// Another router takes over.
	leases := w.r.Leases()
	w2 := newWorld(t, Config{NAT: natConfig(), DHCP: pool()})
	if left := w2.r.Restore(w.now, leases); left != 0 || len(w2.r.Leases()) != 1 {
		t.Errorf("%d left, %v", left, w2.r.Leases())
	}
	w2 = newWorld(t, Config{NAT: natConfig()})
	if left := w2.r.Restore(w.now, leases); left != 1 || w2.r.Leases() != nil {
		t.Errorf("%d left, %v", left, w2.r.Leases())
	}
}

// What a network card leaves undone is no reason to drop a renewal.
func TestUnfinishedChecksum(t *testing.T) {
	w := newWorld(t, Config{NAT: natConfig(), DHCP: pool()})
	a := w.host(1)
	pkt, _ := a.Poll()
	// The sum of the pseudo-header alone, in one's complement.
	var p ip.Packet
	if err := p.Decode(pkt); err != nil {
		t.Fatal(err)
	}
	sum := uint32(17 + len(p.Transport()))
	for i := 12; i < 20; i += 2 {
		sum += uint32(pkt[i])<<8 | uint32(pkt[i+1])
	}
	sum = sum&0xffff + sum>>16
	pkt[26], pkt[27] = byte(sum>>8), byte(sum)
	w.r.Handle(w.now, nat.Inside, mac(1), slices.Clone(pkt), nat.Offload{})
	if out, ok := w.r.Poll(); ok {
		t.Errorf("answered a damaged packet: %x", out.Packet)
	}
	if v := w.r.Handle(w.now, nat.Inside, mac(1), pkt, nat.Offload{PartialSum: true}); v.Reason != nat.Kept {
		t.Errorf("%+v", v)
	}
	if _, ok := w.r.Poll(); !ok {
		t.Error("no offer")
	}
}

// What is not taken is left as it came: the gateway is told the same of it.
func TestOthersChecksumIsLeft(t *testing.T) {
	l := newLine(t, portmap.Behaviour{PCP: true})
	l.settle()
	public := l.leaves(host)
	for _, c := range []struct {
		from nat.Side
		pkt  []byte
	}{
		{nat.Inside, udp(host, netip.AddrPortFrom(own, 53))},
		{nat.Inside, udp(host, netip.MustParseAddrPort("224.0.0.251:5353"))},
		{nat.Outside, udp(netip.AddrPortFrom(remote.Addr(), 67), netip.AddrPortFrom(public.Addr(), 68))},
	} {
		c.pkt[26], c.pkt[27] = 1, 2
		l.home.Handle(l.now, c.from, mac(50), c.pkt[:len(c.pkt):len(c.pkt)], nat.Offload{PartialSum: true})
		if c.pkt[26] != 1 || c.pkt[27] != 2 {
			t.Errorf("the checksum of %x was edited", c.pkt)
		}
	}
}

// What is for everyone, or for a group, and not for a service, goes nowhere.
func TestBroadcastsStayInside(t *testing.T) {
	for _, cfg := range []Config{{NAT: natConfig()}, {NAT: natConfig(), DHCP: pool()}} {
		w := newWorld(t, cfg)
		from := netip.AddrPortFrom(addr("192.168.1.50"), 5000)
		for _, to := range []string{"255.255.255.255:68", "224.0.0.251:5353", "239.255.255.250:1901", "192.168.1.255:137", "240.0.0.1:66"} {
			if v := w.in(nat.Inside, mac(7), udp(from, netip.MustParseAddrPort(to))); v.Action != nat.Drop || v.Reason == nat.Kept {
				t.Errorf("to %v: %+v", to, v)
			}
		}
		w.settle()
		if len(w.sent) != 0 {
			t.Errorf("%d packets", len(w.sent))
		}
	}
}

func TestConfigIsChecked(t *testing.T) {
	for _, c := range []struct {
		name string
		edit func(*Config)
		want string
	}{
		{"no randomness", func(c *Config) { c.NAT.Rand = nil }, "randomness"},
		{"no inside address", func(c *Config) { c.DHCP, c.NAT.Own[nat.Inside] = pool(), nil }, "IPv4 address inside"},
		{"address elsewhere", func(c *Config) { c.DHCP, c.NAT.Own[nat.Inside] = pool(), []netip.Addr{addr("10.0.0.1")} }, "IPv4 address inside"},
		{"only IPv6", func(c *Config) { c.DHCP, c.NAT.Own[nat.Inside] = pool(), []netip.Addr{addr("2001:db8::1")} }, "IPv4 address inside"},
		{"pool elsewhere", func(c *Config) { c.DHCP = &dhcp.Pool{First: addr("10.0.0.1"), Last: addr("10.0.0.2")} }, "no host's address"},
	} {
		cfg := Config{NAT: natConfig()}
		c.edit(&cfg)
		if _, err := New(epoch, cfg); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", c.name, err, c.want)
		}
	}
}
