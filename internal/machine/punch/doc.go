// Package punch makes a UDP path between two peers behind NATs, after Ford,
// Srisuresh and Kegel, "Peer-to-Peer Communication Across Network Address
// Translators" (2005), with the checks of ICE (RFC 8445) reduced to what two
// peers with one socket each need.
//
// It is one technique. Others stand beside it behind the same verbs: New with
// what the signals brought, HandlePacket, HandleTimeout, Poll, Event and
// NextTimeout, which also says why. A planner above starts and ends them.
//
// # Checks
//
// A check is a STUN Binding request (package wire/stun):
//
//	USERNAME   hex(attempt id) ":" "o" or "a", the role of the sender: offerer or answerer
//	USE-CANDIDATE, NOMINATION u32   from the offerer, on the path it chose; the larger number is the newer choice
//	PADDING    in a full-size check: the whole message has 1200 bytes
//	MESSAGE-INTEGRITY-SHA256 under the attempt's key, FINGERPRINT
//
// and its answer a Binding success response with XOR-MAPPED-ADDRESS, padded to
// the length of a padded request, MESSAGE-INTEGRITY-SHA256 and FINGERPRINT.
// Without padding a check has 88 bytes, a nominating one 100, an answer 76
// (IPv4) or 88 (IPv6): no answer is larger than its question.
//
// A request counts when its integrity is right and its role is the peer's, so
// nobody can make us accept our own requests. An answer counts when its
// integrity is right, when it comes from where the request went, and when its
// 96 random bits are those of one of the last 16 requests that went there; each
// counts once. All else is dropped in silence. A request proves that somebody
// who has seen one can send to us, no more: another may repeat it, even before
// it comes. Only an answer proves an endpoint.
//
// # An endpoint of the peer
//
//	state     what is done                                     leaves when
//	waiting   nothing; 3 endpoints start at once, one of       it is its turn; the peer is heard from it -> probing
//	          each technique, the others 5 ms apart
//	probing   small checks after 0, 20, 60, 140, 300, 620 ms,  an answer -> answered; a full-size answer -> valid;
//	          then every 320 ms                                the address budget is spent -> ended
//	answered  offerer: full-size checks after 1.25 round       a full-size answer -> valid;
//	          trips, doubling, at most 500 ms apart            12 without answer -> ended (MTU)
//	          answerer: nothing
//	valid     offerer only: may be nominated                   a better one is nominated -> ended
//	ended     nothing of its own; requests are answered        -
//
// The offerer says Answered when an endpoint becomes answered: what is to use the
// path can be made ready while the full-size check is under way.
//
// A request from an endpoint that has not answered yet is followed by a check
// at once, and by a full-size one if we are the offerer: the peer's hole is
// open now. An endpoint that no signal named becomes a peer-reflexive one.
//
// The early repetitions are close because a first check usually dies: it comes
// to the peer's NAT before the peer has sent anything out through it. 20 ms is
// less than the start of the two peers differs by; doubling keeps a path with
// loss within the budget, and 320 ms repeats often enough to find a NAT open
// again after a lost burst.
//
// # The attempt
//
//	state      what is done                                    leaves when
//	checking   endpoints are checked; requests are answered    a path is chosen -> up; 10 s (answerer: 11 s) -> done, Failed
//	up         the path is watched; better endpoints are still a better one is chosen -> up, PathUp again;
//	           checked until the time for checking is over     the watch ends -> done, PathDown
//	done       nothing; silence ends the peer's watch too      -
//
// The offerer chooses the best valid endpoint: LAN, then IPv6, then the NAT's
// endpoint, then hairpin. It does so at once unless a better endpoint might
// still win: one that has been heard from has until half a round trip (50 ms at
// most) after the first was valid, any other until 30 ms (two round trips at
// most) after the start. The answerer takes the offerer's choice as soon as a
// check of its own was answered there.
//
// # The watch
//
//	           check after               repeated after             dead after
//	choosing   at once, by the offerer   1.25 round trips,          8 unanswered
//	                                     doubling to 400 ms
//	afterwards   15 s                      300 ms                     8 unanswered, 2.4 s
//
// The checks of the watch keep the NATs' mappings alive: the shortest timers
// seen are 20 s. That a path in use is dead the session notices sooner.
//
// # Budget
//
// A hostile peer names the endpoints that we send to. Whatever it does, one
// attempt sends at most 100 small checks to any address that has not answered
// (about 9 kB), at most 2 full-size ones to an endpoint and 6 in all before it
// answered, to at most 16 signalled and 8 peer-reflexive endpoints; it answers
// at most 20 requests a second of an endpoint (20 more at once), never with more
// bytes than it got. It never sends to loopback, multicast, unspecified, broadcast or link-local addresses,
// to the rendezvous server, nor into the server's private network unless we are
// on it.
package punch
