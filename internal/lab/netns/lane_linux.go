package netns

import (
	"math/rand/v2"
	"time"

	"github.com/bodkin-net/bodkin/internal/lab/scenario"
)

// A link with a rate queues what it can send in queueTime, and minQueue bytes
// at least.
const (
	queueTime = 100 * time.Millisecond
	minQueue  = 64 << 10
)

const defaultMTU = 1500

// lane is one direction of an access link. Times are nanoseconds.
type lane struct {
	link scenario.Link
	free int64 // when the last packet will have left the transmitter
}

// change gives the lane another link. What waits for its turn keeps its time,
// but nobody waits for that longer than a faster link takes to send it.
func (l *lane) change(now int64, to scenario.Link) {
	switch was := l.link.Rate; {
	case to.Rate == 0:
		l.free = 0
	case to.Rate > was:
		l.free = now + int64(float64(max(0, l.free-now))*float64(was)/float64(to.Rate))
	}
	l.link = to
}

// ideal says that a packet of a size arrives at once, whatever came before.
func (l *lane) ideal(largest int) bool {
	return l.link.Delay == 0 && l.plain() && largest <= l.mtu()
}

// plain says that packets in a burst need not be told apart.
func (l *lane) plain() bool {
	return l.link.Rate == 0 && l.link.Loss == 0 && l.link.Jitter == 0 && l.link.Reorder == 0 && l.link.Repeat == 0
}

func (l *lane) mtu() int {
	if l.link.MTU == 0 {
		return defaultMTU
	}
	return l.link.MTU
}

// admit says when a packet of size bytes that is offered at now arrives at the
// other end: not at all, once or twice.
func (l *lane) admit(now int64, size, largest int, rng *rand.Rand) (at [2]int64, times int) {
	if largest > l.mtu() || l.link.Loss > 0 && rng.Float64() < l.link.Loss {
		return at, 0
	}
	if l.link.Rate > 0 {
		start := max(now, l.free)
		waiting := time.Duration(start-now).Seconds() * float64(l.link.Rate) / 8
		if waiting+float64(size) > max(minQueue, queueTime.Seconds()*float64(l.link.Rate)/8) {
			return at, 0
		}
		l.free = start + int64(size)*8*int64(time.Second)/l.link.Rate
		now = l.free
	}
	at[0] = l.cross(now, rng)
	if l.link.Repeat > 0 && rng.Float64() < l.link.Repeat {
		at[1] = l.cross(now, rng)
		return at, 2
	}
	return at, 1
}

// cross is when a packet that leaves at now arrives.
func (l *lane) cross(now int64, rng *rand.Rand) int64 {
	if l.link.Reorder > 0 && rng.Float64() < l.link.Reorder {
		return now
	}
	now += int64(l.link.Delay)
	if l.link.Jitter > 0 {
		now += rng.Int64N(int64(l.link.Jitter) + 1)
	}
	return now
}
