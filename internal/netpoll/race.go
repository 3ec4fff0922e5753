//go:build race

package netpoll

import (
	"runtime"
	"unsafe"
)

// The race detector does not see what the kernel does with a buffer; it is told.

func raceWrite(p []byte) { runtime.RaceWriteRange(unsafe.Pointer(unsafe.SliceData(p)), len(p)) }

func raceRead(p []byte) { runtime.RaceReadRange(unsafe.Pointer(unsafe.SliceData(p)), len(p)) }
