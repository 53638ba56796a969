package conformance

import (
	"slices"
	"time"

	"github.com/bodkin-net/bodkin/internal/machine/nat"
	"github.com/bodkin-net/bodkin/internal/machine/nat/ip"
)

// faults make gateways that are wrong in ways that no behaviour is.
var faults = []maker{
	// Nothing that it says itself gets out.
	faulty(func(g *nat.Gateway) gateway { return &mute{g} }),
	// What it should drop passes as it is.
	faulty(func(g *nat.Gateway) gateway { return &leaky{g} }),
	// An ICMP message makes it forget everything, and so does a full table.
	faulty(func(g *nat.Gateway) gateway { return &forgetful{g} }),
	// Connections never end.
	faulty(func(g *nat.Gateway) gateway { return &endless{g} }),
	// It answers whatever it drops.
	faulty(func(g *nat.Gateway) gateway { return &chatty{Gateway: g} }),
	// Its clock is fast, or slow.
	faulty(func(g *nat.Gateway) gateway { return &warped{g, 2, 1} }),
	faulty(func(g *nat.Gateway) gateway { return &warped{g, 1, 2} }),
	// It does as it is told only in part.
	deaf(func(c *nat.Config) { c.Untranslated, c.Own[nat.Outside] = nil, c.Own[nat.Outside][:1] }),
	deaf(func(c *nat.Config) { c.Ports.PerHost, c.Ports.Rate, c.Ports.HoldDown, c.Ports.Held = 0, 0, 0, 0 }),
	deaf(func(c *nat.Config) { c.Filtering, c.MaxMappings = nat.AddressAndPortDependent, 1<<20 }),
}

func faulty(spoil func(*nat.Gateway) gateway) maker {
	return func(c nat.Config) (gateway, error) {
		g, err := nat.New(c)
		if err != nil {
			return nil, err
		}
		return spoil(g), nil
	}
}

func deaf(spoil func(*nat.Config)) maker {
	return func(c nat.Config) (gateway, error) {
		spoil(&c)
		return nat.New(c)
	}
}

type mute struct{ *nat.Gateway }

func (m *mute) Poll() (nat.Out, bool) {
	for _, ok := m.Gateway.Poll(); ok; _, ok = m.Gateway.Poll() {
	}
	return nat.Out{}, false
}

type leaky struct{ *nat.Gateway }

func (l *leaky) Handle(now time.Time, from nat.Side, pkt []byte, off nat.Offload) nat.Verdict {
	before := slices.Clone(pkt)
	v := l.Gateway.Handle(now, from, pkt, off)
	if v.Action == nat.Drop && v.Reason != nat.Kept {
		copy(pkt, before)
		v = nat.Verdict{Action: nat.Forward, To: nat.Outside}
		if from == nat.Outside {
			v.To = nat.Inside
		}
	}
	return v
}

type forgetful struct{ *nat.Gateway }

func (f *forgetful) Handle(now time.Time, from nat.Side, pkt []byte, off nat.Offload) nat.Verdict {
	v := f.Gateway.Handle(now, from, pkt, off)
	if from == nat.Outside && pkt[9] == 1 || v.Reason == nat.TableFull {
		f.Reset()
	}
	return v
}

type endless struct{ *nat.Gateway }

func (e *endless) Handle(now time.Time, from nat.Side, pkt []byte, off nat.Offload) nat.Verdict {
	if pkt[9] == 6 && pkt[33]&(ip.FIN|ip.RST) != 0 {
		return nat.Verdict{Action: nat.Drop, Reason: nat.OutOfWindow}
	}
	return e.Gateway.Handle(now, from, pkt, off)
}

type chatty struct {
	*nat.Gateway
	says []nat.Out
}

func (c *chatty) Handle(now time.Time, from nat.Side, pkt []byte, off nat.Offload) nat.Verdict {
	v := c.Gateway.Handle(now, from, pkt, off)
	if v.Action == nat.Drop {
		c.says = append(c.says, nat.Out{To: from, Packet: icmp(ours, addrY, 3, 13, 0, pkt[:28])})
	}
	return v
}

func (c *chatty) Poll() (nat.Out, bool) {
	if len(c.says) > 0 {
		out := c.says[0]
		c.says = c.says[1:]
		return out, true
	}
	return c.Gateway.Poll()
}

// warped counts times as many seconds in over ones.
type warped struct {
	*nat.Gateway
	times, over time.Duration
}

func (w *warped) clock(t time.Time) time.Time {
	return begin.Add(t.Sub(begin) * w.times / w.over)
}

func (w *warped) Handle(now time.Time, from nat.Side, pkt []byte, off nat.Offload) nat.Verdict {
	return w.Gateway.Handle(w.clock(now), from, pkt, off)
}

func (w *warped) HandleTimeout(now time.Time) { w.Gateway.HandleTimeout(w.clock(now)) }

// NextTimeout is rounded up, or there would be something due for ever.
func (w *warped) NextTimeout() (time.Time, bool) {
	t, ok := w.Gateway.NextTimeout()
	return begin.Add((t.Sub(begin)*w.over + w.times - 1) / w.times), ok
}

func (w *warped) Map(now time.Time, want nat.Request) (nat.Mapping, error) {
	return w.Gateway.Map(w.clock(now), want)
}
