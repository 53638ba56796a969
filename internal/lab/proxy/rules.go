package proxy

import (
	"github.com/bodkin-net/bodkin/internal/lab/scenario"
	"github.com/bodkin-net/bodkin/internal/machine/nat"
)

// Rules are what the gateway's packet filter does for its proxies, before all
// other rules.
func Rules(p scenario.Proxy) []nat.Rule {
	if !p.Only {
		return nil
	}
	return []nat.Rule{{Action: nat.Discard, From: 1 << nat.Inside, To: 1 << nat.Outside}}
}

// Ports are the destination ports of TCP that go to the transparent proxy.
func Ports(p scenario.Proxy) []uint16 {
	if !p.Transparent {
		return nil
	}
	return []uint16{80, 443}
}
