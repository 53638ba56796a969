package punch

import "time"

const (
	holdHeard   = 50 * time.Millisecond
	holdUnheard = 30 * time.Millisecond
)

// choose lets the offerer nominate the best valid pair, unless it is to wait
// for a better one.
func (m *Machine) choose(now time.Time) {
	m.holdUntil = time.Time{}
	if m.done || !m.cfg.Offerer {
		return
	}
	var best *pair
	for _, p := range m.pairs {
		if p.state == valid && p != m.chosen && (best == nil || p.better(best)) {
			best = p
		}
	}
	if best == nil || m.chosen != nil && best.technique.rank() <= m.chosen.technique.rank() {
		return
	}
	if m.chosen == nil {
		if until := m.hold(best); now.Before(until) {
			m.holdUntil = until
			return
		}
	}
	m.nomination++
	m.up(best)
	m.watch = watch{choosing: true, repeat: best.patience()}
	m.watchSend(now)
}

func (p *pair) better(q *pair) bool {
	if a, b := p.technique.rank(), q.technique.rank(); a != b {
		return a > b
	}
	return p.rtt < q.rtt
}

// hold says until when a pair that is valid waits for better ones.
func (m *Machine) hold(best *pair) (until time.Time) {
	for _, p := range m.pairs {
		if p.technique.rank() <= best.technique.rank() || p.state >= valid {
			continue
		}
		t := m.started.Add(min(holdUnheard, 2*best.rtt))
		if !p.heard.IsZero() || p.proved {
			t = best.validAt.Add(min(holdHeard, best.rtt/2))
		}
		if t.After(until) {
			until = t
		}
	}
	return until
}

// accept lets the answerer take the offerer's newest choice, once a check of
// its own was answered there: the request alone may be somebody's repetition.
func (m *Machine) accept(now time.Time, p *pair) {
	if m.cfg.Offerer || !p.proved || p.nominated <= m.nomination {
		return
	}
	m.nomination = p.nominated
	p.state, p.result = valid, ""
	m.up(p)
	m.watch = watch{last: now, next: now.Add(watchPeriod)}
}

// up makes p the path in use.
func (m *Machine) up(p *pair) {
	m.chosen = p
	m.endOthers(func(q *pair) bool { return q.technique.rank() <= p.technique.rank() })
	m.emit(PathUp{Remote: p.remote, Technique: p.technique, RTT: p.rtt, Mapped: p.mapped})
}

// endOthers ends the pairs that were not chosen and for which over is true.
func (m *Machine) endOthers(over func(*pair) bool) {
	for _, p := range m.pairs {
		if p != m.chosen && over(p) {
			p.end(Worse)
		}
	}
}
