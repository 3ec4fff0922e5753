package main

import "slices"

func mail(run string) check { return check{pkg: "test/mail", run: run} }

// relays is a test with a scripted upstream.
func relays(run string) check { return check{pkg: "test/relay", run: run} }

func proxyUnit(run string) check { return check{pkg: "proxy", run: run} }

// relayMutants break the dialogue between TLS and login.
func relayMutants() []mutant {
	return slices.Concat(capabilityMutants(), identityMutants(), commandMutants(), upstreamMutants())
}

// capabilityMutants leave something in that is untrue inside TLS, or take out
// what is none of it.
func capabilityMutants() []mutant {
	const file = "proxy/capability.go"
	places := func(name string) check {
		return proxyUnit("^TestUntrueCapabilitiesDisappearFromAllFourPlaces$/^" + name + "$")
	}
	return []mutant{
		{
			name: "STARTTLS is left among the capabilities",
			file: file,
			old:  `equalFold(token, "STARTTLS") || `,
			new:  "",
			seen: places("response"),
		},
		{
			name: "LOGINDISABLED is left among the capabilities",
			file: file,
			old:  `equalFold(token, "LOGINDISABLED") ||`,
			new:  `false ||`,
			seen: places("BYE"),
		},
		{
			name: "channel binding is left among the capabilities",
			file: file,
			old:  `hasPrefixFold(token, "AUTH=") && channelBinding(token)`,
			new:  `hasPrefixFold(token, "AUTH=") && len(token) == 0`,
			seen: places("tagged"),
		},
		{
			name: "keywords are compared with regard to case",
			file: file,
			old:  "\tif c >= 'A' && c <= 'Z' {",
			new:  "\tif c == 'A' {",
			seen: places("mixed case"),
		},
		{
			name: "capabilities are left in the greeting",
			file: "proxy/imap.go",
			old:  `return trueIMAP(line), ""`,
			new:  `return line, ""`,
			seen: relays("^TestTheGreetingIsTrueInsideTLS$"),
		},
		{
			name: "capabilities are left in the tagged OK",
			file: "proxy/imap.go",
			old:  "\t\tresp = trueIMAP(resp)\n",
			new:  "\t\tif resp[0] == '*' {\n\t\t\tresp = trueIMAP(resp)\n\t\t}\n",
			seen: relays("^TestCapabilitiesDuringALoginAreTrueAndUntouchedAfterIt$"),
		},
		{
			name: "a literal in a response is read as lines",
			file: "proxy/imap.go",
			old:  "if !more || line[0] == '+' || statusText(line) {",
			new:  "if !more || lit.size >= 0 {",
			seen: relays("^TestIMAPCapabilitiesInsideTLS$/^imaps lines inside a literal$"),
		},
		{
			name: "STLS is left in CAPA",
			file: file,
			old:  "case equalFold(bytes.TrimRight(body, \" \"), \"STLS\"):",
			new:  "case equalFold(body, \"STARTTLS\"):",
			seen: proxyUnit("^TestUntrueCapabilitiesDisappearFromCAPA$"),
		},
		{
			name: "STARTTLS inside TLS reaches the upstream",
			file: "proxy/imap.go",
			old:  `case is("STARTTLS"), is("XCLIENT")`,
			new:  `case is("XCLIENT")`,
			seen: mail("^TestIMAPCapabilitiesInTLSAreTrue$"),
		},
	}
}

// identityMutants let a client say where it comes from.
func identityMutants() []mutant {
	const file = "proxy/id.go"
	return []mutant{
		{
			name: "x-originating-ip is passed on",
			file: file,
			old:  `case "x-originating-ip", `,
			new:  `case `,
			seen: proxyUnit("^TestForbiddenIDFieldsAreTakenOut$/^alone$"),
		},
		{
			name: "x-forward- fields are passed on",
			file: file,
			old:  `strings.HasPrefix(key, "x-forward-")`,
			new:  `key == "x-forward-"`,
			seen: proxyUnit("^TestForbiddenIDFieldsAreTakenOut$/^prefix$"),
		},
		{
			name: "a forged address in a synchronizing literal is passed on",
			file: file,
			old:  "\t\tfill(octets, ' ')\n",
			new:  "\t\tfill(octets[:0], ' ')\n",
			seen: proxyUnit("^TestForbiddenIDFieldsInSynchronizingLiteralsMeanNothing$/^name and value$"),
		},
		{
			name: "ID is passed on unread",
			file: "proxy/imap.go",
			old:  "\tcase is(\"ID\"):\n\t\treturn false, r.imapID(cmd)\n",
			new:  "",
			seen: relays("^TestAClientCannotSayWhereItComesFrom$/^imaps between$"),
		},
	}
}

// commandMutants pass commands on that they must not, or not as they came.
func commandMutants() []mutant {
	offence := func(name string) check {
		return relays("^TestWhatCannotBeRelayedEndsTheSessionInWords$/^imaps " + name + "$")
	}
	return []mutant{
		{
			name: "a literal is passed on one octet short",
			file: "proxy/imap.go",
			old:  "dst, err := f.r.client.octets(dst, lit.size)\n",
			new:  "dst, err := f.r.client.octets(dst, lit.size)\n\tdst = dst[:max(had, len(dst)-1)]\n",
			seen: mail("^TestIMAPLoginsFailAndSucceedAsTheUpstreamSays$/^imaps LOGIN literals$"),
		},
		{
			name: "a command is passed on before the one ahead of it is answered",
			file: "proxy/imap.go",
			old:  "\t\tif !more {\n\t\t\treturn f.answer()\n",
			new:  "\t\tif !more && !f.nonSyncOK {\n\t\t\treturn answer{}, nil\n\t\t}\n\t\tif !more {\n\t\t\treturn f.answer()\n",
			seen: relays("^TestWhatIsPipelinedBehindALoginWaitsForItAndArrivesInOrder$"),
		},
		{
			name: "a bare LF ends a command",
			file: "proxy/lines.go",
			old:  "body, ok := bytes.CutSuffix(line, crlf)\n\treturn ok && ",
			new:  "body := line[:len(line)-len(lineEnd(line))]\n\treturn ",
			seen: proxyUnit("^FuzzLineReader$"),
		},
		{
			name: "a NUL is passed on",
			file: "proxy/lines.go",
			old:  `return ok && !bytes.ContainsAny(body, "\r\n\x00")`,
			new:  `return ok && !bytes.ContainsAny(body, "\r\n")`,
			seen: proxyUnit("^FuzzLineReader$"),
		},
		{
			name: "a line before login may be of any length",
			file: "proxy/lines.go",
			old:  "maxLine = 64 << 10",
			new:  "maxLine = 64 << 20",
			seen: offence("a line over 64 KB"),
		},
		{
			name: "literals before login may sum up to anything",
			file: "proxy/imap.go",
			old:  "if f.literals += lit.size; f.literals > maxLiterals {",
			new:  "if f.literals = lit.size; f.literals > maxLiterals {",
			seen: offence("literals that sum up to more"),
		},
		{
			name: "a session that cannot be relayed ends without a word",
			file: "proxy/relay.go",
			old:  "\t\tr.say(d.goodbye(noticeProtocol, protocolFault(err)))\n",
			new:  "",
			seen: offence("a bare CR"),
		},
	}
}

// upstreamMutants trust an upstream, or say the wrong thing of it.
func upstreamMutants() []mutant {
	const file = "proxy/relay.go"
	return []mutant{
		{
			name: "PREAUTH is let in",
			file: "proxy/imap.go",
			old:  "return nil, UpstreamPreauth",
			new:  "return trueIMAP(line), \"\"",
			seen: relays("^TestAnUpstreamThatDoesNotGreetWell$/^imap PREAUTH$"),
		},
		{
			name: "the goodbye of an upstream is not passed on",
			file: "proxy/imap.go",
			old:  "return trueIMAP(line), UpstreamRefused",
			new:  "return nil, UpstreamRefused",
			seen: relays("^TestAnUpstreamThatDoesNotGreetWell$/^imap BYE$"),
		},
		{
			name: "an upstream that dies before login leaves no word",
			file: file,
			old:  "\tr.say(r.s.dialect.goodbye(noticeUnavailable, \"The mail server went away, please try again later.\"))\n",
			new:  "",
			seen: relays("^TestAnUpstreamThatDiesBeforeLogin$"),
		},
		{
			name: "the next upstream is not tried",
			file: "proxy/upstream.go",
			old:  "\t\ts.srv.upstreamFailed(up, err)\n\t}\n",
			new:  "\t\ts.srv.upstreamFailed(up, err)\n\t\tbreak\n\t}\n",
			seen: relays("^TestTheNextUpstreamServesWhereTheFirstIsDownUntilItComesBack$"),
		},
		{
			name: "who has not logged in is not told of the shutdown",
			file: "proxy/drain.go",
			old:  "\t\t\ts.raw.SetReadDeadline(past)\n",
			new:  "",
			seen: relays("^TestAtShutdownWhoHasNotLoggedInIsToldAtOnce$"),
		},
	}
}
