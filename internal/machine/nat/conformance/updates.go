package conformance

import (
	"encoding/binary"
	"net/netip"
	"time"

	"github.com/bodkin-net/bodkin/internal/machine/nat"
	"github.com/bodkin-net/bodkin/internal/machine/nat/ip"
)

// RFC 7857, which has sections and no numbers.
var updates = []Requirement{
	{Number: "section 2", Level: Should, Text: "TCP's state is followed as in RFC 6146: half closed is established, data after an RST revives", check: states},
	{Number: "section 2.1", Level: Should, Text: "opening and closing connections have times of their own", check: closingApart},
	{Number: "section 2.1 default", Level: Should, Text: "four minutes, if nobody wants it otherwise", check: transitoryLives},
	{Number: "section 2.2", Level: Must, Text: "an RST is translated", check: resets},
	{Number: "section 2.2 wait", Level: Should, Text: "state lives on for four minutes after it", check: afterReset},
	{Number: "section 3", Level: May, Text: "remotes that differ may share an external port", check: overlapping},
	{Number: "section 4", Level: Should, Text: "a host whose external address has no port left gets no other address", check: pairedToTheEnd},
	{Number: "section 4 TCP", Level: Should, Text: "a host gets the same external address for TCP too", check: tcpPooling},
	{Number: "section 5", Level: Should, Text: "UDP and TCP have different mappings", check: mappingsApart},
	{Number: "section 6", Level: Should, Text: "UDP's mapping lets no TCP in, nor TCP's UDP", check: filtersApart},
	{Number: "section 7", Level: Should, Text: "packets that are filtered keep nothing alive, even where packets from outside do", check: filteredRefresh},
	{Number: "section 7 TCP", Level: Should, Text: "not for TCP either", check: tcpFilteredRefresh},
	{Number: "section 7.1", Level: Should, Text: "errors and resets from inside keep nothing alive", check: errorRefresh},
	{Number: "section 8", Level: Should, Text: "parity can be asked for explicitly", Why: "for a port mapping protocol to ask; PCP's port sets (RFC 7753) are not served"},
	{Number: "section 9", Level: Should, Text: "a port that is not preserved is hard to guess", check: unguessable},
	{Number: "section 10", Level: Should, Text: "packets that may be cut have different numbers, whichever host they are from", check: packetNumbers},
	{Number: "section 11", Level: May, Text: "a query's mapping goes with its last session", check: queryEnds},
	{Number: "section 12", Level: Must, Text: "with Basic NAT, queries from outside get in", check: queriesIn},
}

func states(t *trial) {
	b := t.bench(nil)
	s := b.connect(x, web1)
	t.want(s.in(ip.FIN|ip.ACK, "") && s.out(ip.ACK, ""), "a segment of a connection that ends does not get through")
	b.wait(established - moment)
	t.want(s.out(ip.ACK, "more") && s.in(ip.ACK, ""), "a half-closed connection dies before 2 hours 4 minutes are over")

	s = b.connect(ep(addrX, 6000), web1)
	t.want(s.in(ip.RST|ip.ACK, ""), "an RST does not get in")
	b.wait(time.Second)
	t.want(s.out(ip.ACK, "more") && s.in(ip.ACK, ""), "after an RST nothing passes")
	b.wait(established - moment)
	t.want(s.in(ip.ACK, ""), "data after an RST does not revive a connection")
}

func closingApart(t *trial) {
	t.b.Timers.Transitory, t.b.Timers.AfterFIN = 8*time.Minute, 30*time.Minute
	b := t.bench(nil)
	s := b.connect(x, web1)
	s.out(ip.FIN|ip.ACK, "")
	s.in(ip.FIN|ip.ACK, "")
	s.out(ip.ACK, "")
	b.wait(30*time.Minute - moment)
	t.want(s.in(ip.ACK, ""), "a closing connection dies before its time")
	s = b.syn(ep(addrX, 6000), web1)
	b.wait(8*time.Minute + moment)
	t.want(!s.in(ip.SYN|ip.ACK, ""), "a half-open connection outlives its time")
}

func resets(t *trial) {
	b := t.bench(nil)
	s := b.connect(x, web1)
	t.want(s.out(ip.RST|ip.ACK, ""), "an RST does not get out")
	s = b.connect(ep(addrX, 6000), web1)
	t.want(s.in(ip.RST|ip.ACK, ""), "an RST does not get in")
}

func afterReset(t *trial) {
	b := t.bench(nil)
	for i, reset := range []func(*stream) bool{
		func(s *stream) bool { return s.out(ip.RST|ip.ACK, "") },
		func(s *stream) bool { return s.in(ip.RST|ip.ACK, "") },
	} {
		s := b.connect(ep(addrX, 6000+uint16(2*i)), web1)
		t.want(reset(s), "an RST does not get through")
		b.wait(transitory - moment)
		t.want(s.in(ip.ACK, ""), "after an RST, a connection's state dies before four minutes are over")
	}
}

func overlapping(t *trial) {
	t.b.Mapping, t.b.Filtering, t.b.TCPPolicy = nat.AddressAndPortDependent, nat.AddressAndPortDependent, nil
	t.b.Ports, t.b.SymmetricOnConflict = nat.Ports{Overload: true, Allocation: nat.PreserveRandom}, false
	b := t.bench(nil)
	t.want(b.udpOut(x, y1) == b.udpOut(w, z1), "two hosts with different remotes cannot share an external port")
	t.want(b.udpOut(w, y1) != b.udpOut(x, y1), "two hosts with the same remote share an external port")
}

// few leaves ten ports an address.
func few(c *nat.Config) {
	c.Ports.First, c.Ports.Last, c.Ports.Block, c.Ports.PerHost = 20000, 20009, 0, 0
}

func pairedToTheEnd(t *trial) {
	b, _ := t.pooled(few)
	seen := map[netip.Addr]bool{}
	for port := range uint16(60) {
		if d, ok := b.out(udp(ep(addrX, 20000+port), y1)); ok {
			seen[d.Src.Addr()] = true
		}
	}
	t.gets(len(seen) > 0, errNoUDP)
	t.want(len(seen) == 1, "a host gets a second external address when ports run out")
}

func tcpPooling(t *trial) {
	b, _ := t.pooled(nil)
	for n := range 20 {
		first := b.syn(ep(host(n), 6000), web1).external.Addr()
		for port := range uint16(10) {
			t.want(b.syn(ep(host(n), 7000+port), webZ).external.Addr() == first, "a host gets several external addresses")
		}
	}
}

// A gateway that lets no UDP out keeps apart what there is.
func (t *trial) hasUDP(b *bench) {
	if _, ok := b.out(udp(host50, y1)); !ok {
		t.notFor(errNoUDP.Error())
	}
}

var host50 = ep(host(50), 9000)

func mappingsApart(t *trial) {
	b := t.bench(nil)
	t.hasUDP(b)
	b.udpOut(x, y1)
	// Were there one mapping, a SYN from a host that sent UDP before would not
	// begin it, and the filter of one would be open for the other.
	external := b.syn(x, web1).external
	b.wait(time.Hour)
	s := b.stream(x, web1)
	s.external = external
	b.udpOut(x, y1)
	t.want(!s.in(ip.SYN, ""), "UDP keeps TCP's mapping alive")
}

func filtersApart(t *trial) {
	b := t.bench(nil)
	t.hasUDP(b)
	external := b.udpOut(x, y1)
	t.want(!b.knock(y1, external), "TCP comes in by UDP's mapping")
	b = t.bench(nil)
	external = b.syn(x, web1).external
	t.want(!b.udpIn(web1, external, x), "UDP comes in by TCP's mapping")
}

// life is how long an answered UDP mapping of the gateway lives.
func (t *trial) life() time.Duration {
	if t.b.Timers.UDP == 0 {
		return 5 * time.Minute
	}
	return t.b.Timers.UDP
}

func filteredRefresh(t *trial) {
	t.b.Timers.UDPRefresh = nat.RefreshBoth
	if t.b.Filtering == nat.EndpointIndependent {
		t.b.Filtering = nat.AddressDependent
	}
	b := t.bench(nil)
	external := b.udpOut(x, y1)
	b.udpIn(y1, external, x)
	for range 12 {
		b.wait(t.life() / 10)
		t.want(!b.udpIn(z1, external, x), "a stranger comes in by an address-dependent filter")
	}
	t.want(!b.udpIn(y1, external, x), "packets that are filtered keep a mapping alive")
}

func tcpFilteredRefresh(t *trial) {
	t.b.TCPPolicy = &nat.Policy{Mapping: t.b.Mapping, Filtering: nat.AddressDependent}
	t.b.Ports.Overload = false // which wants a stricter filter
	t.b.Timers.Transitory = 4 * time.Minute
	b := t.bench(nil)
	s := b.syn(x, web1)
	for range 12 {
		b.wait(24 * time.Second)
		t.want(!b.knock(webZ, s.external), "a stranger comes in by an address-dependent filter")
	}
	t.want(!s.in(ip.SYN|ip.ACK, ""), "segments that are filtered keep a mapping alive")
}

func errorRefresh(t *trial) {
	b := t.bench(nil)
	d, external := b.answered()
	for range 12 {
		b.wait(t.life() / 10)
		b.send(nat.Inside, unreachable(addrX, addrY, 3, d.Data))
	}
	t.want(!b.udpIn(y1, external, x), "ICMP errors from inside keep a mapping alive")

	t.b.Timers.Transitory, t.b.Timers.AfterRST = 4*time.Minute, 4*time.Minute
	b = t.bench(nil)
	s := b.syn(x, web1)
	for range 12 {
		b.wait(24 * time.Second)
		s.out(ip.RST|ip.ACK, "")
	}
	t.want(!s.in(ip.SYN|ip.ACK, ""), "resets from inside keep a mapping alive")
}

// unguessable: of ten hosts that use one port, those that cannot have it get
// ports without a pattern.
func unguessable(t *trial) {
	b := t.bench(nil)
	var ports []int
	for n := range 10 {
		d, ok := b.out(udp(ep(host(n), 5000), y1))
		if !ok {
			d, ok = b.out(ip.AppendTCP(nil, ep(host(n), 5000), web1, 64, &ip.Segment{Flags: ip.SYN, Window: 1000}))
		}
		t.want(ok || n > 0, "nothing gets out")
		if ok && d.Src.Port() != 5000 {
			ports = append(ports, int(d.Src.Port()))
		}
	}
	steps := map[int]int{}
	for i := 1; i < len(ports); i++ {
		steps[ports[i]-ports[i-1]]++
	}
	for _, n := range steps {
		t.want(n < 3, "ports that are not preserved follow each other in steps")
	}
}

// packetNumbers: two hosts that number their packets alike, to one remote. RFC
// 6864 section 5.3.1 wants the translated ones to differ as if the gateway had
// sent them; packets that must not be cut need no number.
func packetNumbers(t *trial) {
	b := t.bench(nil)
	t.hasUDP(b)
	seen := map[uint16]bool{}
	for n := range 2 {
		for i := range uint16(50) {
			d, ok := b.out(divisible(udp(ep(host(n), 5000), y1), 1000+i))
			t.gets(ok, errNoUDP)
			number := binary.BigEndian.Uint16(d.Data[4:])
			t.want(!seen[number], "packets of two hosts have the same number")
			seen[number] = true
		}
	}
	// The parts of a packet still have one number.
	parts := b.parts(nat.Inside, divisible(ip.AppendUDP(nil, x, y1, 64, large), 1000), orders[0])
	t.want(whole(parts) != nil, "parts of a packet do not get through")
	for _, d := range parts {
		t.want(binary.BigEndian.Uint16(d.Data[4:]) == binary.BigEndian.Uint16(parts[0].Data[4:]), "the parts of a packet get different numbers")
	}
}

func queryEnds(t *trial) {
	b := t.bench(nil)
	external := b.echo(addrX, addrY, id)
	b.wait(24 * time.Hour)
	t.want(!b.echoed(addrY, external, addrX, id), "a query's mapping is for ever")
}

func queriesIn(t *trial) {
	public := netip.MustParseAddr("198.51.100.50")
	b := t.bench(func(c *nat.Config) { c.Static = []nat.Static{{Internal: addrX, External: public}} })
	d, ok := b.in(ip.AppendEcho(nil, addrY, public, 64, ip.EchoRequest, id, 1, hello))
	t.want(ok && d.Kind == ip.EchoRequest && d.Dst.Addr() == addrX, "a ping to a host's own external address does not get in")
	d, ok = b.out(ip.AppendEcho(nil, addrX, addrY, 64, ip.EchoReply, d.Src.Port(), 1, hello))
	t.want(ok && d.Kind == ip.EchoReply && d.Src.Addr() == public && d.Dst == ep(addrY, id), "the reply to a ping from outside does not get out")
}
