package main

func passes(run string) check { return check{pkg: "test/passthrough", run: run} }

// passthroughMutants break what is done for clients that Go cannot serve.
func passthroughMutants() []mutant {
	return append(handoverMutants(), oldServerMutants()...)
}

// handoverMutants pass through whom they should not, or not as he came.
func handoverMutants() []mutant {
	untouched := proxyUnit("^TestAClientThatGoCannotServeIsPassedThroughUntouched$")
	return []mutant{
		{
			name: "nobody is passed through",
			file: "proxy/handshake.go",
			old:  "s.raw.recorder.hold(s.hs.verdict.PassThrough)",
			new:  "s.raw.recorder.hold(false)",
			seen: passes("^TestAnOldClientReadsItsMailAndIsCounted$"),
		},
		{
			name: "the gate's own alert reaches a client that is passed through",
			file: "proxy/conn.go",
			old:  "\tif c.recorder.holding {\n\t\treturn len(p), nil\n\t}\n",
			new:  "",
			seen: untouched,
		},
		{
			name: "what is pipelined behind an SSL 2.0 hello is lost",
			file: "proxy/handshake.go",
			old:  "s.passThrough(whole)",
			new:  "s.passThrough(whole[:length])",
			seen: untouched,
		},
		{
			name: "clients are passed through in explain",
			file: "policy/decide.go",
			old:  "v.PassThrough = v.Mode == Observe",
			new:  "v.PassThrough = true",
			seen: passes("^TestWhoIsNotToBePassedThroughIsNot$"),
		},
		{
			name: "a client that falls back is passed through",
			file: "policy/decide.go",
			old:  "v.Mode == Enforce || h.Fallback() {",
			new:  "v.Mode == Enforce {",
			seen: passes("^TestWhoIsNotToBePassedThroughIsNot$"),
		},
		{
			name: "a hello is kept without bound",
			file: "proxy/passthrough.go",
			old:  "maxRecorded = 128 << 10",
			new:  "maxRecorded = 128 << 20",
			seen: proxyUnit("^TestAHelloThatTakesTooManyBytesIsNotPassedThrough$"),
		},
		{
			name: "the old server is not told of the client",
			file: "proxy/passthrough.go",
			old:  "append(header, hello...)",
			new:  "append(header[:0], hello...)",
			seen: passes("^TestAnOldClientReadsItsMailAndIsCounted$"),
		},
		{
			name: "TLS that is passed through counts as application data",
			file: "proxy/session.go",
			old:  "\tif !s.passed {\n\t\ts.srv.cfg.Meter.Relayed",
			new:  "\tif s != nil {\n\t\ts.srv.cfg.Meter.Relayed",
			seen: passes("^TestSSL2AndSSL3GoToTheOldServerByteForByteAndBack$"),
		},
		{
			name: "a session that is passed through is cut at the beginning of the drain",
			file: "proxy/splice.go",
			old:  "\ts.loggedIn.Store(true)\n",
			new:  "\ts.loggedIn.Store(!s.passed)\n",
			seen: proxyUnit("^TestAPassedThroughClientDrainsLikeOneThatHasLoggedIn$"),
		},
	}
}

// oldServerMutants misjudge the old server's answer, or its silence.
func oldServerMutants() []mutant {
	const file = "proxy/passthrough.go"
	down := passes("^TestAnOldServerThatIsDownIsToldOnceAndItsClientsAreRefused$")
	return []mutant{
		{
			name: "an alert of the old server is counted as observed",
			file: file,
			old:  "\tif alert {\n",
			new:  "\tif alert && up == nil {\n",
			seen: passes("^TestAnAlertOfTheOldServerReachesTheClientAndIsAFailure$"),
		},
		{
			name: "without the old server a client is left without an alert",
			file: file,
			old:  "\ts.raw.unread = hello\n\treturn s.tlsHandshake()\n",
			new:  "\ts.raw.unread = hello\n\ts.report(Rejected, NoFailure)\n\ts.raw.finish()\n\treturn Rejected\n",
			seen: down,
		},
		{
			name: "an old server that is down is told for every client",
			file: file,
			old:  "\tup.down.Store(true)\n",
			new:  "",
			seen: down,
		},
		{
			name: "an old server that hangs up on a scanner is told",
			file: file,
			old:  "reason == UpstreamClosed && up.answered.Load()",
			new:  "reason == UpstreamClosed && !up.answered.Load()",
			seen: passes("^TestWhatARealDovecotHangsUpOnIsRefused$"),
		},
		{
			name: "a silent old server has longer than TIMEOUT_HANDSHAKE",
			file: file,
			old:  "within := min(s.srv.cfg.UpstreamTimeout, time.Until(s.hs.begun.Add(s.srv.cfg.TimeoutHandshake)))",
			new:  "within := s.srv.cfg.UpstreamTimeout",
			seen: passes("^TestASilentOldServerDoesNotHoldUpTheRefusal$"),
		},
		{
			name: "plaintext is passed on to a client that waits for TLS",
			file: file,
			old:  "\t}\n\treturn false, false\n}",
			new:  "\t}\n\treturn false, true\n}",
			seen: proxyUnit("^TestWithoutTheOldServerAClientIsRefusedAsInEnforce$"),
		},
	}
}
