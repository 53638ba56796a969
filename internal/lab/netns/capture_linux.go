package netns

import (
	"bytes"
	"fmt"
	"os"
	"sync"
	"time"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"
	"github.com/gopacket/gopacket/pcapgo"
)

// capture writes what a network is given to carry to a pcapng file, on a
// goroutine of its own so that the wire need not wait for the disk.
type capture struct {
	path string
	file *os.File
	out  *pcapgo.NgWriter
	more chan struct{}
	done chan error

	mu      sync.Mutex
	ports   map[string]int // by name: the numbers of the interfaces
	pending []seen
	ended   bool
}

// seen is a frame, or, without one, a new interface.
type seen struct {
	at    time.Time
	port  int
	frame []byte
	name  string
}

// newCapture starts a file with one interface per port of the network.
func newCapture(path string, n *network) (*capture, error) {
	f, err := os.Create(path)
	if err != nil {
		return nil, fmt.Errorf("netns: capture: %w", err)
	}
	c := &capture{path: path, file: f, more: make(chan struct{}, 1), done: make(chan error, 1), ports: map[string]int{}}
	for _, p := range n.ports {
		number := len(c.ports)
		c.ports[p.name()] = number
		if number == 0 {
			c.out, err = pcapgo.NewNgWriterInterface(f, captured(p.name()), pcapgo.NgWriterOptions{
				SectionInfo: pcapgo.NgSectionInfo{Application: "bodkin", Comment: "network " + n.name},
			})
		} else {
			_, err = c.out.AddInterface(captured(p.name()))
		}
		if err != nil {
			f.Close()
			return nil, fmt.Errorf("netns: capture: %w", err)
		}
	}
	if len(n.ports) == 0 {
		f.Close()
		return nil, fmt.Errorf("netns: capture: nothing is on network %q", n.name)
	}
	go c.run()
	c.poke() // who reads along gets to know the ports before the first packet
	return c, nil
}

func captured(port string) pcapgo.NgInterface {
	return pcapgo.NgInterface{Name: port, LinkType: layers.LinkTypeEthernet, OS: "linux"}
}

// add notes a packet that a port sent.
func (c *capture) add(p *wirePort, v *view, scratch []byte) {
	if v.gsoSize == 0 {
		c.addFrame(p, v.buf)
		return
	}
	v.segments(scratch, func(segment []byte) { c.addFrame(p, segment) })
}

// addFrame notes what is in a buffer.
func (c *capture) addFrame(p *wirePort, buf []byte) {
	b := bytes.Clone(buf)
	finishChecksum(b)
	c.mu.Lock()
	number, known := c.ports[p.name()]
	if !known { // it moved here
		number = len(c.ports)
		c.ports[p.name()] = number
		c.pending = append(c.pending, seen{name: p.name()})
	}
	c.pending = append(c.pending, seen{at: time.Now(), port: number, frame: b[vnetLen:]})
	c.mu.Unlock()
	c.poke()
}

func (c *capture) poke() {
	select {
	case c.more <- struct{}{}:
	default:
	}
}

// run writes what is pending and flushes, so that the file is whole whenever
// the network is quiet.
func (c *capture) run() {
	var failed error
	for range c.more {
		c.mu.Lock()
		batch, ended := c.pending, c.ended
		c.pending = nil
		c.mu.Unlock()
		for _, s := range batch {
			switch {
			case failed != nil:
			case s.frame == nil:
				_, failed = c.out.AddInterface(captured(s.name))
			default:
				failed = c.out.WritePacket(gopacket.CaptureInfo{
					Timestamp: s.at, CaptureLength: len(s.frame), Length: len(s.frame), InterfaceIndex: s.port,
				}, s.frame)
			}
		}
		if failed == nil {
			failed = c.out.Flush()
		}
		if ended {
			break
		}
	}
	if err := c.file.Close(); failed == nil {
		failed = err
	}
	c.done <- failed
}

func (c *capture) close() error {
	c.mu.Lock()
	c.ended = true
	c.mu.Unlock()
	c.poke()
	return <-c.done
}
