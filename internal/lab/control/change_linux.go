package control

import (
	"net/netip"
	"slices"
	"strings"

	"github.com/bodkin-net/bodkin/internal/lab/apart"
	"github.com/bodkin-net/bodkin/internal/lab/netns"
	"github.com/bodkin-net/bodkin/internal/lab/scenario"
)

// cut is what keeps two ends apart, by their names.
type cut struct {
	a, b     string
	protocol string
	pairs    []apart.Pair
}

var protocols = map[string]netns.Protocol{"": netns.AnyProtocol, "tcp": netns.TCP, "udp": netns.UDP, "icmp": netns.ICMP, "icmpv6": netns.ICMPv6}

// change makes a node different. All that can be wrong in it is found before
// anything is done.
func (s *server) change(c Change) error {
	s.changing.Lock()
	defer s.changing.Unlock()
	node, side, _ := strings.Cut(c.Node, "/")
	isHost, isGateway := slices.Contains(s.info.Hosts, node), slices.Contains(s.info.Gateways, node)
	switch {
	case !isHost && !isGateway:
		_, err := s.node(node)
		return err
	case side != "" && !slices.Contains(s.info.Ports, c.Node):
		return s.unknown("port", c.Node, s.info.Ports)
	case side != "" && (c.BlockUDP != nil || c.Cut != nil || c.Restore != nil || c.Reboot || c.NewLease || c.Move != nil):
		return failure(BadRequest, "", "%s is a port; only its link can be changed", c.Node)
	case (c.Reboot || c.BlockUDP != nil) && !isGateway:
		return failure(BadRequest, "gateways here: "+strings.Join(s.info.Gateways, ", "), "%s is a host; only gateways reboot and block", node)
	case c.Move != nil && !isHost:
		return failure(BadRequest, "", "%s is a gateway; only hosts move", node)
	case c.Move != nil && !slices.Contains(s.info.Networks, c.Move.Network):
		return s.unknown("network", c.Move.Network, s.info.Networks)
	}
	world := apart.World{Snapshot: s.lab.Status()}
	var port string
	var link scenario.Link
	if c.Link != nil {
		port = c.Node
		if isGateway && side == "" {
			port += "/" + netns.OutsideInterface // its access link
		}
		var err error
		if link, err = c.Link.apply(world.Port(port).Link); err != nil {
			return failure(BadRequest, "", "%s: %v", port, err)
		}
	}
	protocol, ok := protocols[strings.ToLower(c.Protocol)]
	if !ok {
		return failure(BadRequest, "tcp, udp, icmp, icmpv6, or none for all", "unknown protocol %q", c.Protocol)
	}
	var cutting, joining []cut
	for _, other := range c.Cut {
		if _, err := netip.ParseAddr(other); err != nil && other != apart.Everything {
			if _, err := s.node(other); err != nil {
				return err
			}
		}
		pairs, err := world.Pairs(node, other)
		if err != nil {
			return failure(BadRequest, "", "%v", err)
		}
		cutting = append(cutting, cut{node, other, c.Protocol, pairs})
	}
	for _, other := range c.Restore {
		found := s.cutsBetween(node, other, c.Protocol)
		if len(found) == 0 {
			return failure(BadRequest, "`bodkin lab status` shows what is cut", "%s and %s are not cut", node, other)
		}
		joining = append(joining, found...)
	}
	return s.apply(c, node, port, link, cutting, joining, protocol)
}

func (s *server) apply(c Change, node, port string, link scenario.Link, cutting, joining []cut, p netns.Protocol) error {
	if c.Link != nil {
		if err := s.lab.SetLink(port, link); err != nil {
			return err
		}
	}
	for _, k := range joining {
		for _, pair := range k.pairs {
			if err := s.lab.Restore(pair.A, pair.B, protocols[strings.ToLower(k.protocol)]); err != nil {
				return err
			}
		}
		s.cuts = slices.DeleteFunc(s.cuts, func(x cut) bool { return x.a == k.a && x.b == k.b && x.protocol == k.protocol })
	}
	for _, k := range cutting {
		for _, pair := range k.pairs {
			if err := s.lab.Cut(pair.A, pair.B, p); err != nil {
				return err
			}
		}
		s.cuts = append(s.cuts, k)
	}
	if c.BlockUDP != nil {
		if err := s.lab.BlockUDP(node, *c.BlockUDP); err != nil {
			return err
		}
	}
	if c.Move != nil {
		if err := s.lab.Move(node, c.Move.Network, c.Move.Addrs); err != nil {
			return err
		}
	}
	if c.NewLease {
		if err := s.lab.NewLease(node); err != nil {
			return err
		}
	}
	if c.Reboot {
		return s.lab.RebootGateway(node)
	}
	return nil
}

func (s *server) cutsBetween(a, b, protocol string) (found []cut) {
	for _, k := range s.cuts {
		same := k.a == a && (k.b == b || b == apart.Everything) || k.b == a && (k.a == b || b == apart.Everything)
		if same && (protocol == "" || strings.EqualFold(protocol, k.protocol)) {
			found = append(found, k)
		}
	}
	return found
}

// apply is the link with the changes.
func (c *LinkChange) apply(l scenario.Link) (scenario.Link, error) {
	set(&l.Delay, c.Delay)
	set(&l.Jitter, c.Jitter)
	set(&l.Loss, c.Loss)
	set(&l.Reorder, c.Reorder)
	set(&l.Repeat, c.Duplicate)
	set(&l.Rate, c.Rate)
	set(&l.MTU, c.MTU)
	return l, scenario.CheckLink(l)
}

func set[T any](to *T, from *T) {
	if from != nil {
		*to = *from
	}
}
