package main

// handshakeMutants serve, refuse or count a handshake for what it is not.
func handshakeMutants() []mutant {
	return append(append(servingMutants(), endingMutants()...), countingMutants()...)
}

// servingMutants do the wrong thing with a legacy client.
func servingMutants() []mutant {
	explained := handshakes("^TestExplainSaysWhyAndCloses$/^imaps TLS 1.0$")
	return []mutant{
		{
			name: "legacy is let in under enforce",
			file: "proxy/tls.go",
			old:  "srv.complete(p.Floor().TLSConfig(), protocol)",
			new:  "srv.complete(policy.LenientTLSConfig(), protocol)",
			seen: proxyUnit("^TestNoLenientConfigExistsUnderEnforce$"),
		},
		{
			name: "a lenient configuration exists under enforce",
			file: "policy/policy.go",
			old:  "return p.mode != Enforce",
			new:  "return p.mode <= Observe",
			seen: proxyUnit("^TestNoLenientConfigExistsUnderEnforce$"),
		},
		{
			name: "the lenient configuration serves every hello",
			file: "proxy/handshake.go",
			old:  "if s.hs.verdict.Serve != policy.Enforce {\n\t\treturn regime.lenient[s.Listener.Protocol()], nil",
			new:  "if c := regime.lenient[s.Listener.Protocol()]; c != nil {\n\t\treturn c, nil",
			seen: handshakes("^TestWhatCannotBeServedIsRefusedAsInEnforce$/^observe imaps TLS 1.0 that falls back$"),
		},
		{
			name: "the upstream is dialled before the handshake",
			file: "proxy/session.go",
			old:  "\tswitch s.shakeHands(!s.Listener.ImplicitTLS()) {",
			new:  "\tif _, err := s.connect(nil); err == nil {\n\t\ts.upstream.Close()\n\t}\n\tswitch s.shakeHands(!s.Listener.ImplicitTLS()) {",
			seen: refusal("TLS 1.2, RSA key exchange only"),
		},
		{
			name: "explain goes on to the upstream",
			file: "proxy/session.go",
			old:  "\tcase Explained:\n",
			new:  "\tcase Explained:\n\t\tif _, err := s.connect(nil); err == nil {\n\t\t\ts.upstream.Close()\n\t\t}\n",
			seen: explained,
		},
		{
			name: "explain lets the client in",
			file: "proxy/session.go",
			old:  "\t\ts.tlsFarewell(s.dialect.goodbye(noticeExplain, s.srv.explanation(s.verdict)))\n\t\treturn WhyExplained, true\n",
			new:  "\t\treturn s.mail()\n",
			seen: explained,
		},
		{
			name: "a reset overtakes the text of explain",
			file: "proxy/session.go",
			old:  "\ts.tls.CloseWrite()\n\ts.raw.linger()\n",
			new:  "\ts.tls.CloseWrite()\n\ts.raw.Close()\n",
			seen: explained,
		},
		{
			name: "explain names the floor as the client's version",
			file: "proxy/explain.go",
			old:  `"{version}", v.Version.Number(),`,
			new:  `"{version}", v.Floor.MinVersion().Number(),`,
			seen: explained,
		},
		{
			name: "explain speaks of the version where the cipher is the reason",
			file: "proxy/explain.go",
			old:  "v.Reason == policy.ReasonCipher",
			new:  "v.Reason == policy.ReasonFallback",
			seen: handshakes("^TestExplainSaysWhyAndCloses$/^imaps TLS 1.2, RSA$"),
		},
		{
			name: "observe refuses",
			file: "proxy/handshake.go",
			old:  "if s.hs.verdict.Serve != policy.Enforce {\n\t\treturn regime.lenient",
			new:  "if s.hs.verdict.Serve == policy.Explain {\n\t\treturn regime.lenient",
			seen: handshakes("^TestObserveLetsInAndCounts$/^imaps TLS 1.0$"),
		},
	}
}

// endingMutants end a handshake in the wrong way.
func endingMutants() []mutant {
	return []mutant{
		{
			name: "alert 40 for the version of an SSLv2 hello",
			file: "proxy/handshake.go",
			old:  "s.sendAlert(alertProtocolVersion, hs.verdict.Version)",
			new:  "s.sendAlert(alertHandshakeFailure, hs.verdict.Version)",
			seen: refusal("SSLv2"),
		},
		{
			name: "ALPN is not enforced",
			file: "proxy/tls.go",
			old:  "\tc.NextProtos = []string{string(p)}\n",
			new:  "",
			seen: refusal("ALPN http/1.1 in TLS 1.3"),
		},
		{
			name: "plaintext on a TLS port gets no answer",
			file: "proxy/handshake.go",
			old:  `s.farewell(s.dialect.goodbye(noticeProtocol, "This is a port for TLS: choose SSL/TLS in your mail program."))`,
			new:  `s.raw.linger()`,
			seen: handshakes("^TestPlaintextOnATLSPortIsAnsweredInPlaintext$/^imaps IMAP$"),
		},
		{
			name: "a dripping hello puts its deadline off",
			file: "proxy/conn.go",
			old:  "\tn, err := c.tcpConn.Read(p)\n\tc.took(p[:n])\n",
			new:  "\tif c.handshaking {\n\t\tc.SetDeadline(time.Now().Add(c.s.srv.cfg.TimeoutHandshake))\n\t}\n\tn, err := c.tcpConn.Read(p)\n\tc.took(p[:n])\n",
			seen: handshakes("^TestADrippingHelloRunsIntoTheTimeout$/^imaps$"),
		},
	}
}

// countingMutants count a handshake twice, not at all, or as something else.
func countingMutants() []mutant {
	const file = "proxy/handshake.go"
	return []mutant{
		{
			name: "the end of a connection is told twice",
			file: "proxy/server.go",
			old:  "\t\t\ts.end(why)\n",
			new:  "\t\t\ts.end(why)\n\t\t\ts.end(why)\n",
			seen: relays("^TestTheNextUpstreamServesWhereTheFirstIsDownUntilItComesBack$"),
		},
		{
			name: "a handshake is told twice",
			file: file,
			old:  "\ts.srv.cfg.Observer.Handshake(&event)\n",
			new:  "\ts.srv.cfg.Observer.Handshake(&event)\n\ts.srv.cfg.Observer.Handshake(&event)\n",
			seen: refusal("TLS 1.0"),
		},
		{
			name: "a handshake that fails is not told",
			file: file,
			old:  "\ts.report(Failed, f)\n\ts.raw.finish()\n",
			new:  "\ts.raw.finish()\n",
			seen: handshakes("^TestClientsThatLeave$/^imaps in order amid the hello$"),
		},
		{
			name: "who is turned away on the threshold is counted as failed",
			file: "proxy/door.go",
			old:  "\td.s.report(Rejected, NoFailure)\n",
			new:  "\td.s.report(Failed, FailOther)\n",
			seen: proxyUnit("^TestTheThresholdSaysTheSameAsASession$"),
		},
		{
			name: "rejected is counted as failed",
			file: file,
			old:  "\t\ts.report(Rejected, NoFailure)\n\t\ts.raw.finish()\n\t\treturn Rejected\n",
			new:  "\t\ts.report(Failed, FailOther)\n\t\ts.raw.finish()\n\t\treturn Rejected\n",
			seen: refusal("TLS 1.2, RSA key exchange only"),
		},
		{
			name: "observed is counted as accepted",
			file: file,
			old:  "return s.report(Observed, NoFailure)",
			new:  "return s.report(Accepted, NoFailure)",
			seen: handshakes("^TestObserveLetsInAndCounts$/^imaps TLS 1.0$"),
		},
		{
			name: "an HTTP request is counted as plaintext",
			file: file,
			old:  "\tif isHTTP(text) {",
			new:  "\tif isHTTP(nil) {",
			seen: handshakes("^TestPlaintextOnATLSPortIsAnsweredInPlaintext$/^imaps HTTP GET$"),
		},
		{
			name: "a distrusting client's alert in clear is counted as malformed",
			file: file,
			old:  "if s.raw.endedWithAlert() {",
			new:  "if s.raw.endedWithAlert() && !s.hs.judged {",
			seen: handshakes("^TestClientsThatDistrustTheCertificate$/^imaps TLS 1.3 with the alert in clear$"),
		},
		{
			name: "a reset is counted as an orderly end",
			file: file,
			old:  "\tif op != nil {\n\t\treturn FailIO\n",
			new:  "\tif op != nil {\n\t\treturn FailClosed\n",
			seen: handshakes("^TestClientsThatLeave$/^imaps by a reset amid the hello$"),
		},
		{
			name: "a legacy handshake that breaks off is counted as rejected",
			file: file,
			old:  "case hs.verdict.Legacy() && hs.verdict.Serve == policy.Enforce && s.refusedFor(hs.verdict.Reason):",
			new:  "case hs.verdict.Legacy():",
			seen: handshakes("^TestLegacyHandshakesThatBreakOff$/^observe imaps closed$"),
		},
	}
}
