package service

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"sync"
	"testing"

	"go.uber.org/goleak"

	"github.com/bodkin-net/bodkin/internal/lab/scenario"
	"github.com/bodkin-net/bodkin/internal/machine/nat"
	"github.com/bodkin-net/bodkin/internal/machine/portmap"
	"github.com/bodkin-net/bodkin/internal/machine/router"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// stack is loopback: services listen at any port there, and every connection
// goes to one server.
type stack struct {
	mu     sync.Mutex
	at     map[string]string // listeners, by the address that was asked for
	server string
	broken string // listening there fails
}

func (s *stack) Listen(_ context.Context, network, address string) (net.Listener, error) {
	if address == s.broken {
		return nil, errors.New("broken")
	}
	l, err := net.Listen(network, "127.0.0.1:0")
	if err == nil {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.at[address] = l.Addr().String()
	}
	return l, err
}

func (s *stack) ListenPacket(_ context.Context, network, _ string) (net.PacketConn, error) {
	return net.ListenPacket(network, "127.0.0.1:0")
}

func (s *stack) DialContext(_ context.Context, network, address string) (net.Conn, error) {
	if !strings.HasPrefix(address, "203.0.113.9:") {
		return nil, errors.New("not there")
	}
	return net.Dial(network, s.server)
}

type fakeRouter struct{}

func (fakeRouter) HTTP(r portmap.HTTPRequest) portmap.Response {
	return portmap.Response{Status: 200, Type: "text/plain", Body: []byte(r.Path)}
}
func (fakeRouter) Intended(netip.AddrPort) (netip.AddrPort, bool) {
	return netip.MustParseAddrPort("203.0.113.9:80"), true
}

func TestServices(t *testing.T) {
	web, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, "hello") })}
	go server.Serve(web)
	defer server.Close()
	st := &stack{at: map[string]string{}, server: web.Addr().String()}
	g := &scenario.Gateway{
		PortMap: portmap.Behaviour{UPnP: true}, Proxy: scenario.Proxy{HTTP: 3128, SOCKS: 1080, Transparent: true},
	}
	s, err := Start(Config{
		Gateway: g, Inside: netip.MustParseAddr("192.168.1.1"), Stack: st, Router: fakeRouter{},
		IsOwn: func(a netip.Addr) bool { return a == netip.MustParseAddr("198.51.100.1") },
		Lookup: func(_ context.Context, name string) ([]netip.Addr, error) {
			if name != "server" {
				return nil, errors.New("unknown")
			}
			return []netip.Addr{netip.MustParseAddr("127.0.0.1"), netip.MustParseAddr("203.0.113.8"), netip.MustParseAddr("203.0.113.9")}, nil
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(st.at) != 4 {
		t.Errorf("listening at %v", st.at)
	}
	get := func(through, target string) (int, string) {
		t.Helper()
		tr := &http.Transport{}
		if through != "" {
			tr.Proxy = http.ProxyURL(&url.URL{Scheme: map[bool]string{true: "socks5", false: "http"}[strings.HasSuffix(through, "1080")], Host: st.at[through]})
		}
		defer tr.CloseIdleConnections()
		resp, err := (&http.Client{Transport: tr}).Get(target)
		if err != nil {
			return 0, err.Error()
		}
		defer resp.Body.Close()
		b, _ := io.ReadAll(resp.Body)
		return resp.StatusCode, string(b)
	}
	if code, b := get("", "http://"+st.at["192.168.1.1:5000"]+"/x"); code != 200 || b != "/x" {
		t.Errorf("UPnP: %d %s", code, b)
	}
	if code, b := get("", "http://"+st.at["192.168.1.1:3129"]+"/x"); code != 200 || b != "hello" {
		t.Errorf("transparent: %d %s", code, b)
	}
	for _, through := range []string{"192.168.1.1:3128", "192.168.1.1:1080"} {
		for target, want := range map[string]string{
			"http://203.0.113.9/": "hello", "http://server/": "hello", "http://nobody/": "", "http://127.0.0.1/": "", "http://198.51.100.1/": "",
			"http://224.0.0.1/": "", "http://203.0.113.7/": "",
		} {
			if code, b := get(through, target); (code == 200) != (want != "") || want != "" && b != want {
				t.Errorf("%s through %s: %d %s", target, through, code, b)
			}
		}
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	for name, at := range st.at {
		if c, err := net.Dial("tcp", at); err == nil {
			c.Close()
			t.Errorf("%s is still there", name)
		}
	}
}

func TestStartFails(t *testing.T) {
	g := &scenario.Gateway{PortMap: portmap.Behaviour{UPnP: true}, Proxy: scenario.Proxy{HTTP: 3128, SOCKS: 1080}}
	cfg := Config{Gateway: g, Stack: &stack{at: map[string]string{}}, Router: fakeRouter{}}
	if _, err := Start(cfg); err == nil {
		t.Error("without an address")
	}
	st := &stack{at: map[string]string{}, broken: "192.168.1.1:1080"}
	cfg.Inside, cfg.Stack = netip.MustParseAddr("192.168.1.1"), st
	if _, err := Start(cfg); err == nil {
		t.Error("without a listener")
	}
	for name, at := range st.at {
		if c, err := net.Dial("tcp", at); err == nil {
			c.Close()
			t.Errorf("%s is left behind", name)
		}
	}
	if s, err := Start(Config{Gateway: &scenario.Gateway{}}); err != nil || s.Close() != nil {
		t.Errorf("nothing to do: %v", err)
	}
}

func TestConfigure(t *testing.T) {
	mine := nat.Rule{Action: nat.Accept}
	g := &scenario.Gateway{
		NAT: nat.Behaviour{Rules: []nat.Rule{mine}}, PortMap: portmap.Behaviour{PCP: true}, Proxy: scenario.Proxy{Transparent: true, Only: true},
	}
	var cfg router.Config
	Configure(g, &cfg)
	if len(cfg.NAT.Rules) != 2 || cfg.NAT.Rules[0].Action != nat.Discard || len(cfg.Redirect) != 2 || cfg.RedirectTo != scenario.TransparentPort || !cfg.PortMap.PCP {
		t.Errorf("%+v", cfg)
	}
	if len(g.NAT.Rules) != 1 {
		t.Error("the topology itself was changed")
	}
}

func TestWithin(t *testing.T) {
	calls := 0
	do := Within(func(f func() error) error { calls++; return f() })
	ctx := context.Background()
	l, err := do.Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	c, err := do.DialContext(ctx, "tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	c.Close()
	p, err := do.ListenPacket(ctx, "udp", "127.0.0.1:0")
	if err != nil || calls != 3 {
		t.Fatalf("%v, %d calls", err, calls)
	}
	p.Close()
}
