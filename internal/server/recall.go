package server

import (
	"context"
	"time"

	wire "github.com/bodkin-net/bodkin/internal/wire/rendezvous"
)

const (
	// writeDelay gathers the slots of a burst into few writes.
	writeDelay = 20 * time.Millisecond

	// After a restart, everybody who was registered is asked to come back, at
	// recallBatch every recallPause (25,000 a second), or, while more than
	// recallJobs keys wait to be agreed on, every recallSlow (2,500 a second);
	// and once more whoever has not come recallAgain after that. Records of those
	// who then stay away for recallGrace are dropped.
	recallBatch = 250
	recallPause = 10 * time.Millisecond
	recallJobs  = 1000
	recallSlow  = 100 * time.Millisecond
	recallAgain = 1500 * time.Millisecond
	recallGrace = time.Minute
)

// runState writes the restart file, and first of all calls back whoever it
// remembers.
func (s *Server) runState(ctx context.Context) error {
	s.running.Go(func() { s.recall(ctx) })
	for {
		select {
		case <-ctx.Done():
			return nil // what is pending is written when everybody is gone
		case <-s.state.wake:
		}
		if !sleep(ctx, writeDelay) {
			return nil
		}
		s.state.flush()
	}
}

// recall asks the remembered peers to register again.
func (s *Server) recall(ctx context.Context) {
	old := s.state.old
	if len(old) == 0 {
		return
	}
	s.log.Info("asking the peers of before the restart to register", "peers", len(old))
	o := newOutbox(s.sockets)
	for pass := range 2 {
		if pass > 0 && !sleep(ctx, recallAgain) {
			return
		}
		sent := 0
		for _, r := range old {
			if !s.state.missing(r.slot.Endpoint) {
				continue
			}
			if sock := s.routes.remembered(r); sock >= 0 {
				o.addCopy(sock, r.slot.Endpoint, wire.Who{Handle: r.slot.Handle}.Append(nil))
				sent++
			}
			if sent == recallBatch {
				sent = 0
				s.flush(o)
				if !s.recallWait(ctx) {
					return
				}
			}
		}
		s.flush(o)
	}
	if sleep(ctx, recallGrace) {
		s.state.expire()
	}
}

// recallWait waits until the next peers may be asked to come. It is false when
// ctx ended.
func (s *Server) recallWait(ctx context.Context) bool {
	for range recallSlow / recallPause {
		if !sleep(ctx, recallPause) {
			return false
		}
		s.mu.Lock()
		busy := len(s.jobs) > recallJobs
		s.mu.Unlock()
		if !busy {
			break
		}
	}
	return true
}

// sleep is false when ctx ended before d did.
func sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}
