package router

import (
	"testing"

	"github.com/bodkin-net/bodkin/internal/machine/nat"
)

// What a neighbour says outside of packets counts as what it sends.
func TestThiefIsHeard(t *testing.T) {
	w := newWorld(t, Config{NAT: natConfig(), DHCP: pool()})
	w.host(1)
	w.settle()
	said(w.r)
	w.r.Heard(w.now, nat.Inside, addr("192.168.1.100").As4(), mac(1))
	w.wantSaid()
	w.r.Heard(w.now, nat.Inside, own.As4(), mac(2))
	w.wantSaid("dhcp: 192.168.1.1 stolen by 02:00:00:00:00:02: it is the gateway's own")
	w.r.Heard(w.now, nat.Outside, addr("192.168.1.100").As4(), mac(2))
	w.wantSaid()
	without := newWorld(t, Config{NAT: natConfig()})
	without.r.Heard(w.now, nat.Inside, own.As4(), mac(2))
	without.wantSaid()
}
