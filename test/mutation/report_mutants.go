package main

import "slices"

// reportMutants tell people something else than the ledger knows, or let
// strangers speak in it.
func reportMutants() []mutant {
	return slices.Concat(readyMutants(), askingMutants(), tellingPeopleMutants(), replayMutants())
}

// readyMutants say go where it is no-go, or the other way round.
func readyMutants() []mutant {
	unit := func(run string) check { return check{pkg: "internal/report", run: run} }
	command := func(run string) check { return check{pkg: "cmd/postern", run: run} }
	const build = "internal/report/report.go"
	whoIsInTheWay := func(name string) check { return unit("^TestWhoIsInTheWay$/^" + name + "$") }
	return []mutant{
		{
			name: "whoever has an owner is exempted, brownouts too",
			file: build,
			old:  "s.Rule.Exemption() && s.Rule.Mode != policy.Enforce",
			new:  "s.Rule.Exemption()",
			seen: whoIsInTheWay("a_rule_that_refuses_has_an_owner_too"),
		},
		{
			name: "a rule without owner or end is an exemption",
			file: build,
			old:  "s.Rule.Exemption() && s.Rule.Mode",
			new:  "s.Rule.Mode",
			seen: whoIsInTheWay("a_rule_without_an_end"),
		},
		{
			name: "an exemption counts though some connections never come to it",
			file: build,
			old:  "return nil // an earlier rule may have taken it",
			new:  "continue",
			seen: whoIsInTheWay("an_exemption_behind_a_share_of_connections"),
		},
		{
			name: "noise is in the way",
			file: build,
			old:  "noise = append(noise, c)\n\t\t\tcontinue",
			new:  "noise = append(noise, c)",
			seen: whoIsInTheWay("noise_where_nobody_is_known"),
		},
		{
			name: "who has not logged in is in the way",
			file: build,
			old:  "c.counts = c.Login == ledger.LoginOK ||",
			new:  "c.counts = c.Login != ledger.LoginFailed ||",
			seen: whoIsInTheWay("nobody_has_logged_in"),
		},
		{
			name: "nobody is in the way where logins are not kept",
			file: build,
			old:  "|| !keepsNames(f.Identity)",
			new:  "&& keepsNames(f.Identity)",
			seen: whoIsInTheWay("logins_are_not_kept"),
		},
		{
			name: "as many as may be left are too many",
			file: build,
			old:  "j.Ready = j.Remaining <= max",
			new:  "j.Ready = j.Remaining == 0 || j.Remaining < max",
			seen: command("^TestReadyIsAnExitCode$"),
		},
		{
			name: "addresses of one IPv6 network are several clients",
			file: build,
			old:  "func (n networks) add(c row) { n[c.Network] = true }",
			new:  "func (n networks) add(c row) { n[c.Addr.String()] = true }",
			seen: whoIsInTheWay("an_IPv6_network_is_one_client"),
		},
		{
			name: "no-go is an exit code of 0",
			file: "cmd/postern/report.go",
			old:  "if f.ready && !r.Readiness.Ready {",
			new:  "if f.ready && !r.Readiness.Ready && format != report.JSON {",
			seen: command("^TestReadyIsAnExitCode$"),
		},
	}
}

// askingMutants ask the wrong one, or tell it too much.
func askingMutants() []mutant {
	command := func(run string) check { return check{pkg: "cmd/postern", run: run} }
	const asks = "cmd/postern/instance.go"
	return []mutant{
		{
			name: "an account's hash stays when the account is forgotten",
			file: "cmd/postern/report.go",
			old:  "names = append(names, ledger.HashAccount(key, f.forget))",
			new:  "names = []string{f.forget}",
			seen: command("^TestAHashedReportIsResolvedAndForgotten$"),
		},
		{
			name: "forgetting makes a ledger where there is none",
			file: "cmd/postern/report.go",
			old:  "there, err := ledger.OpenReadOnly(ctx, cfg.LedgerURL)",
			new:  "there, err := ledger.Open(ctx, cfg.LedgerURL)",
			seen: command("^TestWhatAReportCannotAnswer$"),
		},
		{
			name: "the token goes to whoever has the port",
			file: asks,
			old:  "if bytes.Equal(s.PeerCertificates[0].RawSubjectPublicKeyInfo, own.RawSubjectPublicKeyInfo) {",
			new:  "if len(s.PeerCertificates) > 0 || bytes.Equal(nil, own.Raw) {",
			seen: command("^TestTheTokenGoesToTheGateAlone$"),
		},
		{
			name: "the token follows a redirection",
			file: asks,
			old:  "return http.ErrUseLastResponse // the token goes nowhere else",
			new:  "return nil",
			seen: command("^TestWhatAnInstanceRefusesSaysWhatToDo$"),
		},
		{
			name: "a gate that refuses to answer is passed over for its store",
			file: "cmd/postern/report.go",
			old:  "if from != \"\" || !notRunning(err) {",
			new:  "if from != \"\" {",
			seen: command("^TestWhatAnInstanceRefusesSaysWhatToDo$"),
		},
		{
			name: "of many clients of a gate only the first page is asked for",
			file: asks,
			old:  `if page.NextCursor == "" ||`,
			new:  `if page.NextCursor == "" || len(all) > 0 ||`,
			seen: command("^TestAReplayAsksTheRunningGate$"),
		},
	}
}

// tellingPeopleMutants let strangers speak in the report.
func tellingPeopleMutants() []mutant {
	unit := func(run string) check { return check{pkg: "internal/report", run: run} }
	const people, group = "internal/report/formats.go", "internal/report/group.go"
	return []mutant{
		{
			name: "a formula stays one",
			file: people,
			old:  `strings.ContainsRune("=+-@\t\r", rune(s[0]))`,
			new:  `strings.ContainsRune("=+@\t\r", rune(s[0]))`,
			seen: unit("^TestFormulasAreText$"),
		},
		{
			name: "a bar in a name is a cell more",
			file: people,
			old:  "\"|\", \"¦\", ",
			new:  "",
			seen: unit("^TestForgedTextDoesNoHarm$"),
		},
		{
			name: "a backquote in a name ends it",
			file: people,
			old:  "\"`\", \"'\", ",
			new:  "",
			seen: unit("^TestForgedTextDoesNoHarm$"),
		},
		{
			name: "what turns the direction of writing is told",
			file: group,
			old:  "if !unicode.IsPrint(r) {",
			new:  "if unicode.IsControl(r) {",
			seen: unit("^TestForgedTextDoesNoHarm$"),
		},
		{
			name: "a name has no end",
			file: group,
			old:  `return clip(strings.Join(strings.Fields(s), " "), maxText)`,
			new:  `return strings.Join(strings.Fields(s), " ")`,
			seen: unit("^TestLongTextIsCut$"),
		},
	}
}

// replayMutants judge a client by what it has not said.
func replayMutants() []mutant {
	unit := func(run string) check { return check{pkg: "internal/report", run: run} }
	const replay = "internal/report/replay.go"
	return []mutant{
		{
			name: "a fingerprint of a rule is made anew from half a hello",
			file: replay,
			old:  "for _, s := range t.Policy.Explain(asked(c), t.At) {",
			new:  "known := asked(c)\n\tknown.JA4 = \"\"\n\tfor _, s := range t.Policy.Explain(known, t.At) {",
			seen: unit("^TestWhatAnotherPolicyDoes$"),
		},
		{
			name: "who can be told nothing is told",
			file: replay,
			old:  "case mode == policy.Explain && v.Serve == policy.Observe:",
			new:  "case mode == policy.Explain:",
			seen: unit("^TestWhatAnotherPolicyDoes$"),
		},
		{
			name: "whose hello is not kept is refused",
			file: replay,
			old:  "\t\treturn Unknown, \"\"\n",
			new:  "\t\treturn Refused, \"\"\n",
			seen: unit("^TestWhatAnotherPolicyDoes$"),
		},
		{
			name: "a replay is about the last beginning, not the last end",
			file: replay,
			old:  "[]time.Time{r.From, r.Until}",
			new:  "[]time.Time{r.From, r.From}",
			seen: unit("^TestAReplayIsAfterTheLastDate$"),
		},
	}
}
