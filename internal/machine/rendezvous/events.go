package rendezvous

import (
	"net/netip"

	"github.com/bodkin-net/bodkin/internal/identity"
)

// ClientEvent is one of the types below.
type ClientEvent interface{ clientEvent() }

// Registered says that the server knows us, from now on under Handle. It comes
// again after every new registration; relays live on if the server still had
// the old one, and are gone if it restarted: connect again. As a guest, which
// is what a displaced client is too, we can connect and cannot be found.
type Registered struct {
	Handle   Handle
	Mapped   netip.AddrPort
	ServerID identity.ID
	Guest    bool
}

// Displaced says that another process registered after us with our key, from
// another endpoint: whoever asks for the key finds it and not us. It is told
// once. The client stays registered as a guest, asks with every keep-alive
// whether the other one is gone, and then takes its place: Registered, without
// Guest, says so. Bye and Start take it back at once.
type Displaced struct{}

// Lost says that the server does not answer. The client goes on asking.
type Lost struct{}

// Connected is the server's answer to Connect. After an ok one it can come
// again with another Peer or other Kinds, when the peer moved.
type Connected struct {
	Relay  RelayID
	Status Status
	Kinds  Kinds
	Peer   netip.AddrPort // zero unless Kinds has Direct
}

// StatusNoAnswer is Connected's status when the server did not answer at all.
const StatusNoAnswer Status = 255

// Requested says that Requester wants to connect. It comes again when he
// repeats himself, with the same Relay.
type Requested struct {
	Relay     RelayID
	Requester identity.ID
	Peer      netip.AddrPort // zero unless Kinds has Direct
	Kinds     Kinds
	Sealed    []byte
}

// Signalled brings a signal of the relay's other party.
type Signalled struct {
	Relay  RelayID
	Sealed []byte
}

// WrongServer says that another server than the expected one answered.
type WrongServer struct{ Got identity.ID }

// MappedChanged says that the server sees us at another endpoint than before.
type MappedChanged struct{ Old, New netip.AddrPort }

// Refused says that the server will not register us now. The client goes on
// asking.
type Refused struct{ Reason Reason }

func (Registered) clientEvent()    {}
func (Lost) clientEvent()          {}
func (Connected) clientEvent()     {}
func (Requested) clientEvent()     {}
func (Signalled) clientEvent()     {}
func (WrongServer) clientEvent()   {}
func (MappedChanged) clientEvent() {}
func (Refused) clientEvent()       {}
func (Displaced) clientEvent()     {}
