//go:build !linux

package handover

import "errors"

// Start starts nothing.
func (given Given) Start() (*Link, error) { return nil, errors.New("only on Linux") }
