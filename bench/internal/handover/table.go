package handover

import (
	"fmt"
	"strings"
)

// Table has a column for each way.
func Table(results []*Result) string {
	var b strings.Builder
	line := func(title string, cell func(r *Result) string) {
		fmt.Fprintf(&b, "| %s |", title)
		for _, r := range results {
			fmt.Fprintf(&b, " %s |", cell(r))
		}
		b.WriteByte('\n')
	}
	line("", func(r *Result) string { return r.Way })
	b.WriteString(strings.Repeat("|---", len(results)+1) + "|\n")
	line("replacements", func(r *Result) string { return fmt.Sprint(r.Replacements) })
	line("sessions that stay", func(r *Result) string { return fmt.Sprint(r.Sessions) })
	line("logins a second", func(r *Result) string { return fmt.Sprint(r.PerSecond) })
	line("logins that ended as they should", func(r *Result) string { return fmt.Sprint(r.Logins) })
	line("connections refused, reset, cut, otherwise failed", func(r *Result) string {
		return fmt.Sprintf("%d, %d, %d, %d", r.Refused, r.Reset, r.Cut, r.OtherFailed)
	})
	line("handshakes; of old clients; in the ledger", func(r *Result) string {
		return fmt.Sprintf("%d; %d; %d", r.Handshakes, r.Legacy, r.LedgerLegacy)
	})
	line("handover, ms: median, longest", func(r *Result) string { return fmt.Sprintf("%.0f, %.0f", r.HandoverMS, r.HandoverWorstMS) })
	line("login, ms: median, 99 %, longest", func(r *Result) string {
		return fmt.Sprintf("%.0f, %.0f, %.0f", r.LoginP50MS, r.LoginP99MS, r.LoginMaxMS)
	})
	line("processes at a time, PSS of both in MB", func(r *Result) string { return fmt.Sprintf("%d, %.0f", r.MostProcesses, r.BothMB) })
	line("took", func(r *Result) string { return r.Took })
	return b.String()
}
