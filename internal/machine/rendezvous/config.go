package rendezvous

import (
	"time"

	"github.com/bodkin-net/bodkin/internal/identity"
)

// ServerConfig configures a Server. Key and Secret are required; everything
// else has its default in withDefaults, and nowhere else.
type ServerConfig struct {
	Key    identity.Key
	Secret [32]byte // random, drawn at every start; makes cookies and handles

	MaxPeers        int // registrations; strangers are refused beyond
	PeersPerAddress int // registrations from one address
	MaxRelays       int
	RelaysPerKey    int // relays that one peer asked for
	MaxAgreements   int // keys being agreed on at a time

	Lifetime    time.Duration // of a registration that does not ask for another
	MaxLifetime time.Duration
	KeepAlive   time.Duration // what clients are told

	RelayAgree   time.Duration // a relay that the target did not use yet ends
	RelayIdle    time.Duration // a relay without packets ends
	AgreePackets int           // from the requester, before the target used the relay
	AgreeBytes   int

	// Per source address: IPv4 /32, IPv6 /64.
	HelloRate    Rate
	RegisterRate Rate // of keys that are not registered
	// All first registrations together: what agreeing on keys may cost, some
	// 70 us each.
	NewKeyRate Rate
	// Per key.
	ConnectRate Rate
	SignalRate  Rate
	// Requests that one peer gets, from all and from any one other peer.
	RequestRate Rate
	PairRate    Rate
	// Bytes through the packet relays that one key asked for, both ways.
	RelayRate Rate
}

// Rate is a token bucket: PerSecond in the long run, Burst at once.
type Rate struct{ PerSecond, Burst int }

func (c ServerConfig) withDefaults() ServerConfig {
	ints := []struct {
		p *int
		d int
	}{
		{&c.MaxPeers, 1 << 20},
		{&c.MaxRelays, 1 << 17},
		{&c.RelaysPerKey, 256},
		{&c.MaxAgreements, 1 << 12},
		{&c.AgreePackets, 32},
		{&c.AgreeBytes, 48 << 10},
	}
	for _, i := range ints {
		if *i.p <= 0 {
			*i.p = i.d
		}
	}
	if c.PeersPerAddress <= 0 {
		c.PeersPerAddress = max(c.MaxPeers/16, 64)
	}
	durations := []struct {
		p *time.Duration
		d time.Duration
	}{
		{&c.Lifetime, 60 * time.Second},
		{&c.MaxLifetime, 600 * time.Second},
		{&c.KeepAlive, 15 * time.Second},
		{&c.RelayAgree, 15 * time.Second},
		{&c.RelayIdle, 5 * time.Minute},
	}
	for _, d := range durations {
		if *d.p <= 0 {
			*d.p = d.d
		}
	}
	rates := []struct {
		p *Rate
		d Rate
	}{
		{&c.HelloRate, Rate{200, 1000}},
		{&c.RegisterRate, Rate{50, 500}},
		{&c.NewKeyRate, Rate{20_000, 20_000}},
		{&c.ConnectRate, Rate{20, 100}},
		{&c.SignalRate, Rate{50, 200}},
		{&c.RequestRate, Rate{100, 200}},
		{&c.PairRate, Rate{2, 30}},
		{&c.RelayRate, Rate{64 << 20, 16 << 20}},
	}
	for _, r := range rates {
		if r.p.PerSecond <= 0 || r.p.Burst <= 0 {
			*r.p = r.d
		}
	}
	return c
}
