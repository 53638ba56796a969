package netns

import (
	"fmt"
	"os"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// patience is how long the kernel may take to do what it was told.
const patience = 5 * time.Second

// killInside ends every process in the namespaces, whoever started it. They
// have no names, so it got there from one that the lab started.
func killInside(spaces []*namespace) error {
	inside := map[string]bool{}
	for _, s := range spaces {
		inside[fmt.Sprintf("net:[%d]", s.inode)] = true
	}
	for {
		found := false
		entries, err := os.ReadDir("/proc")
		if err != nil {
			return fmt.Errorf("netns: %w", err)
		}
		for _, e := range entries {
			pid, err := strconv.Atoi(e.Name())
			if err != nil || pid == os.Getpid() {
				continue
			}
			killed, err := killIf(pid, inside)
			if err != nil {
				return err
			}
			found = found || killed
		}
		if !found {
			return nil // and nothing was left to fork another
		}
	}
}

// killIf ends a process if it is in one of the namespaces. The descriptor
// keeps its number from being given to another meanwhile.
func killIf(pid int, inside map[string]bool) (bool, error) {
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return false, nil // gone
	}
	defer unix.Close(fd)
	ns, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/net", pid))
	if err != nil || !inside[ns] {
		return false, nil
	}
	if err := unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0); err != nil {
		return false, nil // gone
	}
	for deadline := time.Now().Add(patience); ; {
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, int(patience/time.Millisecond))
		if n > 0 {
			return true, nil
		}
		if err != unix.EINTR || time.Now().After(deadline) {
			return false, fmt.Errorf("netns: process %d in the lab does not end", pid)
		}
	}
}
