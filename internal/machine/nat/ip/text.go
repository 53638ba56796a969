package ip

import "fmt"

// The words for protocols in files; there Other stands for any.

func (p Proto) MarshalText() ([]byte, error) {
	switch p {
	case Other:
		return []byte("any"), nil
	case UDP, TCP, ICMP:
		return []byte(p.String()), nil
	}
	return nil, fmt.Errorf("ip: no protocol has the number %d", uint8(p))
}

func (p *Proto) UnmarshalText(text []byte) error {
	switch string(text) {
	case "any":
		*p = Other
	case "udp":
		*p = UDP
	case "tcp":
		*p = TCP
	case "icmp":
		*p = ICMP
	default:
		return fmt.Errorf("%q is no protocol; there are udp, tcp, icmp, any", text)
	}
	return nil
}
