package server

import (
	"bytes"
	"fmt"
	"testing"
	"time"

	"github.com/bodkin-net/bodkin/internal/machine/rendezvous"
	"github.com/bodkin-net/bodkin/internal/server/load"
	"github.com/bodkin-net/bodkin/internal/wire/relay"
	wire "github.com/bodkin-net/bodkin/internal/wire/rendezvous"
)

// Each benchmark runs the server, and the bare loop that it is measured
// against, as processes of their own, and gives them the same work in turns:
// on a shared machine only the ratio of neighbouring rounds means something.

// contender is a process under measurement.
type contender struct {
	name string
	*process
	used time.Duration
	done uint64
}

func (c *contender) round(work func() uint64) {
	before := c.ask("").CPU
	c.done += work()
	c.used += c.ask("").CPU - before
}

func report(b *testing.B, what string, cs []*contender) {
	base := float64(cs[0].done) / cs[0].used.Seconds()
	for _, c := range cs {
		rate := float64(c.done) / c.used.Seconds()
		b.ReportMetric(rate, fmt.Sprintf("%s-%s/cpu-s", c.name, what))
		b.ReportMetric(rate/base, c.name+"-ratio")
	}
	b.ReportMetric(0, "ns/op")
}

func BenchmarkSTUN(b *testing.B) {
	const (
		window = 512     // requests under way
		round  = 200_000 // requests
		from   = 1000    // endpoints, so that no two neighbours are the same
	)
	request := []byte{0, 1, 0, 0, 0x21, 0x12, 0xa4, 0x42, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12}
	cs := []*contender{
		{name: "bare", process: spawn(b, childConfig{Mode: "bare STUN", UDP: "127.0.0.1:0"})},
		{name: "server", process: spawn(b, childConfig{Mode: "server", UDP: "127.0.0.1:0"})},
	}
	var socks []*load.Socket
	for _, c := range cs {
		s, err := load.Open(c.addr)
		if err != nil {
			b.Fatal(err)
		}
		defer s.Close()
		socks = append(socks, s)
	}
	for b.Loop() {
		for i, c := range cs {
			c.round(func() (answers uint64) {
				batch := make([]load.Datagram, window)
				for sent := 0; sent < round; sent += window {
					for j := range batch {
						batch[j] = load.Datagram{Peer: (sent + j) % from, B: request}
					}
					if err := socks[i].Send(batch); err != nil {
						b.Fatal(err)
					}
					socks[i].SetDeadline(time.Now().Add(50 * time.Millisecond))
					for got := 0; got < window; {
						in, err := socks[i].Receive()
						if err != nil {
							b.Logf("%s: %d of %d answers came", c.name, got, window)
							break
						}
						got += len(in)
						answers += uint64(len(in))
					}
				}
				return answers
			})
		}
	}
	report(b, "answers", cs)
}

func BenchmarkRelay(b *testing.B) {
	for _, segmenting := range []bool{false, true} {
		name := "clients=plain"
		if segmenting {
			name = "clients=segmenting"
		}
		b.Run(name, func(b *testing.B) { benchmarkRelay(b, segmenting) })
	}
}

func benchmarkRelay(b *testing.B, segmenting bool) {
	const (
		pairs  = 8
		burst  = 16 // packets that one peer sends in a row, as a congestion window does
		size   = 1200
		round  = 100_000
		window = 2 * pairs * burst
	)
	cs := []*contender{
		{name: "bare", process: spawn(b, childConfig{Mode: "bare relay", UDP: "127.0.0.1:0"})},
		{name: "server", process: spawn(b, childConfig{Mode: "server", UDP: "127.0.0.1:0"})},
	}
	all := make([]*load.Peers, len(cs))
	for i, c := range cs {
		n := 2 * pairs
		if c.name == "bare" {
			n = 0
		}
		all[i] = peers(b, c.addr, n)
		for pair := range n / 2 {
			if status, err := all[i].Connect(b.Context(), 2*pair, 2*pair+1, rendezvous.RelayID{byte(pair)}); status != 0 || err != nil {
				b.Fatal(status, err)
			}
		}
		if segmenting {
			all[i].Socket.Coalesce()
		}
	}
	for b.Loop() {
		for i, c := range cs {
			p := all[i]
			var work []load.Datagram
			for peer := range 2 * pairs {
				packet := append(relay.AppendHeader(nil, rendezvous.RelayID{byte(peer / 2)}), make([]byte, size-relay.HeaderLen)...)
				if c.name == "bare" {
					putBareTarget(packet, p.Socket.Endpoint(peer^1))
				}
				if segmenting {
					work = append(work, load.Datagram{Peer: peer, B: bytes.Repeat(packet, burst), Segment: size})
					continue
				}
				for range burst {
					work = append(work, load.Datagram{Peer: peer, B: packet})
				}
			}
			c.round(func() uint64 {
				before := p.Relayed.Load()
				for sent := 0; sent < round; sent += window {
					at := p.Relayed.Load()
					if err := p.Socket.Send(work); err != nil {
						b.Fatal(err)
					}
					for start := time.Now(); p.Relayed.Load() < at+window && time.Since(start) < 50*time.Millisecond; {
						time.Sleep(20 * time.Microsecond)
					}
				}
				return p.Relayed.Load() - before
			})
		}
	}
	report(b, "packets", cs)
}

// What registered peers cost that do nothing. One iteration takes as long as
// the registrations, and a minute.
func BenchmarkIdlePeers(b *testing.B) {
	n := benchPeers(b)
	const idle = time.Minute
	for b.Loop() {
		c := spawn(b, childConfig{Mode: "server", UDP: "127.0.0.1:0"})
		empty := c.ask("memory")
		start := time.Now()
		p := peers(b, c.addr, n)
		took := time.Since(start)
		full := c.ask("memory")
		time.Sleep(idle)
		after := c.ask("")
		now, _ := p.Registered()
		if now != n || after.Stats.Peers != n {
			b.Errorf("%d peers think that they are registered, %d are, of %d", now, after.Stats.Peers, n)
		}
		alive := after.Stats.Received[wire.TypeKeepAlive] - full.Stats.Received[wire.TypeKeepAlive]
		b.ReportMetric(float64(full.Heap-empty.Heap)/float64(n), "heap-B/peer")
		b.ReportMetric(float64(full.RSS-empty.RSS)/float64(n), "rss-B/peer")
		b.ReportMetric(float64(n)/took.Seconds(), "registrations/s")
		b.ReportMetric((full.CPU-empty.CPU).Seconds()*1e6/float64(n), "cpu-us/registration")
		b.ReportMetric((after.CPU-full.CPU).Seconds()/idle.Seconds()*100, "cpu-%")
		b.ReportMetric(float64(alive)/idle.Seconds(), "keep-alives/s")
		b.ReportMetric(float64(alive)/(after.CPU-full.CPU).Seconds(), "keep-alives/cpu-s")
		p.Close()
		c.end()
	}
	b.ReportMetric(0, "ns/op")
}
