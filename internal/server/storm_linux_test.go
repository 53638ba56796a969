package server

import (
	"context"
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/bodkin-net/bodkin/internal/machine/rendezvous"
	"github.com/bodkin-net/bodkin/internal/wire/relay"
)

// benchPeers is how many peers a benchmark makes.
func benchPeers(b *testing.B) int {
	s := os.Getenv("BODKIN_BENCH_PEERS")
	if s == "" {
		return 100_000
	}
	n, err := strconv.Atoi(s)
	if err != nil {
		b.Fatal(err)
	}
	return n
}

// The server is killed and started again with 100,000 peers: how long it takes
// until all are back, how long somebody new waits in the midst of it, and what
// the round trips through a packet relay are like meanwhile and afterwards.
func BenchmarkRestart(b *testing.B) {
	for _, workers := range []int{1, 2} {
		b.Run(fmt.Sprintf("workers=%d", workers), func(b *testing.B) {
			for b.Loop() {
				benchmarkRestart(b, workers, benchPeers(b))
			}
			b.ReportMetric(0, "ns/op")
		})
	}
}

func benchmarkRestart(b *testing.B, workers, n int) {
	state := filepath.Join(b.TempDir(), "peers")
	first := spawn(b, childConfig{Mode: "server", UDP: "127.0.0.1:0", State: state})
	p := peers(b, first.addr, n)
	defer p.Close()
	_, before := p.Registered()
	time.Sleep(2 * writeDelay)
	first.kill()

	start := time.Now()
	c := spawn(b, childConfig{Mode: "server", UDP: first.addr.String(), State: state, Workers: workers})
	defer c.end()
	back := make(chan error, 1)
	took := time.Duration(0)
	go func() {
		ctx, cancel := context.WithTimeout(b.Context(), time.Minute)
		defer cancel()
		err := p.Wait(ctx, before+uint64(n))
		took = time.Since(start)
		back <- err
	}()
	time.Sleep(500 * time.Millisecond)
	came := time.Now()
	x, y := register(b, "udp", c.addr, 1), register(b, "udp", c.addr, 2)
	defer x.nc.Close()
	defer y.nc.Close()
	b.ReportMetric(float64(time.Since(came).Milliseconds())/2, "newcomer-ms")
	storm := newPinger(b, x, y)
	for waiting := true; waiting; {
		select {
		case err := <-back:
			if err != nil {
				now, ever := p.Registered()
				b.Fatalf("%d of %d are back, %d registrations: %v\n%+v", now, n, ever-before, err, c.ask(""))
			}
			waiting = false
		default:
			storm.ping(b)
		}
	}
	r := c.ask("")
	quiet := &pinger{a: x, packet: storm.packet}
	for range 1000 {
		quiet.ping(b)
	}
	b.ReportMetric(took.Seconds(), "s/restart")
	b.ReportMetric(float64(r.Stats.KeyAgreements)/float64(n), "agreements/peer")
	b.ReportMetric(r.CPU.Seconds(), "server-cpu-s")
	storm.report(b, "storm")
	quiet.report(b, "quiet")
}

// pinger sends a packet through a relay, which the other end sends back, every
// millisecond.
type pinger struct {
	a      *client
	packet []byte
	trips  []time.Duration
	lost   int
}

func newPinger(b *testing.B, x, y *client) *pinger {
	id := rendezvous.RelayID{7}
	x.do(func(now time.Time) { x.Connect(now, clientKey(2).ID(), id, rendezvous.PacketRelay, nil) })
	waitFor[rendezvous.Requested](b, y)
	x.do(func(time.Time) { x.StopConnect(id) })
	go func() {
		for {
			select {
			case packet := <-y.relayed:
				y.nc.Write(packet)
			case <-b.Context().Done():
				return
			}
		}
	}()
	for heard := false; !heard; {
		y.nc.Write(relay.AppendHeader(nil, id)) // agrees
		select {
		case <-x.relayed:
			heard = true
		case <-time.After(200 * time.Millisecond):
		}
	}
	return &pinger{a: x, packet: append(relay.AppendHeader(nil, id), make([]byte, 100)...)}
}

func (p *pinger) ping(b *testing.B) {
	number := uint64(len(p.trips) + p.lost + 1)
	binary.BigEndian.PutUint64(p.packet[relay.HeaderLen:], number)
	start := time.Now()
	p.a.nc.Write(p.packet)
	for late := time.After(time.Second); ; {
		select {
		case got := <-p.a.relayed:
			if len(got) != len(p.packet) || binary.BigEndian.Uint64(got[relay.HeaderLen:]) != number {
				continue // late
			}
			p.trips = append(p.trips, time.Since(start))
		case <-late:
			p.lost++
		}
		break
	}
	time.Sleep(time.Millisecond)
}

func (p *pinger) report(b *testing.B, when string) {
	slices.Sort(p.trips)
	for _, percent := range []int{50, 99} {
		trip := p.trips[len(p.trips)*percent/100]
		b.ReportMetric(float64(trip.Microseconds())/1000, fmt.Sprintf("%s-p%d-ms", when, percent))
	}
	b.ReportMetric(float64(p.lost), when+"-lost")
}
