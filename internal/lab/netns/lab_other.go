//go:build !linux

package netns

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"runtime"

	"github.com/bodkin-net/bodkin/internal/lab/scenario"
)

var errNotLinux = fmt.Errorf("netns: labs are made of Linux network namespaces; this is %s: %w", runtime.GOOS, errors.ErrUnsupported)

func probe() error { return errNotLinux }

// Lab cannot be built here: New says so.
type Lab struct{}

// Host is a namespace of a lab.
type Host struct{}

func New(scenario.Topology, Options) (*Lab, error) { return nil, errNotLinux }

func (*Lab) Close() error                                   { return errNotLinux }
func (*Lab) Warnings() []string                             { return nil }
func (*Lab) Host(string) *Host                              { return nil }
func (*Lab) SetLink(string, scenario.Link) error            { return errNotLinux }
func (*Lab) Cut(netip.Addr, netip.Addr, Protocol) error     { return errNotLinux }
func (*Lab) Restore(netip.Addr, netip.Addr, Protocol) error { return errNotLinux }
func (*Lab) Counters() (Counters, error)                    { return nil, errNotLinux }
func (*Lab) Capture(network, path string) error             { return errNotLinux }
func (*Lab) StopCapture(network string) error               { return errNotLinux }
func (*Lab) RebootGateway(string) error                     { return errNotLinux }
func (*Lab) NewLease(string) error                          { return errNotLinux }
func (*Lab) Move(_, _ string, _ []netip.Prefix) error       { return errNotLinux }
func (*Lab) CheckNewLease(string) error                     { return errNotLinux }
func (*Lab) CheckMove(_, _ string, _ []netip.Prefix) error  { return errNotLinux }
func (*Lab) Status() Snapshot                               { return Snapshot{} }
func (*Lab) BlockUDP(string, bool) error                    { return errNotLinux }
func (*Host) Name() string                                  { return "" }
func (*Host) Addr(bool) netip.Addr                          { return netip.Addr{} }
func (*Host) Addrs() []netip.Prefix                         { return nil }
func (*Host) NetNS() (*os.File, error)                      { return nil, errNotLinux }
func (*Host) Do(func() error) error                         { return errNotLinux }
func (*Host) Start(*exec.Cmd) error                         { return errNotLinux }
func (*Host) Run(*exec.Cmd) error                           { return errNotLinux }
func (*Host) Command(ctx context.Context, path string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, path, args...)
	cmd.Err = errNotLinux
	return cmd
}
