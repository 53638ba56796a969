package netns

import (
	"bytes"
	"encoding/binary"
)

// joined is several datagrams of one flow that a device is handed as one, to be
// cut up by the kernel: most of what a small packet costs, it costs once a
// write. They differ in nothing but their payloads, all of one length but for
// the last, and in what the kernel works out anew: the IPv4 identification and
// the checksums, which were left to it by the sender.
type joined struct {
	buf     []byte
	packets int
	headers int // IP and UDP
	size    int // payload of each
}

const (
	joinedFlows    = 8  // of a device at a time
	maxJoined      = 64 // the kernel's own limit for the sender is as high
	maxJoinedBytes = 60_000
	udpChecksum    = 6 // where it stands in the header
)

// joinable is the length of the headers of a whole datagram that waits for its
// checksum; 0 for any other packet.
func joinable(buf []byte) int {
	if buf[0]&vnetNeedsChecksum == 0 || buf[1] != gsoNone || binary.NativeEndian.Uint16(buf[8:]) != udpChecksum {
		return 0
	}
	switch p := buf[room:]; {
	case len(p) > 28 && p[0] == 0x45 && p[9] == byte(UDP) && p[6]&0x3f == 0 && p[7] == 0:
		return 28
	case len(p) > 48 && p[0]>>4 == 6 && p[6] == byte(UDP):
		return 48
	}
	return 0
}

func (j *joined) begin(buf []byte, headers int) {
	j.buf = append(j.buf[:0], buf...)
	j.packets, j.headers, j.size = 1, headers, len(buf)-room-headers
}

// add takes the next packet of the flow, if there is room for it.
func (j *joined) add(buf []byte) bool {
	payload := buf[room+j.headers:]
	if j.packets == maxJoined || len(payload) > j.size || len(j.buf)+len(payload) > maxJoinedBytes ||
		len(j.buf)-room-j.headers < j.packets*j.size { // the last one was short
		return false
	}
	j.buf = append(j.buf, payload...)
	j.packets++
	return true
}

func (j *joined) sameFlow(buf []byte, headers int) bool {
	if headers != j.headers || !bytes.Equal(j.buf[vnetLen:room], buf[vnetLen:room]) {
		return false
	}
	a, b := j.buf[room:], buf[room:]
	if headers == 48 { // all but the payload length
		return bytes.Equal(a[6:44], b[6:44]) && bytes.Equal(a[:4], b[:4])
	}
	// All but the length, the identification and the checksum.
	return bytes.Equal(a[12:24], b[12:24]) && bytes.Equal(a[:2], b[:2]) && bytes.Equal(a[6:10], b[6:10])
}

// packet is what was joined, as one.
func (j *joined) packet() []byte {
	if j.packets == 1 {
		return j.buf
	}
	p := j.buf[room:]
	udp := p[j.headers-8:]
	if p[0]>>4 == 4 {
		binary.BigEndian.PutUint16(p[2:], uint16(len(p)))
		sumHeaderIPv4(p)
	} else {
		binary.BigEndian.PutUint16(p[4:], uint16(len(p)-40))
	}
	binary.BigEndian.PutUint16(udp[4:], uint16(len(udp)))
	v := view{ip: p, proto: UDP}
	binary.BigEndian.PutUint16(udp[udpChecksum:], fold(v.pseudoSum(len(udp))))
	j.buf[1] = gsoUDP
	binary.NativeEndian.PutUint16(j.buf[2:], uint16(j.headers))
	binary.NativeEndian.PutUint16(j.buf[4:], uint16(j.size))
	return j.buf
}

// put hands a packet to the device, now or, until flush, with others of its
// flow. Flows may overtake each other, packets of a flow do not.
func (w *wire) put(d *device, buf []byte) {
	headers := 0
	if d.joins {
		headers = joinable(buf)
	}
	if headers == 0 {
		d.flush()
		d.write(buf)
		return
	}
	for i := range d.flows {
		j := &d.joined[i]
		if !j.sameFlow(buf, headers) {
			continue
		}
		if !j.add(buf) {
			d.write(j.packet())
			j.begin(buf, headers)
		}
		return
	}
	switch d.flows {
	case joinedFlows:
		d.flush()
	case 0:
		w.waiting = append(w.waiting, d)
	}
	d.joined[d.flows].begin(buf, headers)
	d.flows++
}

func (d *device) flush() {
	for i := range d.flows {
		d.write(d.joined[i].packet())
	}
	d.flows = 0
}

// flush hands over what waits to be joined.
func (w *wire) flush() {
	for _, d := range w.waiting {
		d.flush()
	}
	w.waiting = w.waiting[:0]
}
