// Package bodkin connects two machines that both sit behind NATs and firewalls.
//
// Each machine runs a [Node] with a key of its own; the public half, printed
// with a checksum, is its [ID]. The nodes keep one UDP socket registered at a
// rendezvous server. [Node.Dial] asks that server for a peer: bytes flow at
// once through the server's relay, a hole is punched meanwhile, and the
// connection moves to the direct path without losing a byte. Where no hole can
// be made it stays on the relay.
//
// What a [Conn] carries is encrypted from node to node by TLS 1.3 under the
// nodes' own keys; the server sees who asks for whom, from where, when and how
// much, and never what.
//
//	node, err := bodkin.New(bodkin.Config{Server: "bk...@rendezvous.example:3478", Key: key})
//	...
//	conn, err := node.Dial(ctx, peer) // a net.Conn
//
// All types are safe for concurrent use unless they say otherwise.
package bodkin
