package proxy

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// flaky is a listener that fails before every connection.
type flaky struct {
	*handover
	worked bool
}

func (f *flaky) Accept() (net.Conn, error) {
	if f.worked = !f.worked; f.worked {
		return nil, errors.New("no descriptor is free")
	}
	return f.handover.Accept()
}

func TestFailedAcceptEndsNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		http, socks, transparent := &flaky{handover: pipes()}, &flaky{handover: pipes()}, &flaky{handover: pipes()}
		s := Serve(Listeners{http, socks, transparent}, Config{Original: func(netip.AddrPort) (netip.AddrPort, bool) {
			return netip.MustParseAddrPort("192.0.2.1:80"), true
		}})
		defer s.Close()
		for range 2 {
			for _, c := range []struct {
				l         *flaky
				ask, want string
			}{
				{http, "GET / HTTP/1.0\r\n\r\n", "HTTP/1.0 400"}, {socks, "\x04\x00", ""}, {socks, "\x05\x01\x00", "\x05\x00"},
				{transparent, "CONNECT x:1 HTTP/1.0\r\n\r\n", "HTTP/1.0 405"},
			} {
				client, inside := net.Pipe()
				c.l.give(inside)
				io.WriteString(client, c.ask)
				if got, _ := io.ReadAll(client); !strings.HasPrefix(string(got), c.want) {
					t.Errorf("%q: answered %q", c.ask, got)
				}
			}
		}
	})
}

// through is a client of an HTTP proxy whose connections to the outside all end
// at far.
func through(t *testing.T) (client, far net.Conn) {
	l := pipes()
	far, outside := net.Pipe()
	s := Serve(Listeners{HTTP: l}, Config{
		Dial: func(context.Context, string, string) (net.Conn, error) { return outside, nil }, Idle: time.Minute,
	})
	t.Cleanup(func() { s.Close() })
	client, inside := net.Pipe()
	l.give(inside)
	return client, far
}

// A request that does not go on ends, as a relay does, and one that does goes
// on however long it takes.
func TestIdleRequest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client, far := through(t)
		io.WriteString(client, "POST http://192.0.2.1/ HTTP/1.1\r\nHost: 192.0.2.1\r\nContent-Length: 100\r\n\r\n")
		heard := make(chan string)
		go func() {
			all, _ := io.ReadAll(far)
			heard <- string(all)
		}()
		for range 10 {
			time.Sleep(50 * time.Second)
			client.Write([]byte("x"))
		}
		start := time.Now()
		if _, err := client.Read(make([]byte, 1)); err == nil {
			t.Error("answered")
		}
		if took := time.Since(start); took != time.Minute {
			t.Errorf("ended after %v", took)
		}
		if got := <-heard; !strings.HasSuffix(got, strings.Repeat("x", 10)) {
			t.Errorf("passed on %q", got)
		}
	})
	// What the client does not read is not waited for either.
	synctest.Test(t, func(t *testing.T) {
		client, far := through(t)
		io.WriteString(client, "CONNECT 192.0.2.1:22 HTTP/1.1\r\nHost: 192.0.2.1:22\r\n\r\n")
		client.Read(make([]byte, 1000))
		start := time.Now()
		for err := error(nil); err == nil; {
			_, err = far.Write(make([]byte, 1000))
		}
		if took := time.Since(start); took != time.Minute {
			t.Errorf("ended after %v", took)
		}
	})
}

// Nor is what the other end does not read.
func TestIdleRemote(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client, far := through(t)
		io.WriteString(client, "CONNECT 192.0.2.1:22 HTTP/1.1\r\nHost: 192.0.2.1:22\r\n\r\n")
		client.Read(make([]byte, 1000))
		start := time.Now()
		for err := error(nil); err == nil; {
			_, err = client.Write(make([]byte, 1000))
		}
		if _, err := io.ReadAll(far); err != nil {
			t.Error(err)
		}
		if took := time.Since(start); took != time.Minute {
			t.Errorf("ended after %v", took)
		}
	})
}

// What a client, or a proxy before this one, says of itself arrives.
func TestForwardedIsKept(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		for _, name := range []string{"Forwarded", "X-Forwarded-For", "X-Forwarded-Host", "X-Forwarded-Proto"} {
			fmt.Fprintf(w, "%q ", r.Header[name])
		}
	}))
	defer server.Close()
	b := newBench(t, nil)
	b.set(server.Listener.Addr().String(), netip.MustParseAddrPort("192.0.2.1:80"))
	for _, l := range []net.Listener{b.l.HTTP, b.l.Transparent} {
		got := get(t, dialTo(t, l), "GET http://192.0.2.1/ HTTP/1.1\r\nHost: 192.0.2.1\r\nConnection: close\r\n"+
			"Forwarded: for=a\r\nX-Forwarded-For: b, c\r\nX-Forwarded-For: d\r\nX-Forwarded-Proto: https\r\n\r\n")
		if want := `["for=a"] ["b, c" "d"] [] ["https"]`; !strings.Contains(got, want) {
			t.Errorf("%s, want %s", got, want)
		}
	}
}

// UDP goes no further than TCP.
func TestSOCKSUDPForbidden(t *testing.T) {
	b := newBench(t, func(c *Config) {
		c.Permitted = func(a netip.Addr) bool { return a == netip.MustParseAddr("127.0.0.1") }
	})
	var servers []net.PacketConn
	_, u := associated(t, b)
	for _, at := range []string{"127.0.0.2:0", "127.0.0.1:0"} {
		server, err := net.ListenPacket("udp", at)
		if err != nil {
			t.Fatal(err)
		}
		defer server.Close()
		servers = append(servers, server)
		u.Write(append(appendAddress([]byte{0, 0, 0}, addrPort(server.LocalAddr())), "hello"...))
	}
	buf := make([]byte, 100)
	servers[1].SetReadDeadline(time.Now().Add(time.Minute))
	if n, _, err := servers[1].ReadFrom(buf); err != nil || string(buf[:n]) != "hello" {
		t.Fatalf("%q, %v", buf[:n], err)
	}
	// What went to the other one would be there by now.
	servers[0].SetReadDeadline(time.Now().Add(10 * time.Millisecond))
	if n, _, err := servers[0].ReadFrom(buf); err == nil {
		t.Errorf("%q went where nothing may", buf[:n])
	}
}

// However an address is written, it is the same.
func TestSOCKSUDPForbiddenByAnotherName(t *testing.T) {
	asked := make(chan netip.Addr, 3)
	b := newBench(t, func(c *Config) {
		c.Permitted = func(a netip.Addr) bool { asked <- a; return false }
	})
	_, u := associated(t, b)
	for name, want := range map[string]string{
		"127.0.0.1": "127.0.0.1", "::ffff:127.0.0.1": "127.0.0.1", "2001:db8::1%lo": "2001:db8::1", "2001:DB8:0::1": "2001:db8::1",
	} {
		head := append([]byte{0, 0, 0, typeName, byte(len(name))}, name...)
		u.Write(append(binary.BigEndian.AppendUint16(head, 9), "hello"...))
		if got := <-asked; got != netip.MustParseAddr(want) {
			t.Errorf("%s: asked about %v", name, got)
		}
	}
}

// What is being dialed ends when its client leaves, or with Close, which waits
// for it.
func TestCloseWhileDialing(t *testing.T) {
	for _, ask := range []string{"GET http://192.0.2.1/ HTTP/1.1\r\nHost: x\r\n\r\n", "CONNECT 192.0.2.1:22 HTTP/1.1\r\nHost: x\r\n\r\n"} {
		for _, gone := range []bool{false, true} {
			synctest.Test(t, func(t *testing.T) {
				l, start := pipes(), time.Now()
				dialing, ended := make(chan bool), false
				s := Serve(Listeners{HTTP: l}, Config{Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
					dialing <- true
					<-ctx.Done()
					ended = true
					return nil, ctx.Err()
				}})
				client, inside := net.Pipe()
				l.give(inside)
				io.WriteString(client, ask)
				<-dialing
				if gone {
					client.Close()
					synctest.Wait()
					if !ended {
						t.Errorf("%q: dialed on for nobody", ask)
					}
				}
				s.Close()
				if took := time.Since(start); !ended || took != 0 {
					t.Errorf("%q, gone %v: ended %v, after %v", ask, gone, ended, took)
				}
				client.Close()
			})
		}
	}
}

// at is the inside end of a connection from an address.
type at struct {
	net.Conn
	from netip.Addr
}

func (a at) RemoteAddr() net.Addr { return net.TCPAddrFromAddrPort(netip.AddrPortFrom(a.from, 7)) }

// One host that takes all connections that it can get is not in the way of
// another, at any of the proxies.
func TestGreedyHost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		greedy, other := netip.MustParseAddr("10.1.0.2"), netip.MustParseAddr("10.1.0.3")
		http, socks, transparent := pipes(), pipes(), pipes()
		s := Serve(Listeners{http, socks, transparent}, Config{Original: func(netip.AddrPort) (netip.AddrPort, bool) {
			return netip.MustParseAddrPort("192.0.2.1:80"), true
		}})
		defer s.Close()
		for _, p := range []struct {
			l         *handover
			ask, want string
		}{
			{http, "GET / HTTP/1.0\r\n\r\n", "HTTP/1.0 400"}, {socks, "\x05\x01\x00", "\x05\x00"},
			{transparent, "CONNECT x:1 HTTP/1.0\r\n\r\n", "HTTP/1.0 405"},
		} {
			var taken []net.Conn
			for range 2 * defaultMax {
				client, inside := net.Pipe()
				p.l.give(at{inside, greedy})
				taken = append(taken, client)
			}
			client, inside := net.Pipe()
			p.l.give(at{inside, other})
			io.WriteString(client, p.ask)
			got := make([]byte, len(p.want))
			if _, err := io.ReadFull(client, got); err != nil || string(got) != p.want {
				t.Errorf("%q: answered %q, %v", p.ask, got, err)
			}
			for _, c := range append(taken, client) {
				c.Close()
			}
		}
	})
}
