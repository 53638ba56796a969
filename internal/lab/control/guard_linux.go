package control

import (
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/bodkin-net/bodkin/internal/lab/netns"
)

// GuardVerb is the argument with which a holder re-executes the program to be
// watched; its main calls Guard then.
const GuardVerb = "guard"

// guard is a process that waits for the end of a holder. If that comes without
// its dismissal, by SIGKILL or a panic, it ends what runs in the lab, whose
// namespaces it keeps until then, and removes the files.
type guard struct {
	cmd  *exec.Cmd
	life *os.File // the guard sees it closed
}

const (
	lifeFD = 3 + iota
	guardDirFD
	firstSpaceFD
)

// startGuard guards a lab of this process.
func startGuard(d *dir, name string, lab *netns.Lab, nodes, verbs []string) (*guard, error) {
	r, w, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	files := []*os.File{r, d.file}
	defer func() {
		r.Close()
		for _, f := range files[2:] {
			f.Close()
		}
	}()
	for _, n := range nodes {
		f, err := lab.Host(n).NetNS()
		if err != nil {
			w.Close()
			return nil, err
		}
		files = append(files, f)
	}
	cmd := exec.Command("/proc/self/exe", append(verbs, GuardVerb, name, strconv.Itoa(len(nodes)))...)
	cmd.Args[0] = os.Args[0]
	cmd.ExtraFiles = files
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		w.Close()
		return nil, fmt.Errorf("control: guard: %w", err)
	}
	return &guard{cmd, w}, nil
}

// dismiss ends the guard, even one that is stopped; there is nothing left to end.
func (g *guard) dismiss() {
	g.cmd.Process.Kill()
	g.cmd.Wait()
	g.life.Close()
}

// Guard is the main function of a guard, with the name of the lab and the
// number of its namespaces.
func Guard(name, spaces string) error {
	n, err := strconv.Atoi(spaces)
	if err != nil || n < 0 {
		return errAlone
	}
	for fd := lifeFD; fd < firstSpaceFD+n; fd++ {
		if _, err := unix.FcntlInt(uintptr(fd), unix.F_SETFD, unix.FD_CLOEXEC); err != nil {
			return errAlone
		}
	}
	signal.Ignore(unix.SIGINT, unix.SIGTERM, unix.SIGHUP) // the holder's end is its end
	os.NewFile(lifeFD, "holder").Read(make([]byte, 1))
	var files []*os.File
	for fd := firstSpaceFD; fd < firstSpaceFD+n; fd++ {
		files = append(files, os.NewFile(uintptr(fd), "namespace"))
	}
	err = netns.End(files)
	d := &dir{file: os.NewFile(guardDirFD, "labs")}
	d.clearSoon(name)
	return err
}
