package portmap

import (
	"errors"
	"net/netip"
	"slices"
	"time"

	"github.com/bodkin-net/bodkin/internal/machine/nat/ip"
)

// Protocol is what a lease was asked for with.
type Protocol uint8

const (
	NATPMP Protocol = iota
	PCP
	UPnP
)

func (p Protocol) String() string { return [...]string{"NAT-PMP", "PCP", "UPnP"}[p] }

// Lease is what a client was told that it has.
type Lease struct {
	By                 Protocol
	Proto              ip.Proto
	Internal, External netip.AddrPort
	// Remotes are who may come in; empty is everyone.
	Remotes []Filter
	// Peer is whom a PCP PEER mapping is for.
	Peer        netip.AddrPort
	Description string
	Enabled     bool
	// Expires is zero for a lease for ever.
	Expires time.Time
	// Open says that the gateway has the mapping. It has none for a lease that
	// is disabled, forgotten or a lie.
	Open bool

	nonce   [nonceLen]byte
	forgets time.Time
}

// Closes is when the gateway takes the mapping of a lease away, if nobody renews
// it: zero if never.
func (l *Lease) Closes() time.Time {
	if l.Expires.IsZero() || !l.forgets.IsZero() && l.forgets.Before(l.Expires) {
		return l.forgets
	}
	return l.Expires
}

// Change is what became of a lease.
type Change uint8

const (
	Made      Change = iota
	Renewed          // or changed
	Unmapped         // by a client
	Expired          // its lifetime is over
	Forgotten        // without a word: Behaviour.Forget
	Dropped          // it has no place at the new external address
)

func (c Change) String() string {
	return [...]string{"made", "renewed", "unmapped", "expired", "forgotten", "dropped"}[c]
}

// maxTries is how many ports are tried before none is said to be free.
const maxTries = 64

// Event is a change of a lease.
type Event struct {
	Change Change
	Lease  Lease
}

// Event takes the next event. Of those that nobody takes the oldest are
// forgotten.
func (m *Machine) Event() (Event, bool) {
	if len(m.events) == 0 {
		return Event{}, false
	}
	e := m.events[0]
	m.events = slices.Delete(m.events, 0, 1)
	return e, true
}

func (m *Machine) tell(c Change, l *Lease) {
	if len(m.events) == maxEvents {
		m.events = slices.Delete(m.events, 0, 1)
	}
	m.events = append(m.events, Event{c, *l})
}

// Leases lists the table at now, oldest first.
func (m *Machine) Leases(now time.Time) []Lease {
	m.advance(now)
	all := make([]Lease, 0, len(m.leases))
	for _, l := range m.leases {
		all = append(all, *l)
	}
	return all
}

// refusal is why a client does not get a lease; each protocol has its own
// number for it.
type refusal uint8

const (
	granted       refusal = iota
	notAuthorized         // by policy
	failed                // no external address, or broken
	full                  // no room for more
	quota                 // no room for more of this client's
	taken                 // the external port is another lease's
	foreign               // the external port is something else's
)

// policy says what stands against a client's asking at all.
func (m *Machine) policy(client netip.Addr) refusal {
	switch m.cfg.Refuse {
	case RefuseNotAuthorized:
		return notAuthorized
	case RefuseFailed:
		return failed
	case RefuseFull:
		return full
	}
	if m.cfg.OneHost && len(m.leases) > 0 && m.leases[0].Internal.Addr() != client {
		return notAuthorized
	}
	return granted
}

// create adds a lease. port is the external port that is wanted, or zero;
// exact says that no other will do. The lease is for lifetime, or for ever if
// that is zero.
func (m *Machine) create(l Lease, port uint16, exact bool, lifetime time.Duration) (*Lease, refusal) {
	if r := m.policy(l.Internal.Addr()); r != granted {
		return nil, r
	}
	if m.cfg.NoLowPorts && (l.Internal.Port() < 1024 || exact && port < 1024) {
		return nil, notAuthorized
	}
	if m.cfg.NoLowPorts && port < 1024 {
		port = 0
	}
	if len(m.leases) >= m.cfg.Max {
		return nil, full
	}
	if m.cfg.PerHost > 0 && m.count(l.Internal.Addr()) >= m.cfg.PerHost {
		return nil, quota
	}
	if m.cfg.MovePort && !exact {
		port = m.otherPort(l.Proto, port, l.Internal.Port())
	}
	if r := m.open(&l, port, exact); r != granted {
		return nil, r
	}
	made := &l
	m.leases = append(m.leases, made)
	m.setLifetime(made, lifetime)
	m.tell(Made, made)
	return made, granted
}

// renew gives a lease a new lifetime, and opens it again where that is needed.
func (m *Machine) renew(l *Lease, lifetime time.Duration) refusal {
	if r := m.policy(l.Internal.Addr()); r != granted {
		return r
	}
	if r := m.open(l, l.External.Port(), true); r != granted {
		return r
	}
	m.setLifetime(l, lifetime)
	m.tell(Renewed, l)
	return granted
}

func (m *Machine) setLifetime(l *Lease, lifetime time.Duration) {
	l.Expires = time.Time{}
	if lifetime > 0 {
		l.Expires = m.now.Add(lifetime)
	}
	l.forgets = time.Time{}
	if m.cfg.Forget > 0 && l.Open {
		l.forgets = m.now.Add(m.cfg.Forget)
	}
	m.reschedule()
}

// open gives l its external port, and has the gateway open it if l is enabled
// and no lie. It is harmless for a lease that is open.
func (m *Machine) open(l *Lease, port uint16, exact bool) refusal {
	address := m.mapper.External(l.Internal.Addr())
	if !address.IsValid() {
		return failed
	}
	if port != 0 && m.taken(l, port) {
		if exact {
			return taken
		}
		port = 0
	}
	if m.cfg.Lie || !l.Enabled {
		if port == 0 {
			port = m.freePort(l, l.Internal.Port())
		}
		if port == 0 {
			return full
		}
		l.External, l.Open = netip.AddrPortFrom(address, port), false
		return granted
	}
	external, err := netip.AddrPort{}, ErrTaken
	if port != 0 {
		want := Request{Proto: l.Proto, Internal: l.Internal, External: port, Replace: l.By == UPnP && exact, Remotes: m.remotes(l, port)}
		if external, err = m.mapper.Map(m.now, want); errors.Is(err, ErrTaken) && exact {
			return foreign
		}
	}
	if errors.Is(err, ErrTaken) {
		external, err = m.mapAny(l)
	}
	if err != nil {
		return full
	}
	l.External, l.Open = external, true
	return granted
}

// mapAny maps to any port: the gateway's choice, or if a lease that is not open
// has that one, a port near the internal one.
func (m *Machine) mapAny(l *Lease) (netip.AddrPort, error) {
	want := Request{Proto: l.Proto, Internal: l.Internal, Remotes: l.Remotes}
	external, err := m.mapper.Map(m.now, want)
	if err != nil || !m.taken(l, external.Port()) {
		return external, err
	}
	m.mapper.Unmap(m.now, l.Proto, external)
	want.External, err = l.Internal.Port(), ErrTaken
	for tries := 0; tries < maxTries && errors.Is(err, ErrTaken); tries++ {
		if want.External = m.freePort(l, want.External); want.External == 0 {
			break
		}
		external, err = m.mapper.Map(m.now, want)
		want.External++
	}
	return external, err
}

// taken says whether a port outside belongs to a lease for another endpoint.
func (m *Machine) taken(l *Lease, port uint16) bool {
	return slices.ContainsFunc(m.leases, func(o *Lease) bool {
		return o != l && o.Proto == l.Proto && o.External.Port() == port && o.Internal != l.Internal
	})
}

// freePort is the first from port on that no other endpoint's lease has.
func (m *Machine) freePort(l *Lease, port uint16) uint16 {
	for range 1 << 16 {
		if port != 0 && !m.taken(l, port) {
			return port
		}
		port++
	}
	return 0
}

// otherPort is one at random that is neither of the two; zero if none turns up.
func (m *Machine) otherPort(proto ip.Proto, not, nor uint16) uint16 {
	for range maxTries {
		port := uint16(1024 + m.rnd.IntN(1<<16-1024))
		if port != not && port != nor && !m.taken(&Lease{Proto: proto}, port) {
			return port
		}
	}
	return 0
}

// same are the leases that share l's mapping, when l is at port.
func (m *Machine) same(l *Lease, port uint16) func(yield func(*Lease) bool) {
	return func(yield func(*Lease) bool) {
		for _, o := range m.leases {
			if o != l && o.Open && o.Proto == l.Proto && o.External.Port() == port && o.Internal == l.Internal {
				if !yield(o) {
					return
				}
			}
		}
	}
}

// remotes are the filters of l's mapping at port: who may come in for any of
// the leases that share it.
func (m *Machine) remotes(l *Lease, port uint16) []Filter {
	all := slices.Clone(l.Remotes)
	for o := range m.same(l, port) {
		if len(o.Remotes) == 0 {
			return nil
		}
		if len(all) > 0 {
			all = append(all, o.Remotes...)
		}
	}
	return all
}

// shut takes l's mapping from the gateway, unless another lease needs it.
func (m *Machine) shut(l *Lease) {
	if !l.Open {
		return
	}
	l.Open = false
	for o := range m.same(l, l.External.Port()) {
		m.mapper.Map(m.now, Request{Proto: o.Proto, Internal: o.Internal, External: o.External.Port(), Remotes: m.remotes(o, o.External.Port())})
		return
	}
	m.mapper.Unmap(m.now, l.Proto, l.External)
}

// close ends a lease.
func (m *Machine) close(l *Lease, why Change) {
	m.shut(l)
	m.leases = slices.DeleteFunc(m.leases, func(o *Lease) bool { return o == l })
	m.reschedule()
	m.tell(why, l)
}

// expire ends what is over at m.now.
func (m *Machine) expire() {
	for _, l := range slices.Clone(m.leases) {
		switch {
		case !l.Expires.IsZero() && !l.Expires.After(m.now):
			m.close(l, Expired)
		case l.Open && !l.forgets.IsZero() && !l.forgets.After(m.now):
			m.shut(l)
			m.tell(Forgotten, l)
		}
	}
	m.reschedule()
}

func (m *Machine) reschedule() {
	m.due = time.Time{}
	for _, l := range m.leases {
		for _, t := range []time.Time{l.Expires, l.forgets} {
			if !t.IsZero() && (l.Open || t == l.Expires) && (m.due.IsZero() || t.Before(m.due)) {
				m.due = t
			}
		}
	}
}

func (m *Machine) count(client netip.Addr) (n int) {
	for _, l := range m.leases {
		if l.Internal.Addr() == client {
			n++
		}
	}
	return n
}

// find is the first lease that all conditions hold for.
func (m *Machine) find(conditions ...func(*Lease) bool) *Lease {
	for _, l := range m.leases {
		if !slices.ContainsFunc(conditions, func(c func(*Lease) bool) bool { return !c(l) }) {
			return l
		}
	}
	return nil
}

// inside is the condition of being for an internal endpoint.
func inside(proto ip.Proto, internal netip.AddrPort) func(*Lease) bool {
	return func(l *Lease) bool { return l.Proto == proto && l.Internal == internal }
}

// lifetime bounds what NAT-PMP and PCP clients ask for, in seconds.
func (m *Machine) lifetime(seconds uint32, least time.Duration) time.Duration {
	most := m.cfg.MaxLifetime
	if most == 0 {
		most = 24 * time.Hour
	}
	return min(max(time.Duration(seconds)*time.Second, least), most)
}
