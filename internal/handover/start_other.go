//go:build !linux

package handover

import (
	"errors"
	"time"
)

// Start starts nothing.
func (given Given) Start() (*Link, error) { return nil, errors.New("only on Linux") }

func (*Link) waitEnd(time.Duration) {}
