package bodkin

import (
	"context"
	"net"
	"slices"
	"sync"
)

const acceptQueue = 64 // streams that wait for Accept; more are refused

// Listener takes the connections that peers open to a node. It is a
// net.Listener.
type Listener struct {
	n      *Node
	allow  []ID
	conns  chan *Conn
	done   chan struct{}
	closed sync.Once
}

// Listen lets peers connect to this node: the named ones, or anyone who knows
// its id. A node has one listener at a time.
func (n *Node) Listen(allow ...ID) (*Listener, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.ctx.Err() != nil {
		return nil, n.closedError()
	}
	if n.listener != nil {
		return nil, &Error{Code: BadConfig, Text: "this node is listening already"}
	}
	n.listener = &Listener{n: n, allow: slices.Clone(allow), conns: make(chan *Conn, acceptQueue), done: make(chan struct{})}
	n.ctl.listening(true)
	return n.listener, nil
}

// Accept waits for the next connection; it returns a *Conn.
func (l *Listener) Accept() (net.Conn, error) {
	c, err := l.AcceptConn(context.Background())
	if err != nil {
		return nil, err
	}
	return c, nil
}

// AcceptConn waits for the next connection until ctx ends.
func (l *Listener) AcceptConn(ctx context.Context) (*Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.done:
		return nil, &Error{Code: Closed, Text: "the listener is closed", Err: net.ErrClosed}
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// Close lets no more peers connect. Connections that stand stay.
func (l *Listener) Close() error {
	l.closed.Do(func() {
		l.n.mu.Lock()
		l.n.listener = nil
		l.n.mu.Unlock()
		l.n.ctl.listening(false)
		close(l.done)
	})
	return nil
}

// Addr is the node's id.
func (l *Listener) Addr() net.Addr { return Addr{l.n.ID()} }

// offer hands a new stream to Accept, and tells whether there is room for it.
func (l *Listener) offer(c *Conn) bool {
	select {
	case <-l.done:
		return false
	default:
	}
	select {
	case l.conns <- c:
		return true
	default:
		return false
	}
}

// admission is what becomes of a peer's request.
type admission int

const (
	refused  admission = iota
	known              // it is about a session that stands
	newcomer           // it is about a new one
)

// admit decides about a peer's request. A newcomer's session may then be begun
// by a link of that peer.
func (n *Node) admit(peer ID, id sessionID) admission {
	n.mu.Lock()
	defer n.mu.Unlock()
	if s := n.sessions[id]; s != nil {
		if s.peer == peer {
			return known
		}
		return refused
	}
	if !n.accepts(peer) {
		return refused
	}
	return newcomer
}

// admits tells whether a peer may complete the handshake of a link at all.
func (n *Node) admits(peer ID) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.accepts(peer) {
		return true
	}
	for _, s := range n.sessions {
		if s.peer == peer {
			return true
		}
	}
	return false
}

func (n *Node) accepts(peer ID) bool {
	return n.listener != nil && (len(n.listener.allow) == 0 || slices.Contains(n.listener.allow, peer))
}

// Addr is a peer's address: its id.
type Addr struct{ ID ID }

// Network is "bodkin".
func (Addr) Network() string  { return "bodkin" }
func (a Addr) String() string { return a.ID.String() }
