package netns

import (
	"encoding/binary"
	"fmt"
	"hash/fnv"
	"math/rand/v2"
	"net/netip"
	"slices"
	"time"

	"github.com/bodkin-net/bodkin/internal/lab/service"
	"github.com/bodkin-net/bodkin/internal/machine/dhcp"
	"github.com/bodkin-net/bodkin/internal/machine/nat"
	"github.com/bodkin-net/bodkin/internal/machine/router"
)

// gateway is a gateway of ours: the machine between its ports, and the kernel's
// stack in its namespace, which has the gateway's addresses and reaches the
// world through the machine alone.
//
//	network -- inside --+         +-- outside -- network
//	                    | machine |
//	network ---- dmz ---+    |
//	                      TUN devices: the gateway's own stack
type gateway struct {
	driven
	node   *node
	router *router.Router
	sides  [nat.Local]*wirePort // nil: there is no such
	stack  [nat.Local]*device

	// Blocking can be switched on and off here, and not in the machine.
	blockUDP bool
	blocked  uint64
}

// maxDepth bounds the gateways that a packet crosses without a link that takes
// time, so that a loop of gateways that keep the TTL ends.
const maxDepth = 64

func (w *wire) addGateway(p *plan, n *node, opt Options, at map[*port]*wirePort, devices map[*port]*device) error {
	g := &gateway{node: n}
	outside := n.ports[nat.Outside]
	cfg := router.Config{
		NAT: nat.Config{
			Behaviour:   n.gateway.NAT,
			Static:      n.gateway.Static,
			MaxMappings: n.gateway.MaxMappings,
			Rand:        rand.NewPCG(opt.Seed, hash(n.name)),
		},
		DHCP:        n.gateway.DHCP,
		OutsideDHCP: outside.DHCP, OutsideMAC: outside.hardware(),
	}
	service.Configure(n.gateway, &cfg)
	cfg.NAT.BlockUDP, g.blockUDP = false, cfg.NAT.BlockUDP
	for _, q := range p.segment(n.gateway.Inside.Network).ports {
		if q.owner != n {
			cfg.Fixed = append(cfg.Fixed, plain(q.Addrs)...)
		}
	}
	cfg.Routes = p.segment(n.gateway.Inside.Network).taught()
	for side, q := range n.ports {
		port := at[q]
		port.gateway, port.side = g, nat.Side(side)
		g.sides[side], g.stack[side] = port, devices[q]
		devices[q].gateway = g
		cfg.NAT.Own[side] = plain(q.Addrs)
		cfg.NAT.MTU[side] = port.down.mtu()
	}
	cfg.NAT.Inside = p.within(n, nat.Inside)
	if len(n.ports) > int(nat.DMZ) {
		cfg.NAT.DMZ = p.within(n, nat.DMZ)
	}
	var err error
	if g.router, err = router.New(w.start, cfg); err != nil {
		return fmt.Errorf("netns: gateway %s: %w", n.name, err)
	}
	g.next = func() (time.Time, bool) {
		w.news(g)
		return g.router.NextTimeout()
	}
	g.ring = func(now int64) {
		g.router.HandleTimeout(w.clock(now))
		w.poll(g, now)
	}
	w.gateways = append(w.gateways, g)
	w.machines = append(w.machines, &g.driven)
	w.touch(&g.driven)
	return nil
}

func hash(s string) uint64 {
	h := fnv.New64a()
	h.Write([]byte(s))
	return h.Sum64()
}

// handle gives a gateway a packet that came in from a side.
func (w *wire) handle(g *gateway, from nat.Side, now int64, buf []byte) {
	if w.depth == maxDepth || g.blockUDP && g.blocks(from, buf) {
		return
	}
	w.depth++
	v := g.router.Handle(w.clock(now), from, router.MAC(etherSrc(buf)), buf[room:], offload(buf))
	if v.Action == nat.Forward {
		w.forward(g, v.To, now, buf)
	}
	w.poll(g, now)
	w.depth--
}

// offload is what the sender of a packet left to be done.
func offload(buf []byte) nat.Offload {
	off := nat.Offload{PartialSum: buf[0]&vnetNeedsChecksum != 0}
	if buf[1] != gsoNone {
		off.Segment = int(binary.NativeEndian.Uint16(buf[4:]))
	}
	return off
}

// blocks drops UDP as nat.Behaviour.BlockUDP does: but for what is between the
// gateway itself and its neighbours.
func (g *gateway) blocks(from nat.Side, buf []byte) bool {
	v, ok := parse(buf)
	if !ok || v.proto != UDP || from == nat.Local || isEveryone(v.dst) || v.isTo(dhcp.ClientPort) {
		return false
	}
	if from != nat.Outside && slices.Contains(plain(g.sides[from].Addrs), v.dst) {
		return false
	}
	g.blocked++
	return true
}

// poll sends what the gateway makes itself.
func (w *wire) poll(g *gateway, now int64) {
	for {
		out, ok := g.router.Poll()
		if !ok {
			break
		}
		p := w.wrap(out.Packet)
		w.forward(g, out.To, now, p.buf)
		w.recycle(p)
	}
	w.touch(&g.driven)
}

// forward passes a packet on from the gateway.
func (w *wire) forward(g *gateway, to nat.Side, now int64, buf []byte) {
	v, ok := parse(buf)
	switch {
	case !ok:
	case to == nat.Local:
		w.put(g.device(v.dst), buf)
	case g.sides[to] != nil:
		p := g.sides[to]
		setEther(buf, mac{}, p.hw, etherTypeOf(v.ip))
		w.carry(p, now, &v)
	}
}

// device is the interface of the gateway's own stack that has an address.
func (g *gateway) device(a netip.Addr) *device {
	for side, p := range g.sides {
		if p == nil {
			continue
		}
		for _, own := range p.Addrs {
			if own.Addr() == a {
				return g.stack[side]
			}
		}
	}
	return g.stack[nat.Inside]
}
