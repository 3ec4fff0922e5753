package main

// apiMutants tell wrongly who is left, or let a stranger's words do something.
func apiMutants() []mutant { return append(listMutants(), pageMutants()...) }

// listMutants tell wrongly who is left.
func listMutants() []mutant {
	const (
		clients, query, table = "internal/admin/clients.go", "internal/admin/clients_query.go", "internal/admin/clients_csv.go"
		page                  = "internal/admin/page.go"
	)
	return []mutant{
		{
			name: "a cell that begins with a tab is not defused",
			file: table,
			old:  `"=+-@\t\r\n"`,
			new:  `"=+-@\r\n"`,
			seen: adminUnit("^TestForgedTextDoesNoHarmInJSONAndCSV$"),
		},
		{
			name: "formulas reach the spreadsheet",
			file: table,
			old:  "cells[i] = defuse(cell)",
			new:  "cells[i] = cell",
			seen: adminUnit("^TestForgedTextDoesNoHarmInJSONAndCSV$"),
		},
		{
			name: "a CSV has one page alone",
			file: table,
			old:  `q.limit > 0 || next == ""`,
			new:  `q.limit >= 0 || next == ""`,
			seen: adminUnit("^TestCSVHasAllClientsUnlessLimited$"),
		},
		{
			name: "a CSV that breaks off looks whole",
			file: table,
			old:  "\t\t\tpanic(http.ErrAbortHandler)\n",
			new:  "\t\t\treturn\n",
			seen: adminUnit("^TestACSVThatBreaksOffIsNoWholeAnswer$"),
		},
		{
			name: "the total is that of all clients",
			file: clients,
			old:  "c.Store.Count(r.Context(), q.filter)",
			new:  "c.Store.Count(r.Context(), ledger.Filter{})",
			seen: adminUnit("^TestClientsAreFiltered$"),
		},
		{
			name: "the rule is asked for another address",
			file: clients,
			old:  "Port: c.Port, Client: c.Addr}",
			new:  "Port: c.Port}",
			seen: adminUnit("^TestClientsAreToldAsJSON$"),
		},
		{
			name: "an unknown parameter is passed over",
			file: query,
			old:  "\t\tcase !known:\n",
			new:  "\t\tcase !known && false:\n",
			seen: adminUnit("^TestWhatIsWrongWithAQueryIsSaid$"),
		},
		{
			name: "an empty account is everybody's",
			file: query,
			old:  `s == "" || !utf8.ValidString(s)`,
			new:  `!utf8.ValidString(s)`,
			seen: adminUnit("^TestWhatIsWrongWithAQueryIsSaid$"),
		},
	}
}

// pageMutants put something else on the page.
func pageMutants() []mutant {
	const (
		clients, query, table = "internal/admin/clients.go", "internal/admin/clients_query.go", "internal/admin/clients_csv.go"
		page                  = "internal/admin/page.go"
	)
	return []mutant{
		{
			name: "the page answers to who may not ask the API",
			file: "internal/admin/admin.go",
			old:  "mux.Handle(path, guard.protect(protected))",
			new:  `if path == "/{$}" { mux.Handle(path, protected) } else { mux.Handle(path, guard.protect(protected)) }`,
			seen: adminUnit("^TestThePageHasTheRulesOfTheAPI$"),
		},
		{
			name: "a browser may put the page into a frame",
			file: page,
			old:  "; frame-ancestors 'none'",
			new:  "",
			seen: adminUnit("^TestForgedTextDoesNoHarmOnThePage$"),
		},
		{
			name: "a long name fills the page",
			file: page,
			old:  "return shorten(s, maxShown)",
			new:  "return s",
			seen: adminUnit("^TestForgedTextDoesNoHarmOnThePage$"),
		},
		{
			name: "the chart begins a day late",
			file: "internal/admin/chart.go",
			old:  "Add(-(chartDays - 1) * day)",
			new:  "Add(-(chartDays - 2) * day)",
			seen: adminUnit("^TestTheChartHasABarForEachDay$"),
		},
		{
			name: "every page reads the whole trend anew",
			file: "internal/admin/trend.go",
			old:  "max(trendFresh, trendRest*took)",
			new:  "min(0, trendRest*took)",
			seen: adminUnit("^TestReadingTheTrendIsSharedAndMayFail$"),
		},
		{
			name: "windows of a schedule push the cut-over off the page",
			file: "internal/admin/page_policy.go",
			old:  "if i := told[key]; i > 0 {",
			new:  "if i := told[key]; i < 0 {",
			seen: adminUnit("^TestWindowsOfAScheduleAreToldOnce$"),
		},
		{
			name: "what the policy is said to do now leaves an open schedule out",
			file: "internal/admin/page_policy.go",
			old:  "\t\t\t\topen = l.Rule\n",
			new:  "",
			seen: adminUnit("^TestWindowsOfAScheduleAreToldOnce$"),
		},
		{
			name: "the page counts nobody",
			file: "cmd/postern/ledger.go",
			old:  "\tg.book.last.Store(&counted{counts, now})\n",
			new:  "",
			seen: check{pkg: "test/clients", run: "^TestWhoIsLeftIsToldWithinSeconds$"},
		},
		{
			name: "a rule is said to take who stands outside its share",
			file: "policy/explain.go",
			old:  "if step.ask(c, t); step.Answer == Takes {",
			new:  "if step.ask(c, t); step.Answer == Takes || step.Answer == OutsideShare {",
			seen: check{pkg: "policy", run: "^TestAnExplanationAgreesWithDecide$"},
		},
	}
}
