package bodkin_test

import (
	"context"
	"fmt"
	"io"
	"log"

	"github.com/bodkin-net/bodkin"
)

// A node that waits for peers and echoes what they send.
func ExampleNode_Listen() {
	key, err := bodkin.LoadKey("/var/lib/example/key") // created on first use
	if err != nil {
		log.Fatal(err)
	}
	node, err := bodkin.New(bodkin.Config{Key: key, Server: "bk...@rendezvous.example:3478"})
	if err != nil {
		log.Fatal(err)
	}
	defer node.Close()
	l, err := node.Listen() // anyone who knows node.ID(); name peers to admit only them
	if err != nil {
		log.Fatal(err)
	}
	for {
		conn, err := l.AcceptConn(context.Background())
		if err != nil {
			log.Fatal(err)
		}
		go func() {
			defer conn.Close()
			io.Copy(conn, conn)
		}()
	}
}

// Two nodes on a simulated network, each behind a NAT of its own. A program
// that leaves Config.Network out gets the operating system's.
func ExampleNode_Dial() {
	world := exampleWorld()
	defer world.Close()

	b, err := bodkin.New(bodkin.Config{Server: world.Server, Network: world.Host("b")})
	if err != nil {
		log.Fatal(err)
	}
	defer b.Close()
	l, err := b.Listen()
	if err != nil {
		log.Fatal(err)
	}
	if err := b.Ready(context.Background()); err != nil {
		log.Fatal(err)
	}
	go func() {
		conn, err := l.AcceptConn(context.Background())
		if err != nil {
			log.Fatal(err)
		}
		fmt.Fprint(conn, "hello")
		conn.CloseWrite()
	}()

	a, err := bodkin.New(bodkin.Config{Server: world.Server, Network: world.Host("a")})
	if err != nil {
		log.Fatal(err)
	}
	defer a.Close()
	conn, err := a.Dial(context.Background(), b.ID())
	if err != nil {
		log.Fatal(err)
	}
	defer conn.Close()
	text, err := io.ReadAll(conn)
	fmt.Println(string(text), err)

	path := conn.Path()
	for path.Kind != bodkin.Direct {
		if path, err = conn.WaitPathChange(context.Background(), path); err != nil {
			log.Fatal(err)
		}
	}
	fmt.Println(path.Kind, path.Technique, "to", path.Remote.Addr())
	// Output:
	// hello <nil>
	// direct udp-punch to 198.51.100.12
}
