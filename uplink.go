package bodkin

import (
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"net/netip"
	"slices"
	"syscall"
	"time"

	"github.com/bodkin-net/bodkin/internal/machine/rendezvous"
	wire "github.com/bodkin-net/bodkin/internal/wire/rendezvous"
)

const (
	// udpHeadStart is how long UDP has for registering before TCP is tried
	// beside it: a little more than a long round trip and one retransmission.
	udpHeadStart   = 600 * time.Millisecond
	tcpDialTimeout = 4 * time.Second
	tcpRedial      = 2 * time.Second
	tcpWriteQueue  = 64
)

// uplink is one way to the server: its machine and what carries its messages.
// Only the control goroutine touches it.
type uplink struct {
	c         *control
	transport string // "udp" or "tcp"
	client    *rendezvous.Client
	places    []netip.AddrPort // where a server may be
	server    netip.AddrPort   // the one that answered; invalid before
	up        bool             // registered, and answering
	mapped    netip.AddrPort
	heard     time.Time // when the server last said anything
	forgotten bool      // the server said that it knows us no more; we register again
	displaced bool      // another process with our key is found
	conn      *tcpConn  // TCP only, nil while there is none
	wanted    bool      // TCP only: UDP does not do
	nextDial  time.Time
	dialing   bool
	refused   bool // TCP only: nobody listens there
}

// tcpConn is the TCP uplink's connection, with a goroutine that reads and one
// that writes.
type tcpConn struct {
	net.Conn
	out chan []byte
}

func (c *control) newUplink(transport string, places []netip.AddrPort) *uplink {
	return &uplink{c: c, transport: transport, places: places, client: rendezvous.NewClient(rendezvous.ClientConfig{
		Key:       c.n.cfg.Key,
		ServerID:  c.n.where.ID,
		RelayOnly: c.n.cfg.RelayOnly,
		Guest:     !c.listens,
	})}
}

// send puts one message of the machine on the wire. Until a server has answered
// a HELLO goes to every place it may be at; the first to answer is taken.
func (u *uplink) send(b []byte) {
	if u.transport == "tcp" {
		if u.conn == nil {
			return // lost, like any packet: the machine sends again
		}
		select {
		case u.conn.out <- slices.Clone(b):
		default:
		}
		return
	}
	t, _, _ := wire.Header(b)
	if t == wire.TypeHello {
		for _, to := range u.places {
			u.c.sendUDP(to, b)
		}
		return
	}
	u.c.sendUDP(u.server, b)
}

// handle gives a message to the machine if it came from a server.
func (u *uplink) handle(now time.Time, from netip.AddrPort, b []byte) {
	t, _, ok := wire.Header(b)
	if !ok || !slices.Contains(u.places, from) {
		return
	}
	if t == wire.TypeCookie && !u.up && u.client.Greeting() {
		u.client.HandlePacket(now, b)
		if !u.client.Greeting() { // the first good one; the rest come too late
			u.server, u.heard = from, now
			if u == u.c.udp {
				// A peer's first relayed packets come right behind the answer to
				// the registration.
				u.c.n.socket.TrustRelays(from)
			}
		}
		return
	}
	if from == u.server {
		u.heard = now
		u.client.HandlePacket(now, b)
		u.forgotten = u.forgotten || t == wire.TypeWho && u.client.Greeting()
	}
}

// dial opens the TCP connection.
func (u *uplink) dial() {
	u.dialing = true
	n := u.c.n
	n.spawn(func() {
		conn, from, err := dialFirst(n.ctx, n.cfg.Network, n.localPort(), u.places)
		taken := u.c.do(func(now time.Time) {
			u.dialing = false
			u.refused = errors.Is(err, syscall.ECONNREFUSED)
			switch {
			case err != nil:
				u.nextDial = now.Add(tcpRedial)
				n.cfg.Log.Debug("cannot reach the server over TCP", "err", err)
			case !u.wanted: // UDP works after all
				conn.Close()
			default:
				u.attach(now, conn, from)
			}
		})
		if !taken && conn != nil {
			conn.Close()
		}
	})
}

func dialFirst(ctx context.Context, network Network, port uint16, places []netip.AddrPort) (net.Conn, netip.AddrPort, error) {
	var errs []error
	for _, to := range places {
		ctx, cancel := context.WithTimeout(ctx, tcpDialTimeout)
		conn, err := network.DialTCP(ctx, port, to)
		cancel()
		if err == nil {
			return conn, to, nil
		}
		errs = append(errs, err)
	}
	return nil, netip.AddrPort{}, errors.Join(errs...)
}

func (u *uplink) attach(now time.Time, c net.Conn, from netip.AddrPort) {
	conn := &tcpConn{Conn: c, out: make(chan []byte, tcpWriteQueue)}
	u.conn, u.server = conn, from
	n := u.c.n
	n.spawn(func() { conn.write() })
	n.spawn(func() {
		err := conn.read(func(b []byte) bool {
			return u.c.do(func(now time.Time) {
				if u.conn == conn {
					u.handle(now, from, b)
				}
			})
		})
		n.cfg.Log.Debug("the TCP connection to the server ended", "err", err)
		u.c.do(func(now time.Time) {
			if u.conn == conn {
				u.detach()
				u.nextDial = now.Add(tcpRedial)
			}
		})
	})
	u.client.Start(now)
}

// detach drops the TCP connection; the registration that came over it is gone
// with it.
func (u *uplink) detach() {
	if u.conn == nil {
		return
	}
	close(u.conn.out) // its writer closes the connection after the last message
	u.conn, u.up = nil, false
}

func (t *tcpConn) write() {
	defer t.Close()
	if _, err := t.Write([]byte{wire.First}); err != nil {
		return
	}
	for b := range t.out {
		t.SetWriteDeadline(time.Now().Add(10 * time.Second))
		if _, err := t.Write(append(binary.BigEndian.AppendUint16(nil, uint16(len(b))), b...)); err != nil {
			return
		}
	}
}

func (t *tcpConn) read(handle func([]byte) bool) error {
	var head [2]byte
	for {
		if _, err := io.ReadFull(t, head[:]); err != nil {
			return err
		}
		n := int(binary.BigEndian.Uint16(head[:]))
		if n > wire.MaxLen {
			return wire.ErrMalformed
		}
		b := make([]byte, n)
		if _, err := io.ReadFull(t, b); err != nil {
			return err
		}
		if !handle(b) {
			return net.ErrClosed
		}
	}
}
