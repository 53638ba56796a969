package bodkin

import (
	"context"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"sync"

	"github.com/bodkin-net/bodkin/internal/link"
	"github.com/bodkin-net/bodkin/internal/netio"
	"github.com/bodkin-net/bodkin/internal/wire/locator"
)

// Node is one end of connections: a key, a UDP socket, and a registration at a
// rendezvous server that it renews until it is closed.
type Node struct {
	cfg    Config
	where  locator.Locator
	socket *netio.Socket
	proof  *link.Identity
	direct *link.QUIC // on the socket itself
	relay  *link.QUIC // on relayed packets
	ctl    *control

	events *events

	mu        sync.Mutex // of other locks only life is taken while it is held
	sessions  map[sessionID]*session
	over      remembered[sessionID] // that peers had begun
	listener  *Listener
	strangers strangers

	ctx    context.Context // ends when the node closes
	cancel context.CancelFunc

	life    sync.Mutex // guards the beginning of goroutines against Close
	closing bool
	wg      sync.WaitGroup

	// partings are sessions that are over, with a channel that is closed when
	// goodbye is said on their links. Guarded by mu.
	partings map[*session]chan struct{}
}

type sessionID [16]byte

// New opens the node's socket and begins to register. It does not wait for the
// server: see [Node.Ready].
func New(cfg Config) (*Node, error) {
	cfg, where, err := cfg.withDefaults()
	if err != nil {
		return nil, err
	}
	pc, err := cfg.Network.ListenUDP(cfg.Port)
	if err != nil {
		return nil, &Error{Code: BadConfig, Text: fmt.Sprintf("cannot open UDP port %d", cfg.Port), Err: err}
	}
	n := &Node{cfg: cfg, where: where, sessions: make(map[sessionID]*session), partings: make(map[*session]chan struct{}), events: newEvents(cfg.Observe)}
	n.ctx, n.cancel = context.WithCancel(context.Background())
	n.ctl = newControl(n)
	n.socket = netio.NewSocket(pc, n.ctl)
	if err := n.openLinks(); err != nil {
		n.cancel()
		n.socket.Close()
		n.events.close()
		return nil, &Error{Code: BadConfig, Text: "cannot start QUIC on the socket", Err: err}
	}
	n.spawn(n.ctl.run)
	n.spawn(func() { n.acceptLinks(n.direct) })
	n.spawn(func() { n.acceptLinks(n.relay) })
	return n, nil
}

// spawn starts a goroutine that Close waits for, unless Close has begun.
func (n *Node) spawn(f func()) bool {
	n.life.Lock()
	defer n.life.Unlock()
	if n.closing {
		return false
	}
	n.wg.Go(f)
	return true
}

// ending tells whether Close has begun. With n.mu held from here until a new
// session is among the others, Close finds it there.
func (n *Node) ending() bool {
	n.life.Lock()
	defer n.life.Unlock()
	return n.closing
}

func (n *Node) openLinks() (err error) {
	if n.proof, err = link.NewIdentity(n.cfg.Key); err != nil {
		return err
	}
	n.proof.Config.Admit = n.admits
	if n.cfg.RelayOnly {
		n.socket.RefuseQUIC()
	}
	if n.direct, err = n.proof.QUIC(n.socket.QUIC()); err != nil {
		return err
	}
	if n.relay, err = n.proof.QUIC(n.socket.Relay()); err != nil {
		n.direct.Close()
	}
	return err
}

// ID is the node's public key.
func (n *Node) ID() ID { return n.cfg.Key.ID() }

// LocalAddr is the endpoint of the node's UDP socket; its address is
// unspecified, because the socket listens on all of the host's.
func (n *Node) LocalAddr() netip.AddrPort {
	at, ok := n.socket.LocalAddr().(interface{ AddrPort() netip.AddrPort })
	if !ok {
		return netip.AddrPort{}
	}
	return at.AddrPort()
}

func (n *Node) localPort() uint16 { return n.LocalAddr().Port() }

// Ready waits until the node is registered at a server, so that peers can ask
// for it.
func (n *Node) Ready(ctx context.Context) error {
	return n.ctl.awaitServer(ctx)
}

// Close delivers what was written, for as long as that takes but no longer than
// ten seconds, ends every connection, leaves the server, and waits until nothing
// of the node runs any more.
func (n *Node) Close() error {
	n.life.Lock()
	again := n.closing
	n.closing = true
	n.life.Unlock()
	if again {
		n.wg.Wait()
		return nil
	}
	all := n.allSessions()
	for _, s := range all {
		s.close()
	}
	for _, s := range all {
		<-s.done
	}
	n.awaitPartings() // leaving the server ends the relays
	n.ctl.bye()
	n.cancel()
	n.closeListener()
	n.relay.Close()
	n.direct.Close()
	n.socket.Close()
	n.wg.Wait()
	n.events.close()
	return nil
}

// awaitPartings waits until the links of sessions that are over are closed too.
func (n *Node) awaitPartings() {
	n.mu.Lock()
	partings := slices.Collect(maps.Values(n.partings))
	n.mu.Unlock()
	for _, parted := range partings {
		<-parted
	}
}

func (n *Node) closeListener() {
	n.mu.Lock()
	l := n.listener
	n.mu.Unlock()
	if l != nil {
		l.Close()
	}
}

func (n *Node) allSessions() []*session {
	n.mu.Lock()
	defer n.mu.Unlock()
	all := make([]*session, 0, len(n.sessions))
	for _, s := range n.sessions {
		all = append(all, s)
	}
	return all
}

func (n *Node) closedError() error {
	return &Error{Code: Closed, Text: "the node is closed"}
}

func joinWords(words []string) string { return strings.Join(words, ", ") }
