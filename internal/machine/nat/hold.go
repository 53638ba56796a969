package nat

// restingPort is a port that was freed and is not given out yet; of no external
// address, it stands for a host that is kept as long.
type restingPort struct {
	until int64
	host  uint32
	port  uint16
	addr  uint8
	proto uint8
}

// resting is a heap of ports, the next to be given out again first.
type resting []restingPort

func (h resting) due() int64 {
	if len(h) == 0 {
		return never
	}
	return h[0].until
}

func (h *resting) push(r restingPort) {
	*h = append(*h, r)
	all := *h
	for i := len(all) - 1; i > 0; {
		up := (i - 1) / 2
		if all[up].until <= all[i].until {
			return
		}
		all[up], all[i] = all[i], all[up]
		i = up
	}
}

func (h *resting) pop() restingPort {
	all := *h
	first := all[0]
	all[0] = all[len(all)-1]
	all = all[:len(all)-1]
	*h = all
	for i := 0; ; {
		least := i
		for down := 2*i + 1; down <= 2*i+2 && down < len(all); down++ {
			if all[down].until < all[least].until {
				least = down
			}
		}
		if least == i {
			return first
		}
		all[least], all[i] = all[i], all[least]
		i = least
	}
}

// restAll keeps every port that is taken or rests from being given out, for
// after a loss of state its old remotes still send to it (RFC 6888 REQ-8).
func (g *Gateway) restAll() {
	g.held, g.pacing = nil, 0
	until := g.now + int64(g.cfg.Ports.HoldDown)
	for addr := range g.externals {
		for proto, p := range g.externals[addr].pools {
			if p != nil {
				p.eachTaken(func(port uint16) {
					if g.cfg.Ports.Held > 0 && len(g.held) == g.cfg.Ports.Held {
						p.release(port)
						return
					}
					p.rest(port)
					g.held.push(restingPort{until, 0, port, uint8(addr), uint8(proto)})
				})
			}
		}
	}
}

// unhold gives free what has rested long enough by a time.
func (g *Gateway) unhold(now int64) {
	for g.held.due() <= now {
		r := g.held.pop()
		if r.addr == identity {
			g.pacing--
		} else if e := &g.externals[r.addr]; e.live && e.pools[r.proto] != nil {
			e.pools[r.proto].release(r.port)
		}
		if r.host != 0 {
			g.hosts.slab.at(r.host).resting--
			g.leaveHost(r.host)
		}
	}
}
