package main

// planMutants tell people something else than the policy does.
func planMutants() []mutant {
	policyUnit := func(run string) check { return check{pkg: "policy", run: run} }
	return []mutant{
		{
			name: "a day on which the clocks change has as many windows as others",
			file: "policy/windows.go",
			old:  "midnight(end) && end.Sub(t) == 24*time.Hour &&",
			new:  "midnight(end) &&",
			seen: policyUnit("^TestWindowsAreCountedAsTheyOpen$"),
		},
		{
			name: "a window that opens now is told twice",
			file: "policy/windows.go",
			old:  "w.Open = !w.First.Equal(from) && s.running(from)",
			new:  "w.Open = s.running(from)",
			seen: policyUnit("^TestAWindowThatIsOpenAtTheBeginning$"),
		},
		{
			name: "what a schedule takes at times is lacking all the time",
			file: "policy/timeline.go",
			old:  "if r.Schedule == nil {\n\t\t\tleft -= part\n\t\t}",
			new:  "left -= part",
			seen: check{pkg: "cmd/postern", run: "^TestThePlanThatPeopleRead$/^milder$"},
		},
		{
			name: "a gap between a ramp and the cut-over goes unnoticed",
			file: "policy/milder.go",
			old:  "r.Until.IsZero() || !r.Until.Before(t)",
			new:  "r.Until.IsZero() || r.Until.After(t)",
			seen: policyUnit("^TestWhereAPolicyBecomesMilder$"),
		},
		{
			name: "the end of brownouts counts as milder",
			file: "policy/milder.go",
			old:  "if r.Schedule != nil || !inForce {",
			new:  "if !inForce {",
			seen: policyUnit("^TestWhereAPolicyBecomesMilder$"),
		},
		{
			name: "a share that shrinks goes unnoticed",
			file: "policy/milder.go",
			old:  "return r.Share.Changes() && r.within(edge)",
			new:  "return r.Share.Changes() && r.Share.From < r.Share.To && r.within(edge)",
			seen: policyUnit("^TestWhereAPolicyBecomesMilder$"),
		},
		{
			name: "rules behind the one that decides are explained as if they were asked",
			file: "policy/explain.go",
			old:  "taken = s.Answer == Takes",
			new:  "taken = s.Answer == Takes && s.Rule.Share == nil",
			seen: policyUnit("^TestAnExplanationAgreesWithDecide$"),
		},
		{
			name: "a rule without its window is explained as the one that decides",
			file: "policy/explain.go",
			old:  "case !r.InForce(t):",
			new:  "case !r.within(t):",
			seen: policyUnit("^TestAnExplanationAgreesWithDecide$"),
		},
		{
			name: "a file to look at is mixed with the policy of the environment",
			file: "cmd/postern/plan.go",
			old:  "return strings.HasPrefix(entry, config.Prefix+\"POLICY_\")",
			new:  "return strings.HasPrefix(entry, config.Prefix+\"POLICY_FILE\")",
			seen: check{pkg: "cmd/postern", run: "^TestThePlanThatPeopleRead$/^milder$"},
		},
		{
			name: "POLICY_MODE beside POLICY_FILE is passed over",
			file: "internal/config/config.go",
			old:  "for _, name := range []string{Prefix + \"POLICY_MODE\", Prefix + \"POLICY_FLOOR\"} {",
			new:  "for _, name := range []string{Prefix + \"POLICY_FLOOR\"} {",
			seen: check{pkg: "internal/config", run: "^TestThePolicyIsSaidInOnePlace$"},
		},
		{
			name: "in FIPS mode it depends on the date whether a policy file is refused",
			file: "internal/policyfile/policyfile.go",
			old:  "p.MayServeLegacy(time.Time{})",
			new:  "p.MayServeLegacy(time.Now())",
			seen: check{pkg: "internal/policyfile", run: "^TestFIPSModeRefusesAFileThatMayServeLegacy$"},
		},
	}
}
