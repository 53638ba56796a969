package server

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"runtime/debug"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// A server in a process of its own, which is this test binary once more: it can
// be killed, and its CPU and memory are its own.

const childEnv = "BODKIN_TEST_SERVER"

type childConfig struct {
	Mode    string // "server", or a bare loop
	UDP     string
	State   string
	Workers int
	Log     bool
}

type childReport struct {
	CPU   time.Duration
	Heap  uint64 // bytes in use after a collection, stacks included
	RSS   uint64
	Stats Stats
	Bare  uint64 // datagrams answered by a bare loop
}

// child runs the server if this process is to be one.
func child() bool {
	text := os.Getenv(childEnv)
	if text == "" {
		return false
	}
	var c childConfig
	if err := json.Unmarshal([]byte(text), &c); err != nil {
		panic(err)
	}
	if err := c.run(); err != nil {
		fmt.Fprintln(os.Stderr, "child:", err)
		os.Exit(1)
	}
	return true
}

func (c childConfig) run() error {
	pc, err := net.ListenPacket("udp4", c.UDP)
	if err != nil {
		return err
	}
	var report func() childReport
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	done := make(chan error, 1)
	if c.Mode == "server" {
		cfg := Config{Key: seed(1), Packet: []net.PacketConn{pc}, StateFile: c.State}
		cfg.Limits.KeyWorkers = c.Workers
		if c.Log {
			cfg.Log = slog.New(slog.NewTextHandler(os.Stderr, nil))
		}
		s, err := New(cfg)
		if err != nil {
			return err
		}
		go func() { done <- s.Run(ctx) }()
		report = func() childReport { return childReport{Stats: s.Stats()} }
	} else {
		loop := newBareLoop(pc.(*net.UDPConn), c.Mode)
		go func() { done <- loop.run() }()
		context.AfterFunc(ctx, func() { pc.Close() })
		report = func() childReport { return childReport{Bare: loop.answered.Load()} }
	}
	fmt.Println(pc.LocalAddr())
	commands := bufio.NewScanner(os.Stdin)
	for commands.Scan() {
		r := report()
		if commands.Text() == "memory" {
			debug.FreeOSMemory()
			var m runtime.MemStats
			runtime.ReadMemStats(&m)
			r.Heap = m.HeapInuse + m.StackInuse
			r.RSS = rss()
		}
		r.CPU = cpu(unix.RUSAGE_SELF)
		json.NewEncoder(os.Stdout).Encode(r)
	}
	cancel()
	return <-done
}

func rss() (bytes uint64) {
	b, _ := os.ReadFile("/proc/self/status")
	for line := range strings.Lines(string(b)) {
		if n, _ := fmt.Sscanf(line, "VmRSS: %d kB", &bytes); n == 1 {
			return bytes << 10
		}
	}
	return 0
}

// process is the parent's end.
type process struct {
	t    testing.TB
	cmd  *exec.Cmd
	in   *json.Decoder
	out  *os.File
	addr netip.AddrPort
}

func spawn(t testing.TB, c childConfig) *process {
	t.Helper()
	text, err := json.Marshal(c)
	if err != nil {
		t.Fatal(err)
	}
	p := &process{t: t, cmd: exec.Command("/proc/self/exe")}
	p.cmd.Env = append(os.Environ(), childEnv+"="+string(text))
	p.cmd.Stderr = os.Stderr
	stdin, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	p.cmd.Stdin, p.out = stdin, w
	stdout, err := p.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	stdin.Close()
	t.Cleanup(p.end)
	r := bufio.NewReader(stdout)
	line, err := r.ReadString('\n')
	if err != nil {
		t.Fatalf("child: %v", err)
	}
	p.addr = netip.MustParseAddrPort(strings.TrimSpace(line))
	p.in = json.NewDecoder(r)
	return p
}

// ask returns the child's report; "memory" makes it collect garbage first.
func (p *process) ask(command string) (r childReport) {
	p.t.Helper()
	if _, err := fmt.Fprintln(p.out, command); err != nil {
		p.t.Fatal(err)
	}
	if err := p.in.Decode(&r); err != nil {
		p.t.Fatal(err)
	}
	return r
}

// end stops the child gracefully.
func (p *process) end() {
	if p.out == nil {
		return
	}
	p.out.Close()
	p.out = nil
	if err := p.cmd.Wait(); err != nil {
		p.t.Errorf("child: %v", err)
	}
}

// kill is kill -9.
func (p *process) kill() {
	p.cmd.Process.Kill()
	p.cmd.Wait()
	p.out.Close()
	p.out = nil
}
