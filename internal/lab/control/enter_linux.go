package control

import (
	"fmt"
	"net"
	"os"
	"runtime"
	"syscall"

	"golang.org/x/sys/unix"
)

// Space is the namespaces of a host or gateway, to be entered. The lab does not
// end before that has been done, or Close.
type Space struct {
	Lab       string
	net, user int
	conn      *net.UnixConn // closed by a successful execve too
}

// Enter asks for the namespaces of a host or gateway.
func (c *Client) Enter(node string) (*Space, error) {
	conn, a, fds, err := c.ask(request{Op: opEnter, Node: node}, 2)
	if err != nil {
		return nil, err
	}
	if len(fds) != 2 {
		conn.Close()
		closeAll(fds)
		return nil, failure(Failed, "", "lab %s sent %d descriptors, not 2", c.Name, len(fds))
	}
	return &Space{a.Info.Name, fds[0], fds[1], conn}, nil
}

func (s *Space) Close() {
	s.conn.Close()
	unix.Close(s.net)
	unix.Close(s.user)
}

// Foreign says whether the lab is in another user namespace. Only a process
// with a single thread can go there, which none of Go's ever is.
func (s *Space) Foreign() (bool, error) {
	var theirs, ours unix.Stat_t
	if err := unix.Fstat(s.user, &theirs); err != nil {
		return false, fmt.Errorf("control: user namespace: %w", err)
	}
	if err := unix.Stat("/proc/self/ns/user", &ours); err != nil {
		return false, fmt.Errorf("control: user namespace: %w", err)
	}
	return ours.Ino != theirs.Ino || ours.Dev != theirs.Dev, nil
}

// Exec puts a program in the place of this process, in a network namespace that
// is not Foreign. It returns if it cannot.
func (s *Space) Exec(path string, args, env []string) error {
	runtime.LockOSThread() // the thread that calls execve is the one that stays
	if err := unix.Setns(s.net, unix.CLONE_NEWNET); err != nil {
		return fmt.Errorf("control: enter the network namespace: %w", err)
	}
	return &os.PathError{Op: "exec", Path: path, Err: syscall.Exec(path, args, env)}
}
