package dhcp

import (
	"fmt"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/bodkin-net/bodkin/internal/machine/nat/ip"
)

var (
	epoch = time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)
	home  = netip.MustParsePrefix("192.168.1.1/24")
)

func addr(s string) netip.Addr { return netip.MustParseAddr(s) }

func mac(n int) MAC { return MAC{2, 0, 0, byte(n >> 16), byte(n >> 8), byte(n)} }

// bench is a server with somebody who sends it what he likes.
type bench struct {
	*Server
	t   *testing.T
	now time.Time
}

func newBench(t *testing.T, cfg ServerConfig) *bench {
	t.Helper()
	if !cfg.Addr.IsValid() {
		cfg.Addr = home
	}
	s, err := NewServer(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return &bench{s, t, epoch}
}

// small is a pool of n addresses from .100.
func small(n int) ServerConfig {
	first := addr("192.168.1.100")
	return ServerConfig{Addr: home, Pool: Pool{First: first, Last: addrOf(number(first) + uint32(n) - 1)}}
}

// answer is what came back: a message and where it was sent.
type reply struct {
	*message
	to netip.AddrPort
}

func (b *bench) send(sender MAC, m message) []reply {
	b.t.Helper()
	src, dst := netip.IPv4Unspecified(), everyone
	if m.client.IsValid() {
		src, dst = m.client, home.Addr()
	}
	b.HandlePacket(b.now, sender, ip.AppendUDP(nil, netip.AddrPortFrom(src, ClientPort), netip.AddrPortFrom(dst, ServerPort), 64, m.bytes()))
	return b.replies()
}

func (b *bench) replies() (all []reply) {
	b.t.Helper()
	for {
		pkt, ok := b.Poll()
		if !ok {
			return all
		}
		var p ip.Packet
		if err := p.Decode(pkt); err != nil || !p.ChecksumOK() || p.Src.Addr() != home.Addr() {
			b.t.Fatalf("bad packet %x: %v", pkt, err)
		}
		if p.Proto == ip.ICMP {
			all = append(all, reply{nil, p.Dst})
			continue
		}
		m, err := parseMessage(p.Payload())
		if err != nil || !m.reply || p.Src.Port() != ServerPort || p.Dst.Port() != ClientPort {
			b.t.Fatalf("bad reply %+v: %v", m, err)
		}
		all = append(all, reply{m, p.Dst})
	}
}

// one is the only reply, of a kind; kind 0 is none.
func (b *bench) one(all []reply, k kind) reply {
	b.t.Helper()
	if k == 0 {
		if len(all) != 0 {
			b.t.Fatalf("%v %v: want silence", all[0].kind, all[0].text)
		}
		return reply{}
	}
	if len(all) != 1 || all[0].message == nil || all[0].kind != k {
		b.t.Fatalf("%d replies %+v, want one %v", len(all), all, k)
	}
	return all[0]
}

func (b *bench) discover(hw MAC, wish ...netip.Addr) []reply {
	m := message{kind: discover, hw: hw}
	if len(wish) > 0 {
		m.requested = wish[0]
	}
	return b.send(hw, m)
}

func (b *bench) selecting(hw MAC, a netip.Addr) []reply {
	return b.send(hw, message{kind: request, hw: hw, requested: a, server: home.Addr()})
}

func (b *bench) reboot(hw MAC, a netip.Addr) []reply {
	return b.send(hw, message{kind: request, hw: hw, requested: a})
}

func (b *bench) renew(hw MAC, a netip.Addr) []reply {
	return b.send(hw, message{kind: request, hw: hw, client: a})
}

// lease leads a client to an address.
func (b *bench) lease(hw MAC, wish ...netip.Addr) netip.Addr {
	b.t.Helper()
	o := b.one(b.discover(hw, wish...), offer)
	return b.one(b.selecting(hw, o.yours), ack).yours
}

// said takes the events, as "kind address client user".
func (b *bench) said() (all []string) {
	for {
		e, ok := b.Event()
		if !ok {
			return all
		}
		s := fmt.Sprintf("%v %v", e.Kind, e.Addr)
		for _, m := range []MAC{e.Client, e.User} {
			if m != (MAC{}) {
				s += " " + m.String()[15:]
			} else {
				s += " -"
			}
		}
		all = append(all, s)
	}
}

func (b *bench) wantSaid(want ...string) {
	b.t.Helper()
	if got := b.said(); !slices.Equal(got, want) {
		b.t.Errorf("said %q, want %q", got, want)
	}
}

func (b *bench) wait(d time.Duration) { b.now = b.now.Add(d); b.HandleTimeout(b.now) }

func (b *bench) decline(hw MAC, a netip.Addr) []reply {
	return b.send(hw, message{kind: decline, hw: hw, requested: a, server: home.Addr()})
}

func (b *bench) discoverFrom(server netip.Addr) netip.Addr {
	b.handle(b.now, mac(1), &message{kind: discover, hw: mac(1)})
	pkt, _ := b.Poll()
	var p ip.Packet
	if err := p.Decode(pkt); err != nil || p.Src.Addr() != server {
		b.t.Fatal(err)
	}
	m, err := parseMessage(p.Payload())
	if err != nil {
		b.t.Fatal(err)
	}
	return m.yours
}

func echoReply(from netip.Addr) []byte {
	if !from.IsValid() {
		return nil
	}
	return ip.AppendEcho(nil, from, home.Addr(), 64, ip.EchoReply, ServerPort, 1, nil)
}
