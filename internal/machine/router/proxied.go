package router

import (
	"errors"
	"net/netip"
	"slices"
	"time"

	"github.com/bodkin-net/bodkin/internal/machine/nat"
	"github.com/bodkin-net/bodkin/internal/machine/nat/ip"
	"github.com/bodkin-net/bodkin/internal/machine/redirect"
)

// newRedirect has connections to what is outside end at the router.
func (r *Router) newRedirect() (*redirect.Redirect, error) {
	own, network := r.home()
	if !network.IsValid() {
		return nil, errors.New("router: redirecting needs an IPv4 address inside, in a prefix of the inside")
	}
	return redirect.New(redirect.Config{
		Proxy: netip.AddrPortFrom(own, r.cfg.RedirectTo), Ports: r.cfg.Redirect,
		Except: slices.Concat(r.cfg.NAT.Inside, r.cfg.NAT.DMZ),
	})
}

// handleRedirected is what Handle does with a transparent proxy: before the
// gateway on the way in, so that no filter stands between the two, and behind
// it on the way back.
func (r *Router) handleRedirected(now time.Time, from nat.Side, pkt []byte, off nat.Offload) nat.Verdict {
	var p ip.Packet
	if (from == nat.Inside || from == nat.Local) && p.Decode(pkt) == nil {
		p.Partial = off.PartialSum
		if from == nat.Inside && !r.isOwn(p.Dst.Addr()) {
			if !slices.ContainsFunc(r.cfg.NAT.Inside, func(in netip.Prefix) bool { return in.Contains(p.Src.Addr()) }) {
				return nat.Verdict{Action: nat.Drop, Reason: nat.BadAddress} // RFC 2827
			}
			if !r.proxy.FromInside(now, &p) {
				return nat.Verdict{Action: nat.Drop, Reason: nat.TableFull}
			}
		}
	}
	v := r.nat.Handle(now, from, pkt, off)
	if from == nat.Local && v.Action == nat.Forward && v.To == nat.Inside && p.Decode(pkt) == nil {
		p.Partial = off.PartialSum
		r.proxy.FromProxy(now, &p)
	}
	return v
}

func (r *Router) isOwn(a netip.Addr) bool {
	return a == r.external || slices.ContainsFunc(r.cfg.NAT.Own[:], func(own []netip.Addr) bool { return slices.Contains(own, a) })
}

// Intended is where a connection was to go that was redirected, and who made
// it, by the endpoint that the proxy sees it come from.
func (r *Router) Intended(now time.Time, seen netip.AddrPort) (client, remote netip.AddrPort, ok bool) {
	if r.proxy == nil {
		return client, remote, false
	}
	return r.proxy.Original(now, seen)
}
