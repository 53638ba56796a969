// Package control holds labs in processes of their own and lets other
// processes reach them.
//
// Start re-executes this program; the new process, the holder, runs Hold: it
// builds the lab and serves a Unix socket until it is told to end. A user who
// is not root gets the holder in a user namespace of its own.
//
// A directory that only its user can enter has, for every lab NAME:
//
//	NAME.lock  locked (flock) by the holder for as long as it lives; its pid, and
//	           "up" in a second line when the lab is
//	NAME.sock  the socket
//	NAME.log   what the holder had to say, if it ended badly
//
// So two labs of one name cannot be, and whoever finds a lock that nobody
// holds may take the rest away.
//
// A connection carries one request and its answer, each a line of JSON: the
// answer to "enter" comes with descriptors of namespaces, the one to "capture"
// is followed by the pcapng file.
package control

import (
	"errors"
	"fmt"
	"strings"
	"time"
)

// Bounds of what the holder takes and of how long both wait for each other.
const (
	maxRequest = 64 << 10
	maxAnswer  = 64 << 20
	maxClients = 64
	patience   = 10 * time.Second
	soon       = time.Second // for who asks many, and only says that one took longer
)

// Verb is the argument, after the program's own verbs, with which Start
// re-executes the program; its main calls Hold then.
const Verb = "hold"

// NameVariable is the environment variable that names the lab for what runs in
// it; HostVariable names the host.
const (
	NameVariable = "BODKIN_LAB_NAME"
	HostVariable = "BODKIN_LAB_HOST"
)

// Code says what kind of failure an Error is.
type Code string

const (
	BadName     Code = "bad-name"     // no name for a lab
	Clash       Code = "clash"        // the name is taken
	NoLab       Code = "no-lab"       // no such lab
	ManyLabs    Code = "many-labs"    // which one?
	NoSuchNode  Code = "no-such-node" // no host or gateway of that name
	BadRequest  Code = "bad-request"  // the change is impossible
	BadTopology Code = "bad-topology"
	Privilege   Code = "privilege" // something is not permitted, or not there
	Failed      Code = "failed"
)

// Error is a failure with, perhaps, a hint at what to do.
type Error struct {
	Code    Code     `json:"code"`
	Message string   `json:"message"`
	Hint    string   `json:"hint,omitempty"`
	Known   []string `json:"known,omitempty"` // what there is of the kind that was asked for
}

func (e *Error) Error() string { return e.Message }

func failure(code Code, hint, format string, args ...any) *Error {
	return &Error{Code: code, Hint: hint, Message: fmt.Sprintf(format, args...)}
}

// asError makes any error one that can be sent.
func asError(err error) *Error {
	var e *Error
	if errors.As(err, &e) {
		return e
	}
	// Which package says so is of no use to who reads it.
	return &Error{Code: Failed, Message: strings.ReplaceAll(err.Error(), "netns: ", "")}
}

// MaxTopology is the size of a file that Start takes, and MaxName that of a name.
const (
	MaxTopology = 1 << 20
	MaxName     = 40
)

// CheckName refuses what cannot name a lab: names are letters, digits, and -, _
// and . after the first.
func CheckName(name string) error {
	if name == "" || len(name) > MaxName {
		return failure(BadName, "", "the name of a lab has 1 to %d letters, %q has %d", MaxName, name, len(name))
	}
	for i, c := range []byte(name) {
		letter := c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9'
		if !letter && (i == 0 || c != '-' && c != '_' && c != '.') {
			return failure(BadName, "letters, digits, and after the first -, _ and .", "%q is no name for a lab", name)
		}
	}
	return nil
}
