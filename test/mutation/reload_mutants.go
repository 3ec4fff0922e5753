package main

import "slices"

func policies(run string) check { return check{pkg: "test/policy", run: run} }

func metricsUnit(run string) check { return check{pkg: "metrics", run: run} }

// reloadMutants break what a policy file does: that it is taken over or kept,
// that its rules come by the clock, whom they take, and what is told of them.
func reloadMutants() []mutant {
	return slices.Concat(takeOverMutants(), clockMutants(), takerMutants(), policyMetricMutants())
}

// takeOverMutants keep the policy that is to go, or lose the one that is to
// stay.
func takeOverMutants() []mutant {
	const file = "cmd/postern/policy.go"
	configMap := policies("^TestAPolicyFromAConfigMapTakesOver$")
	return []mutant{
		{
			name: "another policy is not for the next hello",
			file: "proxy/tls.go",
			old:  "\tsrv.tls.policy = p\n\tsrv.rebuild()\n",
			new:  "\tsrv.tls.policy = p\n",
			seen: proxyUnit("^TestAnotherPolicyIsForTheNextHello$"),
		},
		{
			name: "another policy keeps the floor of the last one",
			file: "proxy/tls.go",
			old:  "\tsrv.tls.policy = p\n\tsrv.rebuild()\n",
			new: "\tsrv.tls.policy = p\n\tstrict := srv.tls.regime.Load().strict\n\tsrv.rebuild()\n" +
				"\tsrv.tls.regime.Load().strict = strict\n",
			seen: proxyUnit("^TestAnotherPolicyIsForTheNextHello$"),
		},
		{
			name: "a bad policy file empties the policy",
			file: file,
			old:  "\t\tg.metrics.PolicyReloadFailed()\n",
			new:  "\t\tg.metrics.PolicyReloadFailed()\n\t\tg.server.SetPolicy(policy.New(policy.FloorTLS12, policy.Enforce))\n",
			seen: configMap,
		},
		{
			name: "a policy file is looked at too seldom",
			file: file,
			old:  "const policyEvery = 500 * time.Millisecond",
			new:  "const policyEvery = 2 * time.Second",
			seen: policies("^TestAnotherModeTakesOverWithinTwoSeconds$"),
		},
		{
			name: "a signal does not have the policy read again",
			file: "cmd/postern/serve.go",
			old:  "\t\t\tg.policyFiles.Trigger()\n",
			new:  "",
			seen: policies("^TestASignalHasThePolicyReadAgain$"),
		},
		{
			name: "a bad file is complained of at every look",
			file: "internal/watch/watch.go",
			old:  "if err := s.reload(); noDescriptors(err) {",
			new:  "if err := s.reload(); err != nil {",
			seen: check{pkg: "internal/watch", run: "^TestAFailedReadIsTriedAgainAtTheNextChange$"},
		},
		{
			name: "only the first problem of a policy is said",
			file: "internal/policyfile/policyfile.go",
			old:  "\t\treturn nil, lines\n",
			new:  "\t\treturn nil, lines[:1]\n",
			seen: policies("^TestABadPolicyStopsTheStart$/^many problems$"),
		},
		{
			name: "a mode beside the policy file is taken",
			file: "internal/config/config.go",
			old:  `[]string{Prefix + "POLICY_MODE", Prefix + "POLICY_FLOOR"}`,
			new:  `[]string{Prefix + "POLICY_FLOOR"}`,
			seen: check{pkg: "internal/config", run: "^TestThePolicyIsSaidInOnePlace$"},
		},
	}
}

// clockMutants let a rule begin or end at another time than it says.
func clockMutants() []mutant {
	const file = "proxy/tls.go"
	byTheClock := proxyUnit("^TestRulesComeAndGoByTheClock$")
	return []mutant{
		{
			name: "what was in force stays so until the next reload",
			file: file,
			old:  "\tif r := srv.tls.regime.Load(); r.snapshot.Valid(now) {\n\t\treturn r, now",
			new:  "\tif r := srv.tls.regime.Load(); r != nil {\n\t\treturn r, now",
			seen: byTheClock,
		},
		{
			name: "the lenient configuration outlives the last rule that needs it",
			file: file,
			old:  "if r.policy.MayServeLegacy(now) != (len(r.lenient) > 0) {",
			new:  "if r.policy.MayServeLegacy(now) && len(r.lenient) == 0 {",
			seen: byTheClock,
		},
		{
			name: "modes in metrics are those of the start",
			file: "metrics/policy.go",
			old:  "\tsnapshot := p.At(t)\n\tfor _, l",
			new:  "\tsnapshot := p.At(time.Time{})\n\tfor _, l",
			seen: metricsUnit("^TestModeAndShareFollowTheClock$"),
		},
		{
			name: "rules that come and go are not logged",
			file: "cmd/postern/policy.go",
			old:  "\t\tif p == told {\n",
			new:  "\t\tif p != told {\n",
			seen: policies("^TestRulesComeAndGoWithoutTraffic$"),
		},
	}
}

// takerMutants let rules take whom they should not.
func takerMutants() []mutant {
	const file = "policy/share.go"
	everywhere := policies("^TestAShareTakesTheSameClientsEverywhere$")
	first := policies("^TestTheFirstRuleThatMatchesDecides$")
	return []mutant{
		{
			name: "a share of clients throws dice",
			file: file,
			old:  "\tif !s.Connection {\n",
			new:  "\tif s.Connection {\n",
			seen: everywhere,
		},
		{
			name: "a share tells the addresses of one IPv6 network apart",
			file: file,
			old:  "binary.BigEndian.Uint64(b[:8])\n}",
			new:  "binary.BigEndian.Uint64(b[8:])\n}",
			seen: everywhere,
		},
		{
			name: "a rule for a name goes by upper and lower case",
			file: "policy/compile.go",
			old:  "lower[i] = c + 'a' - 'A'",
			new:  "lower[i] = c",
			seen: first,
		},
		{
			name: "a rule for a port takes every port",
			file: "policy/compile.go",
			old:  "\tset.and(t.ports.get(at.Port))\n",
			new:  "",
			seen: first,
		},
		{
			name: "a rule by a fingerprint takes every client",
			file: "policy/decide.go",
			old:  "\t\t\tset.and(ja4)\n\t\t\tif !ja4.has(i) {",
			new:  "\t\t\t_ = ja4\n\t\t\tif false {",
			seen: policies("^TestAFingerprintFromTheLogIsARule$"),
		},
		{
			name: "candidates are applied",
			file: "policy/decide.go",
			old:  "\t\t\tv.judged[f] = f.judge(h, at.Keys)\n",
			new: "\t\t\tv.judged[f] = f.judge(h, at.Keys)\n" +
				"\t\t\tif v.Reason == NotLegacy {\n\t\t\t\tv.Reason = v.judged[f]\n\t\t\t}\n",
			seen: metricsUnit("^TestRulesAndCandidatesAreCounted$"),
		},
	}
}

// policyMetricMutants tell of a policy what it is not.
func policyMetricMutants() []mutant {
	const file = "metrics/policy.go"
	clock := metricsUnit("^TestModeAndShareFollowTheClock$")
	return []mutant{
		{
			name: "the rule is missing in the log",
			file: "internal/logging/observer.go",
			old:  `"rule", h.Verdict.Rule,`,
			new:  `"rule", "",`,
			seen: policies("^TestAFingerprintFromTheLogIsARule$"),
		},
		{
			name: "the mode in metrics is the same on every listener",
			file: file,
			old:  "snapshot.ModeFor(string(l))",
			new:  "snapshot.ModeFor(string(s.listeners[0]))",
			seen: clock,
		},
		{
			name: "a rule with a share counts as the mode of a listener",
			file: "policy/policy.go",
			old:  "if r.Share == nil && (r.Match == nil",
			new:  "if (r.Match == nil",
			seen: clock,
		},
		{
			name: "a reload begins the counts of a rule anew",
			file: file,
			old:  "\t\tif next.matches[r.Name] == nil {\n",
			new:  "\t\tif next.matches[r.Name] != nil {\n",
			seen: metricsUnit("^TestAnotherPolicyHasItsOwnSeries$"),
		},
		{
			name: "a failed reload is not counted",
			file: "cmd/postern/policy.go",
			old:  "\t\tg.metrics.PolicyReloadFailed()\n",
			new:  "",
			seen: policies("^TestAPolicyFromAConfigMapTakesOver$"),
		},
		{
			name: "a candidate counts only those that it lets in",
			file: file,
			old:  "reason != policy.NotLegacy {",
			new:  "reason == policy.NotLegacy {",
			seen: metricsUnit("^TestRulesAndCandidatesAreCounted$"),
		},
	}
}
