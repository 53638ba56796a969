package control

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"net"

	"golang.org/x/sys/unix"
)

var errTooLong = errors.New("control: the message is too long")

// writeLine sends a value as one line; descriptors travel with its first byte.
func writeLine(c *net.UnixConn, v any, fds ...int) error {
	line, err := json.Marshal(v)
	if err != nil {
		return err
	}
	line = append(line, '\n')
	if len(fds) > 0 {
		n, _, err := c.WriteMsgUnix(line, unix.UnixRights(fds...), nil)
		if err != nil {
			return err
		}
		line = line[n:]
	}
	_, err = c.Write(line)
	return err
}

// readLine receives a value, and as many descriptors as are wanted. It reads no
// byte beyond the line.
func readLine(c *net.UnixConn, limit int, v any, wanted int) (fds []int, err error) {
	defer func() {
		if err != nil {
			closeAll(fds)
			fds = nil
		}
	}()
	var line []byte
	oob := make([]byte, unix.CmsgSpace(4*wanted))
	for {
		// Look first: what is behind the line belongs to somebody else.
		room, err := peek(c, min(limit-len(line), 64<<10))
		if err != nil {
			return fds, err
		}
		end := bytes.IndexByte(room, '\n')
		if end >= 0 {
			room = room[:end+1]
		}
		n, oobn, _, _, err := c.ReadMsgUnix(room, oob)
		if err != nil {
			return fds, err
		}
		more, err := rights(oob[:oobn])
		fds = append(fds, more...)
		if err != nil {
			return fds, err
		}
		line = append(line, room[:n]...)
		if end >= 0 && n == end+1 {
			break
		}
		if len(line) >= limit {
			return fds, errTooLong
		}
	}
	if err := json.Unmarshal(line, v); err != nil {
		return fds, err
	}
	return fds, nil
}

// peek returns what has come, at most limit bytes of it, and leaves it there.
func peek(c *net.UnixConn, limit int) ([]byte, error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return nil, err
	}
	buf := make([]byte, limit)
	var n int
	var failed error
	err = raw.Read(func(fd uintptr) bool {
		n, _, failed = unix.Recvfrom(int(fd), buf, unix.MSG_PEEK|unix.MSG_DONTWAIT)
		return failed != unix.EAGAIN
	})
	switch {
	case err != nil:
		return nil, err
	case failed != nil:
		return nil, failed
	case n == 0:
		return nil, io.ErrUnexpectedEOF
	}
	return buf[:n], nil
}

func rights(oob []byte) (fds []int, err error) {
	if len(oob) == 0 {
		return nil, nil
	}
	messages, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return nil, err
	}
	for i := range messages {
		got, err := unix.ParseUnixRights(&messages[i])
		if err != nil {
			return fds, err
		}
		fds = append(fds, got...)
	}
	return fds, nil
}

func closeAll(fds []int) {
	for _, fd := range fds {
		unix.Close(fd)
	}
}
