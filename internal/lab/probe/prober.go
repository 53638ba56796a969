package probe

import (
	"fmt"
	"sync"
	"time"

	"github.com/bodkin-net/bodkin/internal/machine/nat"
)

const translate = nat.Translate

// Prober looks at homes with the help of two servers.
type Prober struct {
	servers [2]*server
	wait    time.Duration

	mu    sync.Mutex
	turns map[string]chan struct{} // by home: one TCP connection at a time to the servers
}

// New opens the servers' sockets on two hosts of the internet. What does not
// arrive within wait counts as never.
func New(servers [2]Host, wait time.Duration) (*Prober, error) {
	p := &Prober{wait: wait, turns: make(map[string]chan struct{})}
	for i, h := range servers {
		var err error
		if p.servers[i], err = newServer(h); err != nil {
			p.Close()
			return nil, fmt.Errorf("probe: %w", err)
		}
	}
	return p, nil
}

// Close ends the servers.
func (p *Prober) Close() {
	for _, s := range p.servers {
		if s != nil {
			s.close()
		}
	}
}

// turn waits until nobody else connects the home to the servers. The function
// that it returns lets the next one.
func (p *Prober) turn(h Home) (over func()) {
	p.mu.Lock()
	c := p.turns[h.Name]
	if c == nil {
		c = make(chan struct{}, 1)
		p.turns[h.Name] = c
	}
	p.mu.Unlock()
	c <- struct{}{}
	return func() { <-c }
}

// Look says what a home's gateway looks like.
func (p *Prober) Look(h Home) (s Seen, err error) {
	if s.UDP, err = p.seeUDP(h); err == nil {
		s.TCP, err = p.seeTCP(h)
	}
	if err == nil {
		s.Clash, err = p.clash(h)
	}
	if err != nil {
		return s, fmt.Errorf("probe: %s: %w", h.Name, err)
	}
	s.Unsolicited = p.unsolicited(h)
	return s, nil
}

// Pair says whether the hosts A of two homes get through to each other.
func (p *Prober) Pair(a, b Home) (t Traversal, err error) {
	udp, err := p.punchUDP(a, a.A, b, b.A)
	if err != nil {
		return t, fmt.Errorf("probe: %s and %s: %w", a.Name, b.Name, err)
	}
	tcp, err := p.punchTCP(a, a.A, b, b.A)
	if err != nil {
		return t, fmt.Errorf("probe: %s and %s: %w", a.Name, b.Name, err)
	}
	t.UDP = udp[0].IsValid() && udp[1].IsValid()
	t.TCP = tcp[0].IsValid() && tcp[1].IsValid()
	return t, nil
}
