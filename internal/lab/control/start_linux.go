package control

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// Spec says what lab to start.
type Spec struct {
	Name string
	File string // for messages
	Text []byte // what stands in it
	// Verbs come before Verb and GuardVerb on the command line of this program.
	Verbs []string
	// Tied ends the lab when this process ends, or calls Started.Release.
	Tied bool
}

// Started is a lab that this process has started.
type Started struct {
	Info
	Warnings []string // what may not be as it was meant, each a line
	conn     *net.UnixConn
	cmd      *exec.Cmd
}

// The descriptors of the holder beside the standard ones.
const (
	startFD = 3 + iota
	lockFD
	socketFD
	dirFD
)

// Start starts a lab in a process of its own and returns when it is ready. If
// ctx ends before, nothing is left.
func Start(ctx context.Context, spec Spec) (*Started, error) {
	if err := CheckName(spec.Name); err != nil {
		return nil, err
	}
	if len(spec.Text) > MaxTopology {
		return nil, failure(BadTopology, "", "%s: larger than %d bytes", spec.File, MaxTopology)
	}
	d, err := openDir()
	if err != nil {
		return nil, err
	}
	defer d.Close()
	lock, err := d.reserve(spec.Name)
	if err != nil {
		return nil, err
	}
	defer lock.Close() // the holder has it too
	s, err := startHolder(ctx, d, lock, spec)
	if err != nil {
		d.remove(spec.Name + ".sock")
		d.remove(spec.Name + ".log")
		d.remove(spec.Name + ".lock")
		return nil, err
	}
	return s, nil
}

func startHolder(ctx context.Context, d *dir, lock *os.File, spec Spec) (*Started, error) {
	cmd, conn, err := launch(d, lock, spec)
	if err != nil {
		return nil, err
	}
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	var a started
	err = writeLine(conn, start{Name: spec.Name, File: spec.File, Text: spec.Text, Verbs: spec.Verbs})
	if err == nil {
		_, err = readLine(conn, maxAnswer, &a, 0)
	}
	inTime := stop()
	up := inTime && err == nil && a.Error == nil
	if up && spec.Tied {
		return &Started{*a.Info, a.Warnings, conn, cmd}, nil
	}
	if up {
		_, err = conn.Write([]byte{1}) // it stays
		up = err == nil
	}
	conn.Close()
	if up {
		return &Started{*a.Info, a.Warnings, nil, cmd}, nil
	}
	cmd.Wait() // it sees the end of the connection
	switch {
	case !inTime:
		return nil, ctx.Err()
	case a.Error != nil:
		return nil, a.Error
	}
	words, _ := os.ReadFile(d.at(spec.Name + ".log"))
	why := cmd.ProcessState.String()
	if line := firstLine(words); line != "" {
		why += ": " + line
	}
	return nil, failure(Failed, "", "the process that was to hold the lab ended: %s", why)
}

// launch begins the process that is to hold a lab.
func launch(d *dir, lock *os.File, spec Spec) (*exec.Cmd, *net.UnixConn, error) {
	socket, err := d.listen(spec.Name)
	if err != nil {
		return nil, nil, err
	}
	defer socket.Close()
	log, err := d.create(spec.Name+".log", os.O_WRONLY|os.O_EXCL)
	if err != nil {
		return nil, nil, err
	}
	defer log.Close()
	conn, theirs, err := pair()
	if err != nil {
		return nil, nil, err
	}
	defer theirs.Close()
	cmd := exec.Command("/proc/self/exe", append(append([]string(nil), spec.Verbs...), Verb, spec.Name)...)
	cmd.Args[0] = os.Args[0]
	cmd.Dir = "/"
	cmd.Stderr = log
	cmd.ExtraFiles = []*os.File{theirs, lock, socket, d.file}
	cmd.SysProcAttr = holderAttributes()
	if err := cmd.Start(); err != nil {
		conn.Close()
		return nil, nil, explainStart(err)
	}
	fmt.Fprintln(lock, cmd.Process.Pid)
	return cmd, conn, nil
}

func firstLine(text []byte) string {
	line, _, _ := strings.Cut(strings.TrimSpace(string(text)), "\n")
	return line
}

func pair() (*net.UnixConn, *os.File, error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, fmt.Errorf("control: socketpair: %w", err)
	}
	ours, theirs := os.NewFile(uintptr(fds[0]), "start"), os.NewFile(uintptr(fds[1]), "start")
	defer ours.Close()
	c, err := net.FileConn(ours)
	if err != nil {
		theirs.Close()
		return nil, nil, err
	}
	return c.(*net.UnixConn), theirs, nil
}

// holderAttributes take the holder away from the terminal and from the
// machine's network. Without root it gets a user namespace, in which it is root.
func holderAttributes() *syscall.SysProcAttr {
	a := &syscall.SysProcAttr{Setsid: true, Cloneflags: unix.CLONE_NEWNET}
	if os.Geteuid() != 0 {
		a.Cloneflags |= unix.CLONE_NEWUSER | unix.CLONE_NEWNS
		a.UidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Geteuid(), Size: 1}}
		a.GidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getegid(), Size: 1}}
	}
	return a
}

// explainStart says why the kernel made no namespaces.
func explainStart(err error) error {
	number := func(file string) string {
		text, _ := os.ReadFile("/proc/sys/" + file)
		return strings.TrimSpace(string(text))
	}
	switch {
	case os.Geteuid() == 0 && errors.Is(err, unix.EPERM):
		return failure(Privilege, "in a container, give it the capabilities SYS_ADMIN and NET_ADMIN", "no permission to create a network namespace")
	case os.Geteuid() == 0:
		return err
	case number("kernel/unprivileged_userns_clone") == "0":
		return failure(Privilege, "run as root, or: sysctl kernel.unprivileged_userns_clone=1", "users may not create user namespaces here")
	case number("user/max_user_namespaces") == "0" || errors.Is(err, unix.ENOSPC):
		return failure(Privilege, "run as root, or raise the sysctl user.max_user_namespaces", "no more user namespaces may be created here")
	case errors.Is(err, unix.EPERM) || errors.Is(err, unix.EACCES):
		return failure(Privilege, "run as root; a container or a security module may forbid it", "no permission to create a user namespace")
	}
	return err
}

// Release lets a tied lab end and waits until it has.
func (s *Started) Release() error {
	if s.conn == nil {
		return nil
	}
	s.conn.Close()
	s.conn = nil
	return s.cmd.Wait()
}
