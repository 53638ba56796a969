// Package server is the shell around the rendezvous server's machine: sockets,
// the restart file, STUN and the relays' data paths.
//
// One goroutine reads each UDP socket, in batches. It answers STUN from the
// request alone, hands rendezvous messages to the machine, asks the machine
// where relayed packets go, and sends what came of the batch at its end. One
// lock guards the machine; it is held while a batch is handled, never while
// something is written, nor while the machine's one costly act is done, agreeing
// on the key of a new peer: that is a worker's, so that a storm of registrations
// keeps nobody waiting who is registered.
//
// What the first byte of a datagram, or of a TCP connection, says:
//
//	0x00-0x03  STUN (RFC 8489)          over TCP framed by its own header
//	0x04       rendezvous message       over TCP this byte once, then messages behind a u16 length
//	0x05       relayed packet           over TCP the preface of a stream relay
//	           anything else is dropped
//
// Over UDP nothing is answered louder than it was asked, with one exception
// that STUN cannot do without: a Binding request without attributes, 20 bytes,
// gets its ordinary answer of 32 bytes (IPv6: 44). With FINGERPRINT both are 8
// bytes longer.
package server
