// Package posterntest runs the built postern binary for tests that look at it
// from outside: over its ports, its metrics, its log and its exit code.
//
// A test package that starts proxies has
//
//	func TestMain(m *testing.M) { posterntest.Main(m) }
//
// so that the binary is removed at the end.
package posterntest
