package main

import (
	"io"
	"net"
	"strings"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
)

func serveCmd(ts *testscript.TestScript, _ bool, args []string) {
	args = append([]string{"bodkin", "serve", "--udp", "127.0.0.1:0", "--tcp", "127.0.0.1:0", "--data", "server"}, args...)
	start(ts, "server", "", args)
	text := await(ts, "server", "out", `^(\S+)\n`)
	ts.Setenv("BODKIN_SERVER", text)
	_, place, _ := strings.Cut(text, "@")
	ts.Setenv("PLACE", place)
	udp, tcp, _ := strings.Cut(place, ",")
	ts.Setenv("UDP", strings.TrimPrefix(udp, "udp:"))
	ts.Setenv("TCP", strings.TrimPrefix(tcp, "tcp:"))
}

// twoPorts opens the same port of the loopback address over UDP and TCP.
func twoPorts(ts *testscript.TestScript) (net.PacketConn, net.Listener) {
	for range 100 {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		ts.Check(err)
		if pc, err := net.ListenPacket("udp", l.Addr().String()); err == nil {
			return pc, l
		}
		l.Close()
	}
	ts.Fatalf("no port is free over both UDP and TCP")
	return nil, nil
}

func refusingCmd(ts *testscript.TestScript, _ bool, _ []string) {
	pc, l := twoPorts(ts)
	ts.Setenv("REFUSING", l.Addr().String())
	pc.Close()
	l.Close()
}

// echoingCmd starts a TCP server that sends back what it gets.
func echoingCmd(ts *testscript.TestScript, _ bool, _ []string) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	ts.Check(err)
	ts.Setenv("ECHO", l.Addr().String())
	ts.Defer(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				io.Copy(c, c)
			}()
		}
	}()
}

type greetedKey struct{}

func silentCmd(ts *testscript.TestScript, _ bool, _ []string) {
	pc, l := twoPorts(ts)
	ts.Setenv("SILENT", l.Addr().String())
	ts.Defer(func() { pc.Close(); l.Close() })
	greeted := ts.Value(greetedKey{}).(chan struct{})
	go func() {
		for {
			if _, _, err := pc.ReadFrom(make([]byte, 2048)); err != nil {
				return
			}
			select {
			case greeted <- struct{}{}:
			default:
			}
		}
	}()
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				io.Copy(io.Discard, c)
			}()
		}
	}()
}

// greetedCmd waits until somebody has said something to the silent server.
func greetedCmd(ts *testscript.TestScript, _ bool, _ []string) {
	select {
	case <-ts.Value(greetedKey{}).(chan struct{}):
	case <-time.After(patience):
		ts.Fatalf("nobody spoke to the silent server")
	}
}
