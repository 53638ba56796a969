package conformance

import (
	"net/netip"

	"github.com/bodkin-net/bodkin/internal/machine/nat"
	"github.com/bodkin-net/bodkin/internal/machine/nat/ip"
)

// TCP connections between x and y use the ports of the web, which the
// strictest of gateways let out.
const (
	port1 = 443
	port2 = 80
)

// stream is a TCP connection through the gateway, with both of its ends.
type stream struct {
	*bench
	x, y     netip.AddrPort // inside and outside
	external netip.AddrPort // x, as y sees it
	xs, ys   flow           // what each end sends
	from     nat.Side       // where y is
}

// flow is what an end has sent and seen.
type flow struct {
	seq, ack uint32
	acks     bool // it has seen something
}

// stream begins with nothing sent.
func (b *bench) stream(x, y netip.AddrPort) *stream {
	return &stream{bench: b, x: x, y: y, xs: flow{seq: 1000}, ys: flow{seq: 77000}, from: nat.Outside}
}

func (f *flow) segment(flags uint8, payload []byte) *ip.Segment {
	s := &ip.Segment{Seq: f.seq, Flags: flags, Window: 65000, Payload: payload}
	if flags&ip.ACK != 0 {
		s.Ack = f.ack
	}
	f.seq += uint32(len(payload))
	if flags&(ip.SYN|ip.FIN) != 0 {
		f.seq++
	}
	return s
}

// sees is that the segment d reaches an end.
func (f *flow) sees(d delivery) {
	var s ip.Segment
	d.Segment(&s)
	f.ack = s.Seq + uint32(len(s.Payload))
	if s.Flags&(ip.SYN|ip.FIN) != 0 {
		f.ack++
	}
	f.acks = true
}

// out sends from x to y; it is whether that arrives.
func (s *stream) out(flags uint8, payload string) bool {
	d, ok := s.bench.out(ip.AppendTCP(nil, s.x, s.y, 64, s.xs.segment(flags, []byte(payload))))
	if !ok {
		return false
	}
	s.want(d.Dst == s.y && d.TCPFlags() == flags && string(d.Payload()) == payload, "a TCP segment comes out as another")
	if flags&ip.RST == 0 {
		s.ys.sees(d)
	}
	s.external = d.Src
	return true
}

// in sends from y to x; it is whether that arrives.
func (s *stream) in(flags uint8, payload string) bool {
	d, ok := s.bench.in(ip.AppendTCP(nil, s.y, s.external, 64, s.ys.segment(flags, []byte(payload))))
	if !ok {
		return false
	}
	s.want(d.Src == s.y && d.Dst == s.x && d.TCPFlags() == flags && string(d.Payload()) == payload, "a TCP segment gets to another host than it should")
	if flags&ip.RST == 0 {
		s.xs.sees(d)
	}
	return true
}

// syn opens the way; no TCP gets out without it.
func (b *bench) syn(x, y netip.AddrPort) *stream {
	s := b.stream(x, y)
	b.gets(s.out(ip.SYN, ""), errNoTCP)
	return s
}

// connect is a whole handshake from inside.
func (b *bench) connect(x, y netip.AddrPort) *stream {
	s := b.syn(x, y)
	b.want(s.in(ip.SYN|ip.ACK, "") && s.out(ip.ACK, ""), "a three-way handshake fails")
	b.want(s.talks(), "a TCP connection carries no data")
	return s
}

// Requests and answers that pass those who look into the web's ports.
const (
	request  = "GET / HTTP/1.1\r\nHost: example.com\r\n\r\n"
	response = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
)

// talks says whether data passes both ways.
func (s *stream) talks() bool {
	say, answer := request, response
	if s.y.Port() == port1 {
		say, answer = clientHello, serverHello
	}
	return s.out(ip.PSH|ip.ACK, say) && s.in(ip.ACK, "") && s.in(ip.PSH|ip.ACK, answer) && s.out(ip.ACK, "")
}

// The beginnings of TLS 1.2 and up, a ClientHello and a ServerHello, cut
// short: their records say that there is more.
const (
	clientHello = "\x16\x03\x01\x00\xc8\x01\x00\x00\xc4\x03\x03"
	serverHello = "\x16\x03\x03\x00\x7a\x02\x00\x00\x76\x03\x03"
)
