package scenario

import "hash/fnv"

// HardwareAddr is the hardware address of a port in every lab, so that DHCP can
// be told of it beforehand. The port is named like its host; a gateway's are
// named "NAME/inside", "NAME/outside" and "NAME/dmz". It is unicast and locally
// administered.
func HardwareAddr(port string) [6]byte {
	h := fnv.New64a()
	h.Write([]byte(port))
	sum := h.Sum64()
	var mac [6]byte
	for i := range mac {
		mac[i] = byte(sum >> (8 * i))
	}
	mac[0] = mac[0]&^1 | 2
	return mac
}
