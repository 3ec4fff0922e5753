package main

func adminUnit(run string) check { return check{pkg: "internal/admin", run: run} }

// adminMutants let somebody ask the admin port who may not.
func adminMutants() []mutant {
	const access, token = "internal/admin/access.go", "internal/admin/token.go"
	return []mutant{
		{
			name: "the API answers a web page whose name points to this host",
			file: access,
			old:  "if !ownHost(r.Host) && !a.named(r.Host) {",
			new:  "if false {",
			seen: adminUnit("^TestTheAPIAnswersUnderNamesOfThisHostAlone$"),
		},
		{
			name: "an empty Host is the host of ADMIN_LISTEN",
			file: access,
			old:  `return a.host != "" && hostName(host) == a.host`,
			new:  `return hostName(host) == a.host`,
			seen: adminUnit("^TestOffLoopbackTheTokenIsNeeded$"),
		},
		{
			name: "off loopback the API answers without the token",
			file: access,
			old:  "\t\tif a.loopback {\n",
			new:  "\t\tif true {\n",
			seen: adminUnit("^TestOffLoopbackTheTokenIsNeeded$"),
		},
		{
			name: "off loopback the API is there without a token set",
			file: access,
			old:  "return a.token == nil && !a.loopback",
			new:  "return false",
			seen: adminUnit("^TestOffLoopbackTheTokenIsNeeded$"),
		},
		{
			name: "the address of every interface is taken for loopback",
			file: "internal/config/config.go",
			old:  "return err == nil && ip.Unmap().IsLoopback() ||",
			new:  "return err == nil && (ip.Unmap().IsLoopback() || ip.IsUnspecified()) ||",
			seen: check{pkg: "internal/config", run: "^TestOnlyLoopbackIsLoopback$"},
		},
		{
			name: "on loopback a wrong token is as good as none",
			file: access,
			old:  "\tcase !right:\n",
			new:  "\tcase !right && !a.loopback:\n",
			seen: adminUnit("^TestWaysToGiveTheToken$"),
		},
		{
			name: "the right token lets in while its address has to wait",
			file: access,
			old:  "\tcase wait > 0:\n",
			new:  "\tcase wait > 0 && !right:\n",
			seen: adminUnit("^TestTenWrongTokensAMinuteAndNoMore$"),
		},
		{
			name: "a missing token counts as a wrong one",
			file: access,
			old:  `clientKey(peer), given != "" && !right, a.now()`,
			new:  `clientKey(peer), !right, a.now()`,
			seen: adminUnit("^TestWaysToGiveTheToken$"),
		},
		{
			name: "guesses from a new address have no end when memory is full",
			file: access,
			old:  "\treturn netip.Addr{}\n}",
			new:  "\tclear(g.wrong)\n\treturn client\n}",
			seen: adminUnit("^TestManyAddressesAreRememberedInBoundedMemory$"),
		},
		{
			name: "a forwarding header says who guesses",
			file: access,
			old:  "\tpeer, _ := netip.ParseAddrPort(r.RemoteAddr)\n",
			new: "\tif a, err := netip.ParseAddr(r.Header.Get(\"X-Forwarded-For\")); err == nil {\n\t\treturn a\n\t}\n" +
				"\tpeer, _ := netip.ParseAddrPort(r.RemoteAddr)\n",
			seen: adminUnit("^TestGuessesAreCountedByConnection$"),
		},
		{
			name: "the user name of basic auth is taken for the token",
			file: token,
			old:  "if _, password, ok := r.BasicAuth(); ok {",
			new:  "if password, _, ok := r.BasicAuth(); ok {",
			seen: adminUnit("^TestWaysToGiveTheToken$"),
		},
		{
			name: "the error of a token file shows the token",
			file: token,
			old:  `errors.New("the token is not one line of printable ASCII without blanks")`,
			new:  `errors.New("the token is not one line of printable ASCII without blanks: " + string(text))`,
			seen: adminUnit("^TestWhatATokenFileMayHold$"),
		},
		{
			name: "a broken token file takes the token away",
			file: "cmd/postern/reload.go",
			old:  "\tif err == nil {\n\t\tg.adminToken.Store(token)\n\t}\n",
			new:  "\tg.adminToken.Store(token)\n",
			seen: check{pkg: "test/reload", run: "^TestTheAdminTokenIsReadAgain$"},
		},
	}
}
