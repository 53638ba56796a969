package draw

import (
	"fmt"
	"strings"
	"unicode/utf8"

	"github.com/bodkin-net/bodkin/internal/lab/scenario"
	"github.com/bodkin-net/bodkin/internal/lab/snapshot"
)

// The picture is a tree that grows downwards: a zone is a network with its
// hosts as cards; below it hang the gateways that stand on it, each with its
// table, and below each of those the zones behind it. Sizes are worked out from
// the leaves up, places from the root down.

// Sizes in pixels. The letters of monospaced text are 0.602 em wide in the
// fonts that the picture asks for; that of other text is estimated.
const (
	margin    = 24.0
	pad       = 14.0
	gap       = 22.0
	wire      = 52.0 // from a zone to the card of a gateway below
	shortWire = 34.0 // from there to the zones behind it
	mono      = 11.0
	monoWidth = mono * 0.602
	row       = 16.0
	headRow   = 24.0
	zoneHead  = 34.0

	maxHostsInRow  = 4
	maxMappingRows = 14
	maxRemotes     = 4
	maxLeases      = 14
	maxTitle       = 100
)

type zone struct {
	network
	kind     string // internet, inside, dmz
	x, y     float64
	w, h     float64
	cards    []*card
	perRow   int
	gateways []*branch
}

// branch is a gateway with what is behind it.
type branch struct {
	gateway snapshot.Gateway
	card    *card
	zones   []*zone
	w, h    float64 // of all of it
}

// card is a box with a title and lines of text.
type card struct {
	title, note string
	lines       []textLine
	x, y, w, h  float64
}

type textLine struct {
	class string
	text  string
}

func (c *card) add(class, format string, args ...any) {
	c.lines = append(c.lines, textLine{class, fmt.Sprintf(format, args...)})
}

func (c *card) measure(least float64) {
	widest := float64(utf8.RuneCountInString(c.title))*8 + float64(utf8.RuneCountInString(c.note))*6.4 + 24
	for _, l := range c.lines {
		widest = max(widest, float64(utf8.RuneCountInString(l.text))*monoWidth)
	}
	c.w = max(least, widest+2*pad)
	c.h = headRow + float64(len(c.lines))*row + 16
}

// columns are how many letters wide a text is at most: those of East Asia take
// the place of two.
func columns(text string) (n float64) {
	for _, r := range text {
		if n++; r >= 0x1100 {
			n++
		}
	}
	return n
}

func layout(l Lab) *zone {
	root := l.zone(scenario.Internet, "internet", map[string]bool{})
	root.place(margin, 76)
	return root
}

func (l Lab) zone(name, kind string, above map[string]bool) *zone {
	z := &zone{network: l.network(name), kind: kind}
	if above[name] {
		return z // no topology is like that
	}
	above[name] = true
	defer delete(above, name)
	for _, h := range z.hosts {
		z.cards = append(z.cards, hostCard(h))
	}
	for _, g := range z.network.gateways {
		b := &branch{gateway: g, card: gatewayCard(l, g)}
		b.zones = append(b.zones, l.zone(g.Inside.Network, "inside", above))
		if g.DMZ != nil {
			b.zones = append(b.zones, l.zone(g.DMZ.Network, "dmz", above))
		}
		z.gateways = append(z.gateways, b)
	}
	z.measure()
	return z
}

func hostCard(h snapshot.Host) *card {
	c := &card{title: clean(h.Name)}
	for _, a := range h.Port.Addrs {
		c.add("addr", "%v", a)
	}
	switch {
	case h.Lease != nil:
		c.note = "DHCP"
	case len(h.Port.Addrs) == 0 && h.Port.DHCP:
		c.add("warn", "no lease yet")
	}
	if h.Firewall != nil {
		c.note = strings.TrimSpace(c.note + " firewall")
	}
	if link := linkWords(h.Port.Link); link != "" {
		c.add("link", "%s", link)
	}
	counters(c, h.Port)
	c.measure(150)
	return c
}

func counters(c *card, p snapshot.Port) {
	c.add("dim", "↑ %s  ↓ %s", traffic(p.Sent), traffic(p.Received))
	if n := lost(p); n > 0 {
		c.add("warn", "%d lost", n)
	}
}

func gatewayCard(l Lab, g snapshot.Gateway) *card {
	c := &card{title: clean(g.Name), note: behaviour(g)}
	if g.Kernel {
		c.add("dim", "translated by the kernel's nftables")
	} else {
		c.add("dim", "%s, %s", count(g.Stats.Mappings, "mapping"), count(g.Stats.Sessions, "session"))
		sum, reasons := dropped(g.Stats)
		c.add("dim", "forwarded %d, hairpinned %d", g.Stats.Forwarded, g.Stats.Hairpinned)
		if sum > 0 {
			c.add("warn", "dropped %d: %s", sum, strings.Join(reasons, ", "))
		}
	}
	if g.UDPBlocked {
		c.add("warn", "UDP is blocked")
	}
	tableLines(c, l, g)
	for i, lease := range g.Leases {
		if i == maxLeases {
			c.add("dim", "… and %d more", len(g.Leases)-i)
			break
		}
		c.add("lease", "%s", leaseWords(l, lease))
	}
	c.measure(240)
	return c
}

func tableLines(c *card, l Lab, g snapshot.Gateway) {
	rows := 0
	for i, m := range mappings(g) {
		if rows >= maxMappingRows {
			c.add("dim", "… and %d more", g.Stats.Mappings-i)
			return
		}
		rows++
		proto := fmt.Sprintf("%-4s", m.Proto)
		if m.External == m.Internal {
			c.add(m.Proto.String(), "%s %v", proto, m.Internal)
		} else {
			c.add(m.Proto.String(), "%s %v → %v", proto, m.Internal, m.External)
		}
		who := admitted(l.Time, m)
		for j, a := range who {
			if j == maxRemotes {
				c.add("dim", "     … and %d more", len(who)-j)
				break
			}
			rows++
			c.add("dim", "     %-21s %s", a[0], a[1])
		}
	}
	if more := g.Stats.Mappings - len(g.Mappings); more > 0 {
		c.add("dim", "… and %d more", more)
	}
}

// measure gives a zone and all below it a size.
func (z *zone) measure() {
	below := z.belowWidth()
	cardW, cardH := 0.0, 0.0
	for _, c := range z.cards {
		cardW, cardH = max(cardW, c.w), max(cardH, c.h)
	}
	z.perRow = 1
	for n := len(z.cards); z.perRow < n && (z.perRow < maxHostsInRow || float64(z.perRow+1)*(cardW+gap)+2*pad <= below); {
		z.perRow++
	}
	for _, c := range z.cards {
		c.w, c.h = cardW, cardH
	}
	inner := 0.0
	z.h = zoneHead
	if n := min(z.perRow, len(z.cards)); n > 0 {
		inner = float64(n)*(cardW+gap) - gap
		rows := (len(z.cards) + z.perRow - 1) / z.perRow
		z.h += float64(rows)*(cardH+pad) + 2
	}
	title := float64(utf8.RuneCountInString(z.heading()))*7.2 + 20
	z.w = max(inner+2*pad, title+2*pad, 220)
	z.w = max(z.w, below)
}

func (z *zone) heading() string {
	text := clean(z.name)
	for _, p := range z.prefixes {
		text += "  " + p.String()
	}
	if z.captured {
		text += "  (captured)"
	}
	return text
}

func (z *zone) belowWidth() (w float64) {
	for _, b := range z.gateways {
		if w > 0 {
			w += gap
		}
		b.w = b.card.w
		behind := 0.0
		for i, inner := range b.zones {
			if i > 0 {
				behind += gap
			}
			behind += inner.w
			b.h = max(b.h, inner.height())
		}
		b.w = max(b.w, behind, b.labelWidth())
		b.h += b.card.h + shortWire
		w += b.w
	}
	return w
}

// labelWidth is what the words beside the wire above a gateway need, twice,
// for they stand on its right.
func (b *branch) labelWidth() float64 {
	w := 0.0
	for _, l := range wireWords(b.gateway.Outside) {
		w = max(w, float64(utf8.RuneCountInString(l.text))*monoWidth)
	}
	return 2 * (w + 10)
}

// height is that of a zone with all below it.
func (z *zone) height() float64 {
	h := 0.0
	for _, b := range z.gateways {
		h = max(h, wireLength(b)+b.h)
	}
	return z.h + h
}

func wireLength(b *branch) float64 {
	return max(wire, float64(len(wireWords(b.gateway.Outside)))*15+18)
}

func (z *zone) place(x, y float64) {
	z.x, z.y = x, y
	n := min(z.perRow, len(z.cards))
	for i, c := range z.cards {
		rowWidth := float64(n)*(c.w+gap) - gap
		c.x = x + (z.w-rowWidth)/2 + float64(i%z.perRow)*(c.w+gap)
		c.y = y + zoneHead + float64(i/z.perRow)*(c.h+pad)
	}
	below := gap * float64(max(0, len(z.gateways)-1))
	for _, b := range z.gateways {
		below += b.w
	}
	at := x + (z.w-below)/2
	for _, b := range z.gateways {
		b.card.x = at + (b.w-b.card.w)/2
		b.card.y = y + z.h + wireLength(b)
		behind := gap * float64(len(b.zones)-1)
		for _, inner := range b.zones {
			behind += inner.w
		}
		innerAt := at + (b.w-behind)/2
		for _, inner := range b.zones {
			inner.place(innerAt, b.card.y+b.card.h+shortWire)
			innerAt += inner.w + gap
		}
		at += b.w + gap
	}
}

// wireWords stand beside the wire that leads up from a gateway.
func wireWords(p snapshot.Port) (lines []textLine) {
	for _, a := range p.Addrs {
		lines = append(lines, textLine{"addr", a.String()})
	}
	if len(p.Addrs) == 0 && p.DHCP {
		lines = append(lines, textLine{"warn", "no lease yet"})
	}
	if link := linkWords(p.Link); link != "" {
		lines = append(lines, textLine{"link", link})
	}
	text := fmt.Sprintf("↑ %s  ↓ %s", traffic(p.Sent), traffic(p.Received))
	if n := lost(p); n > 0 {
		text += fmt.Sprintf("  %d lost", n)
	}
	return append(lines, textLine{"dim", text})
}
