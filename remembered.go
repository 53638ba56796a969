package bodkin

// remembered holds the last maxRemembered ids that were added.
//
// Of the offers that were taken it keeps one that is replayed, by the server or
// by whoever listens in, from being taken again; an older one, replayed, costs
// an attempt and cannot prove the key. Of the sessions that are over it keeps a
// link that comes late, and says HELLO for one, from beginning it again.
type remembered[ID comparable] struct {
	ids  map[ID]bool
	ring []ID
	next int // the oldest in the ring, once that is full
}

const maxRemembered = 4096

// has tells whether the id is remembered.
func (r *remembered[ID]) has(id ID) bool { return r.ids[id] }

// add remembers an id, and tells whether it was not.
func (r *remembered[ID]) add(id ID) bool {
	if r.ids[id] {
		return false
	}
	if r.ids == nil {
		r.ids = make(map[ID]bool)
	}
	if len(r.ring) < maxRemembered {
		r.ring = append(r.ring, id)
	} else {
		delete(r.ids, r.ring[r.next])
		r.ring[r.next] = id
		r.next = (r.next + 1) % maxRemembered
	}
	r.ids[id] = true
	return true
}
