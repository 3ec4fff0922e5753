package main

import "slices"

func outward(run string) check { return check{pkg: "test/upstream", run: run} }

func certsUnit(run string) check { return check{pkg: "internal/certs", run: run} }

// outwardMutants break what is around a session: the line to the upstream, who
// is calling, limits, files that change, and the end.
func outwardMutants() []mutant {
	return slices.Concat(lineMutants(), severalMutants(), callerMutants(), limitMutants(), fileMutants(), drainMutants())
}

// lineMutants trust an upstream that nobody vouches for, or what was said
// before its TLS.
func lineMutants() []mutant {
	const file = "proxy/upstream.go"
	plays := outward("^TestAnUpstreamThatPlaysWithSTARTTLSIsRefused$/^imap$")
	return []mutant{
		{
			name: "the upstream's certificate is not verified",
			file: "proxy/tls.go",
			old:  "\tc.ServerName = up.ServerName\n",
			new:  "\tc.ServerName, c.InsecureSkipVerify = up.ServerName, true\n",
			seen: proxyUnit("^TestUpstreamRootsAreReplacedWithTheirSessions$"),
		},
		{
			name: "an upstream's certificate for another name is taken",
			file: "proxy/tls.go",
			old:  "\tc.ServerName = up.ServerName\n",
			new: "\tc.ServerName, c.InsecureSkipVerify = up.ServerName, true\n" +
				"\tc.VerifyConnection = func(s tls.ConnectionState) error {\n" +
				"\t\t_, err := s.PeerCertificates[0].Verify(x509.VerifyOptions{Roots: c.RootCAs})\n\t\treturn err\n\t}\n",
			seen: outward("^TestUpstreamServerNameIsSentAndVerified$"),
		},
		{
			name: "a reply injected behind the OK to STARTTLS is passed over",
			file: file,
			old:  "len(c.lines.buffered()) > 0 || pendingBytes(c.raw.tcpConn)",
			new:  "false",
			seen: plays,
		},
		{
			name: "the greeting from before the upstream's TLS is shown",
			file: file,
			old:  "if g, err = d.greetAgain(c); err",
			new:  "if _, err = d.greetAgain(c); err",
			seen: outward("^TestNothingFromBeforeTheUpstreamsTLSReachesTheClient$"),
		},
		{
			name: "a goodbye from before the upstream's TLS is shown",
			file: file,
			old:  "\t\t\tg.shown = nil // before TLS anybody may have said it\n",
			new:  "",
			seen: plays,
		},
		{
			name: "check does not verify an upstream's certificate",
			file: "internal/check/upstream.go",
			old:  "ServerName: t.serverName}",
			new:  "ServerName: t.serverName, InsecureSkipVerify: true}",
			seen: check{pkg: "internal/check", run: "^TestWhatUpstreamsSay$/^imaps - no CA$"},
		},
	}
}

// severalMutants mix up upstreams, or give up with the first.
func severalMutants() []mutant {
	return []mutant{
		{
			name: "a client loses its upstream before login and is not given another",
			file: "proxy/session.go",
			old:  "const maxReconnects = 3",
			new:  "const maxReconnects = 0",
			seen: outward("^TestClientsBeforeLoginSurviveTheirUpstream$/^imap$"),
		},
		{
			name: "upstreams of one name share their TLS sessions",
			file: "proxy/tls.go",
			old:  "\tc.ClientSessionCache = upstreamSessions{c.ClientSessionCache, up.Name + \" \"}\n",
			new:  "",
			seen: outward("^TestSessionsWithAnUpstreamAreResumed$"),
		},
	}
}

// callerMutants take the client for somebody else, or tell the upstream so.
func callerMutants() []mutant {
	const file = "proxy/proxyheader.go"
	return []mutant{
		{
			name: "a PROXY header is believed from anybody",
			file: file,
			old:  "if p.Contains(peer) {",
			new:  "if p.Contains(peer) || peer.IsValid() {",
			seen: outward("^TestNobodyElseIsBelieved$"),
		},
		{
			name: "LOCAL is taken for an address",
			file: file,
			old:  "\tif h.Command.IsLocal() {\n\t\treturn nil\n\t}\n\tsrc, dst, ok := h.TCPAddrs()\n\tif !ok {",
			new:  "\tsrc, dst, ok := h.TCPAddrs()\n\tif !ok && !h.Command.IsLocal() {",
			seen: proxyUnit("^FuzzProxyHeader$"),
		},
		{
			name: "the upstream is told the load balancer's address",
			file: file,
			old:  "net.TCPAddrFromAddrPort(s.Client)",
			new:  "net.TCPAddrFromAddrPort(addrPort(s.raw.RemoteAddr()))",
			seen: outward("^TestAddressesFromAPROXYHeaderAreUsed$"),
		},
		{
			name: "the upstream is not told that the client is secured",
			file: file,
			old:  "tlvs := []proxyproto.TLV{ssl}",
			new:  "tlvs := []proxyproto.TLV{ssl}[:0]",
			seen: proxyUnit("^TestTheTLSFactsOfAHeaderAreCutToALength$"),
		},
		{
			name: "public clients are taken for a load balancer",
			file: "cmd/postern/sources.go",
			old:  "(client.IsPrivate() || client.IsLoopback()) && (known",
			new:  "client.IsValid() && (known",
			seen: check{pkg: "cmd/postern", run: "^TestAFewPrivateSourcesAreWarnedOfOnce$"},
		},
	}
}

// limitMutants count what does not count, or forget.
func limitMutants() []mutant {
	const file = "proxy/limits.go"
	return []mutant{
		{
			name: "those turned away take places",
			file: "proxy/server.go",
			old:  "srv.served >= srv.cfg.Limits.Connections",
			new:  "len(srv.open) > srv.cfg.Limits.Connections",
			seen: check{pkg: "test/limits", run: "^TestThoseTurnedAwayTakeNoPlace$"},
		},
		{
			name: "a client's connections are never counted down",
			file: file,
			old:  "if c.open[key]--; c.open[key] <= 0 {",
			new:  "if c.open[key] <= 0 {",
			seen: proxyUnit("^TestConnectionsAreCountedPerClient$"),
		},
		{
			name: "an IPv6 client is its address alone",
			file: file,
			old:  "Prefix(64)",
			new:  "Prefix(128)",
			seen: proxyUnit("^TestAnIPv6ClientIsItsNetwork$"),
		},
		{
			name: "a client's handshakes never come back",
			file: file,
			old:  "rate.NewLimiter(rate.Limit(n), n)",
			new:  "rate.NewLimiter(0, n)",
			seen: proxyUnit("^TestHandshakesComeBackWithTime$"),
		},
		{
			name: "the connection limit forgets the upstream's descriptor",
			file: "internal/config/limits.go",
			old:  "sessionDescriptors = 2",
			new:  "sessionDescriptors = 1",
			seen: check{pkg: "internal/config", run: "^TestTheConnectionLimitComesFromTheDescriptors$"},
		},
	}
}

// fileMutants take over what is no better than what there is.
func fileMutants() []mutant {
	return []mutant{
		{
			name: "an expired renewal replaces a valid certificate",
			file: "internal/certs/renew.go",
			old:  "case there && valid && is.invalid(now) != \"\":",
			new:  "case there && valid && now.Before(is.Leaf.NotBefore):",
			seen: certsUnit("^TestRenew$/^one of two expired, the other not$"),
		},
		{
			name: "a file is read while it is being written",
			file: "internal/watch/watch.go",
			old:  "\tcase now != s.last:\n\t\ts.last = now\n",
			new:  "",
			seen: check{pkg: "internal/watch", run: "^TestAFileThatGrowsIsNotReadHalf$"},
		},
		{
			name: "the oldest ticket key makes the tickets",
			file: "internal/certs/pools.go",
			old:  "\t\tkeys = append(keys, key)\n",
			new:  "\t\tkeys = slices.Insert(keys, 0, key)\n",
			seen: certsUnit("^TestTicketKeysComeInTheirOrder$"),
		},
		{
			name: "ticket keys are not shared",
			file: "proxy/server.go",
			old:  "if len(srv.tls.keys) == 0 {",
			new:  "if len(srv.tls.keys) >= 0 {",
			seen: proxyUnit("^TestReplicasThatShareTicketKeysResumeEachOthersSessions$"),
		},
	}
}

// drainMutants end sessions too soon.
func drainMutants() []mutant {
	return []mutant{
		{
			name: "a failed login is tried on another upstream",
			file: "proxy/relay.go",
			old:  "!r.busy && !r.spent && endingOf",
			new:  "!r.busy && endingOf",
			seen: proxyUnit("^TestAFailedLoginIsNotTriedOnAnotherUpstream$"),
		},
		{
			name: "TIMEOUT_LOGIN waits for the upstream",
			file: "proxy/relay.go",
			old:  "timer := time.NewTimer(min(patience, left))",
			new:  "timer := time.NewTimer(patience)",
			seen: proxyUnit("^TestTimeoutLoginHoldsWhileTheUpstreamThinks$"),
		},
		{
			name: "a session amid a download counts as idle",
			file: "proxy/drain.go",
			old:  "s.writing.Load() > 0 || s.asked.Load() || s.silent(now) < idle",
			new:  "s.silent(now) < idle",
			seen: check{pkg: "test/drain", run: "^TestADownloadInFlightArrivesWhole$"},
		},
		{
			name: "idle sessions are closed in a burst",
			file: "proxy/drain.go",
			old:  "wait = time.Until(end) / time.Duration(n+1)",
			new:  "wait = time.Until(end) / time.Duration(100*(n+1))",
			seen: check{pkg: "test/drain", run: "^TestIdleSessionsGoEvenlyInTheSecondHalf$"},
		},
	}
}
