package netns

import (
	"errors"
	"fmt"
	"runtime"
	"sync"

	"golang.org/x/sys/unix"
)

// namespace is a network namespace without a name. Its file descriptor and the
// thread that made it keep it alive.
type namespace struct {
	fd    int
	inode uint64
	calls chan func()
	quit  chan struct{}
	done  chan struct{}
	close func()
}

var (
	errEnded  = errors.New("netns: the function ended its goroutine")
	errClosed = errors.New("netns: the lab is closed")
)

// onThread runs f on a thread that dies with it. The main thread is spared:
// its namespace is the one that /proc shows for the whole process.
func onThread(f func()) {
	go func() {
		runtime.LockOSThread() // and never unlocked
		if unix.Gettid() != unix.Getpid() {
			f()
			return
		}
		locked := make(chan struct{})
		onThread(func() { close(locked); f() })
		<-locked
		runtime.UnlockOSThread()
	}()
}

func newNamespace() (*namespace, error) {
	n := &namespace{calls: make(chan func()), quit: make(chan struct{}), done: make(chan struct{})}
	n.close = sync.OnceFunc(func() {
		close(n.quit)
		<-n.done
		unix.Close(n.fd)
	})
	ready := make(chan error)
	onThread(func() {
		defer close(n.done)
		err := n.create()
		ready <- err
		if err != nil {
			return
		}
		for {
			select {
			case f := <-n.calls:
				f()
			case <-n.quit:
				return
			}
		}
	})
	if err := <-ready; err != nil {
		return nil, err
	}
	return n, nil
}

func (n *namespace) create() error {
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		return fmt.Errorf("netns: new network namespace: %w", err)
	}
	fd, err := unix.Open("/proc/thread-self/ns/net", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("netns: /proc/thread-self/ns/net: %w", err)
	}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		unix.Close(fd)
		return fmt.Errorf("netns: stat namespace: %w", err)
	}
	n.fd, n.inode = fd, st.Ino
	return nil
}

// own runs f on the thread that lives as long as the namespace, one at a time.
// Children started there are killed by the kernel when that thread ends.
func (n *namespace) own(f func() error) error {
	answer := make(chan error, 1)
	select {
	case n.calls <- func() { answer <- f() }:
		return <-answer
	case <-n.done:
		return errClosed
	}
}

// do runs f on a thread of its own.
func (n *namespace) do(f func() error) error {
	select {
	case <-n.quit:
		return errClosed
	default:
	}
	answer := make(chan error, 1)
	onThread(func() {
		err := errEnded
		defer func() { answer <- err }()
		if err = unix.Setns(n.fd, unix.CLONE_NEWNET); err != nil {
			err = fmt.Errorf("netns: enter namespace: %w", err)
			return
		}
		err = errEnded
		err = f()
	})
	return <-answer
}
