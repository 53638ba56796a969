package sim

// fifo is a queue of bytes that reuses its memory.
type fifo struct {
	b    []byte
	head int
}

func (f *fifo) bytes() []byte { return f.b[f.head:] }
func (f *fifo) len() int      { return len(f.b) - f.head }

func (f *fifo) push(p []byte) {
	if f.head > 0 && len(f.b)+len(p) > cap(f.b) {
		f.b = f.b[:copy(f.b, f.b[f.head:])]
		f.head = 0
	}
	f.b = append(f.b, p...)
}

func (f *fifo) drop(n int) {
	if f.head += n; f.head == len(f.b) {
		f.b, f.head = f.b[:0], 0
	}
}
