package control

import (
	"net/netip"
	"time"

	"github.com/bodkin-net/bodkin/internal/lab/netns"
)

// What a request asks for.
const (
	opInfo    = "info"
	opStatus  = "status"
	opEnter   = "enter"
	opSet     = "set"
	opCapture = "capture"
	opDown    = "down"
)

type request struct {
	Op       string  `json:"op"`
	Node     string  `json:"node,omitempty"`     // enter
	Network  string  `json:"network,omitempty"`  // capture
	Mappings int     `json:"mappings,omitempty"` // status: how many of each gateway at most
	Change   *Change `json:"change,omitempty"`   // set
}

type answer struct {
	Error  *Error          `json:"error,omitempty"`
	Info   *Info           `json:"info,omitempty"`
	Status *netns.Snapshot `json:"status,omitempty"`
}

// Info says what a lab is.
type Info struct {
	Name     string    `json:"name"`
	Title    string    `json:"title"` // that its topology has
	File     string    `json:"file"`  // it was read from
	PID      int       `json:"pid"`
	Started  time.Time `json:"started"`
	Hosts    []string  `json:"hosts"`
	Gateways []string  `json:"gateways"`
	Networks []string  `json:"networks"`
	Ports    []string  `json:"ports"` // that have a link
	// Silent labs did not answer List: of them only name and process are known,
	// and why.
	Silent bool    `json:"silent,omitempty"`
	Why    Silence `json:"why,omitempty"`
}

// Silence is why a lab says nothing.
type Silence string

const (
	ComingUp Silence = "coming-up" // it is being built
	Stopped  Silence = "stopped"   // its process was told to stop (SIGSTOP), and not yet to go on
	Slow     Silence = "slow"      // it has not answered yet
)

// Change is what is to be different at a host or gateway from now on. What is
// nil, empty or false stays as it is.
type Change struct {
	Node     string      `json:"node"` // a host, a gateway, or GATEWAY/inside, GATEWAY/outside, GATEWAY/dmz for Link
	Link     *LinkChange `json:"link,omitempty"`
	BlockUDP *bool       `json:"block_udp,omitempty"`
	Cut      []string    `json:"cut,omitempty"` // from nodes, addresses, or apart.Everything
	Restore  []string    `json:"restore,omitempty"`
	Protocol string      `json:"protocol,omitempty"` // of Cut and Restore; empty is all
	Reboot   bool        `json:"reboot,omitempty"`
	NewLease bool        `json:"new_lease,omitempty"`
	Move     *Move       `json:"move,omitempty"`
}

// LinkChange is the parts of a link that change.
type LinkChange struct {
	Delay     *time.Duration `json:"delay,omitempty"`
	Jitter    *time.Duration `json:"jitter,omitempty"`
	Loss      *float64       `json:"loss,omitempty"`
	Reorder   *float64       `json:"reorder,omitempty"`
	Duplicate *float64       `json:"duplicate,omitempty"`
	Rate      *int64         `json:"rate,omitempty"`
	MTU       *int           `json:"mtu,omitempty"`
}

// Move takes a host to another network. Without addresses it asks for one there.
type Move struct {
	Network string         `json:"network"`
	Addrs   []netip.Prefix `json:"addrs,omitempty"`
}

// start is what the holder is told first, and started its answer.
type start struct {
	Name string `json:"name"`
	File string `json:"file"`
	Text []byte `json:"text"` // of the file
	// Verbs come before Verb and GuardVerb on the command line of this program.
	Verbs []string `json:"verbs"`
}

// started is followed, the other way, by a byte that lets the holder go: the lab
// stays. Without it, the holder ends when who has started it does, or gives up.
type started struct {
	Error    *Error   `json:"error,omitempty"`
	Info     *Info    `json:"info,omitempty"`
	Warnings []string `json:"warnings,omitempty"`
}
