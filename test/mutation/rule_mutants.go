package main

import "slices"

func rules(run string) check { return check{pkg: "policy", run: run} }

// ruleMutants have the wrong rule decide, or at the wrong time.
func ruleMutants() []mutant {
	return slices.Concat(matchMutants(), forceMutants(), scheduleMutants(), shareMutants(), policyFileMutants())
}

// matchMutants have the wrong rule decide.
func matchMutants() []mutant {
	const compile, rule = "policy/compile.go", "policy/rule.go"
	life := rules("^TestTheExamplePolicyThroughItsLife$")
	return []mutant{
		{
			name: "a rule is still in force at its until",
			file: rule,
			old:  "return !t.Before(r.From) && (r.Until.IsZero() || t.Before(r.Until))",
			new:  "return !t.Before(r.From) && (r.Until.IsZero() || !t.After(r.Until))",
			seen: life,
		},
		{
			name: "a rule is not yet in force at its from",
			file: rule,
			old:  "return !t.Before(r.From) && (",
			new:  "return t.After(r.From) && (",
			seen: life,
		},
		{
			name: "the last rule that matches decides",
			file: compile,
			old:  "\tfor i := range s {\n\t\tif s[i] != 0 {\n\t\t\tn := bits.TrailingZeros64(s[i])",
			new:  "\tfor i := range s {\n\t\tif s[i] != 0 {\n\t\t\tn := bits.Len64(s[i]) - 1",
			seen: rules("^TestTheFirstRuleThatMatchesDecides$"),
		},
		{
			name: "a wildcard takes two labels",
			file: compile,
			old:  "if c == '.' && dot < 0 {",
			new:  "if c == '.' && (dot < 0 || t.wildcards[string(lower[dot+1:n])] == nil) {",
			seen: rules("^TestAWildcardIsOneLabel$"),
		},
		{
			name: "a wildcard takes the name itself",
			file: compile,
			old:  "\tif dot > 0 {\n",
			new:  "\tif wild, ok := t.wildcards[string(lower[:n])]; ok {\n\t\tfound.or(wild)\n\t}\n\tif dot > 0 {\n",
			seen: rules("^TestAWildcardIsOneLabel$"),
		},
		{
			name: "a server name in capitals is another one",
			file: compile,
			old:  "\t\t\tlower[i] = c + 'a' - 'A'\n",
			new:  "\t\t\tlower[i] = c\n",
			seen: life,
		},
		{
			name: "an IPv4-mapped client is in no network",
			file: compile,
			old:  "t.clients.Lookup(client.Unmap().WithZone(\"\"))",
			new:  "t.clients.Lookup(client.WithZone(\"\"))",
			seen: life,
		},
		{
			name: "a nested network forgets the rules of those around it",
			file: compile,
			old:  "\t\tfor bits := range p.Bits() {",
			new:  "\t\tfor bits := range 0 * p.Bits() {",
			seen: rules("^TestANetworkKnowsTheRulesAroundIt$"),
		},
		{
			name: "a nested network does not see 0.0.0.0/0",
			file: compile,
			old:  "\t\t\tif around, _ := p.Addr().Prefix(bits); own[around] != nil {",
			new:  "\t\t\tif around, _ := p.Addr().Prefix(bits); bits > 0 && own[around] != nil {",
			seen: rules("^TestANetworkKnowsTheRulesAroundIt$"),
		},
		{
			name: "rules for any client are lost in a network that a rule names",
			file: compile,
			old:  "\t\twhole := t.anyClient\n",
			new:  "\t\twhole := ruleSet{}\n",
			seen: rules("^TestTablesDecideAsARuleByRuleWalk$"),
		},
		{
			name: "a key that lists nothing takes anything",
			file: compile,
			old:  "\t\tif list == nil {\n\t\t\ttable.others.add(i)",
			new:  "\t\tif len(list) == 0 {\n\t\t\ttable.others.add(i)",
			seen: rules("^TestTablesDecideAsARuleByRuleWalk$"),
		},
		{
			name: "a fingerprint is asked for by the first rule alone",
			file: "policy/decide.go",
			old:  "\t\t\tset.and(ja4)\n",
			new:  "",
			seen: rules("^TestTablesDecideAsARuleByRuleWalk$"),
		},
	}
}

// forceMutants take what is in force, or may be, for something else.
func forceMutants() []mutant {
	const compile, rule = "policy/compile.go", "policy/rule.go"
	return []mutant{
		{
			name: "a cut-over does not end what may be served",
			file: rule,
			old:  "return r.Mode == Enforce && r.always() && r.within(t) && r.forEverybodyAt(listener)",
			new:  "return false",
			seen: rules("^TestFromWhenOnNobodyCanBeServedBelowTheFloor$"),
		},
		{
			name: "an exemption before a cut-over is forgotten in what may be served",
			file: "policy/policy.go",
			old:  "if r.Mode != Enforce && r.takesAny(listener) &&",
			new:  "if r.Mode != Enforce && r.Match == nil && r.takesAny(listener) &&",
			seen: rules("^TestFromWhenOnNobodyCanBeServedBelowTheFloor$"),
		},
		{
			name: "brownouts are taken for a cut-over in what may be served",
			file: rule,
			old:  "return r.Schedule == nil && (r.Share == nil || r.Share.From == 1 && r.Share.To == 1)",
			new:  "return r.Share == nil || r.Share.From == 1 && r.Share.To == 1",
			seen: rules("^TestFromWhenOnNobodyCanBeServedBelowTheFloor$"),
		},
		{
			name: "a candidate is judged by the real floor",
			file: "policy/decide.go",
			old:  "v.judged[f] = f.judge(h, at.Keys)",
			new:  "v.judged[f] = s.Floor.judge(h, at.Keys)",
			seen: rules("^TestCandidatesAreJudgedBesideTheFloor$"),
		},
		{
			name: "a candidate judges the handshake",
			file: "policy/decide.go",
			old:  "v.judged[f] = f.judge(h, at.Keys)",
			new:  "v.judged[f] = f.judge(h, at.Keys)\n\t\t\tv.Reason = v.judged[f]",
			seen: rules("^TestCandidatesAreJudgedBesideTheFloor$"),
		},
		{
			name: "the mode metric counts a rule with a share",
			file: "policy/policy.go",
			old:  "if r.Share == nil && (r.Match == nil ||",
			new:  "if (r.Match == nil ||",
			seen: rules("^TestWhatTheModeMetricSays$"),
		},
		{
			name: "a snapshot outlives the first rule that begins",
			file: "policy/policy.go",
			old:  "\t\treturn earlier(r.From, limit)\n",
			new:  "\t\treturn limit\n",
			seen: rules("^TestASnapshotHoldsUntilARuleComesOrGoes$"),
		},
		{
			name: "a snapshot stays valid when the clock is set back",
			file: "policy/policy.go",
			old:  "return !t.Before(s.since) && t.Before(s.Until)",
			new:  "return t.Before(s.Until)",
			seen: rules("^TestASnapshotIsNotValidOutsideItsTime$"),
		},
	}
}

// scheduleMutants open and close windows at the wrong time.
func scheduleMutants() []mutant {
	const file = "policy/schedule.go"
	days := rules("^TestBrownoutsOnTheDaysWhenClocksChange$")
	return []mutant{
		{
			name: "a minute that comes twice counts once",
			file: file,
			old:  "\t\t\tif left&1 != 0 {\n\t\t\t\treturn t, true",
			new:  "\t\t\tif left&1 != 0 && time.Date(local.Year(), local.Month(), local.Day(), hour, minute, 0, 0, s.Zone).Equal(t) {\n\t\t\t\treturn t, true",
			seen: days,
		},
		{
			name: "the search runs past a change of clocks",
			file: file,
			old:  "end.After(local) && end.Before(t) {",
			new:  "false && end.Before(t) {",
			seen: rules("^TestTheNextAndTheLastBrownout$"),
		},
		{
			name: "the search backwards runs past a change of clocks",
			file: file,
			old:  "!begin.After(local) && t.Before(begin) {",
			new:  "false && t.Before(begin) {",
			seen: rules("^TestTheNextAndTheLastBrownout$"),
		},
		{
			name: "a search does not end in a leap year after 2037",
			file: file,
			old:  "end.After(local) && end.Before(t) {",
			new:  "!end.IsZero() && end.Before(t) {",
			seen: rules("^TestTheSearchEndsInFarYears$"),
		},
		{
			name: "windows go by UTC",
			file: file,
			old:  "Join(fields, \" \"), For: open, Zone: zone}",
			new:  "Join(fields, \" \"), For: open, Zone: time.UTC}",
			seen: days,
		},
		{
			name: "day of the month and day of the week must both match",
			file: file,
			old:  "\t\treturn inMonth || inWeek\n",
			new:  "\t\treturn inMonth && inWeek\n",
			seen: rules("^TestADayOfTheMonthOrOfTheWeekWillDo$"),
		},
		{
			name: "a day that begins with * restricts the other",
			file: file,
			old:  "fields[2][0] != '*' && fields[4][0] != '*'",
			new:  "fields[2] != \"*\" && fields[4] != \"*\"",
			seen: rules("^TestADayOfTheMonthOrOfTheWeekWillDo$"),
		},
		{
			name: "a window is still open at its end",
			file: file,
			old:  "\t_, ok := s.previous(t, t.Add(-s.For))\n",
			new:  "\t_, ok := s.previous(t, t.Add(-s.For-1))\n",
			seen: rules("^TestABrownoutLastsInElapsedTime$"),
		},
		{
			name: "windows that meet are two",
			file: file,
			old:  "again, _ := s.previous(end, opened)",
			new:  "again, _ := s.previous(end.Add(-1), opened)",
			seen: rules("^TestWindowsThatMeetAreOne$"),
		},
		{
			name: "a schedule may begin out of its range",
			file: file,
			old:  "(first < f.min || first > f.max) {",
			new:  "first < 0 {",
			seen: rules("^TestWhatIsNoSchedule$"),
		},
		{
			name: "a month that is passed over takes the next one with it",
			file: file,
			old:  "max(1, 29-local.Day())",
			new:  "max(1, 32-local.Day())",
			seen: rules("^TestTheNextAndTheLastBrownout$"),
		},
	}
}

// shareMutants give clients another answer than the last time.
func shareMutants() []mutant {
	const file = "policy/share.go"
	return []mutant{
		{
			name: "every address of an IPv6 network has its own place in a share",
			file: file,
			old:  "return binary.BigEndian.Uint64(b[:8])\n}\n\n// shuffleOf",
			new:  "return binary.BigEndian.Uint64(b[:8]) ^ binary.BigEndian.Uint64(b[8:])\n}\n\n// shuffleOf",
			seen: rules("^TestAClientIsItsNetwork$"),
		},
		{
			name: "an IPv4-mapped client has another place in a share",
			file: file,
			old:  "\tclient = client.Unmap()\n",
			new:  "",
			seen: rules("^TestAClientIsItsNetwork$"),
		},
		{
			name: "a share that grows throws the dice anew",
			file: file,
			old:  "return s.position(r, client, dice) < s.at(r, t)",
			new:  "return s.position(r, client, dice) > 1-s.at(r, t) || s.position(r, client, dice) < s.at(r, t)/2",
			seen: rules("^TestAShareOfTheClientsIsWhatItSays$"),
		},
		{
			name: "a growing share takes the others each day",
			file: file,
			old:  "return s.position(r, client, dice) < s.at(r, t)",
			new:  "p := s.position(r, client, dice) + float64(t.Unix()/86400%2)/2\n\tif p >= 1 {\n\t\tp--\n\t}\n\treturn p < s.at(r, t)",
			seen: rules("^TestAClientOnceInIsNeverOutWhileTheShareGrows$"),
		},
		{
			name: "every rule shuffles clients alike",
			file: file,
			old:  "sha256.Sum256([]byte(name))",
			new:  "sha256.Sum256([]byte(name[:0]))",
			seen: rules("^TestRulesShuffleEachAnew$"),
		},
		{
			name: "a change of the hash in the middle of a ramp",
			file: file,
			old:  "return x ^ x>>33",
			new:  "return x ^ x>>32",
			seen: rules("^TestEveryReplicaGivesTheSameAnswer$"),
		},
		{
			name: "connections go by the client's place",
			file: file,
			old:  "if !s.Connection {",
			new:  "if true {",
			seen: rules("^TestAShareOfTheConnectionsGoesByTheDice$"),
		},
		{
			name: "a share grows from nothing, whatever it says",
			file: "policy/rule.go",
			old:  "return s.From + (s.To-s.From)*",
			new:  "return s.To *",
			seen: rules("^TestAClientOnceInIsNeverOutWhileTheShareGrows$"),
		},
	}
}

// policyFileMutants accept a file that is wrong.
func policyFileMutants() []mutant {
	bad := rules("^TestABadFileIsToldWithLineRuleAndReason$")
	return []mutant{
		{
			name: "an unknown key is passed over",
			file: "policy/yaml.go",
			old:  "\t\tcase !known:\n",
			new:  "\t\tcase !known:\n\t\t\tcontinue\n\t\tcase false:\n",
			seen: bad,
		},
		{
			name: "a rule may end before it begins",
			file: "policy/parse.go",
			old:  "!r.From.Before(r.Until) {",
			new:  "r.From.Equal(r.Until) {",
			seen: bad,
		},
		{
			name: "an empty schedule is always open",
			file: "policy/parse.go",
			old:  "\tif s == \"\" {\n\t\treturn \"\", errNotFive\n\t}\n",
			new:  "",
			seen: bad,
		},
		{
			name: "a share may grow without dates",
			file: "policy/parse.go",
			old:  "if r.ramp && (",
			new:  "if false && (",
			seen: bad,
		},
		{
			name: "only the first problem of a file is told",
			file: "policy/parse.go",
			old:  "return nil, f.problems.sorted()",
			new:  "return nil, f.problems.sorted()[:1]",
			seen: rules("^TestEverythingThatIsWrongIsToldAtOnce$"),
		},
		{
			name: "the zone Local differs by replica",
			file: "policy/parse.go",
			old:  ` || s == "Local"`,
			new:  "",
			seen: bad,
		},
		{
			name: "an alias makes a file stand for very much",
			file: "policy/yaml.go",
			old:  "w.values > maxValues {",
			new:  "false {",
			seen: rules("^TestTooMuchIsToldOnce$"),
		},
	}
}
