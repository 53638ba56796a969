package server

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"log/slog"
	"maps"
	"net/netip"
	"os"
	"slices"
	"sync"

	"github.com/bodkin-net/bodkin/internal/identity"
	"github.com/bodkin-net/bodkin/internal/machine/rendezvous"
	wire "github.com/bodkin-net/bodkin/internal/wire/rendezvous"
)

// The restart file. All integers are big endian.
//
//	header[64]  magic[24] | server id[32] | zeros[8]
//	record[32]  endpoint[19] | handle[8] | UDP socket u8 | CRC-32C over index u32 and the 28 bytes before
//
// A record stands at 64 + 32*index, and is all zero when its slot is free. It is
// written in place as soon as its slot changes; what a kill of the process leaves
// behind is a whole record or, after a crash of the machine, one whose checksum
// is wrong. Nothing waits for the disk: a record lost costs its peer the time
// until its next keep-alive, no more.
const (
	stateMagic  = "bodkin restart file 1\x1a\x00\x00"
	stateHeader = 64
	recordLen   = 32
	maxRecords  = 1 << 22
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// remembered is where a peer was registered before the restart.
type remembered struct {
	slot   rendezvous.Slot
	socket int
}

// stateFile keeps the restart file. Its nil is a server without one.
type stateFile struct {
	f     *os.File
	log   *slog.Logger
	old   []remembered // as read at the start
	wake  chan struct{}
	write sync.Mutex // held by who writes to f

	mu      sync.Mutex
	pending map[uint32]remembered
	stale   map[uint32]netip.AddrPort // of old, by slot, what was not written over yet
	absent  map[netip.AddrPort]bool   // of old, who did not register again yet
	failing bool
}

// ErrStateInUse is wrapped by New's error for a restart file that another server holds.
var ErrStateInUse = errors.New("in use by another server")

// openState opens, locks and reads the file. One that is no restart file is set
// aside, under its name and ".bad"; one of another key is begun anew.
func openState(path string, id identity.ID, log *slog.Logger) (*stateFile, error) {
	f, err := lockedFile(path)
	if err != nil {
		return nil, err
	}
	s := &stateFile{
		f: f, log: log.With("file", path), wake: make(chan struct{}, 1),
		pending: make(map[uint32]remembered), stale: make(map[uint32]netip.AddrPort), absent: make(map[netip.AddrPort]bool),
	}
	header := make([]byte, stateHeader)
	n, err := io.ReadFull(f, header)
	switch {
	case err == io.EOF:
		return s, s.begin(id)
	case err != nil && err != io.ErrUnexpectedEOF:
		f.Close()
		return nil, err
	case n < stateHeader || string(header[:len(stateMagic)]) != stateMagic:
		s.log.Warn("this is not a restart file: ignored and set aside as .bad")
		f.Close()
		if err := os.Rename(path, path+".bad"); err != nil {
			return nil, err
		}
		return openState(path, id, log)
	case identity.ID(header[len(stateMagic):len(stateMagic)+32]) != id:
		s.log.Warn("the restart file is of a server with another key: ignored and begun anew")
		return s, s.begin(id)
	}
	if err := f.Chmod(0o600); err != nil {
		s.log.Warn("restart file", "error", err)
	}
	s.read()
	return s, nil
}

// lockedFile opens the file for this server alone.
func lockedFile(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	info, err := f.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = errors.New("not a regular file")
	}
	if err == nil {
		err = lockFile(f)
	}
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return f, nil
}

// begin makes f the empty restart file of a server.
func (s *stateFile) begin(id identity.ID) error {
	header := make([]byte, stateHeader)
	copy(header, stateMagic)
	copy(header[len(stateMagic):], id[:])
	err := s.f.Truncate(0)
	if err == nil {
		err = s.f.Chmod(0o600)
	}
	if err == nil {
		_, err = s.f.WriteAt(header, 0)
	}
	if err != nil {
		s.f.Close()
	}
	return err
}

// read takes in the records; those that are damaged are left out.
func (s *stateFile) read() {
	damaged := 0
	buf := make([]byte, 2048*recordLen)
	for index := uint32(0); index < maxRecords; {
		n, err := s.f.ReadAt(buf, stateHeader+int64(index)*recordLen)
		for b := buf[:n-n%recordLen]; len(b) > 0; b, index = b[recordLen:], index+1 {
			switch r, ok := parseRecord(b[:recordLen], index); {
			case !ok:
				damaged++
			case r.slot.Endpoint.IsValid():
				s.old = append(s.old, r)
				s.stale[index] = r.slot.Endpoint
				s.absent[r.slot.Endpoint] = true
			}
		}
		if err != nil {
			if n%recordLen != 0 {
				damaged++
			}
			if err != io.EOF {
				s.log.Warn("restart file", "error", err)
			}
			break
		}
	}
	if damaged > 0 {
		s.log.Warn("restart file: damaged records ignored", "damaged", damaged, "read", len(s.old))
	}
}

func appendRecord(dst []byte, r remembered) []byte {
	if !r.slot.Endpoint.IsValid() {
		return append(dst, make([]byte, recordLen)...)
	}
	start := len(dst)
	dst = wire.AppendEndpoint(dst, r.slot.Endpoint)
	dst = append(dst, r.slot.Handle[:]...)
	dst = append(dst, byte(r.socket))
	return binary.BigEndian.AppendUint32(dst, recordSum(dst[start:], r.slot.Index))
}

// parseRecord reads a record; a free one has no endpoint.
func parseRecord(b []byte, index uint32) (r remembered, ok bool) {
	if [recordLen]byte(b) == ([recordLen]byte{}) {
		return r, true
	}
	body := b[:recordLen-4]
	endpoint, err := wire.ParseEndpoint(body[:wire.EndpointLen])
	if err != nil || binary.BigEndian.Uint32(b[recordLen-4:]) != recordSum(body, index) {
		return r, false
	}
	r.slot = rendezvous.Slot{Index: index, Endpoint: endpoint, Handle: rendezvous.Handle(body[wire.EndpointLen:])}
	r.socket = int(body[wire.EndpointLen+8])
	return r, endpoint.IsValid()
}

func recordSum(body []byte, index uint32) uint32 {
	var i [4]byte
	binary.BigEndian.PutUint32(i[:], index)
	return crc32.Update(crc32.Checksum(i[:], castagnoli), castagnoli, body)
}

// put notes a slot that changed. It is written soon, by another goroutine.
func (s *stateFile) put(slot rendezvous.Slot, socket int) {
	if s == nil || slot.Index >= maxRecords {
		return
	}
	s.mu.Lock()
	s.pending[slot.Index] = remembered{slot, socket}
	delete(s.stale, slot.Index)
	delete(s.absent, slot.Endpoint)
	s.mu.Unlock()
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// flush writes what is pending, neighbours in one call.
func (s *stateFile) flush() {
	s.write.Lock()
	defer s.write.Unlock()
	s.mu.Lock()
	pending := s.pending
	s.pending = make(map[uint32]remembered)
	s.mu.Unlock()

	var buf []byte
	var first uint32
	var err error
	send := func() {
		if len(buf) > 0 {
			if _, werr := s.f.WriteAt(buf, stateHeader+int64(first)*recordLen); werr != nil {
				err = werr
			}
		}
		buf = buf[:0]
	}
	for _, index := range slices.Sorted(maps.Keys(pending)) {
		if int64(index) != int64(first)+int64(len(buf)/recordLen) {
			send()
		}
		if len(buf) == 0 {
			first = index
		}
		buf = appendRecord(buf, pending[index])
	}
	send()
	if failing := err != nil; failing != s.failing && len(pending) > 0 {
		s.failing = failing
		s.log.Warn("restart file: writing", "failing", failing, "error", err)
	}
}

// expire frees the old records that nobody wrote over.
func (s *stateFile) expire() {
	s.mu.Lock()
	for index := range s.stale {
		s.pending[index] = remembered{slot: rendezvous.Slot{Index: index}}
	}
	s.stale, s.absent, s.old = nil, nil, nil
	s.mu.Unlock()
	s.flush()
}

// missing tells whether nobody registered from the endpoint since the start.
func (s *stateFile) missing(endpoint netip.AddrPort) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.absent[endpoint]
}

func (s *stateFile) close() error {
	if s == nil {
		return nil
	}
	s.flush()
	return s.f.Close()
}
