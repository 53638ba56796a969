package control

import (
	"context"
	"errors"
	"net"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/bodkin-net/bodkin/internal/lab/netns"
	"github.com/bodkin-net/bodkin/internal/lab/scenario"
)

// holder is the process of a lab.
type holder struct {
	dir    *dir
	lock   *os.File // held until the process ends
	starts *net.UnixConn
	left   chan struct{} // closed when the process that started this one has ended or given up
	spec   start
}

var (
	errLeft  = errors.New("control: the process that started the lab has ended")
	errAlone = failure(BadRequest, "`bodkin lab up` starts it", "this is for labs alone")
)

// Hold is the main function of a holder. It returns when the lab is no more:
// when ctx ends, when a client says so, or when the process that started it
// ends and has not let it go.
func Hold(ctx context.Context) error {
	h, listener, err := takeOver()
	if err != nil {
		return err
	}
	defer h.dir.Close()
	defer h.starts.Close()
	topology, err := scenario.Load(h.spec.File, h.spec.Text, netns.CheckKernel)
	if err != nil {
		h.remove()
		return writeLine(h.starts, started{Error: &Error{Code: BadTopology, Message: err.Error()}})
	}
	// What was built goes with the process, so an end need not wait for it.
	type built struct {
		lab *netns.Lab
		err error
	}
	done := make(chan built, 1)
	go func() {
		lab, err := build(topology)
		done <- built{lab, err}
	}()
	var b built
	select {
	case b = <-done:
	case <-h.left:
		h.remove()
		return errLeft
	case <-ctx.Done():
		h.remove()
		return ctx.Err()
	}
	if b.err != nil {
		h.remove()
		return writeLine(h.starts, started{Error: asError(b.err)})
	}
	return h.serve(ctx, listener, b.lab, describe(topology))
}

// takeOver takes what Start has left in the descriptors.
func takeOver() (*holder, *net.UnixListener, error) {
	for fd := startFD; fd <= dirFD; fd++ {
		if _, err := unix.FcntlInt(uintptr(fd), unix.F_SETFD, unix.FD_CLOEXEC); err != nil {
			return nil, nil, errAlone
		}
	}
	h := &holder{left: make(chan struct{}), lock: os.NewFile(lockFD, "lock")}
	h.dir = &dir{file: os.NewFile(dirFD, "labs")}
	// Both are duplicated; the files close what they came in, and not later, when
	// the numbers are somebody else's.
	start, socket := os.NewFile(startFD, "start"), os.NewFile(socketFD, "socket")
	starts, err1 := net.FileConn(start)
	l, err2 := net.FileListener(socket)
	if err := errors.Join(err1, err2, start.Close(), socket.Close()); err != nil {
		return nil, nil, errAlone
	}
	h.starts = starts.(*net.UnixConn)
	listener := l.(*net.UnixListener)
	listener.SetUnlinkOnClose(false)
	if _, err := readLine(h.starts, 2*MaxTopology, &h.spec, 0); err != nil {
		return nil, nil, err
	}
	go func() {
		if n, _ := h.starts.Read(make([]byte, 1)); n == 0 {
			close(h.left)
		} // else it lets go
	}()
	return h, listener, nil
}

// serve holds the lab until it is told to end.
func (h *holder) serve(ctx context.Context, listener *net.UnixListener, lab *netns.Lab, info Info) error {
	info.Name, info.File, info.PID, info.Started = h.spec.Name, h.spec.File, os.Getpid(), time.Now()
	g, err := startGuard(h.dir, info.Name, lab, append(info.Hosts[:len(info.Hosts):len(info.Hosts)], info.Gateways...), h.spec.Verbs)
	if err != nil {
		h.remove()
		writeLine(h.starts, started{Error: asError(err)})
		return errors.Join(err, lab.Close())
	}
	defer g.dismiss()
	s := newServer(listener, lab, info)
	warnings := append(scenario.Warnings(h.spec.File, h.spec.Text), lab.Warnings()...)
	if _, err = h.lock.WriteString(isUp); err == nil {
		err = writeLine(h.starts, started{Info: &info, Warnings: warnings})
	}
	if err == nil {
		select {
		case <-ctx.Done():
		case <-h.left:
		case <-s.down:
		}
	}
	s.stop()
	err = errors.Join(err, lab.Close())
	h.remove()
	s.finish(err)
	return err
}

// remove takes the lab's files away. The name is free when the process ends.
func (h *holder) remove() {
	h.dir.remove(h.spec.Name + ".sock")
	var log unix.Stat_t // is standard error
	if unix.Fstat(2, &log) == nil && log.Size == 0 {
		h.dir.remove(h.spec.Name + ".log")
	}
	h.dir.remove(h.spec.Name + ".lock")
}
