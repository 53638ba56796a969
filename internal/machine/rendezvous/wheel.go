package rendezvous

import "math/bits"

const wheelLen = 256

// timer is the part of a slab's value by which it stands in a wheel. due can
// be moved later at no cost: the wheel looks again when the old time comes.
type timer struct {
	due        uint32 // tick
	next, prev uint32 // number + 1
	slot       uint8
}

// wheel ends things of a slab when they are due, to the tick (a second).
type wheel struct {
	timer    func(i uint32) *timer
	heads    [wheelLen]uint32
	occupied [wheelLen / 64]uint64
	tick     uint32 // slots before this tick are done
}

// arm puts i into the wheel. Its due is set.
func (w *wheel) arm(i uint32) {
	t := w.timer(i)
	at := min(max(t.due, w.tick), w.tick+wheelLen-1)
	t.slot = uint8(at % wheelLen)
	t.prev, t.next = 0, w.heads[t.slot]
	if t.next != 0 {
		w.timer(t.next - 1).prev = i + 1
	}
	w.heads[t.slot] = i + 1
	w.occupied[t.slot/64] |= 1 << (t.slot % 64)
}

func (w *wheel) disarm(i uint32) {
	t := w.timer(i)
	if t.next != 0 {
		w.timer(t.next - 1).prev = t.prev
	}
	if t.prev != 0 {
		w.timer(t.prev - 1).next = t.next
		return
	}
	w.heads[t.slot] = t.next
	if t.next == 0 {
		w.occupied[t.slot/64] &^= 1 << (t.slot % 64)
	}
}

// next is the tick at which advance has something to do.
func (w *wheel) next() (tick uint32, ok bool) {
	first := w.tick % wheelLen
	for k := range uint32(len(w.occupied) + 1) {
		word := (first/64 + k) % uint32(len(w.occupied))
		set := w.occupied[word]
		switch k {
		case 0:
			set &= ^uint64(0) << (first % 64)
		case uint32(len(w.occupied)):
			set &= 1<<(first%64) - 1
		}
		if set != 0 {
			slot := word*64 + uint32(bits.TrailingZeros64(set))
			return w.tick + (slot-first)%wheelLen, true
		}
	}
	return 0, false
}

// advance hands to end, which disarms it, everything that is due at or before
// now, but looks at no more than budget things.
func (w *wheel) advance(now uint32, budget int, end func(i uint32)) {
	for {
		tick, ok := w.next()
		if !ok || tick > now {
			w.tick = max(w.tick, now)
			return
		}
		w.tick = tick
		if budget == 0 {
			return
		}
		budget--
		i := w.heads[tick%wheelLen] - 1
		if w.timer(i).due <= tick {
			end(i)
			continue
		}
		w.disarm(i)
		w.arm(i)
	}
}
