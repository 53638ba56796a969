package e2e

import (
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/bodkin-net/bodkin/internal/lab/netns"
)

const sshAddr = "127.0.0.1:2222" // on host b

// TestSSH: OpenSSH's client reaches OpenSSH's server through the command.
func TestSSH(t *testing.T) {
	t.Parallel()
	netns.Need(t)
	programs := map[string]string{}
	for _, name := range []string{"sshd", "ssh", "scp", "ssh-keygen"} {
		programs[name] = need(t, name)
	}
	w := twoHomes(t)
	dir := t.TempDir()
	file := func(name string) string { return filepath.Join(dir, name) }
	for _, name := range []string{"host", "user"} {
		if out, err := exec.Command(programs["ssh-keygen"], "-q", "-t", "ed25519", "-N", "", "-f", file(name)).CombinedOutput(); err != nil {
			t.Fatalf("ssh-keygen: %v\n%s", err, out)
		}
	}
	who, err := user.Current()
	if err != nil {
		t.Fatal(err)
	}
	write(t, file("sshd_config"), `
ListenAddress `+sshAddr+`
HostKey `+file("host")+`
AuthorizedKeysFile `+file("user.pub")+`
PidFile none
UsePAM no
StrictModes no
PermitRootLogin yes
PasswordAuthentication no
Subsystem sftp internal-sftp
`)
	// The shell of a user may have a tongue of its own; the proxy's has not.
	write(t, file("ssh_config"), `
Host b
User `+who.Username+`
ProxyCommand `+programPath(t)+` connect --json `+w.id("b")+`
IdentityFile `+file("user")+`
IdentitiesOnly yes
UserKnownHostsFile `+file("known_hosts")+`
GlobalKnownHostsFile none
StrictHostKeyChecking accept-new
BatchMode yes
`)
	// Where it keeps its privileges separate; packages make it at boot.
	if err := os.MkdirAll("/run/sshd", 0o755); err != nil {
		t.Fatal(err)
	}
	daemon := w.command("b", programs["sshd"], "-D", "-e", "-f", file("sshd_config")).start()
	awaitTCP(t, daemon, sshAddr)
	b := w.listen("b", "--keep", "--to", sshAddr)

	a := w.command("a", programs["ssh"], "-F", file("ssh_config"), "b", "echo", "reached", "$SSH_CONNECTION").start()
	a.stdin.Close()
	out, err := io.ReadAll(a.stdout)
	if err != nil {
		t.Fatal(err)
	}
	a.mustExit(patience)
	if got := string(out); !strings.HasPrefix(got, "reached 127.0.0.1 ") {
		t.Errorf("the remote command says %q", got)
	}

	content, err := os.Create(file("content"))
	if err != nil {
		t.Fatal(err)
	}
	want := <-feed(content, 5, 10_000_000)
	begun := time.Now()
	c := w.command("a", programs["scp"], "-q", "-F", file("ssh_config"), file("content"), "b:"+file("copy")).start()
	c.stdin.Close()
	c.mustExit(60 * time.Second)
	took := time.Since(begun)
	arrived, err := os.Open(file("copy"))
	if err != nil {
		t.Fatal(err)
	}
	defer arrived.Close()
	if got := <-hashOf(arrived); got.sum != want.sum || got.bytes != want.bytes {
		t.Errorf("copied %+v, want %+v", got, want)
	}
	t.Logf("scp of 10 MB: %v", took.Round(time.Millisecond))
	if _, n := b.awaitPath("direct", 0, patience); n == 0 {
		t.Error("never a direct path")
	}
}

// need finds a program, or skips the test, or fails it where everything must
// be there.
func need(t *testing.T, name string) string {
	t.Helper()
	for _, dir := range append(filepath.SplitList(os.Getenv("PATH")), "/usr/sbin") {
		if path, err := exec.LookPath(filepath.Join(dir, name)); err == nil {
			return path
		}
	}
	missing := fmt.Sprintf("no %s: .ci/run knows its package", name)
	if os.Getenv(netns.Required) == "required" {
		t.Fatal(missing)
	}
	t.Skip(missing)
	return ""
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func programPath(t *testing.T) string {
	t.Helper()
	path, err := program()
	if err != nil {
		t.Fatal(err)
	}
	return path
}

// awaitTCP waits until something on the process's host listens.
func awaitTCP(t *testing.T, p *process, addr string) {
	t.Helper()
	for deadline := time.Now().Add(patience); ; {
		err := p.host.Do(func() error {
			c, err := net.DialTimeout("tcp", addr, time.Second)
			if err == nil {
				c.Close()
			}
			return err
		})
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatal(err)
		}
		select {
		case <-p.exited:
			t.Fatalf("%s: %v", p.name, p.cmd.ProcessState)
		case <-time.After(10 * time.Millisecond):
		}
	}
}
