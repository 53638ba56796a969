package portmap

import (
	"errors"
	"math/rand/v2"
	"net/netip"
	"testing"
	"time"

	"github.com/bodkin-net/bodkin/internal/machine/nat/ip"
)

var (
	start    = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	own      = netip.MustParseAddr("192.168.1.1")
	anna     = netip.MustParseAddr("192.168.1.20")
	ben      = netip.MustParseAddr("192.168.1.30")
	stranger = netip.MustParseAddr("203.0.113.9")
	outside  = netip.MustParseAddr("198.51.100.11")
)

// doors is a gateway of ports and nothing else.
type doors struct {
	address netip.Addr
	open    map[door]Request
	taken   map[door]bool // by something else
	most    int
}

type door struct {
	proto ip.Proto
	port  uint16
}

func (d *doors) External(netip.Addr) netip.Addr { return d.address }

func (d *doors) Map(_ time.Time, want Request) (netip.AddrPort, error) {
	if want.External == 0 {
		want.External = want.Internal.Port()
		for d.has(want) {
			want.External++
		}
	}
	key := door{want.Proto, want.External}
	if d.has(want) {
		return netip.AddrPort{}, ErrTaken
	}
	if _, ok := d.open[key]; !ok && d.most > 0 && len(d.open) == d.most {
		return netip.AddrPort{}, errors.New("the table is full")
	}
	d.open[key] = want
	return netip.AddrPortFrom(d.address, want.External), nil
}

func (d *doors) has(want Request) bool {
	key := door{want.Proto, want.External}
	r, ok := d.open[key]
	return d.taken[key] || ok && r.Internal != want.Internal && !(want.Replace && r.Internal.Addr() == want.Internal.Addr())
}

func (d *doors) Unmap(_ time.Time, proto ip.Proto, external netip.AddrPort) {
	delete(d.open, door{proto, external.Port()})
}

// world is a machine, its gateway and the time.
type world struct {
	*testing.T
	m     *Machine
	doors *doors
	now   time.Time
}

func newWorld(t *testing.T, b Behaviour) *world {
	t.Helper()
	d := &doors{address: outside, open: map[door]Request{}, taken: map[door]bool{}}
	w := &world{T: t, doors: d, now: start}
	m, err := New(start, Config{
		Behaviour: b, Addr: own, Inside: []netip.Prefix{netip.MustParsePrefix("192.168.1.0/24")}, Rand: rand.NewPCG(1, 2),
	}, d)
	if err != nil {
		t.Fatal(err)
	}
	w.m = m
	return w
}

// quiet takes what is announced at the start.
func (w *world) quiet() *world {
	for i := 0; i < 20; i++ {
		w.polled()
		w.pass(30 * time.Second)
	}
	w.polled()
	return w
}

func (w *world) pass(d time.Duration) {
	w.now = w.now.Add(d)
	w.m.HandleTimeout(w.now)
}

func (w *world) polled() (all []Out) {
	for {
		o, ok := w.m.Poll()
		if !ok {
			return all
		}
		all = append(all, o)
	}
}

// ask sends a datagram from a host to a port of the gateway, and takes the only
// answer; nil if there is none.
func (w *world) ask(host netip.Addr, port uint16, b []byte) []byte {
	w.Helper()
	from := netip.AddrPortFrom(host, 40000)
	w.m.Datagram(w.now, from, netip.AddrPortFrom(own, port), b)
	all := w.polled()
	if len(all) == 0 {
		return nil
	}
	if len(all) > 1 {
		w.Fatalf("%d answers to one request", len(all))
	}
	if all[0].To != from {
		w.Fatalf("answered to %v, not to %v", all[0].To, from)
	}
	return all[0].Payload
}

// isOpen says to whom a port outside leads; invalid: nobody.
func (w *world) isOpen(proto ip.Proto, port uint16) netip.AddrPort {
	return w.doors.open[door{proto, port}].Internal
}

func (w *world) wantOpen(proto ip.Proto, port uint16, internal string) {
	w.Helper()
	want := netip.AddrPort{}
	if internal != "" {
		want = netip.MustParseAddrPort(internal)
	}
	if got := w.isOpen(proto, port); got != want {
		w.Errorf("%v port %d leads to %v, not %v", proto, port, got, want)
	}
}

// changes are the events since the last call.
func (w *world) changes() (all []Change) {
	for {
		e, ok := w.m.Event()
		if !ok {
			return all
		}
		all = append(all, e.Change)
	}
}
