package main

// lookMutants read a hello otherwise than crypto/tls does, which refuses what
// they do not understand.
func lookMutants() []mutant { return append(factMutants(), leftMutants()...) }

// factMutants say something else of a hello.
func factMutants() []mutant {
	const file = "proxy/look.go"
	known := proxyUnit("^TestLookKnowsTheHellosOfOldClients$")
	return []mutant{
		{
			name: "a look mixes a hello with the one before",
			file: file,
			old:  "\tl.hello = policy.Hello{}\n\tif !l.readHello",
			new:  "\tif !l.readHello",
			seen: proxyUnit("^TestLookForgetsTheHelloBefore$"),
		},
		{
			name: "a look keeps half of a hello that it does not understand",
			file: file,
			old:  "\t\tl.hello = policy.Hello{}\n\t\treturn false",
			new:  "\t\treturn false",
			seen: proxyUnit("^TestLookLeavesTheRestToCryptoTLS$/^a byte behind the protocols$"),
		},
		{
			name: "a look takes SSL 3.0 for TLS 1.0",
			file: file,
			old:  "l.hello.Versions = legacyVersions[2:]",
			new:  "l.hello.Versions = legacyVersions[1:2]",
			seen: known,
		},
		{
			name: "a look takes supported_versions for one that is skipped",
			file: file,
			old:  "h.Versions, ok = words(l.versions[:], data.whole8())",
			new:  "_, ok = words(l.versions[:], data.whole8())",
			seen: known,
		},
		{
			name: "a look tells of a name that was sent before",
			file: file,
			old:  "if l.name != string(name) {",
			new:  `if l.name == "" {`,
			seen: proxyUnit("^TestLookForgetsTheHelloBefore$|^TestLookAgreesWithCryptoTLS$|^TestLookLeavesKeptNamesAlone$"),
		},
		{
			name: "a look allocates each name",
			file: file,
			old:  "if l.name != string(name) {",
			new:  "if len(name) > 0 {",
			seen: proxyUnit("^TestLookAllocatesNothingForAHelloItHasSeen$"),
		},
	}
}

// leftMutants understand what is to be left to crypto/tls.
func leftMutants() []mutant {
	const file = "proxy/look.go"
	left := func(name string) check {
		return proxyUnit("^TestLookLeavesTheRestToCryptoTLS$/^" + name + "$")
	}
	return []mutant{
		{
			name: "a look refuses TLS 1.2",
			file: file,
			old:  "case policy.TLS11:",
			new:  "case policy.TLS11, policy.TLS12:",
			seen: left("TLS 1.2"),
		},
		{
			name: "a look refuses TLS 1.2 in supported_versions",
			file: file,
			old:  "return ok && !slices.ContainsFunc(h.Versions, aboveLegacy)",
			new:  "return ok",
			seen: left("TLS 1.2 behind TLS 1.0 in supported_versions"),
		},
		{
			name: "a look overlooks what is pipelined behind a hello",
			file: file,
			old:  "message := b[3:].whole16()",
			new:  "b = b[3:]\n\tmessage, _ := b.vector16()",
			seen: left("a byte behind it"),
		},
		{
			name: "a look takes any message for a hello",
			file: file,
			old:  "message[0] != typeClientHello || ",
			new:  "",
			seen: left("another message"),
		},
		{
			name: "a look understands an extension that comes twice",
			file: file,
			old:  " || slices.Contains(l.hello.Extensions, number) {",
			new:  " {",
			seen: left("a second padding"),
		},
		{
			name: "a look skips every extension that it does not read",
			file: file,
			old:  "return grease(number) || slices.Contains(skippedExtensions, number)",
			new:  "return true",
			seen: proxyUnit("^TestLookAgreesWithCryptoTLS$"),
		},
		{
			name: "a look understands half a suite",
			file: file,
			old:  "n == 0 || len(list)%2 != 0 || ",
			new:  "n == 0 || ",
			seen: left("suites of odd length"),
		},
		{
			name: "a look understands a name with a dot at its end",
			file: file,
			old:  " || name[len(name)-1] == '.' {",
			new:  " {",
			seen: left("a name with a dot at its end"),
		},
		{
			name: "a look runs over where there are too many protocols",
			file: file,
			old:  " || n == len(l.protocols) {",
			new:  " {",
			seen: left("five protocols"),
		},
		{
			name: "a look does not ask for the null method",
			file: file,
			old:  "bytes.IndexByte(compression, 0) < 0",
			new:  "bytes.IndexByte(compression, 0) < -1",
			seen: left("not the null method"),
		},
	}
}
