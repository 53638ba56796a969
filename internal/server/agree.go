package server

import (
	"net/netip"
	"runtime"
	"time"

	"github.com/bodkin-net/bodkin/internal/machine/rendezvous"
)

// job is a key to agree on, for a REGISTER of from that came in by sock.
type job struct {
	rendezvous.Agreement
	from netip.AddrPort
	sock int
}

// jobBatch is how many keys a worker agrees on before it takes the lock again.
const jobBatch = 16

// agree agrees on keys beside everything else, until the server is closed.
// Registrations wait for one another in s.jobs; nobody else waits for them.
func (s *Server) agree() {
	o := newOutbox(s.sockets)
	var batch []job
	for {
		s.mu.Lock()
		if len(batch) > 0 {
			now := time.Now()
			for _, j := range batch {
				s.machine.Agreed(now, j.Agreement)
				s.drain(o, j.from, j.sock)
			}
			s.armTimer()
		}
		for len(s.jobs) == 0 && !s.closed && !o.pending() {
			s.newJob.Wait()
		}
		closed := s.closed
		batch = s.takeJobs(batch[:0])
		s.mu.Unlock()
		s.flush(o)
		if closed {
			return
		}
		for i := range batch {
			batch[i].Agree(s.cfg.Key)
			runtime.Gosched() // whoever is ready goes first
		}
	}
}

// takeJobs takes this worker's share of the jobs. s.mu is held.
func (s *Server) takeJobs(batch []job) []job {
	n := min(len(s.jobs), max(len(s.jobs)/s.limits.KeyWorkers, 1), jobBatch)
	batch = append(batch, s.jobs[:n]...)
	clear(s.jobs[:n])
	s.jobs = s.jobs[n:]
	return batch
}
