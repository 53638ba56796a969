package main

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/bodkin-net/bodkin/internal/lab/control"
	"github.com/bodkin-net/bodkin/internal/lab/scenario"
)

func newLabSet() *cobra.Command {
	var flags labFlags
	var change control.Change
	var link control.LinkChange
	var move string
	var addrs []string
	var blockUDP bool
	cmd := &cobra.Command{
		Use:   "set HOST|GATEWAY[/inside|/outside|/dmz]",
		Short: "Change a link, move a host, reboot a NAT, cut and restore",
		Long: `Change something at a host or gateway while the lab is up.

A link's properties hold in each direction, from now on; what is not named stays.
The link of a gateway is the one on its outside unless the name says another.
"--cut OTHER" lets nothing through any more between a host or gateway and another
one, wherever that is, an address, or "all"; "--restore" takes it back.`,
		Example: `  bodkin lab set ga --delay 40ms --jitter 5ms --loss 1%
  bodkin lab set a --rate 10mbit --mtu 1400
  bodkin lab set ga --reboot
  bodkin lab set a --move home-b
  bodkin lab set a --move internet --address 198.51.100.77/24
  bodkin lab set a --cut b
  bodkin lab set a --restore all`,
		Args: words("HOST"),
		RunE: func(cmd *cobra.Command, args []string) error {
			change.Node = args[0]
			var err error
			if link != (control.LinkChange{}) {
				change.Link = &link
			}
			if cmd.Flags().Changed("block-udp") {
				change.BlockUDP = &blockUDP
			}
			if change.Move, err = moveTo(move, addrs); err != nil {
				return err
			}
			changed := 0
			cmd.Flags().Visit(func(f *pflag.Flag) {
				if f.Name != "name" && f.Name != "protocol" {
					changed++
				}
			})
			if changed == 0 {
				return usageError{errors.New("nothing to set"), fmt.Sprintf("see `%s --help`", cmd.CommandPath())}
			}
			c, err := flags.open()
			if err != nil {
				return err
			}
			defer c.Close()
			return c.Set(change)
		},
	}
	flags.add(cmd)
	f := cmd.Flags()
	f.Var(duration{&link.Delay}, "delay", "one-way delay of the link, `TIME` like 20ms")
	f.Var(duration{&link.Jitter}, "jitter", "up to `TIME` more delay, at random")
	f.Var(share{&link.Loss}, "loss", "`SHARE` of packets that get lost, like 1%")
	f.Var(share{&link.Reorder}, "reorder", "`SHARE` of packets that overtake those before")
	f.Var(share{&link.Duplicate}, "duplicate", "`SHARE` of packets that arrive twice")
	f.Var(rate{&link.Rate}, "rate", "`RATE` like 10mbit, 500kbit; unlimited")
	f.Var(packetSize{&link.MTU}, "mtu", "largest IP packet, `BYTES`")
	f.StringArrayVar(&change.Cut, "cut", nil, "let nothing through to `OTHER`: a host, a gateway, an address, or all (repeatable)")
	f.StringArrayVar(&change.Restore, "restore", nil, "take back a cut from `OTHER`, or from all (repeatable)")
	f.StringVar(&change.Protocol, "protocol", "", "cut and restore only `tcp|udp|icmp|icmpv6`")
	f.BoolVar(&blockUDP, "block-udp", false, "gateway: drop all UDP; --block-udp=false: no longer")
	f.BoolVar(&change.Reboot, "reboot", false, "gateway: forget every mapping")
	f.BoolVar(&change.NewLease, "new-lease", false, "get another address by DHCP")
	f.StringVar(&move, "move", "", "host: move to `NETWORK`")
	f.StringArrayVar(&addrs, "address", nil, "host: `ADDR/BITS` there, one a family; by DHCP if not given")
	flags.complete(cmd, func(i control.Info) []string {
		return slices.Compact(slices.Sorted(slices.Values(append(nodesOf(i), i.Ports...))))
	})
	return cmd
}

func moveTo(network string, addrs []string) (*control.Move, error) {
	if network == "" {
		if len(addrs) > 0 {
			return nil, usageError{errors.New("--address without --move"), "say to which network: --move NETWORK"}
		}
		return nil, nil
	}
	m := &control.Move{Network: network}
	for _, a := range addrs {
		p, err := netip.ParsePrefix(a)
		if err != nil {
			return nil, usageError{fmt.Errorf("--address %q is no address with a prefix length", a), "like 10.1.0.7/24"}
		}
		m.Addrs = append(m.Addrs, p)
	}
	return m, nil
}

// The types of flags that tell what was not given from zero.
type (
	duration   struct{ to **time.Duration }
	share      struct{ to **float64 }
	rate       struct{ to **int64 }
	packetSize struct{ to **int }
)

func (duration) Type() string   { return "time" }
func (share) Type() string      { return "share" }
func (rate) Type() string       { return "rate" }
func (packetSize) Type() string { return "bytes" }

func (duration) String() string   { return "" }
func (share) String() string      { return "" }
func (rate) String() string       { return "" }
func (packetSize) String() string { return "" }

func (d duration) Set(text string) error {
	v, err := time.ParseDuration(text)
	if err != nil || v < 0 || v > time.Hour {
		return errors.New("a time of at most an hour, with its unit: 20ms, 1.5s")
	}
	*d.to = &v
	return nil
}

func (s share) Set(text string) error {
	v, ok := scenario.ParseShare(text)
	if !ok {
		return errors.New("a share of packets: 1% or 0.01")
	}
	*s.to = &v
	return nil
}

func (r rate) Set(text string) error {
	v, ok := scenario.ParseRate(text)
	if text == "unlimited" {
		v, ok = 0, true
	}
	if !ok {
		return errors.New("bits a second: 500kbit, 10mbit, 1gbit, or unlimited")
	}
	*r.to = &v
	return nil
}

func (b packetSize) Set(text string) error {
	v, err := strconv.Atoi(text)
	if err != nil || v < 68 || v > 65535 {
		return errors.New("bytes, 68 to 65535")
	}
	*b.to = &v
	return nil
}
