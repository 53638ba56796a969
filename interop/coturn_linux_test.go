package interop

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/bodkin-net/bodkin/internal/lab/netns"
	"github.com/bodkin-net/bodkin/internal/lab/scenario"
	"github.com/bodkin-net/bodkin/internal/machine/nat"
)

// home is a host behind a gateway, and coturn's server on two addresses (RFC
// 5780).
const home = `
hosts:
  client: home
  server: {network: internet, address: [198.51.100.1/24, 198.51.100.2/24]}
gateways:
  g: {inside: home, outside: internet}
`

// lab is home with a gateway of ours, or one of the kernel's.
func lab(t *testing.T, b nat.Behaviour, kernel bool) (*netns.Lab, error) {
	t.Helper()
	top, err := scenario.Load("home", []byte(home))
	if err != nil {
		return nil, err
	}
	top.Gateways[0].NAT = b
	l, err := netns.New(top, netns.Options{Kernel: kernel})
	if err != nil {
		return nil, err
	}
	t.Cleanup(func() {
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	})
	return l, nil
}

// coturn runs until the test ends.
func coturn(t *testing.T, server *netns.Host) {
	t.Helper()
	dir := t.TempDir()
	cmd := server.Command(context.Background(), tool(t, "turnserver"), "-n", "--stun-only", "--no-cli", "--no-tls", "--no-dtls", "--no-tcp",
		"--listening-ip", "198.51.100.1", "--listening-ip", "198.51.100.2", "--listening-port", "3478", "--alt-listening-port", "3479",
		"--pidfile", filepath.Join(dir, "pid"), "--userdb", filepath.Join(dir, "db"), "--log-file", "stdout", "--simple-log")
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := server.Start(cmd); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait()
		if t.Failed() {
			t.Logf("turnserver:\n%s", out.String())
		}
	})
	awaitSTUN(t, server)
}

// awaitSTUN asks until the server answers on all of its four endpoints.
func awaitSTUN(t *testing.T, server *netns.Host) {
	t.Helper()
	request := append([]byte{0, 1, 0, 0, 0x21, 0x12, 0xa4, 0x42}, "bodkin tests"...)
	err := server.Do(func() error {
		for _, at := range []string{"198.51.100.1:3478", "198.51.100.1:3479", "198.51.100.2:3478", "198.51.100.2:3479"} {
			if err := ask(at, request); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

func ask(at string, request []byte) error {
	c, err := net.Dial("udp", at)
	if err != nil {
		return err
	}
	defer c.Close()
	answer := make([]byte, 1500)
	for range 200 {
		c.Write(request)
		c.SetReadDeadline(time.Now().Add(50 * time.Millisecond))
		if n, err := c.Read(answer); err == nil && n >= 20 {
			return nil
		}
		time.Sleep(50 * time.Millisecond) // refused: the port is not open yet
	}
	return fmt.Errorf("turnserver does not answer at %s", at)
}

// tool is a program of a Debian package that .ci/run installs.
func tool(t *testing.T, name string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	switch {
	case err == nil:
		return path
	case os.Getenv(netns.Required) == "required":
		t.Fatal(err)
	default:
		t.Skip(err)
	}
	return ""
}

// run is what a program in the lab prints.
func run(t *testing.T, h *netns.Host, path string, args ...string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	cmd := h.Command(ctx, path, args...)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := h.Run(cmd); err != nil {
		t.Logf("%s: %v", filepath.Base(path), err)
	}
	return out.String()
}
