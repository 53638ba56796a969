package draw

import (
	"fmt"
	"html"
	"strings"
)

const style = `
text { font: 12px "DejaVu Sans", Verdana, Helvetica, sans-serif; fill: #223042; }
.mono { font: 11px "DejaVu Sans Mono", ui-monospace, Menlo, Consolas, monospace; }
.title { font-size: 20px; font-weight: bold; }
.sub { fill: #66788a; }
.head { font-weight: bold; font-size: 13px; }
.zone { stroke-width: 1.5; }
.zone.internet { fill: #eaf2fb; stroke: #8fb2d9; }
.zone.inside { fill: #edf7ee; stroke: #92c49a; }
.zone.dmz { fill: #fdf4e3; stroke: #dcb368; }
.card { fill: #ffffff; stroke: #b9c6d3; }
.gateway { fill: #ffffff; stroke: #33475b; stroke-width: 1.5; }
.bar { fill: #33475b; }
.onbar { fill: #ffffff; }
.onbar.note { fill: #c9d8e6; }
.wire { stroke: #33475b; stroke-width: 2; fill: none; }
.plug { fill: #33475b; }
.addr { fill: #223042; }
.link { fill: #8a5a00; }
.dim { fill: #66788a; }
.warn { fill: #b3261e; }
.lease { fill: #3d6b46; }
.udp { fill: #0b5394; }
.tcp { fill: #6a1b9a; }
.icmp { fill: #00695c; }
`

// SVG draws a lab as a picture that needs nothing else.
func SVG(l Lab) string {
	root := layout(l)
	name := clean(l.Name)
	about := fmt.Sprintf("%s, %s, %s", count(len(l.Hosts), "host"), count(len(l.Gateways), "gateway"), l.Time.Format("2 January 2006 15:04:05"))
	if l.Title != "" && l.Title != l.Name {
		about = shorten(clean(l.Title), maxTitle) + " · " + about
	}
	var below []textLine
	for _, c := range l.cutWords() {
		below = append(below, textLine{"warn", "✂ cut: " + c})
	}
	for _, e := range l.Events[max(0, len(l.Events)-6):] {
		below = append(below, textLine{"dim", fmt.Sprintf("%s %s: %s", e.Time.Format("15:04:05"), clean(e.Name), clean(e.Text))})
	}
	width := max(root.w+2*margin, 480, columns(name)*13+2*margin, columns(about)*7.2+2*margin)
	for _, line := range below {
		width = max(width, float64(len([]rune(line.text)))*monoWidth+2*margin)
	}
	root.place((width-root.w)/2, root.y)
	bottom := root.y + root.height() + gap
	height := bottom + float64(len(below))*row + 8

	p := &picture{}
	p.printf(`<svg xmlns="http://www.w3.org/2000/svg" width="%.0f" height="%.0f" viewBox="0 0 %.0f %.0f" role="img">`, width, height, width, height)
	p.printf("<title>bodkin lab %s</title>\n<style>%s</style>", html.EscapeString(name), style)
	p.printf(`<rect width="100%%" height="100%%" fill="#ffffff"/>`)
	p.text(margin, 38, "title", name)
	p.text(margin, 58, "sub", about)
	p.zone(root)
	for i, line := range below {
		p.text(margin, bottom+float64(i)*row, "mono "+line.class, line.text)
	}
	p.printf("</svg>")
	return p.String()
}

type picture struct{ strings.Builder }

func (p *picture) printf(format string, args ...any) { fmt.Fprintf(p, format+"\n", args...) }

// text escapes what it writes.
func (p *picture) text(x, y float64, class, text string) {
	p.printf(`<text x="%.1f" y="%.1f" class="%s" xml:space="preserve">%s</text>`, x, y, class, html.EscapeString(text))
}

func (p *picture) rect(x, y, w, h, round float64, class string) {
	p.printf(`<rect x="%.1f" y="%.1f" width="%.1f" height="%.1f" rx="%.0f" class="%s"/>`, x, y, w, h, round, class)
}

func (p *picture) wire(x, from, to float64) {
	p.printf(`<path d="M%.1f %.1f V%.1f" class="wire"/>`, x, from, to)
	p.printf(`<circle cx="%.1f" cy="%.1f" r="3.5" class="plug"/>`, x, from)
}

func (p *picture) zone(z *zone) {
	p.rect(z.x, z.y, z.w, z.h, 12, "zone "+z.kind)
	p.text(z.x+pad, z.y+22, "head", clean(z.name))
	p.text(z.x+pad+float64(len([]rune(z.name)))*8.6+16, z.y+22, "mono sub", strings.TrimSpace(strings.TrimPrefix(z.heading(), clean(z.name))))
	for _, c := range z.cards {
		p.host(c)
	}
	for _, b := range z.gateways {
		p.branch(z, b)
	}
}

func (p *picture) host(c *card) {
	p.rect(c.x, c.y, c.w, c.h, 7, "card")
	p.text(c.x+pad, c.y+18, "head", c.title)
	p.note(c, "sub")
	p.lines(c)
}

// note stands at the right end of a card's title.
func (p *picture) note(c *card, class string) {
	p.printf(`<text x="%.1f" y="%.1f" text-anchor="end" class="%s">%s</text>`, c.x+c.w-pad, c.y+18, class, html.EscapeString(c.note))
}

func (p *picture) lines(c *card) {
	for i, l := range c.lines {
		p.text(c.x+pad, c.y+headRow+17+float64(i)*row, "mono "+l.class, l.text)
	}
}

func (p *picture) branch(above *zone, b *branch) {
	c := b.card
	middle := c.x + c.w/2
	p.wire(middle, above.y+above.h, c.y)
	for i, l := range wireWords(b.gateway.Outside) {
		p.text(middle+10, above.y+above.h+18+float64(i)*15, "mono "+l.class, l.text)
	}
	for i, z := range b.zones {
		side := b.gateway.Inside
		if i == 1 {
			side = *b.gateway.DMZ
		}
		x := min(max(middle, z.x+12), z.x+z.w-12)
		if at := z.x + z.w/2; len(b.zones) > 1 {
			x = min(max(at, c.x+12), c.x+c.w-12)
		}
		p.wire(x, c.y+c.h, z.y)
		var words []string
		for _, a := range side.Addrs {
			words = append(words, a.Addr().String())
		}
		if link := linkWords(side.Link); link != "" {
			words = append(words, link)
		}
		p.text(x+10, c.y+c.h+21, "mono dim", strings.Join(words, "  "))
	}
	p.rect(c.x, c.y, c.w, c.h, 7, "gateway")
	p.printf(`<path d="M%.1f %.1f v-%.1f q0 -7 7 -7 h%.1f q7 0 7 7 v%.1f z" class="bar"/>`, c.x, c.y+headRow+2, headRow-5, c.w-14, headRow-5)
	p.text(c.x+pad, c.y+18, "head onbar", c.title)
	p.note(c, "onbar note")
	p.lines(c)
	for _, z := range b.zones {
		p.zone(z)
	}
}
