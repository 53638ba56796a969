package server

import (
	"container/list"
	"net/netip"
	"sync"
)

// admission bounds the TCP connections, overall and for each address (IPv6: each
// /64). A connection is half-open until it has proved something: a key, by
// registering or by a relay's preface. At a limit the oldest half-open
// connection makes room, so that whoever speaks at once gets through beside
// thousands that stay silent, even from the same address.
type admission struct {
	limits Limits

	mu    sync.Mutex
	total int
	half  *list.List // of *conn, oldest first
	addrs map[netip.Addr]*addrConns
}

type addrConns struct {
	total int
	half  *list.List
}

// Standing of a connection, guarded by admission.mu.
type standing struct {
	admitted  bool
	inHalf    *list.Element // in admission.half; nil once proved
	inAddress *list.Element
}

func newAdmission(l Limits) *admission {
	return &admission{limits: l, half: list.New(), addrs: make(map[netip.Addr]*addrConns)}
}

// admit lets c in. evicted, if any, is no longer counted and must be closed.
func (a *admission) admit(c *conn) (evicted []*conn, ok bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	group := a.addrs[c.source]
	if group == nil {
		group = &addrConns{half: list.New()}
	}
	if group.total >= a.limits.ConnsPerAddress || group.half.Len() >= a.limits.HalfOpenPerAddress {
		old := a.drop(group.half)
		if old == nil {
			return nil, false
		}
		evicted = append(evicted, old)
	}
	if a.total >= a.limits.Conns || a.half.Len() >= a.limits.HalfOpen {
		old := a.drop(a.half)
		if old == nil {
			return evicted, false
		}
		evicted = append(evicted, old)
	}
	a.addrs[c.source] = group // drop may have removed it
	a.total++
	group.total++
	c.standing = standing{true, a.half.PushBack(c), group.half.PushBack(c)}
	return evicted, true
}

// drop takes out the oldest connection of l.
func (a *admission) drop(l *list.List) *conn {
	front := l.Front()
	if front == nil {
		return nil
	}
	c := front.Value.(*conn)
	a.remove(c)
	return c
}

// oldest takes out the oldest half-open connection of all, nil when there is none.
func (a *admission) oldest() *conn {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.drop(a.half)
}

// prove ends c's half-open time.
func (a *admission) prove(c *conn) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.leaveHalf(c)
}

// release forgets c, which may have been evicted before.
func (a *admission) release(c *conn) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.remove(c)
}

func (a *admission) remove(c *conn) {
	if !c.standing.admitted {
		return
	}
	a.leaveHalf(c)
	c.standing.admitted = false
	a.total--
	group := a.addrs[c.source]
	if group.total--; group.total == 0 {
		delete(a.addrs, c.source)
	}
}

func (a *admission) leaveHalf(c *conn) {
	if c.standing.inHalf == nil {
		return
	}
	a.half.Remove(c.standing.inHalf)
	a.addrs[c.source].half.Remove(c.standing.inAddress)
	c.standing.inHalf, c.standing.inAddress = nil, nil
}

// counts are the connections and how many of them are half-open.
func (a *admission) counts() (total, half int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.total, a.half.Len()
}

// sourceOf is what limits per address go by.
func sourceOf(a netip.Addr) netip.Addr {
	if a.Is4() {
		return a
	}
	p, err := a.Prefix(64)
	if err != nil {
		return a
	}
	return p.Addr()
}
