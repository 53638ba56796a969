package control

import (
	"net/netip"
	"slices"
	"strings"

	"github.com/bodkin-net/bodkin/internal/lab/apart"
	"github.com/bodkin-net/bodkin/internal/lab/netns"
)

// cut is what keeps two ends apart, by their names.
type cut struct {
	a, b     string
	protocol string
	pairs    []apart.Pair
}

var protocols = map[string]netns.Protocol{"": netns.AnyProtocol, "tcp": netns.TCP, "udp": netns.UDP, "icmp": netns.ICMP, "icmpv6": netns.ICMPv6}

// cutting is the cut of a node from another one as both are now.
func (s *server) cutting(world apart.World, node, other, protocol string) (cut, error) {
	if _, err := netip.ParseAddr(other); err != nil && other != apart.Everything {
		if _, err := s.node(other); err != nil {
			return cut{}, err
		}
	}
	pairs, err := world.Pairs(node, other)
	if err != nil {
		return cut{}, failure(BadRequest, "", "%v", err)
	}
	return cut{node, other, strings.ToLower(protocol), pairs}, nil
}

func (s *server) sever(k cut) error {
	for _, pair := range k.pairs {
		if err := s.lab.Cut(pair.A, pair.B, protocols[k.protocol]); err != nil {
			return err
		}
	}
	s.cuts = append(s.cuts, k)
	return nil
}

// joining are the cuts that a change takes back, each once.
func (s *server) joining(node string, c Change) (joining []cut, err error) {
	wanted := map[int]bool{}
	for _, other := range c.Restore {
		found := s.cutsBetween(node, other, strings.ToLower(c.Protocol))
		if len(found) == 0 && other == apart.Everything {
			return nil, failure(BadRequest, "`bodkin lab status` shows what is cut", "%s is cut from nobody", node)
		}
		if len(found) == 0 {
			return nil, failure(BadRequest, "`bodkin lab status` shows what is cut", "%s and %s are not cut", node, other)
		}
		for _, i := range found {
			wanted[i] = true
		}
	}
	for i, k := range s.cuts {
		if wanted[i] {
			joining = append(joining, k)
		}
	}
	return joining, nil
}

func (s *server) join(k cut) error {
	for _, pair := range k.pairs {
		if err := s.lab.Restore(pair.A, pair.B, protocols[k.protocol]); err != nil {
			return err
		}
	}
	i := slices.IndexFunc(s.cuts, func(x cut) bool {
		return x.a == k.a && x.b == k.b && x.protocol == k.protocol && slices.Equal(x.pairs, k.pairs)
	})
	s.cuts = slices.Delete(s.cuts, i, i+1)
	return nil
}

// cutsBetween are the cuts that have to do with two ends, by their place.
func (s *server) cutsBetween(a, b, protocol string) (found []int) {
	for i, k := range s.cuts {
		same := k.a == a && (k.b == b || b == apart.Everything) || k.b == a && (k.a == b || b == apart.Everything)
		if same && (protocol == "" || protocol == k.protocol) {
			found = append(found, i)
		}
	}
	return found
}
