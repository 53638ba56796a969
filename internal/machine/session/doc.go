// Package session is the pure machine of what the user holds: streams that
// outlive the links they ride on. It has one Machine at each end. The shell
// gives it links, frames and the time, and takes from it what to send.
//
// # Rules
//
// The end that began the session is the controller: it alone decides which
// link is in use. Even streams are its own, odd ones the responder's.
//
// Facts only grow. OPEN, DATA, ACK, FIN, RESET and STREAMS are facts, true
// for ever: they may come over any link, late, twice, and in any order between
// the lanes of one link. So only RESUME, LOST and CLOSE say anything about
// links. Any fact that names a stream opens it, and every lower one of the
// same end.
//
// A lane is the run of DATA of one stream on one link. It starts at or before
// what its receiver has, and has no gaps; therefore no receiver ever sees a
// gap, and needs no reassembly. A lane that starts anew on the same link
// replaces the old one, of which nothing more is needed.
//
// ACK and RESUME say, for a stream and direction: received, how many bytes are
// here without a gap; limit, how many may come; done, that nothing more of it
// is wanted: it is whole including FIN, or RESET, or the reader has gone. Done
// is the only acknowledgement of FIN and RESET. Done before FIN tells the
// sender to stop.
//
// RESUME lists this for all streams that its sender still knows, and how many
// each end has opened as far as it knows. A stream that was counted and is not
// listed is over in both directions. So a RESUME makes every earlier frame of
// its sender but OPEN, FIN, RESET and DATA superfluous, and these are repeated
// until they are answered. Nothing else needs to survive a link.
//
// # Links
//
// Epochs number the controller's decisions. Both ends keep the old link, if it
// still works, until the other end has been heard on the new one.
//
//	controller         does                                         leaves by
//	no link            nothing                                      LinkUp: RESUME{epoch+1} on it, then as below; what has
//	                                                                nothing unacknowledged flows at once behind it
//	asking             RESUME sent on the new link; everything      RESUME{epoch} on it: moves there, RESUME again, in use
//	                   else on the old one, if there is one.        old link dies: goes on on the new one, RESUME again
//	                   Without one, streams with bytes              new link dies, or 3 s silent: asks the best that is left,
//	                   unacknowledged wait for the answer           which may be the old link
//	                                                                better link up: asks that one, epoch+1
//	in use             everything on the link                       better link up: asking
//	                                                                link dies, or LOST{epoch}: asks the next best, or no link
//
//	responder          does                                         leaves by
//	no link in use     LOST{epoch} on every link, if epoch > 0      RESUME{later epoch}: moves there, RESUME{epoch} back
//	in use             everything on the link                       RESUME{later epoch} on another: RESUME{epoch} back, moving
//	                                                                the same on this link: starts its lanes anew, RESUME back
//	                                                                link dies: no link in use
//	moving             everything on the old link                   RESUME{epoch} again: moves there, RESUME again
//	                                                                old link dies: moves there, RESUME again
//	                                                                new link dies: LOST{epoch} on the others
//
// RESUME of an earlier epoch is ignored, LOST of another epoch too: they
// crossed a later decision. RESUME of the same epoch on the link in use is only
// facts. Moving starts all lanes at what the peer is known to have, and repeats
// OPEN, FIN and RESET of which it is not known to know.
//
// A link is dead when it has brought no frame for 3 s while one was owed: the
// answer to a PING, to RESUME, to CLOSE, or to DATA, FIN or RESET on the link
// in use. PING goes out after 15 s of silence; on the link in use after 2 s
// while there are streams, after 1 s when something is unacknowledged. When the
// link in use is a second late the others are asked too, so that all are known
// dead together if it was the peer who went. PONG answers the latest PING only.
//
// # Streams, each direction
//
//	sender             does                                leaves by
//	open               keeps what is written, sends it     CloseWrite: finishing. Reset: resetting. done: stopped
//	finishing          FIN behind the last byte            done: over. Reset: resetting
//	resetting          dropped what it kept; RESET         done: over
//	stopped            Write fails                         CloseWrite, Reset: over
//
//	receiver           does                                leaves by
//	open               keeps what comes, in order          FIN, all here: whole. RESET: reset. CloseRead, Reset: discarding
//	whole              done; still read                    all read and io.EOF seen: over
//	reset              done; dropped what was unread       error seen: over
//	discarding         done; drops what comes              over
//
// A stream is forgotten when both its directions are over at this end and the
// last ACK has been handed to a link.
//
// ACK leaves at once when 256 KiB, or a quarter of the window, are new, or the
// direction is done, or the limit has moved enough, else after 25 ms.
//
// # The end
//
//	state              does                                          leaves by
//	draining           Close(0): every stream ended, reading over    all streams over: closing. Linger: closing. CLOSE: answering
//	closing            CLOSE behind everything on the link in use,   CLOSE, LinkClosed: closed. Linger: closed
//	                   and on its successors                         no link: closed after 3 s; at once if aborting
//	answering          CLOSE, nothing else                           handed to the link, or 3 s: closed
//	closed             what was received can be read
//
// Close with another code than 0 goes to closing at once, for at most 3 s. A
// peer's CLOSE, and a broken rule, go to answering. A process that does not
// know the session of a HELLO without frame.NewSession answers CLOSE with
// frame.UnknownSession; that is the shell's to do, before there is a machine.
// So is refusing a session id from another peer than the one that began it,
// and one that was used and is over, before links may ever carry 0-RTT data.
//
// # Bounds
//
// Config.Memory bounds what is kept to be sent, and what is kept to be read,
// each; rounding to chunks adds at most two chunks a stream. Every stream may
// receive 64 KiB; more is granted as it is used. Streams, links and RESUME
// lists are bounded, ACK and PONG coalesce, offsets and counts have ceilings.
//
// # Driving it
//
// Every method is called under one lock. One goroutine for each link loops
// over Next, the link's Send without the lock, Sent; one feeds HandleFrame.
// After each call the shell empties Event and Wake, and sets a timer to
// NextTimeout.
package session
