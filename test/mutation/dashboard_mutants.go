package main

// dashboardMutants tell those who look at a dashboard what is not so.
func dashboardMutants() []mutant {
	exemptions := check{pkg: "metrics", run: "^TestExemptionsSayWhenTheyEnd$"}
	clients := check{pkg: "metrics", run: "^TestLegacyClientsAreThoseOfTheLastCount$"}
	// A real Prometheus and the whole dashboard: half a minute.
	queries := check{pkg: "test/dashboards", run: "^TestEveryQueryAndEveryRuleFindsWhatItAsksFor$"}
	return []mutant{
		{
			name: "an exemption ends when it begins",
			file: "metrics/policy.go",
			old:  "float64(r.Until.Unix())",
			new:  "float64(r.From.Unix())",
			seen: exemptions,
		},
		{
			name: "a rule with an owner is an exemption without an end",
			file: "metrics/policy.go",
			old:  "if r.Exemption() {",
			new:  `if r.Owner != "" {`,
			seen: exemptions,
		},
		{
			name: "any rule with an end is an exemption",
			file: "metrics/policy.go",
			old:  "if r.Exemption() {",
			new:  "if !r.Until.IsZero() {",
			seen: exemptions,
		},
		{
			name: "an exemption that has ended is not told of",
			file: "metrics/policy.go",
			old:  "if r.Exemption() {",
			new:  "if r.Exemption() && t.Before(r.Until) {",
			seen: exemptions,
		},
		{
			name: "old clients that are gone stay in the gauges",
			file: "metrics/clients.go",
			old:  "\t\t\t\tm.clients.at(i, j, k).Store(int64(now[clientsKey{l, v, w}]))",
			new:  "\t\t\t\tif n := now[clientsKey{l, v, w}]; n > 0 {\n\t\t\t\t\tm.clients.at(i, j, k).Store(int64(n))\n\t\t\t\t}",
			seen: clients,
		},
		{
			name: "old clients of one version stand under every version",
			file: "metrics/clients.go",
			old:  "\t\tnow[clientsKey{c.Listener, c.Version, c.Window}] = c.Clients",
			new:  "\t\tnow[clientsKey{c.Listener, c.Version, c.Window}] = c.Clients\n\t\tnow[clientsKey{c.Listener, Any, c.Window}] = c.Clients",
			seen: clients,
		},
		{
			name: "nobody tells when the policy was read",
			file: "metrics/policy.go",
			old:  `f.gauge("policy_last_reload_timestamp_seconds"`,
			new:  `f.gauge("policy_reload_timestamp_seconds"`,
			seen: queries,
		},
		{
			name: "a scanner is an old client until it has shown sixty-four hellos",
			file: "internal/ledger/noise.go",
			old:  "burstHellos = 8",
			new:  "burstHellos = 64",
			seen: queries,
		},
	}
}
