package nat

import (
	"math/rand/v2"
	"slices"
	"testing"
)

// An index has what was added and not removed, also where hashes are the same.
func TestIndex(t *testing.T) {
	var x index
	x.reset()
	r := rand.New(rand.NewPCG(1, 1))
	hashes := make([]uint32, 1, 200_001)
	find := func(ref uint32) bool {
		p := x.page(hashes[ref])
		at, pos := p.seek(hashes[ref], 0)
		for at != 0 && at != ref {
			at, pos = p.seek(hashes[ref], pos)
		}
		return at == ref
	}
	var in []uint32
	for step := range 400_000 {
		if len(in) > 0 && (r.IntN(3) == 0 || step > 300_000) {
			i := r.IntN(len(in))
			ref := in[i]
			if !find(ref) {
				t.Fatalf("step %d: element %d is missing", step, ref)
			}
			x.remove(hashes[ref], ref)
			if find(ref) {
				t.Fatalf("step %d: element %d is still there", step, ref)
			}
			in[i] = in[len(in)-1]
			in = in[:len(in)-1]
			continue
		}
		h := r.Uint32()
		if r.IntN(100) == 0 && len(hashes) > 10 { // one that others have
			h = hashes[1+r.IntN(9)]&^1 | r.Uint32()&1
		}
		hashes = append(hashes, h)
		ref := uint32(len(hashes) - 1)
		if x.add(h, ref) {
			in = append(in, ref)
		} else if h>>1 != hashes[1]>>1 && !slices.ContainsFunc(hashes[1:10], func(o uint32) bool { return o>>1 == h>>1 }) {
			t.Fatalf("step %d: no room for %x", step, h)
		}
		if x.used != len(in) {
			t.Fatalf("step %d: %d are in use, want %d", step, x.used, len(in))
		}
	}
	for _, ref := range in {
		if !find(ref) {
			t.Fatalf("element %d is missing", ref)
		}
	}
}

// What is kept of connections stays where it is when there are more of them:
// no packet waits until all of it is copied.
func TestTracksStay(t *testing.T) {
	var all tracks
	first := all.make()
	at := all.at(first)
	at.shift = 7
	for range 10_000 {
		all.make()
	}
	if all.at(first) != at || at.shift != 7 {
		t.Error("the first one was moved")
	}
	all.drop(first)
	if again := all.make(); again != first || *all.at(again) != (track{}) {
		t.Errorf("after %d came %d", first, again)
	}
}
