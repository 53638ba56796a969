//go:build unix

package netio

import (
	"errors"
	"syscall"
)

// lostErrors say that a datagram was not sent. Missing on purpose: EMSGSIZE,
// from which quic-go learns the path MTU, and EIO, by which it notices that the
// device cannot segment.
var lostErrors = []error{
	syscall.ENOBUFS, syscall.EPERM, syscall.EACCES, syscall.ENETDOWN, syscall.ENETUNREACH,
	syscall.EHOSTDOWN, syscall.EHOSTUNREACH, syscall.ECONNREFUSED, syscall.EADDRNOTAVAIL,
}

func isPermission(err error) bool { return errors.Is(err, syscall.EPERM) }
