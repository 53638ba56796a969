package main

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
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
one, wherever that is, an address, or "all"; "--restore" takes it back.

Several changes at once are all checked before the first is made.`,
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
			if change.Move, err = moveTo(cmd.Flags().Changed("move"), move, addrs); err != nil {
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
	cmd.SetFlagErrorFunc(wrongFlag)
	addLinkFlags(f, &link)
	f.StringArrayVar(&change.Cut, "cut", nil, "let nothing through to `OTHER`: a host, a gateway, an address, or all (repeatable)")
	f.StringArrayVar(&change.Restore, "restore", nil, "take back a cut from `OTHER`, or from all (repeatable)")
	f.StringVar(&change.Protocol, "protocol", "", "cut and restore only `tcp|udp|icmp|icmpv6`")
	f.BoolVar(&blockUDP, "block-udp", false, "gateway: drop all UDP; --block-udp=false: no longer")
	f.BoolVar(&change.Reboot, "reboot", false, "gateway: forget every mapping")
	f.BoolVar(&change.NewLease, "new-lease", false, "get another IPv4 address, by DHCP where there is that")
	f.StringVar(&move, "move", "", "host: move to `NETWORK`")
	f.StringArrayVar(&addrs, "address", nil, "host: `ADDR/BITS` there (repeatable); by DHCP if not given")
	flags.complete(cmd, func(i control.Info) []string {
		return slices.Compact(slices.Sorted(slices.Values(append(nodesOf(i), i.Ports...))))
	})
	return cmd
}

func moveTo(moves bool, network string, addrs []string) (*control.Move, error) {
	if !moves {
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

// linkFlag is a flag that tells what was not given from zero, and refuses what
// files refuse, in the same words.
type linkFlag[T any] struct {
	to    **T
	parse func(string) (T, error)
	link  func(T) scenario.Link
}

// linkType is the type of every such flag.
const linkType = "link"

func (linkFlag[T]) Type() string   { return linkType }
func (linkFlag[T]) String() string { return "" }

func (f linkFlag[T]) Set(text string) error {
	v, err := f.parse(text)
	if err == nil {
		err = scenario.CheckLink(f.link(v))
	}
	if err != nil {
		return err
	}
	*f.to = &v
	return nil
}

func addLinkFlags(f *pflag.FlagSet, c *control.LinkChange) {
	f.Var(linkFlag[time.Duration]{&c.Delay, scenario.ParseTime, func(v time.Duration) scenario.Link { return scenario.Link{Delay: v} }},
		"delay", "one-way delay of the link, `TIME` like 20ms")
	f.Var(linkFlag[time.Duration]{&c.Jitter, scenario.ParseTime, func(v time.Duration) scenario.Link { return scenario.Link{Jitter: v} }},
		"jitter", "up to `TIME` more delay, at random")
	f.Var(linkFlag[float64]{&c.Loss, scenario.ParseShare, func(v float64) scenario.Link { return scenario.Link{Loss: v} }},
		"loss", "`SHARE` of packets that get lost, like 1%")
	f.Var(linkFlag[float64]{&c.Reorder, scenario.ParseShare, func(v float64) scenario.Link { return scenario.Link{Reorder: v} }},
		"reorder", "`SHARE` of packets that overtake those before")
	f.Var(linkFlag[float64]{&c.Duplicate, scenario.ParseShare, func(v float64) scenario.Link { return scenario.Link{Repeat: v} }},
		"duplicate", "`SHARE` of packets that arrive twice")
	f.Var(linkFlag[int64]{&c.Rate, scenario.ParseRate, func(v int64) scenario.Link { return scenario.Link{Rate: v} }},
		"rate", "`RATE` like 10mbit or 500kbit, or unlimited")
	f.Var(linkFlag[int]{&c.MTU, scenario.ParseSize, func(v int) scenario.Link { return scenario.Link{MTU: v} }},
		"mtu", "largest IP packet, `BYTES`")
}

// wrongFlag tells a mistake in a link's properties as a file's is told.
func wrongFlag(cmd *cobra.Command, err error) error {
	var wrong *pflag.InvalidValueError
	if errors.As(err, &wrong) && wrong.GetFlag().Value.Type() == linkType {
		err = fmt.Errorf("--%s: %w", wrong.GetFlag().Name, wrong.Unwrap())
	}
	return usageError{err, fmt.Sprintf("see `%s --help`", cmd.CommandPath())}
}
