package main

// refusal is the test that a legacy hello is refused, counted and logged as
// what it is.
func refusal(offer string) check {
	return check{pkg: "test/handshake", run: "^TestEnforceRefusesInTheClientsTerms$/^imaps$/^" + offer + "$"}
}

// verdicts is the table of what the policy says.
var verdicts = check{pkg: "policy", run: "^TestVerdictsByHelloAndFloor$"}

func handshakes(run string) check { return check{pkg: "test/handshake", run: run} }

// policyMutants misjudge what a client offers.
func policyMutants() []mutant {
	return append(floorMutants(), []mutant{
		{
			name: "GREASE is counted as a version",
			file: "policy/version.go",
			old:  "return v == SSL2 || v >= SSL3 && v <= TLS13",
			new:  "return v != NoVersion",
			seen: verdicts,
		},
		{
			name: "a version of the future is taken for the highest known one",
			file: "policy/version.go",
			old:  "v >= SSL3 && v <= TLS13",
			new:  "v >= SSL3 && v <= TLS13+1",
			seen: verdicts,
		},
		{
			name: "an SSLv3 hello has no version",
			file: "policy/hello.go",
			old:  "h.Versions = onlySSL3",
			new:  "h.Versions = nil",
			seen: proxyUnit("^TestLookKnowsTheHellosOfOldClients$"),
		},
		{
			name: "TLS_FALLBACK_SCSV is ignored in the reason",
			file: "policy/decide.go",
			old:  "case version == NoVersion && h.Fallback():",
			new:  "case version == NoVersion && h.SSL2Format && h.Fallback():",
			seen: verdicts,
		},
		{
			name: "a client that falls back is let in under observe",
			file: "policy/decide.go",
			old:  "v.Mode == Enforce || h.Fallback() {",
			new:  "v.Mode == Enforce {",
			seen: check{pkg: "policy", run: "^TestWhoIsServedBelowTheFloor$"},
		},
		{
			name: "an SSLv2-format hello that offers TLS 1.2 is refused for its version",
			file: "policy/decide.go",
			old:  "\tcase h.SSL2Format:\n\t\treturn ReasonSSL2Hello\n",
			new:  "\tcase h.SSL2Format:\n\t\treturn ReasonVersion\n",
			seen: verdicts,
		},
		{
			name: "no common group is no reason",
			file: "policy/decide.go",
			old:  "slices.ContainsFunc(h.Groups, groupIn12)",
			new:  "len(h.Groups) > 0",
			seen: verdicts,
		},
		{
			name: "a key signs with any scheme",
			file: "policy/decide.go",
			old:  "\t\treturn false\n\t})",
			new:  "\t\treturn true\n\t})",
			seen: verdicts,
		},
	}...)
}

// floorMutants move a floor.
func floorMutants() []mutant {
	const file = "policy/floor.go"
	suites := check{pkg: "policy", run: "^TestFloorsSpellOutTheirSuites$"}
	return []mutant{
		{
			name: "a TLS 1.1 hello is taken for TLS 1.2",
			file: "policy/hello.go",
			old:  "v.known() && v > highest {\n\t\t\thighest = v",
			new:  "v.known() && v > highest {\n\t\t\thighest = max(v, TLS12)",
			seen: verdicts,
		},
		{
			name: "a TLS 1.1 hello is logged and counted as TLS 1.2",
			file: "policy/version.go",
			old:  "\tcase TLS11:\n\t\treturn \"tls1.1\"",
			new:  "\tcase TLS11:\n\t\treturn \"tls1.2\"",
			seen: refusal("TLS 1.1"),
		},
		{
			name: "TLS 1.1 reaches the floor",
			file: file,
			old:  "\t}\n\treturn TLS12\n",
			new:  "\t}\n\treturn TLS11\n",
			seen: verdicts,
		},
		{
			name: "TLS 1.2 reaches the floor tls1.3",
			file: file,
			old:  "case FloorTLS13:\n\t\treturn TLS13",
			new:  "case FloorTLS13:\n\t\treturn TLS12",
			seen: verdicts,
		},
		{
			name: "RSA key exchange reaches the floor tls1.2",
			file: file,
			old:  "rsaUp    = floorsOf(lenient, FloorTLS12Compat)",
			new:  "rsaUp    = floorsOf(lenient, FloorTLS12Compat, FloorTLS12)",
			seen: suites,
		},
		{
			name: "3DES reaches the floor tls1.2-compat",
			file: file,
			old:  "{tls.TLS_RSA_WITH_3DES_EDE_CBC_SHA, staticRSA, false, noneUp}",
			new:  "{tls.TLS_RSA_WITH_3DES_EDE_CBC_SHA, staticRSA, false, rsaUp}",
			seen: suites,
		},
		{
			name: "RSA with CBC-SHA256 does not reach the floor tls1.2-compat",
			file: file,
			old:  "{tls.TLS_RSA_WITH_AES_128_CBC_SHA256, staticRSA, true, rsaUp}",
			new:  "{tls.TLS_RSA_WITH_AES_128_CBC_SHA256, staticRSA, true, noneUp}",
			seen: suites,
		},
		{
			name: "CBC reaches the floor tls1.2-aead",
			file: file,
			old:  "cbcUp    = floorsOf(lenient, FloorTLS12Compat, FloorTLS12)",
			new:  "cbcUp    = floorsOf(lenient, FloorTLS12Compat, FloorTLS12, FloorTLS12AEAD)",
			seen: suites,
		},
	}
}
