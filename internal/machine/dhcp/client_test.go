package dhcp

import (
	"encoding/hex"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"

	"github.com/bodkin-net/bodkin/internal/machine/nat/ip"
)

// puppet is a client whose server the test is.
type puppet struct {
	*Client
	t   *testing.T
	now time.Time
}

func newPuppet(t *testing.T, last ...netip.Addr) *puppet {
	cfg := ClientConfig{MAC: mac(1), Rand: rand.NewPCG(1, 2)}
	if len(last) > 0 {
		cfg.Last = last[0]
	}
	c, err := NewClient(epoch, cfg)
	if err != nil {
		t.Fatal(err)
	}
	return &puppet{c, t, epoch}
}

// asked is the only message that was sent, and who to.
func (p *puppet) asked(k kind) (*message, netip.AddrPort) {
	p.t.Helper()
	pkt, ok := p.Poll()
	if !ok {
		p.t.Fatalf("%v is silent, want %v", p.State(), k)
	}
	var q ip.Packet
	if err := q.Decode(pkt); err != nil || !q.ChecksumOK() || q.Src.Port() != ClientPort || q.Dst.Port() != ServerPort {
		p.t.Fatalf("bad packet %x: %v", pkt, err)
	}
	m, err := parseMessage(q.Payload())
	if err != nil || m.reply || m.kind != k || m.hw != mac(1) {
		p.t.Fatalf("%+v, %v, want %v", m, err, k)
	}
	if m.client.IsValid() && q.Src.Addr() != m.client || !m.client.IsValid() && !q.Src.Addr().IsUnspecified() {
		p.t.Errorf("sent from %v, ciaddr %v", q.Src, m.client)
	}
	if _, more := p.Poll(); more {
		p.t.Error("more than one packet")
	}
	return m, q.Dst
}

// told sends it an answer to m, with what a server of a /24 says.
func (p *puppet) told(m *message, k kind, edit ...func(*message)) bool {
	r := message{reply: true, kind: k, xid: m.xid, hw: m.hw, server: home.Addr()}
	if k != nak {
		r.yours, r.bits, r.lease, r.routers = addr("192.168.1.100"), 24, time.Hour, []netip.Addr{home.Addr()}
	}
	for _, f := range edit {
		f(&r)
	}
	return p.HandlePacket(p.now, ip.AppendUDP(nil, netip.AddrPortFrom(home.Addr(), ServerPort), netip.AddrPortFrom(everyone, ClientPort), 64, r.bytes()))
}

func (p *puppet) wait(d time.Duration) { p.now = p.now.Add(d); p.HandleTimeout(p.now) }

// next waits until the client does something of its own accord.
func (p *puppet) next() time.Duration {
	p.t.Helper()
	at, ok := p.NextTimeout()
	if !ok {
		p.t.Fatalf("%v for ever", p.State())
	}
	d := at.Sub(p.now)
	p.wait(d)
	return d
}

func (p *puppet) bound() {
	p.t.Helper()
	m, _ := p.asked(discover)
	p.told(m, offer)
	m, _ = p.asked(request)
	if !p.told(m, ack) || p.State() != Bound {
		p.t.Fatalf("%v", p.State())
	}
}

func (p *puppet) wantSaid(want ...string) {
	p.t.Helper()
	var got []string
	for {
		e, ok := p.Event()
		if !ok {
			break
		}
		s := [...]string{"got", "kept", "lost"}[e.Kind] + " " + e.Grant.Prefix.String()
		if e.Why != "" {
			s += ": " + e.Why
		}
		got = append(got, s)
	}
	if !slices.Equal(got, want) {
		p.t.Errorf("said %q, want %q", got, want)
	}
}

func TestClientGetsAnAddress(t *testing.T) {
	p := newPuppet(t)
	m, to := p.asked(discover)
	if !m.broadcast || m.requested.IsValid() || to.Addr() != everyone {
		t.Errorf("%+v to %v", m, to)
	}
	if !p.told(m, offer) {
		t.Fatal("the offer was not taken")
	}
	m2, to := p.asked(request)
	if m2.xid != m.xid || m2.server != home.Addr() || m2.requested != addr("192.168.1.100") || m2.client.IsValid() || to.Addr() != everyone {
		t.Errorf("%+v to %v", m2, to)
	}
	p.wait(time.Second)
	dns := []netip.Addr{addr("192.0.2.53")}
	if !p.told(m2, ack, func(m *message) { m.dns, m.mtu = dns, 1400 }) {
		t.Fatal("the ACK was not taken")
	}
	g, ok := p.Grant()
	want := Grant{Prefix: netip.MustParsePrefix("192.168.1.100/24"), Server: home.Addr(), Router: home.Addr(), DNS: dns, MTU: 1400, Lease: time.Hour}
	if !ok || fmt.Sprint(g) != fmt.Sprint(want) {
		t.Errorf("%+v", g)
	}
	p.wantSaid("got 192.168.1.100/24")
	if end := p.Until(); end != epoch.Add(time.Hour) {
		t.Errorf("until %v", end)
	}
	// The lease counts from when it was asked for.
	if d := p.next(); d != 30*time.Minute-time.Second || p.State() != Renewing {
		t.Errorf("%v after %v", p.State(), d)
	}
}

// RFC 3442 has a client ask for its option before the routers, look at no
// router where it has it, and clear what is behind the masks. The option's
// bytes are those of the RFC's table.
func TestClientTakesRoutes(t *testing.T) {
	p := newPuppet(t)
	m, _ := p.asked(discover)
	d, err := dhcpv4.FromBytes(m.bytes())
	if err != nil {
		t.Fatal(err)
	}
	list := d.ParameterRequestList()
	if at := slices.Index(list, dhcpv4.OptionCode(dhcpv4.OptionClasslessStaticRoute)); at < 0 || at > slices.Index(list, dhcpv4.OptionCode(dhcpv4.OptionRouter)) {
		t.Errorf("asks for %v", list)
	}
	p.told(m, offer)
	m, _ = p.asked(request)
	router, beside := addr("192.168.1.2"), addr("192.168.1.9")
	p.told(m, ack, func(m *message) {
		m.routers = []netip.Addr{home.Addr()}
		m.routes = []Route{
			{netip.MustParsePrefix("10.17.0.0/16"), beside},
			{netip.MustParsePrefix("10.18.1.2/16"), beside},
			{To: netip.MustParsePrefix("10.19.0.0/16")},
			{netip.MustParsePrefix("10.20.0.0/16"), addr("10.0.0.1")}, // not near
			{netip.MustParsePrefix("10.21.0.0/16"), m.yours},
			{netip.MustParsePrefix("127.0.0.0/8"), beside},
			{netip.MustParsePrefix("224.0.0.0/4"), beside},
			{netip.MustParsePrefix("0.0.0.0/0"), router},
		}
	})
	g, _ := p.Grant()
	want := []Route{{netip.MustParsePrefix("10.17.0.0/16"), beside}, {netip.MustParsePrefix("10.18.0.0/16"), beside}, {To: netip.MustParsePrefix("10.19.0.0/16")}}
	if g.Router != router || !slices.Equal(g.Routes, want) {
		t.Errorf("%+v", g)
	}
	// Without a way out among the routes there is none.
	p.next()
	m, _ = p.asked(request)
	p.told(m, ack, func(m *message) {
		m.routers, m.routes = []netip.Addr{home.Addr()}, []Route{{netip.MustParsePrefix("10.17.0.0/16"), beside}}
	})
	if g, _ := p.Grant(); g.Router.IsValid() || len(g.Routes) != 1 {
		t.Errorf("%+v", g)
	}
	for text, want := range map[string]Route{
		"00 c0a80101":          {netip.MustParsePrefix("0.0.0.0/0"), home.Addr()},
		"08 0a c0a80101":       {netip.MustParsePrefix("10.0.0.0/8"), home.Addr()},
		"18 0a0000 c0a80101":   {netip.MustParsePrefix("10.0.0.0/24"), home.Addr()},
		"19 0a1b8180 c0a80101": {netip.MustParsePrefix("10.27.129.128/25"), home.Addr()},
		"20 0a623f05 00000000": {To: netip.MustParsePrefix("10.98.63.5/32")},
		"21 0a623f05 00000000": {}, "18 0a00": {}, "": {},
	} {
		b, _ := hex.DecodeString(strings.ReplaceAll(text, " ", ""))
		d.UpdateOption(dhcpv4.OptGeneric(dhcpv4.OptionClasslessStaticRoute, b))
		m, err := parseMessage(d.ToBytes())
		if err != nil || want.To.IsValid() && !slices.Equal(m.routes, []Route{want}) || !want.To.IsValid() && m.routes != nil {
			t.Errorf("%q: %v, %v", text, m, err)
		}
	}
}

// RFC 2131 section 4.1: "The delay before the first retransmission SHOULD be 4
// seconds randomized by the value of a uniform random number chosen from the
// range -1 to +1. [...] doubled with subsequent retransmissions up to a maximum
// of 64 seconds."
func TestClientRepeats(t *testing.T) {
	p := newPuppet(t)
	first, _ := p.asked(discover)
	began := p.now
	for i, want := range []time.Duration{4, 8, 16, 32, 64, 64, 64} {
		want *= time.Second
		d := p.next()
		if d < want-time.Second || d > want+time.Second || d == want {
			t.Errorf("try %d after %v, want %v and a little", i+2, d, want)
		}
		if m, _ := p.asked(discover); m.xid != first.xid || m.secs != uint16(p.now.Sub(began)/time.Second) {
			t.Errorf("%v %v", m.xid, m.secs)
		}
	}
	// A server appears and dies before it answers the REQUEST.
	m := first
	said := uint16(p.now.Sub(began) / time.Second)
	p.wait(time.Second)
	p.told(m, offer)
	for i := range requestTries {
		if i > 0 {
			p.next()
		}
		// "the DHCPREQUEST message MUST use the same value in the DHCP message
		// header's 'secs' field [...] as the original DHCPDISCOVER message" (3.1)
		if m, _ := p.asked(request); m.secs != said {
			t.Errorf("REQUEST after %d seconds, DISCOVER after %d", m.secs, said)
		}
	}
	p.next()
	if m, _ = p.asked(discover); m.xid == first.xid {
		t.Error("the old transaction goes on")
	}
	p.wantSaid()
}

func TestRenewAndRebind(t *testing.T) {
	p := newPuppet(t)
	p.bound()
	p.wantSaid("got 192.168.1.100/24")

	// T1: the server that the lease is from, by unicast.
	p.next()
	m, to := p.asked(request)
	if p.now != epoch.Add(30*time.Minute) || p.State() != Renewing || to.Addr() != home.Addr() ||
		m.client != addr("192.168.1.100") || m.requested.IsValid() || m.server.IsValid() {
		t.Errorf("%v: %v: %+v to %v", p.now, p.State(), m, to)
	}
	p.wait(time.Second)
	if !p.told(m, ack) {
		t.Fatal("not renewed")
	}
	p.wantSaid("kept 192.168.1.100/24")

	// It does not answer: half of the time to T2 (52.5 minutes), and half of
	// the rest, but not more often than once a minute.
	var sent []time.Duration
	renewal := m.xid
	for p.State() != Rebinding {
		p.next()
		m, to = p.asked(request)
		sent = append(sent, p.now.Sub(epoch.Add(30*time.Minute)))
		if p.State() == Renewing {
			renewal = m.xid
			if to.Addr() != home.Addr() {
				t.Errorf("renews at %v", to)
			}
		}
	}
	if want := []time.Duration{30 * time.Minute, 41*time.Minute + 15*time.Second, 46*time.Minute + 52500*time.Millisecond}; !slices.Equal(sent[:3], want) {
		t.Errorf("asked at %v, want %v", sent, want)
	}
	// T2: any server, by broadcast.
	if m.xid == renewal {
		t.Error("an answer to the renewal would be one to this")
	}
	if last := sent[len(sent)-1]; last != 52*time.Minute+30*time.Second || to.Addr() != everyone || m.client != addr("192.168.1.100") {
		t.Errorf("at %v: %+v to %v", last, m, to)
	}
	if !p.told(m, ack, func(m *message) { m.server = addr("192.168.1.2") }) || p.State() != Bound {
		t.Fatal("not rebound")
	}
	p.wantSaid("kept 192.168.1.100/24")
	if g, _ := p.Grant(); g.Server != addr("192.168.1.2") {
		t.Errorf("%+v", g)
	}

	// Nobody answers.
	end := p.now.Add(time.Hour)
	for p.State() != Selecting {
		p.next()
		for {
			if _, ok := p.Poll(); !ok {
				break
			}
		}
	}
	if p.now != end {
		t.Errorf("gave up at %v, the lease ended at %v", p.now, end)
	}
	p.wantSaid("lost 192.168.1.100/24: its lease ended")
}

func TestShortLeaseIsRenewedInTime(t *testing.T) {
	p := newPuppet(t)
	m, _ := p.asked(discover)
	p.told(m, offer)
	m, _ = p.asked(request)
	p.told(m, ack, func(m *message) { m.lease = 8 * time.Second })
	n := 0
	for p.State() != Selecting {
		p.next()
		for {
			if _, ok := p.Poll(); !ok {
				break
			}
			n++
		}
	}
	if n < 4 || n > 10 || p.now != epoch.Add(8*time.Second) {
		t.Errorf("%d tries until %v", n, p.now)
	}
}

func TestClientIsRefused(t *testing.T) {
	p := newPuppet(t, addr("192.168.1.77"))
	m, to := p.asked(request) // INIT-REBOOT
	if m.requested != addr("192.168.1.77") || m.server.IsValid() || m.client.IsValid() || to.Addr() != everyone || p.State() != Rebooting {
		t.Errorf("%+v to %v", m, to)
	}
	p.told(m, nak)
	p.bound()
	p.wantSaid("got 192.168.1.100/24")
	p.next()
	m, _ = p.asked(request)
	p.told(m, nak)
	p.wantSaid("lost 192.168.1.100/24: the server refuses it")
	if p.HandlePacket(p.now, nil) {
		t.Error("an empty packet was taken")
	}
	// A server that offers and refuses is asked ever more slowly.
	var waits []time.Duration
	for range 5 {
		m, _ = p.asked(discover)
		p.told(m, offer)
		m, _ = p.asked(request)
		p.told(m, nak)
		waits = append(waits, p.next())
	}
	if want := []time.Duration{1e9, 2e9, 4e9, 8e9, 16e9}; !slices.Equal(waits, want) {
		t.Errorf("waited %v", waits)
	}
}

func TestClientComesBack(t *testing.T) {
	p := newPuppet(t)
	p.bound()
	p.wantSaid("got 192.168.1.100/24")
	p.wait(time.Minute)
	p.Reboot(p.now)
	m, _ := p.asked(request)
	if p.State() != Rebooting || m.requested != addr("192.168.1.100") {
		t.Errorf("%v: %+v", p.State(), m)
	}
	p.told(m, ack)
	p.wantSaid("kept 192.168.1.100/24")
	// Nobody knows it there.
	p.Reboot(p.now)
	p.asked(request)
	for range rebootTries - 1 {
		p.next()
		p.asked(request)
	}
	p.next()
	p.wantSaid("lost 192.168.1.100/24: no server answers for it")
	if m, _ = p.asked(discover); m.requested != addr("192.168.1.100") {
		t.Errorf("%+v", m)
	}
	p.told(m, offer)
	m, _ = p.asked(request)
	p.told(m, ack, func(m *message) { m.lease = 10 * time.Second })
	p.wantSaid("got 192.168.1.100/24")
	// The lease ends while nobody answers.
	p.Reboot(p.now.Add(5 * time.Second))
	p.asked(request)
	for p.State() == Rebooting {
		p.next()
		p.asked(map[State]kind{Rebooting: request, Selecting: discover}[p.State()])
	}
	p.wantSaid("lost 192.168.1.100/24: no server answers for it")
}

func TestClientDeclinesAndReleases(t *testing.T) {
	p := newPuppet(t)
	p.bound()
	p.Conflict(p.now)
	p.wantSaid("got 192.168.1.100/24", "lost 192.168.1.100/24: in use by somebody else")
	m, to := p.asked(decline)
	if m.requested != addr("192.168.1.100") || m.server != home.Addr() || m.client.IsValid() || to.Addr() != everyone {
		t.Errorf("%+v to %v", m, to)
	}
	p.Conflict(p.now)
	if d := p.next(); d != afterConflict {
		t.Errorf("waited %v", d)
	}
	m, _ = p.asked(discover)
	if m.requested.IsValid() {
		t.Errorf("asks for %v again", m.requested)
	}
	p.told(m, offer)
	m, _ = p.asked(request)
	p.told(m, ack)
	p.Release(p.now)
	m, to = p.asked(release)
	if m.client != addr("192.168.1.100") || m.server != home.Addr() || m.requested.IsValid() || to.Addr() != home.Addr() {
		t.Errorf("%+v to %v", m, to)
	}
	p.wantSaid("got 192.168.1.100/24", "lost 192.168.1.100/24: released")
	if _, ok := p.NextTimeout(); ok || p.State() != Stopped {
		t.Errorf("%v", p.State())
	}
	p.Reboot(p.now)
	p.Release(p.now)
	p.Start(p.now)
	if m, _ := p.asked(discover); m.requested != addr("192.168.1.100") {
		t.Errorf("%+v", m)
	}
}

func TestClientBelievesNotEveryone(t *testing.T) {
	for _, c := range []struct {
		name string
		edit func(*message)
	}{
		{"another transaction", func(m *message) { m.xid[0]++ }},
		{"another client", func(m *message) { m.hw = mac(2) }},
		{"no server", func(m *message) { m.server = netip.Addr{} }},
		{"no address", func(m *message) { m.yours = netip.Addr{} }},
		{"loopback", func(m *message) { m.yours = addr("127.0.0.1") }},
		{"multicast", func(m *message) { m.yours = addr("224.0.0.1") }},
		{"everyone", func(m *message) { m.yours = everyone }},
		{"everyone on the network", func(m *message) { m.yours = addr("192.168.1.255") }},
		{"the network", func(m *message) { m.yours = addr("192.168.1.0") }},
		{"no mask", func(m *message) { m.bits = 0 }},
		{"half of the world", func(m *message) { m.bits = 1 }},
		{"no lease", func(m *message) { m.lease = 0 }},
	} {
		p := newPuppet(t)
		m, _ := p.asked(discover)
		if p.told(m, offer, c.edit) || p.State() != Selecting {
			t.Errorf("an offer with %s", c.name)
		}
		p.told(m, offer)
		if m, _ = p.asked(request); p.told(m, ack, c.edit) || p.State() != Requesting {
			t.Errorf("an ACK with %s", c.name)
		}
	}
	p := newPuppet(t)
	m, _ := p.asked(discover)
	for _, k := range []kind{ack, nak} {
		if p.told(m, k) {
			t.Errorf("%v without a request", k)
		}
	}
	p.told(m, offer)
	m, _ = p.asked(request)
	other := func(m *message) { m.server = addr("192.168.1.2") }
	if p.told(m, nak, other) || p.told(m, ack, other) || p.told(m, offer) || p.told(m, ack, func(m *message) { m.yours = addr("192.168.1.101") }) {
		t.Error("another server's word, or about another address")
	}
	// What is no harm is left out.
	p.told(m, ack, func(m *message) { m.routers, m.mtu = []netip.Addr{addr("10.0.0.1"), m.yours}, 100 })
	if g, ok := p.Grant(); !ok || g.Router.IsValid() || g.MTU != 0 {
		t.Errorf("%+v %v", g, ok)
	}
	p.next()
	m, _ = p.asked(request)
	if p.told(m, nak, other) {
		t.Error("another server refused a renewal")
	}
	for _, pkt := range [][]byte{
		ip.AppendUDP(nil, netip.AddrPortFrom(home.Addr(), 66), netip.AddrPortFrom(everyone, ClientPort), 64, m.bytes()),
		ip.AppendEcho(nil, home.Addr(), everyone, 64, ip.EchoReply, 1, 1, nil),
	} {
		if p.HandlePacket(p.now, pkt) {
			t.Errorf("took %x", pkt)
		}
	}
}

func TestClientConfigIsChecked(t *testing.T) {
	src := rand.NewPCG(1, 1)
	for _, cfg := range []ClientConfig{
		{}, {MAC: mac(1)}, {Rand: src}, {MAC: MAC{1}, Rand: src},
		{MAC: mac(1), Rand: src, Last: addr("::1")}, {MAC: mac(1), Rand: src, ID: string(make([]byte, 256))},
	} {
		if _, err := NewClient(epoch, cfg); err == nil {
			t.Errorf("%+v", cfg)
		}
	}
}
