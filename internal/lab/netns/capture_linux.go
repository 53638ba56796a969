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
	file *os.File
	out  *pcapgo.NgWriter
	more chan struct{}
	done chan error

	mu      sync.Mutex
	pending []seen
	ended   bool
}

type seen struct {
	at   time.Time
	port int
	ip   []byte
}

// newCapture starts a file with one interface per port of the network.
func newCapture(path string, s *segment) (*capture, error) {
	f, err := os.Create(path)
	if err != nil {
		return nil, fmt.Errorf("netns: capture: %w", err)
	}
	c := &capture{file: f, more: make(chan struct{}, 1), done: make(chan error, 1)}
	for i, p := range s.ports {
		intf := pcapgo.NgInterface{
			Name:       p.name(),
			Comment:    "network " + s.name,
			LinkType:   layers.LinkTypeRaw,
			SnapLength: 0,
			OS:         "linux",
		}
		if i == 0 {
			c.out, err = pcapgo.NewNgWriterInterface(f, intf, pcapgo.NgWriterOptions{
				SectionInfo: pcapgo.NgSectionInfo{Application: "bodkin"},
			})
		} else {
			_, err = c.out.AddInterface(intf)
		}
		if err != nil {
			f.Close()
			return nil, fmt.Errorf("netns: capture: %w", err)
		}
	}
	go c.run()
	return c, nil
}

func (c *capture) add(port int, v *view, scratch []byte) {
	at := time.Now()
	c.mu.Lock()
	if v.gsoSize == 0 {
		c.pending = append(c.pending, seen{at, port, captured(v.buf)})
	} else {
		v.segments(scratch, func(segment []byte) {
			c.pending = append(c.pending, seen{at, port, captured(segment)})
		})
	}
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
			if failed == nil {
				failed = c.out.WritePacket(gopacket.CaptureInfo{
					Timestamp: s.at, CaptureLength: len(s.ip), Length: len(s.ip), InterfaceIndex: s.port,
				}, s.ip)
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

// captured is a copy that can be kept.
func captured(buf []byte) []byte {
	b := bytes.Clone(buf)
	finishChecksum(b)
	return b[vnetLen:]
}
