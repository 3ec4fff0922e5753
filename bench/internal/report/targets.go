package report

// Target is what one figure of Postern's is to be at most.
type Target struct {
	Title        string
	Measure, Key string
	// Limit is the highest ratio to a peer (Against) or to another figure of
	// Postern's own in the same measure (Of), or else a number of Units.
	Limit   float64
	Against string
	Of      string
	Than    string // what Of is, in words
	Unit    string
	Format  string
	// Idle: the figure is the one at the most idle sessions.
	Idle bool
	// Flat: the highest of the figures at all numbers of idle sessions, divided
	// by the lowest of them.
	Flat bool
	// Worst: every round has to meet it.
	Worst bool
	// Shown: there is no limit.
	Shown bool
}

// Targets are judged in this order.
var Targets = []Target{
	{Title: "memory per idle session", Measure: "idle", Key: "pss_kb", Idle: true, Limit: 0.9, Against: "haproxy", Unit: "KB", Format: "%.1f"},
	{Title: "the same after 1 MB to the client", Measure: "used", Key: "down_kb", Limit: 20, Unit: "KB", Format: "%.1f"},
	{Title: "the same after 1 MB from the client too", Measure: "used", Key: "up_kb", Limit: 20, Unit: "KB", Format: "%.1f"},
	{Title: "memory 10 s after all left, by empty", Measure: "idle", Key: "after_mb", Of: "empty_mb", Than: "empty", Limit: 2, Unit: "MB", Format: "%.1f"},
	{Title: "session", Measure: "session", Key: "cpu_ms", Limit: 0.85, Against: "haproxy", Unit: "ms", Format: "%.3f"},
	{Title: "session", Measure: "session", Key: "cpu_ms", Limit: 1, Against: "nginx-stream", Unit: "ms", Format: "%.3f"},
	{Title: "full TLS 1.3 handshake", Measure: "full13", Key: "cpu_ms", Limit: 1.05, Against: "nginx-stream", Unit: "ms", Format: "%.3f"},
	{Title: "resumed TLS 1.3 handshake", Measure: "resume13", Key: "cpu_ms", Limit: 1.05, Against: "nginx-stream", Unit: "ms", Format: "%.3f"},
	{Title: "full TLS 1.2 handshake, RSA", Measure: "full12rsa", Key: "cpu_ms", Limit: 2.1, Against: "haproxy", Unit: "ms", Format: "%.3f"},
	{Title: "TLS 1.0 rejected, logged", Measure: "legacylog", Key: "cpu_us", Limit: 0.8, Against: "nginx-mail", Unit: "µs", Format: "%.1f"},
	{Title: "bulk, IMAP", Measure: "bulk", Key: "cpu_s_gb", Limit: 0.8, Against: "haproxy", Unit: "s/GB", Format: "%.3f"},
	{Title: "bulk, POP3", Measure: "bulkpop3", Key: "cpu_s_gb", Limit: 0.8, Against: "haproxy", Unit: "s/GB", Format: "%.3f"},
	{Title: "round trip, 64 connections, CPU", Measure: "rtt", Key: "cpu_us", Limit: 1.05, Against: "nginx-stream", Unit: "µs", Format: "%.1f"},
	{Title: "round trip, 1 connection, p50", Measure: "rtt", Key: "one_p50_us", Limit: 1, Against: "haproxy", Unit: "µs", Format: "%.0f"},
	{Title: "storm of 2,000, CPU each", Measure: "storm", Key: "cpu_ms", Limit: 0.8, Against: "haproxy", Unit: "ms", Format: "%.3f"},
	{Title: "storm of 2,000, failures", Measure: "storm", Key: "failed", Limit: 0, Worst: true, Format: "%.0f"},
	{Title: "start to first handshake", Measure: "startup", Key: "ms", Limit: 20, Unit: "ms", Format: "%.1f"},
	{Title: "handshake beside idle sessions, dearest by cheapest", Measure: "idle", Key: "hs_cpu_ms", Flat: true, Limit: 1.15, Unit: "ms", Format: "%.3f"},
	{Title: "CPU of idle sessions, of a core", Measure: "idle", Key: "idle_cpu_pct", Idle: true, Limit: 0.5, Unit: "%", Format: "%.2f"},
}
