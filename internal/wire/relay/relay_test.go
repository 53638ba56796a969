package relay

import (
	"bytes"
	"encoding/hex"
	"errors"
	"testing"
)

var id = ID{0xd0, 0xd1, 0xd2, 0xd3, 0xd4, 0xd5, 0xd6, 0xd7}

func TestVectors(t *testing.T) {
	b := append(AppendHeader(nil, id), "payload"...)
	if got := hex.EncodeToString(b); got != "0501d0d1d2d3d4d5d6d7"+hex.EncodeToString([]byte("payload")) {
		t.Errorf("packet %s", got)
	}
	got, payload, ok := Parse(b)
	if !ok || got != id || string(payload) != "payload" {
		t.Errorf("parsed %v %q %v", got, payload, ok)
	}
	p := Preface{id, [8]byte{1, 2, 3, 4, 5, 6, 7, 8}, 0x1112131415161718}
	if got := hex.EncodeToString(p.Append(nil)); got != "0501d0d1d2d3d4d5d6d7"+"0102030405060708"+"1112131415161718" {
		t.Errorf("preface %s", got)
	}
}

func TestRefuses(t *testing.T) {
	good := append(AppendHeader(nil, id), 1, 2)
	if _, payload, ok := Parse(good[:HeaderLen]); !ok || len(payload) != 0 {
		t.Error("an empty payload is refused")
	}
	for n := range HeaderLen {
		if _, _, ok := Parse(good[:n]); ok {
			t.Errorf("%d bytes are accepted", n)
		}
	}
	for i := range 2 {
		bad := bytes.Clone(good)
		bad[i]++
		if _, _, ok := Parse(bad); ok {
			t.Errorf("byte %d is not looked at", i)
		}
	}
	preface := append(Preface{Relay: id}.Append(nil), make([]byte, 16)...)
	if _, err := ParsePreface(preface); err != nil {
		t.Error(err)
	}
	for _, bad := range [][]byte{nil, preface[:PrefaceLen-1], append(bytes.Clone(preface), 0), append([]byte{4}, preface[1:]...), append([]byte{5, 2}, preface[2:]...)} {
		if _, err := ParsePreface(bad); !errors.Is(err, ErrMalformed) {
			t.Errorf("%x: %v", bad, err)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add(append(AppendHeader(nil, id), "payload"...))
	f.Add(append(Preface{Relay: id}.Append(nil), make([]byte, 16)...))
	f.Fuzz(func(t *testing.T, b []byte) {
		if id, payload, ok := Parse(b); ok && !bytes.Equal(append(AppendHeader(nil, id), payload...), b) {
			t.Errorf("packet %x is not stable", b)
		}
		if p, err := ParsePreface(b); err == nil && !bytes.Equal(append(p.Append(nil), b[prefaceMAC:]...), b) {
			t.Errorf("preface %x is not stable", b)
		}
	})
}
