package rendezvous

import "time"

// Probe asks the server for a sign of life now, instead of when the next
// KEEPALIVE is due. It costs nothing while one is out.
func (c *Client) Probe(now time.Time) {
	if c.state == registered && c.home.unanswered == 0 {
		c.sendKeepAlive(now)
	}
}
