//go:build !linux && !darwin && !freebsd

package netio

import "net"

// batch is empty: quic-go reads one datagram at a time on these systems.
type batch struct{}

func newBatch(*net.UDPConn) batch { return batch{} }
