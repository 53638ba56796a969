//go:build unix

package netio

import (
	"encoding/binary"
	"net/netip"
	"testing"

	"github.com/bodkin-net/bodkin/internal/wire/relay"
)

// routed is a socket that trusts server, and what brings it a relayed packet.
func routed(t *testing.T) (s *Socket, server netip.AddrPort, bring func(id relay.ID) bool) {
	t.Helper()
	s = NewSocket(loopback(t), make(collector))
	server = netip.MustParseAddrPort("192.0.2.1:3478")
	s.TrustRelays(server)
	return s, server, func(id relay.ID) bool {
		taken := s.relays.deliver(server, append(relay.AppendHeader(nil, id), "x"...))
		select {
		case p := <-s.relays.queue:
			packets.Put(p.buf)
		default:
		}
		return taken
	}
}

// Packets of made-up relays, from the server or from who forges its address,
// take nobody's place: neither that of relays in use, nor of one whose first
// packet comes before the request that announces it.
func TestJunkRoutes(t *testing.T) {
	s, server, bring := routed(t)
	used := relay.ID{0xff, 1}
	s.AddRelay(used, server)
	junk := func() {
		for i := range uint64(100_000) {
			var id relay.ID
			binary.BigEndian.PutUint64(id[:], i)
			bring(id)
		}
	}
	junk()
	if n := len(s.relays.routes); n > maxLearnt+1 {
		t.Errorf("%d routes", n)
	}
	if !bring(used) || s.RelayServer(used) != server {
		t.Error("the relay in use was forgotten")
	}
	early := relay.ID{0xff, 2}
	if !bring(early) || s.RelayServer(early) != server {
		t.Error("no room for the first packet of a relay")
	}
	s.AddRelay(early, server)
	junk()
	if s.RelayServer(early) != server {
		t.Error("a relay that was learnt first and added then was forgotten")
	}
}

// A relay that two users share lasts until the second has gone.
func TestSharedRoute(t *testing.T) {
	s, server, _ := routed(t)
	id := relay.ID{1}
	s.AddRelay(id, server)
	s.AddRelay(id, server)
	s.RemoveRelay(id)
	if s.RelayServer(id) != server {
		t.Fatal("forgotten with a user left")
	}
	s.RemoveRelay(id)
	s.RemoveRelay(id) // nothing is left to remove
	if s.RelayServer(id).IsValid() || len(s.relays.routes) != 0 {
		t.Fatalf("%d routes are left", len(s.relays.routes))
	}
}

func TestRefuseQUIC(t *testing.T) {
	s, _, _ := routed(t)
	from := s.pc.LocalAddr()
	if !s.keep(from, []byte{0xc0}) {
		t.Fatal("QUIC is not kept")
	}
	s.RefuseQUIC()
	if s.keep(from, []byte{0xc0}) || s.Dropped() != 1 {
		t.Error("QUIC is kept after RefuseQUIC")
	}
}
