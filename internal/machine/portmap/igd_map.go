package portmap

import (
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"
)

// remoteHost is who may come in: everyone, or one address.
func (m *Machine) remoteHost(c *call) ([]Filter, upnpError) {
	host := c.text("NewRemoteHost")
	if host == "" {
		if m.cfg.RemoteHost == OnlySingularRemote {
			return nil, errWildcardRemote
		}
		return nil, noError
	}
	if m.cfg.RemoteHost == OnlyEveryRemote {
		return nil, errSingularRemote
	}
	a, err := netip.ParseAddr(host)
	if err != nil || !a.Is4() {
		return nil, errInvalidArgs
	}
	return []Filter{{Prefix: netip.PrefixFrom(a, 32)}}, noError
}

// remoteText is l's remote host as UPnP writes it: empty for everyone, and for
// what UPnP has no words for.
func remoteText(l *Lease) string {
	if len(l.Remotes) != 1 || !l.Remotes[0].Prefix.IsSingleIP() {
		return ""
	}
	return l.Remotes[0].Prefix.Addr().String()
}

// entryFor is the lease at the key of a call.
func (m *Machine) entryFor(c *call) *Lease {
	return m.find(func(l *Lease) bool {
		return l.Proto == c.proto() && l.External.Port() == c.port("NewExternalPort") && remoteText(l) == c.text("NewRemoteHost")
	})
}

// owns says whether a client has a say in l.
func (m *Machine) owns(c *call, l *Lease) bool {
	return l.By == UPnP && (m.cfg.AnyClient || l.Internal.Addr() == c.from)
}

// wanted reads the arguments that AddPortMapping and AddAnyPortMapping share.
func (m *Machine) wanted(c *call) (l Lease, lifetime time.Duration, e upnpError) {
	client, err := netip.ParseAddr(c.text("NewInternalClient"))
	description := c.text("NewPortMappingDescription")
	if err != nil || len(description) > maxDescriptionText {
		return l, 0, errInvalidArgs
	}
	if c.port("NewInternalPort") == 0 {
		if m.cfg.IGD == 2 {
			return l, 0, errWildcardInPort
		}
		return l, 0, errInvalidArgs
	}
	l = Lease{
		By: UPnP, Proto: c.proto(), Internal: netip.AddrPortFrom(client, c.port("NewInternalPort")),
		Description: description, Enabled: c.flag("NewEnabled"),
	}
	if l.Remotes, e = m.remoteHost(c); e != noError {
		return l, 0, e
	}
	if lifetime, e = m.leaseTime(c.number("NewLeaseDuration")); e != noError {
		return l, 0, e
	}
	if !m.isClient(client) || !m.cfg.AnyClient && client != c.from {
		return l, 0, errNotAuthorized
	}
	return l, lifetime, noError
}

// addMapping makes or changes an entry. One that is there for the same client
// is replaced.
func (m *Machine) addMapping(c *call) upnpError {
	l, lifetime, e := m.wanted(c)
	port := c.port("NewExternalPort")
	switch {
	case e != noError:
		return e
	case port == 0:
		return errWildcardPort
	case m.cfg.SamePort && port != l.Internal.Port():
		return errSamePort
	}
	old := m.entryFor(c)
	if old != nil && (!m.owns(c, old) || old.Internal.Addr() != l.Internal.Addr()) {
		return errConflict
	}
	return m.upnpRefusal(m.replace(old, l, port, lifetime), errActionFailed)
}

// replace puts an entry in the place of an old one, which stays if that fails
// (WANIPConnection:1 section 2.4.16: the same client overwrites). A port leads
// to one place at a time: what goes to another internal port ends.
func (m *Machine) replace(old *Lease, l Lease, port uint16, lifetime time.Duration) refusal {
	if old == nil {
		_, r := m.create(l, port, true, lifetime)
		return r
	}
	if m.cfg.NoLowPorts && l.Internal.Port() < 1024 {
		return notAuthorized
	}
	before := *old
	if !l.Enabled {
		m.shut(old)
	}
	old.Internal, old.Description, old.Enabled = l.Internal, l.Description, l.Enabled
	r := m.renew(old, lifetime)
	if r != granted {
		*old = before
		if old.Open {
			old.Open = false
			m.open(old, old.External.Port(), true)
		}
		m.reschedule()
	}
	return r
}

// addAnyMapping is addMapping with another port if the wanted one is taken. An
// internal endpoint that has a port keeps it.
func (m *Machine) addAnyMapping(c *call) upnpError {
	l, lifetime, e := m.wanted(c)
	if e != noError {
		return e
	}
	port := c.port("NewExternalPort")
	if m.cfg.SamePort {
		if port != 0 && port != l.Internal.Port() {
			return errSamePort
		}
		port = l.Internal.Port()
	}
	if old := m.find(by(UPnP), inside(l.Proto, l.Internal), func(o *Lease) bool { return slices.Equal(o.Remotes, l.Remotes) }); old != nil {
		c.answer(portText(old.External))
		return m.upnpRefusal(m.replace(old, l, port, lifetime), errNoPorts)
	}
	made, r := m.create(l, port, m.cfg.SamePort, lifetime)
	if r == granted {
		c.answer(portText(made.External))
	}
	return m.upnpRefusal(r, errNoPorts)
}

// upnpRefusal is the error for a refusal; noRoom that for a full table.
func (m *Machine) upnpRefusal(r refusal, noRoom upnpError) upnpError {
	switch r {
	case granted:
		return noError
	case notAuthorized:
		return errNotAuthorized
	case full, quota:
		return noRoom
	case foreign:
		if m.cfg.IGD == 2 {
			return errConflictOther
		}
		return errConflict
	case taken:
		return errConflict
	}
	return errActionFailed
}

func (m *Machine) deleteMapping(c *call) upnpError {
	l := m.entryFor(c)
	switch {
	case l == nil:
		return errNoEntry
	case !m.owns(c, l):
		return errNotAuthorized
	}
	m.close(l, Unmapped)
	return noError
}

func (m *Machine) entryAt(c *call) upnpError {
	i := int(c.number("NewPortMappingIndex"))
	if i >= len(m.leases) {
		return errBadIndex
	}
	l := m.leases[i]
	c.answer(append(keyTexts(l), m.entryTexts(l)...)...)
	return noError
}

func (m *Machine) entryOf(c *call) upnpError {
	l := m.entryFor(c)
	if l == nil {
		return errNoEntry
	}
	c.answer(m.entryTexts(l)...)
	return noError
}

func portText(e netip.AddrPort) string { return strconv.Itoa(int(e.Port())) }

func keyTexts(l *Lease) []string {
	return []string{remoteText(l), portText(l.External), strings.ToUpper(l.Proto.String())}
}

func (m *Machine) entryTexts(l *Lease) []string {
	enabled, left := "0", uint32(0)
	if l.Enabled {
		enabled = "1"
	}
	if !l.Expires.IsZero() {
		left = max(m.remaining(l), 1) // 0 would be for ever
	}
	return []string{portText(l.Internal), l.Internal.Addr().String(), enabled, l.Description, strconv.FormatUint(uint64(left), 10)}
}

// inRange are the entries that a call with a range of ports is about: the
// client's own, or with NewManage everyone's.
func (m *Machine) inRange(c *call) ([]*Lease, upnpError) {
	first, last := c.port("NewStartPort"), c.port("NewEndPort")
	if first > last {
		return nil, errContradictory
	}
	var all []*Lease
	for _, l := range m.leases {
		if l.Proto == c.proto() && l.External.Port() >= first && l.External.Port() <= last &&
			(c.flag("NewManage") || l.Internal.Addr() == c.from) {
			all = append(all, l)
		}
	}
	if len(all) == 0 {
		return nil, errNoneInRange
	}
	return all, noError
}

// deleteRange ends entries: the client's own, or, where every client may
// manage the others', those of everyone.
func (m *Machine) deleteRange(c *call) upnpError {
	if c.flag("NewManage") && !m.cfg.AnyClient {
		return errNotAuthorized
	}
	all, e := m.inRange(c)
	if e != noError {
		return e
	}
	for _, l := range all {
		if l.By == UPnP {
			m.close(l, Unmapped)
		}
	}
	return noError
}

// listRange lists entries in XML within XML.
func (m *Machine) listRange(c *call) upnpError {
	all, e := m.inRange(c)
	if e != noError {
		return e
	}
	if n := int(c.number("NewNumberOfPorts")); n > 0 && n < len(all) {
		all = all[:n]
	}
	var b strings.Builder
	b.WriteString(`<p:PortMappingList xmlns:p="urn:schemas-upnp-org:gw:WANIPConnection" xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance" ` +
		`xsi:schemaLocation="urn:schemas-upnp-org:gw:WANIPConnection http://www.upnp.org/schemas/gw/WANIPConnection-v2.xsd">`)
	for _, l := range all {
		b.WriteString("<p:PortMappingEntry>")
		values := append(keyTexts(l), m.entryTexts(l)...)
		for i, name := range []string{"NewRemoteHost", "NewExternalPort", "NewProtocol", "NewInternalPort", "NewInternalClient",
			"NewEnabled", "NewDescription", "NewLeaseTime"} {
			tag(&b, "p:"+name, values[i])
		}
		b.WriteString("</p:PortMappingEntry>")
	}
	b.WriteString("</p:PortMappingList>")
	c.answer(b.String())
	return noError
}
