package control

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestStopped: of two labs one is stopped. That is seen, and not found out by
// waiting for an answer, by the list, by whoever asks for something, and by the
// end; the other one is as it was.
func TestStopped(t *testing.T) {
	home(t)
	c, other := up(t, "x"), up(t, "y")
	pid := stop(t, c)
	all, err := List()
	if err != nil || len(all) != 2 || all[0].Name != "x" || !all[0].Silent || all[0].Why != Stopped || all[0].PID != pid {
		t.Errorf("%+v, %v", all, err)
	}
	if _, err := other.Status(0); err != nil {
		t.Error(err)
	}
	_, enter := c.Enter("s")
	_, status := c.Status(0)
	for what, err := range map[string]error{"enter": enter, "status": status, "set": c.Set(Change{Node: "s"})} {
		var e *Error
		if !errors.As(err, &e) || e.Message != "lab x is stopped" || !strings.Contains(e.Hint, fmt.Sprintf("kill -CONT %d`", pid)) {
			t.Errorf("%s: %+v", what, err)
		}
	}
	if err := syscall.Kill(pid, syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Status(0); err != nil { // as before
		t.Error(err)
	}
	stop(t, c)
	if err := c.Down(); err == nil || err.Error() != fmt.Sprintf("lab x is stopped; its process %d was killed", pid) {
		t.Errorf("ended with %v", err)
	}
	down(t, other)
}

// TestComingUp: a lab that is being built is listed as that, and waited for.
func TestComingUp(t *testing.T) {
	dir := home(t)
	d, lock := reserved(t)
	why := func() Silence {
		t.Helper()
		all, err := List()
		if err != nil || len(all) != 1 || all[0].Name != "x" || !all[0].Silent && len(all[0].Hosts) != 1 {
			t.Fatalf("%+v, %v", all, err)
		}
		return all[0].Why
	}
	if got := why(); got != ComingUp {
		t.Errorf("without a process it is %q", got)
	}
	cmd, conn, err := launch(d, lock, Spec{Name: "x"})
	if err != nil {
		t.Fatal(err)
	}
	if got := why(); got != ComingUp {
		t.Errorf("with a process it is %q", got)
	}
	hasty := Client{"x", d, time.Millisecond}
	if _, err := hasty.Info(); err == nil || err.Error() != "lab x is still coming up" {
		t.Errorf("%v", err)
	}
	answered := make(chan error, 1)
	go func() {
		patient := Client{"x", d, time.Hour}
		_, err := patient.Info()
		answered <- err
	}()
	var a started
	err = writeLine(conn, start{Name: "x", File: "x.yaml", Text: []byte(oneHost)})
	if err == nil {
		_, err = readLine(conn, maxAnswer, &a, 0)
	}
	if err := errors.Join(err, <-answered); err != nil || a.Info == nil {
		t.Errorf("%+v, %v", a, err)
	}
	if got := why(); got == ComingUp || got == Stopped { // it may be slow
		t.Errorf("now it is %q", got)
	}
	conn.Close()
	if err := cmd.Wait(); err != nil {
		t.Error(err)
	}
	empty(t, dir)
	if all, err := List(); err != nil || len(all) != 0 {
		t.Errorf("%+v, %v", all, err)
	}
}

// TestStoppedGuard: a guard that is stopped does not keep a lab from ending.
func TestStoppedGuard(t *testing.T) {
	dir := home(t)
	c := up(t, "x")
	info, err := c.Info()
	if err != nil {
		t.Fatal(err)
	}
	children, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", info.PID))
	if err != nil {
		t.Fatal(err)
	}
	stopped := 0
	for _, file := range children {
		text, _ := os.ReadFile(file)
		for _, pid := range strings.Fields(string(text)) {
			n, err := strconv.Atoi(pid)
			if err != nil {
				t.Fatal(err)
			}
			if err := syscall.Kill(n, syscall.SIGSTOP); err != nil {
				t.Fatal(err)
			}
			stopped++
		}
	}
	if stopped != 1 {
		t.Fatalf("%d guards", stopped)
	}
	down(t, c) // who waited for the guard would be killed, and that be told
	empty(t, dir)
}

// stop stops the process of a lab, and returns when it is.
func stop(t *testing.T, c *Client) (pid int) {
	t.Helper()
	info, err := c.Info()
	if err != nil {
		t.Fatal(err)
	}
	if err := syscall.Kill(info.PID, syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	var status syscall.WaitStatus
	if _, err := syscall.Wait4(info.PID, &status, syscall.WUNTRACED, nil); err != nil || !status.Stopped() {
		t.Fatalf("%v, %v", status, err)
	}
	return info.PID
}
