package portmap

import (
	"strconv"
	"time"

	"github.com/bodkin-net/bodkin/internal/machine/nat/ip"
)

// upnpError is an error code of UPnP or of WANIPConnection.
type upnpError int

const (
	noError            upnpError = 0
	errInvalidAction   upnpError = 401
	errInvalidArgs     upnpError = 402
	errActionFailed    upnpError = 501
	errNotAuthorized   upnpError = 606
	errBadIndex        upnpError = 713
	errNoEntry         upnpError = 714
	errWildcardRemote  upnpError = 715
	errWildcardPort    upnpError = 716
	errConflict        upnpError = 718
	errSamePort        upnpError = 724
	errPermanent       upnpError = 725
	errSingularRemote  upnpError = 726
	errNoPorts         upnpError = 728
	errConflictOther   upnpError = 729
	errNoneInRange     upnpError = 730
	errWildcardInPort  upnpError = 732
	errContradictory   upnpError = 733
	errUnknownDefault  upnpError = 720
	maxDescriptionText           = 256
)

var errorTexts = map[upnpError]string{
	errInvalidAction: "Invalid Action", errInvalidArgs: "Invalid Args", errActionFailed: "Action Failed",
	errNotAuthorized: "Action not authorized",
	errBadIndex:      "SpecifiedArrayIndexInvalid", errNoEntry: "NoSuchEntryInArray",
	errWildcardRemote: "WildCardNotPermittedInSrcIP", errWildcardPort: "WildCardNotPermittedInExtPort",
	errConflict: "ConflictInMappingEntry", errSamePort: "SamePortValuesRequired",
	errPermanent: "OnlyPermanentLeasesSupported", errSingularRemote: "RemoteHostOnlySupportsWildcard",
	errNoPorts: "NoPortMapsAvailable", errConflictOther: "ConflictWithOtherMechanisms",
	errNoneInRange: "PortMappingNotFound", errWildcardInPort: "WildCardNotPermittedInIntPort",
	errContradictory: "InconsistentParameters", errUnknownDefault: "InvalidDeviceUUID",
}

// portListing is XML in itself. Not every client reads it unless it is CDATA.
// What is escaped within cannot end that.
const portListing = "A_ARG_TYPE_PortListing"

// variables are the state variables of all services.
var variables = []variable{
	{"DefaultConnectionService", text, nil},
	{"WANAccessType", text, []string{"DSL", "POTS", "Cable", "Ethernet"}},
	{"Layer1UpstreamMaxBitRate", ui4, nil},
	{"Layer1DownstreamMaxBitRate", ui4, nil},
	{"PhysicalLinkStatus", text, []string{"Up", "Down"}},
	{"ConnectionType", text, nil},
	{"PossibleConnectionTypes", text, []string{"IP_Routed"}},
	{"ConnectionStatus", text, []string{"Unconfigured", "Connecting", "Connected", "Disconnected"}},
	{"Uptime", ui4, nil},
	{"LastConnectionError", text, []string{"ERROR_NONE", "ERROR_NOT_ENABLED_FOR_INTERNET", "ERROR_UNKNOWN"}},
	{"RSIPAvailable", boolean, nil},
	{"NATEnabled", boolean, nil},
	{"ExternalIPAddress", text, nil},
	{"PortMappingNumberOfEntries", ui2, nil},
	{"PortMappingEnabled", boolean, nil},
	{"PortMappingLeaseDuration", ui4, nil},
	{"RemoteHost", text, nil},
	{"ExternalPort", ui2, nil},
	{"InternalPort", ui2, nil},
	{"PortMappingProtocol", text, []string{"TCP", "UDP"}},
	{"InternalClient", text, nil},
	{"PortMappingDescription", text, nil},
	{"A_ARG_TYPE_Manage", boolean, nil},
	{portListing, text, nil},
}

var byArgument = func() map[string]variable {
	all := map[string]variable{}
	for _, v := range variables {
		all["New"+v.name] = v
	}
	for argument, name := range map[string]string{
		"NewEnabled": "PortMappingEnabled", "NewLeaseDuration": "PortMappingLeaseDuration", "NewProtocol": "PortMappingProtocol",
		"NewPortMappingIndex": "PortMappingNumberOfEntries", "NewNumberOfPorts": "PortMappingNumberOfEntries",
		"NewStartPort": "ExternalPort", "NewEndPort": "ExternalPort", "NewReservedPort": "ExternalPort",
		"NewManage": "A_ARG_TYPE_Manage", "NewPortListing": portListing,
	} {
		all[argument] = all["New"+name]
	}
	return all
}()

func variableOf(argument string) variable { return byArgument[argument] }

// Arguments that several actions have.
var (
	entryKey  = []string{"NewRemoteHost", "NewExternalPort", "NewProtocol"}
	entryRest = []string{"NewInternalPort", "NewInternalClient", "NewEnabled", "NewPortMappingDescription", "NewLeaseDuration"}
	entry     = append(append([]string{}, entryKey...), entryRest...)
)

// services are those of the gateway.
var services = []*service{
	{"Layer3Forwarding", "L3Forwarding1", 1, 0, []action{
		{"SetDefaultConnectionService", 1, []string{"NewDefaultConnectionService"}, nil, (*Machine).setDefault},
		{"GetDefaultConnectionService", 1, nil, []string{"NewDefaultConnectionService"}, (*Machine).getDefault},
	}},
	{"WANCommonInterfaceConfig", "WANCommonIFC1", 1, 1, []action{
		{"GetCommonLinkProperties", 1, nil, []string{"NewWANAccessType", "NewLayer1UpstreamMaxBitRate", "NewLayer1DownstreamMaxBitRate",
			"NewPhysicalLinkStatus"}, (*Machine).linkProperties},
	}},
	{"WANIPConnection", "WANIPConn1", 2, 2, []action{
		{"SetConnectionType", 1, []string{"NewConnectionType"}, nil, (*Machine).forbidden},
		{"GetConnectionTypeInfo", 1, nil, []string{"NewConnectionType", "NewPossibleConnectionTypes"}, (*Machine).connectionType},
		{"RequestConnection", 1, nil, nil, (*Machine).forbidden},
		{"ForceTermination", 1, nil, nil, (*Machine).forbidden},
		{"GetStatusInfo", 1, nil, []string{"NewConnectionStatus", "NewLastConnectionError", "NewUptime"}, (*Machine).statusInfo},
		{"GetNATRSIPStatus", 1, nil, []string{"NewRSIPAvailable", "NewNATEnabled"}, (*Machine).natStatus},
		{"GetExternalIPAddress", 1, nil, []string{"NewExternalIPAddress"}, (*Machine).externalAddress},
		{"GetGenericPortMappingEntry", 1, []string{"NewPortMappingIndex"}, entry, (*Machine).entryAt},
		{"GetSpecificPortMappingEntry", 1, entryKey, entryRest, (*Machine).entryOf},
		{"AddPortMapping", 1, entry, nil, (*Machine).addMapping},
		{"DeletePortMapping", 1, entryKey, nil, (*Machine).deleteMapping},
		{"AddAnyPortMapping", 2, entry, []string{"NewReservedPort"}, (*Machine).addAnyMapping},
		{"DeletePortMappingRange", 2, []string{"NewStartPort", "NewEndPort", "NewProtocol", "NewManage"}, nil, (*Machine).deleteRange},
		{"GetListOfPortMappings", 2, []string{"NewStartPort", "NewEndPort", "NewProtocol", "NewManage", "NewNumberOfPorts"},
			[]string{"NewPortListing"}, (*Machine).listRange},
	}},
}

// defaultConnection is the only connection service that there is.
func (m *Machine) defaultConnection() string {
	return "uuid:" + m.uuids[2] + ":WANConnectionDevice:" + strconv.Itoa(m.cfg.IGD) + ",urn:upnp-org:serviceId:WANIPConn1"
}

func (m *Machine) setDefault(c *call) upnpError {
	if c.text("NewDefaultConnectionService") != m.defaultConnection() {
		return errUnknownDefault
	}
	return noError
}

func (m *Machine) getDefault(c *call) upnpError {
	c.answer(m.defaultConnection())
	return noError
}

func (m *Machine) linkProperties(c *call) upnpError {
	status := "Up"
	if !m.mapper.External(c.from).IsValid() {
		status = "Down"
	}
	rate := strconv.FormatInt(min(m.cfg.Rate, 1<<32-1), 10)
	c.answer("Ethernet", rate, rate, status)
	return noError
}

// forbidden is the answer to those who want to change the connection itself.
func (m *Machine) forbidden(*call) upnpError { return errNotAuthorized }

func (m *Machine) connectionType(c *call) upnpError {
	c.answer("IP_Routed", "IP_Routed")
	return noError
}

func (m *Machine) statusInfo(c *call) upnpError {
	status := "Connected"
	if !m.mapper.External(c.from).IsValid() {
		status = "Disconnected"
	}
	c.answer(status, "ERROR_NONE", strconv.FormatUint(uint64(m.seconds()), 10))
	return noError
}

func (m *Machine) natStatus(c *call) upnpError {
	c.answer("0", "1")
	return noError
}

// externalAddress is empty while there is none (WANIPConnection:2
// section 2.3.13).
func (m *Machine) externalAddress(c *call) upnpError {
	told := ""
	if a := m.external(c.from); a.IsValid() {
		told = a.String()
	}
	c.answer(told)
	return noError
}

// proto is the transport protocol that c is about.
func (c *call) proto() ip.Proto {
	if c.text("NewProtocol") == "TCP" {
		return ip.TCP
	}
	return ip.UDP
}

// leaseTime bounds the lease that a UPnP client asks for; zero is for ever.
func (m *Machine) leaseTime(seconds uint32) (time.Duration, upnpError) {
	const week = 7 * 24 * time.Hour
	d := time.Duration(seconds) * time.Second
	switch {
	case m.cfg.OnlyPermanent && d != 0:
		return 0, errPermanent
	case m.cfg.OnlyPermanent:
		return 0, noError
	case m.cfg.IGD == 2 && d > week:
		return 0, errInvalidArgs
	case m.cfg.IGD == 2 && d == 0:
		d = week // WANIPConnection:2 gives nobody a lease for ever
	}
	if most := m.cfg.MaxLifetime; most > 0 && (d == 0 || d > most) {
		d = most
	}
	return d, noError
}
