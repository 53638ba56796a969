// Package rendezvous holds the two state machines of the rendezvous protocol:
// the Server, which knows where a million peers are and passes signals and
// packets between those who agreed to it, and the Client, which keeps a peer
// known.
//
// Both are pure: they do no I/O, read no clock and start no goroutine. The
// owner hands in packets and the time, and polls for what to send.
package rendezvous
