package server

import (
	"bytes"
	"io"
	"net"
	"net/netip"
	"testing"
	"time"

	pion "github.com/pion/stun/v3"
)

func TestBindingAgainstPion(t *testing.T) {
	for _, hosts := range [][2]string{{"127.0.0.1", "127.0.0.1"}, {"::1", "::1"}, {"", "127.0.0.1"}, {"", "::1"}} {
		s := start(t, open(t, hosts[0]))
		host := netip.MustParseAddr(hosts[1]) // on both families when the socket is
		s.udp, s.tcp = netip.AddrPortFrom(host, s.udp.Port()), netip.AddrPortFrom(host, s.tcp.Port())
		for network, addr := range map[string]netip.AddrPort{"udp": s.udp, "tcp": s.tcp} {
			t.Run(network+" "+hosts[0]+" from "+hosts[1], func(t *testing.T) {
				nc, err := net.Dial(network, addr.String())
				if err != nil {
					t.Fatal(err)
				}
				c, err := pion.NewClient(nc)
				if err != nil {
					t.Fatal(err)
				}
				defer c.Close()
				for _, options := range [][]pion.Setter{
					{pion.TransactionID, pion.BindingRequest},
					{pion.TransactionID, pion.BindingRequest, pion.NewSoftware("somebody's client"), pion.Fingerprint},
				} {
					got := make(chan pion.Event, 1)
					request := pion.MustBuild(options...)
					if err := c.Do(request, func(e pion.Event) {
						if e.Message != nil {
							m := new(pion.Message)
							e.Message.CloneTo(m)
							e.Message = m
						}
						got <- e
					}); err != nil {
						t.Fatal(err)
					}
					e := <-got
					if e.Error != nil {
						t.Fatal(e.Error)
					}
					var mapped pion.XORMappedAddress
					if err := mapped.GetFrom(e.Message); err != nil {
						t.Fatal(err)
					}
					want, _ := addrPort(nc.LocalAddr())
					if g := (&net.UDPAddr{IP: mapped.IP, Port: mapped.Port}).AddrPort(); netip.AddrPortFrom(g.Addr().Unmap(), g.Port()) != want {
						t.Errorf("mapped %v, want %v", g, want)
					}
					if asked, answered := request.Contains(pion.AttrFingerprint), e.Message.Contains(pion.AttrFingerprint); asked != answered {
						t.Errorf("fingerprint asked %v, answered %v", asked, answered)
					}
				}
			})
		}
	}
}

// RFC 8489 section 6.3.1 owes a 420; an unproved address gets it only when it
// is no amplification.
func TestUnknownAttributes(t *testing.T) {
	s := start(t, open(t, "127.0.0.1"))
	short := pion.MustBuild(pion.NewTransactionIDSetter([12]byte{1}), pion.BindingRequest, pion.RawAttribute{Type: 3, Value: make([]byte, 4)})
	long := pion.MustBuild(pion.NewTransactionIDSetter([12]byte{2}), pion.BindingRequest, pion.RawAttribute{Type: 0x26, Value: make([]byte, 100)})
	plain := pion.MustBuild(pion.NewTransactionIDSetter([12]byte{3}), pion.BindingRequest)

	for _, c := range []struct {
		network string
		addr    netip.AddrPort
		answers []*pion.Message // whose answers come, in order
	}{
		{"udp", s.udp, []*pion.Message{long, plain}},
		{"tcp", s.tcp, []*pion.Message{short, long, plain}},
	} {
		t.Run(c.network, func(t *testing.T) {
			nc := dial(t, c.network, c.addr)
			for _, m := range []*pion.Message{short, long, plain} {
				if _, err := nc.Write(m.Raw); err != nil {
					t.Fatal(err)
				}
			}
			for _, want := range c.answers {
				got := readSTUN(t, nc, c.network == "udp")
				if got.TransactionID != want.TransactionID {
					t.Fatalf("answer to %v, want %v", got.TransactionID, want.TransactionID)
				}
				var code pion.ErrorCodeAttribute
				unknown := want.Length > 0
				if err := code.GetFrom(got); unknown != (err == nil) || (unknown && code.Code != 420) {
					t.Errorf("request of %d bytes: error code %v, %v", len(want.Raw), code.Code, err)
				}
				var list pion.UnknownAttributes
				if err := list.GetFrom(got); unknown && (err != nil || len(list) != 1 || list[0] != want.Attributes[0].Type) {
					t.Errorf("unknown attributes %v, %v", list, err)
				}
			}
		})
	}
}

func readSTUN(t *testing.T, nc net.Conn, packets bool) *pion.Message {
	t.Helper()
	buf := make([]byte, 2000)
	n := 20
	var err error
	if packets {
		n, err = nc.Read(buf)
	} else if _, err = io.ReadFull(nc, buf[:20]); err == nil {
		n += int(buf[2])<<8 | int(buf[3])
		_, err = io.ReadFull(nc, buf[20:n])
	}
	if err != nil {
		t.Fatal(err)
	}
	m := &pion.Message{Raw: buf[:n]}
	if err := m.Decode(); err != nil {
		t.Fatal(err)
	}
	return m
}

func dial(t testing.TB, network string, addr netip.AddrPort) net.Conn {
	t.Helper()
	nc, err := net.Dial(network, addr.String())
	if err != nil {
		t.Fatal(err)
	}
	nc.SetDeadline(time.Now().Add(10 * time.Second))
	t.Cleanup(func() { nc.Close() })
	return nc
}

// nowhere takes datagrams and forgets them.
type nowhere struct{ sent int }

func (n *nowhere) reader() batchReader { return nil }
func (n *nowhere) writer() batchWriter { return n }
func (n *nowhere) write(out []datagram) int {
	n.sent += len(out)
	return len(out)
}

func TestSTUNAllocatesNothing(t *testing.T) {
	s, err := New(open(t, "127.0.0.1"))
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	sink := new(nowhere)
	o := newOutbox([]socket{sink})
	from := netip.MustParseAddrPort("192.0.2.1:1234")
	request := pion.MustBuild(pion.TransactionID, pion.BindingRequest, pion.Fingerprint).Raw
	in := []datagram{{from, request}, {from, bytes.Clone(request)}}
	if n := testing.AllocsPerRun(100, func() { s.serveBatch(0, in, o) }); n != 0 {
		t.Errorf("%v allocations a batch", n)
	}
	if sink.sent != 2*101 {
		t.Errorf("sent %d answers", sink.sent)
	}
}
