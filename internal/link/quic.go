package link

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"
	"sync"

	"github.com/quic-go/quic-go"

	"github.com/bodkin-net/bodkin/internal/identity"
)

const (
	// Whole handshake packets fit the smallest IPv6 MTU with a relay's header in
	// front: 40 + 8 + 10 + 1200 <= 1280.
	initialPacketSize = 1200

	// The session keeps at most 8 MiB of a stream under way. quic-go raises a
	// limit when a quarter of its window is used up, so what must never be the
	// narrower one has a third more; and then some.
	streamWindow = 12 << 20
	// More than quic-go's largest congestion window (10,000 packets) for the same
	// reason. It is also the most that one peer can make us store.
	connWindow = 32 << 20

	// Lanes that are replaced overlap with their successors for a moment.
	spareStreams = 64
)

// QUIC makes QUIC links over one packet connection, both ways.
type QUIC struct {
	identity *Identity
	config   *quic.Config
	network  string
	tr       *quic.Transport
	ln       *quic.Listener
	gate     *gate

	mu     sync.Mutex
	closed bool
	links  map[*quicLink]struct{}
}

// quietly keeps quic-go from printing about small socket buffers: a library
// does not print.
var quietly = sync.OnceFunc(func() {
	const name = "QUIC_GO_DISABLE_RECEIVE_BUFFER_WARNING"
	if _, err := strconv.ParseBool(os.Getenv(name)); err != nil {
		os.Setenv(name, "true")
	}
})

// QUIC starts reading pc, which stays the caller's to close, after Close.
func (i *Identity) QUIC(pc net.PacketConn) (*QUIC, error) {
	quietly()
	cfg := i.Config.withDefaults()
	_, udp := pc.LocalAddr().(*net.UDPAddr)
	q := &QUIC{
		identity: i,
		network:  pc.LocalAddr().Network(),
		gate:     newGate(cfg.MaxHandshakes),
		links:    make(map[*quicLink]struct{}),
		config: &quic.Config{
			Versions:                       []quic.Version{quic.Version1},
			HandshakeIdleTimeout:           cfg.HandshakeTimeout / 2, // quic-go doubles it for the whole
			MaxIdleTimeout:                 cfg.IdleTimeout,
			InitialStreamReceiveWindow:     streamWindow,
			MaxStreamReceiveWindow:         streamWindow,
			InitialConnectionReceiveWindow: connWindow,
			MaxConnectionReceiveWindow:     connWindow,
			MaxIncomingStreams:             -1,
			MaxIncomingUniStreams:          int64(cfg.MaxStreams) + spareStreams,
			InitialPacketSize:              initialPacketSize,
			DisablePathMTUDiscovery:        !udp, // a relay's path is not for probing
		},
	}
	q.tr = &quic.Transport{
		Conn:                             pc,
		DisableVersionNegotiationPackets: true,
		VerifySourceAddress:              func(net.Addr) bool { return q.gate.crowded() },
		ConnContext: func(ctx context.Context, c *quic.ClientInfo) (context.Context, error) {
			return q.gate.enter(ctx, c.RemoteAddr)
		},
	}
	ln, err := q.tr.Listen(i.admit(nil), q.config)
	if err != nil {
		return nil, fmt.Errorf("link: %w", err)
	}
	q.ln = ln
	return q, nil
}

// Dial makes a link to peer at raddr, which must be an address of the packet
// connection's kind. It returns as soon as this end's part of the handshake is
// done: what is sent then leaves together with it.
func (q *QUIC) Dial(ctx context.Context, raddr net.Addr, peer identity.ID) (Link, error) {
	if raddr.Network() != q.network {
		return nil, fmt.Errorf("link: %v is no %s address", raddr, q.network)
	}
	var refused error
	conn, err := q.tr.Dial(ctx, raddr, q.identity.expect(peer, &refused), q.config)
	switch {
	case refused != nil:
		return nil, fmt.Errorf("link: %w", refused)
	case err != nil:
		return nil, quicEnd(err)
	}
	return q.add(newQUICLink(conn, peer))
}

// Accept returns the next link that a peer has made to this end.
func (q *QUIC) Accept(ctx context.Context) (Link, error) {
	for {
		conn, err := q.ln.Accept(ctx)
		if err != nil {
			return nil, acceptError(err)
		}
		q.gate.leave(conn.Context())
		peer, err := peerOf(conn.ConnectionState().TLS)
		if err != nil {
			conn.CloseWithError(codeProtocol, err.Error())
			continue
		}
		return q.add(newQUICLink(conn, peer))
	}
}

func acceptError(err error) error {
	if errors.Is(err, quic.ErrServerClosed) || errors.Is(err, quic.ErrTransportClosed) {
		return net.ErrClosed
	}
	return err
}

func (q *QUIC) add(l *quicLink) (Link, error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.closed {
		l.Close("going away")
		return nil, net.ErrClosed
	}
	q.links[l] = struct{}{}
	context.AfterFunc(l.conn.Context(), func() {
		q.mu.Lock()
		defer q.mu.Unlock()
		delete(q.links, l)
	})
	return l, nil
}

// Close closes all links and stops reading the packet connection.
func (q *QUIC) Close() error {
	q.mu.Lock()
	q.closed = true
	links := make([]*quicLink, 0, len(q.links))
	for l := range q.links {
		links = append(links, l)
	}
	q.mu.Unlock()

	var wg sync.WaitGroup
	for _, l := range links {
		wg.Go(func() { l.Close("going away") })
	}
	wg.Wait()
	q.ln.Close()
	return q.tr.Close()
}
