package dhcp

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/bodkin-net/bodkin/internal/machine/nat/ip"
)

func TestLeaseIsGiven(t *testing.T) {
	cfg := small(3)
	cfg.DNS, cfg.MTU, cfg.Lease = []netip.Addr{addr("192.168.1.1"), addr("192.0.2.53")}, 1400, 10*time.Minute
	b := newBench(t, cfg)
	o := b.one(b.send(mac(1), message{kind: discover, hw: mac(1), xid: [4]byte{1, 2, 3, 4}, id: "me", broadcast: true}), offer)
	check := func(r reply) {
		t.Helper()
		m := *r.message
		want := message{
			reply: true, kind: r.kind, xid: [4]byte{1, 2, 3, 4}, broadcast: true, yours: addr("192.168.1.100"), hw: mac(1), id: "me",
			server: home.Addr(), lease: 10 * time.Minute, t1: 5 * time.Minute, t2: 525 * time.Second, bits: 24,
			routers: []netip.Addr{home.Addr()}, dns: cfg.DNS, mtu: 1400,
		}
		if fmt.Sprint(m) != fmt.Sprint(want) {
			t.Errorf("got  %+v\nwant %+v", m, want)
		}
		if r.to.Addr() != everyone {
			t.Errorf("sent to %v", r.to)
		}
	}
	check(o)
	a := b.one(b.send(mac(1), message{kind: request, hw: mac(1), xid: [4]byte{1, 2, 3, 4}, id: "me", broadcast: true,
		requested: o.yours, server: o.server}), ack)
	check(a)
	b.wantSaid("leased 192.168.1.100 01 -")
	if got := b.lease(mac(2)); got != addr("192.168.1.101") {
		t.Errorf("the second client has %v", got)
	}
	// DISCOVER of who has a lease already gets the same offer.
	if o := b.one(b.discover(mac(2)), offer); o.yours != addr("192.168.1.101") {
		t.Errorf("offered %v", o.yours)
	}
}

func TestShorterLeaseIsGranted(t *testing.T) {
	b := newBench(t, small(3))
	for _, c := range []struct{ asked, got time.Duration }{{time.Minute, time.Minute}, {2 * time.Hour, time.Hour}, {Forever, time.Hour}} {
		if o := b.one(b.send(mac(1), message{kind: discover, hw: mac(1), lease: c.asked}), offer); o.lease != c.got {
			t.Errorf("%v for %v", o.lease, c.asked)
		}
	}
}

func TestManualAddress(t *testing.T) {
	cfg := small(2)
	cfg.Manual = map[string]netip.Addr{mac(9).String(): addr("192.168.1.7"), mac(8).String(): addr("192.168.1.100")}
	b := newBench(t, cfg)
	if a := b.lease(mac(9), addr("192.168.1.101")); a != addr("192.168.1.7") {
		t.Errorf("manual: %v", a)
	}
	// Nobody else gets a manual address, though it lies in the pool.
	if a := b.lease(mac(1), addr("192.168.1.100")); a != addr("192.168.1.101") {
		t.Errorf("dynamic: %v", a)
	}
	b.one(b.selecting(mac(2), addr("192.168.1.7")), nak)
	b.one(b.selecting(mac(2), addr("192.168.1.100")), nak)
	b.one(b.selecting(mac(2), addr("192.168.1.50")), nak)
	// Its owner is known without ever having asked.
	b.one(b.reboot(mac(8), addr("192.168.1.100")), ack)
	b.one(b.reboot(mac(8), addr("192.168.1.101")), nak)
	// It is set aside as any other is.
	b.one(b.decline(mac(8), addr("192.168.1.100")), 0)
	b.one(b.discover(mac(8)), 0)
	b.wait(asideFor)
	b.lease(mac(8))
	// One machine, two systems.
	if o := b.one(b.send(mac(9), message{kind: discover, hw: mac(9), id: "other system"}), offer); o.yours != addr("192.168.1.7") {
		t.Errorf("%v", o.yours)
	}
	// Which does not cost the first its lease.
	b.one(b.renew(mac(9), addr("192.168.1.7")), ack)
	b.one(b.send(mac(9), message{kind: request, hw: mac(9), id: "other system", requested: addr("192.168.1.7"), server: home.Addr()}), ack)
	b.one(b.renew(mac(9), addr("192.168.1.7")), ack)
}

func TestAutomaticAllocationIsForEver(t *testing.T) {
	cfg := small(2)
	cfg.Automatic = true
	b := newBench(t, cfg)
	o := b.one(b.discover(mac(1)), offer)
	if o.lease != Forever || o.t1 != 0 || o.t2 != 0 {
		t.Errorf("%v %v %v", o.lease, o.t1, o.t2)
	}
	b.lease(mac(1))
	if _, ok := b.NextTimeout(); ok {
		t.Error("a timer for what has no end")
	}
	b.wait(1000 * time.Hour)
	b.lease(mac(2))
	b.one(b.discover(mac(3)), 0)
}

func TestRequestedAddressIsHonoured(t *testing.T) {
	cfg := small(10)
	cfg.Fixed = []netip.Addr{addr("192.168.1.108")}
	b := newBench(t, cfg)
	if a := b.lease(mac(1), addr("192.168.1.105")); a != addr("192.168.1.105") {
		t.Errorf("wished for .105, has %v", a)
	}
	for _, not := range []string{"192.168.1.105", "192.168.1.99", "192.168.1.1", "192.168.1.108", "10.0.0.1", "192.168.1.255"} {
		if o := b.one(b.discover(mac(2), addr(not)), offer); o.yours != addr("192.168.1.100") {
			t.Errorf("wished for %v, offered %v", not, o.yours)
		}
	}
	// What it has counts for more than what it wishes for.
	if o := b.one(b.discover(mac(1), addr("192.168.1.106")), offer); o.yours != addr("192.168.1.105") {
		t.Errorf("offered %v", o.yours)
	}
}

func TestOldAddressComesBack(t *testing.T) {
	cfg := small(4)
	b := newBench(t, cfg)
	first, second := b.lease(mac(1)), b.lease(mac(2))
	b.send(mac(1), message{kind: release, hw: mac(1), client: first, server: home.Addr()})
	b.wait(2 * time.Hour)
	b.wantSaid("leased 192.168.1.100 01 -", "leased 192.168.1.101 02 -", "released 192.168.1.100 01 -", "expired 192.168.1.101 02 -")
	// Two others get addresses that were nobody's.
	for n := 3; n <= 4; n++ {
		if a := b.lease(mac(n)); a == first || a == second {
			t.Errorf("%v was another's", a)
		}
	}
	if a := b.lease(mac(2)); a != second {
		t.Errorf("had %v, has %v", second, a)
	}
	// Need knows no old rights.
	if a := b.lease(mac(5)); a != first {
		t.Errorf("the last address is %v, not %v", first, a)
	}
}

func TestInitReboot(t *testing.T) {
	b := newBench(t, small(4))
	mine := b.lease(mac(1))
	other := b.lease(mac(2))
	for _, c := range []struct {
		name string
		hw   MAC
		addr string
		want kind
	}{
		{"its own", mac(1), mine.String(), ack},
		{"another's", mac(1), other.String(), nak},
		{"not its own, free", mac(1), "192.168.1.103", nak},
		{"another network's", mac(1), "10.1.2.3", nak},
		{"a stranger with another network's", mac(7), "10.1.2.3", nak},
		{"a stranger with another's", mac(7), mine.String(), nak},
		{"a stranger with the server's", mac(7), "192.168.1.1", nak},
		{"a stranger with the network's", mac(7), "192.168.1.0", nak},
		// "If the DHCP server has no record of this client, then it MUST
		// remain silent" (RFC 2131 section 4.3.2).
		{"a stranger with one that is free", mac(7), "192.168.1.103", 0},
		{"a stranger with one beside the pool", mac(7), "192.168.1.50", 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			b.t = t
			r := b.one(b.reboot(c.hw, addr(c.addr)), c.want)
			if c.want == nak && (r.to.Addr() != everyone || r.yours.IsValid() || r.text == "" || r.lease != 0) {
				t.Errorf("%+v to %v", r.message, r.to)
			}
		})
	}
}

func TestOutdatedAddressIsRefused(t *testing.T) {
	b := newBench(t, small(2))
	t.Run("given to another after it expired", func(t *testing.T) {
		b.t = t
		a := b.lease(mac(1))
		b.wait(time.Hour)
		b.lease(mac(2))
		b.lease(mac(3))
		b.said()
		for _, asks := range []func(MAC, netip.Addr) []reply{b.reboot, b.renew, b.selecting} {
			if r := b.one(asks(mac(1), a), nak); r.to.Addr() != everyone || r.client.IsValid() {
				t.Errorf("%+v to %v", r.message, r.to)
			}
		}
		b.wantSaid("refused "+a.String()+" 01 -", "refused "+a.String()+" 01 -", "refused "+a.String()+" 01 -")
	})
	t.Run("expired, but nobody else's", func(t *testing.T) {
		b = newBench(t, small(2))
		a := b.lease(mac(1))
		b.wait(time.Hour)
		b.one(b.renew(mac(1), a), ack)
	})
	t.Run("forgotten by the operator", func(t *testing.T) {
		b = newBench(t, small(2))
		a := b.lease(mac(1))
		b.Forget(b.now, mac(1))
		b.one(b.renew(mac(1), a), nak)
		b.one(b.reboot(mac(1), a), nak)
		if now := b.lease(mac(1), a); now == a {
			t.Error("it is back")
		}
		b.one(b.renew(mac(1), a), nak)
	})
	t.Run("forgotten before a restart", func(t *testing.T) {
		b = newBench(t, small(2))
		a := b.lease(mac(1))
		b.Forget(b.now, mac(1))
		b.Reset(b.now)
		b.one(b.selecting(mac(1), a), nak)
		b.one(b.renew(mac(1), a), nak)
		if now := b.lease(mac(1), a); now == a {
			t.Error("it is back")
		}
		if now := b.lease(mac(2)); now != a {
			t.Errorf("nobody else gets it, but %v", now)
		}
	})
	t.Run("forgotten, and there is no other", func(t *testing.T) {
		b = newBench(t, small(1))
		a := b.lease(mac(1))
		b.Forget(b.now, mac(1))
		b.one(b.renew(mac(1), a), nak)
		if now := b.lease(mac(1)); now != a {
			t.Errorf("%v", now)
		}
		b.one(b.renew(mac(1), a), ack)
	})
}

func TestRenewal(t *testing.T) {
	b := newBench(t, small(2))
	a := b.lease(mac(1))
	b.said()
	b.wait(30 * time.Minute)
	r := b.one(b.renew(mac(1), a), ack) // unicast, as in RENEWING
	if r.to.Addr() != a || r.lease != time.Hour || r.yours != a {
		t.Errorf("%+v to %v", r.message, r.to)
	}
	b.wait(59 * time.Minute)
	b.wantSaid("renewed 192.168.1.100 01 -")
	b.wait(time.Minute)
	b.wantSaid("expired 192.168.1.100 01 -")
}

func TestOffersAreHeldForAShortTime(t *testing.T) {
	b := newBench(t, small(1))
	o := b.one(b.discover(mac(1)), offer)
	b.one(b.discover(mac(2)), 0)
	b.wait(time.Second)
	// Who came first has had his chance.
	b.one(b.discover(mac(2)), offer)
	b.one(b.selecting(mac(1), o.yours), nak)
	b.one(b.selecting(mac(2), o.yours), ack)

	b = newBench(t, small(1))
	o = b.one(b.discover(mac(1)), offer)
	b.wait(offerFor)
	if _, ok := b.NextTimeout(); ok {
		t.Error("the offer stands")
	}
	// It was nobody else's in the meantime.
	b.one(b.selecting(mac(1), o.yours), ack)
}

func TestAnotherServersOfferIsTaken(t *testing.T) {
	b := newBench(t, small(1))
	b.one(b.discover(mac(1)), offer)
	b.one(b.send(mac(1), message{kind: request, hw: mac(1), requested: addr("192.168.1.66"), server: addr("192.168.1.2")}), 0)
	b.one(b.discover(mac(2)), offer)
}

func TestExhaustion(t *testing.T) {
	b := newBench(t, small(2))
	b.lease(mac(1))
	b.lease(mac(2))
	b.said()
	for range 3 {
		b.one(b.discover(mac(3)), 0)
	}
	b.one(b.discover(mac(4)), 0)
	b.wantSaid("exhausted invalid IP 03 -")
	b.one(b.selecting(mac(3), addr("192.168.1.100")), nak)
	b.send(mac(1), message{kind: release, hw: mac(1), client: addr("192.168.1.100"), server: home.Addr()})
	b.lease(mac(3))
	b.said()
	b.one(b.discover(mac(4)), 0)
	b.wantSaid("exhausted invalid IP 04 -")
}

func TestDecline(t *testing.T) {
	b := newBench(t, small(4))
	a := b.lease(mac(1))
	b.said()
	b.one(b.decline(mac(1), a), 0)
	b.wantSaid("declined 192.168.1.100 01 -")
	if now := b.lease(mac(1)); now == a {
		t.Error("the declined address again")
	}
	b.one(b.reboot(mac(1), a), nak)
	b.one(b.reboot(mac(9), a), nak)
	b.lease(mac(2))
	b.lease(mac(3))
	b.one(b.discover(mac(4)), 0)
	b.wait(asideFor)
	if now := b.lease(mac(4)); now != a {
		t.Errorf("%v, not what was set aside", now)
	}
	// Others' addresses are not declined.
	b.one(b.decline(mac(9), a), 0)
	b.one(b.decline(mac(2), a), 0)
	b.one(b.renew(mac(4), a), ack)
	// Nor is what one had.
	b.wait(time.Hour)
	b.said()
	b.one(b.decline(mac(4), a), 0)
	b.wantSaid()
}

func TestDecliningDoesNotTakeThePool(t *testing.T) {
	b := newBench(t, small(4))
	for n := range 100 {
		b.wait(time.Second)
		b.decline(mac(n), b.one(b.discover(mac(n)), offer).yours)
	}
	if n := b.book.queues[aside].n; n != 2 {
		t.Errorf("%d of 4 are set aside", n)
	}
}

func TestNobodyReleasesForOthers(t *testing.T) {
	b := newBench(t, small(2))
	a := b.lease(mac(1))
	m := message{kind: release, hw: mac(1), client: a, server: home.Addr()}
	b.said()
	b.send(mac(2), m)
	m.kind, m.requested, m.client = decline, a, netip.Addr{}
	b.send(mac(2), m)
	b.wantSaid()
	m.kind, m.requested, m.client = release, netip.Addr{}, a
	// Nor does who has renewed it in the client's name.
	b.one(b.send(mac(2), message{kind: request, hw: mac(1), client: a}), ack)
	b.said()
	b.send(mac(2), m)
	b.wantSaid()
	b.send(mac(1), m)
	b.wantSaid("released 192.168.1.100 01 -")
}

// A repeater puts its own hardware address on what its clients send. It
// speaks for them until they speak for themselves.
func TestRepeater(t *testing.T) {
	b := newBench(t, small(2))
	const repeater = 9
	o := b.one(b.send(mac(repeater), message{kind: discover, hw: mac(1)}), offer)
	a := b.one(b.send(mac(repeater), message{kind: request, hw: mac(1), requested: o.yours, server: o.server}), ack).yours
	b.said()
	b.Seen(b.now, a.As4(), mac(repeater))
	b.wantSaid()
	b.one(b.renew(mac(1), a), ack) // it has come nearer
	b.said()
	b.Seen(b.now, a.As4(), mac(repeater))
	b.send(mac(repeater), message{kind: release, hw: mac(1), client: a, server: home.Addr()})
	b.wantSaid("stolen 192.168.1.100 01 09")
}

func TestInform(t *testing.T) {
	b := newBench(t, small(2))
	r := b.one(b.send(mac(1), message{kind: inform, hw: mac(1), client: addr("192.168.1.50")}), ack)
	if r.to.Addr() != addr("192.168.1.50") || r.lease != 0 || r.yours.IsValid() || r.bits != 24 || len(r.routers) != 1 {
		t.Errorf("%+v to %v", r.message, r.to)
	}
	b.one(b.send(mac(1), message{kind: inform, hw: mac(1), client: addr("10.9.9.9")}), 0)
}

func TestProbe(t *testing.T) {
	cfg := small(3)
	cfg.Probe = true
	b := newBench(t, cfg)
	pinged := func(all []reply) netip.Addr {
		t.Helper()
		if len(all) != 1 || all[0].message != nil {
			t.Fatalf("%+v, want a ping", all)
		}
		return all[0].to.Addr()
	}
	a := pinged(b.discover(mac(1)))
	b.one(b.discover(mac(1)), 0) // again, impatiently
	b.HandlePacket(b.now, mac(66), ip.AppendEcho(nil, a, home.Addr(), 64, ip.EchoReply, ServerPort, 1, nil))
	next := pinged(b.replies())
	if next == a {
		t.Error("the same address again")
	}
	b.wantSaid("occupied 192.168.1.100 01 42")
	b.wait(probeFor)
	o := b.one(b.replies(), offer)
	if o.yours != next {
		t.Errorf("pinged %v, offered %v", next, o.yours)
	}
	b.one(b.selecting(mac(1), next), ack)
	// Who holds an address uses it, so it is not pinged.
	b.one(b.discover(mac(1)), offer)
	b.HandlePacket(b.now, mac(1), ip.AppendEcho(nil, next, home.Addr(), 64, ip.EchoReply, ServerPort, 1, nil))
	b.one(b.renew(mac(1), next), ack)
}

// Who still has the address that it is about to be offered is no stranger there.
func TestProbeFindsTheClientItself(t *testing.T) {
	cfg := small(3)
	cfg.Probe = true
	b := newBench(t, cfg)
	b.discover(mac(1))
	b.wait(probeFor)
	a := b.one(b.replies(), offer).yours
	b.one(b.selecting(mac(1), a), ack)
	b.wait(time.Hour) // nobody has told the client that it was over
	b.said()
	if all := b.discover(mac(1)); len(all) != 1 || all[0].to.Addr() != a {
		t.Fatalf("%+v, want a ping of %v", all, a)
	}
	b.HandlePacket(b.now, mac(1), echoReply(a))
	if o := b.one(b.replies(), offer); o.yours != a {
		t.Errorf("offered %v", o.yours)
	}
	b.wantSaid()
}

func TestNotForTheServer(t *testing.T) {
	b := newBench(t, small(2))
	m := message{kind: discover, hw: mac(1)}
	good := func(edit func(*message), to string) []byte {
		m := m
		edit(&m)
		return ip.AppendUDP(nil, netip.AddrPortFrom(netip.IPv4Unspecified(), ClientPort), netip.MustParseAddrPort(to), 64, m.bytes())
	}
	same := func(*message) {}
	bad := good(same, "255.255.255.255:67")
	bad[len(bad)-1]++
	for _, c := range []struct {
		name string
		pkt  []byte
	}{
		{"to somebody else", good(same, "192.168.1.2:67")},
		{"to another port", good(same, "192.168.1.1:68")},
		{"from a relay", good(func(m *message) { m.relay = addr("192.168.1.9") }, "192.168.1.1:67")},
		{"from a server", good(func(m *message) { m.reply, m.kind = true, offer }, "192.168.1.1:67")},
		{"a request as an answer", good(func(m *message) { m.reply = true }, "192.168.1.1:67")},
		{"a server's word as a request", good(func(m *message) { m.kind = ack }, "192.168.1.1:67")},
		{"from a group", good(func(m *message) { m.hw[0] = 1 }, "192.168.1.1:67")},
		{"BOOTP", good(func(m *message) { m.kind = 0 }, "192.168.1.1:67")},
		{"damaged", bad},
		{"IPv6", ip.AppendUDP(nil, netip.MustParseAddrPort("[fe80::1]:68"), netip.MustParseAddrPort("[fe80::2]:67"), 64, m.bytes())},
	} {
		b.HandlePacket(b.now, mac(1), c.pkt)
		if got := b.replies(); len(got) != 0 {
			t.Errorf("%s: answered %+v", c.name, got[0].message)
		}
	}
	for _, to := range []string{"255.255.255.255:67", "192.168.1.255:67", "192.168.1.1:67"} {
		b.HandlePacket(b.now, mac(1), good(same, to))
		b.one(b.replies(), offer)
	}
}

func manyRoutes(n int) (all []Route) {
	for i := range n {
		all = append(all, Route{netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 1, 2, byte(i)}), 32), addr("192.168.1.9")})
	}
	return all
}

// RFC 3442: "If the DHCP server returns both a Classless Static Routes option
// and a Router option, the DHCP client MUST ignore the Router option." So the
// router is among the routes, however many there are.
func TestRoutesAreTold(t *testing.T) {
	for _, n := range []int{1, MaxRoutes - 1} {
		cfg := small(3)
		cfg.Routes = manyRoutes(n)
		b := newBench(t, cfg)
		o := b.one(b.discover(mac(1)), offer)
		want := append(manyRoutes(n), Route{netip.MustParsePrefix("0.0.0.0/0"), home.Addr()})
		if !slices.Equal(o.routes, want) || !slices.Equal(o.routers, []netip.Addr{home.Addr()}) {
			t.Errorf("%d routes: told of %v, routers %v", n, o.routes, o.routers)
		}
		if m := len(o.bytes()); m > maxMessage {
			t.Errorf("%d routes are %d bytes", n, m)
		}
	}
	b := newBench(t, small(3))
	if o := b.one(b.discover(mac(1)), offer); o.routes != nil {
		t.Errorf("of nothing it told %v", o.routes)
	}
}

func TestConfigIsChecked(t *testing.T) {
	for _, c := range []struct {
		name string
		cfg  ServerConfig
		want string
	}{
		{"no address", ServerConfig{}, "no address"},
		{"IPv6", ServerConfig{Addr: netip.MustParsePrefix("2001:db8::1/64")}, "IPv4"},
		{"too small", ServerConfig{Addr: netip.MustParsePrefix("192.168.1.1/31")}, "/30"},
		{"the network's address", ServerConfig{Addr: netip.MustParsePrefix("192.168.1.0/24")}, "no host's"},
		{"half a pool", ServerConfig{Addr: home, Pool: Pool{First: addr("192.168.1.5")}}, "no host's"},
		{"backwards", ServerConfig{Addr: home, Pool: Pool{First: addr("192.168.1.5"), Last: addr("192.168.1.4")}}, "before its start"},
		{"outside", ServerConfig{Addr: home, Pool: Pool{First: addr("192.168.1.5"), Last: addr("192.168.2.4")}}, "no host's"},
		{"broadcast", ServerConfig{Addr: home, Pool: Pool{First: addr("192.168.1.5"), Last: addr("192.168.1.255")}}, "no host's"},
		{"lease", ServerConfig{Addr: home, Pool: Pool{Lease: 1500 * time.Millisecond}}, "whole seconds"},
		{"negative lease", ServerConfig{Addr: home, Pool: Pool{Lease: -time.Hour}}, "whole seconds"},
		{"MTU", ServerConfig{Addr: home, Pool: Pool{MTU: 20}}, "MTU"},
		{"DNS", ServerConfig{Addr: home, Pool: Pool{DNS: []netip.Addr{addr("::1")}}}, "DNS"},
		{"name", ServerConfig{Addr: home, Pool: Pool{Manual: map[string]netip.Addr{"laptop": addr("192.168.1.5")}}}, `"laptop"`},
		{"group", ServerConfig{Addr: home, Pool: Pool{Manual: map[string]netip.Addr{"01:00:00:00:00:01": addr("192.168.1.5")}}}, "one interface"},
		{"own", ServerConfig{Addr: home, Pool: Pool{Manual: map[string]netip.Addr{mac(1).String(): home.Addr()}}}, "own"},
		{"elsewhere", ServerConfig{Addr: home, Pool: Pool{Manual: map[string]netip.Addr{mac(1).String(): addr("10.0.0.1")}}}, "no host's"},
		{"twice", ServerConfig{Addr: home, Pool: Pool{Manual: map[string]netip.Addr{mac(1).String(): addr("192.168.1.5"), mac(2).String(): addr("192.168.1.5")}}}, "belongs to"},
		{"two", ServerConfig{Addr: home, Pool: Pool{Manual: map[string]netip.Addr{mac(1).String(): addr("192.168.1.5"), strings.ReplaceAll(mac(1).String(), ":", "-"): addr("192.168.1.6")}}}, "two"},
		{"default route", ServerConfig{Addr: home, Routes: []Route{{netip.MustParsePrefix("0.0.0.0/0"), addr("192.168.1.9")}}}, "no route"},
		{"host bits", ServerConfig{Addr: home, Routes: []Route{{netip.MustParsePrefix("10.0.0.1/8"), addr("192.168.1.9")}}}, "no route"},
		{"IPv6 route", ServerConfig{Addr: home, Routes: []Route{{netip.MustParsePrefix("2001:db8::/32"), addr("192.168.1.9")}}}, "no route"},
		{"nobody's route", ServerConfig{Addr: home, Routes: []Route{{netip.MustParsePrefix("10.0.0.0/8"), addr("192.168.2.9")}}}, "no route"},
		{"too many routes", ServerConfig{Addr: home, Routes: manyRoutes(MaxRoutes)}, "99 at most"},
		{"limit", ServerConfig{Addr: home, MaxLeases: -1}, "negative"},
	} {
		if _, err := NewServer(c.cfg); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", c.name, err, c.want)
		}
	}
	// A pool may be as large as networks get; it costs what is lent of it.
	b := newBench(t, ServerConfig{Addr: netip.MustParsePrefix("10.255.255.254/8")})
	if o := b.discoverFrom(addr("10.255.255.254")); o != addr("10.0.0.1") {
		t.Errorf("%v", o)
	}
}

func TestLends(t *testing.T) {
	for _, c := range []struct {
		cfg  ServerConfig
		want int
	}{
		{ServerConfig{Addr: netip.MustParsePrefix("192.168.1.1/30")}, 1},
		{ServerConfig{Addr: home, Fixed: []netip.Addr{home.Addr(), addr("::1"), addr("192.168.1.9"), addr("10.0.0.1")}}, 252},
		{ServerConfig{Addr: home, Pool: Pool{First: addr("192.168.1.5"), Last: addr("192.168.1.6"),
			Manual: map[string]netip.Addr{mac(1).String(): addr("192.168.1.5"), mac(2).String(): addr("192.168.1.9")}}}, 1},
		{ServerConfig{Addr: home, Fixed: []netip.Addr{addr("192.168.1.5")}, Pool: Pool{First: addr("192.168.1.5"), Last: addr("192.168.1.5")}}, 0},
	} {
		if got, err := c.cfg.Lends(); got != c.want || err != nil {
			t.Errorf("%+v: %d, %v; want %d", c.cfg, got, err, c.want)
		}
	}
	if _, err := (ServerConfig{}).Lends(); err == nil {
		t.Error("nobody lends something")
	}
}
