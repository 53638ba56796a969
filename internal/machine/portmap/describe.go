package portmap

import (
	"encoding/xml"
	"net/netip"
	"strconv"
	"strings"
)

const (
	rootPath   = "/rootDesc.xml"
	deviceURN  = "urn:schemas-upnp-org:device:"
	serviceURN = "urn:schemas-upnp-org:service:"
	xmlHead    = `<?xml version="1.0"?>` + "\r\n"
)

// tag writes <name>text</name>.
func tag(b *strings.Builder, name, text string) {
	b.WriteString("<" + name + ">")
	xml.EscapeText(b, []byte(text))
	b.WriteString("</" + name + ">")
}

// describeDevice is the device: a gateway, in it a WAN device, in that a WAN
// connection device (UPnP Device Architecture 1.1, section 2.3).
func (m *Machine) describeDevice() []byte {
	var b strings.Builder
	b.WriteString(xmlHead + `<root xmlns="urn:schemas-upnp-org:device-1-0"><specVersion><major>1</major><minor>0</minor></specVersion>`)
	if m.cfg.WrongURL {
		elsewhere := netip.AddrFrom4([4]byte{192, 0, 2, 1})
		tag(&b, "URLBase", "http://"+netip.AddrPortFrom(elsewhere, m.cfg.HTTPPort).String()+"/")
	}
	m.device(&b, 0, "InternetGatewayDevice", func() {
		m.device(&b, 1, "WANDevice", func() {
			m.device(&b, 2, "WANConnectionDevice", nil)
		})
	})
	b.WriteString("</root>\r\n")
	if m.cfg.BadXML {
		return []byte(strings.Replace(b.String(), "gateway", "gateway & more", 1))
	}
	return []byte(b.String())
}

func (m *Machine) device(b *strings.Builder, depth int, kind string, children func()) {
	b.WriteString("<device>")
	tag(b, "deviceType", deviceURN+kind+":"+strconv.Itoa(m.cfg.IGD))
	tag(b, "friendlyName", "bodkin gateway")
	tag(b, "manufacturer", "bodkin")
	tag(b, "modelName", "bodkin gateway")
	tag(b, "UDN", "uuid:"+m.uuids[depth])
	b.WriteString("<serviceList>")
	for _, s := range services {
		if s.depth != depth {
			continue
		}
		b.WriteString("<service>")
		tag(b, "serviceType", s.urn(min(m.cfg.IGD, s.version)))
		tag(b, "serviceId", "urn:upnp-org:serviceId:"+s.id)
		tag(b, "SCPDURL", s.scpdPath())
		tag(b, "controlURL", s.controlPath())
		tag(b, "eventSubURL", "")
		b.WriteString("</service>")
	}
	b.WriteString("</serviceList>")
	if children != nil {
		b.WriteString("<deviceList>")
		children()
		b.WriteString("</deviceList>")
	}
	if depth == 0 {
		tag(b, "presentationURL", "")
	}
	b.WriteString("</device>")
}

// describeService is what a service can be asked (section 2.5).
func (m *Machine) describeService(s *service) []byte {
	var b strings.Builder
	b.WriteString(xmlHead + `<scpd xmlns="urn:schemas-upnp-org:service-1-0"><specVersion><major>1</major><minor>0</minor></specVersion><actionList>`)
	used := map[string]bool{}
	for _, a := range s.actions {
		if a.since > m.cfg.IGD {
			continue
		}
		b.WriteString("<action>")
		tag(&b, "name", a.name)
		b.WriteString("<argumentList>")
		for i, args := range [][]string{a.in, a.out} {
			for _, name := range args {
				b.WriteString("<argument>")
				tag(&b, "name", name)
				tag(&b, "direction", [...]string{"in", "out"}[i])
				tag(&b, "relatedStateVariable", variableOf(name).name)
				b.WriteString("</argument>")
				used[variableOf(name).name] = true
			}
		}
		b.WriteString("</argumentList></action>")
	}
	b.WriteString("</actionList><serviceStateTable>")
	for _, v := range variables {
		if !used[v.name] {
			continue
		}
		b.WriteString(`<stateVariable sendEvents="no">`)
		tag(&b, "name", v.name)
		tag(&b, "dataType", v.kind.String())
		if len(v.allowed) > 0 {
			b.WriteString("<allowedValueList>")
			for _, a := range v.allowed {
				tag(&b, "allowedValue", a)
			}
			b.WriteString("</allowedValueList>")
		}
		b.WriteString("</stateVariable>")
	}
	b.WriteString("</serviceStateTable></scpd>\r\n")
	return []byte(b.String())
}
