// Package rendezvous holds the messages between a peer and its rendezvous
// server: bytes to structs and back, nothing else.
//
// Every message starts with the same twelve bytes. Integers are big endian.
//
//	 0       1        2      3       4            12
//	+-------+--------+------+-------+------------+------
//	| 0x04  | 0x01   | type | 0x00  | txid [8]   | body
//	+-------+--------+------+-------+------------+------
//
// Over UDP a message is a datagram. Over TCP the connection starts with one
// byte 0x04; each message then has its length in front, u16.
//
//	type            dir  body                                                        bytes
//	 1 HELLO        c>s  client id[32] | zeros[84]                                     128
//	 2 COOKIE       s>c  cookie[24] | server id[32] | mapped[19]                        87
//	 3 REGISTER     c>s  client id[32] | cookie[24] | sequence u64 | lifetime u16 |
//	                     flags u8 | MAC                                                 95
//	 4 REGISTERED   s>c  handle[8] | mapped[19] | lifetime u16 | keep-alive u16 | MAC   59
//	 5 KEEPALIVE    c>s  handle[8] | MAC                                                36
//	 6 ALIVE        s>c  MAC                                                            28
//	 7 WHO          s>c  handle[8]                                                      20
//	 8 CONNECT      c>s  handle[8] | target id[32] | relay id[8] | kinds u8 |
//	                     n u16 | sealed[n] | MAC                                      79+n
//	 9 CONNECTED    s>c  relay id[8] | status u8 | kinds u8 | peer[19] | MAC            57
//	10 REQUEST      s>c  relay id[8] | requester id[32] | requester[19] | kinds u8 |
//	                     n u16 | sealed[n] | MAC                                      90+n
//	11 SIGNAL       c>s  handle[8] | relay id[8] | n u16 | sealed[n] | MAC            46+n
//	12 SIGNALLED    s>c  relay id[8] | n u16 | sealed[n] | MAC                        38+n
//	13 BYE          c>s  handle[8] | MAC                                                36
//	14 REFUSED      s>c  reason u8 | sequence u64 | MAC                                 37
//	15 DISPLACED    s>c  sequence u64 | MAC                                             36
//
// Lifetimes and keep-alive are in seconds; lifetime 0 in a REGISTER asks for
// the server's default. n is at most 1000. Messages of any other length, with
// unknown bits or with a byte that should be zero and is not, are refused.
//
//	endpoint[19] = family u8 | port u16 | address[16]
//	  family 4: the address in the first four bytes, zeros after
//	  family 6: sixteen bytes, never an IPv4-mapped one
//	  family 0: none; all 19 bytes are zero
//	cookie[24]   = time u64, ms | 16 bytes that only the server understands
//	kinds        = 1 packet relay | 2 stream relay | 4 direct
//	flags        = 1 relay only: nobody is told this peer's endpoint
//	               2 guest: not to be found; registered beside the key's other processes
//	               4 waiting, with guest only: to be found when no other process of the key is
//	status       = 0 ok, 1 target not registered, 2 rate limited, 3 bad relay id, 4 full
//	reason       = 1 sequence not larger than the one in the message, 2 full
//
// MAC is the first 16 bytes of HMAC-SHA256 over the whole message before it,
// under a key that only the two ends can compute:
//
//	K = HKDF-SHA256(secret: X25519(client key, server key), salt: none,
//	                info: "bodkin rendezvous v1" | client id | server id)[:32]
//
// The txid of REGISTER is its sequence. Every later message of the client
// that carries a MAC has a larger one: the client never uses a txid twice
// under a key, in this registration or another. The server's REQUEST and
// SIGNALLED count upwards from the sequence too. Both ends refuse what they
// have seen (Window). COOKIE, REGISTERED, ALIVE, CONNECTED, REFUSED, DISPLACED
// and an answering WHO repeat the txid of the question; a WHO nobody asked for
// has txid zero.
//
// DISPLACED answers who is not to be found although it wants to be: a message
// with the handle of a registration that was replaced from another address,
// and every KEEPALIVE of a waiting one. Its sequence is that of the key's
// registration that is to be found, zero when there is none.
//
// A zero handle in CONNECT or SIGNAL means "the registration that was just
// made from this very endpoint": it lets them leave in one burst with
// REGISTER, before the handle is known.
package rendezvous
