package main

// storyMutants make something else of a deprecation than its policy file says.
// Each is seen by clients that come on the dates of the files in
// deploy/rehearsal.
func storyMutants() []mutant {
	growing := check{pkg: "cmd/postern", run: "^TestStoryOfAGrowingShare$"}
	brownouts := check{pkg: "cmd/postern", run: "^TestStoryOfBrownouts$"}
	return []mutant{
		{
			name: "brownouts go by UTC, whatever their time zone",
			file: "policy/parse.go",
			old:  "ParseSchedule(r.cron, r.Zone, r.open)",
			new:  "ParseSchedule(r.cron, time.UTC, r.open)",
			seen: brownouts,
		},
		{
			name: "a rule is still in force at the moment of its end",
			file: "policy/rule.go",
			old:  "return !t.Before(r.From) && (r.Until.IsZero() || t.Before(r.Until))",
			new:  "return !t.Before(r.From) && (r.Until.IsZero() || !t.After(r.Until))",
			seen: growing,
		},
		{
			name: "the offset in a date is left out",
			file: "policy/parse.go",
			old:  "\tt = t.UTC()\n",
			new:  "\t_, offset := t.Zone()\n\tt = t.Add(time.Duration(offset) * time.Second).UTC()\n",
			seen: growing,
		},
		{
			name: "a port of its own is open to everybody's clients",
			file: "policy/compile.go",
			old:  "\tset.and(t.ports.get(at.Port))\n",
			new:  "",
			seen: growing,
		},
		{
			name: "who is told why changes with each connection",
			file: "policy/share.go",
			old:  "\tif !s.Connection {\n\t\tx = clientKey(client)",
			new:  "\tif !s.Connection && dice == 0 {\n\t\tx = clientKey(client)",
			seen: growing,
		},
		{
			name: "a changed policy file is read but not put in force",
			file: "cmd/postern/policy.go",
			old:  "\tg.server.SetPolicy(p)\n",
			new:  "",
			seen: growing,
		},
		{
			name: "the metric of the mode goes by another clock than the policy",
			file: "metrics/policy.go",
			old:  "p, t := s.inUse.Load().policy, s.now()",
			new:  "p, t := s.inUse.Load().policy, time.Now()",
			seen: brownouts,
		},
		{
			name: "the counters of rules that are gone stay",
			file: "metrics/policy.go",
			old:  "s.matches.DeleteLabelValues(r.Name)",
			new:  "_ = r.Name",
			seen: brownouts,
		},
		{
			name: "rules that come and go by their dates are not logged",
			file: "cmd/postern/policy.go",
			old:  "\t\tif p == told {\n\t\t\tg.tellChange(&last, &snapshot)\n\t\t}\n",
			new:  "",
			seen: brownouts,
		},
	}
}
