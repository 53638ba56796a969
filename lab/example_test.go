package lab_test

import (
	"context"
	"fmt"
	"net/netip"
	"testing"
	"time"

	"github.com/bodkin-net/bodkin/lab"
)

// A test of a program that must survive the reboot of a home's NAT.
func ExampleStart() {
	test := func(t *testing.T) {
		address := func(s string) []netip.Prefix { return []netip.Prefix{netip.MustParsePrefix(s)} }
		l := lab.Start(t, lab.Topology{
			Hosts: []lab.Host{
				{Name: "laptop", Port: lab.Port{Network: "home", Addrs: address("192.168.1.2/24")}},
				{Name: "server", Port: lab.Port{Network: lab.Internet, Addrs: address("198.51.100.1/24")}},
			},
			Gateways: []lab.Gateway{{
				Name:    "router",
				Inside:  lab.Port{Network: "home", Addrs: address("192.168.1.1/24")},
				Outside: lab.Port{Network: lab.Internet, Addrs: address("198.51.100.2/24"), Link: lab.Link{Delay: 15 * time.Millisecond}},
				NAT:     lab.PresetByName("port-restricted"),
			}},
		})
		server := l.Host("server").Command(t.Context(), "my-server", "--listen", ":7000")
		if err := server.Start(); err != nil {
			t.Fatal(err)
		}
		client := l.Host("laptop").Command(t.Context(), "my-client", "198.51.100.1:7000")
		if err := client.Start(); err != nil {
			t.Fatal(err)
		}
		if err := l.Reboot("router"); err != nil {
			t.Fatal(err)
		}
		if err := client.Wait(); err != nil {
			t.Error("the client did not get over the reboot:", err)
		}
	}
	_ = test
}

// Without a test: a lab in a program of one's own.
func ExampleNew() {
	topology, err := lab.Load("two-homes.yaml")
	if err != nil {
		fmt.Println(err)
		return
	}
	l, err := lab.New(topology, lab.Options{})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer l.Close()
	conn, err := l.Host("a").Dial(context.Background(), "tcp", "s:80")
	if err != nil {
		fmt.Println(err, l)
		return
	}
	conn.Close()
}

// Topologies are checked, and errors say where the mistake is.
func ExampleParse() {
	_, err := lab.Parse("home.yaml", []byte(`
hosts:
  laptop: home
gateways:
  router: {inside: home, outside: internet, nat: port-restrictd}
`))
	fmt.Println(err.Error()[:len("home.yaml:5: gateways.router.nat")])
	// Output: home.yaml:5: gateways.router.nat
}
