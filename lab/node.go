package lab

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os/exec"
	"strings"

	"github.com/bodkin-net/bodkin/internal/lab/netns"
)

// Node is a host or a gateway of a lab.
type Node struct {
	host *netns.Host
	lab  *Lab
}

// Name is its name in the topology.
func (n *Node) Name() string { return n.host.Name() }

// Addrs are the addresses that it has now, the outside ones of a gateway.
func (n *Node) Addrs() []netip.Prefix { return n.host.Addrs() }

// Addr is the first of them, IPv4 before IPv6; invalid if there is none yet.
func (n *Node) Addr() netip.Addr {
	if a := n.host.Addr(true); a.IsValid() {
		return a
	}
	return n.host.Addr(false)
}

// Do runs f on a thread in the node's namespace, to open sockets of any kind
// there; they can be used anywhere after. What f does on other goroutines is
// outside of the namespace, so addresses must be literal.
func (n *Node) Do(f func() error) error { return n.host.Do(f) }

// Dial connects from the node. In place of an address the name of a host or
// gateway can stand: "s:80". It fits into http.Transport.DialContext.
func (n *Node) Dial(ctx context.Context, network, address string) (net.Conn, error) {
	address, err := n.lab.resolve(network, address)
	if err != nil {
		return nil, err
	}
	var c net.Conn
	err = n.host.Do(func() (err error) {
		c, err = new(net.Dialer).DialContext(ctx, network, address)
		return err
	})
	return c, err
}

// Listen opens a listener on the node; ":0" is any port of all addresses.
func (n *Node) Listen(network, address string) (net.Listener, error) {
	address, err := n.lab.resolve(network, address)
	if err != nil {
		return nil, err
	}
	var l net.Listener
	err = n.host.Do(func() (err error) {
		l, err = net.Listen(network, address)
		return err
	})
	return l, err
}

// ListenPacket opens a packet socket on the node.
func (n *Node) ListenPacket(network, address string) (net.PacketConn, error) {
	address, err := n.lab.resolve(network, address)
	if err != nil {
		return nil, err
	}
	var c net.PacketConn
	err = n.host.Do(func() (err error) {
		c, err = net.ListenPacket(network, address)
		return err
	})
	return c, err
}

// resolve puts the address of a node in the place of its name. There is no
// other name service in a lab.
func (l *Lab) resolve(network, address string) (string, error) {
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return "", fmt.Errorf("lab: %w", err)
	}
	if host == "" {
		return address, nil
	}
	if _, err := netip.ParseAddr(host); err == nil {
		return address, nil
	}
	node := l.net.Host(host)
	if node == nil {
		return "", fmt.Errorf("lab: %s is neither an address nor a host of the lab", host)
	}
	addr := node.Addr(true)
	if strings.HasSuffix(network, "6") || !addr.IsValid() {
		addr = node.Addr(false)
	}
	if !addr.IsValid() {
		return "", fmt.Errorf("lab: %s has no address for %s", host, network)
	}
	return net.JoinHostPort(addr.String(), port), nil
}

// Cmd is a program to be run on a node. Its fields and its other methods are
// those of exec.Cmd. The kernel kills it when the lab is closed or this process
// ends.
type Cmd struct {
	*exec.Cmd
	node *netns.Host
}

// Command is like exec.CommandContext.
func (n *Node) Command(ctx context.Context, name string, args ...string) *Cmd {
	return &Cmd{n.host.Command(ctx, name, args...), n.host}
}

// Start starts the program. Wait for it with Wait.
func (c *Cmd) Start() error { return c.node.Start(c.Cmd) }

// Run starts the program and waits for it.
func (c *Cmd) Run() error { return c.node.Run(c.Cmd) }

// Output runs the program and returns its standard output.
func (c *Cmd) Output() ([]byte, error) {
	if c.Stdout != nil {
		return nil, errors.New("lab: Stdout is set already")
	}
	var out, words bytes.Buffer
	c.Stdout = &out
	own := c.Stderr == nil
	if own {
		c.Stderr = &words
	}
	err := c.Run()
	var failed *exec.ExitError
	if errors.As(err, &failed) && own {
		failed.Stderr = words.Bytes()
	}
	return out.Bytes(), err
}

// CombinedOutput runs the program and returns its standard output and error.
func (c *Cmd) CombinedOutput() ([]byte, error) {
	if c.Stdout != nil || c.Stderr != nil {
		return nil, errors.New("lab: Stdout or Stderr is set already")
	}
	var out bytes.Buffer
	c.Stdout, c.Stderr = &out, &out
	err := c.Run()
	return out.Bytes(), err
}
