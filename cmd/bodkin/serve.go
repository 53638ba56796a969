package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/bodkin-net/bodkin/internal/identity"
	"github.com/bodkin-net/bodkin/internal/netio"
	"github.com/bodkin-net/bodkin/internal/server"
	"github.com/bodkin-net/bodkin/internal/wire/locator"
)

func newServe() *cobra.Command {
	var f serveFlags
	cmd := &cobra.Command{
		Use:   "serve",
		Short: "Run the public server: rendezvous, relay and STUN",
		Long: `Run the server that both peers can reach. It tells them where the other is, and
relays what they send, encrypted from end to end, until they have a direct path.
It answers STUN (RFC 8489) too.

As soon as all sockets are open it prints one line: the server string, which
the other verbs take with --server. It runs until SIGINT or SIGTERM.`,
		Example: `  bodkin serve
  bodkin serve --udp 192.0.2.1:3478 --tcp 192.0.2.1:3478 --tcp 192.0.2.1:443`,
		Args:    noArgs,
		PreRunE: settle,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return f.run(cmd)
		},
	}
	cmd.Flags().StringSliceVar(&f.udp, "udp", nil, "listen on the UDP address `HOST:PORT`, or :PORT (repeatable)")
	cmd.Flags().StringSliceVar(&f.tcp, "tcp", nil, "listen on the TCP address `HOST:PORT`, or :PORT (repeatable);\nwithout --udp and --tcp: port 3478 of both, all addresses")
	cmd.Flags().StringVar(&f.data, "data", "", "directory `DIR` of the server's key and state;\n$XDG_DATA_HOME/bodkin/server if not given")
	cmd.Flags().StringVar(&f.name, "name", "", "host name or address `HOST` to put into the server string")
	cmd.Flags().BoolVar(&f.verbose, "verbose", false, "log to standard error what goes wrong")
	addJSON(cmd)
	return cmd
}

type serveFlags struct {
	udp, tcp   []string
	data, name string
	verbose    bool
}

func (f *serveFlags) run(cmd *cobra.Command) error {
	if f.verbose && asJSON {
		return usageError{errors.New("--verbose and --json exclude each other"), ""}
	}
	if len(f.udp)+len(f.tcp) == 0 {
		all := ":" + strconv.Itoa(locator.DefaultPort)
		f.udp, f.tcp = []string{all}, []string{all}
	}
	if f.data == "" {
		dir, err := dataDir()
		if err != nil {
			return err
		}
		f.data = filepath.Join(dir, "server")
	}
	key, err := identity.LoadOrCreate(filepath.Join(f.data, "key"))
	if err != nil {
		return err
	}
	cfg := server.Config{Key: key, StateFile: filepath.Join(f.data, "peers")}
	if f.verbose {
		cfg.Log = slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelDebug}))
	}
	where := locator.Locator{}
	id := key.ID()
	where.ID = &id
	if err := f.listen(cmd.Context(), &cfg, &where); err != nil {
		closeAll(cfg)
		return err
	}
	s, err := server.New(cfg)
	if err != nil {
		closeAll(cfg)
		return err
	}
	if err := writeResult(cmd.OutOrStdout(), where.String()+"\n"); err != nil {
		closeAll(cfg)
		return err
	}
	return s.Run(cmd.Context())
}

func closeAll(cfg server.Config) {
	for _, pc := range cfg.Packet {
		pc.Close()
	}
	for _, l := range cfg.Listeners {
		l.Close()
	}
}

// listen opens all sockets and writes down where they are.
func (f *serveFlags) listen(ctx context.Context, cfg *server.Config, where *locator.Locator) error {
	var lc net.ListenConfig
	lc.SetMultipathTCP(false) // the kernel cannot splice it
	for _, text := range f.udp {
		addr, err := listenAddr(text)
		if err != nil {
			return err
		}
		pc, err := lc.ListenPacket(ctx, "udp", addr)
		if err != nil {
			return listenError("UDP", text, err)
		}
		cfg.Packet = append(cfg.Packet, pc)
		f.place(where, pc.LocalAddr().(*net.UDPAddr).AddrPort(), locator.Place{UDP: true})
	}
	for _, text := range f.tcp {
		addr, err := listenAddr(text)
		if err != nil {
			return err
		}
		l, err := lc.Listen(ctx, "tcp", addr)
		if err != nil {
			return listenError("TCP", text, err)
		}
		cfg.Listeners = append(cfg.Listeners, l)
		f.place(where, l.Addr().(*net.TCPAddr).AddrPort(), locator.Place{TCP: true})
	}
	return nil
}

// listenAddr takes HOST:PORT, :PORT, HOST and PORT.
func listenAddr(text string) (string, error) {
	port := strconv.Itoa(locator.DefaultPort)
	bare := strings.TrimSuffix(strings.TrimPrefix(text, "["), "]")
	if _, err := netip.ParseAddr(bare); err == nil {
		return net.JoinHostPort(bare, port), nil
	}
	if n, err := strconv.ParseUint(text, 10, 16); err == nil {
		return ":" + strconv.Itoa(int(n)), nil
	}
	if !strings.Contains(text, ":") && text != "" {
		return net.JoinHostPort(text, port), nil
	}
	_, p, err := net.SplitHostPort(text)
	if err == nil {
		_, err = net.LookupPort("tcp", p)
	}
	if err != nil || p == "" {
		return "", usageError{fmt.Errorf("%q is no address to listen on", text), "expected HOST:PORT or :PORT"}
	}
	return text, nil
}

func listenError(transport, addr string, err error) error {
	hint := ""
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		hint = "another process listens there; is a server running already?"
	case errors.Is(err, syscall.EACCES):
		hint = "ports below 1024 need privileges"
	case errors.Is(err, syscall.EADDRNOTAVAIL):
		hint = "this machine does not have that address"
	}
	if op, ok := errors.AsType[*net.OpError](err); ok {
		err = op.Err // the address is said once
	}
	return hintError{fmt.Errorf("cannot listen on %s %s: %w", transport, addr, err), hint}
}

// place adds an open socket to the server string, together with the other
// transport on the same port where there is one.
func (f *serveFlags) place(where *locator.Locator, at netip.AddrPort, what locator.Place) {
	what.Port = at.Port()
	for _, host := range f.hosts(at.Addr().Unmap()) {
		what.Host = host
		i := slices.IndexFunc(where.Places, func(p locator.Place) bool { return p.Host == host && p.Port == what.Port })
		if i < 0 {
			where.Places = append(where.Places, what)
			continue
		}
		where.Places[i].UDP = where.Places[i].UDP || what.UDP
		where.Places[i].TCP = where.Places[i].TCP || what.TCP
	}
}

const maxHosts = 4 // in the server string, for a socket that listens on all addresses

// hosts is how others may name the address: itself, or for a wildcard the
// addresses this machine has, public ones if there are any.
func (f *serveFlags) hosts(addr netip.Addr) []string {
	if f.name != "" {
		return []string{f.name}
	}
	if !addr.IsUnspecified() {
		return []string{addr.String()}
	}
	all, _ := netio.OS{}.Addrs() // none is answered below
	var public, private []string
	for _, a := range all {
		switch {
		case addr.Is4() && !a.Is4():
		case a.IsPrivate():
			private = append(private, a.String())
		default:
			public = append(public, a.String())
		}
	}
	switch {
	case len(public) > 0:
		return public[:min(len(public), maxHosts)]
	case len(private) > 0:
		return private[:min(len(private), maxHosts)]
	}
	return []string{"127.0.0.1"}
}
