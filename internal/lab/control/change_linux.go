package control

import (
	"slices"
	"strings"

	"github.com/bodkin-net/bodkin/internal/lab/apart"
	"github.com/bodkin-net/bodkin/internal/lab/netns"
	"github.com/bodkin-net/bodkin/internal/lab/scenario"
)

// step is a part of a change: what it does, in words, and how.
type step struct {
	what string
	do   func() error
}

// change makes a node different. All that can be wrong in it is found before
// anything is done; what the kernel may still refuse then is told with what was
// done before.
func (s *server) change(c Change) error {
	s.changing.Lock()
	defer s.changing.Unlock()
	if err := s.possible(c); err != nil {
		return err
	}
	steps, err := s.steps(c)
	if err != nil {
		return err
	}
	return run(steps)
}

func run(steps []step) error {
	var done []string
	for _, step := range steps {
		if err := step.do(); err != nil {
			e := *asError(err)
			if len(done) > 0 {
				e.Hint = "done before that, and not taken back: " + strings.Join(done, ", ")
			}
			return &e
		}
		done = append(done, step.what)
	}
	return nil
}

// possible refuses what makes no sense for the node, or not at once.
func (s *server) possible(c Change) error {
	node, _, isPort := strings.Cut(c.Node, "/")
	isHost, isGateway := slices.Contains(s.info.Hosts, node), slices.Contains(s.info.Gateways, node)
	_, known := protocols[strings.ToLower(c.Protocol)]
	switch {
	case !isHost && !isGateway:
		_, err := s.node(node)
		return err
	case isPort && !slices.Contains(s.info.Ports, c.Node):
		return s.unknown("port", c.Node, s.info.Ports)
	case isPort && (c.BlockUDP != nil || c.Cut != nil || c.Restore != nil || c.Reboot || c.NewLease || c.Move != nil):
		return failure(BadRequest, "", "%s is a port; only its link can be changed", c.Node)
	case (c.Reboot || c.BlockUDP != nil) && !isGateway:
		return failure(BadRequest, "gateways here: "+strings.Join(s.info.Gateways, ", "), "%s is a host; only gateways reboot and block", node)
	case c.Move != nil && !isHost:
		return failure(BadRequest, "", "%s is a gateway; only hosts move", node)
	case c.Move != nil && !slices.Contains(s.info.Networks, c.Move.Network):
		return s.unknown("network", c.Move.Network, s.info.Networks)
	case c.Move != nil && c.NewLease:
		return failure(BadRequest, "a move without an address asks for one", "%s cannot move and get another lease at once", node)
	case c.Move != nil && c.Cut != nil:
		return failure(BadRequest, "a cut goes by addresses: move first, then cut", "%s cannot move and be cut at once", node)
	case !known:
		return failure(BadRequest, "tcp, udp, icmp, icmpv6, or none for all", "unknown protocol %q", c.Protocol)
	case c.Protocol != "" && c.Cut == nil && c.Restore == nil:
		return failure(BadRequest, "", "a protocol is of what is cut or restored")
	}
	return nil
}

// steps are what a possible change comes to, or why it cannot be now.
func (s *server) steps(c Change) (steps []step, err error) {
	node, _, isPort := strings.Cut(c.Node, "/")
	add := func(what string, do func() error) { steps = append(steps, step{what, do}) }
	refused := func(err error) error { return failure(BadRequest, "", "%s", asError(err).Message) }
	world := apart.World{Snapshot: s.lab.Status()}
	if c.Link != nil {
		port := c.Node
		if !isPort && slices.Contains(s.info.Gateways, node) {
			port += "/" + netns.OutsideInterface // its access link
		}
		link, err := c.Link.apply(world.Port(port).Link)
		if err != nil {
			return nil, failure(BadRequest, "", "%s: %v", port, err)
		}
		add("the link of "+port, func() error { return s.lab.SetLink(port, link) })
	}
	joining, err := s.joining(node, c)
	if err != nil {
		return nil, err
	}
	for _, k := range joining {
		add("restored "+k.a+" and "+k.b, func() error { return s.join(k) })
	}
	for _, other := range c.Cut {
		k, err := s.cutting(world, node, other, c.Protocol)
		if err != nil {
			return nil, err
		}
		add("cut from "+other, func() error { return s.sever(k) })
	}
	if c.BlockUDP != nil {
		add("UDP", func() error { return s.lab.BlockUDP(node, *c.BlockUDP) })
	}
	if m := c.Move; m != nil {
		if err := s.lab.CheckMove(node, m.Network, m.Addrs); err != nil {
			return nil, refused(err)
		}
		add("the move", func() error { return s.lab.Move(node, m.Network, m.Addrs) })
	}
	if c.NewLease {
		if err := s.lab.CheckNewLease(node); err != nil {
			return nil, refused(err)
		}
		add("the new lease", func() error { return s.lab.NewLease(node) })
	}
	if c.Reboot {
		add("the reboot", func() error { return s.lab.RebootGateway(node) })
	}
	return steps, nil
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
