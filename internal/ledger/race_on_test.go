//go:build race

package ledger

// slower is how much slower the race detector makes everything.
const slower = 15
