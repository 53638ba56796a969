package netns

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"testing"

	"go.uber.org/goleak"
)

// victim is set in a process that has a lab and is to be killed.
const victim = "BODKIN_LAB_VICTIM"

func TestMain(m *testing.M) {
	if os.Getenv(victim) != "" {
		beVictim()
	}
	goleak.VerifyTestMain(m)
}

// beVictim has a lab with a program in it, and says which.
func beVictim() {
	l, err := New(sixAndThree(), Options{})
	if err != nil {
		panic(err)
	}
	cmd := l.Host("h1").Command(context.Background(), "/bin/sleep", "1000")
	if err := l.Host("h1").Start(cmd); err != nil {
		panic(err)
	}
	os.Stdout.WriteString(fmt.Sprintln(cmd.Process.Pid))
	for _, s := range l.spaces {
		os.Stdout.WriteString(fmt.Sprintln(s.inode))
	}
	os.Stdout.Close()
	select {}
}

// TestKilled: what a lab has made goes with its process, however that ends.
func TestKilled(t *testing.T) {
	Need(t)
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(self)
	cmd.Env = append(os.Environ(), victim+"=1")
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	said, err := io.ReadAll(out)
	if err != nil {
		t.Fatal(err)
	}
	cmd.Process.Kill()
	cmd.Wait()
	words := strings.Fields(string(said))
	if len(words) != 10 { // a process, and nine namespaces
		t.Fatalf("it said %q", said)
	}
	inside := map[string]bool{}
	for _, inode := range words[1:] {
		inside["net:["+inode+"]"] = true
	}
	await(t, "gone", func() bool {
		ns, err := os.Readlink("/proc/" + words[0] + "/ns/net")
		return err != nil || !inside[ns]
	})
}
