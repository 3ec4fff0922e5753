package main

func memoryUnit(run string) check { return check{pkg: "internal/memory", run: run} }

// memoryMutants let the process grow, or collect without end.
func memoryMutants() []mutant {
	const decide, memory, program = "internal/memory/decide.go", "internal/memory/memory.go", "internal/memory/program_linux.go"
	return []mutant{
		{
			name: "a large heap may grow by six times itself",
			file: decide,
			old:  "min(max(headroom*100/max(r.live+r.roots, 1), leastPercent), mostPercent)",
			new:  "mostPercent + 0*min(r.live, headroom)",
			seen: memoryUnit("^TestThePercentageFollowsTheHeap$"),
		},
		{
			name: "the percentage is set once and never again",
			file: memory,
			old:  "\truntime.AddCleanup(new(sentinel), (*pacer).collected, p)\n",
			new:  "\t_ = new(sentinel)\n",
			seen: memoryUnit("^TestThePercentageFollowsTheHeap$"),
		},
		{
			name: "an operator's GOGC is overridden",
			file: memory,
			old:  `os.Getenv("GOGC") == ""`,
			new:  `os.Getenv("GOGC") != "off"`,
			seen: memoryUnit("^TestGOGCStaysInForce$"),
		},
		{
			name: "memory is collected and handed back in the midst of a load",
			file: decide,
			old:  "return quiet && !r.at.Before(k.until)",
			new:  "return (quiet || k.peak > 0) && !r.at.Before(k.until)",
			seen: memoryUnit("^TestNothingIsHandedBackUnderSteadyLoad$"),
		},
		{
			name: "handing back does not rest",
			file: decide,
			old:  "until: r.at.Add(max(restAtLeast, restFactor*took))",
			new:  "until: r.at.Add(min(0, took))",
			seen: memoryUnit("^TestHandingBackRests$"),
		},
		{
			name: "what sessions held that have left stays until there is garbage",
			file: decide,
			old:  "r.free + gone(r.live, k.sessions, r.sessions)",
			new:  "r.free",
			seen: memoryUnit("^TestWhatSessionsHeldThatHaveLeftIsHandedBack$"),
		},
		{
			name: "pages that the dynamic linker has changed are thrown away",
			file: program,
			old:  "\t\t\tif readOnly && clean {\n",
			new:  "\t\t\tif readOnly {\n",
			seen: memoryUnit("^TestOnlyPagesThatTheFileHasTooAreLetGo$"),
		},
	}
}
