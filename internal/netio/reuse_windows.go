package netio

import (
	"syscall"

	"golang.org/x/sys/windows"
)

// reusePort lets several TCP sockets share a local port. On Windows
// SO_REUSEADDR alone means what the two options together mean elsewhere.
func reusePort(_, _ string, c syscall.RawConn) (err error) {
	if cerr := c.Control(func(fd uintptr) {
		err = windows.SetsockoptInt(windows.Handle(fd), windows.SOL_SOCKET, windows.SO_REUSEADDR, 1)
	}); cerr != nil {
		return cerr
	}
	return err
}
