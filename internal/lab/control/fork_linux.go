package control

import (
	"fmt"
	"os"
	"runtime"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Start starts a program in a Foreign space, as a child of this process that
// has its terminal and dies with the calling goroutine's thread; so the caller
// locks its thread, and waits on it.
//
// The kernel lets only a process with one thread change its user namespace, so
// the child is forked bare. It has a copy of this process's memory, of which
// one thread is left, and must not use Go's scheduler, heap or stack growth:
// what it needs is prepared here, and it makes nothing but system calls.
func (s *Space) Start(path string, args, env []string) (*os.Process, error) {
	c := child{user: uintptr(s.user), net: uintptr(s.net)}
	var err error
	if c.path, err = syscall.BytePtrFromString(path); err != nil {
		return nil, err
	}
	argv, err := syscall.SlicePtrFromStrings(args)
	if err != nil {
		return nil, err
	}
	envv, err := syscall.SlicePtrFromStrings(env)
	if err != nil {
		return nil, err
	}
	c.argv, c.envv = &argv[0], &envv[0]
	var report [2]int // what went wrong; closed by a successful execve
	if err := unix.Pipe2(report[:], unix.O_CLOEXEC); err != nil {
		return nil, fmt.Errorf("control: pipe: %w", err)
	}
	defer unix.Close(report[0])
	c.report = uintptr(report[1])

	// Without signals nothing of Go's runs in the child beside what is below.
	var every unix.Sigset_t
	for i := range every.Val {
		every.Val[i] = ^every.Val[i]
	}
	runtime.LockOSThread()
	if err := unix.PthreadSigmask(unix.SIG_SETMASK, &every, &c.mask); err != nil {
		runtime.UnlockOSThread()
		unix.Close(report[1])
		return nil, fmt.Errorf("control: signal mask: %w", err)
	}
	pid, errno := fork(&c)
	unix.PthreadSigmask(unix.SIG_SETMASK, &c.mask, nil)
	runtime.UnlockOSThread()
	runtime.KeepAlive(argv)
	runtime.KeepAlive(envv)
	unix.Close(report[1])
	if errno != 0 {
		return nil, fmt.Errorf("control: fork: %w", errno)
	}
	var failed [2]byte // the step, the error
	if n, _ := readFull(report[0], failed[:]); n == len(failed) {
		var status unix.WaitStatus
		for {
			if _, err := unix.Wait4(pid, &status, 0, nil); err != unix.EINTR {
				break
			}
		}
		errno := unix.Errno(failed[1])
		if failed[0] == stepExec {
			return nil, &os.PathError{Op: "exec", Path: path, Err: errno}
		}
		return nil, fmt.Errorf("control: enter the %s namespace: %w", [...]string{stepUser: "user", stepNet: "network"}[failed[0]], errno)
	}
	s.conn.Close() // it is there
	return os.FindProcess(pid)
}

const (
	stepUser = iota
	stepNet
	stepExec
)

// child is what a child needs.
type child struct {
	user, net, report uintptr
	path              *byte
	argv, envv        **byte
	mask              unix.Sigset_t // for the program
	word              [2]byte
}

// fork returns in the parent alone.
//
//go:noinline
//go:norace
//go:nosplit
func fork(c *child) (int, syscall.Errno) {
	pid, _, errno := syscall.RawSyscall6(syscall.SYS_CLONE, uintptr(syscall.SIGCHLD), 0, 0, 0, 0, 0)
	if errno != 0 || pid != 0 {
		return int(pid), errno
	}
	c.word[0] = stepUser
	_, _, errno = syscall.RawSyscall(unix.SYS_SETNS, c.user, unix.CLONE_NEWUSER, 0)
	if errno == 0 {
		c.word[0] = stepNet
		_, _, errno = syscall.RawSyscall(unix.SYS_SETNS, c.net, unix.CLONE_NEWNET, 0)
	}
	if errno == 0 {
		c.word[0] = stepExec
		// After the change of namespace, which clears it.
		syscall.RawSyscall(unix.SYS_PRCTL, unix.PR_SET_PDEATHSIG, uintptr(syscall.SIGKILL), 0)
		syscall.RawSyscall6(unix.SYS_RT_SIGPROCMASK, unix.SIG_SETMASK, uintptr(unsafe.Pointer(&c.mask)), 0, 8, 0, 0)
		_, _, errno = syscall.RawSyscall(unix.SYS_EXECVE, uintptr(unsafe.Pointer(c.path)), uintptr(unsafe.Pointer(c.argv)), uintptr(unsafe.Pointer(c.envv)))
	}
	c.word[1] = byte(errno)
	syscall.RawSyscall(unix.SYS_WRITE, c.report, uintptr(unsafe.Pointer(&c.word)), uintptr(len(c.word)))
	for {
		syscall.RawSyscall(unix.SYS_EXIT_GROUP, 127, 0, 0)
	}
}

func readFull(fd int, buf []byte) (n int, err error) {
	for n < len(buf) {
		m, err := unix.Read(fd, buf[n:])
		if err == unix.EINTR {
			continue
		}
		if m <= 0 {
			return n, err
		}
		n += m
	}
	return n, nil
}
