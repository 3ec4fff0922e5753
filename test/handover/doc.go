// Package handover tests, through the built binary, listening sockets that come from
// systemd or from the Postern before, and what systemd hears. Its tests are for Linux.
package handover
