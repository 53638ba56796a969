package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"net"
	"time"

	"github.com/spf13/cobra"

	"github.com/bodkin-net/bodkin"
	"github.com/bodkin-net/bodkin/internal/identity"
	"github.com/bodkin-net/bodkin/internal/lab/scenario"
	"github.com/bodkin-net/bodkin/internal/lab/sim"
	"github.com/bodkin-net/bodkin/internal/server"
)

func newDemo() *cobra.Command {
	var size int
	cmd := &cobra.Command{
		Use:   "demo",
		Short: "Show one connection inside this process, step by step",
		Long: `Show what happens when two machines behind NATs connect. A server, two nodes
and two NATs run inside this process, with the same code as everywhere else, on
a simulated network; a file goes from one end to the other. Nothing touches the
real network.`,
		Example: "  bodkin demo",
		Args:    noArgs,
		PreRunE: settle,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if size < 1 || size > 1<<30 {
				return usageError{fmt.Errorf("--size %d is not between 1 and %d", size, 1<<30), ""}
			}
			return demo(cmd.Context(), cmd.OutOrStdout(), size)
		},
	}
	cmd.Flags().IntVar(&size, "size", 4<<20, "size of the file, `BYTES`")
	return cmd
}

const demoPicture = `
  a 10.1.0.2 --- NAT ga 198.51.100.11 ---.
                                          +--- s 198.51.100.1 (the server)
  b 10.2.0.2 --- NAT gb 198.51.100.12 ---'

  20 ms from each NAT, and from the server, to the middle. Both NATs keep the
  port where they can and let in only what answers a packet to the very same
  endpoint (address-and-port-dependent filtering, RFC 4787).

`

func demo(ctx context.Context, out io.Writer, size int) error {
	log := newDemoLog(out)
	if err := writeResult(out, demoPicture); err != nil {
		return err
	}
	world, err := sim.New(scenario.TwoHomes(scenario.PortRestricted, scenario.PortRestricted), sim.Options{Seed: 1, Trace: log.packet})
	if err != nil {
		return err
	}
	defer world.Close()
	file := make([]byte, size)
	rand.Read(file)
	log.start = time.Now()
	got, err := carry(ctx, world, log, file)
	if err != nil {
		return err
	}
	log.say("a sent         %d bytes, SHA-256 %x", len(file), sha256.Sum256(file))
	log.say("b has the file: %d bytes, SHA-256 %x", len(got), sha256.Sum256(got))
	relayed := world.Counters(scenario.Internet, scenario.ServerAddr, scenario.GatewayBAddr)
	direct := world.Counters(scenario.Internet, scenario.GatewayAAddr, scenario.GatewayBAddr)
	log.say("on the way to b: %d kB through the server, %d kB direct", relayed.Bytes/1000, direct.Bytes/1000)
	if !bytes.Equal(got, file) {
		return errors.New("the files differ")
	}
	log.say("the files are the same")
	return log.err()
}

// carry starts everything, sends the file from a to b, stops everything, and
// returns what b has got.
func carry(ctx context.Context, world *sim.Network, log *demoLog, file []byte) ([]byte, error) {
	locator, stop, err := demoServer(world.Host("s"))
	if err != nil {
		return nil, err
	}
	defer stop()
	a, err := demoNode(world, log, "a", locator)
	if err != nil {
		return nil, err
	}
	defer a.Close()
	b, err := demoNode(world, log, "b", locator)
	if err != nil {
		return nil, err
	}
	defer b.Close()
	listener, err := b.Listen()
	if err != nil {
		return nil, err
	}
	for _, n := range []*bodkin.Node{a, b} {
		if err := n.Ready(ctx); err != nil {
			return nil, err
		}
	}
	log.say("a asks for b, and sends the file")
	conn, err := a.Dial(ctx, b.ID())
	if err != nil {
		return nil, err
	}
	sent := make(chan error, 1)
	go func() {
		_, err := conn.Write(file)
		sent <- errors.Join(err, conn.CloseWrite())
	}()
	got, err := receiveFile(ctx, listener)
	if err != nil {
		return nil, err
	}
	return got, <-sent
}

func receiveFile(ctx context.Context, l *bodkin.Listener) ([]byte, error) {
	conn, err := l.AcceptConn(ctx)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	return io.ReadAll(conn)
}

func demoServer(host *sim.Host) (locator string, stop func(), err error) {
	pc, err := host.ListenUDP(3478)
	if err != nil {
		return "", nil, err
	}
	l, err := host.ListenTCP(3478)
	if err != nil {
		return "", nil, err
	}
	key := identity.Generate()
	s, err := server.New(server.Config{Key: key, Packet: []net.PacketConn{pc}, Listeners: []net.Listener{l}})
	if err != nil {
		return "", nil, err
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		s.Run(ctx)
	}()
	return fmt.Sprintf("%v@%v", key.ID(), scenario.ServerAddr), func() { cancel(); <-done }, nil
}

func demoNode(world *sim.Network, log *demoLog, name, locator string) (*bodkin.Node, error) {
	return bodkin.New(bodkin.Config{
		Server:  locator,
		Network: world.Host(name),
		Observe: func(e bodkin.Event) { log.event(name, e) },
	})
}
