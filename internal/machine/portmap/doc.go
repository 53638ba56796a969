// Package portmap answers those who ask a gateway for a port: NAT-PMP (RFC
// 6886), PCP (RFC 6887) and UPnP IGD (WANIPConnection 1 and 2), as a pure state
// machine. Who drives it hands it the datagrams and HTTP requests that come
// from the inside, and takes datagrams to send from Poll.
//
// It keeps its own table of leases, which tells what clients were told. What
// really is open the gateway knows, behind the Mapper interface; with a
// Behaviour that lies, forgets or is told to disable a lease the two differ.
//
// Both NAT-PMP and PCP are on UDP port 5351, told apart by the first byte:
//
//	NAT-PMP   0 | opcode | reserved(2) | internal port(2) | external port(2) | lifetime(4)
//	answer    0 | 128+opcode | result(2) | epoch(4) | internal port(2) | external port(2) | lifetime(4)
//	          or, to opcode 0: 0 | 128 | result(2) | epoch(4) | address(4)
//	PCP       2 | opcode | reserved(2) | lifetime(4) | client address(16) | what the opcode needs | options
//	answer    2 | 128+opcode | reserved | result | lifetime(4) | epoch(4) | reserved(12) | ...
//	MAP       nonce(12) | protocol | reserved(3) | internal port(2) | external port(2) | external address(16)
//	PEER      as MAP, then remote port(2) | reserved(2) | remote address(16)
//	option    code | reserved | length(2) | data, filled up to a multiple of 4
//
// SSDP is on UDP port 1900, to the gateway or to 239.255.255.250.
//
// Not here: IPv6 (pinholes by PCP and by WANIPv6FirewallControl), UPnP eventing,
// PCP's THIRD_PARTY, all-protocols and all-ports mappings.
package portmap
