//go:build amd64 || arm64

package netio

import (
	"encoding/binary"
	"fmt"
	"slices"
	"testing"

	"golang.org/x/sys/unix"
)

// TestBatchCutsWhatTheKernelJoined sends datagrams of one length in one piece,
// as quic-go does, of all kinds, and more than quic-go reads at a time.
func TestBatchCutsWhatTheKernelJoined(t *testing.T) {
	us, them := loopback(t), loopback(t)
	got := make(collector, 100)
	s := NewSocket(us, got)
	relayed := s.AddRelay([8]byte{1}, addrOf(them))
	const size = 20

	// The first read turns joining on.
	if _, err := them.WriteTo([]byte{0x40}, us.LocalAddr()); err != nil {
		t.Fatal(err)
	}
	readBatch(t, s)

	var pieces []byte
	var quic, other, relay []string
	for i := range 30 {
		switch i % 3 {
		case 0:
			p := fmt.Sprintf("\x40quic %02d", i)
			pieces = append(pieces, fmt.Sprintf("%-*s", size, p)...)
			quic = append(quic, fmt.Sprintf("%-*s", size, p))
		case 1:
			p := fmt.Sprintf("\x04other %02d", i)
			pieces = append(pieces, fmt.Sprintf("%-*s", size, p)...)
			other = append(other, fmt.Sprintf("%-*s", size, p))
		case 2:
			p := fmt.Sprintf("%-10s", fmt.Sprintf("relay %02d", i))
			pieces = append(pieces, "\x05\x01\x01\x00\x00\x00\x00\x00\x00\x00"+p...)
			relay = append(relay, p)
		}
	}
	pieces = append(pieces, "\x40short"...) // the last may be shorter
	quic = append(quic, "\x40short")

	oob := make([]byte, unix.CmsgSpace(2))
	binary.NativeEndian.PutUint64(oob, uint64(unix.CmsgLen(2)))
	binary.NativeEndian.PutUint32(oob[8:], unix.IPPROTO_UDP)
	binary.NativeEndian.PutUint32(oob[12:], unix.UDP_SEGMENT)
	binary.NativeEndian.PutUint16(oob[16:], size)
	if _, _, err := them.WriteMsgUDPAddrPort(pieces, oob, addrOf(us)); err != nil {
		t.Skip("this kernel does not segment: ", err)
	}

	var gotQUIC []string
	for len(gotQUIC) < len(quic) {
		for _, p := range readBatch(t, s) {
			gotQUIC = append(gotQUIC, string(p.data))
			if p.from != addrOf(them) {
				t.Errorf("from %v", p.from)
			}
		}
	}
	if !slices.Equal(gotQUIC, quic) {
		t.Errorf("QUIC got %q", gotQUIC)
	}
	for _, want := range other {
		if p := <-got; string(p.data) != want || p.from != addrOf(them) {
			t.Errorf("the handler got %q from %v, want %q", p.data, p.from, want)
		}
	}
	b := make([]byte, 100)
	for _, want := range relay {
		n, from, err := s.Relay().ReadFrom(b)
		if err != nil || from != relayed || string(b[:n]) != want {
			t.Errorf("the relay got %q from %v, %v, want %q", b[:n], from, err, want)
		}
	}
	if n := s.quic.(*udpConn).messages[0].N; n != len(pieces) {
		t.Errorf("the kernel gave %d bytes in one piece, want all %d", n, len(pieces))
	}
}
