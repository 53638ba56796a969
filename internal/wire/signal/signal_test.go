package signal

import (
	"bytes"
	"encoding/hex"
	"errors"
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/bodkin-net/bodkin/internal/identity"
)

var (
	alice = identity.FromSeed([32]byte{1})
	bob   = identity.FromSeed([32]byte{2})
	carol = identity.FromSeed([32]byte{3})

	compare = cmpopts.EquateComparable(netip.AddrPort{})
)

func offer() Signal {
	return Signal{
		Type: Offer, Flags: DirectOnly,
		Attempt: [8]byte{1, 2, 3}, Session: [16]byte{4, 5, 6}, Key: [32]byte{7, 8, 9},
		Candidates: []Candidate{
			{Host, UDP, netip.MustParseAddrPort("192.168.1.2:4000")},
			{Host, TCP, netip.MustParseAddrPort("[2001:db8::2]:4000")},
			{ServerReflexive, UDP, netip.MustParseAddrPort("198.51.100.1:65535")},
			{PortMapped, UDP, netip.MustParseAddrPort("198.51.100.1:1")},
		},
	}
}

func mustSeal(t testing.TB, key identity.Key, to identity.ID, s Signal) []byte {
	t.Helper()
	b, err := Seal(key, to, s)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestSealOpen(t *testing.T) {
	answer := offer()
	answer.Type, answer.Key, answer.Flags, answer.Candidates = Answer, [32]byte{}, RelayOnly, nil
	full := offer()
	full.Candidates = nil
	for i := range uint16(MaxCandidates) {
		full.Candidates = append(full.Candidates, Candidate{Host, UDP, netip.AddrPortFrom(netip.MustParseAddr("10.0.0.1"), i+1)})
	}
	for name, s := range map[string]Signal{"offer": offer(), "answer": answer, "full": full} {
		sealed := mustSeal(t, alice, bob.ID(), s)
		got, err := Open(bob, sealed)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		s.From = alice.ID()
		if d := cmp.Diff(s, got, compare); d != "" {
			t.Errorf("%s: %s", name, d)
		}
		if want := 32 + headLen + len(s.Candidates)*candidateLen + sigLen + 16; len(sealed) != want || want > MaxSealed || MaxSealed > 1000 {
			t.Errorf("%s: %d bytes, want %d", name, len(sealed), want)
		}
	}
}

// Whatever From says, it becomes the signer's id.
func TestFromIsTheSigner(t *testing.T) {
	s := offer()
	s.From = carol.ID()
	got, err := Open(bob, mustSeal(t, alice, bob.ID(), s))
	if err != nil || got.From != alice.ID() {
		t.Errorf("from %v, %v", got.From, err)
	}
}

// sealRaw seals any plaintext for bob.
func sealRaw(t testing.TB, plain []byte) []byte {
	t.Helper()
	b, err := identity.Seal(bob.ID(), info(bob.ID()), plain)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// signed is the plaintext of s, signed by key for to.
func signed(t testing.TB, key identity.Key, to identity.ID, s Signal) []byte {
	t.Helper()
	plain, err := s.append(nil)
	if err != nil {
		t.Fatal(err)
	}
	return append(plain, key.Sign(append(info(to), plain...))...)
}

func TestRefused(t *testing.T) {
	good := offer()
	good.From = alice.ID()
	forBob := mustSeal(t, alice, bob.ID(), good)
	change := func(at int, x byte) []byte { // signed after the change
		plain := signed(t, alice, bob.ID(), good)
		body := plain[:len(plain)-sigLen]
		body[at] = x
		return sealRaw(t, append(body, alice.Sign(append(info(bob.ID()), body...))...))
	}
	const firstCandidate = headLen
	tooMany := bytes.Clone(signed(t, alice, bob.ID(), good))
	for name, sealed := range map[string][]byte{
		"nothing":                            nil,
		"for another":                        mustSeal(t, alice, carol.ID(), good),
		"signed for another, passed on":      sealRaw(t, signed(t, alice, carol.ID(), good)),
		"signed by another":                  sealRaw(t, signed(t, carol, bob.ID(), good)),
		"not signed":                         sealRaw(t, signed(t, alice, bob.ID(), good)[:headLen+4*candidateLen]),
		"cut":                                forBob[:len(forBob)-1],
		"longer":                             append(bytes.Clone(forBob), 0),
		"far too long":                       make([]byte, MaxSealed+1),
		"sealed with other info":             func() []byte { b, _ := identity.Seal(bob.ID(), []byte("x"), tooMany); return b }(),
		"empty plaintext":                    sealRaw(t, nil),
		"version 2":                          change(0, 2),
		"type 0":                             change(1, 0),
		"type 3":                             change(1, 3),
		"answer with a key":                  change(1, byte(Answer)),
		"one candidate more than there are":  change(headLen-1, 5),
		"one candidate less than there are":  change(headLen-1, 3),
		"far too many candidates":            change(headLen-1, 255),
		"family 5":                           change(firstCandidate+2, 5),
		"IPv4 with more than four bytes":     change(firstCandidate+2+18, 1),
		"somebody else's id in front of it":  change(3, 0),
		"IPv4 written as IPv6 (not mapped)":  change(firstCandidate+2, 7),
		"signature over nothing but context": sealRaw(t, append(tooMany[:headLen], alice.Sign(info(bob.ID()))...)),
	} {
		if s, err := Open(bob, sealed); !errors.Is(err, ErrSignal) {
			t.Errorf("%s: opened as %+v, %v", name, s, err)
		}
	}
	for i := range forBob {
		bad := bytes.Clone(forBob)
		bad[i] ^= 1 << (i % 8)
		if _, err := Open(bob, bad); !errors.Is(err, ErrSignal) {
			t.Fatalf("opened with byte %d wrong", i)
		}
	}
}

// An address has one form only.
func TestMappedIPv6Refused(t *testing.T) {
	s := offer()
	s.From = alice.ID()
	s.Candidates = []Candidate{{Host, UDP, netip.MustParseAddrPort("[2001:db8::1]:1")}}
	plain, _ := s.append(nil)
	a := netip.MustParseAddr("::ffff:192.0.2.1").As16()
	copy(plain[headLen+2+3:], a[:])
	plain = append(plain, alice.Sign(append(info(bob.ID()), plain...))...)
	if _, err := Open(bob, sealRaw(t, plain)); !errors.Is(err, ErrSignal) {
		t.Errorf("opened, %v", err)
	}
	// The sender writes it as IPv4.
	s.Candidates[0].Endpoint = netip.MustParseAddrPort("[::ffff:192.0.2.1]:1")
	got, err := Open(bob, mustSeal(t, alice, bob.ID(), s))
	if err != nil || got.Candidates[0].Endpoint != netip.MustParseAddrPort("192.0.2.1:1") {
		t.Errorf("%v, %v", got.Candidates, err)
	}
}

// Later versions may have more kinds: those are left out, the others count.
func TestUnknownKinds(t *testing.T) {
	s := offer()
	s.Candidates[1].Kind = 9
	s.Candidates[2].Transport = 9
	got, err := Open(bob, mustSeal(t, alice, bob.ID(), s))
	if err != nil {
		t.Fatal(err)
	}
	want := []Candidate{s.Candidates[0], s.Candidates[3]}
	if d := cmp.Diff(want, got.Candidates, compare); d != "" {
		t.Error(d)
	}
}

func TestSealRefuses(t *testing.T) {
	for name, change := range map[string]func(*Signal){
		"no type":             func(s *Signal) { s.Type = 0 },
		"answer with key":     func(s *Signal) { s.Type = Answer },
		"too many candidates": func(s *Signal) { s.Candidates = make([]Candidate, MaxCandidates+1) },
		"no endpoint":         func(s *Signal) { s.Candidates[0].Endpoint = netip.AddrPort{} },
		"zone":                func(s *Signal) { s.Candidates[0].Endpoint = netip.MustParseAddrPort("[fe80::1%eth0]:1") },
	} {
		s := offer()
		change(&s)
		if _, err := Seal(alice, bob.ID(), s); err == nil {
			t.Errorf("%s: sealed", name)
		}
	}
	if _, err := Seal(alice, identity.ID{1}, offer()); err == nil {
		t.Error("sealed for an id that is no key")
	}
}

// The bytes that versions to come must still read: bob opens this as alice's.
const goldenPlain = `
	010102cecc1507dc1ddd7295951c290888f095adb9044d1b73d696e6df065d683bd4fc01020300000000000405060000
	00000000000000000000000708090000000000000000000000000000000000000000000000000000000000040101040f
	a0c0a801020000000000000000000000000102060fa020010db8000000000000000000000002020104ffffc633640100
	00000000000000000000000401040001c6336401000000000000000000000000607b1f8f1b2394bc31853c0ece409468
	6670c49b1b63f64d3fc19c76aa3d52f7397d21b2a7f5d622d53967577a3bdf6f64e0ed85d37c24c86b9c47f3115f7607
`

const goldenSealed = `
	9024df2408b5d4b9164f2430d6ceaba2c9fea0bff76396a4173483a2b4f7345fc6340b876961c3ddc24e8ea58abcb55b
	d06d8c57d6ea5a8541d8d2ea963949f7af60eba18061d7b6b40a88ec6fd1797fe3675cf97b9d01eb3f978cb74aa97d63
	b9e11da7a0fa7dd0fad5f531c28c1dcbd443fcd32571714d73348eab328cb8733724c3f461f6610b9ee950e1ef0fe2dc
	181695e595ff4a87eada0c594266581a7ee5fa0c30c91c19d8ee0dba2f971f984ecf53ccc51c99fb9dc5866af8b917a6
	47595c228bba643c761fae25ee58badd54743d2ec27f60fb219a37e40ee6d667ddaab75025a917193d6cc1df8fb57809
	768bab57234da6451db99ceb3aee9b4a78563f83bfe9b6f571ec692ad3814c59251f69948822846a6a4d997a6e1d0ffc
`

func TestGolden(t *testing.T) {
	s := offer()
	s.From = alice.ID()
	if got := hex.EncodeToString(signed(t, alice, bob.ID(), s)); got != strings.Join(strings.Fields(goldenPlain), "") {
		t.Errorf("plaintext\n%s", got)
	}
	sealed, err := hex.DecodeString(strings.Join(strings.Fields(goldenSealed), ""))
	if err != nil {
		t.Fatal(err)
	}
	got, err := Open(bob, sealed)
	if err != nil {
		t.Fatalf("%v; a new one would be\n%x", err, mustSeal(t, alice, bob.ID(), s))
	}
	if d := cmp.Diff(s, got, compare); d != "" {
		t.Error(d)
	}
}

func FuzzOpen(f *testing.F) {
	f.Add(mustSeal(f, alice, bob.ID(), offer()))
	f.Fuzz(func(t *testing.T, b []byte) {
		s, err := Open(bob, b)
		if err == nil && s.From != alice.ID() {
			t.Fatalf("forged: %+v", s)
		}
	})
}

// FuzzParse feeds the parser behind the seal: what it accepts is written back
// in the same bytes, but for the kinds it leaves out.
func FuzzParse(f *testing.F) {
	s := offer()
	plain, _ := s.append(nil)
	f.Add(plain)
	f.Fuzz(func(t *testing.T, b []byte) {
		s, err := parse(b)
		if err != nil {
			return
		}
		again, err := s.append(nil)
		if err != nil {
			t.Fatal(err)
		}
		if len(s.Candidates) == int(b[headLen-1]) && !bytes.Equal(b, again) {
			t.Fatalf("%x\nbecame\n%x", b, again)
		}
		if s2, err := parse(again); err != nil || cmp.Diff(s, s2, compare) != "" {
			t.Fatalf("%v\n%s", err, cmp.Diff(s, s2, compare))
		}
	})
}
