//go:build !linux

package ledger

// lowPriority does nothing: a thread has no priority of its own here.
func lowPriority() {}
