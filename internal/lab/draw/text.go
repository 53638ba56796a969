package draw

import (
	"fmt"
	"net/netip"
	"strings"
	"unicode/utf8"

	"github.com/bodkin-net/bodkin/internal/lab/scenario"
	"github.com/bodkin-net/bodkin/internal/lab/snapshot"
)

// Text shows a lab in lines of at most so many columns: the tree of networks,
// then every gateway's table.
func Text(l Lab, width int) string {
	t := &tree{lab: l}
	t.network(scenario.Internet, "", "", map[string]bool{})
	var out strings.Builder
	title := clean(l.Name)
	if l.Title != "" && l.Title != l.Name {
		title += "  " + clean(l.Title)
	}
	at := l.Time.Format("15:04:05.000")
	writeLine(&out, width, shorten(title, width-len(at)-2)+"  "+at)
	out.WriteString("\n")
	writeTable(&out, width, append([][]string{{"", "ADDRESS", "LINK", "SENT", "RECEIVED", "LOST"}}, t.rows...))
	for _, g := range l.Gateways {
		out.WriteString("\n")
		gatewayText(&out, width, l, g)
	}
	if cuts := l.cutWords(); len(cuts) > 0 {
		out.WriteString("\ncut:\n")
		for _, c := range cuts {
			writeLine(&out, width, "  "+c)
		}
	}
	if len(l.Events) > 0 {
		out.WriteString("\nlately:\n")
		for _, e := range l.Events[max(0, len(l.Events)-8):] {
			writeLine(&out, width, fmt.Sprintf("  %s %s: %s", e.Time.Format("15:04:05"), clean(e.Name), clean(e.Text)))
		}
	}
	return out.String()
}

// tree is the rows of the tree of networks.
type tree struct {
	lab  Lab
	rows [][]string
}

// network adds a network below a line: first stands before its name, rest
// before what is on it.
func (t *tree) network(name, first, rest string, above map[string]bool) {
	if above[name] {
		return // no topology is like that
	}
	above[name] = true
	defer delete(above, name)
	n := t.lab.network(name)
	head := clean(name)
	if n.captured {
		head += " (captured)"
	}
	t.addresses([]string{first + head}, texts(n.prefixes), rest)
	left := len(n.hosts) + len(n.gateways)
	branch := func() (string, string) {
		left--
		if left == 0 {
			return rest + "└─ ", rest + "   "
		}
		return rest + "├─ ", rest + "│  "
	}
	for _, h := range n.hosts {
		first, rest := branch()
		t.port(first+clean(h.Name), rest, h.Port)
	}
	for _, g := range n.gateways {
		first, rest := branch()
		t.port(first+"["+clean(g.Name)+"]", rest+"│  ", g.Outside)
		if g.DMZ != nil {
			t.network(g.DMZ.Network, rest+"├─ ", rest+"│  ", above)
		}
		t.network(g.Inside.Network, rest+"└─ ", rest+"   ", above)
	}
}

func (t *tree) port(name, rest string, p snapshot.Port) {
	addrs := texts(plainAddrs(p))
	if len(addrs) == 0 && p.DHCP {
		addrs = []string{"no lease"}
	}
	t.addresses([]string{name}, addrs, rest)
	row := len(t.rows) - max(1, len(addrs))
	lostHere := ""
	if n := lost(p); n > 0 {
		lostHere = strings.ReplaceAll(metric(n), " ", "")
	}
	t.rows[row] = append(t.rows[row], linkWords(p.Link), traffic(p.Sent), traffic(p.Received), lostHere)
}

// addresses adds a row with the first address, and one for each other.
func (t *tree) addresses(row, addrs []string, rest string) {
	if len(addrs) == 0 {
		addrs = []string{""}
	}
	t.rows = append(t.rows, append(row, addrs[0]))
	for _, a := range addrs[1:] {
		t.rows = append(t.rows, []string{strings.TrimRight(rest, " "), a})
	}
}

func plainAddrs(p snapshot.Port) (all []netip.Addr) {
	for _, a := range p.Addrs {
		all = append(all, a.Addr())
	}
	return all
}

func texts[T fmt.Stringer](all []T) (s []string) {
	for _, x := range all {
		s = append(s, x.String())
	}
	return s
}

func gatewayText(out *strings.Builder, width int, l Lab, g snapshot.Gateway) {
	head := fmt.Sprintf("[%s] %s", clean(g.Name), behaviour(g))
	if g.Kernel {
		head += " (the kernel's nftables)"
	}
	if g.UDPBlocked {
		head += ", UDP blocked"
	}
	writeLine(out, width, head)
	if !g.Kernel {
		writeLine(out, width, "  "+strings.Join(totals(g), ", "))
	}
	rows := [][]string{{"  PROTO", "INTERNAL", "EXTERNAL", "OPEN TO", "LEFT"}}
	for _, m := range mappings(g) {
		external := m.External.String()
		if m.External == m.Internal {
			external = "same"
		}
		row := []string{"  " + m.Proto.String(), m.Internal.String(), external}
		who := admitted(l.Time, m)
		for _, a := range who {
			rows = append(rows, append(row, a[0], a[1]))
			row = []string{"", "", ""}
		}
		if len(who) == 0 {
			rows = append(rows, row)
		}
	}
	if len(rows) > 1 {
		writeTable(out, width, rows)
	}
	if more := g.Stats.Mappings - len(g.Mappings); more > 0 {
		writeLine(out, width, fmt.Sprintf("  ... and %d more", more))
	}
	for _, lease := range g.Leases {
		writeLine(out, width, "  "+leaseWords(l, lease))
	}
}

func leaseWords(l Lab, lease snapshot.Lease) string {
	who := clean(lease.Host)
	if who == "" {
		who = "unknown"
	}
	text := fmt.Sprintf("lease %v to %s (%s)", lease.Addr, who, hardware(lease.Hardware))
	if lease.Expires.IsZero() {
		return text + ", for ever"
	}
	return text + ", " + left(l.Time, lease.Expires) + " left"
}

func hardware(a [6]byte) string {
	return fmt.Sprintf("%02x:%02x:%02x:%02x:%02x:%02x", a[0], a[1], a[2], a[3], a[4], a[5])
}

// totals are a gateway's counters in words.
func totals(g snapshot.Gateway) []string {
	parts := []string{fmt.Sprintf("forwarded %d", g.Stats.Forwarded)}
	if g.Stats.Hairpinned > 0 {
		parts = append(parts, fmt.Sprintf("hairpinned %d", g.Stats.Hairpinned))
	}
	sum, reasons := dropped(g.Stats)
	if sum > 0 {
		parts = append(parts, fmt.Sprintf("dropped %d (%s)", sum, strings.Join(reasons, ", ")))
	} else {
		parts = append(parts, "dropped 0")
	}
	return append(parts, fmt.Sprintf("mappings %d", g.Stats.Mappings), fmt.Sprintf("sessions %d", g.Stats.Sessions))
}

// writeTable aligns the cells of rows with two spaces between.
func writeTable(out *strings.Builder, width int, rows [][]string) {
	var wide []int
	for _, row := range rows {
		for i, cell := range row {
			if i == len(wide) {
				wide = append(wide, 0)
			}
			wide[i] = max(wide[i], utf8.RuneCountInString(cell))
		}
	}
	for _, row := range rows {
		var line strings.Builder
		for i, cell := range row {
			line.WriteString(cell)
			if i < len(row)-1 {
				line.WriteString(strings.Repeat(" ", wide[i]-utf8.RuneCountInString(cell)+2))
			}
		}
		writeLine(out, width, strings.TrimRight(line.String(), " "))
	}
}

// writeLine cuts what is too long for the screen.
func writeLine(out *strings.Builder, width int, line string) {
	out.WriteString(shorten(line, width) + "\n")
}

func shorten(text string, width int) string {
	if runes := []rune(text); len(runes) > width {
		return string(runes[:max(width-1, 0)]) + "…"
	}
	return text
}
