package control

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/bodkin-net/bodkin/internal/lab/netns"
)

// Client asks the holder of a lab.
type Client struct {
	Name     string
	dir      *dir
	patience time.Duration
}

// Open finds a lab by its name; an empty one is for the only lab that is up.
func Open(name string) (*Client, error) {
	if name != "" {
		if err := CheckName(name); err != nil {
			return nil, err
		}
	}
	d, err := openDir()
	if err != nil {
		return nil, err
	}
	c, err := d.open(name)
	if err != nil {
		d.Close()
		return nil, err
	}
	return c, nil
}

func (d *dir) open(name string) (*Client, error) {
	names, dead, err := d.living()
	if err != nil {
		return nil, err
	}
	hint := "`bodkin lab up FILE` starts one"
	for _, gone := range dead {
		if gone == name || name == "" {
			if st, err := os.Stat(d.at(gone + ".log")); err == nil && st.Size() > 0 {
				hint = fmt.Sprintf("lab %s ended by itself; its last words are in %s/%s.log", gone, d.path, gone)
			}
		}
	}
	switch {
	case name == "" && len(names) == 1:
		return &Client{names[0], d, patience}, nil
	case name == "" && len(names) == 0:
		return nil, failure(NoLab, hint, "no lab is up")
	case name == "":
		return nil, &Error{Code: ManyLabs, Message: fmt.Sprintf("%d labs are up: %s", len(names), strings.Join(names, ", ")),
			Hint: "choose one with --name, or set " + NameVariable}
	}
	for _, n := range names {
		if n == name {
			return &Client{name, d, patience}, nil
		}
	}
	return nil, &Error{Code: NoLab, Message: fmt.Sprintf("no lab named %q is up", name), Hint: hint, Known: names}
}

// living are the labs that are up. What others have left is cleared away.
func (d *dir) living() (alive, dead []string, err error) {
	names, err := d.names()
	for _, name := range names {
		if d.clear(name) {
			dead = append(dead, name)
		} else {
			alive = append(alive, name)
		}
	}
	return alive, dead, err
}

func (c *Client) Close() error { return c.dir.Close() }

// Names are those of every lab of this user, whether it answers or not.
func Names() ([]string, error) {
	d, err := openDir()
	if err != nil {
		return nil, err
	}
	defer d.Close()
	names, _, err := d.living()
	return names, err
}

// List is every lab of this user. All are asked at once, but for those that
// cannot answer; of one that does not answer soon little is known.
func List() ([]Info, error) {
	d, err := openDir()
	if err != nil {
		return nil, err
	}
	defer d.Close()
	names, _, err := d.living()
	all := make([]Info, len(names))
	var wg sync.WaitGroup
	for i, name := range names {
		wg.Go(func() {
			c := Client{name, d, soon}
			var e *Error
			all[i] = Info{Name: name, Silent: true}
			if all[i].PID, all[i].Why = c.silence(); all[i].Why != "" {
				return
			}
			if info, err := c.Info(); err == nil {
				all[i] = info
			} else if errors.As(err, &e) && e.Code == NoLab {
				all[i].Name = "" // it has just ended
			} else if all[i].PID, all[i].Why = c.silence(); all[i].Why == "" {
				all[i].Why = Slow
			}
		})
	}
	wg.Wait()
	return slices.DeleteFunc(all, func(i Info) bool { return i.Name == "" }), err
}

// silence is why the holder cannot answer now, empty if it can. No time shows
// that: a holder on a busy machine is slow, and alive.
func (c *Client) silence() (pid int, why Silence) {
	pid, up, err := c.dir.holder(c.Name)
	switch {
	case err == nil && stopped(pid):
		return pid, Stopped
	case !up:
		return pid, ComingUp
	}
	return pid, ""
}

// ask sends a request and leaves the connection open behind the answer. A lab
// that is coming up is waited for, one that is stopped is not.
func (c *Client) ask(r request, wanted int) (conn *net.UnixConn, a answer, fds []int, err error) {
	if pid, why := c.silence(); why == Stopped {
		return nil, a, nil, c.isStopped(pid)
	}
	conn, err = net.DialUnix("unix", nil, &net.UnixAddr{Name: c.dir.at(c.Name + ".sock"), Net: "unix"})
	if err != nil {
		return nil, a, nil, c.gone(err)
	}
	conn.SetDeadline(time.Now().Add(c.patience))
	if err = writeLine(conn, r); err == nil {
		fds, err = readLine(conn, maxAnswer, &a, wanted)
	}
	if err == nil && a.Error != nil {
		err = a.Error
		closeAll(fds)
	} else if err != nil {
		err = c.gone(err)
	}
	if err != nil {
		conn.Close()
		return nil, a, nil, err
	}
	conn.SetDeadline(time.Time{})
	return conn, a, fds, nil
}

// gone explains an answer that did not come.
func (c *Client) gone(err error) error {
	if !errors.Is(err, os.ErrDeadlineExceeded) {
		return failure(NoLab, "", "lab %s has just ended: %v", c.Name, err)
	}
	hint := fmt.Sprintf("`bodkin lab down --name %s` ends it", c.Name)
	switch pid, why := c.silence(); why {
	case Stopped:
		return c.isStopped(pid)
	case ComingUp:
		return failure(Failed, hint, "lab %s is still coming up", c.Name)
	}
	return failure(Failed, hint, "lab %s does not answer", c.Name)
}

func (c *Client) isStopped(pid int) error {
	return failure(Failed, fmt.Sprintf("`kill -CONT %d` lets it go on, `bodkin lab down --name %s` ends it", pid, c.Name), "lab %s is stopped", c.Name)
}

func (c *Client) simple(r request) (answer, error) {
	conn, a, _, err := c.ask(r, 0)
	if err == nil {
		conn.Close()
	}
	return a, err
}

// Info says what the lab is.
func (c *Client) Info() (Info, error) {
	a, err := c.simple(request{Op: opInfo})
	if err != nil {
		return Info{}, err
	}
	return *a.Info, nil
}

// Status is the lab now, with at most so many mappings of each gateway.
func (c *Client) Status(mappings int) (netns.Snapshot, error) {
	a, err := c.simple(request{Op: opStatus, Mappings: mappings})
	if err != nil {
		return netns.Snapshot{}, err
	}
	return *a.Status, nil
}

// Set changes something.
func (c *Client) Set(change Change) error {
	_, err := c.simple(request{Op: opSet, Change: &change})
	return err
}

// Capture writes what a network carries as pcapng until ctx ends. Where to is
// asked when it has begun.
func (c *Client) Capture(ctx context.Context, network string, begin func() (io.Writer, error)) error {
	conn, _, _, err := c.ask(request{Op: opCapture, Network: network}, 0)
	if err != nil {
		return err
	}
	defer conn.Close()
	out, err := begin()
	if err != nil {
		return err
	}
	stop := context.AfterFunc(ctx, func() { conn.CloseWrite() }) // the rest still comes
	defer stop()
	if _, err := io.Copy(out, conn); err != nil {
		return err
	}
	if ctx.Err() == nil {
		return failure(Failed, "", "the capture ended: the lab is down, or the packets were not taken fast enough")
	}
	return nil
}

// Down ends the lab and waits until its process has ended. One that does not
// answer is killed: at once if it is stopped, and cannot.
func (c *Client) Down() error {
	info, err := c.Info()
	if err != nil {
		return c.kill(err)
	}
	process, err := unix.PidfdOpen(info.PID, 0)
	if err != nil {
		return c.gone(err)
	}
	defer unix.Close(process)
	conn, err := net.DialUnix("unix", nil, &net.UnixAddr{Name: c.dir.at(c.Name + ".sock"), Net: "unix"})
	if err != nil {
		return c.gone(err)
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(3 * patience))
	var a answer
	if err = writeLine(conn, request{Op: opDown}); err == nil {
		_, err = readLine(conn, maxAnswer, &a, 0)
	}
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return c.kill(c.gone(err))
	}
	if !ended(process, patience) {
		return c.kill(failure(Failed, "", "lab %s does not end", c.Name))
	}
	if a.Error != nil {
		return a.Error
	}
	return nil // also when another has ended it meanwhile
}

// kill ends a holder that does not answer.
func (c *Client) kill(why error) error {
	pid, _, err := c.dir.holder(c.Name)
	if err != nil {
		return why
	}
	process, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return why
	}
	defer unix.Close(process)
	if c.dir.clear(c.Name) {
		return nil // it has ended after all, and the number is another's
	}
	unix.PidfdSendSignal(process, unix.SIGKILL, nil, 0)
	if !ended(process, patience) || !c.dir.clearSoon(c.Name) {
		return why
	}
	return failure(Failed, "", "%v; its process %d was killed", why, pid)
}

// stopped says that a process was told to stop and not yet to go on. One that is
// traced stops at every turn and goes on: that is not meant.
func stopped(pid int) bool {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return false
	}
	// The name before the state may hold anything, also parentheses.
	_, state, _ := bytes.Cut(text[bytes.LastIndexByte(text, ')')+1:], []byte(" "))
	return len(state) > 0 && state[0] == 'T'
}

func ended(process int, limit time.Duration) bool {
	for deadline := time.Now().Add(limit); ; {
		left := time.Until(deadline)
		if left <= 0 {
			return false
		}
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(process), Events: unix.POLLIN}}, int(left/time.Millisecond)+1)
		if n > 0 {
			return true
		}
		if err != nil && err != unix.EINTR {
			return false
		}
	}
}
