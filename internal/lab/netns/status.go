package netns

import "github.com/bodkin-net/bodkin/internal/lab/snapshot"

// What Status says, as the simulator says it too.
type (
	Snapshot      = snapshot.Snapshot
	NetworkStatus = snapshot.Network
	PortStatus    = snapshot.Port
	HostStatus    = snapshot.Host
	GatewayStatus = snapshot.Gateway
	Lease         = snapshot.Lease
	CutStatus     = snapshot.Cut
	Event         = snapshot.Event
	Count         = snapshot.Count
)
