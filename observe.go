package bodkin

import (
	"sync"
	"time"
)

// events hands events to the observer, one at a time and in order, from a
// goroutine of its own: whoever emits may hold locks.
type events struct {
	observe func(Event)
	mu      sync.Mutex
	queue   []Event
	wake    chan struct{}
	end     chan struct{}
	done    chan struct{}
}

// maxEvents bounds what waits for a slow observer: peers can make events.
const maxEvents = 4096

func newEvents(observe func(Event)) *events {
	e := &events{observe: observe, wake: make(chan struct{}, 1), end: make(chan struct{}), done: make(chan struct{})}
	if observe == nil {
		close(e.done)
		return e
	}
	go e.run()
	return e
}

func (e *events) run() {
	defer close(e.done)
	for {
		select {
		case <-e.wake:
			e.hand()
		case <-e.end:
			e.hand()
			return
		}
	}
}

func (e *events) hand() {
	e.mu.Lock()
	queue := e.queue
	e.queue = nil
	e.mu.Unlock()
	for _, ev := range queue {
		e.observe(ev)
	}
}

func (e *events) close() {
	close(e.end)
	<-e.done
}

// emit queues an event for the observer. It never blocks.
func (n *Node) emit(ev Event) {
	e := n.events
	if e.observe == nil {
		return
	}
	ev.Time = time.Now()
	e.mu.Lock()
	if len(e.queue) >= maxEvents {
		e.queue = e.queue[1:] // the observer does not return, or not soon enough
	}
	e.queue = append(e.queue, ev)
	e.mu.Unlock()
	notify(e.wake)
}

func isClosed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}
