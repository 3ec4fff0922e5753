package main

// tellingMutants break metrics, log, configuration, readiness and the choice
// of a certificate.
func tellingMutants() []mutant {
	return append(append(metricsMutants(), logMutants()...), []mutant{
		{
			name: "an unknown POSTERN_ variable is accepted",
			file: "internal/config/load.go",
			old:  "\t\tl.add(name, problem)\n\t}\n}\n\nfunc (l *loader) known(",
			new:  "\t\t_ = problem\n\t}\n}\n\nfunc (l *loader) known(",
			seen: check{pkg: "internal/config", run: "^TestABadValueIsOneLineThatNamesTheVariable$"},
		},
		{
			name: "a secret under a mistyped name is echoed",
			file: "internal/config/load.go",
			old:  "\t\tproblem := \"unknown variable\"\n",
			new:  "\t\tproblem := \"unknown variable \" + l.given[name]\n",
			seen: check{pkg: "internal/config", run: "^TestABadValueIsOneLineThatNamesTheVariable$"},
		},
		{
			name: "ready while draining",
			file: "internal/admin/readiness.go",
			old:  `condition("draining", !r.draining, "no", "yes")`,
			new:  `condition("draining", true, "no", "yes")`,
			seen: check{pkg: "internal/admin", run: "^TestReadyOnlyWhenEverythingIs$"},
		},
		{
			name: "a server name in capitals gets the default certificate",
			file: "internal/certs/certs.go",
			old:  "name := strings.ToLower(serverName)",
			new:  "name := strings.Clone(serverName)",
			seen: check{pkg: "internal/certs", run: "^TestLookup$"},
		},
	}...)
}

func metricsMutants() []mutant {
	moves := func(event string) check {
		return check{pkg: "metrics", run: "^TestEveryEventMovesItsSeriesAlone$/^" + event + "$"}
	}
	return []mutant{
		{
			name: "connections_open is never counted down",
			file: "metrics/metrics.go",
			old:  "\t\tl.open.add(-1, l.index)\n",
			new:  "\t\t_ = l.open\n",
			seen: moves("closed"),
		},
		{
			name: "a legacy handshake is counted twice",
			file: "metrics/series.go",
			old:  "l.legacy.add(1, ",
			new:  "l.legacy.add(2, ",
			seen: moves("rejected"),
		},
		{
			name: "a failure without a reason is lost",
			file: "metrics/series.go",
			old:  "\t\t\tfailure = proxy.FailOther\n",
			new:  "\t\t\tfailure = proxy.NoFailure\n",
			seen: moves("failed for no reason told"),
		},
		{
			name: "relayed bytes are counted as reads",
			file: "metrics/metrics.go",
			old:  "l.relayed.add(n, ",
			new:  "l.relayed.add(min(n, 1), ",
			seen: moves("relayed"),
		},
		{
			name: "a handshake is counted under the version that was negotiated",
			file: "metrics/series.go",
			old:  "version := h.Verdict.Version",
			new:  "version := h.Version",
			seen: moves("resumed"),
		},
	}
}

func logMutants() []mutant {
	fold := func(run string) check { return check{pkg: "internal/logging", run: run} }
	return []mutant{
		{
			name: "the line of a legacy handshake is missing",
			file: "internal/logging/observer.go",
			old:  "o.Log.Info(LegacyHandshake, attrs...)",
			new:  "o.Log.Debug(LegacyHandshake, attrs...)",
			seen: refusal("TLS 1.0"),
		},
		{
			name: "the line of a legacy handshake leaves the cipher suites out",
			file: "internal/logging/observer.go",
			old:  `"cipher_suites", h.Hello.CipherSuiteNames()`,
			new:  `"cipher_suites", h.Hello.CipherSuiteNames()[:0]`,
			seen: refusal("TLS 1.0"),
		},
		{
			name: "JA4 does not sort the extensions",
			file: "policy/ja4.go",
			old:  "\tslices.Sort(kept)\n",
			new:  "",
			seen: handshakes("^TestJA4OfPublishedClients$"),
		},
		{
			name: "one client fills the log",
			file: "internal/logging/fold.go",
			old:  "linesPerClient = 20",
			new:  "linesPerClient = 200",
			seen: fold("^TestTwentyLinesOfAClientThenOneAtTheMinutesEnd$"),
		},
		{
			name: "the line at the minute's end is lost",
			file: "internal/logging/fold.go",
			old:  "\t\t\tdue = append(due, c)\n\t\t}\n\t\tf.remove(c)\n",
			new:  "\t\t\tdue = append(due[:0], due...)\n\t\t}\n\t\tf.remove(c)\n",
			seen: fold("^TestTwentyLinesOfAClientThenOneAtTheMinutesEnd$"),
		},
		{
			name: "lines over a thousand a second are not counted",
			file: "internal/logging/fold.go",
			old:  "\tif lost {\n\t\tf.suppressedTotal(1)\n",
			new:  "\tif lost {\n\t\tf.suppressedTotal(0)\n",
			seen: fold("^TestAThousandLinesASecondTheRestCounted$"),
		},
		{
			name: "a stuck stderr stops the gate",
			file: "internal/logging/writer.go",
			old:  "\tcase q.lines <- append([]byte(nil), line...):\n\tdefault:\n\t\tq.dropped.Add(1)\n",
			new:  "\tcase q.lines <- append([]byte(nil), line...):\n",
			seen: fold("^TestAStuckStderrDelaysNobody$"),
		},
	}
}
