package sim

import (
	"net/netip"
	"time"

	"github.com/bodkin-net/bodkin/internal/machine/nat/ip"
)

// TraceKind is what happened to a packet.
type TraceKind uint8

const (
	Sent      TraceKind = iota // put on a network by a port
	Forwarded                  // let through by a gateway, about to be sent on
	Delivered                  // taken by a host
	Dropped
)

func (k TraceKind) String() string {
	return [...]string{"sent", "forwarded", "delivered", "dropped"}[k]
}

// TraceEvent is one step of one packet.
type TraceEvent struct {
	Time    time.Time
	Kind    TraceKind
	Port    string // as SetLink names it
	Network string // that the port is on
	Reason  string // of Dropped

	Proto    ip.Proto
	ICMP     ip.Kind
	Flags    uint8 // of TCP
	TTL      uint8
	Src, Dst netip.AddrPort // as they are now, translated or not
	Length   int            // of the IP packet
	Payload  []byte
}

func (n *Network) trace(k TraceKind, p *port, pkt []byte, reason string) {
	if n.opt.Trace == nil {
		return
	}
	e := TraceEvent{Time: n.time(), Kind: k, Port: p.name, Network: p.segment.name, Reason: reason, Length: len(pkt)}
	var d ip.Packet
	if d.Decode(pkt) == nil {
		e.Proto, e.ICMP, e.Flags, e.TTL = d.Proto, d.Kind, d.TCPFlags(), d.TTL
		e.Src, e.Dst, e.Payload = d.Src, d.Dst, d.Payload()
	}
	n.opt.Trace(e)
}

// Count is packets and the bytes in them, IP headers included.
type Count struct {
	Packets, Bytes int64
}

type pair struct{ src, dst netip.Addr }

func (s *segment) count(src, dst netip.Addr, size int) {
	c := s.counts[pair{src, dst}]
	if c == nil {
		c = new(Count)
		s.counts[pair{src, dst}] = c
	}
	c.Packets++
	c.Bytes += int64(size)
}

// Counters sums what was put on a network from src to dst, whether or not it
// arrived. An invalid address stands for any; addresses are those seen on that
// network.
func (n *Network) Counters(network string, src, dst netip.Addr) Count {
	n.enter()
	defer n.leave()
	var sum Count
	s := n.segments[network]
	if s == nil {
		return sum
	}
	for p, c := range s.counts {
		if (!src.IsValid() || p.src == src) && (!dst.IsValid() || p.dst == dst) {
			sum.Packets += c.Packets
			sum.Bytes += c.Bytes
		}
	}
	return sum
}
