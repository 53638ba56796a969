package main

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/bodkin-net/bodkin/internal/lab/netns"
)

// ordinary is a place in which a user without privileges can run this test's
// program, with a TUN device that everyone may open, for who looks there.
type ordinary struct {
	t   *testing.T
	dir string
}

const nobody = "65534"

func newOrdinary(t *testing.T) ordinary {
	t.Helper()
	netns.Need(t)
	if os.Geteuid() != 0 {
		t.Skip("only root can become somebody else")
	}
	for _, tool := range []string{"unshare", "setpriv", "mount"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Fatal(err) // util-linux; CI has it
		}
	}
	// Not below the test's own directory, which nobody else can enter.
	dir, err := os.MkdirTemp("", "bodkin-user-")
	if err != nil {
		t.Fatal(err)
	}
	run := filepath.Join(dir, "run")
	t.Cleanup(func() {
		for _, left := range processesWith("XDG_RUNTIME_DIR=" + run) { // of a script that failed
			pid, _, _ := strings.Cut(left, " ")
			exec.Command("kill", "-KILL", pid).Run()
		}
		os.RemoveAll(dir)
	})
	self, err := os.ReadFile("/proc/self/exe")
	lab, err2 := os.ReadFile("../../docs/labs/two-homes.yaml")
	for _, err := range []error{
		err, err2,
		os.Chmod(dir, 0o755),
		os.Mkdir(run, 0o700),
		os.Chown(run, 65534, 65534),
		os.WriteFile(filepath.Join(dir, "bodkin"), self, 0o755),
		os.Symlink("bodkin", filepath.Join(dir, "knock")),
		os.WriteFile(filepath.Join(dir, "two-homes.yaml"), lab, 0o644),
		unix.Mknod(filepath.Join(dir, "tun"), unix.S_IFCHR|0o666, int(unix.Mkdev(10, 200))),
		os.Chmod(filepath.Join(dir, "tun"), 0o666),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	return ordinary{t, dir}
}

// run runs a script as nobody. With a device, /dev/net/tun is one that may be
// opened, in a mount namespace of the script's own.
func (o ordinary) run(device bool, script string) string {
	o.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	before := "true"
	if device {
		before = "mount --bind ./tun /dev/net/tun"
	}
	cmd := exec.CommandContext(ctx, "unshare", "--mount", "sh", "-c",
		before+" && exec setpriv --reuid="+nobody+" --regid="+nobody+" --clear-groups sh -c '"+script+"'")
	cmd.Dir, cmd.WaitDelay = o.dir, time.Second
	cmd.Env = []string{"PATH=" + o.dir + ":" + os.Getenv("PATH"), "HOME=/nonexistent", quickRace, "XDG_RUNTIME_DIR=" + filepath.Join(o.dir, "run")}
	out, err := cmd.CombinedOutput()
	if err != nil {
		o.t.Errorf("%v\n%s", err, out)
	}
	if left := processesWith("XDG_RUNTIME_DIR=" + filepath.Join(o.dir, "run")); len(left) > 0 {
		o.t.Errorf("left are %v", left)
	}
	return string(out)
}

func wantLines(t *testing.T, got string, want ...string) {
	t.Helper()
	lines := strings.Split(strings.TrimSuffix(got, "\n"), "\n")
	if len(lines) != len(want) {
		t.Fatalf("%d lines, want %d:\n%s", len(lines), len(want), got)
	}
	for i := range want {
		if !regexp.MustCompile("^(?:" + want[i] + ")$").MatchString(lines[i]) {
			t.Errorf("line %q, want %s", lines[i], want[i])
		}
	}
}

// TestLabOfOrdinaryUser: without root a lab lives in a user namespace.
func TestLabOfOrdinaryUser(t *testing.T) {
	got := newOrdinary(t).run(true, `
		bodkin lab up two-homes.yaml 2>/dev/null
		bodkin lab exec a -- knock 198.51.100.1
		bodkin lab exec a -- id -u
		bodkin lab exec a -- no-such-program; echo $?
		bodkin lab exec a -- ./two-homes.yaml; echo $?
		bodkin lab exec a -- sh -c "exit 7"; echo $?
		bodkin lab exec a -- sh -c "kill -9 \$\$"; echo $?
		bodkin lab exec a -- sh -c "echo \$BODKIN_LAB_NAME \$BODKIN_LAB_HOST; cat; pwd" < two-homes.yaml | sed -n "1p;\$p"
		bodkin lab exec a -- sh -c "trap \"echo told; exit 9\" TERM; kill -TERM \$PPID; while :; do sleep 0.05; done"; echo $?
		bodkin lab set ga --delay 120ms
		bodkin lab exec a -- knock 198.51.100.1
		bodkin lab status | grep -c "^  icmp"
		bodkin lab exec a -- sh -c "touch run/ready; exec sleep 1000" &
		while ! test -e run/ready; do sleep 0.05; done
		bodkin lab down; echo $?
		wait $!; echo $?
		bodkin lab run two-homes.yaml --on b -- sh -c "knock 198.51.100.1; exit 3"; echo $?
		ls run/bodkin/lab`)
	wantLines(t, got,
		"two-homes",
		`\d+ ms`,
		"0",
		"error: no-such-program: command not found", "127",
		`error: \./two-homes\.yaml: permission denied`, "126",
		"7",
		"137",
		"two-homes a", ".*/bodkin-user-.*",
		"told", "9",
		`(2[89]\d|[3-9]\d\d|\d{4,}) ms`,
		"2",
		"0",
		"137",
		`\d+ ms`, "3")
}

// TestLabRefused: what is missing is told in one line.
func TestLabRefused(t *testing.T) {
	if st, err := os.Stat("/dev/net/tun"); err != nil || st.Mode()&0o006 == 0o006 {
		t.Skip("everyone may open /dev/net/tun here")
	}
	got := newOrdinary(t).run(false, `bodkin lab up two-homes.yaml; echo $?; bodkin lab list; ls run/bodkin/lab`)
	wantLines(t, got,
		"error: no permission to open /dev/net/tun",
		"hint: run as root, or let users open it: chmod 666 /dev/net/tun",
		"1")
}

// TestLabOfAnother: the labs of one user are not there for another.
func TestLabOfAnother(t *testing.T) {
	o := newOrdinary(t)
	got := o.run(true, `
		bodkin lab up two-homes.yaml >/dev/null 2>&1
		ls -l run/bodkin/lab | cut -c 1-10 | sort -u
		stat -c %a run/bodkin/lab
		bodkin lab down`)
	wantLines(t, got, "-rw-------", "srw-------", "total .*", "700")
}
