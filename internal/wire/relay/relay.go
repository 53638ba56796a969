// Package relay holds the bytes of relayed traffic: the header in front of
// every packet that a server passes between two peers, and the preface that
// opens a relayed TCP stream.
//
// Relayed packet, one UDP datagram, forwarded unchanged:
//
//	 0       1       2                               10
//	+-------+-------+-------------------------------+----------
//	| 0x05  | 0x01  | relay id [8]                  | payload
//	+-------+-------+-------------------------------+----------
//
// The server keeps no secret in it: it forwards a packet when it comes from
// the registered endpoint of one of the relay's two parties, to the other's.
//
// Stream preface, the first 42 bytes of a TCP connection:
//
//	 0       1       2           10           18         26         42
//	+-------+-------+-----------+------------+----------+----------+
//	| 0x05  | 0x01  | relay [8] | handle [8] | txid [8] | MAC [16] |
//	+-------+-------+-----------+------------+----------+----------+
//
// Handle, txid and MAC (over the 26 bytes before it) are those of the
// rendezvous protocol. The server answers one byte, Ready, to both sides as
// soon as both are there, and splices from then on; or it closes.
package relay

import (
	"encoding/binary"
	"errors"
)

const (
	First   = 0x05 // first byte of everything in this package
	Version = 0x01

	HeaderLen  = 10
	PrefaceLen = 42
	prefaceMAC = 26 // where the preface's MAC begins

	Ready = 0x00 // what the server answers to a preface
)

// ID names a relay. The peer that asks for the relay draws it at random.
type ID [8]byte

// ErrMalformed is returned for bytes that are not of this package.
var ErrMalformed = errors.New("malformed relay header")

// AppendHeader appends the header of a relayed packet.
func AppendHeader(dst []byte, id ID) []byte {
	dst = append(dst, First, Version)
	return append(dst, id[:]...)
}

// Parse splits a relayed packet. The payload aliases b.
func Parse(b []byte) (id ID, payload []byte, ok bool) {
	if len(b) < HeaderLen || b[0] != First || b[1] != Version {
		return ID{}, nil, false
	}
	return ID(b[2:HeaderLen]), b[HeaderLen:], true
}

// Preface opens a stream relay.
type Preface struct {
	Relay  ID
	Handle [8]byte
	Tx     uint64
}

// Append appends the preface without its MAC.
func (p Preface) Append(dst []byte) []byte {
	dst = AppendHeader(dst, p.Relay)
	dst = append(dst, p.Handle[:]...)
	return binary.BigEndian.AppendUint64(dst, p.Tx)
}

// ParsePreface reads a preface. Its MAC stays to be checked.
func ParsePreface(b []byte) (Preface, error) {
	if len(b) != PrefaceLen || b[0] != First || b[1] != Version {
		return Preface{}, ErrMalformed
	}
	return Preface{
		Relay:  ID(b[2:10]),
		Handle: [8]byte(b[10:18]),
		Tx:     binary.BigEndian.Uint64(b[18:prefaceMAC]),
	}, nil
}
