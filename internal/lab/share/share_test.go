package share

import (
	"net/netip"
	"testing"
)

// One address gets a quarter, four get everything, and who gives back is
// forgotten.
func TestShares(t *testing.T) {
	s := New(8)
	at := func(n byte) netip.Addr { return netip.AddrFrom4([4]byte{10, 0, 0, n}) }
	for n := range byte(4) {
		for range 2 {
			if !s.Take(at(n)) {
				t.Fatalf("%v is refused too early", at(n))
			}
		}
		if s.Take(at(n)) {
			t.Errorf("%v got more than its share", at(n))
		}
	}
	if s.Take(at(4)) {
		t.Error("more than all")
	}
	for n := range byte(200) { // who is refused is not remembered
		s.Take(at(n + 10))
	}
	if len(s.has) != 4 {
		t.Errorf("%d addresses are remembered", len(s.has))
	}
	s.Give(at(0))
	if !s.Take(at(4)) {
		t.Error("refused though one is free")
	}
	s.Give(at(4))
	s.Give(at(0))
	if len(s.has) != 3 || s.n != 6 {
		t.Errorf("%d of %d addresses are left", s.n, len(s.has))
	}
	if small := New(2); !small.Take(at(0)) || small.Take(at(0)) || !small.Take(at(1)) {
		t.Error("a small number is divided otherwise")
	}
}
