package main

import (
	"errors"
	"io"
	"os"
	"sync"
)

// input reads standard input for one stream after another. A read of standard
// input cannot be interrupted, so one goroutine does all of them, and what it
// has read when a stream ends goes to the next one.
type input struct {
	start  sync.Once
	from   io.Reader
	chunks chan []byte // closed at the end
	rest   []byte
	err    error // why chunks was closed
}

var stdin = &input{from: os.Stdin, chunks: make(chan []byte)}

var errStreamOver = errors.New("the stream is over")

func (in *input) pump() {
	for {
		b := make([]byte, 64<<10)
		n, err := in.from.Read(b)
		if n > 0 {
			in.chunks <- b[:n]
		}
		if err != nil {
			in.err = err
			close(in.chunks)
			return
		}
	}
}

// until is the input for a stream that is over when done is closed. Only one
// is read at a time.
func (in *input) until(done <-chan struct{}) io.Reader {
	in.start.Do(func() { go in.pump() })
	return &inputFor{in, done}
}

type inputFor struct {
	in   *input
	done <-chan struct{}
}

// next makes sure that there is something in rest.
func (i *inputFor) next() error {
	if len(i.in.rest) > 0 {
		return nil
	}
	select {
	case b, ok := <-i.in.chunks:
		if !ok {
			return i.in.err
		}
		i.in.rest = b
		return nil
	case <-i.done:
		return errStreamOver
	}
}

func (i *inputFor) Read(p []byte) (int, error) {
	if err := i.next(); err != nil {
		return 0, err
	}
	n := copy(p, i.in.rest)
	i.in.rest = i.in.rest[n:]
	return n, nil
}

// WriteTo spares io.Copy a buffer and a copy of everything.
func (i *inputFor) WriteTo(w io.Writer) (n int64, err error) {
	for {
		if err := i.next(); err == io.EOF {
			return n, nil
		} else if err != nil {
			return n, err
		}
		k, err := w.Write(i.in.rest)
		n += int64(k)
		i.in.rest = i.in.rest[k:]
		if err != nil {
			return n, err
		}
	}
}
