package rendezvous

import (
	"net/netip"

	"github.com/bodkin-net/bodkin/internal/wire/relay"
	wire "github.com/bodkin-net/bodkin/internal/wire/rendezvous"
)

// The words of the wire that users of the machines need.
type (
	RelayID = relay.ID
	Handle  = wire.Handle
	Kinds   = wire.Kinds
	Status  = wire.Status
	Reason  = wire.Reason
)

const (
	PacketRelay = wire.PacketRelay
	StreamRelay = wire.StreamRelay
	Direct      = wire.Direct
)

// Addr is where a message came from or goes to: a UDP endpoint, or, with Conn
// not zero, a TCP connection of the server with the other end at Endpoint.
// Conn numbers are never used twice.
type Addr struct {
	Endpoint netip.AddrPort
	Conn     uint64
}

// Out is a message or a relayed packet to send. Data is valid until the next
// call but Poll's.
type Out struct {
	To   Addr
	Data []byte
}

// Slot is what a server needs to remember of a registration to ask its peer,
// after a restart, to register again: Who(Handle) sent to Endpoint. A zero
// Endpoint says that the slot is free, or that its peer is not on UDP.
type Slot struct {
	Index    uint32
	Endpoint netip.AddrPort
	Handle   Handle
}

// Stats are counters since the server was made, but for Peers and Relays,
// which are how many there are now.
type Stats struct {
	Peers, Relays int

	Received  [wire.Types]uint64 // well-formed messages, by type
	Malformed uint64             // what is no message, or not one for a server
	Sent      [wire.Types]uint64
	Dropped   [Drops]uint64 // well-formed, but not answered, by cause

	RelayedPackets, RelayedBytes uint64
	KeyAgreements                uint64 // X25519 computed
}

// Drop is why a well-formed message, or a relayed packet, got no answer.
type Drop uint8

const (
	DropRate    Drop = iota // over a rate
	DropCookie              // cookie forged, too old, or from elsewhere
	DropMAC                 // MAC wrong
	DropReplay              // txid or sequence seen before
	DropFull                // a table is full
	DropRelay               // no such relay, or not this sender's
	DropBudget              // more than the budget before the target's agreement
	DropBacklog             // the owner does not poll

	Drops = int(DropBacklog) + 1
)

func (d Drop) String() string {
	return [Drops]string{"rate", "cookie", "mac", "replay", "full", "relay", "budget", "backlog"}[d]
}
