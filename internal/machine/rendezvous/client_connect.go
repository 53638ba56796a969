package rendezvous

import (
	"slices"
	"time"

	"github.com/bodkin-net/bodkin/internal/identity"
	wire "github.com/bodkin-net/bodkin/internal/wire/rendezvous"
)

const (
	connectWait    = 200 * time.Millisecond // doubled with every CONNECT
	maxConnectWait = 3200 * time.Millisecond
	connectRepeats = 6

	// While the target is not registered: two that start together are a few
	// milliseconds apart, and every one of them would delay the first byte.
	absentWait    = 20 * time.Millisecond // doubled with every answer
	maxAbsentWait = 400 * time.Millisecond
	absentRepeats = 8
	absentFor     = 2 * time.Second
)

// connecting is a CONNECT that is repeated. It is so even when the server
// answered: the REQUEST may have been lost, and only the peer's answer, which
// is not ours to see, says that it was not.
type connecting struct {
	target identity.ID
	relay  RelayID
	kinds  Kinds
	sealed []byte

	sent        int
	next        time.Time
	first, last uint64 // txids, of those sent since the last REGISTER
	answered    uint64 // the largest answered

	told        bool // that it is ok
	connected   Connected
	absent      int // answers that said so, in a row
	absentSince time.Time
}

// begin forgets what was sent, not what was told.
func (k *connecting) begin() { k.sent, k.first, k.answered, k.absent = 0, 0, 0, 0 }

// Connect asks the server for a peer, passes him the sealed signal (at most
// 1,000 bytes) and opens the relay, whose id is the caller's and random. It is
// repeated after 200 ms, then twice as long up to 3.2 s, 6 times in all, until
// StopConnect. Without a
// registration it waits for one, and leaves in one burst with the REGISTER.
// Connected tells the outcome.
func (c *Client) Connect(now time.Time, target identity.ID, relay RelayID, kinds Kinds, sealed []byte) {
	c.StopConnect(relay)
	k := &connecting{target: target, relay: relay, kinds: kinds, sealed: slices.Clone(sealed)}
	c.connects = append(c.connects, k)
	if c.state == registering || c.state == registered {
		c.sendConnect(now, k)
	}
}

// StopConnect ends the repetition: the peer was heard, or is not wanted any
// more. The relay, if there is one, stays.
func (c *Client) StopConnect(relay RelayID) {
	c.connects = slices.DeleteFunc(c.connects, func(k *connecting) bool { return k.relay == relay })
}

func (c *Client) sendConnect(now time.Time, k *connecting) {
	handle, _ := c.handle()
	k.last = c.tx()
	if k.sent == 0 {
		k.first = k.last
	}
	k.next = now.Add(min(connectWait<<k.sent, maxConnectWait))
	k.sent++
	c.sendMAC(wire.Connect{
		Tx: k.last, Handle: handle, Target: k.target, Relay: k.relay, Kinds: k.kinds, Sealed: k.sealed,
	}.Append(nil))
}

func (c *Client) repeatConnects(now time.Time) {
	if c.state == greeting {
		return // they leave with the REGISTER
	}
	var silent []RelayID
	for _, k := range c.connects {
		switch {
		case now.Before(k.next):
		case k.sent > connectRepeats:
			silent = append(silent, k.relay)
			if !k.told {
				c.tell(Connected{Relay: k.relay, Status: StatusNoAnswer})
			}
		default:
			c.sendConnect(now, k)
		}
	}
	for _, id := range silent {
		c.StopConnect(id)
	}
}

func (c *Client) handleConnected(now time.Time, m wire.Connected) {
	i := slices.IndexFunc(c.connects, func(k *connecting) bool { return k.relay == m.Relay })
	if i < 0 {
		return
	}
	k := c.connects[i]
	if k.sent == 0 || m.Tx < k.first || m.Tx > k.last || m.Tx <= k.answered {
		return
	}
	k.answered = m.Tx
	answer := Connected{m.Relay, m.Status, m.Kinds, m.Peer}
	switch m.Status {
	case wire.StatusOK:
		k.absent = 0
		if !k.told || k.connected != answer {
			k.told, k.connected = true, answer
			c.tell(answer)
		}
		return
	case wire.StatusNotRegistered:
		if k.absent == 0 {
			k.absentSince = now
		}
		k.absent++
		if k.absent <= absentRepeats && now.Sub(k.absentSince) < absentFor {
			// He may be about to register: at this moment, or again.
			k.sent, k.next = 0, now.Add(min(absentWait<<(k.absent-1), maxAbsentWait))
			k.first = k.last
			return
		}
	case wire.StatusRateLimited:
		if k.told {
			return // we repeat ourselves too fast, that is all
		}
	}
	c.StopConnect(m.Relay)
	c.tell(answer)
}
