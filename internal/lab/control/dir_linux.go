package control

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// dir is the directory of a user's labs, open. All files in it are reached
// through the descriptor, however long its path is and whoever renames it.
type dir struct {
	file *os.File
	path string
}

// openDir opens the directory, creating it: below $XDG_RUNTIME_DIR if that is
// the user's own, /run/bodkin-lab for root, else one below the temporary
// directory.
func openDir() (*dir, error) {
	path, err := place()
	if err != nil {
		return nil, err
	}
	fd, err := unix.Open(path, unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: path, Err: err}
	}
	d := &dir{os.NewFile(uintptr(fd), path), path}
	if err := d.check(); err != nil {
		d.file.Close()
		return nil, err
	}
	return d, nil
}

func place() (string, error) {
	if run := os.Getenv("XDG_RUNTIME_DIR"); run != "" {
		var st unix.Stat_t
		if unix.Stat(run, &st) == nil && st.Uid == uint32(os.Geteuid()) && st.Mode&unix.S_IFMT == unix.S_IFDIR {
			path := filepath.Join(run, "bodkin", "lab")
			return path, os.MkdirAll(path, 0o700)
		}
	}
	path := "/run/bodkin-lab"
	if os.Geteuid() != 0 {
		path = filepath.Join(os.TempDir(), fmt.Sprintf("bodkin-lab-%d", os.Geteuid()))
	}
	if err := os.Mkdir(path, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return "", err
	}
	return path, nil
}

// check refuses a directory that somebody else made or can look into.
func (d *dir) check() error {
	var st unix.Stat_t
	if err := unix.Fstat(int(d.file.Fd()), &st); err != nil {
		return &fs.PathError{Op: "stat", Path: d.path, Err: err}
	}
	if st.Uid != uint32(os.Geteuid()) || st.Mode&0o077 != 0 {
		return failure(Privilege, "remove it, or set XDG_RUNTIME_DIR to a directory of your own",
			"%s is not yours alone (mode %o, owner %d)", d.path, st.Mode&0o777, st.Uid)
	}
	return nil
}

func (d *dir) Close() error { return d.file.Close() }

// at is a path to a file of the directory that is short enough for a socket.
func (d *dir) at(name string) string {
	return fmt.Sprintf("/proc/self/fd/%d/%s", d.file.Fd(), name)
}

// create opens a file of the directory. Its user knows it by another path than
// that through the descriptor.
func (d *dir) create(name string, flags int) (*os.File, error) {
	f, err := os.OpenFile(d.at(name), flags|os.O_CREATE|unix.O_NOFOLLOW, 0o600)
	var where *fs.PathError
	if errors.As(err, &where) {
		where.Path = filepath.Join(d.path, name)
	}
	return f, err
}

// names are those of all labs, also of those that are no more.
func (d *dir) names() ([]string, error) {
	entries, err := os.ReadDir(d.at("."))
	if err != nil {
		return nil, err
	}
	var names []string
	for _, e := range entries {
		if name, ok := strings.CutSuffix(e.Name(), ".lock"); ok && CheckName(name) == nil {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names, nil
}

// lock takes the lock of a name, without waiting for who has it.
func (d *dir) lock(name string) (*os.File, error) {
	for {
		f, err := d.create(name+".lock", os.O_RDWR)
		if err != nil {
			return nil, err
		}
		if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
			f.Close()
			return nil, err
		}
		// The one before may have removed the file after it was opened here.
		mine, err1 := f.Stat()
		there, err2 := os.Lstat(d.at(name + ".lock"))
		if err1 == nil && err2 == nil && os.SameFile(mine, there) {
			return f, nil
		}
		f.Close()
	}
}

// isUp is the second line of a lock: the holder answers from now on.
const isUp = "up\n"

// holder is the process that a lab's lock names, and whether the lab is up. Both
// are the lab's for as long as the lock is held.
func (d *dir) holder(name string) (pid int, up bool, err error) {
	text, err := os.ReadFile(d.at(name + ".lock"))
	if err == nil {
		pid, err = strconv.Atoi(firstLine(text))
	}
	if err == nil && pid <= 1 {
		err = fmt.Errorf("control: %s.lock names the process %d", name, pid)
	}
	return pid, bytes.HasSuffix(text, []byte("\n"+isUp)), err
}

// reserve takes the lock and clears what a lab of that name has left behind.
func (d *dir) reserve(name string) (*os.File, error) {
	for deadline := time.Now().Add(time.Second); ; time.Sleep(5 * time.Millisecond) {
		f, err := d.lock(name)
		switch {
		case err == nil:
			d.remove(name + ".sock")
			d.remove(name + ".log")
			if err := f.Truncate(0); err != nil { // it may name a holder that is no more
				f.Close()
				return nil, err
			}
			return f, nil
		case !errors.Is(err, unix.EWOULDBLOCK):
			return nil, err
		case time.Now().After(deadline) || d.answers(name):
			// Without an answer it may be somebody who clears up.
			return nil, failure(Clash, fmt.Sprintf("choose another with --name, or `bodkin lab down --name %s` first", name),
				"a lab named %q is up already", name)
		}
	}
}

func (d *dir) answers(name string) bool {
	c, err := net.Dial("unix", d.at(name+".sock"))
	if err != nil {
		return false
	}
	c.Close()
	return true
}

// clear removes what a lab has left behind whose holder is no more, and reports
// whether that was so. A log that says something stays.
func (d *dir) clear(name string) bool {
	f, err := d.lock(name)
	if err != nil {
		return false
	}
	defer f.Close()
	d.remove(name + ".sock")
	if st, err := os.Stat(d.at(name + ".log")); err == nil && st.Size() == 0 {
		d.remove(name + ".log")
	}
	d.remove(name + ".lock")
	return true
}

// clearSoon is clear for a holder that is about to be gone: the kernel closes a
// dying process's descriptors in its own time, and somebody else may clear too.
func (d *dir) clearSoon(name string) bool {
	for deadline := time.Now().Add(patience); ; time.Sleep(time.Millisecond) {
		if d.clear(name) {
			return true
		}
		if time.Now().After(deadline) {
			return false
		}
	}
}

func (d *dir) remove(file string) { unix.Unlinkat(int(d.file.Fd()), file, 0) }

// listen opens the socket of a name whose lock is held.
func (d *dir) listen(name string) (*os.File, error) {
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: d.at(name + ".sock"), Net: "unix"})
	if err != nil {
		return nil, err
	}
	l.SetUnlinkOnClose(false)
	defer l.Close()
	if err := os.Chmod(d.at(name+".sock"), 0o600); err != nil {
		return nil, err
	}
	return l.File()
}
