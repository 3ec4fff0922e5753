package check

import (
	"context"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"time"

	"postern/internal/config"
	"postern/internal/policyfile"
	"postern/internal/probe"
	"postern/internal/text"
	"postern/proxy"
)

// reachedFromHere reports an address that only this host reaches; a test has another.
var reachedFromHere = netip.Addr.IsLoopback

// past warns of ports at the upstreams' addresses, those of mail and the upstreams' own,
// that take handshakes below the floor: whoever reaches them gets in past Postern. Only
// this host reaches those on loopback.
func (r *Report) past(ctx context.Context, cfg *config.Config, timeout time.Duration) {
	p, err := policyfile.Of(cfg)
	if err != nil {
		return // which was said
	}
	o := probe.Options{Timeout: timeout, Floor: p.Floor()}
	var all []*probe.Listener
	variables := make(map[string]string) // by address, of those that were seen
	for _, l := range cfg.PassingThrough() {
		variables[string(l.Passthrough)] = l.PassthroughVariable()
	}
	for _, u := range slices.Concat(cfg.UpstreamIMAP, cfg.UpstreamPOP3) {
		o.StartTLS = text.Either(u.Scheme.TLS == proxy.LineTLS, "", u.Scheme.Protocol)
		found, _ := probe.Listeners(ctx, []string{u.Host, u.Addr()}, o)
		for _, l := range found {
			ip, err := netip.ParseAddr(l.Address)
			port := strconv.Itoa(l.Port)
			if err == nil && !reachedFromHere(ip) && variables[l.Addr()]+variables[net.JoinHostPort(u.Host, port)]+cfg.OwnListener([]netip.Addr{ip}, port) == "" {
				all, variables[l.Addr()] = append(all, l), u.Variable()
			}
		}
	}
	probe.Run(ctx, all, o, func(int) {})
	for _, l := range all {
		if l.Below(o.Floor) {
			r.warn(variables[l.Addr()], "%s is a way past Postern for whoever reaches it: close it to clients, or raise what it takes; it %s", l.Addr(), l.Summary)
		}
	}
}
