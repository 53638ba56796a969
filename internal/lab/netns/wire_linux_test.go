package netns

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"
	"github.com/gopacket/gopacket/pcapgo"
	"golang.org/x/sys/unix"

	"github.com/bodkin-net/bodkin/internal/lab/scenario"
	"github.com/bodkin-net/bodkin/internal/machine/nat"
)

// twoHosts on the internet, the first behind a link.
func twoHosts(link scenario.Link) scenario.Topology {
	return scenario.Topology{Hosts: []scenario.Host{
		{Name: "a", Port: on(scenario.Internet, link, "203.0.113.1/24", "2001:db8::1/64")},
		{Name: "b", Port: on(scenario.Internet, scenario.Link{}, "203.0.113.2/24", "2001:db8::2/64")},
	}}
}

func TestCounters(t *testing.T) { over(t, testCounters) }

func testCounters(t *testing.T, opt Options) {
	l := newLab(t, twoNATs(linux, linux, scenario.Link{}), opt)
	a, s := udp(t, l.Host("a"), 4000), udp(t, l.Host("s"), 3478)
	to := netip.AddrPortFrom(ip(sAddr), 3478)
	for range 10 {
		a.send(to, strings.Repeat("x", 72))
	}
	for range 10 {
		s.mustReceive(strings.Repeat("x", 72))
	}
	s.send(netip.AddrPortFrom(ip(gaOut), 4000), "back")
	a.mustReceive("back")
	a.send(netip.MustParseAddrPort("198.51.100.1:9"), "nobody")
	s.send(netip.AddrPortFrom(ip(gaOut), 4000), "after")
	a.mustReceive("after")

	c, err := l.Counters()
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		flow Flow
		want Count
	}{
		{Flow{"lan-a", ip(aIn), ip(sAddr), UDP}, Count{Packets: 10, Bytes: 1000}},
		{Flow{scenario.Internet, ip(gaOut), ip(sAddr), UDP}, Count{Packets: 10, Bytes: 1000}},
		{Flow{scenario.Internet, ip(sAddr), ip(gaOut), UDP}, Count{Packets: 2, Bytes: 65}},
		{Flow{Src: ip(sAddr)}, Count{Packets: 4, Bytes: 130}}, // on two networks
		{Flow{scenario.Internet, ip(gaOut), netip.MustParseAddr("198.51.100.1"), UDP}, Count{Packets: 1, Bytes: 34, DroppedPackets: 1, DroppedBytes: 34}},
		{Flow{Network: "lan-b", Protocol: UDP}, Count{}},
	} {
		if got := c.Sum(tt.flow); got != tt.want {
			t.Errorf("%+v: %+v, want %+v", tt.flow, got, tt.want)
		}
	}
}

func TestCut(t *testing.T) { over(t, testCut) }

func testCut(t *testing.T, opt Options) {
	l := newLab(t, twoNATs(linux, linux, scenario.Link{}), opt)
	a, b := punched(t, l)
	check := func(name string, passes bool) {
		t.Helper()
		a.send(a.peer, name)
		if passes {
			b.mustReceive(name)
		} else {
			b.mustNotReceive()
		}
	}
	try := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	check("whole", true)
	try(l.Cut(ip(gaOut), ip(gbOut), TCP))
	check("tcp cut", true)
	try(l.Cut(ip(gbOut), ip(gaOut), UDP))
	check("udp cut", false)
	try(l.Restore(ip(gbOut), ip(gaOut), UDP))
	check("restored", true)
	try(l.Cut(ip(gaOut), netip.Addr{}, AnyProtocol))
	check("cut from all", false)
	try(l.Restore(ip(gaOut), netip.Addr{}, AnyProtocol))
	try(l.BlockUDP("gb", true))
	check("blocked", false)
	if !l.Status().Gateways[1].UDPBlocked {
		t.Error("the status does not say that UDP is blocked")
	}
	try(l.BlockUDP("gb", false))
	try(l.BlockUDP("gb", false))
	check("let through", true)
	if l.Status().Gateways[1].UDPBlocked {
		t.Error("the status says that UDP is blocked")
	}
	if err := l.Restore(ip(gaOut), ip(gbOut), UDP); err == nil {
		t.Error("restored what was not cut")
	}
}

func TestReboot(t *testing.T) { over(t, testReboot) }

func testReboot(t *testing.T, opt Options) {
	for _, b := range []nat.Behaviour{linux, {}} {
		l := newLab(t, twoNATs(b, b, scenario.Link{}), opt)
		a, s := udp(t, l.Host("a"), 4000), udp(t, l.Host("s"), 3478)
		aOut := mapped(a, s, ip(sAddr))
		s.send(aOut, "before")
		a.mustReceive("before")
		if err := l.RebootGateway("ga"); err != nil {
			t.Fatal(err)
		}
		s.send(aOut, "after")
		a.mustNotReceive()
		mapped(a, s, ip(sAddr))
	}
}

func TestBlockedFromTheStart(t *testing.T) { over(t, testBlockedFromTheStart) }

func testBlockedFromTheStart(t *testing.T, opt Options) {
	l := newLab(t, twoNATs(nat.Behaviour{BlockUDP: true, Filtering: apd}, linux, scenario.Link{}), opt)
	a, s := udp(t, l.Host("a"), 4000), udp(t, l.Host("s"), 3478)
	a.send(netip.AddrPortFrom(ip(sAddr), 3478), "no")
	s.mustNotReceive()
	if st := l.Status(); !st.Gateways[0].UDPBlocked || st.Gateways[1].UDPBlocked {
		t.Errorf("%+v", st.Gateways)
	}
	c, _ := connect(t, l.Host("a"), l.Host("s"), netip.AddrPortFrom(ip(sAddr), 80))
	if _, err := io.WriteString(c, "yes"); err != nil {
		t.Fatal(err)
	}
}

// connect opens a TCP connection and returns both ends.
func connect(t testing.TB, from, to *Host, at netip.AddrPort) (client, server *net.TCPConn) {
	t.Helper()
	var l *net.TCPListener
	err := to.Do(func() (err error) {
		l, err = net.ListenTCP("tcp", &net.TCPAddr{Port: int(at.Port())})
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	err = from.Do(func() error {
		c, err := net.DialTCP("tcp", nil, net.TCPAddrFromAddrPort(at))
		client = c
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if server, err = l.AcceptTCP(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { client.Close(); server.Close() })
	return client, server
}

func TestUnsolicitedTCP(t *testing.T) { over(t, testUnsolicitedTCP) }

func testUnsolicitedTCP(t *testing.T, opt Options) {
	for answer, want := range map[nat.Answer]string{nat.Silent: "timeout", nat.Reset: "connection refused", nat.Prohibited: "no route to host"} {
		l := newLab(t, twoNATs(nat.Behaviour{Filtering: apd, Unsolicited: nat.Unsolicited{TCP: answer}}, linux, scenario.Link{}), opt)
		err := l.Host("s").Do(func() error {
			d := net.Dialer{Timeout: 300 * time.Millisecond}
			_, err := d.Dial("tcp", netip.AddrPortFrom(ip(gaOut), 80).String())
			return err
		})
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("answer %v: %v, want %s", answer, err, want)
		}
	}
}

// TestLinks sends numbered datagrams and looks at what arrives when. Nothing
// here depends on how late a busy machine is: TestLane says what the delays are.
func TestLinks(t *testing.T) {
	const n = 2000
	for _, tt := range []struct {
		name   string
		link   scenario.Link
		offers time.Duration // between datagrams
		check  func(t *testing.T, got []arrival)
	}{
		{"loss", scenario.Link{Loss: 0.1}, 0, func(t *testing.T, got []arrival) {
			// Binomial: 200 lost of 2000, standard deviation 13.
			if lost := n - len(got); lost < 140 || lost > 260 {
				t.Errorf("%d of %d lost, want about a tenth", lost, n)
			}
		}},
		{"delay", scenario.Link{Delay: 10 * time.Millisecond}, 200 * time.Microsecond, func(t *testing.T, got []arrival) {
			if len(got) != n {
				t.Errorf("%d of %d arrived", len(got), n)
			}
			late := lateness(got, 10*time.Millisecond)
			t.Logf("late: least %v, median %v, 99 of 100 %v, most %v", late[0], late[len(late)/2], late[len(late)*99/100], late[len(late)-1])
			if late[0] < 0 {
				t.Errorf("early by %v", -late[0])
			}
			if !slices.IsSortedFunc(got, func(a, b arrival) int { return a.number - b.number }) {
				t.Error("reordered")
			}
		}},
		{"jitter", scenario.Link{Delay: time.Millisecond, Jitter: 10 * time.Millisecond}, 200 * time.Microsecond, func(t *testing.T, got []arrival) {
			late := lateness(got, time.Millisecond)
			if len(got) != n || late[0] < 0 || late[n/2] < 3*time.Millisecond {
				t.Errorf("%d arrived, least %v, median %v", len(got), late[0], late[len(late)/2])
			}
			if slices.IsSortedFunc(got, func(a, b arrival) int { return a.number - b.number }) {
				t.Error("jitter reordered nothing")
			}
		}},
		{"reorder", scenario.Link{Delay: 5 * time.Millisecond, Reorder: 0.1}, 200 * time.Microsecond, func(t *testing.T, got []arrival) {
			overtook := 0
			for i, a := range got {
				if a.number > i+5 { // of about 25 that wait their 5 ms
					overtook++
				}
			}
			// Binomial: 200 of 2000, standard deviation 13; fewer when the
			// sender was held up, and nobody was there to overtake.
			if len(got) != n || overtook == 0 || overtook > 260 {
				t.Errorf("%d arrived, %d overtook", len(got), overtook)
			}
		}},
		{"repeat", scenario.Link{Repeat: 0.1}, 0, func(t *testing.T, got []arrival) {
			// Binomial: 200 of 2000, standard deviation 13.
			if twice := len(got) - n; twice < 140 || twice > 260 {
				t.Errorf("%d of %d came twice, want about a tenth", twice, n)
			}
		}},
		{"rate", scenario.Link{Rate: 16_000_000}, 0, func(t *testing.T, got []arrival) {
			// 16 Mbit/s is 2000 packets of 1000 bytes a second; the queue
			// holds 100 ms, which is 200. How many more there was room for
			// depends on how long the sending took.
			if len(got) < 200 {
				t.Errorf("%d arrived", len(got))
			}
			took := got[len(got)-1].at.Sub(got[0].sent) // which a late arrival only makes longer
			if per := took / time.Duration(len(got)-1); per < 480*time.Microsecond {
				t.Errorf("a packet every %v", per)
			}
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			l := newLab(t, twoHosts(tt.link), Options{Seed: 1, UserWire: true})
			a, b := udp(t, l.Host("a"), 1), udp(t, l.Host("b"), 1)
			b.stampArrivals()
			to := netip.AddrPortFrom(l.Host("b").Addr(true), 1)
			before := l.Status().Hosts[0].Port.Sent.Packets
			sent := make(chan struct{})
			go func() {
				defer close(sent)
				payload := make([]byte, 972)
				for i := range n {
					// The device's queue is short, so the network is to
					// have seen most of what was sent.
					for i%64 == 0 && l.Status().Hosts[0].Port.Sent.Packets < before+uint64(max(i-64, 0)) {
						time.Sleep(100 * time.Microsecond)
					}
					start := time.Now()
					copy(payload, fmt.Sprintf("%d %d ", i, start.UnixNano()))
					a.WriteToUDPAddrPort(payload, to)
					for time.Since(start) < tt.offers {
					}
				}
			}()
			var got []arrival
			for done := false; !done; {
				select {
				case <-sent:
					done = true
				default:
				}
				for a, ok := b.arrival(time.Second); ok; a, ok = b.arrival(time.Second) {
					got = append(got, a)
				}
			}
			if len(got) == 0 {
				t.Fatal("nothing arrived")
			}
			tt.check(t, got)
		})
	}
}

type arrival struct {
	number   int
	sent, at time.Time
}

// stampArrivals makes the kernel note when datagrams arrive. When this process
// gets around to reading them says little.
func (s socket) stampArrivals() {
	s.t.Helper()
	raw, err := s.SyscallConn()
	if err != nil {
		s.t.Fatal(err)
	}
	raw.Control(func(fd uintptr) {
		err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_TIMESTAMPNS_NEW, 1)
	})
	if err != nil {
		s.t.Fatal(err)
	}
}

func (s socket) arrival(wait time.Duration) (a arrival, ok bool) {
	s.t.Helper()
	var b [2048]byte
	var control [64]byte
	s.SetReadDeadline(time.Now().Add(wait))
	n, c, _, _, err := s.ReadMsgUDPAddrPort(b[:], control[:])
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return a, false
	}
	messages, parseErr := unix.ParseSocketControlMessage(control[:c])
	if err != nil || parseErr != nil || len(messages) != 1 || len(messages[0].Data) != 16 {
		s.t.Fatal(err, parseErr, messages)
	}
	seconds := binary.NativeEndian.Uint64(messages[0].Data)
	a.at = time.Unix(int64(seconds), int64(binary.NativeEndian.Uint64(messages[0].Data[8:])))
	var sent int64
	if _, err := fmt.Sscan(string(b[:n]), &a.number, &sent); err != nil {
		s.t.Fatal(err)
	}
	a.sent = time.Unix(0, sent)
	return a, true
}

// lateness is how much longer than d each took, sorted.
func lateness(got []arrival, d time.Duration) []time.Duration {
	var late []time.Duration
	for _, a := range got {
		late = append(late, a.at.Sub(a.sent)-d)
	}
	slices.Sort(late)
	return late
}

func TestRepeatedToAGateway(t *testing.T) { over(t, testRepeatedToAGateway) }

// The gateway translates the first of two where it is, and gets the second as
// it was sent.
func testRepeatedToAGateway(t *testing.T, opt Options) {
	top := twoNATs(linux, linux, scenario.Link{})
	top.Hosts[0].Port.Link = scenario.Link{Repeat: 1}
	l := newLab(t, top, opt)
	a, s := udp(t, l.Host("a"), 5000), udp(t, l.Host("s"), 3478)
	at := mapped(a, s, ip(sAddr))
	if from := s.mustReceive("who"); from != at {
		t.Errorf("the second is from %v, the first from %v", from, at)
	}
	s.send(at, "you")
	a.mustReceive("you")
	a.mustReceive("you")
}

// TestSegments sends a stream through links that must tell its packets apart.
func TestSegments(t *testing.T) {
	t.Parallel()
	for _, v4 := range []bool{true, false} {
		l := newLab(t, twoHosts(scenario.Link{Delay: time.Millisecond, Jitter: 100 * time.Microsecond, Loss: 0.01}), Options{})
		c, s := connect(t, l.Host("a"), l.Host("b"), netip.AddrPortFrom(l.Host("b").Addr(v4), 80))
		const n = 4 << 20
		go func() {
			c.Write(pattern(n))
			c.CloseWrite()
		}()
		b, err := io.ReadAll(s)
		if err != nil || !bytes.Equal(b, pattern(n)) {
			t.Fatalf("%d of %d bytes, %v", len(b), n, err)
		}
		counters, err := l.Counters()
		if err != nil {
			t.Fatal(err)
		}
		data := counters.Sum(Flow{Src: l.Host("a").Addr(v4), Protocol: TCP})
		if data.Packets < n/1500 || data.Bytes < n || data.DroppedPackets == 0 || data.DroppedBytes > 1500*data.DroppedPackets {
			t.Errorf("%+v", data)
		}
	}
}

func TestCapture(t *testing.T) { over(t, testCapture) }

func testCapture(t *testing.T, opt Options) {
	l := newLab(t, twoNATs(linux, linux, scenario.Link{}), opt)
	path := filepath.Join(t.TempDir(), "internet.pcapng")
	if err := l.Capture(scenario.Internet, path); err != nil {
		t.Fatal(err)
	}
	if err := l.Capture(scenario.Internet, path); err == nil {
		t.Error("captured twice")
	}
	a, s := udp(t, l.Host("a"), 4000), udp(t, l.Host("s"), 3478)
	mapped(a, s, ip(sAddr))
	c, server := connect(t, l.Host("a"), l.Host("s"), netip.AddrPortFrom(ip(sAddr), 80))
	big := strings.Repeat("x", 100_000)
	go io.WriteString(c, big)
	if _, err := io.ReadFull(server, make([]byte, len(big))); err != nil {
		t.Fatal(err)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}

	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	r, err := pcapgo.NewNgReader(f, pcapgo.DefaultNgReaderOptions)
	if err != nil {
		t.Fatal(err)
	}
	var datagrams []string
	carried := 0
	for {
		data, info, err := r.ReadPacketData()
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		intf, _ := r.Interface(info.InterfaceIndex)
		p := gopacket.NewPacket(data, layers.LayerTypeEthernet, gopacket.Default)
		if e := p.ErrorLayer(); e != nil {
			t.Fatal(e.Error())
		}
		if p.Layer(layers.LayerTypeARP) != nil {
			continue
		}
		if l, ok := p.TransportLayer().(interface {
			SetNetworkLayerForChecksum(gopacket.NetworkLayer) error
		}); ok {
			if err := l.SetNetworkLayerForChecksum(p.NetworkLayer()); err != nil {
				t.Fatal(err)
			}
		}
		if err, bad := p.VerifyChecksums(); err != nil || len(bad) > 0 {
			t.Fatalf("checksums: %v %v", err, bad)
		}
		if u, ok := p.TransportLayer().(*layers.UDP); ok {
			datagrams = append(datagrams, fmt.Sprintf("%s %v %s", intf.Name, u.TransportFlow(), u.Payload))
		}
		if p, ok := p.TransportLayer().(*layers.TCP); ok {
			carried += len(p.Payload)
		}
	}
	if want := []string{"ga/outside 4000->3478 who"}; !slices.Equal(datagrams, want) {
		t.Errorf("datagrams %q, want %q", datagrams, want)
	}
	if carried < len(big) {
		t.Errorf("%d bytes of TCP, want %d", carried, len(big))
	}
}

// TestHops counts routers as traceroute does.
func TestHops(t *testing.T) { over(t, testHops) }

func testHops(t *testing.T, opt Options) {
	opt.Hops = 3
	l := newLab(t, twoNATs(linux, linux, scenario.Link{Delay: time.Millisecond}), opt)
	s := udp(t, l.Host("s"), 3478)
	for ttl, want := range map[int]bool{4: false, 5: true} { // the gateway is one
		a := udp(t, l.Host("a"), 0)
		setTTL(t, a, ttl)
		a.send(netip.AddrPortFrom(ip(sAddr), 3478), "far")
		if _, _, ok := s.receive(200 * time.Millisecond); ok != want {
			t.Errorf("TTL %d arrives: %v", ttl, ok)
		}
	}
	c, err := l.Counters()
	if err != nil {
		t.Fatal(err)
	}
	// The gateway brings the router's answer to the host that it is for.
	if got := c.Sum(Flow{"lan-a", routerIPv4, ip(aIn), ICMP}); got.Packets != 1 {
		t.Errorf("%+v", got)
	}
}

func TestCommand(t *testing.T) {
	t.Parallel()
	l := newLab(t, twoHosts(scenario.Link{}), Options{})
	h := l.Host("a")
	cmd := h.Command(context.Background(), "/bin/sh", "-c", "cat /proc/net/dev; cat /proc/net/route")
	if err := h.Command(context.Background(), "/bin/true").Start(); !errors.Is(err, errWrongPlace) {
		t.Errorf("started outside: %v", err)
	}
	var out strings.Builder
	cmd.Stdout = &out
	if err := h.Run(cmd); err != nil {
		t.Fatal(err)
	}
	var names []string
	for line := range strings.Lines(out.String()) {
		if name, _, ok := strings.Cut(strings.TrimSpace(line), ":"); ok {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	if want := []string{"eth0", "lo"}; !slices.Equal(names, want) {
		t.Errorf("interfaces %q, want %q", names, want)
	}
}
