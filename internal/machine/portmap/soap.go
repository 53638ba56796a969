package portmap

import (
	"bytes"
	"encoding/xml"
	"errors"
	"io"
	"net/netip"
	"slices"
	"strconv"
	"strings"
)

const (
	envelopeNS = "http://schemas.xmlsoap.org/soap/envelope/"
	controlNS  = "urn:schemas-upnp-org:control-1-0"

	maxDepth = 8  // of elements
	maxArgs  = 32 // of an action
)

// kind is the type of a state variable.
type kind uint8

const (
	text kind = iota
	boolean
	ui2
	ui4
)

func (k kind) String() string { return [...]string{"string", "boolean", "ui2", "ui4"}[k] }

// variable is what an argument is about.
type variable struct {
	name    string
	kind    kind
	allowed []string
}

// service is what can be asked at a control URL.
type service struct {
	name    string // in its URN
	id      string
	version int // the newest
	depth   int // of the device that has it
	actions []action
}

// action is something to ask. Its arguments have the names of the variables
// that they are about, with New before them, unless variableOf knows better.
type action struct {
	name    string
	since   int // version of IGD
	in, out []string
	do      func(*Machine, *call) upnpError
}

func (s *service) urn(version int) string {
	return serviceURN + s.name + ":" + strconv.Itoa(version)
}
func (s *service) scpdPath() string    { return "/" + s.id + ".xml" }
func (s *service) controlPath() string { return "/ctl/" + s.id }

// call is an action with its arguments, all of which are of their types.
type call struct {
	from netip.Addr
	args map[string]string
	out  []string
}

func (c *call) text(name string) string { return c.args[name] }
func (c *call) flag(name string) bool   { return isTrue(c.args[name]) }
func (c *call) number(name string) uint32 {
	n, _ := strconv.ParseUint(c.args[name], 10, 32)
	return uint32(n)
}
func (c *call) port(name string) uint16 { return uint16(c.number(name)) }
func (c *call) answer(out ...string)    { c.out = out }

func isTrue(s string) bool  { return slices.Contains([]string{"1", "true", "yes"}, strings.ToLower(s)) }
func isFalse(s string) bool { return slices.Contains([]string{"0", "false", "no"}, strings.ToLower(s)) }

func (v variable) admits(s string) bool {
	switch v.kind {
	case boolean:
		return isTrue(s) || isFalse(s)
	case ui2, ui4:
		_, err := strconv.ParseUint(s, 10, map[kind]int{ui2: 16, ui4: 32}[v.kind])
		return err == nil
	}
	return len(v.allowed) == 0 || slices.Contains(v.allowed, s)
}

// soap answers an action (UPnP Device Architecture 1.1, section 3.2).
func (m *Machine) soap(s *service, r HTTPRequest) Response {
	name, args, err := parseSOAP(r.Body)
	if err != nil {
		return Response{Status: 400}
	}
	urn, named, _ := strings.Cut(strings.Trim(r.SOAPAction, `"`), "#")
	if named != name.Local || urn != name.Space {
		return soapFault(errInvalidAction)
	}
	version := 0
	for v := 1; v <= min(m.cfg.IGD, s.version); v++ {
		if urn == s.urn(v) {
			version = v
		}
	}
	at := slices.IndexFunc(s.actions, func(a action) bool { return a.name == named && a.since <= version })
	if at < 0 {
		return soapFault(errInvalidAction)
	}
	a := &s.actions[at]
	for _, in := range a.in {
		if value, ok := args[in]; !ok || !variableOf(in).admits(value) {
			return soapFault(errInvalidArgs)
		}
	}
	if m.cfg.Refuse == RefuseFailed {
		return soapFault(errActionFailed)
	}
	c := &call{from: r.From.Addr(), args: args}
	if e := a.do(m, c); e != noError {
		return soapFault(e)
	}
	var b strings.Builder
	b.WriteString("<u:" + a.name + `Response xmlns:u="` + urn + `">`)
	for i, out := range a.out {
		if variableOf(out).name == portListing {
			b.WriteString("<" + out + "><![CDATA[" + c.out[i] + "]]></" + out + ">")
			continue
		}
		tag(&b, out, c.out[i])
	}
	b.WriteString("</u:" + a.name + "Response>")
	return Response{Status: 200, Body: envelope(b.String())}
}

func envelope(body string) []byte {
	return []byte(xmlHead + `<s:Envelope xmlns:s="` + envelopeNS + `" s:encodingStyle="http://schemas.xmlsoap.org/soap/encoding/"><s:Body>` +
		body + "</s:Body></s:Envelope>\r\n")
}

func soapFault(e upnpError) Response {
	var b strings.Builder
	b.WriteString("<s:Fault><faultcode>s:Client</faultcode><faultstring>UPnPError</faultstring><detail>" +
		`<UPnPError xmlns="` + controlNS + `">`)
	tag(&b, "errorCode", strconv.Itoa(int(e)))
	tag(&b, "errorDescription", errorTexts[e])
	b.WriteString("</UPnPError></detail></s:Fault>")
	return Response{Status: 500, Body: envelope(b.String())}
}

var errSOAP = errors.New("portmap: not a SOAP action")

// parseSOAP reads Envelope, Body, the action, and its arguments, which have
// text alone. There are no entities but XML's own five, no document types, and
// no processing instructions.
func parseSOAP(b []byte) (action xml.Name, args map[string]string, err error) {
	d := xml.NewDecoder(bytes.NewReader(b))
	args = map[string]string{}
	var path []xml.Name
	var value strings.Builder
	ended := false
	for {
		t, err := d.Token()
		if err == io.EOF && ended && action.Local != "" {
			return action, args, nil
		}
		if err != nil {
			return action, nil, errSOAP
		}
		switch t := t.(type) {
		case xml.Directive:
			return action, nil, errSOAP
		case xml.ProcInst:
			if t.Target != "xml" {
				return action, nil, errSOAP
			}
		case xml.StartElement:
			path = append(path, t.Name)
			value.Reset()
			switch len(path) {
			case 1:
				if t.Name != (xml.Name{Space: envelopeNS, Local: "Envelope"}) || ended {
					return action, nil, errSOAP
				}
			case 3:
				if path[1] == (xml.Name{Space: envelopeNS, Local: "Body"}) {
					if action.Local != "" {
						return action, nil, errSOAP
					}
					action = t.Name
				}
			}
			if len(path) > maxDepth || len(path) > 4 && path[2] == action {
				return action, nil, errSOAP
			}
		case xml.CharData:
			value.Write(t)
		case xml.EndElement:
			if len(path) == 4 && path[2] == action {
				if _, twice := args[t.Name.Local]; twice || len(args) == maxArgs {
					return action, nil, errSOAP
				}
				args[t.Name.Local] = strings.TrimSpace(value.String())
			}
			path = path[:len(path)-1]
			ended = len(path) == 0
		}
	}
}
