package punch

import (
	"net/netip"
	"time"

	"github.com/bodkin-net/bodkin/internal/wire/signal"
)

// Config is one attempt.
type Config struct {
	Offerer bool               // who asked; the offerer chooses the path
	Attempt [8]byte            // from the offer
	Key     [32]byte           // from the offer
	Remote  []signal.Candidate // the peer's, as far as they are known
	Mapped  netip.AddrPort     // our own endpoint as the server sees it
	Server  netip.AddrPort     // the rendezvous server's endpoint
	Local   []netip.Addr       // our own addresses
	Seed    [32]byte           // fresh secret randomness
}

// Machine is one attempt's UDP hole punching.
type Machine struct{}

// New starts an attempt.
func New(now time.Time, cfg Config) *Machine { return &Machine{} }

func (m *Machine) AddRemote(now time.Time, candidates []signal.Candidate) {}
func (m *Machine) HandlePacket(now time.Time, from netip.AddrPort, b []byte) bool {
	return false
}
func (m *Machine) HandleTimeout(now time.Time)        {}
func (m *Machine) NextTimeout() (time.Time, string)   { return time.Time{}, "" }
func (m *Machine) Poll() (Send, bool)                 { return Send{}, false }
func (m *Machine) Event() (Event, bool)               { return nil, false }
func (m *Machine) SetActive(now time.Time, busy bool) {}
