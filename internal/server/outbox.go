package server

import "net/netip"

// An outbox collects what a batch of input has to send, socket by socket, so
// that it leaves in few system calls after the lock is gone. It serves one
// goroutine and allocates nothing once it has grown to its batch.
type outbox struct {
	lanes []lane
	arena []byte // copies of what would not live until flush
}

type lane struct {
	socket socket
	writer batchWriter // made when first needed
	queue  []datagram
}

func newOutbox(sockets []socket) *outbox {
	o := &outbox{lanes: make([]lane, len(sockets))}
	for i, s := range sockets {
		o.lanes[i].socket = s
	}
	return o
}

// add queues b, which must stay as it is until flush.
func (o *outbox) add(sock int, to netip.AddrPort, b []byte) {
	l := &o.lanes[sock]
	l.queue = append(l.queue, datagram{to, b})
}

// addCopy queues a copy of b.
func (o *outbox) addCopy(sock int, to netip.AddrPort, b []byte) {
	start := len(o.arena)
	o.arena = append(o.arena, b...)
	o.add(sock, to, o.arena[start:])
}

// pending tells whether there is something to flush.
func (o *outbox) pending() bool {
	for i := range o.lanes {
		if len(o.lanes[i].queue) > 0 {
			return true
		}
	}
	return false
}

// flush sends everything and says how many datagrams the kernel took.
func (o *outbox) flush() (sent int) {
	for i := range o.lanes {
		l := &o.lanes[i]
		if len(l.queue) == 0 {
			continue
		}
		if l.writer == nil {
			l.writer = l.socket.writer()
		}
		sent += l.writer.write(l.queue)
		l.queue = l.queue[:0]
	}
	o.arena = o.arena[:0]
	return sent
}
