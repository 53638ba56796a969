package bodkin

import (
	"context"
	"time"
)

// Pinger keeps a connection to a peer without a stream, to measure its paths.
type Pinger struct{ s *session }

// Pong is the answer to a ping.
type Pong struct {
	Path Path          // that the ping and its answer took
	RTT  time.Duration // from peer to peer and back, through everything in between
}

// NewPinger connects to a peer as Dial does, without opening a stream: the
// peer's listener does not notice.
func (n *Node) NewPinger(ctx context.Context, peer ID) (*Pinger, error) {
	s, err := n.connect(ctx, peer)
	if err != nil {
		return nil, err
	}
	return &Pinger{s}, nil
}

// Ping sends one ping over the path in use and waits for its answer. One call
// at a time.
func (p *Pinger) Ping(ctx context.Context) (Pong, error) {
	s := p.s
	s.mu.Lock()
	s.pong = make(chan Pong, 1)
	pong := s.pong
	s.m.Ping(time.Now())
	s.settle()
	s.mu.Unlock()
	select {
	case r := <-pong:
		return r, nil
	case <-s.done:
		return Pong{}, s.reason()
	case <-ctx.Done():
		return Pong{}, ctx.Err()
	}
}

// Path is the way that pings take just now.
func (p *Pinger) Path() Path {
	p.s.mu.Lock()
	defer p.s.mu.Unlock()
	return p.s.currentPath()
}

// Close lets go of the connection.
func (p *Pinger) Close() error {
	p.s.release()
	return nil
}
