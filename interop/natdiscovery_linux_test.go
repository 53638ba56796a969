package interop

import (
	"errors"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/bodkin-net/bodkin/internal/lab/netns"
	"github.com/bodkin-net/bodkin/internal/machine/nat"
)

// Others' eyes: coturn's turnutils_natdiscovery and pion's NAT behaviour
// client say what each gateway is, ours on TUN and the kernel's nftables.

// subject is a gateway with what is to be seen of it.
type subject struct {
	name      string
	b         nat.Behaviour
	mapping   nat.Dependence
	filtering nat.Dependence
	silent    bool // no UDP gets through
	// kernel says that nftables can do it; it may be able to do more.
	kernel bool
}

func subjects() (all []subject) {
	for _, p := range nat.Presets() {
		s := subject{name: p.Name, b: p.Behaviour, mapping: p.Behaviour.Mapping, filtering: p.Behaviour.Filtering}
		s.silent = p.Behaviour.BlockUDP || len(p.Behaviour.Rules) > 0
		switch {
		case p.Behaviour.Mode != nat.Translate, keepsPorts(p.Behaviour):
			s.mapping = nat.EndpointIndependent
		case s.mapping == nat.PerConnection:
			s.mapping = nat.AddressAndPortDependent
		}
		switch p.Name {
		case "symmetric-firewall", "full-cone", "restricted", "port-restricted", "symmetric", "linux", "openwrt":
			s.kernel = true
		}
		all = append(all, s)
	}
	kinds := []nat.Dependence{nat.EndpointIndependent, nat.AddressDependent, nat.AddressAndPortDependent}
	for _, m := range kinds {
		for _, f := range kinds {
			all = append(all, subject{name: "mapping " + m.String() + ", filtering " + f.String(), mapping: m, filtering: f,
				kernel: true,
				b:      nat.Behaviour{Mapping: m, Filtering: f, Ports: nat.Ports{Allocation: nat.Random}}})
		}
	}
	return all
}

// keepsPorts is for gateways that share external ports: while nobody else
// wants a host's port, it is the same towards everyone.
func keepsPorts(b nat.Behaviour) bool {
	return b.Ports.Overload && b.Ports.Allocation <= nat.PreserveRandom
}

// everyone runs a test for every subject on both kinds of gateway.
func everyone(t *testing.T, test func(t *testing.T, s subject, l *netns.Lab)) {
	netns.Need(t)
	for _, driver := range []string{"tun", "nftables"} {
		for _, s := range subjects() {
			t.Run(driver+"/"+s.name, func(t *testing.T) {
				t.Parallel()
				l, err := lab(t, s.b, driver == "nftables")
				if errors.Is(err, errors.ErrUnsupported) && !(s.kernel && driver == "nftables") {
					t.Skip(err) // what nftables cannot do
				}
				if err != nil {
					t.Fatal(err)
				}
				coturn(t, l.Host("server"))
				test(t, s, l)
			})
		}
	}
}

var capitals = map[nat.Dependence]string{
	nat.EndpointIndependent:     "Endpoint Independent",
	nat.AddressDependent:        "Address Dependent",
	nat.AddressAndPortDependent: "Address and Port Dependent",
}

func TestTurnutilsNATDiscovery(t *testing.T) {
	path := tool(t, "turnutils_natdiscovery")
	everyone(t, func(t *testing.T, s subject, l *netns.Lab) {
		client := l.Host("client")
		out := run(t, client, path, "-m", "-f", "-L", client.Addr(true).String(), "198.51.100.1")
		mapping := "NAT with " + capitals[s.mapping] + " Mapping!"
		if s.b.Mode != nat.Translate {
			mapping = "No NAT! (Endpoint Independent Mapping)"
		}
		filtering := "NAT with " + capitals[s.filtering] + " Filtering!"
		if s.b.Mode == nat.Open {
			filtering = "NAT with Endpoint Independent Filtering!"
		}
		saw := strings.Contains(out, mapping) && strings.Contains(out, filtering) &&
			strings.Contains(out, "ALG detected!") == s.b.ALG
		if s.silent {
			saw = !strings.Contains(out, "Mapping!") && !strings.Contains(out, "Filtering!") && strings.Contains(out, "timeout")
		}
		if !saw {
			t.Errorf("%q and %q are to be seen:\n%s", mapping, filtering, out)
		}
	})
}

// pion is the client, built once. go.mod has it as a tool.
var pion = sync.OnceValues(func() (string, error) {
	path := filepath.Join(scratch, "stun-nat-behaviour")
	out, err := exec.Command("go", "build", "-o", path, "github.com/pion/stun/v3/cmd/stun-nat-behaviour").CombinedOutput()
	return path + string(out), err
})

func TestPionNATBehaviour(t *testing.T) {
	path, err := pion()
	if err != nil {
		t.Fatalf("go build: %v: %s", err, path)
	}
	words := map[nat.Dependence]string{
		nat.EndpointIndependent:     "endpoint independent",
		nat.AddressDependent:        "address dependent",
		nat.AddressAndPortDependent: "address and port dependent",
	}
	everyone(t, func(t *testing.T, s subject, l *netns.Lab) {
		out := run(t, l.Host("client"), path, "-server", "198.51.100.1:3478", "-timeout", "2")
		mapping, filtering := "NAT mapping behavior: "+words[s.mapping], "NAT filtering behavior: "+words[s.filtering]
		if s.silent {
			mapping, filtering = "NAT mapping behavior: inconclusive", "NAT filtering behavior: inconclusive"
		}
		if !strings.Contains(out, mapping+"\n") || !strings.Contains(out, filtering+"\n") {
			t.Errorf("%q and %q are to be seen:\n%s", mapping, filtering, out)
		}
	})
}
