package conformance

import (
	"errors"
	"net/netip"
	"strings"
	"time"

	"github.com/bodkin-net/bodkin/internal/machine/nat"
	"github.com/bodkin-net/bodkin/internal/machine/nat/ip"
)

// RFC 6888: carrier NATs.
var carrierRules = []Requirement{
	{Number: "REQ-1", Level: Must, Text: "what RFC 4787, 5382 and 5508 want of every NAT", check: everyMust},
	{Number: "REQ-2", Level: Must, Text: "a host gets the same external address for everything", check: pooledTogether},
	{Number: "REQ-3", Level: Must, Text: "external addresses may have gaps between them", check: gaps},
	{Number: "REQ-3 size", Level: Should, Text: "there may be any number of them", Why: "no more than 254: a mapping has one byte for its external address"},
	{Number: "REQ-4", Level: Must, Text: "the external ports of a host are bounded", check: bounded(5)},
	{Number: "REQ-4a", Level: Must, Text: "the bound can be configured", check: bounded(9)},
	{Number: "REQ-4b", Level: May, Text: "for each protocol", Why: "a permission; the bound is for all together"},
	{Number: "REQ-4c", Level: Should, Text: "how fast a host makes mappings can be bounded", check: paced},
	{Number: "REQ-5", Level: Should, Text: "the memory for a mapping and for a host is bounded", check: boundedSessions},
	{Number: "REQ-5a", Level: Should, Text: "those bounds can be configured", check: bounded(9)},
	{Number: "REQ-5b", Level: Should, Text: "and how fast it is taken", check: paced},
	{Number: "REQ-6", Level: Must, Text: "translation can be switched off for some destinations", check: exempted},
	{Number: "REQ-7", Level: Should, Text: "the filter is endpoint-independent", check: carrierFilter},
	{Number: "REQ-8", Level: Should, Text: "a freed port rests for 120 seconds", check: rests},
	{Number: "REQ-8 configured", Level: Must, Text: "that time can be configured", check: restConfigured},
	{Number: "REQ-8 number", Level: Must, Text: "and how many ports rest at a time", check: restsBounded},
	{Number: "REQ-8 state loss", Level: Should, Text: "ports that were in use when state was lost rest too", check: restsAfterLoss},
	{Number: "REQ-9", Level: Must, Text: "there are mappings that subscribers ask for; the protocol should be PCP", check: explicitMapping},
	{Number: "REQ-10", Level: Should, Text: "it can be managed by SNMP or the like", Why: "about administration"},
	{Number: "REQ-11a", Level: Must, Text: "a packet that gets no mapping is dropped", check: fullDrops},
	{Number: "REQ-11b", Level: Should, Text: "and its sender told: host unreachable", check: fullTells},
	{Number: "REQ-11c", Level: Should, Text: "and the administration", Why: "about administration; Stats counts them"},
	{Number: "REQ-11d", Level: Must, Text: "and no other mapping makes room", check: fullKeeps},
	{Number: "REQ-12", Level: Should, Text: "destinations are not logged", Why: "the gateway keeps no log"},
	{Number: "REQ-13", Level: Should, Text: "the ports that there are can be used", check: usesPorts},
	{Number: "REQ-14", Level: Should, Text: "the log is small", Why: "the gateway keeps no log"},
	{Number: "REQ-15", Level: Should, Text: "ports are hard to guess", check: unguessable},
}

// everyMust names the rules that are broken, and not how.
func everyMust(t *trial) {
	var broken []string
	for _, r := range everyNAT() {
		if r.Level != Must || !r.Checked() {
			continue
		}
		if err := r.try(t.b, t.make); err != nil && !errors.Is(err, ErrNotFor) {
			broken = append(broken, r.Name())
		}
	}
	if broken != nil {
		t.fail("broken: %s", strings.Join(broken, ", "))
	}
}

func pooledTogether(t *trial) {
	b, _ := t.pooled(nil)
	for n := range 20 {
		address := b.udpOut(ep(host(n), 6000), y1).Addr()
		t.want(b.syn(ep(host(n), 7000), webZ).external.Addr() == address && b.echo(host(n), addrZ, id).Addr() == address,
			"a host gets several external addresses")
	}
}

func gaps(t *trial) {
	b, all := t.pooled(nil)
	seen := map[netip.Addr]bool{}
	for n := range 60 {
		seen[b.udpOut(ep(host(n), 6000), y1).Addr()] = true
	}
	for _, a := range all {
		t.want(seen[a], "an external address is never used")
	}
}

func bounded(most int) func(*trial) {
	return func(t *trial) {
		t.b.Ports.PerHost = most
		b := t.bench(nil)
		n := 0
		for port := range uint16(20) {
			for _, pkt := range [][]byte{
				udp(ep(addrX, 5000+port), y1),
				ip.AppendTCP(nil, ep(addrX, 5000+port), web1, 64, &ip.Segment{Flags: ip.SYN, Window: 1000}),
				ip.AppendEcho(nil, addrX, addrY, 64, ip.EchoRequest, 5000+port, 1, hello),
			} {
				if _, ok := b.out(pkt); ok {
					n++
				}
			}
		}
		t.want(n == most, "a host gets more external ports than are its own, or fewer")
		b.udpOut(w, y1)
	}
}

// paced: of what a host begins at once, it gets what it may in a second.
func paced(t *trial) {
	t.b.Ports.Rate, t.b.Ports.PerHost = 10, 500
	b := t.bench(nil)
	port := uint16(5000)
	burst := func() (n int) {
		for range 50 {
			if _, ok := b.out(udp(ep(addrX, port), y1)); ok {
				n++
			}
			port++
		}
		return n
	}
	t.want(burst() == 10, "a host makes mappings as fast as it likes")
	b.udpOut(w, y1)
	b.wait(time.Second)
	t.want(burst() == 10, "a host that waits does not get its mappings")
}

// exempted: z, and everyone's port 3479, are reached without translation.
func exempted(t *trial) {
	t.b.Untranslated = []nat.Remotes{{Prefix: netip.PrefixFrom(addrZ, 32)}, {Port: y2.Port()}}
	b := t.bench(nil)
	for _, to := range []netip.AddrPort{z1, y2} {
		t.want(b.udpOut(x, to) == x, "a packet to a destination that is exempt is translated")
		t.want(b.udpIn(to, x, x), "an answer from a destination that is exempt does not get in")
	}
	s := b.connect(x, webZ)
	t.want(s.external == x, "a connection to a destination that is exempt is translated")
	t.want(!b.udpIn(z1, w, w) && !b.udpIn(y1, x, x), "packets to internal addresses get in unasked")
	external := b.udpOut(x, y1)
	t.want(external.Addr() == ours && b.udpIn(y1, external, x), "other destinations are not translated to")
}

// boundedSessions: a host with one mapping sends to everyone.
func boundedSessions(t *trial) {
	t.b.Ports.PerHost = 8
	b := t.bench(nil)
	for i := range 20_000 {
		to := netip.AddrFrom4([4]byte{203, 0, byte(i >> 8), byte(i)})
		b.send(nat.Inside, udp(x, ep(to, 3478)))
	}
	t.want(b.g.Stats().Sessions < 10_000, "a host makes as many sessions as it likes")
	b.udpOut(w, y1)
}

func carrierFilter(t *trial) {
	b := t.bench(nil)
	t.want(b.udpIn(z1, b.udpOut(x, y1), x), "a stranger's UDP does not come in")
	t.want(b.knock(webZ, b.syn(x, web1).external), "a stranger's TCP does not come in")
}

// only gives x the one port that there is, lets go of it, and says whether w
// gets it after d.
func (b *bench) only(d time.Duration) bool {
	b.udpOut(ep(addrX, 20000), y1)
	b.wait(b.life() + d)
	_, ok := b.out(udp(ep(addrW, 20000), y1))
	return ok
}

func onePort(c *nat.Config) {
	few(c)
	c.Ports.Last = c.Ports.First
	c.Ports.Parity = false
}

func rests(t *trial) {
	b := t.bench(onePort)
	t.want(!b.only(120*time.Second-moment), "a freed port is given out within 120 seconds")
}

func restConfigured(t *trial) {
	t.b.Ports.HoldDown = 10 * time.Minute
	t.want(!t.bench(onePort).only(10*time.Minute-moment), "a freed port is given out before its time")
	t.want(t.bench(onePort).only(10*time.Minute+moment), "a freed port rests beyond its time")
}

// restsBounded: of two ports that are freed, one rests.
func restsBounded(t *trial) {
	t.b.Ports.HoldDown, t.b.Ports.Held = 10*time.Minute, 1
	b := t.bench(func(c *nat.Config) {
		onePort(c)
		c.Ports.Last++
	})
	b.udpOut(ep(addrX, 20000), y1)
	b.udpOut(ep(addrX, 20001), y1)
	b.wait(b.life() + moment)
	_, first := b.out(udp(ep(addrW, 20000), y1))
	_, second := b.out(udp(ep(addrW, 20001), y1))
	t.want(first != second, "more or fewer ports rest than may")
}

func restsAfterLoss(t *trial) {
	b := t.bench(onePort)
	b.udpOut(ep(addrX, 20000), y1)
	b.g.Reset()
	b.wait(120*time.Second - moment)
	_, ok := b.out(udp(ep(addrW, 20000), y1))
	t.want(!ok, "after a loss of state, a port is given out within 120 seconds")
	b.wait(t.b.Ports.HoldDown)
	_, ok = b.out(udp(ep(addrW, 20000), y1))
	t.want(ok, "after a loss of state, a port rests for ever")
}

// explicitMapping is what PCP's machine asks the gateway for.
func explicitMapping(t *trial) {
	for _, early := range []bool{true, false} {
		b := t.bench(nil)
		m, err := b.g.Map(b.now, nat.Request{Proto: ip.UDP, Internal: x, Any: true, Lifetime: time.Hour})
		t.want(err == nil, "a mapping cannot be asked for")
		if early {
			b.wait(time.Hour - moment)
			t.want(b.udpIn(z1, m.External, x), "a mapping that was asked for lets nobody in")
		} else {
			b.wait(time.Hour + moment)
			t.want(!b.udpIn(z1, m.External, x), "a mapping that was asked for outlives its time")
		}
	}
}

// full is a gateway whose table is full of x's mappings.
func (t *trial) full() (b *bench, held []netip.AddrPort, refused []delivery) {
	b = t.bench(func(c *nat.Config) { c.MaxMappings = 3 })
	for port := range uint16(3) {
		held = append(held, b.udpOut(ep(addrX, 5000+2*port), y1))
	}
	return b, held, b.send(nat.Inside, udp(w, y1))
}

func fullDrops(t *trial) {
	_, _, refused := t.full()
	for _, d := range refused {
		t.want(d.to != nat.Outside, "a packet without a mapping gets out")
	}
}

func fullTells(t *trial) {
	_, _, refused := t.full()
	d, ok := one(refused)
	t.want(ok && d.to == nat.Inside && isICMP(d, 3, 1), "who gets no mapping is not told: host unreachable")
}

func fullKeeps(t *trial) {
	b, held, _ := t.full()
	for i, external := range held {
		t.want(b.udpIn(y1, external, ep(addrX, 5000+2*uint16(i))), "a mapping is dropped to make room")
	}
}

// usesPorts: hosts that want all of them get nine of ten.
func usesPorts(t *trial) {
	first, last := t.b.Ports.First, t.b.Ports.Last
	if first == 0 {
		first = 1024
	}
	if last == 0 {
		last = 65535
	}
	want := (int(last) - int(first) + 1) * 9 / 10
	perHost := 64
	b := t.bench(func(c *nat.Config) { c.MaxMappings = 1 << 17 })
	got := 0
	for n := 0; got < want && n < 1200; n++ {
		for port := range perHost {
			if _, ok := b.out(udp(ep(host(n), uint16(5000+port)), y1)); ok {
				got++
			}
		}
	}
	t.want(got >= want, "hosts are refused while there are many ports left")
}
