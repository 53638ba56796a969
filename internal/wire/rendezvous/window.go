package rendezvous

// Window remembers which of the last 64 txids were seen. Whatever is not
// above the txid it was made with counts as seen.
type Window struct {
	base, top uint64 // base < every txid of this registration <= top
	seen      uint64 // bit i: top-i was seen
}

// NewWindow accepts txids above base.
func NewWindow(base uint64) Window { return Window{base: base, top: base} }

// Fresh tells whether tx was not seen and is not too old.
func (w *Window) Fresh(tx uint64) bool {
	switch {
	case tx > w.top:
		return true
	case tx <= w.base || w.top-tx >= 64:
		return false
	}
	return w.seen>>(w.top-tx)&1 == 0
}

// Mark notes that tx, which is Fresh, was seen and was authentic.
func (w *Window) Mark(tx uint64) {
	if tx <= w.top {
		w.seen |= 1 << (w.top - tx)
		return
	}
	// A shift by 64 or more gives zero.
	w.seen = w.seen<<(tx-w.top) | 1
	w.top = tx
}

// Rebase makes everything up to base count as seen, and forgets nothing.
func (w *Window) Rebase(base uint64) {
	w.base = base
	if base > w.top {
		w.top, w.seen = base, 0
	}
}

// Base is the txid that the window begins above.
func (w *Window) Base() uint64 { return w.base }

// Top is the largest txid that counts as seen.
func (w *Window) Top() uint64 { return w.top }
