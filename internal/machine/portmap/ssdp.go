package portmap

import (
	"net/netip"
	"strconv"
	"strings"
	"time"
)

const (
	maxAge         = 1800 // seconds that an announcement holds
	notifyInterval = maxAge / 2 * time.Second
	maxSearch      = 2048 // bytes
	server         = "bodkin/1 UPnP/1.1 gateway/1"
)

// thing is what SSDP announces and finds: a device, or a service on it. Those
// of a type have a version, and are found by every version below it too.
type thing struct {
	uuid    string
	kind    string // "upnp:rootdevice", the type without its version, or empty for the device itself
	version int    // 0: it has none
}

// things are those that the gateway has.
func (m *Machine) things() []thing {
	root, wan, conn := "uuid:"+m.uuids[0], "uuid:"+m.uuids[1], "uuid:"+m.uuids[2]
	v := m.cfg.IGD
	return []thing{
		{root, "upnp:rootdevice", 0},
		{root, "", 0}, {wan, "", 0}, {conn, "", 0},
		{root, deviceURN + "InternetGatewayDevice:", v},
		{wan, deviceURN + "WANDevice:", v},
		{conn, deviceURN + "WANConnectionDevice:", v},
		{root, serviceURN + "Layer3Forwarding:", 1},
		{wan, serviceURN + "WANCommonInterfaceConfig:", 1},
		{conn, serviceURN + "WANIPConnection:", v},
	}
}

// named is the search target or notification type that t goes by, and the
// unique service name that belongs to it.
func (t thing) named(version int) (target, usn string) {
	switch {
	case t.kind == "":
		return t.uuid, t.uuid
	case t.version > 0:
		target = t.kind + strconv.Itoa(version)
	default:
		target = t.kind
	}
	return target, t.uuid + "::" + target
}

// version is the one of t that is searched for, if it is t at all.
func (t thing) sought(target string) (version int, ok bool) {
	if t.version == 0 {
		name, _ := t.named(0)
		return 0, name == target
	}
	rest, ok := strings.CutPrefix(target, t.kind)
	if !ok {
		return 0, false
	}
	version, err := strconv.Atoi(rest)
	return version, err == nil && version >= 1 && version <= t.version
}

// search answers an M-SEARCH (UPnP Device Architecture 1.1, section 1.3.2).
// The answer comes at once, wherever in the client's MX seconds it might.
func (m *Machine) search(from netip.AddrPort, port uint16, b []byte) {
	if len(b) > maxSearch {
		return
	}
	first, rest, ok := strings.Cut(string(b), "\r\n")
	if !ok || first != "M-SEARCH * HTTP/1.1" {
		return
	}
	header := map[string]string{}
	for line := range strings.SplitSeq(rest, "\r\n") {
		if name, value, ok := strings.Cut(line, ":"); ok {
			header[strings.ToUpper(strings.TrimSpace(name))] = strings.TrimSpace(value)
		}
	}
	target := header["ST"]
	if header["MAN"] != `"ssdp:discover"` || target == "" {
		return
	}
	for _, t := range m.things() {
		version, ok := t.sought(target)
		if target == "ssdp:all" {
			version, ok = t.version, true
		}
		if ok {
			m.answer(from, port, m.found(t, version))
		}
	}
}

func (m *Machine) found(t thing, version int) []byte {
	target, usn := t.named(version)
	return ssdp("HTTP/1.1 200 OK",
		"CACHE-CONTROL", "max-age="+strconv.Itoa(maxAge),
		"ST", target,
		"USN", usn,
		"EXT", "",
		"SERVER", server,
		"LOCATION", m.location(),
		"BOOTID.UPNP.ORG", m.bootID(),
		"CONFIGID.UPNP.ORG", "1",
	)
}

// notify announces everything to everyone (section 1.2.2).
func (m *Machine) notify() {
	from, to := netip.AddrPortFrom(m.cfg.Addr, SSDPPort), netip.AddrPortFrom(SSDPGroup, SSDPPort)
	for _, t := range m.things() {
		target, usn := t.named(t.version)
		m.send(m.now, Out{from, to, ssdp("NOTIFY * HTTP/1.1",
			"HOST", to.String(),
			"CACHE-CONTROL", "max-age="+strconv.Itoa(maxAge),
			"LOCATION", m.location(),
			"SERVER", server,
			"NT", target,
			"USN", usn,
			"NTS", "ssdp:alive",
			"BOOTID.UPNP.ORG", m.bootID(),
			"CONFIGID.UPNP.ORG", "1",
		)})
	}
}

// location is where the description is.
func (m *Machine) location() string {
	return "http://" + netip.AddrPortFrom(m.cfg.Addr, m.cfg.HTTPPort).String() + rootPath
}

// bootID grows with every reboot (section 1.2.2).
func (m *Machine) bootID() string { return strconv.FormatInt(m.epoch.Unix()&(1<<31-1), 10) }

func ssdp(first string, header ...string) []byte {
	var b strings.Builder
	b.WriteString(first + "\r\n")
	for i := 0; i < len(header); i += 2 {
		b.WriteString(header[i] + ": " + header[i+1] + "\r\n")
	}
	b.WriteString("\r\n")
	return []byte(b.String())
}
