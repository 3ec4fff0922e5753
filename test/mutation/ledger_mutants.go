package main

// ledgerMutants forget clients, invent some, or tell what is not to be told.
func ledgerMutants() []mutant { return append(writingMutants(), keepingMutants()...) }

// writingMutants forget clients, or take the wrong ones for noise.
func writingMutants() []mutant {
	ledger := func(run string) check { return check{pkg: "internal/ledger", run: run} }
	return []mutant{
		{
			name: "what was seen while a batch was written is lost",
			file: "internal/ledger/entries.go",
			old:  "e.counts.add(Counts{-w.counts.Observed, -w.counts.Explained, -w.counts.Rejected, -w.counts.Failed})",
			new:  "e.counts = Counts{}",
			seen: ledger("^TestWhatIsSeenDuringAWriteIsWrittenNext$"),
		},
		{
			name: "a batch that could not be written is taken for written",
			file: "internal/ledger/recorder.go",
			old:  "\tif err == nil {\n\t\tr.settle(b)",
			new:  "\tif r.settle(b); err == nil {",
			seen: ledger("^TestWhatWaitsIsBounded$"),
		},
		{
			name: "clients are kept without bound while the database is away",
			file: "internal/ledger/entries.go",
			old:  "maxPending = 100_000",
			new:  "maxPending = 120_000",
			seen: ledger("^TestWhatWaitsIsBounded$"),
		},
		{
			name: "an erased row that is seen again stays away",
			file: "internal/ledger/write.go",
			old:  "r.counts.Failed, r.id) == 0 {",
			new:  "r.counts.Failed, r.id) < 0 {",
			seen: ledger("^TestAClientThatWasPrunedComesBack$"),
		},
		{
			name: "an office that comes back after a restart is a scanner",
			file: "internal/ledger/write.go",
			old:  "if first := w.firstSeen(a); burst(first) {",
			new:  "if first := w.firstSeen(a); len(first) >= burstHellos {",
			seen: ledger("^TestAnOfficeIsNoNoise$/^memory$"),
		},
		{
			name: "a login does not clear a scanner",
			file: "internal/ledger/write.go",
			old:  "\t\tif l.ok > 0 {\n\t\t\tclear.exec(l.client.String())\n\t\t}\n",
			new:  "\t\tif l.ok < 0 {\n\t\t\tclear.exec(l.client.String())\n\t\t}\n",
			seen: ledger("^TestWhereSomebodyHasLoggedInIsNoScanner$/^memory$"),
		},
		{
			name: "who guesses passwords is among the clients left",
			file: "internal/ledger/noise.go",
			old:  "s.last_seen - s.first_seen < 259200 OR s.login_failed > 0)",
			new:  "s.last_seen - s.first_seen < 259200)",
			seen: ledger("^TestWhoOnlyEverFailedToLogInIsNoise$/^memory$"),
		},
		{
			name: "random hellos fill the database",
			file: "internal/ledger/entries.go",
			old:  "maxWays          = 64",
			new:  "maxWays          = 1 << 20",
			seen: ledger("^TestRandomHellosFillNoDatabase$/^memory$"),
		},
	}
}

// keepingMutants keep what is not to be kept, or lose what is.
func keepingMutants() []mutant {
	ledger := func(run string) check { return check{pkg: "internal/ledger", run: run} }
	return []mutant{
		{
			name: "each address of an IPv6 network is a client of its own",
			file: "internal/ledger/write.go",
			old:  "return int64(binary.BigEndian.Uint64(b[:8]))",
			new:  "return int64(binary.BigEndian.Uint64(b[8:]))",
			seen: ledger("^TestDistinctClients$/^memory$"),
		},
		{
			name: "one of several accounts is named",
			file: "internal/ledger/names.go",
			old:  "if h.AccountsKnown != 1 {",
			new:  "if h.AccountsKnown == 0 {",
			seen: ledger("^TestOneOfSeveralAccountsIsNotNamed$/^memory$"),
		},
		{
			name: "accounts are kept though identity is off",
			file: "internal/ledger/recorder.go",
			old:  "if r.identity == nil {\n\t\treturn nil\n\t}",
			new:  "",
			seen: ledger("^TestWithoutIdentityNobodyIsNamed$/^memory$"),
		},
		{
			name: "a forgotten account comes back with the next batch",
			file: "internal/ledger/names.go",
			old:  "if k.client == client || account(k.account) {",
			new:  "if k.client == client {",
			seen: ledger("^TestAForgottenAccountIsGoneEverywhere$/^memory$"),
		},
		{
			name: "a client that moves up is missing from the pages",
			file: "internal/ledger/read.go",
			old:  "\" ORDER BY s.added, s.id\"",
			new:  "\" ORDER BY s.last_seen, s.id\"",
			seen: ledger("^TestClientsAreListedAsTheyWereFirstSeen$/^memory$"),
		},
		{
			name: "a commit whose answer is lost is written twice",
			file: "internal/ledger/write.go",
			old:  "arrived = last == number",
			new:  "arrived = last > number",
			seen: ledger("^TestACommitInDoubtIsAskedFor$/^memory$"),
		},
		{
			name: "terminal escapes in a program's name are kept",
			file: "internal/ledger/names.go",
			old:  "if unicode.IsControl(r) || ",
			new:  "if ",
			seen: ledger("^TestCleanText$"),
		},
		{
			name: "a newer ledger is written by an older program",
			file: "internal/ledger/schema.go",
			old:  "case version > len(migrations):\n\t\t\treturn errNewer",
			new:  "case version > len(migrations):\n\t\t\treturn nil",
			seen: ledger("^TestAnOlderLedgerIsBroughtUp$/^sqlite$"),
		},
	}
}
